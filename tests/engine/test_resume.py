"""What goes on from a checkpoint is what would have gone on without a stop."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import OPTIONS, tiny_data, tiny_options, write_images

from rainoerme_plugin.config import Request
from rainoerme_plugin.engine.training import train
from rainoerme_plugin.training.checkpoints import changes, last_good, prune
from rainoerme_plugin.training.environment import changed_environment, environment
from rainoerme_plugin.training.random_states import random_states, set_random_states, undisturbed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def checkpoint(root: Path, name: str = "latest") -> dict[str, Any]:
    return torch.load(root / "experiments" / "tiny" / "models" / f"net_g_{name}.pth", weights_only=True)


def state(root: Path, iteration: int) -> dict[str, Any]:
    file = root / "experiments" / "tiny" / "training_states" / f"{iteration}.state"
    return torch.load(file, weights_only=True)


def log(root: Path) -> str:
    return "".join(file.read_text() for file in sorted((root / "experiments" / "tiny").glob("train_*.log")))


def assert_same(left: Any, right: Any, place: str = "") -> None:
    """Equal to the last bit, whatever is in them."""
    assert type(left) is type(right), place
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), place
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), place
        for key in left:
            assert_same(left[key], right[key], f"{place}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), place
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{place}.{number}")
    else:
        assert left == right, place


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_after_any_iteration_all_of_the_state_is_the_same_in_the_end(data: Path, workers: int) -> None:
    options = tiny_options(
        data, datasets__train__num_worker_per_gpu=workers, logger__save_checkpoint_freq=2, val__val_freq=2
    )
    train(Request(options, root=data / "whole"))
    for stop in (1, 3, 4):
        parts = data / f"stopped at {stop}"
        train(Request(options, (f"train.total_iter={stop}",), root=parts))
        train(Request(options, root=parts, auto_resume=True))
        assert_same(checkpoint(parts), checkpoint(data / "whole"))
        one, other = state(parts, 6), state(data / "whole", 6)
        assert one.pop("networks").keys() == other.pop("networks").keys()
        assert_same(one, other)


def test_a_network_that_draws_by_chance_is_resumed_exactly(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.archs.rainoerme import RainOerMeNet

    forward = RainOerMeNet.forward

    def noisy(self: RainOerMeNet, x: torch.Tensor, layers: bool = False) -> Any:
        noise = torch.randn_like(x) * (random.random() + np.random.rand()) if self.training else 0
        return forward(self, x + 0.1 * noise, layers=layers)

    monkeypatch.setattr(RainOerMeNet, "forward", noisy)
    options = tiny_options(data)
    train(Request(options, root=data / "whole"))
    train(Request(options, ("train.total_iter=2",), root=data / "parts"))
    train(Request(options, root=data / "parts", auto_resume=True))
    assert_same(checkpoint(data / "parts"), checkpoint(data / "whole"))


def test_a_checkpoint_holds_every_state(data: Path) -> None:
    train(Request(tiny_options(data, val__val_freq=5), root=data))
    saved = state(data, 6)
    assert saved["iter"] == 6
    assert saved["samples"] == 12
    assert set(saved["random"][0]) == {"python", "numpy", "torch"}
    assert saved["model"]["skipped"] == 0
    assert set(saved["model"]["guard"]) == {"sum", "count", "suspicious", "sound"}
    assert saved["best"]["val"]["psnr"]["iter"] == 5
    assert saved["options"]["train"]["total_iter"] == 6
    assert set(saved["networks"]) == {"net_g_6.pth"}


def test_the_best_figures_so_far_are_kept(data: Path) -> None:
    options = tiny_options(data, val__val_freq=2)
    train(Request(options, ("train.total_iter=3",), root=data))
    best = state(data, 3)["best"]
    assert best["val"]["psnr"]["iter"] == 2
    train(Request(options, ("val.val_freq=100",), root=data, auto_resume=True))
    assert state(data, 6)["best"] == best


def test_chance_in_validation_leaves_training_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.models.distillation_model import DistillationModel

    def draw(self: DistillationModel, *arguments: object) -> None:
        torch.rand(3)
        np.random.rand()
        random.random()

    train(Request(tiny_options(data, val=None), root=data / "without"))
    monkeypatch.setattr(DistillationModel, "validation", draw)
    train(Request(tiny_options(data, val__val_freq=1), root=data / "with"))
    assert_same(state(data / "with", 6)["random"], state(data / "without", 6)["random"])


def test_the_networks_are_there_as_safetensors_too(data: Path) -> None:
    from safetensors.torch import load_file

    train(Request(tiny_options(data), root=data))
    for name in ("3", "6", "latest"):
        file = data / "experiments" / "tiny" / "models" / f"net_g_{name}.safetensors"
        assert_same(load_file(file), dict(sorted(checkpoint(data, name)["params_ema"].items())))


def test_the_oldest_checkpoints_are_pruned(data: Path) -> None:
    options = tiny_options(data, logger__save_checkpoint_freq=1, logger__keep_checkpoints=2)
    train(Request(options, root=data))
    experiment = data / "experiments" / "tiny"
    for name in ("net_g_1.pth", "net_g_1.safetensors", "net_d_1.pth", "net_g_mine_1.pth"):
        (experiment / "models" / name).touch()
    for number in ("1", "007", "\u0663"):
        (experiment / "training_states" / f"{number}.state").touch()
    prune(experiment / "training_states", 2, ["network_g"])
    for name in ("training_states/007.state", "training_states/\u0663.state", "models/net_d_1.pth"):
        (experiment / name).unlink()  # which were somebody else's
    (experiment / "models" / "net_g_mine_1.pth").unlink()
    assert {path.name for path in (experiment / "training_states").iterdir()} == {"5.state", "6.state"}
    kept = {f"net_g_{name}.{suffix}" for name in ("5", "6", "latest") for suffix in ("pth", "safetensors")}
    assert {path.name for path in (experiment / "models").iterdir()} == kept


def test_a_seed_that_was_drawn_is_the_resumed_runs_too(data: Path) -> None:
    options = tiny_options(data, manual_seed=None)
    train(Request(options, root=data / "a"))
    seed = state(data / "a", 6)["options"]["manual_seed"]
    assert yaml.safe_load((data / "a" / "experiments" / "tiny" / "options.yml").read_text())["manual_seed"] == seed
    train(Request(options, (f"manual_seed={seed}", "train.total_iter=3"), root=data / "b"))
    train(Request(options, root=data / "b", auto_resume=True))
    assert_same(checkpoint(data / "b"), checkpoint(data / "a"))
    train(Request(options, root=data / "c"))
    assert state(data / "c", 6)["options"]["manual_seed"] != seed


def test_what_is_not_here_is_looked_for_below_root(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny_options(
        data,
        datasets__train__dataroot_rainy="rainy",
        datasets__train__dataroot_clean="clean",
        datasets__train__label_cache=None,
        datasets__val__dataroot="val",
    )
    monkeypatch.chdir(data)
    train(Request(options, ("train.total_iter=3",), root=Path()))
    elsewhere = data / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    train(Request(options, root=Path(".."), auto_resume=True))
    assert checkpoint(data, "6")


def test_resuming_says_what_changed(data: Path) -> None:
    options = tiny_options(data)
    train(Request(options, ("train.total_iter=3",), root=data))
    train(Request(options, ("val.val_freq=5", "datasets.train.batch_size_per_gpu=3"), root=data, auto_resume=True))
    said = [line.partition("changed since the checkpoint: ")[2] for line in log(data).splitlines()]
    assert set(filter(None, said)) == {
        "train.total_iter: 3 -> 6",
        "val.val_freq: 6 -> 5",
        "datasets.train.batch_size_per_gpu: 2 -> 3",
    }
    # Three batches of two, then three of three.
    assert state(data, 6)["samples"] == 15


def test_another_number_of_threads_is_told_with_old_and_new(data: Path) -> None:
    options, threads = tiny_options(data), torch.get_num_threads()
    train(Request(options, ("train.total_iter=2",), root=data))
    train(Request(options, ("train.total_iter=3",), root=data, auto_resume=True))
    assert "made with other" not in log(data)
    try:
        torch.set_num_threads(threads + 1)
        train(Request(options, root=data, auto_resume=True))
    finally:
        torch.set_num_threads(threads)
    told = [line for line in log(data).splitlines() if "made with other" in line]
    assert len(told) == 1
    assert f"WARNING: the checkpoint was made with other threads: {threads} -> {threads + 1}. " in told[0]
    assert state(data, 6)["environment"]["threads"] == threads + 1


def test_whatever_else_decides_about_digits_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    before = environment(cpu)
    assert changed_environment(before, environment(cpu)) is None
    assert changed_environment({}, before) is None  # of a checkpoint that says nothing
    assert {"threads", "processes", "device", "PyTorch", "instructions", "oneDNN"} <= before.keys()
    monkeypatch.setattr(torch, "__version__", "1.0")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setattr("rainoerme_plugin.training.environment.rank_and_world", lambda: (0, 4))
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        told = changed_environment(before, environment(cpu))
    finally:
        torch.set_float32_matmul_precision(precision)
    assert told is not None
    for change in ("processes: 1 -> 4", f"PyTorch: {before['PyTorch']} -> 1.0", "MKL_CBWR: None -> COMPATIBLE",
                   f"float32 matmul precision: {precision} -> medium"):  # fmt: skip
        assert change in told
    assert "\n" not in told


def test_what_differs_between_two_option_files() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": None, "e": 5}, "path": {"resume_state": "x"}}
    now = {"a": 1, "b": {"c": (1, 2), "e": {"f": 6}}, "path": {"resume_state": "y"}}
    assert changes(before, now) == ["b.e: 5 -> None", "b.e.f: None -> 6"]


def test_a_changed_learning_rate_and_schedule_count_from_the_resumed_iteration_on(data: Path) -> None:
    options = tiny_options(data, logger__print_freq=1)
    train(Request(options, ("train.total_iter=3",), root=data))
    new = ("train.optim_g.lr=1.0e-4", "train.scheduler.start=4", "train.scheduler.end=8")
    train(Request(options, new, root=data, auto_resume=True))
    rates = [line.split("lr:(")[1].split(",")[0] for line in log(data).splitlines() if "lr:(" in line]
    # Constant up to step 4, then quarters: iteration k runs at the rate after k - 1 steps of the schedule.
    assert rates == ["5.000e-04"] * 3 + ["1.000e-04", "1.000e-04", "7.500e-05"]


def test_a_state_of_another_optimiser_is_refused_on_one_line(data: Path) -> None:
    from rainoerme_plugin.errors import WeightsError

    options = tiny_options(data)
    train(Request(options, ("train.total_iter=3",), root=data))
    file = data / "experiments" / "tiny" / "training_states" / "3.state"
    saved = torch.load(file, weights_only=True)
    saved["optimizers"] *= 2
    torch.save(saved, file)
    with pytest.raises(WeightsError, match=r"3\.state does not fit this model: "):
        train(Request(options, root=data, auto_resume=True))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("iter", "epoch", "samples", "went_back") for value in ("x", None, [1], {}, 1.5)),
        *((key, value) for key in ("networks", "options", "model", "best") for value in ("x", None, [1], 1)),
        *((key, value) for key in ("random", "optimizers", "schedulers") for value in ("x", None, [1], {"a": 1}, 1)),
        ("iter", -1),
        ("samples", -1),
        ("random", [{}]),
        ("random", [{"python": 1, "numpy": 2, "torch": 3}]),
        ("networks", {"../../net_g_3.pth": "0"}),
        ("best", {"val": {"psnr": {"val": "x"}}}),
        ("model", {"guard": 3}),
        ("model", {"skipped": [1]}),
        ("optimizers", [{}]),
        ("schedulers", [{"base_lrs": 1}]),
    ],
)
def test_a_state_that_was_made_up_is_refused_on_one_line(trained: Path, key: str, value: Any, tmp_path: Path) -> None:
    from rainoerme_plugin.commands import main

    made_up = tmp_path / "experiments" / "tiny" / "training_states" / "3.state"
    shutil.copytree(trained / "experiments", tmp_path / "experiments")
    saved = torch.load(made_up, weights_only=True)
    torch.save({**saved, key: value}, made_up)
    options = trained / "tiny.yml"
    assert main(["train", "-opt", str(options), "--root", str(tmp_path), f"path.resume_state={made_up}"]) == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny_data(tmp_path_factory.mktemp("trained"))
    train(Request(tiny_options(root, val=None), ("train.total_iter=3",), root=root))
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stock_model_with_chance_in_its_data_is_resumed_exactly(data: Path, workers: int) -> None:
    write_images(data / "low", 3, (24, 24), seed=5)
    write_images(data / "high", 3, (48, 48), seed=5)
    files = {"dataroot_gt": str(data / "high"), "dataroot_lq": str(data / "low"), "io_backend": {"type": "disk"}}
    options = {
        "name": "tiny", "model_type": "SRModel", "scale": 2, "num_gpu": 0, "manual_seed": 3,
        "datasets": {
            "train": {
                "name": "t", "type": "PairedImageDataset", **files, "gt_size": 32, "use_hflip": True, "use_rot": True,
                "num_worker_per_gpu": workers, "batch_size_per_gpu": 2,
            },
        },
        "network_g": {
            "type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2,
        },
        "path": {},
        "train": {
            "ema_decay": 0.9, "optim_g": {"type": "Adam", "lr": 1.0e-3}, "total_iter": 6,
            "scheduler": {"type": "MultiStepLR", "milestones": [4], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss"},
        },
        "logger": {"print_freq": 2, "save_checkpoint_freq": 3},
    }  # fmt: skip
    file = data / "stock.yml"
    file.write_text(yaml.safe_dump(options))
    train(Request(file, root=data / "whole"))
    train(Request(file, ("train.total_iter=2",), root=data / "parts"))
    train(Request(file, root=data / "parts", auto_resume=True))
    assert_same(checkpoint(data / "parts"), checkpoint(data / "whole"))


def test_random_states_come_back(data: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    random.gauss(0, 1)  # leaves a second value behind, as NumPy's does
    np.random.normal()
    held = random_states()
    torch.save(held, data / "states")
    first = draw()
    set_random_states(torch.load(data / "states", weights_only=True))
    with undisturbed():
        assert draw() == first
    assert draw() == first


def test_only_checkpoints_up_to_an_iteration_are_looked_at(data: Path) -> None:
    train(Request(tiny_options(data, logger__save_checkpoint_freq=2), root=data))
    states = data / "experiments" / "tiny" / "training_states"
    for before, found in ((None, 6), (5, 4), (2, 2), (1, None)):
        good, problems = last_good(states, before)
        assert (good.iteration if good else None) == found
        assert problems == []


def test_every_key_of_the_state_is_in_distill_yml() -> None:
    text = (OPTIONS / "distill.yml").read_text()
    for key in ("keep_checkpoints:", "nonfinite_limit:", "policy:", "times:", "longer_warmup:", "timeout:", "float16"):
        assert key in text
