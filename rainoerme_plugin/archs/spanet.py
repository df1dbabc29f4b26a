"""SPANet: "Spatial Attentive Single-Image Deraining with a High Quality Real Rain Dataset", Wang et al., CVPR 2019.

The names of the parameters are those of https://github.com/stevewongv/SPANet. Its IRNN, there a CUDA kernel, is here
plain PyTorch for any device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

DIRECTIONS = ("up", "right", "down", "left")


def sweep(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A recurrent sweep along dimension 3 of ``x`` (N, B, C, L, M), from the first line to the last.

    The first line is ReLU(x), every further one ReLU(weight * line before + bias + x); ``weight`` and ``bias`` are
    (N, 1, C, 1).
    """
    first, *rest = x.unbind(3)
    lines = [torch.relu(first)]
    for line in rest:
        lines.append(torch.relu(torch.addcmul(line + bias, lines[-1], weight)))
    return torch.stack(lines, dim=3)


class SpatialIRNN(nn.Module):
    """Four sweeps over the image, one from each side, each with a weight and a bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for direction in DIRECTIONS:
            # Depthwise 1x1 convolutions only by name: their weights are those of the recurrences.
            layer = nn.Conv2d(channels, channels, 1, groups=channels)
            nn.init.constant_(layer.weight, 0.2)
            self.add_module(f"{direction}_weight", layer)

    def forward(self, x: Tensor) -> Tensor:
        """The sweeps up, right, down and left of ``x`` (B, C, H, W), one after the other: (B, 4C, H, W)."""
        down, up = self._pair(x, "down", "up")
        right, left = (swept.transpose(2, 3) for swept in self._pair(x.transpose(2, 3), "right", "left"))
        return torch.cat([up, right, down, left], dim=1)

    def _pair(self, x: Tensor, ahead: str, back: str) -> tuple[Tensor, Tensor]:
        """Both sweeps along the height, in one go: half as many steps."""
        layers = [self.get_submodule(f"{direction}_weight") for direction in (ahead, back)]
        weight = torch.stack([layer.weight.reshape(1, -1, 1) for layer in layers])  # type: ignore[union-attr, operator]
        bias = torch.stack([layer.bias.reshape(1, -1, 1) for layer in layers])  # type: ignore[union-attr, operator]
        swept = sweep(torch.stack([x, x.flip(2)]), weight, bias)
        return swept[0], swept[1].flip(2)


class Attention(nn.Module):
    """Weights of the four directions: in the published files, but without effect (see `SpatialAttention`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(channels // 2, 4, 1)


class SpatialAttention(nn.Module):
    """Where the rain is: a map (B, 1, H, W) within (0, 1) from two rounds of sweeps.

    The authors' code computes weights of the four directions, but drops the product with them (``tensor.mul`` without
    an assignment). The published weights were trained so, and only so give the published figures.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.irnn1 = SpatialIRNN(channels)
        self.irnn2 = SpatialIRNN(channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4 * channels, channels, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(4 * channels, channels, 3, padding=1, bias=False)
        self.attention_layer = Attention(channels).requires_grad_(False)
        self.conv_out = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.irnn1(self.conv_in(x)))
        x = torch.relu(self.conv3(self.irnn2(x)))
        return torch.sigmoid(self.conv_out(x))


class Bottleneck(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group1 = nn.Sequential()
        self.group1.add_module("conv1", nn.Conv2d(channels, channels, 1, bias=False))
        self.group1.add_module("relu1", nn.ReLU(inplace=True))
        self.group1.add_module("conv2", nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False))
        self.group1.add_module("relu2", nn.ReLU(inplace=True))
        self.group1.add_module("conv3", nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.group1(x)


class Attended(NamedTuple):
    """What `SPANet` computes, with ``attention=True``."""

    derained: Tensor
    """(B, 3, H, W)"""
    attention: Tensor
    """The first map of where the rain is, (B, 1, H, W): what SPANet's own training compares with the true one."""


class SPANet(nn.Module):
    """SPANet (Wang et al., CVPR 2019): residual blocks that spatial attention directs to the rain; 283,716 parameters.

    Args:
        channels: Feature channels.

    Raises:
        ValueError: ``channels`` is below 2.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"channels must be at least 2, got {channels}")
        self.conv_in = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.ReLU(inplace=True))
        self.SAM1 = SpatialAttention(channels)
        for number in range(1, 18):
            self.add_module(f"res_block{number}", Bottleneck(channels))
        self.conv_out = nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1, bias=False))

    def forward(self, rainy: Tensor, attention: bool = False) -> Tensor | Attended:
        """Derain ``rainy`` (B, 3, H, W), RGB in [0, 1], of any size.

        Returns:
            The derained image, not clamped; with ``attention=True`` also the first attention map.
        """
        x = self.conv_in(rainy.flip(1))  # its authors trained on BGR
        maps: list[Tensor] = []
        for number in range(1, 18):
            if number in (4, 7, 10, 13):
                maps.append(self.SAM1(x))
            added = self.get_submodule(f"res_block{number}")(x)
            x = torch.relu(x + (added * maps[-1] if 4 <= number <= 15 else added))
        derained = self.conv_out(x).flip(1)
        return Attended(derained, maps[0]) if attention else derained
