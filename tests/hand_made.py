"""Networks of which everything is known, for tests of tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def image(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def conv(size: int = 3, dilation: int = 1, stride: int = 1, inputs: int = 3) -> nn.Conv2d:
    torch.manual_seed(size)
    return nn.Conv2d(inputs, 3, size, stride, dilation * (size // 2), dilation)


def strided(pool: nn.Module | None = None) -> nn.Module:
    """Two steps down and up again: in a grid of 4 pixels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, 2, 1),
        pool or nn.MaxPool2d(3, 1, 1),
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.Conv2d(4, 12, 3, 1, 1),
        nn.PixelShuffle(2),
    )


class Of(nn.Module):
    """A function as a network, which counts its calls and notes the sizes that it sees."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.seen: list[tuple[int, ...]] = []

    def forward(self, rainy: Tensor) -> Tensor:
        self.seen.append(tuple(rainy.shape))
        return self.function(rainy)
