"""Training batches that are cut where the training happens: all images lie decoded on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .threads import in_threads
from .unpaired import UnpairedBatch, UnpairedRain, batch_of

_AHEAD = 8
"""Batches that are drawn before they are asked for."""


class Positions(Sized, Iterable[int], Protocol):
    """A sampler: sample numbers, and how many."""


class DeviceBatches:
    """The batches that a ``DataLoader`` would give, dropping an incomplete last one, on the device, channels last.

    A step costs the host some numbers: where each window begins in the images' pixels, and how far it is from row to
    row and from column to column, negative where it is flipped. Windows of all kinds are one look-up.

    Args:
        dataset: Its images must be in memory (`UnpairedRain.load`).
        sampler: Sample numbers.
        batch: Samples a batch.
        device: Where the images are put and the batches are made.

    Raises:
        DataError: The images are not in memory, or do not fit into that of the device.
    """

    def __init__(self, dataset: UnpairedRain, sampler: Positions, batch: int, device: torch.device) -> None:
        if dataset.held is None:
            raise DataError("the images are not in memory: load() the data set first")
        self._rainy, self._labels, self._clean, *self._rain = dataset.held
        self._dataset, self._sampler, self._batch, self._device = dataset, sampler, batch, device
        pixels = self._rainy.pixels  # those of all
        try:
            self._pixels = pixels.to(device)
        except torch.cuda.OutOfMemoryError:
            raise DataError(
                f"the decoded images take {pixels.numel() / 1e9:.1f} GB, which is not free on {device}; take source: "
                "memory, or files"
            ) from None
        self._steps = torch.arange(dataset.largest_crop, device=device)

    def __len__(self) -> int:
        return len(self._sampler) // self._batch

    def __iter__(self) -> Iterator[UnpairedBatch]:
        positions = iter(self._sampler)
        groups = (list(islice(positions, self._batch)) for _ in range(len(self)))
        for windows, side, rainy_paths, clean_paths in in_threads(self._draw, groups, _AHEAD, threads=1):
            first, down, across = windows.to(self._device, non_blocking=True)[..., None, None]
            steps = self._steps[:side]
            where = first + steps[:, None] * down + steps * across
            images = self._pixels.index_select(0, where.flatten()).view(*where.shape, 3).permute(0, 3, 1, 2)
            yield batch_of(images.split(self._batch), rainy_paths, clean_paths)

    def _draw(self, positions: list[int]) -> tuple[Tensor, int, list[str], list[str]]:
        """The windows of a batch, (3, 3 B) int64: first pixel, pixels from row to row, from column to column.

        With a bank of rain (3, 4 B). And their side, and where the images are from.
        """
        side = self._dataset.side(positions[0])
        draws = [self._dataset.draw(position) for position in positions]
        rainy, top, left, upturned, mirrored, *others = np.array(draws, np.int64).T
        clean, clean_top, clean_left, rain, rain_top, rain_left = others
        far = side - 1
        rainy_width = self._rainy.sizes()[rainy, 1]
        corner = (top + far * upturned) * rainy_width + left + far * mirrored
        down, across = rainy_width * (1 - 2 * upturned), 1 - 2 * mirrored
        parts = [(source.starts[rainy] + corner, down, across) for source in (self._rainy, self._labels)]
        straight = [
            (self._clean, clean, clean_top, clean_left),
            *((rains, rain, rain_top, rain_left) for rains in self._rain),
        ]
        for source, which, its_top, its_left in straight:
            width = source.sizes()[which, 1]
            parts.append((source.starts[which] + its_top * width + its_left, width, np.ones_like(width)))
        windows = torch.from_numpy(np.concatenate(parts, axis=1, dtype=np.int64))
        return (
            windows.pin_memory() if self._device.type == "cuda" else windows,
            side,
            [self._rainy.where(index) for index in rainy],
            [self._clean.where(index) for index in clean],
        )
