"""The trap of two-stage distillation, and a guard that notices it.

No rain is a solution: with an empty rain layer the synthetic image is the clean one, the hard loss is 0 and the
derained image is the rainy one. Training falls into it when the hard loss grows before the soft labels have taught
the network any rain, and hardly ever comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import CollapseError
from .step import DistillationStep


@dataclass
class CollapseGuard:
    """Raises when the hard loss has been next to nothing for some time.

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

    def check(self, step: DistillationStep, iteration: int) -> None:
        """Take note of one step in which the hard loss counted.

        Raises:
            CollapseError: Training has collapsed.
        """
        self._sum = step.hard_loss.clone() if self._sum is None else self._sum + step.hard_loss
        self._count += 1
        if self._count < self.interval:
            return
        hard_loss = float(self._sum) / self._count
        self._sum, self._count = None, 0
        self._suspicious = self._suspicious + 1 if hard_loss < self.hard_loss else 0
        if self._suspicious >= self.patience:
            rain, label = float(step.rain_energy), float(step.label_energy)
            raise CollapseError(
                f"training has collapsed at iteration {iteration}: the hard loss is {hard_loss:.1e} and the rain layer "
                f"holds {rain / max(label, 1e-12):.0%} of what the soft labels take out: the network copies its input. "
                "Start again with a longer train.distillation.warmup, a larger train.distillation.hard_ramp, a lower "
                "train.optim_g.lr, or a label filter that leaves less rain (datasets.train.label)"
            )
