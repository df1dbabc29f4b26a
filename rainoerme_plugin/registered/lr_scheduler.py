"""The paper's learning rate: constant, then falling linearly to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class _LinearDecay:
    """Picklable, so that a training state holds no code."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __call__(self, iteration: int) -> float:
        return min(1.0, max(0.0, (self.end - iteration) / (self.end - self.start)))


class LinearDecayLR(LambdaLR):
    """The initial learning rate up to iteration ``start``, then linearly to 0 at iteration ``end``.

    Raises:
        ValueError: ``end`` is not after ``start``, or ``start`` is negative.
    """

    def __init__(self, optimizer: Optimizer, start: int, end: int, last_epoch: int = -1) -> None:
        if not 0 <= start < end:
            raise ValueError(f"LinearDecayLR needs 0 <= start < end, got start {start} and end {end}")
        super().__init__(optimizer, _LinearDecay(start, end), last_epoch)


def build_schedule(optimizer: Optimizer, options: Mapping[str, Any]) -> LRScheduler:
    """The schedule that ``train.scheduler`` of an option file names: ours, or one of BasicSR's, by its names."""
    from basicsr.models import lr_scheduler as stock

    kinds = {
        "LinearDecayLR": LinearDecayLR,
        "MultiStepLR": stock.MultiStepRestartLR,
        "MultiStepRestartLR": stock.MultiStepRestartLR,
        "CosineAnnealingRestartLR": stock.CosineAnnealingRestartLR,
    }
    schedule: LRScheduler = kinds[options["type"]](
        optimizer, **{key: value for key, value in options.items() if key != "type"}
    )
    return schedule
