"""Learning rates over a run: constant, then falling to nothing linearly (the paper's) or by a cosine; BasicSR's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ..errors import OptionError, brief, counted, nearest
from ..options import Count, Number, Positive, Section, read_section


class _Decay:
    """Factor of the rate by the iterations done: 1 up to ``start``, 0 from ``end`` on, a curve between them.

    Picklable, so that a training state holds no code.
    """

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __call__(self, iteration: int) -> float:
        return self.curve(min(1.0, max(0.0, (self.end - iteration) / (self.end - self.start))))

    def curve(self, left: float) -> float:
        """The factor where a share ``left`` of the way from start to end is still to go."""
        raise NotImplementedError


class _Linear(_Decay):
    def curve(self, left: float) -> float:
        return left


class _Cosine(_Decay):
    def curve(self, left: float) -> float:
        return (1 - math.cos(math.pi * left)) / 2


class _DecayLR(LambdaLR):
    decay: ClassVar[type[_Decay]]

    def __init__(self, optimizer: Optimizer, start: int, end: int, last_epoch: int = -1) -> None:
        if not 0 <= start < end:
            raise ValueError(f"{type(self).__name__} needs 0 <= start < end, got start {start} and end {end}")
        super().__init__(optimizer, self.decay(start, end), last_epoch)


class LinearDecayLR(_DecayLR):
    """The initial learning rate up to iteration ``start``, then linearly to 0 at iteration ``end``.

    Raises:
        ValueError: ``end`` is not after ``start``, or ``start`` is negative.
    """

    decay = _Linear


class CosineLR(_DecayLR):
    """The initial learning rate up to iteration ``start``, then down half a cosine to 0 at iteration ``end``.

    With ``start`` 0 it is the cosine annealing of Loshchilov and Hutter (ICLR 2017) without restarts.

    Raises:
        ValueError: ``end`` is not after ``start``, or ``start`` is negative.
    """

    decay = _Cosine


class ScheduleOptions(Section):
    """``train.scheduler``."""

    type: str

    def build(self, optimizer: Optimizer, total: int) -> LRScheduler:
        """The schedule of a run of ``total`` iterations.

        Raises:
            ValueError: It cannot be one.
        """
        raise NotImplementedError

    def misfits(self, total: int) -> list[str]:
        """What of it a run of ``total`` iterations makes nothing of, a sentence each."""
        raise NotImplementedError


class LinearDecayOptions(ScheduleOptions):
    """`LinearDecayLR`; unless they are given, it ends with the run and starts at half of that."""

    start: Count | None = None
    end: Positive | None = None
    schedule: ClassVar[type[_DecayLR]] = LinearDecayLR

    def span(self, total: int) -> tuple[int, int]:
        """Start and end in a run of ``total`` iterations."""
        end = total if self.end is None else self.end
        return self.usual_start(end) if self.start is None else self.start, end

    @staticmethod
    def usual_start(end: int) -> int:
        """Where it starts unless that is given."""
        return end // 2

    def build(self, optimizer: Optimizer, total: int) -> LRScheduler:
        return self.schedule(optimizer, *self.span(total))

    def misfits(self, total: int) -> list[str]:
        start, end = self.span(total)
        if total > 1 and start >= total - 1:  # iteration k runs at the rate after k - 1 steps
            return [f"the rate never falls: it would from iteration {start} on"]
        if end < total:
            return [f"the rate is 0 for the last {counted(total - end, 'iteration')}: end is {end}"]
        if end > total:
            return [f"the rate only falls to {self.schedule.decay(start, end)(total - 1):.0%}: end is {end}"]
        return []


class CosineOptions(LinearDecayOptions):
    """`CosineLR`; unless they are given, it ends with the run and starts at once."""

    schedule: ClassVar[type[_DecayLR]] = CosineLR

    @staticmethod
    def usual_start(end: int) -> int:
        return 0


class MultiStepOptions(ScheduleOptions):
    """BasicSR's ``MultiStepRestartLR``."""

    milestones: list[Count]
    gamma: Number = 0.1
    restarts: list[Count] = Field([0])
    restart_weights: list[Number] = Field([1.0])

    @model_validator(mode="after")
    def _match(self) -> MultiStepOptions:
        if len(self.restarts) != len(self.restart_weights):
            raise ValueError(
                f"expected a weight for each restart, got {counted(len(self.restarts), 'restart')} and "
                f"{len(self.restart_weights)} restart_weights"
            )
        return self

    def build(self, optimizer: Optimizer, total: int) -> LRScheduler:
        from basicsr.models.lr_scheduler import MultiStepRestartLR

        schedule: LRScheduler = MultiStepRestartLR(optimizer, **self.model_dump(exclude={"type"}, exclude_unset=True))
        return schedule

    def misfits(self, total: int) -> list[str]:
        found = []
        for name, steps in (("milestones", self.milestones), ("restarts", self.restarts)):
            late = [step for step in steps if step > total]  # one at the very end is a way to say never
            if late:
                never = ": the rate never falls" if name == "milestones" and len(late) == len(steps) else ""
                found.append(f"{name} {brief(late)} come after the end{never}")
        return found


class CosineRestartOptions(ScheduleOptions):
    """BasicSR's ``CosineAnnealingRestartLR``."""

    periods: Annotated[list[Positive], Field(min_length=1)]
    restart_weights: list[Number] = Field([1.0])
    eta_min: Number = 0.0

    @model_validator(mode="after")
    def _match(self) -> CosineRestartOptions:
        if len(self.periods) != len(self.restart_weights):
            raise ValueError(
                f"expected a weight for each period, got {counted(len(self.periods), 'period')} and "
                f"{len(self.restart_weights)} restart_weights"
            )
        return self

    def build(self, optimizer: Optimizer, total: int) -> LRScheduler:
        from basicsr.models.lr_scheduler import CosineAnnealingRestartLR

        if sum(self.periods) < total - 1:
            raise ValueError(
                f"periods add up to {sum(self.periods)}, after which there is no rate; total_iter is {total}: they "
                "must add up to it"
            )
        given = self.model_dump(exclude={"type"}, exclude_unset=True)
        schedule: LRScheduler = CosineAnnealingRestartLR(optimizer, **given)
        return schedule

    def misfits(self, total: int) -> list[str]:
        whole = sum(self.periods)
        return [f"periods add up to {whole}: the end is in the middle of one"] if whole > total else []


STOCK: dict[str, type[ScheduleOptions]] = {
    "MultiStepLR": MultiStepOptions,
    "MultiStepRestartLR": MultiStepOptions,
    "CosineAnnealingRestartLR": CosineRestartOptions,
}
"""Those that every model of BasicSR's takes, by the names of option files."""
SCHEDULES: dict[str, type[ScheduleOptions]] = {
    **STOCK,
    "LinearDecayLR": LinearDecayOptions,
    "CosineLR": CosineOptions,
}


def read_schedule(
    options: Any, key: str = "train.scheduler", known: Mapping[str, type[ScheduleOptions]] = SCHEDULES
) -> ScheduleOptions:
    """The schedule that ``train.scheduler`` of an option file describes.

    Raises:
        OptionError: There is no such one, or it does not take these arguments.
    """
    name = options.get("type") if isinstance(options, Mapping) else None
    if isinstance(options, Mapping) and (not isinstance(name, str) or name not in known):
        near = nearest(str(name), known)
        raise OptionError(f"{key}.type: no scheduler {brief(name)}{near}; there are {', '.join(known)}")
    return read_section(known.get(str(name), ScheduleOptions), options, key)


def build_schedule(
    optimizer: Optimizer, options: Mapping[str, Any], total: int, key: str = "train.scheduler"
) -> LRScheduler:
    """The schedule that ``train.scheduler`` of an option file describes, for a run of ``total`` iterations.

    Raises:
        OptionError: There is no such one, or it does not take these arguments.
    """
    try:
        return read_schedule(options, key).build(optimizer, total)
    except ValueError as error:
        raise OptionError(f"{key}: {error}") from None
