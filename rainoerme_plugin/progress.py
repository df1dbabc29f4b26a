"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 15.0


def is_terminal() -> bool:
    """Whether someone watches: standard error, where progress goes, is a terminal."""
    return sys.stderr.isatty()


def track(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """The items, with their progress shown on standard error. Work of less than a few seconds shows nothing."""
    if is_terminal():
        yield from tqdm(items, total=total, desc=title, delay=1.0, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = (now - start) / done * (total - done)
            print(f"{title}: {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)
