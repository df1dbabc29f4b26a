"""Hooks: weights of the schedule, the running mean, the guard, steps that are left out, pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from both import ENGINES, LEARNING, by_mmengine, folder
from mmengine.optim import OptimWrapper
from PIL import Image
from tiny import tiny_data, tiny_options
from torch import nn

from rainoerme_plugin.config import Request
from rainoerme_plugin.distillation.schedule import PRESETS, Schedule, StepWeights
from rainoerme_plugin.errors import CollapseError, NonFiniteError, OptionError
from rainoerme_plugin.mm.hooks import CollapseGuardHook, RampedEMA, ScheduleHook, model_of
from rainoerme_plugin.mm.model import DistillationModel
from rainoerme_plugin.training.distiller import Distiller

NETWORK = {"type": "rainoerme_plugin.RainOerMeNet", "channels": 4}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def log(root: Path) -> str:
    return "".join(file.read_text() for file in sorted(folder(root).glob("*/*.log")))


def wrapped(model: nn.Module, seed: int = 3, iteration: int = 0) -> Any:
    return SimpleNamespace(model=nn.DataParallel(model), seed=seed, iter=iteration, work_dir="folder")


# --- the schedule ---


@pytest.mark.parametrize("seed", [None, 7])
def test_the_weights_are_the_schedules(seed: int | None) -> None:
    model = DistillationModel(NETWORK, distillation={"preset": "did", "warmup": 3, "gain_start": 5})
    did = PRESETS["did"]
    schedule = Schedule(did.soft_decay, did.hard_ramp, did.hard_max, 3, did.gain_range, 5)
    hook, gains = ScheduleHook(seed=seed), set()
    for iteration in (0, 2, 3, 4, 100, 101, 102, 10_000, 100_000):
        hook.before_train_iter(wrapped(model, iteration=iteration), 0)
        assert model.iteration == iteration + 1
        assert model.weights == schedule.at(iteration + 1, seed=3 if seed is None else seed)
        gains.add(model.weights.gain)
    assert len(gains) > 2
    # By hand: after 3 of warm-up, iteration 103 is the schedule's 100th.
    hook.before_train_iter(wrapped(model, iteration=102), 0)
    assert model.weights is not None
    assert (model.weights.soft, model.weights.hard) == (500 / 600, 100 / 500)


def test_without_the_hook_the_model_says_what_is_missing() -> None:
    model = DistillationModel(NETWORK)
    with pytest.raises(OptionError, match=r"add dict\(type='ScheduleHook'\) to custom_hooks"):
        model((torch.zeros(1, 3, 16, 16),) * 3, mode="loss")
    with pytest.raises(OptionError, match="these hooks are for a DistillationModel; the config has a Linear"):
        model_of(SimpleNamespace(model=nn.Linear(1, 1)))


def test_an_adversarial_loss_is_refused_where_it_would_be_another() -> None:
    model = DistillationModel(NETWORK, distillation={"adversarial": {"weight": 0.1}})
    model.weights = Schedule().at(1)
    images = [torch.zeros(1, 3, 16, 16)] * 3
    with pytest.raises(OptionError, match=r"model\.distillation\.adversarial: not where all of a step is one forward"):
        model(images, mode="loss")
    gathering = OptimWrapper(torch.optim.SGD(model.network.parameters(), lr=1.0), accumulative_counts=2)
    with pytest.raises(OptionError, match=r"model\.distillation\.adversarial: not with .*accumulative_counts"):
        model.train_step(dict(zip(("rainy", "label", "clean"), images, strict=True)), gathering)


# --- the running mean ---


def test_the_mean_is_the_one_worked_by_hand() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    mean = RampedEMA(network, decay=0.5)
    wanted = {name: value.clone() for name, value in network.named_parameters()}
    for iteration in range(1, 13):
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn_like(value))
        network(torch.randn(4, 2))  # moves the statistics, which are copied
        mean.update_parameters(network)
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        wanted = {n: decay * wanted[n] + (1 - decay) * value.detach() for n, value in network.named_parameters()}
        for name, value in mean.module.named_parameters():
            torch.testing.assert_close(value.detach(), wanted[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(mean.module[1].running_mean, network[1].running_mean)
    assert int(mean.steps) == 12


def test_a_frozen_backbone_is_left() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    mean = RampedEMA(network)
    before = mean.module[0].weight.clone()
    network[0].weight.add_(1)
    mean.update_parameters(network)
    assert torch.equal(mean.module[0].weight, before)


@pytest.mark.parametrize("decay", [0, 1, -0.1, 2])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay of RampedEMA must be between 0 and 1"):
        RampedEMA(nn.Linear(1, 1), decay=decay)


# --- the guard ---

COLLAPSING = {
    "train__total_iter": 40, "train__distillation": {"warmup": 4}, "train__optim_g__lr": 1.0e-9,
    "logger__save_checkpoint_freq": 4, "val": None,
}  # fmt: skip
"""With next to no rate the network stays as it is, and no hard loss is ever above the guard's."""


def guard(**changes: Any) -> dict[str, Any]:
    return {"interval": 2, "patience": 2, "hard_loss": 0.9, **changes}


def test_a_collapse_ends_the_run(data: Path) -> None:
    with pytest.raises(CollapseError, match="collapsed at iteration 8"):
        by_mmengine(Request(tiny_options(data, **COLLAPSING, train__collapse_guard=guard()), root=data))


def test_it_is_gone_back_from_so_many_times(data: Path) -> None:
    again = guard(policy="go_back", times=2, longer_warmup=6)
    with pytest.raises(CollapseError, match="at iteration 20"):
        by_mmengine(Request(tiny_options(data, **COLLAPSING, train__collapse_guard=again), root=data))
    said = log(data)
    # As with BasicSR's engine: nothing was sound, so it begins anew, with a warm-up of 10, then 16.
    for iteration, warmup in ((8, 10), (14, 16)):
        assert f"collapsed at iteration {iteration}" in said
        assert f"Going back to the start, with the warm-up until iteration {warmup}" in said


def test_a_sound_run_that_went_back_ends_and_its_later_checkpoints_are_gone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from rainoerme_plugin.distillation.collapse import CollapseGuard

    check, seen = CollapseGuard.check, list[int]()

    def made_up(self: CollapseGuard, step: Any, iteration: int, average: Any = None) -> None:
        fine = iteration <= 10 or max(seen, default=0) >= 14
        if seen and seen[-1] > iteration:  # it has gone back
            assert {path.name for path in folder(data).glob("iter_*.pth")} == {"iter_4.pth", "iter_8.pth"}, (
                seen,
                iteration,
            )
        seen.append(iteration)
        check(self, replace(step, hard_loss=torch.tensor(1.0 if fine else 0.0)), iteration, average)

    monkeypatch.setattr(CollapseGuard, "check", made_up)
    again = guard(policy="go_back", times=1, longer_warmup=3)
    options = tiny_options(data, **{**COLLAPSING, "train__total_iter": 20}, train__collapse_guard=again)
    by_mmengine(Request(options, root=data))
    # From 5, the end of the warm-up, to 14, where it is noticed; then from 12, the end of the longer one, on.
    assert seen == [*range(5, 15), *range(12, 21)]


@pytest.mark.parametrize("first", ENGINES)
@pytest.mark.parametrize("second", ENGINES)
def test_who_goes_on_knows_how_often_and_with_which_warm_up(
    data: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    from rainoerme_plugin.distillation.collapse import CollapseGuard

    again = guard(policy="go_back", times=1, longer_warmup=6)
    options = tiny_options(data, **COLLAPSING, train__collapse_guard=again)
    ENGINES[first](Request(options, ("train.total_iter=9",), root=data))  # at 8 it goes back to the start
    check, seen = CollapseGuard.check, list[int]()
    monkeypatch.setattr(CollapseGuard, "check", lambda self, *given: seen.append(given[1]) or check(self, *given))
    with pytest.raises(CollapseError, match="at iteration 14"):
        ENGINES[second](Request(options, root=data, auto_resume=True))
    assert seen == [11, 12, 13, 14]  # after the longer warm-up, and never again


def test_its_state_is_kept_in_checkpoints() -> None:
    hook, other = CollapseGuardHook(**guard()), CollapseGuardHook(**guard())
    model = DistillationModel(NETWORK)
    runner = wrapped(model)
    model.last = SimpleNamespace(hard_loss=torch.tensor(0.25))  # type: ignore[assignment]
    model.weights = StepWeights(1.0, 0.0, 1.0)
    hook.after_train_iter(runner, 0)  # in the warm-up nothing is counted
    assert hook.guard is not None
    assert hook.guard.state_dict()["count"] == 0
    model.weights = StepWeights(1.0, 0.5, 1.0)
    hook.after_train_iter(runner, 0)
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(runner, checkpoint)
    other.after_load_checkpoint(runner, checkpoint)
    assert other.guard is not None
    assert other.guard.state_dict() == {"sum": torch.tensor(0.25), "count": 1, "suspicious": 0, "sound": 0}
    with pytest.raises(OptionError, match=r"CollapseGuardHook\.intervall: unknown key"):
        CollapseGuardHook(intervall=3)


# --- steps that are left out ---


def break_steps(monkeypatch: pytest.MonkeyPatch, iterations: set[int]) -> None:
    gradients = Distiller.gradients

    def broken(self: Distiller, images: Any, weights: Any, iteration: int, *more: Any, **options: Any) -> Any:
        step = gradients(self, images, weights, iteration, *more, **options)
        return step.__class__(**{**vars(step), "loss": step.loss * float("nan")}) if iteration in iterations else step

    monkeypatch.setattr(Distiller, "gradients", broken)


def test_a_step_that_is_not_finite_is_left_out_and_counted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_steps(monkeypatch, {3})
    by_mmengine(Request(tiny_options(data, **LEARNING, val=None), ("logger.save_checkpoint_freq=1",), root=data))
    assert "iteration 3: the loss is NaN; the step is skipped (1 so far, at most 10)" in log(data)
    two, three, four = (torch.load(folder(data) / f"iter_{n}.pth", weights_only=True) for n in (2, 3, 4))
    for key in ("params", "params_ema"):
        assert all(torch.equal(value, three[key][name]) for name, value in two[key].items())
        assert any(not torch.equal(value, four[key][name]) for name, value in three[key].items())
    assert [found["distillation"]["skipped"] for found in (two, three, four)] == [0, 1, 1]


def test_too_many_end_the_run_with_the_batch_in_its_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_steps(monkeypatch, {2, 4, 5})
    options = tiny_options(data, **LEARNING, val=None, train__nonfinite_limit=2)
    by_mmengine(Request(options, ("train.total_iter=4",), root=data))
    with pytest.raises(NonFiniteError, match=r"iteration 5: the loss is NaN.*3 steps went like that"):
        by_mmengine(Request(options, root=data, auto_resume=True))
    files = {path.name for path in (folder(data) / "nonfinite").iterdir()}
    assert files == {"5_process_0.pth", "5_process_0.png"}
    batch = torch.load(folder(data) / "nonfinite" / "5_process_0.pth", weights_only=True)
    assert batch["rainy"].shape == (2, 3, 24, 24)
    assert all(Path(path).is_file() for path in batch["rainy_path"] + batch["clean_path"])


class Scaling(OptimWrapper):
    """What mmengine's AmpOptimWrapper does, which is for GPUs alone."""

    _scale_update_param: float | None = None

    def __init__(self, scale: float | None, **options: Any) -> None:
        super().__init__(**options)
        self._scale_update_param = scale
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=scale or 16.0)

    def backward(self, loss: torch.Tensor, **_: Any) -> None:
        self.loss_scaler.scale(loss).backward()
        self._inner_count += 1

    def step(self, **_: Any) -> None:
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update(self._scale_update_param)


@pytest.mark.parametrize(("scale", "uncounted"), [(None, 4), (64.0, 0)], ids=["found", "fixed"])
def test_a_wrapper_that_scales_losses_itself_is_no_excuse(tmp_path: Path, scale: float | None, uncounted: int) -> None:
    model = DistillationModel(NETWORK, nonfinite_limit=2)
    model.network.outc[0].weight.register_hook(lambda gradient: gradient * float("nan"))
    model.skips.folder, model.weights = tmp_path, StepWeights(1.0, 0.0, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    wrapper = Scaling(scale, optimizer=optimizer)
    batch = {name: torch.rand(2, 3, 16, 16) for name in ("rainy", "label", "clean")}
    for _ in range(uncounted + 2):
        model.train_step(batch, wrapper)
        assert not model.stepped
    assert model.skips.count == 2
    with pytest.raises(NonFiniteError, match=r"gradient of outc\.0\.weight is NaN.*3 steps went like that"):
        model.train_step(batch, wrapper)


def test_gradients_are_not_clipped_behind_a_wrapper_that_scales_or_gathers_them() -> None:
    model = DistillationModel(NETWORK, grad_clip=0.3)
    model.weights = StepWeights(1.0, 0.0, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = {name: torch.rand(2, 3, 16, 16) for name in ("rainy", "label", "clean")}
    for wrapper in (Scaling(None, optimizer=optimizer), OptimWrapper(optimizer, accumulative_counts=2)):
        with pytest.raises(OptionError, match=r"^model\.grad_clip: not with an AmpOptimWrapper or accumulative_counts"):
            model.train_step(batch, wrapper)
    with pytest.raises(OptionError, match=r"^model\.grad_clip: not where all of a step is one forward pass"):
        model(tuple(batch.values()), mode="loss")
    assert model.train_step(batch, OptimWrapper(optimizer))["loss"] > 0


# --- pictures ---


def test_pictures_show_what_they_say_in_the_right_colours(data: Path) -> None:
    """A red rainy image stays red, and stands first in its picture."""
    for part, colour in (("rain", (250, 40, 10)), ("norain", (20, 60, 240))):
        Image.new("RGB", (40, 40), colour).save(data / "val" / part / "1.png")
    by_mmengine(Request(tiny_options(data, **LEARNING, val__save_img=True), root=data))
    pictures = next(folder(data).glob("*/vis_data/vis_image"))
    names = {path.name for path in pictures.iterdir()}
    assert names == {f"{name}_{iteration}.png" for name in ("val_1", "val_2", "training") for iteration in (6, 12)}
    picture = np.asarray(Image.open(pictures / "val_1_12.png"))
    assert tuple(picture[30, 10]) == (250, 40, 10)  # rainy, below the title
    assert tuple(picture[30, 3 * 44 + 10]) == (20, 60, 240)  # clean, the last of four
    # Beside it the derained one, which is also saved by itself.
    saved = np.asarray(Image.open(folder(data) / "visualization" / "1" / "1_12.png"))
    assert saved.shape == (40, 40, 3)
    assert np.array_equal(picture[18:58, 2 * 44 : 2 * 44 + 40], saved)
    assert abs(saved[20, 20].astype(int) - (250, 40, 10)).max() < 30
    # Training crops are shown in five stages, two samples of 24 pixels, six times as large.
    crops = np.asarray(Image.open(pictures / "training_12.png"))
    assert crops.shape == (18 + 2 * (144 + 4) - 4, 5 * (144 + 4) - 4, 3)


@pytest.mark.parametrize("several", [False, True])
def test_both_engines_keep_every_derained_image_in_one_layout(data: Path, several: bool) -> None:
    """Sets with images of the same names, and in the second one two that differ in their suffix alone."""
    (data / "more").mkdir()
    for name in ("1.png", "2.png", "2.bmp"):
        Image.new("RGB", (40, 40), (90, 90, 90)).save(data / "more" / name)
    changes: dict[str, Any] = {"val__save_img": True, "val__val_freq": 6, "train__total_iter": 6}
    if several:
        more = {"name": "val_2", "type": "SingleRainDataset", "dataroot": str(data / "more")}
        changes["datasets__val_2"] = more
    options = tiny_options(data, **{**LEARNING, **changes})
    found = {}
    for name, train in ENGINES.items():
        train(Request(options, root=data / name))
        root = folder(data / name) / "visualization"
        found[name] = {path.relative_to(root).as_posix() for path in root.rglob("*.png") if path.is_file()}
        found[name] -= {path for path in found[name] if path.startswith("panels/")}
    expected = {"1/1_6.png", "2/2_6.png"}
    if several:
        expected = {f"val/{path}" for path in expected}
        expected |= {"val_2/1/1_6.png", "val_2/2.bmp/2.bmp_6.png", "val_2/2.png/2.png_6.png"}
    assert found == {"basicsr": expected, "mmengine": expected}
    panels = folder(data / "basicsr") / "visualization" / "panels"
    assert len(list(panels.glob("*/*.png"))) == len(expected)
    assert len(list(folder(data / "mmengine").glob("*/vis_data/vis_image/val*.png"))) == len(expected)


@pytest.mark.parametrize("name", ["val", "VAL"])
def test_two_test_sets_of_one_name_are_refused(data: Path, name: str) -> None:
    more = {"type": "SingleRainDataset", "dataroot": str(data / "rainy"), "name": name}
    options = tiny_options(data, datasets__val_2=more)
    for train in ENGINES.values():
        with pytest.raises(OptionError, match=rf"datasets\.val_2\.name: '{name}' is the name of datasets\.val, too"):
            train(Request(options, root=data))


def test_pictures_can_be_left_out(data: Path) -> None:
    by_mmengine(Request(tiny_options(data, **LEARNING, val__panels=False), root=data))
    assert not list(folder(data).glob("**/*.png"))
