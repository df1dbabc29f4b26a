"""The training loop, for every BasicSR model and option file."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..config import Request
from ..data.device import DeviceBatches
from ..data.unpaired import UnpairedRain, collate
from ..devices import keep_memory
from ..errors import CollapseError, OptionError, RainOerMeError, WeightsError
from ..progress import is_terminal
from ..weights import read_checkpoint
from .sampler import StreamSampler
from .session import begin, check_checkpoints, logging_to, open_folder


def train(request: Request) -> dict[str, Any]:
    """Train as the option file says, from the start or from the last state.

    Whatever ends it early (Ctrl-C, SIGTERM, a broken image, a full disk) leaves the last iteration's state behind, if
    only it can be written. A second Ctrl-C stops at once.

    Returns:
        The completed options; ``path.models`` is where the network is.

    Raises:
        RainOerMeError: What the user can mend, on one line.
    """
    opt = begin(request, training=True)
    state_path = _find_state(opt)
    state = None
    if state_path is not None:
        state = _read_state(state_path)
        _point_to_networks(opt, state_path, int(state["iter"]))
    check_checkpoints(opt)
    if opt["device"] == "cpu":
        keep_memory()
    loaders = _Loaders(opt, int(state["iter"]) if state else 0)
    # All that can be wrong with data and checkpoints is known by now, and an older experiment is still where it was.
    open_folder(opt, keep=state is not None)
    with logging_to(opt, "train") as logger:
        for warning in opt["warnings"]:
            logger.warning(warning)
        _describe(opt, logger, loaders)
        _Run(opt, loaders, state, logger).go()
    return opt


class _Loaders:
    """The training loader, from its place in the stream on, and the validation loaders."""

    def __init__(self, opt: Mapping[str, Any], iteration: int) -> None:
        from basicsr.data import build_dataloader, build_dataset

        self.val: list[DataLoader[Any]] = []
        for dataset_opt in opt["datasets"].values():
            if dataset_opt["phase"] == "train":
                self.train_set = build_dataset(dataset_opt)
                train_opt = dataset_opt
            elif dataset_opt["phase"] == "val":
                dataset = build_dataset(dataset_opt)
                self.val.append(build_dataloader(dataset, dataset_opt, num_gpu=opt["num_gpu"], dist=opt["dist"]))
        batch, world = int(train_opt.get("batch_size_per_gpu", 1)), opt["world_size"]
        self.samples_an_iteration = batch * world
        total = int(opt["train"]["total_iter"])
        sampler = StreamSampler(
            self.train_set,
            iteration * self.samples_an_iteration,
            total * self.samples_an_iteration,
            batch,
            opt["rank"],
            world,
            opt["manual_seed"],
        )
        self.train: Iterable[Mapping[str, Any]]
        if getattr(self.train_set, "on_device", False):
            self.train = DeviceBatches(self.train_set, sampler, batch, torch.device(opt["device"]))
            return
        self.train = DataLoader(
            self.train_set,
            batch_size=batch,
            sampler=sampler,
            num_workers=int(train_opt.get("num_worker_per_gpu", 0)),
            drop_last=True,
            pin_memory=bool(train_opt.get("pin_memory")) and opt["num_gpu"] > 0,
            collate_fn=collate if isinstance(self.train_set, UnpairedRain) else None,
            worker_init_fn=partial(_seed_worker, seed=opt["manual_seed"], first=iteration, rank=opt["rank"]),
        )

    @property
    def images(self) -> int:
        """How many different images training draws from, as far as the data set tells."""
        rainy = getattr(self.train_set, "rainy", self.train_set)
        return len(rainy)

    def epoch(self, iteration: int) -> int:
        return iteration * self.samples_an_iteration // self.images


def _seed_worker(worker: int, seed: int, first: int, rank: int) -> None:
    """For data sets that draw from Python's and NumPy's global generators."""
    import random

    import numpy as np

    own = [seed, first, rank, worker]
    np.random.seed(np.random.SeedSequence(own).generate_state(1)[0])
    random.seed(str(own))


def _find_state(opt: Mapping[str, Any]) -> Path | None:
    """The training state to go on from: the one that the option file names, or with auto_resume the last one."""
    if opt["auto_resume"]:
        states = [path for path in Path(opt["path"]["training_states"]).glob("*.state") if path.stem.isdigit()]
        return max(states, key=lambda path: int(path.stem), default=None)
    named = opt["path"].get("resume_state")
    return Path(named) if named else None


def _read_state(path: Path) -> dict[str, Any]:
    state = read_checkpoint(path)
    if not isinstance(state, dict) or not {"iter", "epoch", "optimizers", "schedulers"} <= set(state):
        raise WeightsError(f"{path}: not a training state; path.resume_state takes a .state file from training_states/")
    return state


def _point_to_networks(opt: dict[str, Any], state_path: Path, iteration: int) -> None:
    """Load the networks that were saved with the state; they lie beside it even if the experiment was set aside."""
    models = state_path.parent.parent / "models"
    ignored = opt["path"].get("ignore_resume_networks") or []
    for key in [key for key in opt if key.startswith("network_")]:
        if key in ignored:
            continue
        path = models / f"net_{key.removeprefix('network_')}_{iteration}.pth"
        if not path.is_file():
            raise WeightsError(f"{state_path} cannot be resumed: {path} is missing")
        opt["path"][f"pretrain_{key}"] = str(path)
        opt["path"][f"strict_load_{key.removeprefix('network_')}"] = True
        opt["path"][f"param_key_{key.removeprefix('network_')}"] = "params"


def _describe(opt: Mapping[str, Any], logger: logging.Logger, loaders: _Loaders) -> None:
    from basicsr.utils import get_env_info
    from basicsr.utils.options import dict2str

    logger.info(get_env_info() + dict2str(opt), extra={"only_file": True})
    total = int(opt["train"]["total_iter"])
    logger.info(
        f"Training {opt['name']} on {opt['device']} ({opt['world_size']} process{'es' * (opt['world_size'] > 1)}, "
        f"{torch.get_num_threads()} threads): {total} iterations of {loaders.samples_an_iteration} samples, "
        f"{loaders.images} images, {loaders.epoch(total)} passes; seed {opt['manual_seed']}. "
        f"Everything goes to {opt['path']['log']}"
    )


class _Run:
    """The loop itself."""

    def __init__(self, opt: dict[str, Any], loaders: _Loaders, state: dict[str, Any] | None, logger: logging.Logger):
        from basicsr.models import build_model
        from basicsr.train import init_tb_loggers
        from basicsr.utils import MessageLogger

        self.opt, self.loaders, self.logger = opt, loaders, logger
        try:
            self.model = build_model(opt)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise OptionError(f"the model cannot be built: {error}") from error
        self.iteration = 0
        if state is not None:
            self.model.resume_training(state)
            self.iteration = int(state["iter"])
            logger.info(f"Resuming after iteration {self.iteration}")
        self.total = int(opt["train"]["total_iter"])
        self.tb_logger = init_tb_loggers(opt)
        self.messages = MessageLogger(opt, self.iteration + 1, self.tb_logger)
        self.saved_at = self.iteration

    def go(self) -> None:
        try:
            with _Signals() as signals:
                self._loop(signals)
        except (RainOerMeError, OSError, KeyboardInterrupt) as error:
            if not isinstance(error, CollapseError):
                self._save_what_there_is()
            raise
        finally:
            if self.tb_logger:
                self.tb_logger.close()

    def _loop(self, signals: _Signals) -> None:
        start, val = time.monotonic(), self.opt.get("val") or {}
        bar = tqdm(
            total=self.total,
            initial=self.iteration,
            desc=self.opt["name"],
            unit="it",
            disable=not is_terminal() or self.opt["rank"] != 0,
            dynamic_ncols=True,
            smoothing=0.05,
        )
        validated_at = -1
        waited = time.monotonic()
        data_time = iter_time = 0.0
        steps = 0
        for data in self.loaders.train:
            data_time += time.monotonic() - waited
            current = self.iteration + 1
            self.model.update_learning_rate(current, warmup_iter=int(self.opt["train"].get("warmup_iter", -1)))
            self.model.feed_data(data)
            self.model.optimize_parameters(current)
            self.iteration = current
            if signals.received:
                raise KeyboardInterrupt
            iter_time += time.monotonic() - waited
            steps += 1
            bar.update()
            if self.iteration % int(self.opt["logger"]["print_freq"]) == 0:
                self._log(iter_time / steps, data_time / steps, bar)
                data_time = iter_time = 0.0
                steps = 0
            if self.iteration % int(self.opt["logger"]["save_checkpoint_freq"]) == 0:
                self._save()
            if val.get("val_freq") and self.iteration % int(val["val_freq"]) == 0:
                self._validate()
                validated_at = self.iteration
            waited = time.monotonic()
        bar.close()
        self.logger.info(f"Trained in {time.monotonic() - start:.0f} s")
        if self.saved_at != self.iteration:
            self._save()
        self.model.save(epoch=-1, current_iter=-1)
        if validated_at != self.iteration:
            self._validate()

    def _log(self, iter_time: float, data_time: float, bar: Any) -> None:
        losses = dict(self.model.get_current_log())
        rates = self.model.get_current_learning_rate()
        if self.opt["rank"] != 0:
            return
        if self.tb_logger:
            self.tb_logger.add_scalar("lr", rates[0], self.iteration)
        bar.set_postfix({name.removeprefix("l_"): f"{float(value):.3g}" for name, value in losses.items()})
        self.messages(
            {
                "epoch": self.loaders.epoch(self.iteration),
                "iter": self.iteration,
                "lrs": rates,
                "time": iter_time,
                "data_time": data_time,
                **losses,
            }
        )

    def _validate(self) -> None:
        val = self.opt.get("val")
        if val is None:
            return
        for loader in self.loaders.val:
            self.model.validation(loader, self.iteration, self.tb_logger, bool(val["save_img"]))

    def _save(self) -> None:
        self.model.save(self.loaders.epoch(self.iteration), self.iteration)
        self.saved_at = self.iteration

    def _save_what_there_is(self) -> None:
        if self.iteration == self.saved_at:
            return
        try:
            self._save()
        except (RainOerMeError, OSError) as problem:
            self.logger.error(f"The state of iteration {self.iteration} could not be saved: {problem}")
        else:
            self.logger.info(f"Saved the state of iteration {self.iteration}; go on with --auto_resume")


class _Signals:
    """Turns the first SIGINT or SIGTERM into a wish that the loop looks at between iterations."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
