"""The images of a run: the training stream, which can be entered anywhere, and the validation loaders."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..data.device import DeviceBatches
from ..data.unpaired import UnpairedRain, collate_rain
from ..errors import DataError, RainOerMeError, one_line
from ..progress import say
from ..training.opening import made_and_read
from ..training.sampler import Numbered, StreamSampler
from .validating import TestSet, open_test_set

_NO_ROOM = re.compile(r"shared memory.*No space|</torch_\S*>.*(No space|Cannot allocate)", re.DOTALL)
_REMEDY = "lower datasets.train.num_worker_per_gpu, or make room in /dev/shm. Go on with --auto_resume"


def build_dataset(opt: Mapping[str, Any]) -> Any:
    """A data set of this package's or BasicSR's; as of `made_and_read`."""
    from basicsr.data import build_dataset

    return made_and_read(build_dataset, opt)


class Loaders:
    """The training data, as a stream that can be entered anywhere, and what is validated on."""

    def __init__(self, opt: Mapping[str, Any]) -> None:
        from basicsr.data import build_dataloader

        self._opt = opt
        self.val: list[TestSet] = []
        for dataset_opt in opt["datasets"].values():
            if dataset_opt["phase"] == "train":
                self.train_set = build_dataset(dataset_opt)
                self._train_opt = dataset_opt
            elif dataset_opt["phase"] == "val":
                dataset = build_dataset(dataset_opt)
                loader = build_dataloader(dataset, dataset_opt, num_gpu=opt["num_gpu"], dist=opt["dist"])
                self.val.append(open_test_set(loader, opt.get("val")))
        self._batch = int(self._train_opt.get("batch_size_per_gpu", 1))
        self.samples_an_iteration = self._batch * opt["world_size"]

    def batches(self, first: int, iterations: int, stopping: Callable[[], bool]) -> Iterator[Mapping[str, Any]]:
        """The batches of so many iterations, which are the run's last, from sample number ``first`` on.

        Raises:
            DataError: An image cannot be read, or a process that reads them has died.
            KeyboardInterrupt: It has died, and ``stopping`` says that the run was asked to stop.
        """
        batches = iter(self._stream(first, iterations))
        workers = _Workers(getattr(batches, "_workers", ()))
        try:
            for _ in range(iterations):
                with workers.watched():
                    batch = next(batches)
                yield batch
        except Exception as error:
            if isinstance(error, RainOerMeError):
                raise
            if _NO_ROOM.search(str(error)):
                raise DataError(f"no room in /dev/shm to hand over images; {_REMEDY}") from None
            # A death shows as one of many errors, by what was under way between the two processes.
            dead = workers.dead(patience=1.0)
            if dead is None:
                raise
            if stopping():
                raise KeyboardInterrupt from None
            raise DataError(
                f"a process that reads images has died (exit code {dead}); where Linux killed it for want of memory, "
                f"{_REMEDY}"
            ) from None
        finally:
            workers.end()
            # Else they would wait for the interpreter's end, and it for them.
            getattr(batches, "_shutdown_workers", lambda: None)()

    def _stream(self, first: int, iterations: int) -> Iterable[Mapping[str, Any]]:
        opt, train_opt = self._opt, self._train_opt
        last = first + iterations * self.samples_an_iteration
        if isinstance(self.train_set, UnpairedRain):
            total = int(opt["train"]["total_iter"])
            self.train_set.plan(total, self.samples_an_iteration, done=total - iterations, first=first)
        sampler = StreamSampler(first, last, self._batch, opt["rank"], opt["world_size"])
        if getattr(self.train_set, "on_device", False):
            return DeviceBatches(self.train_set, sampler, self._batch, torch.device(opt["device"]))
        return DataLoader(
            Numbered(self.train_set, opt["manual_seed"]),
            batch_size=self._batch,
            sampler=sampler,
            num_workers=int(train_opt.get("num_worker_per_gpu", 0)),
            drop_last=True,
            pin_memory=bool(train_opt.get("pin_memory")) and opt["num_gpu"] > 0,
            collate_fn=collate_rain if isinstance(self.train_set, UnpairedRain) else None,
            worker_init_fn=_begin_to_work,
            generator=torch.Generator(),  # of the workers' seeds, which must not be drawn from training's own
        )

    @property
    def images(self) -> int:
        """How many different images training draws from, as far as the data set tells."""
        rainy = getattr(self.train_set, "rainy", self.train_set)
        return len(rainy)

    def epoch(self, samples: int) -> int:
        return samples // self.images


class _Workers:
    """The processes that read images; the death of one is noticed as soon as a batch is waited for, and only then.

    PyTorch's own handler raises it in the middle of whatever is being done, a step included. Without one it takes five
    seconds, and one that dies with half a message written is waited for for ever.
    """

    def __init__(self, processes: Sequence[BaseProcess]) -> None:
        self._processes = list(processes)
        self._waiting = False
        in_main = threading.current_thread() is threading.main_thread()
        self._listens = bool(processes) and in_main and hasattr(signal, "SIGCHLD")
        if self._listens:
            signal.signal(signal.SIGCHLD, self._look)

    def dead(self, patience: float = 0.0) -> int | None:
        """The exit code of one that has died; its connections may be gone ``patience`` seconds before itself."""
        if patience and self._processes:
            gone = wait([process.sentinel for process in self._processes], patience)
            for process in self._processes:
                if process.sentinel in gone:
                    process.join(patience)
        return next((process.exitcode for process in self._processes if process.exitcode), None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A time in which a death raises an exception."""
        self._waiting = True
        try:
            self._look()
            yield
        finally:
            self._waiting = False

    def end(self) -> None:
        """Let none go on: all that they could do is read."""
        for process in self._processes:
            process.kill()
        if self._listens:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _look(self, number: int = 0, frame: object = None) -> None:
        if self._waiting and self.dead() is not None:
            self._waiting = False
            raise ChildProcessError


def _begin_to_work(worker: int) -> None:
    """What ends a run may be sent to all its processes, even twice, but training still wants its batches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(_lose_batch)  # type: ignore[attr-defined]


def _lose_batch(error: Exception, batch: object) -> None:
    """End a worker that cannot hand over a batch; else nobody would hear of it, and the batch be waited for for ever.

    There may be no room in /dev/shm, or too many open files.
    """
    try:
        say(f"a batch cannot be handed over: {one_line(error)}")
    finally:
        os._exit(1)
