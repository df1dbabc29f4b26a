"""Work that several processes share out, and what the first one tells the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..processes import gather

T = TypeVar("T")


def is_first(group: dist.ProcessGroup | None) -> bool:
    return group is None or dist.get_rank(group) == 0


def shared_out(examine: Callable[[int], T], count: int, group: dist.ProcessGroup | None) -> Iterator[T]:
    """``map(examine, range(count))``, each process taking every world-th number.

    The results of a round, one a process, go to the first process before the next round begins: there is never more
    than that in memory. An error ends the process that has it, and the others lose their connection to it.

    Yields:
        In the first process all results, in order; in the others none, but they too must be asked for all.
    """
    if group is None:
        yield from map(examine, range(count))
        return
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    for start in range(0, count, world):
        number = start + rank
        own = [examine(number)] if number < count else []
        for results in gather(own):
            yield from results


def from_first(value: T, group: dist.ProcessGroup | None) -> T:
    """The first process's value, in all of them."""
    told = [value]
    if group is not None:
        dist.broadcast_object_list(told, src=0, group=group)
    return told[0]


@contextmanager
def buffers_of_first(network: nn.Module, group: dist.ProcessGroup | None) -> Iterator[None]:
    """Lend the first process's buffers to the networks of all.

    Weights are alike everywhere; the statistics of batch normalisation are each process's own after a step, and those
    of the first one are saved.
    """
    buffers = list(network.buffers())
    if group is None or not buffers:
        yield
        return
    own = [buffer.clone() for buffer in buffers]
    _fill(buffers, from_first([buffer.cpu() for buffer in buffers], group))
    try:
        yield
    finally:
        _fill(buffers, own)


@torch.no_grad()
def _fill(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
