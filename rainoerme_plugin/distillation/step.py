"""One step of the two-stage distillation: losses and every image between, as named tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .refinements import PAPER, StepRefinements
from .schedule import StepWeights

Criterion = Callable[..., Tensor]
"""A loss of two batches of images, smaller is better; the paper's is 1 - SSIM.

With a confidence, ``criterion(image, target, weight=...)`` weighs places by (B, 1, H, W).
"""


class AdversarialLosses(NamedTuple):
    """Of one step with an adversarial loss (`distillation.adversarial`), scalars."""

    fooling: Tensor
    """The network's, before its weight."""
    telling: Tensor
    """The discriminator's."""


@dataclass(frozen=True)
class DistillationStep:
    """What one step computed. Images are (B, 3, H, W); all but ``loss`` are detached.

    Where all rain is of a bank, there is no first stage. The synthetic image stands for the rainy one then, and the
    clean one for its label, which makes it a perfect one.
    """

    loss: Tensor
    """What to descend: soft weight * soft loss + hard weight * hard loss, and the weighted adversarial loss."""
    soft_loss: Tensor
    """Rain-to-clean: the refined derained image against the soft label; 0 without a first stage."""
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
    adversarial: AdversarialLosses | None = None
    """None: there is no such loss, or not yet."""

    @property
    def is_of_bank(self) -> bool:
        """Whether there was no first stage."""
        return self.rainy is self.synthetic

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
    bank: Tensor | None = None,
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
        bank: Rain layers of a bank, for those clean images that get them as ``refined`` says; None: there is no bank,
            and all get what the network finds.

    Raises:
        ValueError: A refinement needs a teacher, and there is none.
    """
    if bank is not None and refined.bank == 1:
        return _bank_step(network, refined.synthesise(clean, bank, clean, weights.gain), clean, criterion)
    if two_stages is None:
        two_stages = bool(weights.hard > 0)
    trust = None if refined.confidence is None else refined.confidence(rainy, label)
    first = _first_stage(network, rainy, label, criterion, two_stages, refined, teacher, trust)
    loss = weights.soft * first.loss
    if two_stages:
        synthetic = refined.synthesise(clean, refined.layers_for(first.found, bank), rainy, weights.gain)
        hard_loss = criterion(network(synthetic), clean)
        loss = loss + _hard_weight(weights, refined, first.rain, rainy, label) * hard_loss
    else:
        synthetic = clean
        hard_loss = first.loss.new_zeros(())
    return DistillationStep(
        loss=loss,
        soft_loss=first.loss.detach(),
        hard_loss=hard_loss.detach(),
        rainy=rainy,
        label=label,
        layer=first.layer.detach(),
        rain=first.rain.detach(),
        synthetic=synthetic,
    )


def _bank_step(network: nn.Module, synthetic: Tensor, clean: Tensor, criterion: Criterion) -> DistillationStep:
    """A step whose rain is all of a bank."""
    derained = network(synthetic)
    loss = criterion(derained, clean)
    layer = synthetic - derained.detach()
    nothing = torch.zeros_like(loss.detach())
    return DistillationStep(loss, nothing, loss.detach(), synthetic, clean, layer, layer, synthetic)


class _FirstStage(NamedTuple):
    """What rainy images come to."""

    layer: Tensor
    rain: Tensor
    """The refined layer."""
    found: Tensor
    """The rain that goes onto clean images: the refined layer, or the teacher's."""
    loss: Tensor
    """The soft loss."""

    def detached(self) -> _FirstStage:
        return _FirstStage(*(each.detach() for each in self))


def _first_stage(
    network: nn.Module,
    rainy: Tensor,
    label: Tensor,
    criterion: Criterion,
    two_stages: bool,
    refined: StepRefinements,
    teacher: nn.Module | None,
    trust: Tensor | None,
) -> _FirstStage:
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
    weight = {} if trust is None else {"weight": trust}
    return _FirstStage(layers.rain, layers.refined, found, criterion(rainy - layers.refined, target, **weight))


def _hard_weight(
    weights: StepWeights, refined: StepRefinements, rain: Tensor, rainy: Tensor, label: Tensor
) -> float | Tensor:
    """What the hard loss weighs, where it may have to wait for the rain that is found in the whole batch."""
    if not refined.rain_share:
        return weights.hard
    return weights.hard * refined.hard_factor(rain_energy(rain.detach()), rain_energy(rainy - label))


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
    bank: Tensor | None = None,
    parts: int = 1,
    precision: torch.dtype | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> DistillationStep:
    """`distillation_step` forward and backward: the gradients are added to the parameters'.

    Args:
        network, rainy, label, clean, weights, criterion, two_stages, refined, teacher, bank: As of
            `distillation_step`.
        parts: Go through the batch in so many equal parts, one after the other: the same gradients in so much less
            memory. They are the same but for rounding where the loss of a batch is the mean of its parts' losses
            (weighted ones: by the sums of their weights), and the network takes each image by itself and draws
            nothing: batch norms see the part.
        precision: ``torch.bfloat16`` or ``float16`` computes the network in it where PyTorch's autocast thinks it
            safe; None is float32, or what an autocast around this says. Losses are float32 either way.
        backward: Goes backward through the loss of each part; with a ``GradScaler``, through a multiple of it.

    Returns:
        The whole batch's step, all of it detached.

    Raises:
        ValueError: The batch cannot be split into ``parts``.
    """
    if len(rainy) % parts:
        raise ValueError(f"a batch of {len(rainy)} cannot be split into {parts} equal parts")
    computing = nullcontext if precision is None else partial(torch.autocast, rainy.device.type, precision)
    if parts == 1:
        with computing():
            step = distillation_step(
                network, rainy, label, clean, weights, criterion, two_stages, refined, teacher, bank
            )
        backward(step.loss)
        return replace(step, loss=step.loss.detach())
    if bank is not None and refined.bank == 1:
        synthetic = refined.synthesise(clean, bank, clean, weights.gain)
        steps = []
        for number, (its_synthetic, its_clean) in enumerate(
            zip(synthetic.chunk(parts), clean.chunk(parts), strict=True), 1
        ):
            with exchanging(network, number == parts):
                with computing():
                    step = _bank_step(network, its_synthetic, its_clean, criterion)
                backward(step.loss / parts)
            steps.append(replace(step, loss=step.loss.detach()))
        return _together(steps)
    if two_stages is None:
        two_stages = bool(weights.hard > 0)
    # All first stages before the second ones: what is asked of the whole batch is then known.
    trusts: Sequence[Tensor | None] = [None] * parts
    shares: Sequence[float | Tensor] = [1 / parts] * parts
    if refined.confidence is not None:
        trust = refined.confidence(rainy, label).to(rainy.dtype)
        trusts = trust.chunk(parts)
        shares = [part.sum() / trust.sum().clamp(min=1e-12) for part in trust.chunk(parts)]
    firsts = []
    for number, (its_rainy, its_label) in enumerate(zip(rainy.chunk(parts), label.chunk(parts), strict=True), 1):
        with exchanging(network, number == parts and not two_stages):
            with computing():
                first = _first_stage(
                    network, its_rainy, its_label, criterion, two_stages, refined, teacher, trusts[number - 1]
                )
            soft = weights.soft * shares[number - 1] * first.loss
            # Processes exchange their gradients in the last backward pass, which must be through all parameters.
            if number < parts or not two_stages:
                backward(soft)
        firsts.append(first.detached())
    layer, rain, found = (torch.cat(images) for images in list(zip(*firsts, strict=True))[:3])
    soft_loss = torch.stack([share * first.loss for share, first in zip(shares, firsts, strict=True)]).sum()
    loss, hard_loss, synthetic = weights.soft * soft_loss, soft_loss.new_zeros(()), clean
    if two_stages:
        synthetic = refined.synthesise(clean, refined.layers_for(found, bank), rainy, weights.gain)
        hard_weight, hard_losses = _hard_weight(weights, refined, rain, rainy, label), []
        for number, (its_synthetic, its_clean) in enumerate(
            zip(synthetic.chunk(parts), clean.chunk(parts), strict=True), 1
        ):
            with exchanging(network, number == parts):
                with computing():
                    its_loss = criterion(network(its_synthetic), its_clean)
                hard = hard_weight * its_loss / parts
                backward(hard if number < parts else soft + hard)
            hard_losses.append(its_loss.detach())
        hard_loss = torch.stack(hard_losses).mean()
        loss = loss + hard_weight * hard_loss
    return DistillationStep(loss, soft_loss, hard_loss, rainy, label, layer, rain, synthetic)


def _together(steps: Sequence[DistillationStep]) -> DistillationStep:
    """The step of a whole batch, of those of its equal parts: losses are their mean."""
    names = (field.name for field in fields(DistillationStep) if field.type == "Tensor")
    values = {name: [getattr(step, name) for step in steps] for name in names}
    whole: dict[str, Any] = {
        name: torch.stack(each).mean() if each[0].ndim == 0 else torch.cat(each) for name, each in values.items()
    }
    return replace(steps[0], **{**whole, "rainy": whole["synthetic"]})


def exchanging(network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Whether processes exchange gradients in what goes forward and backward meanwhile."""
    whole = getattr(network, "_orig_mod", network)  # of a compiled one
    return nullcontext() if wanted or not isinstance(whole, DistributedDataParallel) else whole.no_sync()
