"""Work on many images by all cores, in order, with progress; decoders and filters let go of Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")
Track = Callable[[Iterable[T], int, str], Iterable[T]]
"""Wraps an iterable of a known length and shows its progress under a title."""

Share = Callable[[float], object]
"""Is told how much of something is done, 0 to 1."""


def untold(done: float) -> None:
    """Tells nobody."""


def untracked(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    """Shows nothing."""
    return items


def in_threads(
    function: Callable[[A], T], items: Iterable[A], ahead: int = 64, threads: int | None = None
) -> Iterator[T]:
    """``map`` over a few threads, in order, at most ``ahead`` results ahead; the first error ends it."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[T]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
