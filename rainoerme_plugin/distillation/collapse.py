"""The trap of two-stage distillation, and a guard that notices it.

No rain is a solution: with an empty rain layer the synthetic image is the clean one, the hard loss is 0 and the
derained image is the rainy one. Training falls into it when the hard loss grows before the soft labels have taught
the network any rain, and hardly ever comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CollapseError
from .step import DistillationStep

LEAST_RAIN = 0.005
"""Share of what the soft labels take out that rain layers hold at least; in sound runs it is far more."""


@dataclass
class CollapseGuard:
    """Raises when the hard loss has been next to nothing for some time, or the rain.

    An interval looks collapsed if its mean hard loss is below ``hard_loss``, or the rain layers of its last step hold
    less than `LEAST_RAIN`: losses that see more than structure, as differences of pixels, are not next to nothing where
    a network has nothing left but a shift of colours.

    Args:
        interval: Iterations over which the hard loss is averaged; the device is waited for only at the end of each.
        patience: Intervals in a row that must look collapsed.
        hard_loss: Below this mean hard loss an interval looks collapsed: synthetic rain that costs so little similarity
            is no rain.

    """

    interval: int = 100
    patience: int = 3
    hard_loss: float = 1e-3

    def __post_init__(self) -> None:
        if self.interval < 1 or self.patience < 1 or self.hard_loss <= 0:
            raise ValueError("interval and patience of the collapse guard must be at least 1, hard_loss above 0")
        self._sum: Tensor | None = None
        self._count = 0
        self._suspicious = 0
        self._sound = 0

    def state_dict(self) -> dict[str, Any]:
        """What it has seen, as tensors and plain types."""
        total = None if self._sum is None else self._sum.cpu()
        return {"sum": total, "count": self._count, "suspicious": self._suspicious, "sound": self._sound}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._sum, self._count = state["sum"], state["count"]
        self._suspicious, self._sound = state["suspicious"], state["sound"]

    def check(self, step: DistillationStep, iteration: int, average: Callable[[Tensor], Tensor] | None = None) -> None:
        """Take note of one step in which the hard loss counted.

        Args:
            step: What it computed.
            iteration: Its number.
            average: The mean over all processes of a tensor that each has, so that all come to one verdict.

        Raises:
            CollapseError: Training has collapsed.
        """
        so_far = 0 if self._sum is None else self._sum.to(step.hard_loss.device)
        self._sum = step.hard_loss + so_far
        self._count += 1
        if self._count < self.interval:
            return
        mean = self._sum / self._count
        found = torch.stack([mean, step.rain_energy.to(mean), step.label_energy.to(mean)])
        hard_loss, rain, label = (found if average is None else average(found)).tolist()
        self._sum, self._count = None, 0
        is_suspicious = hard_loss < self.hard_loss or rain < LEAST_RAIN * label
        self._suspicious = self._suspicious + 1 if is_suspicious else 0
        if self._suspicious == 0:
            self._sound = iteration
        if self._suspicious >= self.patience:
            raise CollapseError(
                f"training has collapsed at iteration {iteration}: the hard loss is {hard_loss:.1e} and the rain layer "
                f"holds {rain / max(label, 1e-12):.0%} of what the soft labels take out: the network copies its input. "
                "Start again with a longer train.distillation.warmup, a larger train.distillation.hard_ramp, a lower "
                "train.optim_g.lr, or a label filter that leaves less rain (datasets.train.label)",
                self._sound,
            )
