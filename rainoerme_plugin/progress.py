"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
_WITHOUT_BAR = 1.0
"""Seconds before a bar is drawn."""
_BETWEEN_BARS = 0.1
_COLUMNS, _ROWS = 80, 20
_BETWEEN_LINES = 15.0
_LOOK = 1.0
"""Seconds after which a bar is drawn again though nothing has moved: the time passes."""


def is_terminal() -> bool:
    """Whether someone watches: standard error, where progress goes, is a terminal."""
    with suppress(OSError, ValueError):  # it is closed
        return sys.stderr is not None and sys.stderr.isatty()
    return False


def say(line: str) -> None:
    """Print a line to standard error, above bars; where nobody can read it, nothing happens."""
    if sys.stderr is None:  # as under some daemons; print would take that for standard output
        return
    with suppress(OSError, ValueError):  # on a full disk, to a terminal that has gone, or closed
        if is_terminal():
            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


@contextmanager
def bar(total: int, title: str, *, shown: bool = True, **settings: Any) -> Iterator[Any]:
    """tqdm's bar on a terminal, and nothing elsewhere; it is closed before what ends the block is told.

    Args:
        total: Of what its ``update`` counts.
        title: What stands before it.
        shown: False shows nothing.
        settings: tqdm's own.
    """
    made = tqdm(total=total, desc=title, disable=not (shown and is_terminal()), **_width(), **settings)
    try:
        yield made
    finally:
        made.close()


def _width() -> dict[str, Any]:
    """tqdm's settings; in a terminal that does not say how wide it is, it would draw nothing."""
    with suppress(OSError, ValueError):
        if is_terminal() and os.get_terminal_size(sys.stderr.fileno()).columns == 0:
            return {"ncols": _COLUMNS, "nrows": _ROWS}
    return {"dynamic_ncols": True}


def track(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """The items, with their progress shown on standard error. Work of less than a few seconds shows nothing.

    It shows also while the first item takes long, and more than the items that are out where that is told (`reached`).
    """
    shown = _Bar(total, title) if is_terminal() else _Lines(total, title)
    _tracked.append(shown)
    ended = threading.Event()
    threading.Thread(target=_keep_looking, args=(shown, ended), daemon=True).start()
    try:
        for count, item in enumerate(items, 1):
            yield item
            shown.move(max(shown.done, count))
    finally:
        ended.set()
        shown.close()
        if shown in _tracked:
            _tracked.remove(shown)


def reached(done: float) -> None:
    """Tell that so many items of what is tracked innermost, and a share of the next one, are as good as done."""
    if _tracked:
        _tracked[-1].move(max(_tracked[-1].done, round(done, 2)))


def end_all() -> None:
    """Show no progress any more: what is printed next is the last word, and would stand in the midst of a bar."""
    while _tracked:
        _tracked.pop().close()


def _keep_looking(shown: _Shown, ended: threading.Event) -> None:
    while not ended.wait(shown.look()):
        pass


class _Shown(ABC):
    """How far something is; a thread of its own looks at it, too, for one item may take minutes."""

    def __init__(self, total: int, title: str) -> None:
        self.total, self.title = total, title
        self.done: float = 0
        self.start = time.monotonic()
        self._is_open, self._lock = True, threading.Lock()

    def move(self, done: float) -> None:
        """So many items are done, with the share of the next one."""
        with self._lock:
            self.done = done
            if self._is_open:
                self._show(time.monotonic())

    def look(self) -> float:
        """Show what is to be shown by now; returns the seconds until the next look."""
        with self._lock:
            return self._show(time.monotonic()) if self._is_open else _LOOK

    def close(self) -> None:
        """Show nothing any more."""
        with self._lock:
            self._is_open = False
            self._end()

    @abstractmethod
    def _show(self, now: float) -> float:
        """Show it, if it is time; returns the seconds until it will be, whatever moves."""

    def _end(self) -> None:  # noqa: B027 - there may be nothing to end
        """Let nothing be left half drawn."""


class _Bar(_Shown):
    """On a terminal."""

    _bar: Any = None
    _drawn = 0.0

    def _show(self, now: float) -> float:
        if now - self.start >= _WITHOUT_BAR and now - self._drawn >= _BETWEEN_BARS:
            if self._bar is None:
                self._bar = tqdm(total=self.total, desc=self.title, **_width())
                self._bar.start_t -= now - self.start
            self._bar.n, self._drawn = self.done, now
            self._bar.refresh()
        return _LOOK

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.n = self.done
            self._bar.close()
            self._bar = None


class _Lines(_Shown):
    """Elsewhere."""

    _said: float | None = None

    def _show(self, now: float) -> float:
        waited = now - (self.start if self._said is None else self._said)
        if waited < _BETWEEN_LINES:
            return _BETWEEN_LINES - waited
        self._said, took = now, now - self.start
        left = f"{took / self.done * (self.total - self.done):.0f} s left" if self.done else f"{took:.0f} s so far"
        done = self.done if self.done % 1 == 0 else f"{self.done:.2f}"
        say(f"{self.title}: {done}/{self.total}, {left}")
        return _BETWEEN_LINES


_tracked: list[_Shown] = []
"""What is being tracked; the innermost comes last."""
