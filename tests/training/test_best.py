"""The best network of a run, and the end of one that gets no better: alike in both engines, also after stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from both import ENGINES, LEARNING, differing, folder, forget
from PIL import Image
from safetensors.torch import load_file
from several import Ranks, end_all
from tiny import tiny_data, tiny_options, write_images
from torch import Tensor, nn

from rainoerme_plugin.commands import main
from rainoerme_plugin.config import Request
from rainoerme_plugin.errors import CollapseError, WeightsError
from rainoerme_plugin.training.best import BestCheckpoint, BestRule
from rainoerme_plugin.training.distiller import Distiller

BEST: dict[str, Any] = {**LEARNING, "val__val_freq": 2, "logger__save_checkpoint_freq": 1, "val__best__metric": "psnr"}
STOPPING = {**BEST, "val__best__patience": 3, "logger__save_checkpoint_freq": 3}
FIGURES = {2: 1.0, 4: 3.0, 6: 2.0, 8: nan, 10: 3.0, 12: 9.0}
"""Of the validations: with a patience of 3 iteration 4 is the best, and 10 the last."""


class Killed(BaseException):
    """As SIGKILL: nobody may save anything."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """What validations give, by iteration, in place of what they measure; they are done all the same."""
    script, judge = dict(FIGURES), BestCheckpoint.judge

    def scripted(self: BestCheckpoint, iteration: int, found: Mapping[str, float], networks: Any) -> None:
        assert set(found) >= {"psnr"}
        judge(self, iteration, {"psnr": script[iteration]}, networks)

    monkeypatch.setattr(BestCheckpoint, "judge", scripted)
    return script


def run(engine: str, options: Path, root: Path, *overrides: str, resume: bool = False) -> None:
    ENGINES[engine](Request(options, overrides, root=root, auto_resume=resume))


def killed(engine: str, options: Path, root: Path, iteration: int, *overrides: str, resume: bool = False) -> None:
    """Run until it is killed within an iteration."""
    gradients = Distiller.gradients

    def ending(self: Distiller, images: Any, weights: Any, current: int, *more: Any, **options: Any) -> Any:
        if current == iteration:
            raise Killed
        return gradients(self, images, weights, current, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distiller, "gradients", ending)
        with pytest.raises(Killed):
            run(engine, options, root, *overrides, resume=resume)


def best(root: Path) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = torch.load(folder(root) / "models" / "net_g_best.pth", weights_only=True)
    return found


def kept(root: Path, iteration: int | str) -> dict[str, dict[str, Tensor]]:
    """The network as a run's checkpoint of either engine has it."""
    file = folder(root) / "models" / f"net_g_{iteration}.pth"
    file = file if file.exists() else folder(root) / f"iter_{iteration}.pth"
    return {name: dict(part) for name, part in torch.load(file, weights_only=True).items() if name.startswith("params")}


def log(root: Path) -> str:
    files = [*folder(root).glob("train_*.log"), *folder(root).glob("*/*.log")]
    return "".join(file.read_text() for file in sorted(files))


# --- the rule ---


@pytest.mark.parametrize(
    ("figure", "best", "min_delta", "higher", "lower"),
    [
        (30.0, None, 5.0, True, True),
        (nan, None, 0.0, False, False),
        (nan, 30.0, 0.0, False, False),
        (30.5, 30.0, 0.0, True, False),
        (30.0, 30.0, 0.0, False, False),
        (30.5, 30.0, 0.5, True, False),
        (30.5, 30.0, 0.75, False, False),
        (29.5, 30.0, 0.5, False, True),
        (inf, 30.0, 1.0, True, False),
        (inf, inf, 0.0, False, False),
    ],
)
def test_what_counts_as_better(figure: float, best: float | None, min_delta: float, higher: bool, lower: bool) -> None:
    for better, expected in (("higher", higher), ("lower", lower)):
        rule = BestRule(dataset="val", metric="m", better=better, min_delta=min_delta)
        assert rule.is_gain(figure, best) is expected


def test_a_validation_that_is_done_again_counts_once(tmp_path: Path) -> None:
    told: list[str] = []
    rule = BestRule(dataset="val", metric="m", patience=2)
    keeper, network = BestCheckpoint(rule, tmp_path, told.append), nn.Linear(2, 2)
    for iteration, figure in ((10, 5.0), (20, 4.0), (20, 9.0), (20, 4.0), (10, 9.0)):
        keeper.judge(iteration, {"m": figure}, {"params": network})
        assert not keeper.ends_run
    keeper.judge(25, {"other": 9.0}, {"params": network})  # of no such figure
    assert not keeper.ends_run
    keeper.judge(30, {"m": 5.0}, {"params": network})
    assert keeper.ends_run
    assert told == ["m of val is the best so far: 5.0000 at iteration 10, net_g_best.pth"]
    (early, last) = keeper.told_at_end(early=True)
    assert early.startswith("Ended early, after iteration 30: m of val has not become better in 2 validations")
    assert last == f"Best m of val: 5.0000 at iteration 10, {tmp_path / 'net_g_best.pth'}"


def test_its_state_loads_safely_and_holds_the_network_as_it_was(tmp_path: Path) -> None:
    rule = BestRule(dataset="val", metric="m", measured_by={"type": "x", "crop_border": 0})
    keeper, network = BestCheckpoint(rule, tmp_path / "a", print), nn.Linear(2, 2)
    (tmp_path / "a").mkdir()
    keeper.judge(10, {"m": 5.0}, {"params": network})
    was = {"params": {name: value.clone() for name, value in network.state_dict().items()}}
    with torch.no_grad():
        network.weight.add_(1)
    torch.save(keeper.state_dict(), tmp_path / "state")
    (tmp_path / "b").mkdir()
    other = BestCheckpoint(rule, tmp_path / "b", print)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    other.settle()
    for place in "ab":
        assert not differing(torch.load(tmp_path / place / "net_g_best.pth", weights_only=True), was)
    other.judge(20, {"m": 4.0}, {"params": network})
    assert other.told_at_end(early=False) == [f"Best m of val: 5.0000 at iteration 10, {tmp_path}/b/net_g_best.pth"]


def test_with_another_patience_validations_are_counted_anew(tmp_path: Path) -> None:
    told: list[str] = []
    keeper = BestCheckpoint(BestRule(dataset="val", metric="m", patience=3), tmp_path, print)
    for iteration, figure in ((10, 5.0), (20, 4.0), (30, 4.0)):
        keeper.judge(iteration, {"m": figure}, {"params": nn.Linear(2, 2)})
    other = BestCheckpoint(BestRule(dataset="val", metric="m", patience=1), tmp_path, told.append)
    other.load_state_dict(keeper.state_dict())
    assert not other.ends_run
    other.judge(40, {"m": 4.5}, {"params": nn.Linear(2, 2)})
    assert other.ends_run
    assert "at iteration 10" in other.told_at_end(early=True)[1]
    assert len(told) == 1
    assert "validations are counted anew from here on; what was best stays" in told[0]


# --- in both engines ---


def test_the_best_is_the_network_of_that_iteration_in_both_and_patience_ends_both(
    data: Path, figures: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmengine.config.config.FormatCode", lambda text, **options: (text, False))  # which is slow
    options = tiny_options(data, **BEST, val__best__patience=3)
    for engine in ENGINES:
        command = ["train", "-opt", str(options), "--root", str(data / engine), "--device", "cpu", "--engine", engine]
        assert main(command) == 0
        forget()
        assert not differing(best(data / engine), kept(data / engine, 4)), engine
        models = folder(data / engine) / "models"
        assert not differing(load_file(models / "net_g_best.safetensors"), best(data / engine)["params_ema"])
        assert differing(best(data / engine)["params_ema"], best(data / engine)["params"])
        assert not differing(kept(data / engine, "latest"), kept(data / engine, 10)), engine
        said = log(data / engine)
        assert said.count("psnr of val is the best so far: ") == 2
        assert "Ended early, after iteration 10: psnr of val has not become better in 3 validations" in said
        assert f"Best psnr of val: 3.0000 at iteration 4, {models / 'net_g_best.pth'}" in said
    assert not differing(best(data / "basicsr"), best(data / "mmengine"))
    assert not differing(kept(data / "basicsr", "latest"), kept(data / "mmengine", "latest"))


def test_what_they_measure_decides(data: Path) -> None:
    """Lower may be better, of the data set that is named; the running mean is what was measured, or the network."""
    more = {"name": "more", "type": "PairedRainDataset", "dataroot": str(data / "val"), "limit": 1}
    changes = {
        "datasets__val_2": more,
        "val__metrics__psnr__better": "lower",
        "val__best__dataset": "more",
        "train__ema_decay": 0,
    }
    options = tiny_options(data, **{**BEST, **changes})
    record = ENGINES["basicsr"](Request(options, root=data / "basicsr"))
    run("mmengine", options, data / "mmengine")
    least = min(record.figures, key=lambda iteration: record.figures[iteration]["more/psnr"])
    assert least != max(record.figures), "the last one"
    assert set(best(data / "basicsr")) == {"params"}
    for engine in ENGINES:
        assert not differing(best(data / engine), kept(data / "basicsr", least))


def test_pruning_leaves_it(data: Path, figures: dict[int, float]) -> None:
    options = tiny_options(data, **BEST, logger__keep_checkpoints=1)
    figures[12] = 0.0
    for engine in ENGINES:
        run(engine, options, data / engine)
        assert "Best psnr of val: 3.0000 at iteration 4" in log(data / engine)
        assert best(data / engine)


def test_without_a_number_there_is_none(data: Path, figures: dict[int, float]) -> None:
    figures.update(dict.fromkeys(figures, nan))
    for engine in ENGINES:
        run(engine, tiny_options(data, **STOPPING), data / engine)
        assert not list(folder(data / engine).glob("models/net_g_best.*"))
        assert "There is no best network: no validation gave a number for psnr of val" in log(data / engine)
        assert "Ended early, after iteration 6" in log(data / engine)


# --- stopped and resumed ---


@pytest.mark.parametrize("stop", [5, 7, 10])
def test_a_run_that_is_killed_and_resumed_keeps_the_same_and_ends_alike(
    data: Path, figures: dict[int, float], stop: int
) -> None:
    """Checkpoints of iterations 3, 6, 9: the best may be newer than the last of them, and is found again."""
    options = tiny_options(data, **STOPPING)
    run("basicsr", options, data / "whole")
    for first in ENGINES:
        killed(first, options, data / first, stop)
        for second in ENGINES:
            root = data / f"{first} then {second}"
            shutil.copytree(data / first, root)
            run(second, options, root, resume=True)
            assert not differing(best(root), best(data / "whole")), root.name
            assert not differing(kept(root, "latest"), kept(data / "whole", "latest")), root.name
            assert "Ended early, after iteration 10" in log(root)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("last", [4, 5])
def test_a_run_that_is_killed_in_a_validation_does_it_again(
    data: Path, figures: dict[int, float], engine: str, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures[5] = 5.0
    options = tiny_options(data, **{**BEST, "train__total_iter": 5})

    def ending(self: BestCheckpoint, iteration: int, *_: Any) -> None:
        if iteration == last:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(BestCheckpoint, "judge", ending)
        with pytest.raises(Killed):
            run(engine, options, data)
    run(engine, options, data, resume=True)
    assert f"psnr of val is the best so far: {figures[last]:.4f} at iteration {last}" in log(data)
    assert not differing(best(data), kept(data, 5))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_has_ended_early_ends_at_once_when_it_is_resumed(
    data: Path, figures: dict[int, float], engine: str
) -> None:
    options = tiny_options(data, **{**STOPPING, "logger__save_checkpoint_freq": 5})
    run(engine, options, data)
    before = best(data), kept(data, "latest")
    run(engine, options, data, resume=True)
    assert not differing((best(data), kept(data, "latest")), before)
    assert log(data).count("Ended early, after iteration 10") == 2
    run(engine, options, data, "val.best.patience=4", resume=True)
    assert "validations are counted anew from here on; what was best stays" in log(data)
    assert "Best psnr of val: 9.0000 at iteration 12" in log(data)
    assert differing(best(data), before[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_of_a_future_that_does_not_come_again_is_forgotten(
    data: Path, figures: dict[int, float], engine: str
) -> None:
    options = tiny_options(data, **STOPPING)
    killed(engine, options, data, 5)  # after iteration 4 was the best, and the checkpoint of iteration 3
    newest = best(data)
    figures.update({4: 0.5, 6: 0.5, 8: 0.5})  # as on a GPU, where nothing comes again to the bit
    run(engine, options, data, resume=True)
    assert "Best psnr of val: 1.0000 at iteration 2" in log(data)
    assert "Ended early, after iteration 8" in log(data)
    assert differing(best(data), newest)
    whole = data / "whole"
    run(engine, tiny_options(data, **{**BEST, "train__total_iter": 2, "name": "tiny"}), whole)
    assert not differing(best(data), best(whole))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("back_to", [0, 3])
def test_so_is_that_of_a_collapse_that_was_gone_back_from(
    data: Path, figures: dict[int, float], engine: str, back_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients, collapsed = Distiller.gradients, []

    def collapsing(self: Distiller, images: Any, weights: Any, current: int, *more: Any, **options: Any) -> Any:
        if current == 5 and not collapsed:
            collapsed.append(best(data))
            figures.update(dict.fromkeys(figures, 0.1 if back_to else nan))
            raise CollapseError("collapsed", sound=back_to)
        return gradients(self, images, weights, current, *more, **options)

    monkeypatch.setattr(Distiller, "gradients", collapsing)
    options = tiny_options(data, **STOPPING, train__collapse_guard={"policy": "go_back"})
    run(engine, options, data)
    if back_to:
        assert "Best psnr of val: 1.0000 at iteration 2" in log(data)
        assert differing(best(data), collapsed[0])
    else:
        assert not list(folder(data).glob("models/net_g_best.*"))


@pytest.mark.parametrize("engine", ENGINES)
def test_another_rule_begins_anew_and_says_so(data: Path, figures: dict[int, float], engine: str) -> None:
    options = tiny_options(data, **STOPPING)
    killed(engine, options, data, 7)
    other = tiny_options(data, **STOPPING, val__metrics__psnr__crop_border=2)
    figures[8] = 0.5
    run(engine, other, data, resume=True)
    assert (
        "val.best has changed since the checkpoint, from psnr of val to psnr of val, measured in another way: the best "
        "is looked for anew from here on, and net_g_best of before is removed"
    ) in log(data)
    assert "psnr of val is the best so far: 2.0000 at iteration 6" in log(data)  # that of iteration 4 was 3
    assert "Best psnr of val: 9.0000 at iteration 12" in log(data)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_checkpoint_from_before_the_rule_is_gone_on_from(data: Path, figures: dict[int, float], engine: str) -> None:
    run(engine, tiny_options(data, **STOPPING), data, "train.total_iter=6", "val.best.metric=null",
        "val.best.patience=null")  # fmt: skip
    figures[12] = 1.0
    run(engine, tiny_options(data, **STOPPING), data, resume=True)
    assert "val.best is new since the checkpoint: the best psnr of val is looked for from here on" in log(data)
    assert "Best psnr of val: 3.0000 at iteration 10" in log(data)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "made_up", [{"figure": 1.0}, {"rule": 3}, {"rule": {"dataset": "val", "metric": "psnr"}, "networks": 1}]
)
def test_a_state_that_was_made_up_is_refused_on_one_line(data: Path, engine: str, made_up: dict[str, Any]) -> None:
    run(engine, tiny_options(data, **BEST), data, "train.total_iter=2")
    (file,) = [*folder(data).glob("training_states/2.state"), *folder(data).glob("iter_2.pth")]
    torch.save({**torch.load(file, weights_only=True), "best_network": made_up}, file)
    with pytest.raises(WeightsError, match=r"(2\.state|iter_2\.pth) does not fit this model: [^\n]*$"):
        run(engine, tiny_options(data, **BEST), data, resume=True)


# --- BasicSR's own models, several processes ---


def stock(data: Path, **changes: Any) -> Path:
    pairs = {"dataroot_lq": str(data / "val" / "rain"), "dataroot_gt": str(data / "val" / "norain")}
    disk = {"io_backend": {"type": "disk"}, "gt_size": 16, "use_hflip": False, "use_rot": False}
    return tiny_options(
        data,
        _base_=[],
        model_type="SRModel",
        scale=1,
        datasets={
            "train": {"name": "a", "type": "PairedImageDataset", **pairs, **disk},
            "val": {"name": "b", "type": "PairedImageDataset", **pairs, **disk},
        },
        network_g={"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1},
        train={
            "total_iter": 8,
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [9]},
            "pixel_opt": {"type": "L1Loss"},
        },
        val={
            "val_freq": 2,
            "save_img": False,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}},
            "best": {"metric": "psnr", "patience": 2, **changes},
        },
        logger={"print_freq": 1, "save_checkpoint_freq": 1},
    )


def test_basicsrs_own_models_have_it_too(data: Path) -> None:
    run_by = ENGINES["basicsr"]
    run_by(Request(stock(data, min_delta=1000), root=data))
    assert "Ended early, after iteration 6: psnr of b" in log(data)
    assert not differing(best(data), kept(data, 2))
    assert set(best(data)) == {"params", "params_ema"}
    (line,) = [line for line in log(data).splitlines() if "Best psnr of b: " in line]
    reported = next(text for text in log(data).splitlines() if "# psnr: " in text)
    assert line.split("Best psnr of b: ")[1].split()[0] == reported.split("# psnr: ")[1].split()[0]


@pytest.fixture
def ended() -> Iterator[None]:
    yield
    end_all()


@pytest.mark.usefixtures("ended")
def test_several_processes_end_together(data: Path) -> None:
    own = tiny_options(data, **{**BEST, "val__best__patience": 1, "val__best__min_delta": 1000})
    own = own.rename(data / "own.yml")
    others = stock(data, patience=1, min_delta=1000)
    for name, options, engine in (("own", own, "basicsr"), ("mm", own, "mmengine"), ("stock", others, "basicsr")):
        statuses, said = Ranks(data / name, options, "--engine", engine).result()
        assert statuses == [0, 0], said
        assert "Ended early, after iteration 4" in log(data / name)
        assert not differing(best(data / name), kept(data / name, 2))


# --- what is refused, and its use ---


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val.best.metric": "psrn"}, "val.best.metric: no 'psrn' under val.metrics; did you mean 'psnr'?"),
        ({"val.metrics": None}, "val.best.metric: no 'psnr' under val.metrics, which names none"),
        ({"val.best.metric": None}, "val.best.metric: is missing; it names the figure"),
        ({"val.val_freq": None}, "val.val_freq: is missing; val.best is looked for"),
        ({"val.best.dataset": "vel"}, "val.best.dataset: no validation set is called 'vel'; did you mean 'val'?"),
        ({"val.best.dataset": "rainy"}, "val.best.metric: psnr cannot be taken of rainy: there is no ground truth"),
        ({"val.best.patience": 0}, "val.best.patience"),
        ({"val.best.min_delta": -1}, "val.best.min_delta"),
        ({"val.best.patiense": 1}, "val.best.patiense: unknown key"),
        ({"val.metrics.psnr.better": "up"}, "val.metrics.psnr.better: expected higher or lower, got 'up'"),
        ({"val.metrics.psnr.type": "calculate_niqe"}, "val.metrics.psnr.better: is missing; of NIQE write"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_told_before_training(
    data: Path, engine: str, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rainy = {"name": "rainy", "type": "SingleRainDataset", "dataroot": str(data / "rainy"), "limit": 1}
    options = tiny_options(data, **BEST, val__best__patience=2, datasets__val_2=rainy)
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    command = ["train", "-opt", str(options), "--root", str(data), "--device", "cpu", "--engine", engine, *overrides]
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line
    assert not (data / "experiments").exists()


def test_a_run_without_any_ground_truth_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = {"_delete_": True, "name": "alone", "type": "SingleRainDataset", "dataroot": str(data / "rainy")}
    train_alone = ["train", "-opt", str(tiny_options(data, **BEST, datasets__val=alone)), "--root", str(data)]
    assert main([*train_alone, "--device", "cpu"]) == 2
    assert "val.best.metric: psnr cannot be taken of alone: there is no ground truth" in capsys.readouterr().err


def use(weights: Path, *more: str) -> Callable[[str], np.ndarray]:
    def derained(out: str) -> np.ndarray:
        place = weights.parent / out
        assert main(["derain", str(weights.parent / "in"), "-o", str(place), "-w", str(weights), *more]) == 0
        return np.asarray(Image.open(place / "1.png"))

    return derained


def test_it_is_used_where_an_iteration_is_named(
    data: Path, figures: dict[int, float], capsys: pytest.CaptureFixture[str]
) -> None:
    import rainoerme_plugin
    from rainoerme_plugin.models.opening import open_run

    figures[12] = 0.0
    run("basicsr", tiny_options(data, **{**BEST, "train__optim_g__lr": 0.02}), data)
    tiny = folder(data)
    write_images(tiny.parent / "in", 1, seed=5, prefix="rain")
    latest, last, fourth = (use(tiny, *more)(out) for out, *more in (
        ("a",), ("b", "--iteration", "best"), ("c", "--iteration", "4")))  # fmt: skip
    assert np.array_equal(last, fourth)
    assert not np.array_equal(last, latest)
    for name, iteration in (("best", 4), ("latest", 12)):
        wanted = kept(data, iteration)["params_ema"]
        assert not differing(dict(open_run(tiny, name).network.state_dict()), wanted)
        network = rainoerme_plugin.load_derainer(tiny, iteration=name, device="cpu").opened.network
        assert not differing(dict(network.state_dict()), wanted)
    capsys.readouterr()
    refused = ["derain", str(tiny.parent / "in"), "-o", str(tiny.parent / "d"), "--iteration", "best"]
    assert main([*refused, "-w", str(tiny / "models" / "net_g_latest.pth")]) == 2
    assert "iteration (--iteration) best: is of a training run's folder" in capsys.readouterr().err
    (tiny / "models" / "net_g_best.pth").unlink()
    with pytest.raises(WeightsError, match=r"net_g_best\.pth is missing: a run keeps its best network if"):
        open_run(tiny, "best")
