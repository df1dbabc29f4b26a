"""One step of the two-stage distillation: losses and every image between, as named tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .refinements import PAPER, StepRefinements
from .schedule import StepWeights

Criterion = Callable[..., Tensor]
"""A loss of two batches of images, smaller is better; the paper's is 1 - SSIM.

With a confidence, ``criterion(image, target, weight=...)`` weighs places by (B, 1, H, W).
"""


@dataclass(frozen=True)
class DistillationStep:
    """What one step computed. Images are (B, 3, H, W); all but ``loss`` are detached."""

    loss: Tensor
    """What to descend: soft weight * soft loss + hard weight * hard loss."""
    soft_loss: Tensor
    """Rain-to-clean: the refined derained image against the soft label."""
    hard_loss: Tensor
    """Clean-to-rain: the derained synthetic image against its clean original; 0 during warm-up."""
    rainy: Tensor
    label: Tensor
    layer: Tensor
    """The rain layer, before the detail enhancement block."""
    rain: Tensor
    """The refined rain layer."""
    synthetic: Tensor
    """The clean image with that rain: the input of the second stage (the clean image itself during warm-up)."""

    @property
    def derained(self) -> Tensor:
        """The rainy image less its rain layer, as at test time."""
        return self.rainy - self.layer

    @property
    def rain_energy(self) -> Tensor:
        """`rain_energy` of the refined rain layer."""
        return rain_energy(self.rain)

    @property
    def label_energy(self) -> Tensor:
        """`rain_energy` of the rainy image less its soft label: of what the coarse filter took out."""
        return rain_energy(self.rainy - self.label)


def rain_energy(rain: Tensor) -> Tensor:
    """How much rain a rain layer (B, 3, H, W) holds: its mean absolute deviation from each channel's mean, a scalar.

    A layer of one value is no rain, however large the value: a network that has collapsed shifts its colours a little.
    """
    return (rain - rain.mean(dim=(-2, -1), keepdim=True)).abs().mean()


def distillation_step(
    network: nn.Module,
    rainy: Tensor,
    label: Tensor,
    clean: Tensor,
    weights: StepWeights,
    criterion: Criterion,
    two_stages: bool | None = None,
    refined: StepRefinements = PAPER,
    teacher: nn.Module | None = None,
) -> DistillationStep:
    """Forward both stages through one network; the caller goes backward through ``loss``.

    Args:
        network: ``network(x, layers=True)`` gives the rain layer and its refined version, ``network(x)`` the
            derained image.
        rainy: Rainy crops (B, 3, H, W) in [0, 1].
        label: Their soft labels.
        clean: Crops of unrelated clean images.
        weights: Of this iteration.
        criterion: Compares images.
        two_stages: Whether the second stage is computed; by default where the hard weight is above 0, which a
            weight on a GPU could only say by waiting for it.
        refined: What is done beyond the paper.
        teacher: Another network of the same kind, in evaluation mode, for those refinements that need one.

    Raises:
        ValueError: A refinement needs a teacher, and there is none.
    """
    if two_stages is None:
        two_stages = bool(weights.hard > 0)
    layers = network(rainy, layers=True)
    found, target = layers.refined, label
    if refined.teacher_label or (refined.teacher_rain and two_stages):
        if teacher is None:
            raise ValueError("the teacher's rain or labels are asked for, but there is no teacher")
        with torch.no_grad():
            taught = teacher(rainy, layers=True)
        if refined.teacher_rain:
            found = taught.refined
        if refined.teacher_label:
            target = refined.mixed_label(label, rainy - taught.rain)
    trust = {} if refined.confidence is None else {"weight": refined.confidence(rainy, label)}
    soft_loss = criterion(rainy - layers.refined, target, **trust)
    loss = weights.soft * soft_loss
    if two_stages:
        synthetic = refined.synthesise(clean, found, rainy, weights.gain)
        hard_loss = criterion(network(synthetic), clean)
        hard = weights.hard
        if refined.rain_share:
            hard = hard * refined.hard_factor(rain_energy(layers.refined.detach()), rain_energy(rainy - label))
        loss = loss + hard * hard_loss
    else:
        synthetic = clean
        hard_loss = soft_loss.new_zeros(())
    return DistillationStep(
        loss=loss,
        soft_loss=soft_loss.detach(),
        hard_loss=hard_loss.detach(),
        rainy=rainy,
        label=label,
        layer=layers.rain.detach(),
        rain=layers.refined.detach(),
        synthetic=synthetic,
    )


def distillation_gradients(
    network: nn.Module,
    rainy: Tensor,
    label: Tensor,
    clean: Tensor,
    weights: StepWeights,
    criterion: Criterion,
    two_stages: bool | None = None,
    *,
    refined: StepRefinements = PAPER,
    teacher: nn.Module | None = None,
    parts: int = 1,
    precision: torch.dtype | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> DistillationStep:
    """`distillation_step` forward and backward: the gradients are added to the parameters'.

    Args:
        network, rainy, label, clean, weights, criterion, two_stages, refined, teacher: As of `distillation_step`.
        parts: Go through the batch in so many equal parts, one after the other: the same gradients (but for networks
            with batch statistics) in so much less memory.
        precision: ``torch.bfloat16`` or ``float16`` computes the network in it where PyTorch's autocast thinks it
            safe; None is float32. Losses are float32 either way.
        backward: Goes backward through the loss of each part; with a ``GradScaler``, through a multiple of it.

    Returns:
        The whole batch's step, all of it detached.

    Raises:
        ValueError: The batch cannot be split into ``parts``.
    """
    if len(rainy) % parts:
        raise ValueError(f"a batch of {len(rainy)} cannot be split into {parts} equal parts")
    chunks = zip(rainy.chunk(parts), label.chunk(parts), clean.chunk(parts), strict=True)
    steps = []
    for number, chunk in enumerate(chunks, 1):
        # Processes exchange their gradients once, with the last part.
        apart = isinstance(network, DistributedDataParallel) and number < parts
        with network.no_sync() if apart else nullcontext():  # type: ignore[operator]
            with torch.autocast(rainy.device.type, precision, enabled=precision is not None):
                its_own = refined.part(number - 1, parts)
                step = distillation_step(network, *chunk, weights, criterion, two_stages, its_own, teacher)
            backward(step.loss / parts)
        steps.append(step)
    return _joined(steps, rainy, label)


def _joined(steps: list[DistillationStep], rainy: Tensor, label: Tensor) -> DistillationStep:
    def mean(losses: list[Tensor]) -> Tensor:
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def whole(images: list[Tensor]) -> Tensor:
        return images[0] if len(images) == 1 else torch.cat(images)

    return DistillationStep(
        loss=mean([step.loss.detach() for step in steps]),
        soft_loss=mean([step.soft_loss for step in steps]),
        hard_loss=mean([step.hard_loss for step in steps]),
        rainy=rainy,
        label=label,
        layer=whole([step.layer for step in steps]),
        rain=whole([step.rain for step in steps]),
        synthetic=whole([step.synthetic for step in steps]),
    )
