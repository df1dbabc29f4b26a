"""Loops: training on an endless stream of samples that can be entered anywhere, and several validation sets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, ValLoop
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.device import DeviceBatches
from ..data.names import result_name
from ..data.unpaired import UnpairedRain
from ..errors import OptionError
from ..processes import rank_and_world
from ..training.failures import telling
from ..training.random_states import undisturbed
from ..training.sampler import StreamSampler
from ..training.signals import Agreement, Signals

FAR = 10**12
"""More samples than a run can see."""


class EndlessSampler(Sampler[int]):
    """The sample numbers of BasicSR's engine: 0, 1, 2 ... in batches, which processes take in turn.

    Args:
        dataset: `UnpairedRain`, whose samples are numbered without end.
        batch_size: Samples a process takes of each step; that of the data loader.
        seed: What mmengine tells every sampler; of no use here, for the data set has its own.

    Attributes:
        first: The first iteration, from 0.
    """

    def __init__(self, dataset: Dataset[Any], batch_size: int, seed: int | None = None) -> None:
        self.batch_size, self.first = batch_size, 0

    def __iter__(self) -> Iterator[int]:
        rank, world = rank_and_world()
        return iter(StreamSampler(self.first * self.batch_size * world, FAR, self.batch_size, rank, world))

    def __len__(self) -> int:
        return FAR // self.batch_size


class EndlessTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that resumes at the right sample at once, and saves when it is asked to end.

    SIGINT and SIGTERM (what clusters send before they take a machine away) are heard between two iterations: all
    processes stop at the same one, `SafeCheckpointHook` saves it, and ``KeyboardInterrupt`` ends the run. Data sets
    with ``source: device`` lie on the device.

    Attributes:
        stopping: Whether the iteration that is computed is the last one, as the run was asked to end or a validation
            failed.
    """

    stopping = False

    def run(self) -> torch.nn.Module:
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        batches = self._batches()
        agreement = Agreement()
        with Signals(patience=2.0) as signals:
            # It may have been stopped before it had done that.
            failure = self._validate() if self._iter and self._is_due() else None
            while self._iter < self._max_iters and not self.stop_training:
                self.runner.model.train()
                batch = next(batches)
                self.stopping = agreement.reached(signals.received) or failure is not None
                with telling(f"iteration {self._iter + 1}"):
                    self.run_iter(batch)
                if self.stopping:
                    raise failure or KeyboardInterrupt
                self._decide_current_val_interval()
                if self._is_due():
                    failure = self._validate()
            agreement.close()
        if failure is not None:  # after the last iteration, of which there is a checkpoint
            raise failure
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _is_due(self) -> bool:
        """Whether a validation follows on the last iteration."""
        if self.runner.val_loop is None or self._iter < self.val_begin:
            return False
        return self._iter % self.val_interval == 0 or self._iter == self._max_iters

    def _validate(self) -> Exception | None:
        """Validate.

        Returns:
            What ends the run, once it is saved. Checkpoints are whole only within an iteration: the next one's is.

        Raises:
            RainOerMeError: What ends the run of several processes, which do not wait for one of them.
        """
        try:
            with undisturbed(), telling(f"validation after iteration {self._iter}"):
                self.runner.val_loop.run()
        except Exception as error:
            if rank_and_world()[1] > 1:
                raise
            for hook in self.runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(self.runner)  # puts the weights back in the place of their mean
            return error
        return None

    def _batches(self) -> Iterator[Any]:
        sampler = getattr(self.dataloader, "sampler", None)
        if not isinstance(sampler, EndlessSampler):
            late = ", and late_crop_size needs it" if getattr(self.dataloader.dataset, "late_crop_size", None) else ""
            print_log(f"EndlessTrainLoop resumes exactly with sampler=dict(type='EndlessSampler') only{late}",
                      "current", logging.WARNING)  # fmt: skip
            return iter(self.dataloader_iterator)
        sampler.first = self._iter
        if isinstance(self.dataloader.dataset, UnpairedRain):
            self.dataloader.dataset.plan(self._max_iters, sampler.batch_size * rank_and_world()[1])
        if getattr(self.dataloader.dataset, "on_device", False):
            return iter(DeviceBatches(self.dataloader.dataset, sampler, sampler.batch_size, torch.device(get_device())))
        # The parent class has begun one at the first sample, and its workers.
        getattr(self.dataloader_iterator._iterator, "_shutdown_workers", lambda: None)()
        with undisturbed():  # it draws a seed for its workers, which a run that was not stopped has drawn at its start
            return iter(self.dataloader)


class SeveralValLoop(ValLoop):
    """``ValLoop`` over several data sets, one after the other; their metrics need prefixes to tell them apart.

    Args:
        runner, dataloader, evaluator: Of the first.
        name: Of the first, for pictures.
        others: ``name``, ``dataloader`` and ``evaluator`` of each further one.

    Attributes:
        name: Of the one that is gone through.
        several: Whether there is more than one.

    Raises:
        OptionError: Two have one name.
        DataError: A name is not fit for that of a folder.
    """

    dataloader: Any
    evaluator: Any

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader[Any] | dict[str, Any],
        evaluator: Evaluator | dict[str, Any] | list[Any],
        name: str = "val",
        others: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(runner, dataloader, evaluator)
        self.name, self.several = name, bool(others)
        names = [result_name(each, f"the data set '{each}'") for each in (name, *(other["name"] for other in others))]
        if len(set(names)) < len(names):
            raise OptionError(f"val_cfg: two data sets have one name, of {', '.join(names)}; rename one of them")
        self._sets = {name: (self.dataloader, self.evaluator)}
        for other in others:
            loop = ValLoop(runner, other["dataloader"], other["evaluator"])
            self._sets[other["name"]] = loop.dataloader, loop.evaluator

    def run(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, (dataloader, evaluator) in self._sets.items():
            self.name, self.dataloader, self.evaluator = name, dataloader, evaluator
            found.update(super().run())
        return found
