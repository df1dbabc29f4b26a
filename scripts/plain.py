"""The plain way, for comparison: the released code's network, loss and layout, operation for operation.

What the authors compute only to show it is left out, and their two masked assignments are one clamp: the plain way may
be faster than theirs, and must not be slower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rainoerme_plugin.archs.rainoerme import RainOerMeNet


def plain_forward(network: RainOerMeNet, rainy: Tensor) -> tuple[Tensor, Tensor]:
    """Both rain layers of (B, 3, H, W); features that are merged are concatenated, ReLUs are in place."""
    first = _aggregation(network.block1, network.inc(rainy))
    middle = network.merge11(torch.cat([first, _aggregation(network.block2, first)], dim=1))
    rain = network.outc(network.merge12(torch.cat([middle, _aggregation(network.block3, middle)], dim=1)))
    return rain, network.out2(rain)


def _aggregation(block: Any, x: Tensor) -> Tensor:
    first = _high_pass(block.conv1, x)
    return block.merge(torch.cat([first, _high_pass(block.conv2, first)], dim=1))


def _high_pass(block: Any, x: Tensor) -> Tensor:
    smooth = block.conv1(x)
    return torch.relu_(block.dilated_conv(x - smooth) + smooth)


def plain_window(device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """The 11x11 Gaussian of SSIM, for each of three channels."""
    line = torch.exp(-((torch.arange(11, dtype=dtype) - 5) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    return (line[:, None] * line[None, :]).expand(3, 1, 11, 11).contiguous().to(device)


def plain_ssim(image: Tensor, target: Tensor, window: Tensor) -> Tensor:
    """SSIM of two batches (B, 3, H, W): five maps, each blurred with the two-dimensional window."""

    def blur(maps: Tensor) -> Tensor:
        return functional.conv2d(maps, window, padding=5, groups=3)

    mean_x, mean_y = blur(image), blur(target)
    square_x, square_y, product = mean_x.pow(2), mean_y.pow(2), mean_x * mean_y
    variance_x = blur(image * image) - square_x
    variance_y = blur(target * target) - square_y
    covariance = blur(image * target) - product
    numerator = (2 * product + 0.01**2) * (2 * covariance + 0.03**2)
    return (numerator / ((square_x + square_y + 0.01**2) * (variance_x + variance_y + 0.03**2))).mean()
