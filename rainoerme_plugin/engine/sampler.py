"""The endless order of training samples, of which every run reads a stretch."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from ..data.unpaired import UnpairedRain


class StreamSampler(Sampler[int]):
    """Sample numbers from ``start`` to ``stop``, shared out among processes a batch at a time.

    A data set whose samples are a function of their number (`UnpairedRain`) gets the number itself. Any other gets its
    items shuffled, all of them and again, in an order that ``seed`` decides: there is no end of an epoch at which
    workers are started anew.

    Args:
        dataset: What is sampled.
        start, stop: Numbers of the first sample and the one after the last, over all processes.
        batch: Samples a process takes of each step.
        rank, world: This process and how many there are.
        seed: Of the shuffling.
    """

    def __init__(
        self, dataset: Sized, start: int, stop: int, batch: int, rank: int = 0, world: int = 1, seed: int = 0
    ) -> None:
        self._count = len(dataset)
        self._numbered = isinstance(dataset, UnpairedRain)
        self._start, self._stop, self._batch = start, stop, batch
        self._rank, self._world, self._seed = rank, world, seed

    def __len__(self) -> int:
        return (self._stop - self._start) // self._world

    def __iter__(self) -> Iterator[int]:
        step = self._batch * self._world
        for first in range(self._start + self._rank * self._batch, self._stop, step):
            for position in range(first, first + self._batch):
                yield position if self._numbered else self._shuffled(position)

    def _shuffled(self, position: int) -> int:
        round_, place = divmod(position, self._count)
        if round_ != getattr(self, "_round", None):
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + round_)
            self._order = torch.randperm(self._count, generator=generator)
            self._round = round_
        return int(self._order[place])
