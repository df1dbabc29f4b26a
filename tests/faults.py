"""Training in a process of its own in which something goes wrong, and what is to be found afterwards."""

from __future__ import annotations

import errno
import mmap
import multiprocessing
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rainoerme_plugin.data.unpaired import UnpairedRain

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["rainoerme_plugin.engine.training", "basicsr.models", "basicsr.archs", "basicsr.train"])

Stub = Callable[[], None]


class Child:
    """``basicsr train`` with its workers in a session of their own, forked from a process that has imported everything.

    Args:
        options: The option file.
        root: Where it trains.
        arguments: Further ones of the command.
        stub: Called first.
        said: Where standard error and output go.
    """

    def __init__(
        self, options: Path, root: Path, *arguments: str, stub: Stub | None = None, said: Path | None = None
    ) -> None:
        root.mkdir(exist_ok=True)
        self._said = said or root.with_name(f"{root.name}.said")
        command = ["train", "-opt", str(options), "--root", str(root), *arguments]
        self.process = _forks.Process(target=_train, args=(command, self._said, stub))
        self.process.start()

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def said(self) -> str:
        return self._said.read_text() if self._said.is_file() else ""

    def wait_for(self, words: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while words not in self.said:
            assert time.monotonic() < end, self.said
            assert self.process.is_alive(), self.said
            time.sleep(0.01)

    def result(self, seconds: float = 40) -> tuple[int | None, str]:
        """The exit status and what was said; nothing of it may go on."""
        self.process.join(seconds)
        try:
            assert not self.process.is_alive(), f"it hangs: {self.said}"
            assert not self._left(), f"left behind: {self._left()}"
        finally:
            for pid in self._left():
                os.kill(pid, signal.SIGKILL)
        return self.process.exitcode, self.said

    def _left(self) -> list[int]:
        """The processes of its session, but for those that only wait to be buried."""
        found = []
        for about in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = about.read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):  # it has ended
                continue
            if int(session) == self.process.pid and state != "Z":
                found.append(int(about.parent.name))
        return found


def _train(command: list[str], said: Path, stub: Stub | None) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of workers; as it is in a process that nobody has forked
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from rainoerme_plugin.commands import main

    torch.set_num_threads(1)
    if stub is not None:
        stub()
    sys.exit(main(command))


def errors(said: str) -> list[str]:
    """The error lines of the command."""
    return [line for line in said.splitlines() if line.startswith("basicsr train: error:")]


def check_one_line(result: tuple[int | None, str]) -> str:
    """The line that a run has ended with, exit status 2 and nothing of Python's."""
    status, said = result
    assert status == 2, said
    assert "Traceback" not in said, said
    assert "--- Logging error ---" not in said, said
    assert "Exception ignored" not in said, said
    found = errors(said)
    assert len(found) == 1, said
    return found[0]


def same(left: Any, right: Any) -> bool:
    """Equal to the last bit, whatever is in them."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


# --- what goes wrong ---


def when(owner: Any, name: str, happens: Callable[[int], bool], do: Callable[[], Any]) -> None:
    """Do something before the calls of a function whose number, from 1, is one at which it ``happens``."""
    function, count = getattr(owner, name), 0

    def changed(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if happens(count):
            do()
        return function(*arguments, **options)

    setattr(owner, name, changed)


def at_sample(position: int, do: Callable[[], Any]) -> None:
    """Do something when this training sample is asked for, where the images are read."""
    read = UnpairedRain.__getitem__

    def changed(self: UnpairedRain, asked: int) -> Any:
        if asked == position:
            do()
        return read(self, asked)

    UnpairedRain.__getitem__ = changed  # type: ignore[method-assign]


def before_step(iteration: int, do: Callable[[], Any]) -> None:
    """Do something when the step of this iteration, counted from the run's start, begins."""
    from rainoerme_plugin.models.distillation_model import DistillationModel

    when(DistillationModel, "optimize_parameters", lambda count: count == iteration, do)


def fail(error: BaseException) -> None:
    raise error


def kill(number: int, group: bool = False) -> None:
    """Send a signal to this process, or to all of its group."""
    os.kill(0 if group else os.getpid(), number)


def exit_at_once(status: int) -> None:
    os._exit(status)


def die_while_handing_over(position: int) -> None:
    """A worker dies when the training process has its batch's name, and comes to fetch the images."""
    from multiprocessing import reduction

    at_sample(position, lambda: setattr(reduction, "send_handle", lambda *arguments: kill(signal.SIGKILL)))


def die_with_half_a_message(position: int) -> None:
    """A worker dies in the middle of telling that there is a batch, with the queue's lock in its hands."""
    from multiprocessing.connection import Connection

    send = Connection._send_bytes  # type: ignore[attr-defined]

    def half(self: Connection, data: Any, *arguments: Any) -> None:
        if not stat.S_ISFIFO(os.fstat(self.fileno()).st_mode):  # to those who fetch images, not to the queue
            send(self, data, *arguments)
            return
        time.sleep(0.3)  # until what was told before is fetched
        os.write(self.fileno(), len(data).to_bytes(4, "big") + bytes(data)[: len(data) // 2])
        kill(signal.SIGKILL)

    def begin() -> None:
        time.sleep(0.3)  # until what was read before is told
        Connection._send_bytes = half  # type: ignore[attr-defined]

    at_sample(position, begin)


def lose_handle(position: int) -> None:
    """A worker cannot give an image's memory away, as with too many open files."""
    from multiprocessing import reduction

    too_many = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    at_sample(position, lambda: setattr(reduction, "DupFd", lambda handle: fail(too_many)))


def fill_disk(folder: Path, spare: int) -> None:
    """Leave so many bytes free."""
    room = os.statvfs(folder)
    with (folder / "filler").open("wb", buffering=0) as file:
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - spare)))


def cut(file: Path) -> None:
    """Leave half of a file, in whole pages, behind which nothing can be read."""
    os.truncate(file, file.stat().st_size // 2 // mmap.PAGESIZE * mmap.PAGESIZE)


def sleep(seconds: float) -> None:
    """Sleep, having said so."""
    print("SLEEPING", file=sys.stderr, flush=True)
    time.sleep(seconds)
