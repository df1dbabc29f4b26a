"""Soft labels by a network: the derained output of one training is what the next one learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.images import to_pixels, to_tensor
from ..distillation.coarse import CoarseFilter, Depth

_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def mean_of_flips(derain: Callable[[Tensor], Tensor], rainy: Tensor) -> Tensor:
    """The mean of what a network makes of an image as it is, mirrored, upside down and both, each turned back.

    Args:
        derain: From a batch of images (B, 3, H, W) in [0, 1] to such a batch.
        rainy: (3, H, W) in [0, 1].

    Returns:
        (3, H, W) in [0, 1].
    """
    derained = derain(torch.stack([rainy.flip(axes) for axes in _FLIPS]))
    return torch.stack([each.flip(axes) for each, axes in zip(derained, _FLIPS, strict=True)]).mean(dim=0)


@dataclass(frozen=True)
class NetworkLabels(CoarseFilter):
    """A network as a coarse filter.

    Args:
        derain: From a batch of images (B, 3, H, W) in [0, 1] to such a batch; a `Derainer` is one.
        identity: What its results depend on, as text for cache keys.
        flips: Average over flips (`mean_of_flips`).
    """

    name: ClassVar[str] = "network"
    whole_image: ClassVar[bool] = True

    derain: Callable[[Tensor], Tensor]
    identity: str
    flips: bool = False

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        rainy = to_tensor(image)
        derained = mean_of_flips(self.derain, rainy) if self.flips else self.derain(rainy[None])[0]
        return to_pixels(derained, image.dtype)  # type: ignore[return-value]

    @property
    def key(self) -> str:
        return f"{self.name}-{self.identity}-{'flips' if self.flips else 'once'}-{self.code}"
