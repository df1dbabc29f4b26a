"""How the two losses are weighed as training goes on, and how strongly rain is added.

The soft labels teach what rain is, and fade; the clean images teach detail, and take over. If they take over before
any rain was learnt, training collapses (`CollapseGuard`): `warmup` keeps them away until then.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class StepWeights(NamedTuple):
    """What one training step needs to know of the schedule: numbers, or scalars on the device."""

    soft: float | Tensor
    hard: float | Tensor
    gain: float | Tensor


@dataclass(frozen=True)
class Schedule:
    """Weights of the soft and the hard loss and the gain of the added rain, at iteration t (from 1).

    For t <= warmup: soft 1, hard 0. After it, with s = t - warmup:
    soft = max(soft_decay / (s + soft_decay), soft_min), hard = min(s / hard_ramp, hard_max), and for s > gain_start a
    gain drawn from 1 + k/10, k uniform over the integers of gain_range; before, 1.

    Args:
        soft_decay: Iterations after which the soft loss counts half.
        hard_ramp: Iterations in which the weight of the hard loss grows by 1.
        hard_max: Where it stops growing.
        warmup: Iterations on the soft loss alone before the schedule starts. The paper has none.
        gain_range: The integers k, first and last; (0, 0) leaves the rain as it was found.
        gain_start: Iterations of the schedule before the gain varies.
        soft_min: Where the soft weight stops falling. The paper's falls towards 0.

    Raises:
        ValueError: A number is out of range.
    """

    soft_decay: float = 1000.0
    hard_ramp: float = 1000.0
    hard_max: float = 50.0
    warmup: int = 0
    gain_range: tuple[int, int] = (0, 0)
    gain_start: int = 0
    soft_min: float = 0.0

    def __post_init__(self) -> None:
        for name in ("soft_decay", "hard_ramp", "hard_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup", "gain_start"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.soft_min <= 1:
            raise ValueError(f"soft_min must be from 0 to 1, got {self.soft_min}")
        low, high = self.gain_range
        if low > high or low < -10:
            raise ValueError(f"gain_range must be two integers, -10 <= first <= last, got {list(self.gain_range)}")

    def at(self, iteration: int, seed: int = 0) -> StepWeights:
        """The weights at ``iteration``, from 1; the gain is a function of ``(seed, iteration)`` alone.

        Raises:
            ValueError: ``iteration`` is below 1.
        """
        if iteration < 1:
            raise ValueError(f"iterations count from 1, got {iteration}")
        step = iteration - self.warmup
        if step <= 0:
            return StepWeights(soft=1.0, hard=0.0, gain=1.0)
        gain = 1.0
        if step > self.gain_start and self.gain_range != (0, 0):
            gain += random.Random(f"gain {seed} {iteration}").randint(*self.gain_range) / 10
        return StepWeights(
            soft=max(self.soft_decay / (step + self.soft_decay), self.soft_min),
            hard=min(step / self.hard_ramp, self.hard_max),
            gain=gain,
        )


PRESETS: dict[str, Schedule] = {
    "rain200l": Schedule(soft_decay=1000, hard_ramp=1000, hard_max=50),
    "rain1400": Schedule(soft_decay=1000, hard_ramp=1000, hard_max=10),
    "did": Schedule(soft_decay=500, hard_ramp=500, hard_max=100, gain_range=(-5, 10), gain_start=5000),
}
"""The paper's three recipes, as its released code sets them."""
