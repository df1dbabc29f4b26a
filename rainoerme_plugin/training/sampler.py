"""The endless order of training samples, of which every run reads a stretch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..data.unpaired import UnpairedRain
from .random_states import seed_host, undisturbed


class Numbered(Dataset[Any]):
    """A data set whose sample number k, of endlessly many, is a function of (seed, k) and the files alone.

    So is `UnpairedRain` by itself. Any other data set shows all its items shuffled, and again, and again: there is no
    end of an epoch at which workers are started anew. What it draws by chance (crops, flips) is drawn from generators
    seeded for each sample, so that neither the number of workers nor where a run was stopped changes any.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self._seed = dataset, seed

    def __getitem__(self, number: int) -> Any:
        if isinstance(self.dataset, UnpairedRain):
            return self.dataset[number]
        round_, place = divmod(number, len(self.dataset))
        item = int(_order(self._seed, round_, len(self.dataset))[place])
        with undisturbed():
            seed_host(self._seed, number)
            return self.dataset[item]


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + round_))


class StreamSampler(Sampler[int]):
    """Sample numbers from ``start`` to ``stop``, shared out among processes a batch at a time.

    Args:
        start, stop: Numbers of the first sample and the one after the last, over all processes.
        batch: Samples a process takes of each step.
        rank, world: This process and how many there are.
    """

    def __init__(self, start: int, stop: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self._start, self._stop, self._batch = start, stop, batch
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return (self._stop - self._start) // self._world

    def __iter__(self) -> Iterator[int]:
        step = self._batch * self._world
        for first in range(self._start + self._rank * self._batch, self._stop, step):
            yield from range(first, first + self._batch)
