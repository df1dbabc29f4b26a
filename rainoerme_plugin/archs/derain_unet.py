"""A small U-shaped derainer of NAFNet's blocks, which works at half size.

The blocks are those of "Simple Baselines for Image Restoration", Chen et al., ECCV 2022
(https://github.com/megvii-research/NAFNet). What is between them differs: it computes the rain layer, behind a
pixel-unshuffle that leaves a quarter of the positions, and without channel attention a pixel depends on its
surroundings only, so that tiles of an image give what the image gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of each pixel's channels, of (B, C, H, W).

    Of a tensor in channels-last memory nothing is copied: PyTorch's kernel finds each pixel's channels side by side.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _gate(x: Tensor) -> Tensor:
    """The product of both halves of the channels, in place of an activation function."""
    first, second = x.chunk(2, dim=1)
    return first * second


def _scaled(conv: nn.Conv2d, factor: Tensor, x: Tensor) -> Tensor:
    """``factor * conv(x)`` of a 1x1 convolution, where the factor meets its weights in place of the many pixels."""
    assert conv.bias is not None
    return functional.conv2d(x, conv.weight * factor.view(-1, 1, 1, 1), conv.bias * factor.flatten())


class Block(nn.Module):
    """NAFNet's block: two gated branches, each added by a factor of its own for every channel, which starts at 0.

    Args:
        channels: Of input and output, (B, C, H, W).
        attention: Whether the first branch's channels are weighted by their means over the image.
    """

    def __init__(self, channels: int, attention: bool = False) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.expand1 = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1) if attention else None
        self.project1 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.norm2 = ChannelNorm(channels)
        self.expand2 = nn.Conv2d(channels, 2 * channels, 1)
        self.project2 = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gated = _gate(self.depthwise(self.expand1(self.norm1(x))))
        if self.attention is not None:
            gated = gated * self.attention(gated.mean((2, 3), keepdim=True))
        x = x + _scaled(self.project1, self.beta, gated)
        return x + _scaled(self.project2, self.gamma, _gate(self.expand2(self.norm2(x))))


def _blocks(count: int, channels: int, attention: bool) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, attention) for _ in range(count)))


class DerainUNet(nn.Module):
    """A small U-shaped derainer of NAFNet's blocks that works at half size; 421,868 parameters.

    Args:
        channels: Of the first level; each further one has twice as many.
        encoder: Blocks of each level on the way down. Between levels the size is halved.
        middle: Blocks of the lowest level.
        decoder: Blocks of each level on the way up, from the lowest.
        shrink: The first level works at 1 / ``shrink`` of the image's size; 1 is the image's own.
        attention: NAFNet's simplified channel attention in each block. Then every pixel depends on the whole image, and
            large images are not cut into tiles by themselves.

    Raises:
        ValueError: A number is below 1, or ``decoder`` has not as many levels as ``encoder``.
    """

    def __init__(
        self,
        channels: int = 32,
        encoder: Sequence[int] = (2, 2),
        middle: int = 2,
        decoder: Sequence[int] = (2, 1),
        shrink: int = 2,
        attention: bool = False,
    ) -> None:
        super().__init__()
        numbers = {"channels": channels, "encoder": min(encoder, default=1), "middle": middle}
        numbers |= {"decoder": min(decoder, default=1), "shrink": shrink}
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if len(encoder) != len(decoder):
            raise ValueError(
                f"encoder and decoder must have as many levels, got {len(encoder)} and {len(decoder)} numbers"
            )
        self.shrink = shrink
        self.attention = attention
        self.stride = shrink * 2 ** len(encoder)
        """Height and width that it takes are multiples of this."""
        widths = [channels * 2**level for level in range(len(encoder) + 1)]
        self.intro = nn.Conv2d(3 * shrink**2, channels, 3, padding=1)
        self.encoder = nn.ModuleList(_blocks(*level, attention) for level in zip(encoder, widths, strict=False))
        self.down = nn.ModuleList(nn.Conv2d(wide, 2 * wide, 2, stride=2) for wide in widths[:-1])
        self.middle = _blocks(middle, widths[-1], attention)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, 2 * wide, 1, bias=False), nn.PixelShuffle(2)) for wide in widths[:0:-1]
        )
        self.decoder = nn.ModuleList(_blocks(*level, attention) for level in zip(decoder, widths[-2::-1], strict=True))
        # Not zeros: of a rain layer that starts at 0 the distillation learns nothing.
        self.ending = nn.Conv2d(channels, 3 * shrink**2, 3, padding=1)

    def forward(self, rainy: Tensor) -> Tensor:
        """Derain ``rainy`` (B, 3, H, W), RGB in [0, 1], H and W multiples of ``stride``.

        Returns:
            The derained image, ``rainy`` less the rain layer, not clamped.
        """
        x = functional.pixel_unshuffle(rainy, self.shrink)
        x = self.intro(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            skips.append(blocks(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, blocks in zip(self.up, self.decoder, strict=True):
            x = blocks(up(x) + skips.pop())
        return rainy - functional.pixel_shuffle(self.ending(x), self.shrink)
