"""Losses beside SSIM: of values, of their differences from pixel to pixel, of frequencies.

All compare floating-point images (B, C, H, W) in [0, 1], compute half precision in float32, give a scalar, and take
weights (B, 1, H, W) as `weighted_mean` does: a batch's loss is the mean of its parts' losses by the sums of their
weights, which `distillation_gradients` goes by.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .weighted import mean_one, weighted_mean


def _same(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if image.shape != target.shape or image.dim() != 4:
        raise ValueError(
            f"image and target must have one shape (B, C, H, W), got {tuple(image.shape)} and {tuple(target.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(image.dtype, target.dtype), torch.float32)
    return image.to(dtype), target.to(dtype)


def charbonnier(image: Tensor, target: Tensor, *, eps: float = 1e-12, weight: Tensor | None = None) -> Tensor:
    """The mean of sqrt((image - target)^2 + eps), a smooth absolute difference (Charbonnier et al., ICIP 1994).

    Raises:
        ValueError: The shapes differ, or are not (B, C, H, W).
    """
    image, target = _same(image, target)
    return weighted_mean(torch.sqrt((image - target) ** 2 + eps), weight)


def gradient_difference(image: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """How far edges differ: the mean absolute difference of differences between neighbours, across and down.

    Half the mean across plus half the mean down. Two neighbours count by the mean of their weights, which are divided
    by their mean before.

    Raises:
        ValueError: The shapes differ, are not (B, C, H, W), or a side is a single pixel.
    """
    image, target = _same(image, target)
    if min(image.shape[-2:]) < 2:
        raise ValueError(f"images must be at least 2x2 pixels, got {tuple(image.shape[-2:])}")
    difference = image - target
    weight = None if weight is None else mean_one(difference, weight)
    total = difference.new_zeros(())
    for axis in (-1, -2):
        steps, size = difference.diff(dim=axis).abs(), difference.shape[axis]
        if weight is not None:
            steps = steps * (weight.narrow(axis, 1, size - 1) + weight.narrow(axis, 0, size - 1)) / 2
        total = total + steps.mean() / 2
    return total


Part = Literal["complex", "amplitude"]


def frequency_difference(
    image: Tensor, target: Tensor, *, part: Part = "complex", weight: Tensor | None = None
) -> Tensor:
    """How far spectra differ: the mean absolute difference of orthonormal 2-D Fourier transforms.

    ``complex`` compares real and imaginary parts, the mean of both (Cho et al., ICCV 2021, but for their scale);
    ``amplitude`` only how strong each frequency is, wherever it is. Of the symmetric spectrum of a real image one half
    is looked at. Weights are taken before the transform, and divided by their mean.

    Raises:
        ValueError: The shapes differ, or are not (B, C, H, W), or there is no such part.
    """
    if part not in ("complex", "amplitude"):
        raise ValueError(f"part must be complex or amplitude, got '{part}'")
    image, target = _same(image, target)
    # Not in half precision, whose transforms only take sizes that are powers of two.
    with torch.autocast(image.device.type, enabled=False):
        if weight is not None:
            weight = mean_one(image, weight)
            image, target = image * weight, target * weight
        if part == "complex":
            return torch.view_as_real(torch.fft.rfft2(image - target, norm="ortho")).abs().mean()
        spectra = (torch.fft.rfft2(each, norm="ortho").abs() for each in (image, target))
        return (next(spectra) - next(spectra)).abs().mean()


class CharbonnierLoss(nn.Module):
    """``loss_weight * charbonnier(image, target)``; what BasicSR's of this name gives, in a sum, too."""

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-12) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        self.loss_weight, self.eps = loss_weight, eps

    def forward(self, image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.loss_weight * charbonnier(image, target, eps=self.eps, weight=weight)


class GradientLoss(nn.Module):
    """``loss_weight * gradient_difference(image, target)``: edges that differ."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.loss_weight * gradient_difference(image, target, weight=weight)


class FrequencyLoss(nn.Module):
    """``loss_weight * frequency_difference(image, target)``: complex spectra or amplitudes that differ."""

    def __init__(self, loss_weight: float = 1.0, part: Part = "complex") -> None:
        super().__init__()
        if part not in ("complex", "amplitude"):
            raise ValueError(f"part must be complex or amplitude, got '{part}'")
        self.loss_weight, self.part = loss_weight, part

    def forward(self, image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.loss_weight * frequency_difference(image, target, part=self.part, weight=weight)
