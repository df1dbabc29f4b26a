"""The collapse guard: when it fires, when it does not, and what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rainoerme_plugin.archs.rainoerme import RainLayers
from rainoerme_plugin.distillation.collapse import CollapseGuard
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.distillation.step import DistillationStep, distillation_step
from rainoerme_plugin.errors import CollapseError
from rainoerme_plugin.losses.ssim import SSIMLoss


def step_with(hard_loss: float, rain: float = 0.001, label: float = 0.1) -> DistillationStep:
    # Half of each channel lies that far above its mean, half below.
    stripes = torch.tensor([1.0, -1.0]).expand(1, 3, 2, 2)
    return DistillationStep(
        loss=torch.tensor(hard_loss),
        soft_loss=torch.tensor(0.1),
        hard_loss=torch.tensor(hard_loss),
        rainy=label * stripes,
        label=torch.zeros(1, 3, 2, 2),
        layer=torch.zeros(1, 3, 2, 2),
        rain=rain * stripes,
        synthetic=torch.zeros(1, 3, 2, 2),
    )


def fires_at(guard: CollapseGuard, hard_losses: list[float]) -> int | None:
    """The number of the step, from 1, at which the guard raises."""
    for iteration, hard_loss in enumerate(hard_losses, 1):
        try:
            guard.check(step_with(hard_loss), iteration)
        except CollapseError:
            return iteration
    return None


@pytest.mark.parametrize(("interval", "patience"), [(1, 1), (1, 4), (5, 1), (4, 3)])
def test_it_fires_after_so_many_intervals_and_not_a_step_earlier(interval: int, patience: int) -> None:
    assert fires_at(CollapseGuard(interval, patience), [1e-5] * 50) == interval * patience


def test_it_waits_for_three_intervals_of_a_hundred_steps_below_a_thousandth_unless_told() -> None:
    assert fires_at(CollapseGuard(), [9e-4] * 400) == 300
    assert fires_at(CollapseGuard(), [1.1e-3] * 400) is None


def test_one_fine_interval_between_starts_the_count_anew() -> None:
    low, fine = [1e-5] * 4, [0.1] * 4
    assert fires_at(CollapseGuard(4, 3), [*low, *low, *fine, *low, *low, *fine]) is None
    assert fires_at(CollapseGuard(4, 3), [*low, *low, *fine, *low, *low, *low]) == 24


def test_an_interval_is_judged_by_its_mean() -> None:
    assert fires_at(CollapseGuard(4, 1, hard_loss=0.01), [0.0, 0.0, 0.0, 0.039]) == 4
    assert fires_at(CollapseGuard(4, 1, hard_loss=0.01), [0.0, 0.0, 0.0, 0.041]) is None
    assert fires_at(CollapseGuard(2, 1, hard_loss=0.01), [0.0, 0.041, 0.0, 0.0]) == 4


def test_training_that_goes_well_is_left_alone() -> None:
    assert fires_at(CollapseGuard(2, 2), [0.05] * 40) is None
    assert fires_at(CollapseGuard(2, 2), [float("nan")] * 40) is None


def test_rain_layers_that_hold_nothing_set_it_off_whatever_the_hard_loss() -> None:
    def fired(shares: list[float]) -> int | None:
        guard = CollapseGuard(2, 3)
        for iteration, share in enumerate(shares, 1):
            try:
                guard.check(step_with(0.01, rain=share * 0.1, label=0.1), iteration)
            except CollapseError:
                return iteration
        return None

    assert fired([0.004] * 10) == 6
    assert fired([0.006] * 10) is None
    assert fired([0.004, 0.004, 0.004, 0.004, 0.004, 0.2, 0.004, 0.004]) is None


def test_the_message_tells_where_how_far_and_what_to_do() -> None:
    guard = CollapseGuard(interval=2, patience=1)
    guard.check(step_with(1e-4, rain=0.002, label=0.1), 700)
    with pytest.raises(CollapseError) as caught:
        guard.check(step_with(3e-4, rain=0.004, label=0.2), 701)
    message = str(caught.value)
    assert "collapsed at iteration 701: the hard loss is 2.0e-04" in message
    assert "holds 2% of what the soft labels take out" in message
    for remedy in (
        "train.distillation.warmup",
        "train.distillation.hard_ramp",
        "train.optim_g.lr",
        "datasets.train.label",
    ):
        assert remedy in message
    assert "\n" not in message


def test_labels_that_take_nothing_out_do_not_stop_the_message() -> None:
    with pytest.raises(CollapseError, match="holds 0% of what"):
        CollapseGuard(1, 1).check(step_with(0.0, rain=0.0, label=0.0), 1)


class Constant(nn.Module):
    """Finds the same rain in every image."""

    def __init__(self, rain: Tensor) -> None:
        super().__init__()
        self.rain = rain

    def forward(self, rainy: Tensor, layers: bool = False) -> Tensor | RainLayers:
        return RainLayers(self.rain, self.rain) if layers else rainy - 0.5 * self.rain


@pytest.mark.parametrize(("strength", "iteration"), [(0.0, 6), (1e-4, 6), (0.3, None)])
def test_a_network_that_finds_no_rain_sets_it_off(strength: float, iteration: int | None) -> None:
    random = torch.Generator().manual_seed(0)
    rainy, label, clean = (torch.rand(2, 3, 16, 16, generator=random) for _ in range(3))
    network = Constant(strength * torch.rand(2, 3, 16, 16, generator=random))
    guard = CollapseGuard(interval=3, patience=2)
    fired = None
    for t in range(1, 10):
        step = distillation_step(network, rainy, label, clean, StepWeights(1.0, 1.0, 1.0), SSIMLoss())
        try:
            guard.check(step, t)
        except CollapseError:
            fired = t
            break
    assert fired == iteration


@pytest.mark.parametrize("arguments", [{"interval": 0}, {"patience": 0}, {"hard_loss": 0.0}, {"hard_loss": -1.0}])
def test_a_guard_that_cannot_count_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"interval and patience .* at least 1, hard_loss above 0"):
        CollapseGuard(**arguments)
