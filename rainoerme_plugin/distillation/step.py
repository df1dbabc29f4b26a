"""One step of the two-stage distillation: losses and every image between, as named tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from .schedule import StepWeights
from .synthesis import add_rain


@dataclass(frozen=True)
class DistillationStep:
    """What one step computed. Images are (B, 3, H, W); all but ``loss`` are detached."""

    loss: Tensor
    """What to descend: soft weight * soft loss + hard weight * hard loss."""
    soft_loss: Tensor
    """Rain-to-clean: the refined derained image against the soft label."""
    hard_loss: Tensor
    """Clean-to-rain: the derained synthetic image against its clean original; 0 during warm-up."""
    rain_energy: Tensor
    """`rain_energy` of the refined rain layer."""
    label_energy: Tensor
    """`rain_energy` of the rainy image less its soft label: of what the coarse filter took out."""
    rain: Tensor
    """The refined rain layer."""
    derained: Tensor
    """The rainy image less its rain layer, as at test time."""
    synthetic: Tensor
    """The clean image with that rain: the input of the second stage (the clean image itself during warm-up)."""


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
    criterion: Callable[[Tensor, Tensor], Tensor],
) -> DistillationStep:
    """Forward both stages through one network; the caller goes backward through ``loss``.

    Args:
        network: ``network(x, layers=True)`` gives the rain layer and its refined version, ``network(x)`` the
            derained image.
        rainy: Rainy crops (B, 3, H, W) in [0, 1].
        label: Their soft labels.
        clean: Crops of unrelated clean images.
        weights: Of this iteration. With a hard weight of 0 the second stage is not computed.
        criterion: A loss of two batches of images, smaller is better; the paper's is 1 - SSIM.
    """
    layers = network(rainy, layers=True)
    soft_loss = criterion(rainy - layers.refined, label)
    loss = weights.soft * soft_loss
    if weights.hard > 0:
        synthetic = add_rain(clean, layers.refined, weights.gain)
        hard_loss = criterion(network(synthetic), clean)
        loss = loss + weights.hard * hard_loss
    else:
        synthetic = clean
        hard_loss = soft_loss.new_zeros(())
    refined = layers.refined.detach()
    return DistillationStep(
        loss=loss,
        soft_loss=soft_loss.detach(),
        hard_loss=hard_loss.detach(),
        rain_energy=rain_energy(refined),
        label_energy=rain_energy(rainy - label),
        rain=refined,
        derained=rainy - layers.rain.detach(),
        synthetic=synthetic,
    )
