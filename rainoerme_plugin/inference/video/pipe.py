"""A bounded queue between two threads, which either side can end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_UP = 1.0
"""Seconds after which a wait is taken up again: on Windows, Ctrl-C ends none."""


class EndedError(Exception):
    """The other side has given up, and tells why elsewhere."""


class Pipe(Generic[T]):
    """Items from one thread to another, in order, ``size`` at most on the way.

    An error of either side is raised on the other one, in its next `put` or next item.
    """

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add an item, as soon as there is room."""
        with self._changed:
            while len(self._items) >= self._size and self._error is None:
                self._changed.wait(_LOOK_UP)
            if self._error is not None:
                raise self._error
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no item follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End it at once; the first error stands."""
        with self._changed:
            self._error = self._error or error
            self._items.clear()
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self._error is not None:
            raise self._error

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                while not self._items and not self._ended and self._error is None:
                    self._changed.wait(_LOOK_UP)
                self.check()
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
