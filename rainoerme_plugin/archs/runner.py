"""Where and in which precision a network computes, whoever it is that asks for derained images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

from ..data.images import Rounding
from ..data.threads import Share, untold
from .adapt import Needs, place
from .tiles import Image, NotFiniteError, derain_tiled

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Runner:
    """Where and in which precision networks compute."""

    device: torch.device
    precision: Precision = "float32"

    def __call__(
        self,
        network: nn.Module,
        needs: Needs,
        rainy: Image,
        tile: int | None = None,
        rounding: Rounding = "round",
        batch: int | None = None,
        share: Share = untold,
    ) -> Image:
        """Derain ``rainy``, as `derain_tiled` takes it; the network is on the device (`placed`).

        Returns:
            The derained images, of the same kind; tensors are on the device, and not clamped.

        Raises:
            NotFiniteError: The result holds values that are not finite.
            RainOerMeError: As of `derain_tiled`.
        """
        if isinstance(rainy, torch.Tensor):
            rainy = rainy.to(self.device)
        dtype = _DTYPES.get(self.precision)
        problem = f"the network gives values that are not finite in {self.precision}"
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                derained = derain_tiled(network, rainy, needs, tile=tile, batch=batch, rounding=rounding, share=share)
        except NotFiniteError:
            raise NotFiniteError(problem) from None
        if isinstance(derained, torch.Tensor) and not bool(torch.isfinite(derained).all()):
            raise NotFiniteError(problem)
        return derained

    @contextmanager
    def placed(self, network: nn.Module | None, needs: Needs) -> Iterator[None]:
        """Keep a network on the device while it is used."""
        if network is not None:
            place(network, needs, self.device)
        try:
            yield
        finally:
            if network is not None and self.device.type != "cpu":
                network.cpu()
