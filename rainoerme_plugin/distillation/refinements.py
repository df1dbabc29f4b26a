"""What one step may do beyond the paper: various rain, a teacher, trust in labels, a hard loss that waits for rain.

`Refinements` are the settings of a run, `StepRefinements` what follows from them for one iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
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
    bank: float = 0.0
    """The share of clean images that get the rain of a bank, where there is one."""
    from_bank: Tensor | None = None
    """Which do, (B,) bool, on the device; None: all of them or none."""

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

    def layers_for(self, found: Tensor, bank: Tensor | None) -> Tensor:
        """The rain layers that go onto clean images, (B, 3, H, W): those found, or for some images the bank's."""
        if bank is None or self.from_bank is None:
            return found
        return torch.where(self.from_bank[:, None, None, None], bank, found)

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
        bank: The share of clean images that get the rain of a bank (`data.rain`), where there is one. With 1 nothing
            is asked of the rain that the network finds: there is no first stage, and no schedule of weights.

    Raises:
        ValueError: A number is out of range.
    """

    blend: Blend = "add"
    variation: RainVariation = field(default_factory=RainVariation)
    teacher: Teacher = field(default_factory=Teacher)
    confidence: Confidence | None = None
    rain_share: float = 0.0
    bank: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rain_share", "bank"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.bank and self.blend == "alpha":
            raise ValueError("blend: alpha asks what lies behind the rain, which a bank does not know; take screen")

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
            bank=self.bank,
            from_bank=self._from_bank(iteration, batch, seed) if 0 < self.bank < 1 else None,
        )

    def _from_bank(self, iteration: int, batch: int, seed: int) -> Tensor:
        random = np.random.default_rng([seed, iteration, 0x62616E6B])  # "bank": apart from other draws of the seed
        return torch.from_numpy(random.random(batch) < self.bank)


class OnDevice:
    """Holds a step's numbers at fixed places of a device, where a captured CUDA graph finds the next step's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._share = torch.zeros((), device=device)
        self._held: dict[tuple[str, torch.Size], Tensor] = {}

    def __call__(self, refinements: StepRefinements) -> StepRefinements:
        """The same with its tensors on the device; those of the call before are overwritten."""
        draw, from_bank = self._copied("draw", refinements.draw), self._copied("from_bank", refinements.from_bank)
        told = refinements._replace(draw=draw, from_bank=from_bank)
        if refinements.teacher_label:
            self._share.fill_(refinements.label_share)
            return told._replace(label_share=self._share)
        return told

    def _copied(self, name: str, numbers: Tensor | None) -> Tensor | None:
        if numbers is None:
            return None
        # Nothing waits for the copy of pinned memory, and PyTorch keeps it until it is done.
        source = numbers.pin_memory() if self._device.type == "cuda" else numbers
        key = name, numbers.shape
        if key not in self._held:
            self._held[key] = torch.empty_like(numbers, device=self._device)
        return self._held[key].copy_(source, non_blocking=True)
