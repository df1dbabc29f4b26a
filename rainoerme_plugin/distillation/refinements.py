"""What one step may do beyond the paper: various rain, a teacher, trust in labels, a hard loss that waits for rain.

`Refinements` are the settings of a run, `StepRefinements` what follows from them for one iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .confidence import Confidence
from .rain_layers import RainVariation
from .synthesis import Blend, add_rain, opacity, screen_rain


@dataclass(frozen=True)
class Teacher:
    """What the running mean of the weights (EMA) teaches; by default nothing.

    Args:
        rain: Whether the rain that is added to clean images is the teacher's.
        start: ... after this iteration.
        label_weight: Share of the soft label that is the teacher's derained image, in the end; the coarse filter's
            label has the rest.
        label_start: Iteration after which the share grows from 0.
        label_ramp: Iterations in which it does.

    Raises:
        ValueError: A number is out of range.
    """

    rain: bool = False
    start: int = 0
    label_weight: float = 0.0
    label_start: int = 0
    label_ramp: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.label_weight <= 1:
            raise ValueError(f"label_weight must be from 0 to 1, got {self.label_weight}")
        if self.start < 0 or self.label_start < 0 or self.label_ramp < 1:
            raise ValueError("start and label_start must be at least 0, label_ramp at least 1")

    @property
    def is_needed(self) -> bool:
        return self.rain or self.label_weight > 0

    def label_share(self, iteration: int) -> float:
        """The teacher's share of the soft label at ``iteration``."""
        return self.label_weight * min(1.0, max(0, iteration - self.label_start) / self.label_ramp)


class StepRefinements(NamedTuple):
    """What one step does beyond the paper; by default nothing."""

    blend: Blend = "add"
    variation: RainVariation | None = None
    draw: Tensor | None = None
    """Of the variation, (B, numbers), on the device."""
    teacher_rain: bool = False
    teacher_label: bool = False
    label_share: float | Tensor = 0.0
    """The teacher's share of the soft label, where ``teacher_label`` says that it has one."""
    confidence: Confidence | None = None
    rain_share: float = 0.0

    @property
    def kernels(self) -> tuple[bool, bool]:
        """What of it decides about the kernels of a step, beside settings that stay the same all run."""
        return self.teacher_rain, self.teacher_label

    @property
    def needs_teacher(self) -> bool:
        return self.teacher_rain or self.teacher_label

    def synthesise(self, clean: Tensor, rain: Tensor, rainy: Tensor, gain: float | Tensor) -> Tensor:
        """Clean images with the rain layers that were found in ``rainy``, varied; (B, 3, H, W) each."""
        if self.blend == "alpha":
            rain = opacity(rain, rainy - rain)
        if self.variation is not None and self.draw is not None:
            rain = self.variation(rain.detach(), self.draw)
        return (add_rain if self.blend == "add" else screen_rain)(clean, rain, gain)

    def mixed_label(self, label: Tensor, derained: Tensor) -> Tensor:
        """The soft label with the teacher's share in it."""
        return torch.lerp(label, derained.clamp(0, 1), torch.as_tensor(self.label_share).to(label))

    def hard_factor(self, rain_energy: Tensor, label_energy: Tensor) -> Tensor:
        """By what the hard weight is multiplied: 1 once enough rain is found, 0 below half of that; a scalar.

        It is 2 * rain_energy / (rain_share * label_energy) - 1, in [0, 1]. Below the half the soft loss is alone, so
        that whatever pulls towards no rain has no pull there.
        """
        return (2 * rain_energy / (self.rain_share * label_energy).clamp(min=1e-12) - 1).clamp(0, 1)


PAPER = StepRefinements()


@dataclass(frozen=True)
class Refinements:
    """What a run does beyond the paper; the defaults are the paper's way.

    Args:
        blend: How rain is put before a clean image: ``add`` (`add_rain`), ``screen`` (`screen_rain`), or ``alpha``:
            the layer's `opacity` in its own photograph, then `screen_rain`.
        variation: Of the rain layers.
        teacher: What the running mean of the weights teaches.
        confidence: Weighs the soft loss by how far the labels can be trusted; None trusts them everywhere.
        rain_share: The hard loss counts in full while the rain layers hold this share of what the soft labels take
            out (`rain_energy` of both), and not at all while they hold less than half of it, so that training cannot
            stay where no rain is found. 0: always in full.

    Raises:
        ValueError: A number is out of range.
    """

    blend: Blend = "add"
    variation: RainVariation = field(default_factory=RainVariation)
    teacher: Teacher = field(default_factory=Teacher)
    confidence: Confidence | None = None
    rain_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rain_share <= 1:
            raise ValueError(f"rain_share must be from 0 to 1, got {self.rain_share}")

    def at(self, iteration: int, batch: int, seed: int = 0) -> StepRefinements:
        """Those of one iteration, from 1: a function of it and the seed alone. Tensors are on the CPU.

        Args:
            iteration, batch, seed: As of `RainVariation.draw`.
        """
        varies = not self.variation.does_nothing
        share = self.teacher.label_share(iteration)
        return StepRefinements(
            blend=self.blend,
            variation=self.variation if varies else None,
            draw=self.variation.draw(iteration, batch, seed) if varies else None,
            teacher_rain=self.teacher.rain and iteration > self.teacher.start,
            teacher_label=share > 0,
            label_share=share,
            confidence=self.confidence,
            rain_share=self.rain_share,
        )


class OnDevice:
    """Holds a step's numbers at fixed places of a device, where a captured CUDA graph finds the next step's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._share = torch.zeros((), device=device)
        self._draws: dict[torch.Size, Tensor] = {}

    def __call__(self, refinements: StepRefinements) -> StepRefinements:
        """The same with its tensors on the device; those of the call before are overwritten."""
        draw = refinements.draw
        if draw is not None:
            # Nothing waits for the copy of pinned memory, and PyTorch keeps it until it is done.
            source = draw.pin_memory() if self._device.type == "cuda" else draw
            if draw.shape not in self._draws:
                self._draws[draw.shape] = torch.empty_like(draw, device=self._device)
            draw = self._draws[draw.shape].copy_(source, non_blocking=True)
        if refinements.teacher_label:
            self._share.fill_(refinements.label_share)
            return refinements._replace(draw=draw, label_share=self._share)
        return refinements._replace(draw=draw)
