"""Losses and gradients that are no numbers, and collapses that are gone back from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_data, tiny_options

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.config import Request
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.distillation.step import distillation_gradients
from rainoerme_plugin.engine.training import train
from rainoerme_plugin.errors import CollapseError, NonFiniteError
from rainoerme_plugin.losses.ssim import SSIMLoss


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def weights(root: Path, name: str = "latest") -> dict[str, torch.Tensor]:
    file = root / "experiments" / "tiny" / "models" / f"net_g_{name}.pth"
    return torch.load(file, weights_only=True)["params_ema"]


def log(root: Path) -> str:
    return "".join(file.read_text() for file in sorted((root / "experiments" / "tiny").glob("train_*.log")))


def break_forward(monkeypatch: pytest.MonkeyPatch, calls: set[int], value: float) -> None:
    """Have the network's n-th calls in training, from 1 on, give ``value`` somewhere."""
    forward, count = RainOerMeNet.forward, 0

    def broken(self: RainOerMeNet, x: torch.Tensor, layers: bool = False) -> Any:
        nonlocal count
        result = forward(self, x, layers=layers)
        if layers and self.training:
            count += 1
            if count in calls:
                result.refined[0, 0, 0, 0] = value
        return result

    monkeypatch.setattr(RainOerMeNet, "forward", broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_skipped_and_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    options = tiny_options(data, logger__save_checkpoint_freq=1, val=None, train__distillation__warmup=6)
    break_forward(monkeypatch, {3}, value)
    train(Request(options, root=data))
    kind = "NaN" if value != value else "infinite"
    assert f"iteration 3: the refined rain layer is {kind} in 1 of 3456 values; the step is skipped (1 so far" in log(
        data
    )
    before, after = weights(data, "2"), weights(data, "3")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(weights(data, "4")[name], after[name]) for name in after)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(data).values())


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.training import distiller

    gradients = distiller.distillation_gradients

    def broken(network: torch.nn.Module, *arguments: Any, **options: Any) -> Any:
        step = gradients(network, *arguments, **options)
        name, parameter = list(network.named_parameters())[4]
        assert parameter.grad is not None
        parameter.grad[(0,) * parameter.ndim] = float("nan")
        names.append(name)
        return step

    names: list[str] = []
    monkeypatch.setattr(distiller, "distillation_gradients", broken)
    with pytest.raises(NonFiniteError, match=r"iteration 1: the gradient of .* NaN in 1 of .*train\.nonfinite_limit"):
        train(Request(tiny_options(data, train__nonfinite_limit=0), root=data))
    assert f"the gradient of {names[0]} is NaN" in log(data)


def test_too_many_end_the_run_with_the_batch_saved_and_the_count_is_kept(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = tiny_options(data, train__nonfinite_limit=2, logger__save_checkpoint_freq=1)
    break_forward(monkeypatch, {2, 3}, float("nan"))
    train(Request(options, ("train.total_iter=3",), root=data))
    break_forward(monkeypatch, {2}, float("nan"))
    with pytest.raises(NonFiniteError, match=r"iteration 5: the refined rain layer is NaN.*3 steps went like that"):
        train(Request(options, root=data, auto_resume=True))
    folder = data / "experiments" / "tiny" / "nonfinite"
    assert {path.name for path in folder.iterdir()} == {"5_process_0.pth", "5_process_0.png"}
    batch = torch.load(folder / "5_process_0.pth", weights_only=True)
    assert batch["rainy"].shape == (2, 3, 24, 24)
    assert all(Path(path).is_file() for path in batch["rainy_path"] + batch["clean_path"])
    assert weights(data, "4")
    assert not (data / "experiments" / "tiny" / "models" / "net_g_5.pth").exists()


def test_a_stock_models_step_is_skipped_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from basicsr.losses.basic_loss import L1Loss
    from basicsr.models.sr_model import SRModel

    forward, optimize = L1Loss.forward, SRModel.optimize_parameters
    iteration = 0

    def broken(self: L1Loss, *arguments: Any, **options: Any) -> torch.Tensor:
        return forward(self, *arguments, **options) * (float("nan") if iteration == 2 else 1)

    def noted(self: SRModel, current_iter: int) -> None:
        nonlocal iteration
        iteration = current_iter
        optimize(self, current_iter)

    monkeypatch.setattr(L1Loss, "forward", broken)
    monkeypatch.setattr(SRModel, "optimize_parameters", noted)
    files = {"dataroot_gt": str(data / "val" / "norain"), "dataroot_lq": str(data / "val" / "rain")}
    train_set = {"name": "t", "type": "PairedImageDataset", **files, "io_backend": {"type": "disk"}, "gt_size": 32}
    options = tiny_options(
        data,
        model_type="SRModel",
        scale=1,
        datasets={"_delete_": True, "train": {**train_set, "use_hflip": True, "use_rot": True}},
        train={
            "_delete_": True, "ema_decay": 0.9, "optim_g": {"type": "Adam", "lr": 1.0e-3}, "total_iter": 3,
            "scheduler": {"type": "MultiStepLR", "milestones": [4], "gamma": 0.5}, "pixel_opt": {"type": "L1Loss"},
        },
        val=None,
        logger__save_checkpoint_freq=1,
    )  # fmt: skip
    train(Request(options, root=data))
    assert re.search(r"iteration 2: the gradient of net_g\.\S+ is NaN", log(data))
    plain = [
        torch.load(data / "experiments" / "tiny" / "models" / f"net_g_{n}.pth", weights_only=True)["params"]
        for n in (1, 2, 3)
    ]
    assert all(torch.equal(plain[0][name], plain[1][name]) for name in plain[0])
    assert any(not torch.equal(plain[1][name], plain[2][name]) for name in plain[0])


def backward_by(factor: float) -> Callable[[torch.Tensor], None]:
    return lambda loss: (loss * factor).backward()


def test_gradients_are_of_the_scaled_loss() -> None:
    torch.manual_seed(0)
    network = RainOerMeNet(4)
    images = [torch.rand(2, 3, 24, 24) for _ in range(3)]
    found = []
    for factor in (1.0, 2.0**16):  # a power of two changes no digit
        network.zero_grad()
        backward = torch.Tensor.backward if factor == 1 else backward_by(factor)
        distillation_gradients(network, *images, StepWeights(0.5, 2.0, 1.0), SSIMLoss(), parts=2, backward=backward)
        found.append([parameter.grad.clone() / factor for parameter in network.parameters()])
    assert all(torch.equal(one, scaled) for one, scaled in zip(*found, strict=True))


def test_float16_overflows_are_not_counted_and_the_scale_is_resumed_exactly(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, 2.0**44, enabled=enabled))
    options = tiny_options(data, train__precision="float16", logger__save_checkpoint_freq=1)
    train(Request(options, root=data / "whole"))
    train(Request(options, ("train.total_iter=2",), root=data / "parts"))
    train(Request(options, root=data / "parts", auto_resume=True))
    states = [
        torch.load(data / root / "experiments" / "tiny" / "training_states" / "6.state", weights_only=True)["model"]
        for root in ("whole", "parts")
    ]
    assert states[0]["scaler"] == states[1]["scaler"]
    assert states[0]["scaler"]["scale"] < 2.0**44  # the first steps overflowed, and were left out
    assert states[0]["skipped"] == 0
    whole, parts = weights(data / "whole"), weights(data / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


COLLAPSING = {
    "train__total_iter": 40,
    "train__distillation__warmup": 4,
    "train__optim_g__lr": 1.0e-9,
    "logger__save_checkpoint_freq": 4,
    "val": None,
}
"""With next to no rate the network stays as it is, and no hard loss is ever above the guard's."""


def guard(**changes: Any) -> dict[str, Any]:
    return {"interval": 2, "patience": 2, "hard_loss": 0.9, **changes}


def test_a_collapse_is_gone_back_from_so_many_times_with_a_longer_warm_up(data: Path) -> None:
    going_back = guard(policy="go_back", times=2, longer_warmup=6)
    options = tiny_options(data, **COLLAPSING, train__collapse_guard=going_back)
    with pytest.raises(CollapseError, match=r"at iteration 20.*went back 2 times"):
        train(Request(options, root=data))
    said = [line for line in log(data).splitlines() if "Going back" in line]
    # Two intervals of two after the warm-up of 4 end at iteration 8; sound was nothing before, so it begins anew.
    assert "collapsed at iteration 8" in said[0]
    assert said[0].endswith("Going back to the start, with the warm-up until iteration 10 (1 of at most 2 times)")
    assert "collapsed at iteration 14" in said[1]
    assert "warm-up until iteration" in said[1]


def test_it_goes_back_to_the_last_checkpoint_that_was_sound_and_then_trains_to_the_end(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rainoerme_plugin.distillation.collapse import CollapseGuard

    # The real verdict on made-up losses: sound up to iteration 10, then collapsed until the warm-up is longer.
    check = CollapseGuard.check

    def made_up(self: CollapseGuard, step: Any, iteration: int, average: Any = None) -> None:
        from dataclasses import replace

        again = len(seen) > 0 and iteration <= seen[-1]
        fine = iteration <= 10 or again or getattr(made_up, "fine", False)
        made_up.fine = getattr(made_up, "fine", False) or again  # type: ignore[attr-defined]
        if again and not there:
            there.extend(sorted(int(path.stem) for path in states.iterdir()))
        seen.append(iteration)
        check(self, replace(step, hard_loss=torch.tensor(1.0 if fine else 0.0)), iteration, average)

    seen: list[int] = []
    there: list[int] = []
    states = data / "experiments" / "tiny" / "training_states"
    monkeypatch.setattr(CollapseGuard, "check", made_up)
    going_back = guard(policy="go_back", times=1, longer_warmup=3)
    options = tiny_options(data, **{**COLLAPSING, "train__total_iter": 20}, train__collapse_guard=going_back)
    train(Request(options, root=data))
    assert "Going back to iteration 8, with the warm-up until iteration 11 (1 of at most 1 time)" in log(data)
    # From 5, the end of the warm-up, to 14, where it is noticed; then from 12, the end of the longer one, on.
    assert seen == [*range(5, 15), *range(12, 21)]
    assert there == [4, 8]  # not the one of iteration 12, which was of the collapse
    assert sorted(int(path.stem) for path in states.iterdir()) == [4, 8, 12, 16, 20]
    last = torch.load(states / "20.state", weights_only=True)
    assert (last["went_back"], last["warmup"]) == (1, 11)


def test_a_resumed_run_keeps_the_longer_warm_up_and_the_count(data: Path) -> None:
    going_back = guard(policy="go_back", times=1, longer_warmup=6)
    options = tiny_options(data, **COLLAPSING, train__collapse_guard=going_back)
    train(Request(options, ("train.total_iter=9",), root=data))
    with pytest.raises(CollapseError, match="went back 1 time,"):
        train(Request(options, root=data, auto_resume=True))


def test_by_default_a_collapse_ends_the_run(data: Path) -> None:
    options = tiny_options(data, **COLLAPSING, train__collapse_guard=guard())
    with pytest.raises(CollapseError) as caught:
        train(Request(options, root=data))
    assert "Going back" not in log(data)
    assert caught.value.sound == 0
