"""When a run is to stop: signals, and what several processes make of them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from ..processes import control_group


class Agreement:
    """Whether any process was asked to stop: all learn of it after the same iteration.

    The answer to one iteration's question is read in the next, so that nobody waits for it.
    """

    def __init__(self) -> None:
        self._group = control_group()
        self._asked: tuple[torch.Tensor, Any] | None = None

    def reached(self, wanted: bool) -> bool:
        """Whether to stop now; ``wanted`` says what this process was asked."""
        if self._group is None:
            return wanted
        before = self.close()
        flag = torch.tensor([int(wanted)])
        self._asked = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True)
        return before

    def close(self) -> bool:
        """Wait for the last answer."""
        if self._asked is None:
            return False
        flag, work = self._asked
        self._asked = None
        work.wait()
        return bool(flag)


class Signals:
    """Turns the first SIGINT or SIGTERM into a wish that the loop looks at between iterations; the second ends it.

    Attributes:
        received: Whether there was one.
        at_once: Whether already the first ends what is going on: true where nothing would be lost.

    Args:
        patience: Seconds in which further ones are the same wish: torchrun passes on to its processes what they have
            received themselves.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self.received = self.at_once = False
        self._patience = patience
        self._first = 0.0

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that a signal ends at once."""
        self.at_once = True
        try:
            if self.received:
                raise KeyboardInterrupt
            yield
        finally:
            self.at_once = False

    def _note(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self.received and now - self._first >= self._patience:
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._first = True, now
            if self.at_once:
                raise KeyboardInterrupt
