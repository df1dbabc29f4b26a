"""What the processes of one run settle among themselves: who decides, when to stop, what an end of one means."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..devices import control_group
from ..errors import ElsewhereError, RainOerMeError

T = TypeVar("T")
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|socket|TCPStore|broken pipe|timed out", re.IGNORECASE)


def first_decides(decide: Callable[[], T]) -> T:
    """What ``decide`` gives on rank 0, on all ranks; it is called there alone.

    Raises:
        RainOerMeError: ``decide`` raised it; on the other ranks an `ElsewhereError`.
    """
    group = control_group()
    if group is None:
        return decide()
    told: list[Any] = [None, False]
    problem: RainOerMeError | None = None
    if dist.get_rank() == 0:
        try:
            told = [decide(), False]
        except RainOerMeError as error:
            problem, told = error, [None, True]
    dist.broadcast_object_list(told, src=0, group=group)
    if problem is not None:
        raise problem
    if told[1]:
        raise ElsewhereError("process 0 has ended with an error, which is told there")
    return told[0]


@contextmanager
def losses_told(rank: int, world: int) -> Iterator[None]:
    """Tell the end of another process, of which this one hears by way of a lost connection, as what it is.

    Raises:
        ElsewhereError: A connection was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if world == 1 or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise ElsewhereError(
            f"process {rank} of {world} has lost another one, whose error is told there; go on from the last "
            f"checkpoint with --auto_resume ({str(error).splitlines()[0]})"
        ) from error


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
