"""Runs of several processes: by torchrun, or forked from a process that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

DEADLINE = 60
"""Seconds that anything may take on two shared cores; what hangs, hangs for longer."""
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["rainoerme_plugin.engine.training", "basicsr.models", "basicsr.archs", "basicsr.train"])


def watch() -> None:
    """From now on note what this process and its workers open for writing in the run's folders, by rank.

    ``PACE`` seconds are waited before each image is read, so that there is a time to send a signal in, and ``SAVING``
    before each training state is written.
    """
    rank, pace, root = os.environ.get("RANK", "0"), float(os.environ.get("PACE", 0)), Path(os.environ["WATCHED"])
    with (root / "pids").open("a") as pids:
        pids.write(f"{rank} {os.getpid()}\n")
    log = os.open(root / "written", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(event: str, arguments: Sequence[Any]) -> None:
        if event != "open" or not isinstance(arguments[0], str):
            return
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR) and "/experiments/" in path:
            os.write(log, f"{rank} {path}\n".encode())
            if "/training_states/" in path:
                time.sleep(float(os.environ.get("SAVING", 0)))
        if pace and "/clean/" in path:
            time.sleep(pace)

    sys.addaudithook(note)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = DEADLINE) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


_started: list[Torchrun | Ranks] = []


def end_all() -> None:
    """Whatever a test that has failed has left behind."""
    while _started:
        _started.pop().end()


# --- torchrun ---


class Torchrun:
    """``torchrun ... -m rainoerme_plugin train``, going on beside the test; to be ended by `result` or a signal."""

    def __init__(
        self, root: Path, options: Path, *arguments: str, launch: Sequence[str] = (), pace: float = 0, name: str = ""
    ) -> None:
        self.root = root.resolve()
        self.root.mkdir(exist_ok=True)
        (self.root / "pids").unlink(missing_ok=True)
        (self.root / "sitecustomize.py").write_text(
            "import os\nif 'RANK' in os.environ:\n    from several import watch\n    watch()\n"
        )
        before = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "WATCHED": str(self.root), "PACE": str(pace),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.root), str(Path(__file__).parent), before))),
        }  # fmt: skip
        launch = launch or ("--nproc_per_node=2", f"--master_port={free_port()}")
        command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "rainoerme_plugin", "train"]
        command += ["-opt", str(options), *arguments, "--launcher", "pytorch", "--device", "cpu", "--root"]
        self._said = self.root / f"said{name}.txt"
        with self._said.open("wb") as said:
            self.process = subprocess.Popen([*command, str(self.root)], env=environment, stdout=said, stderr=said)
        _started.append(self)

    def rank(self, number: int) -> int:
        """The process of a rank, the last one that was started."""
        lines = [line.split() for line in (self.root / "pids").read_text().splitlines()]
        return [int(pid) for rank, pid in lines if int(rank) == number][-1]

    def result(self, seconds: float = DEADLINE) -> tuple[int, str]:
        """The exit status and what was said; all that belongs to the run must be gone in time."""
        try:
            status, said = self.ended(seconds)
            assert wait_for(lambda: not self.left(), 10), f"still there: {self.left()}, {said}"
        finally:
            self.end()
        return status, said

    def ended(self, seconds: float = DEADLINE) -> tuple[int, str]:
        """As `result`, where another of the run's torchruns may still be at work."""
        assert wait_for(lambda: self.process.poll() is not None, seconds), f"it hangs: {self._said.read_text()}"
        return self.process.returncode, self._said.read_text()

    def end(self) -> None:
        for pid in self.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left(self) -> list[int]:
        """Processes of the run that are there: torchrun, ranks, workers."""
        mark = f"WATCHED={self.root}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it has ended, or is another user's
                continue
        return found


# --- by hand ---


class Ranks:
    """Processes that are started one by one, with the variables that a launcher would set; they begin at once."""

    def __init__(
        self,
        root: Path,
        options: Path,
        *arguments: str,
        world: int = 2,
        variables: Callable[[int], Mapping[str, str]] | None = None,
        launcher: str = "pytorch",
        pace: float = 0,
        saving: float = 0,
        name: str = "",
    ) -> None:
        self.root = root.resolve()
        self.root.mkdir(exist_ok=True)
        port = str(free_port())
        command = ["train", "-opt", str(options), *arguments, "--device", "cpu", "--root", str(self.root)]
        command += ["--launcher", launcher if world > 1 else "none"]
        self.processes: list[BaseProcess] = []
        self._said = [self.root / f"said{name}_{rank}.txt" for rank in range(world)]
        _started.append(self)
        for rank, said in enumerate(self._said):
            environment = {"WATCHED": str(self.root), "PACE": str(pace), "SAVING": str(saving), "MASTER_PORT": port}
            if variables is not None:
                environment.update(variables(rank))
            elif world > 1:
                environment.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
            process = _forks.Process(target=_train, args=(environment, command, said))
            process.start()
            self.processes.append(process)

    def result(self, seconds: float = DEADLINE) -> tuple[list[int | None], list[str]]:
        """Exit statuses and what each said."""
        end = time.monotonic() + seconds
        try:
            for process in self.processes:
                process.join(max(0.0, end - time.monotonic()))
            assert not any(process.is_alive() for process in self.processes), "they hang"
        finally:
            self.end()
        return [process.exitcode for process in self.processes], [said.read_text() for said in self._said]

    def end(self) -> None:
        for process in self.processes:
            process.kill()


def _train(environment: Mapping[str, str], command: Sequence[str], said: Path) -> None:
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # of workers: as in a process that nobody has forked
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    import torch

    from rainoerme_plugin.commands import main

    torch.set_num_threads(1)
    watch()
    sys.exit(main(command))


def spawn(work: Callable[..., None], *arguments: Any, seconds: float = DEADLINE) -> None:
    """``work(rank, *arguments)`` in two processes; raises what one of them raises."""
    import torch.multiprocessing as processes

    context = processes.start_processes(work, arguments, nprocs=2, join=False, start_method="forkserver")
    end = time.monotonic() + seconds
    try:
        while not context.join(0.2):
            assert time.monotonic() < end, "they hang"
    finally:
        for process in context.processes:
            process.kill()


def errors(said: str) -> list[str]:
    """The error lines of our command."""
    return [line for line in said.splitlines() if line.startswith("basicsr train: error:")]
