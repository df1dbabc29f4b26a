"""Checkpoints of one engine are the other's: runs that change it end with the bits of one that was left alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from both import ENGINES, LEARNING, NORMED, by_mmengine, differing, folder, forget, network, saved, with_bank
from both import normed as normed  # a fixture
from PIL import Image
from tiny import OPTIONS, tiny_data, tiny_options, write_images

from rainoerme_plugin.commands import main
from rainoerme_plugin.config import Request
from rainoerme_plugin.errors import RainOerMeError, WeightsError
from rainoerme_plugin.training.checkpoints import last_good, open_checkpoint

LAST, HALF = 12, 6
MILESTONE = {"_delete_": True, "type": "MultiStepRestartLR", "milestones": [HALF], "gamma": 0.1}
"""The rate falls right after the iteration where runs are stopped."""
COSINE = {"_delete_": True, "type": "CosineLR"}
PARTS = {
    "_delete_": True,
    "type": "DistillationNet",
    "backbone": {"type": "RainOerMeNet", "channels": 4, "start": "kaiming"},
}
CHANCE = {**NORMED, "backbone": {"type": "Normed", "chance": 0.5}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def run(engine: str, options: Path, root: Path, *overrides: str, resume: bool = False) -> None:
    ENGINES[engine](Request(options, overrides, root=root, auto_resume=resume))


def stopped_at_half(engine: str, options: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by SIGTERM in iteration HALF, so that the option file stays the same."""
    import signal

    from rainoerme_plugin.training.distiller import Distiller

    gradients = Distiller.gradients

    def stopping(self: Distiller, images: Any, weights: Any, iteration: int, *more: Any, **options: Any) -> Any:
        if iteration == (HALF if engine == "basicsr" else HALF - 1):  # mmengine's loop asks before an iteration
            signal.raise_signal(signal.SIGTERM)
        return gradients(self, images, weights, iteration, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "gradients", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(engine, options, root)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train__scheduler": MILESTONE, "train__warmup_iter": 3},
        {"train__scheduler": MILESTONE, "train__ema_decay": 0, "train__warmup_iter": 9},
        {"network_g": PARTS, "train__backbone": {"lr_factor": 0.1, "freeze_iter": 8}},
        {"network_g": NORMED, "train__precision": "float16"},
        {"network_g": CHANCE},
        {"train__optim_g__type": "NAdam", "train__scheduler": COSINE, "train__warmup_iter": 9, "train__grad_clip": 0.3},
        {"datasets__train__late_crop_size": 32, "datasets__train__late_from": 0.7},
        {"bank": 1.0, "none": 0.3, "grad_clip": 0.2},
        {"bank": 0.5},
        {"train__distillation__adversarial": {"weight": 0.1, "start": 3, "channels": 4, "layers": 2}},
    ],
    ids=[
        "plain",
        "milestone",
        "no mean",
        "parts",
        "statistics",
        "chance",
        "cosine",
        "late crops",
        "bank",
        "half of a bank",
        "adversarial",
    ],
)
@pytest.mark.usefixtures("normed")
def test_whoever_goes_on_the_end_is_the_same(
    data: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = with_bank(data, **changes) if "bank" in changes else {**LEARNING, **changes}
    options = tiny_options(data, **changes)
    for first in ENGINES:
        run(first, options, data / first)
        stopped_at_half(first, options, data / f"half by {first}", monkeypatch)
        assert (folder(data / f"half by {first}") / "models" / "net_g_latest.pth").exists() is False
        for second in ENGINES:
            root = data / f"{first} then {second}"
            shutil.copytree(data / f"half by {first}", root)
            run(second, options, root, resume=True)
            assert not differing(network(root), network(data / first)), root.name
            assert not differing(saved(root, LAST), saved(data / first, LAST)), root.name
            assert not list(root.glob("experiments/tiny_*")), "set aside"


def test_several_folders_below_root_with_weights_labels_and_late_crops(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(data / "more rainy", 3, seed=7, prefix="rain")
    write_images(data / "more clean", 1, seed=8)
    for name in ("rainy", "more rainy"):
        write_images(data / f"{name} labels", 3, seed=9)
    settings = {
        "dataroot_rainy": ["rainy", "more rainy"],
        "dataroot_clean": ["clean", "more clean"],
        "weights_rainy": [1, 2.5],
        "weights_clean": [3, 1],
        "label": {"_delete_": True, "type": "folder", "path": ["rainy labels", "more rainy labels"]},
        "label_cache": None,
        "late_crop_size": 32,
        "late_from": 0.7,
    }
    options = tiny_options(data, **LEARNING, **{f"datasets__train__{key}": value for key, value in settings.items()})
    roots = {name: data / name for name in ("whole", "half")}
    for root in roots.values():
        root.mkdir()
        for images in [path for path in data.iterdir() if "rainy" in path.name or "clean" in path.name]:
            (root / images.name).symlink_to(images)
    run("basicsr", options, roots["whole"])
    stopped_at_half("mmengine", options, roots["half"], monkeypatch)
    run("basicsr", options, roots["half"], resume=True)
    assert not differing(network(roots["half"]), network(roots["whole"]))
    assert not differing(saved(roots["half"], LAST), saved(roots["whole"], LAST))


def test_a_run_that_changes_its_engine_often(data: Path) -> None:
    options = tiny_options(data, **LEARNING)
    run("basicsr", options, data / "whole")
    for last, engine in enumerate(["mmengine", "basicsr", "mmengine", "mmengine", "basicsr", "mmengine"], 1):
        # Where the total is another, the rates are the checkpoint's (mmengine) or the file's (BasicSR): the same here.
        run(engine, options, data / "often", f"train.total_iter={2 * last}", resume=True)
    assert not differing(network(data / "often"), network(data / "whole"))
    assert not differing(saved(data / "often", LAST), saved(data / "whole", LAST))


def rates_of(data: Path, engine: str, options: Path, *overrides: str, resume: bool = False) -> list[float]:
    record = ENGINES[engine](Request(options, overrides, root=data, auto_resume=resume))
    return [rate for (rate,) in record.rates]


@pytest.mark.parametrize("second", ENGINES)
@pytest.mark.parametrize("first", ENGINES)
def test_a_longer_run_that_goes_on_takes_the_longer_schedule(data: Path, first: str, second: str) -> None:
    options = tiny_options(
        data, **{**LEARNING, "train__scheduler": {"type": "LinearDecayLR"}, "train__optim_g__lr": 1.0}, val=None
    )
    text = options.read_text()
    assert "end:" not in text
    found = rates_of(data, first, options, "train.total_iter=4")
    assert found == pytest.approx([1, 1, 1, 0.5])
    found = rates_of(data, second, options, "train.total_iter=12", resume=True)
    assert found == pytest.approx([1, 1, 1, *((12 - k) / 6 for k in range(7, 12))])


def test_mmengines_configs_say_what_a_run_is_too_short_for(data: Path) -> None:
    from mmengine.config import Config

    from rainoerme_plugin.mm.training import train

    file = data / "own.py"
    file.write_text(
        f"""
_base_ = "{OPTIONS / "mmengine" / "demo.py"}"
work_dir = "{data / "work"}"
model = dict(network=dict(channels=4))
train_dataloader = dict(
    batch_size=2, sampler=dict(batch_size=2),
    dataset=dict(dataroot_rainy="{data / "rainy"}", dataroot_clean="{data / "clean"}", crop_size=24))
val_dataloader = dict(dataset=dict(dataroot="{data / "val"}"))
param_scheduler = dict(scheduler=dict(end=3))
train_cfg = dict(max_iters=4)
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
"""
    )
    assert Config.fromfile(file).train_cfg.val_interval == 600
    try:
        train(Request(file, root=data))
    finally:
        forget()
    said = "".join(log.read_text() for log in (data / "work").glob("*/*.log"))
    for told in (
        "WARNING - param_scheduler: the rate is 0 for the last 1 iteration: end is 3 (max_iters: 4)",
        "WARNING - train.distillation.warmup: the second stage never begins",
        "WARNING - val.val_freq: 600 is more than the run has",
        "WARNING - logger.save_checkpoint_freq: 300 is more than the run has",
    ):
        assert said.count(told) == 1, told


@pytest.mark.parametrize("engine", ENGINES)
def test_option_files_are_told_once(data: Path, engine: str) -> None:
    run(engine, tiny_options(data, **LEARNING, val=None), data, "train.total_iter=4", "train.scheduler.end=7")
    said = "".join(file.read_text() for file in (*folder(data).glob("*/*.log"), *folder(data).glob("*.log")))
    told = r"WARNING\W+train.scheduler: the rate never falls: it would from iteration 6 on \(train.total_iter: 4\)"
    assert len(re.findall(told, said)) == 1


def test_who_goes_on_without_the_mean_goes_on_with_the_weights(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny_options(data, **LEARNING)
    stopped_at_half("mmengine", options, data / "half", monkeypatch)
    for engine in ENGINES:
        shutil.copytree(data / "half", data / engine)
        run(engine, options, data / engine, "train.ema_decay=0", resume=True)
    one, other = network(data / "basicsr"), network(data / "mmengine")
    assert not differing(one["params"], other["params"])
    assert "params_ema" not in other


def test_a_checkpoint_is_whole_or_not_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(value: Any, file: Any, **options: Any) -> None:
        file.write(b"half of it") if hasattr(file, "write") else Path(file).write_bytes(b"half of it")
        raise KeyboardInterrupt

    options = tiny_options(data, **LEARNING)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            run("mmengine", options, data)
    assert not list(folder(data).glob("iter_*.pth"))
    run("mmengine", options, data, resume=True)
    assert (folder(data) / f"iter_{LAST}.pth").is_file()
    assert not list(folder(data).glob(".*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of mmengine's of a network with parts, with two checkpoints."""
    root = tiny_data(tmp_path_factory.mktemp("trained"))
    run("mmengine", tiny_options(root, **LEARNING, network_g=PARTS, val=None), root)
    return root


def test_checkpoints_hold_what_both_engines_look_for_and_load_safely(trained: Path) -> None:
    found = torch.load(folder(trained) / f"iter_{LAST}.pth", weights_only=True)
    parts = {key for key in found if key.startswith("params")}
    assert parts == {"params", "params_detail", "params_ema", "params_ema_detail"}
    assert found["meta"]["iter"] == LAST
    assert set(found["random"][0]) == {"python", "numpy", "torch"}
    assert found["options"]["name"] == "tiny"
    # mmengine's own names: the averaged weights in the place of the weights.
    for key, prefix in (("params_ema", "network.backbone."), ("params_ema_detail", "network.detail.")):
        own = {name: value for name, value in found["state_dict"].items() if name.startswith(prefix)}
        assert own, sorted(found["state_dict"])
        assert not differing({name.removeprefix(prefix): value for name, value in own.items()}, dict(found[key]))
    assert not differing(dict(found["params"]), network(trained)["params"])


@pytest.mark.parametrize("parts", [True, False], ids=["parts", "paper"])
def test_basicsr_derain_derains_by_its_mean(data: Path, parts: bool) -> None:
    options = tiny_options(data, **LEARNING, **({"network_g": PARTS} if parts else {}), val=None)
    run("mmengine", options, data)
    file = folder(data) / f"iter_{LAST}.pth"
    write_images(data / "in", 1, seed=5, prefix="rain")
    assert main(["derain", str(data / "in"), "-o", str(data / "out"), "--weights", str(file)]) == 0
    from rainoerme_plugin.archs.rainoerme import RainOerMeNet
    from rainoerme_plugin.registered.networks import DistillationNet

    net = DistillationNet(dict(PARTS["backbone"])) if parts else RainOerMeNet(4)
    states = torch.load(folder(data) / f"iter_{LAST}.pth", weights_only=True)
    net.load_state_dict({name.removeprefix("network."): value for name, value in states["state_dict"].items()})
    rainy = np.asarray(Image.open(data / "in" / "1.png").convert("RGB"))
    with torch.no_grad():
        derained = net.eval()(torch.from_numpy(rainy.copy()).permute(2, 0, 1)[None].float() / 255)
    wanted = (derained[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    found = np.asarray(Image.open(data / "out" / "1.png").convert("RGB"))
    assert np.array_equal(found, wanted)
    assert not np.array_equal(found, rainy)


def resumed(data: Path, file: Path, *overrides: str, **changes: Any) -> dict[str, Callable[[], None]]:
    """Going on from a file by either engine, in folders of their own."""
    options = tiny_options(data, **{**LEARNING, "network_g": PARTS, "val": None, **changes})
    return {
        engine: lambda engine=engine: run(engine, options, data / engine, f"path.resume_state={file}", *overrides)
        for engine in ENGINES
    }


def test_a_checkpoint_of_either_kind_can_be_named(data: Path, trained: Path) -> None:
    for engine, go_on in resumed(data, folder(trained) / f"iter_{HALF}.pth").items():
        go_on()
        assert not differing(network(data / engine), network(trained)), engine
    state = folder(data / "basicsr") / "training_states" / f"{LAST}.state"
    options = tiny_options(data, **{**LEARNING, "network_g": PARTS, "val": None, "train__total_iter": LAST + 2})
    for engine in ENGINES:
        run(engine, options, data / f"longer by {engine}", f"path.resume_state={state}")
    assert not differing(*(network(data / f"longer by {engine}") for engine in ENGINES))


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        found = torch.load(file, weights_only=True)
        change(found)
        torch.save(found, file)

    return apply


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-2000]),
    "a bit": lambda file: file.write_bytes(file.read_bytes()[:5000] + b"\xff\x00\xff" + file.read_bytes()[5003:]),
    "text": lambda file: file.write_text("no checkpoint"),
    "no dict": lambda file: torch.save([1, 2], file),
    "a network": lambda file: torch.save({"params": {"weight": torch.zeros(3)}}, file),
    "mmengine's own": lambda file: torch.save(
        {"meta": {"iter": 6, "epoch": 0}, "state_dict": {"weight": torch.zeros(3)}, "message_hub": {}}, file
    ),
    **{
        f"without {key}": changed(lambda found, key=key: found.pop(key))  # type: ignore[misc]
        for key in ("meta", "optimizer", "distillation", "state_dict", "message_hub")
    },
    **{
        f"{key}: {value!r}": changed(lambda found, key=key, value=value: found.update({key: value}))  # type: ignore[misc]
        for key, value in (
            ("meta", {}), ("meta", {"iter": "x"}), ("meta", 3), ("optimizer", 3), ("optimizer", [1]), ("optimizer", {}),
            ("distillation", 3), ("distillation", {"skipped": "x"}), ("param_schedulers", 3), ("random", [{}]),
            ("random", 3), ("param_schedulers", [{"base_lrs": 1}]),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_none_of_ours_is_refused_on_one_line(data: Path, trained: Path, damage: str) -> None:
    file = data / "iter_6.pth"
    shutil.copy(folder(trained) / "iter_6.pth", file)
    DAMAGES[damage](file)
    for engine, go_on in resumed(data, file).items():
        if (damage, engine) in (("without message_hub", "basicsr"), ("without state_dict", "basicsr")):
            continue  # what this engine has no need of
        with pytest.raises(RainOerMeError) as caught:
            go_on()
        assert "\n" not in str(caught.value)
        assert "iter_6.pth" in str(caught.value)
        assert not (folder(data / engine) / "models" / "net_g_latest.pth").exists()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_the_checkpoint_of_another_network_is_refused(data: Path, trained: Path, engine: str, ema: float) -> None:
    other = {**PARTS, "backbone": {"type": "RainOerMeNet", "channels": 6}}
    with pytest.raises(RainOerMeError) as caught:
        resumed(data, folder(trained) / "iter_6.pth", network_g=other, train__ema_decay=ema)[engine]()
    assert "iter_6.pth" in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ENGINES)
def test_the_last_good_one_of_both_kinds_is_gone_on_from(data: Path, engine: str, kind: str) -> None:
    options = tiny_options(data, **LEARNING, val=None)
    run("basicsr", options, data / "whole")
    run("basicsr", options, data / "run", "train.total_iter=4", "logger.save_checkpoint_freq=2")
    run("mmengine", options, data / "run", "train.total_iter=6", resume=True)
    last = folder(data / "run") / "iter_6.pth"
    if kind == "basicsr":  # and the last one is BasicSR's
        run("basicsr", options, data / "run", "train.total_iter=8", resume=True)
        last = folder(data / "run") / "training_states" / "8.state"
    states = folder(data / "run") / "training_states"
    found, problems = last_good(states)
    assert found is not None
    assert (found.path, problems) == (last, [])
    last.write_bytes(last.read_bytes()[:-500])
    found, problems = last_good(states)
    assert found is not None
    assert found.path == (states / "4.state" if kind == "mmengine" else folder(data / "run") / "iter_6.pth")
    assert len(problems) == 1
    assert str(last) in problems[0]
    run(engine, options, data / "run", resume=True)
    assert not differing(network(data / "run"), network(data / "whole"))


@pytest.mark.parametrize("engine", ENGINES)
def test_where_none_is_good_nothing_is_begun(data: Path, engine: str) -> None:
    options = tiny_options(data, **LEARNING, val=None)
    run("mmengine", options, data, "train.total_iter=2")
    file = folder(data) / "iter_2.pth"
    file.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"none of the 1 checkpoints .* can be used"):
        run(engine, options, data, resume=True)
    assert file.read_bytes() == b"damaged"


@pytest.mark.parametrize("first", ENGINES)
@pytest.mark.parametrize("second", ENGINES)
def test_a_run_that_has_come_to_its_end_is_left_as_it_is(data: Path, first: str, second: str) -> None:
    options = tiny_options(data, **LEARNING, val=None)
    other = "mmengine" if first == "basicsr" else "basicsr"
    run(other, options, data, "train.total_iter=4")  # whose checkpoints are older
    run(first, options, data, resume=True)
    before = network(data)
    run(second, options, data, resume=True)
    assert not differing(network(data), before)


@pytest.mark.parametrize(
    "wrong",
    [
        "network_g.type=NoNet", "network_g.channels=-1", "network_g.chanels=3", "train.scheduler.end=1",
        "train.optim_g.type=NoOptimiser", "train.optim_g.beta=3", "train.loss_opt.type=NoLoss", "train.accumulation=3",
        "datasets.val.dataroot=nowhere", "datasets.train.dataroot_clean=nowhere", "val.metrics.psnr.type=no_metric",
        "val.metrics.psnr.crop_boder=1", "path.pretrain_network_g=nowhere.pth", "path.resume_state=nowhere.pth",
        "train.backbone.lr_factor=1",
    ],
)  # fmt: skip
def test_an_older_run_is_set_aside_only_for_a_sound_one(data: Path, trained: Path, wrong: str) -> None:
    shutil.copytree(trained / "experiments", data / "experiments")
    options = tiny_options(data, **LEARNING)
    with pytest.raises(RainOerMeError) as caught:
        by_mmengine(Request(options, (wrong,), root=data))
    assert "\n" not in str(caught.value)
    assert [path.name for path in (data / "experiments").iterdir() if path.is_dir()] == ["tiny"]
    assert (folder(data) / f"iter_{LAST}.pth").exists()


def test_a_sound_run_sets_an_older_one_aside(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = tiny_options(data, **LEARNING, val=None)
    for _ in range(2):
        run("mmengine", options, data, "train.total_iter=2")
    aside = list((data / "experiments").glob("tiny_archived_*"))
    assert len(aside) == 1
    assert open_checkpoint(aside[0] / "iter_2.pth").iteration == 2
    assert "set aside" in capsys.readouterr().err


def test_only_so_many_checkpoints_are_kept(data: Path) -> None:
    options = tiny_options(data, **LEARNING, val=None, logger__keep_checkpoints=2)
    run("mmengine", options, data, "logger.save_checkpoint_freq=2")
    assert {path.name for path in folder(data).glob("*.pth")} == {"iter_10.pth", "iter_12.pth"}


def test_resuming_says_what_changed(data: Path) -> None:
    options = tiny_options(data, **LEARNING, val=None)
    run("basicsr", options, data, "train.total_iter=4")
    run("mmengine", options, data, resume=True)
    said = "".join(file.read_text() for file in folder(data).glob("*/*.log"))
    assert "changed since the checkpoint, whose rates are kept: train.total_iter: 4 -> 12" in said


@pytest.mark.parametrize("second", ENGINES)
@pytest.mark.parametrize("first", ENGINES)
def test_resuming_with_another_number_of_threads_says_so(data: Path, first: str, second: str) -> None:
    options, threads = tiny_options(data, **LEARNING, val=None), torch.get_num_threads()
    run(first, options, data, "train.total_iter=4")
    try:
        torch.set_num_threads(threads + 1)
        run(second, options, data, "train.total_iter=6", resume=True)
    finally:
        torch.set_num_threads(threads)
    said = "".join(file.read_text() for file in (*folder(data).glob("*/*.log"), *folder(data).glob("*.log")))
    assert said.count(f"the checkpoint was made with other threads: {threads} -> {threads + 1}. ") == 1
