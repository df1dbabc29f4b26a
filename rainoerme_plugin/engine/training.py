"""The training loop, for every BasicSR model and option file."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ..archs.adapt import is_out_of_memory
from ..config import Request
from ..devices import keep_memory
from ..errors import CollapseError, OptionError, RainOerMeError, WeightsError, counted, described, one_line
from ..processes import claimed, first_decides, gather, leave_processes, losses_told
from ..progress import bar
from ..training.best import BestCheckpoint, best_rule
from ..training.checkpoints import Checkpoint, changes, networks_of, prune
from ..training.continuing import find_checkpoint, retreat, with_warmup
from ..training.environment import changed_environment, environment
from ..training.failures import telling
from ..training.opening import open_folder, settle_seed
from ..training.random_states import random_states, set_random_states, undisturbed
from ..training.signals import Agreement, Signals
from .board import Board
from .loaders import Loaders
from .session import begin, build, holding_log, logging_to


def train(request: Request) -> dict[str, Any]:
    """Train as the option file says, from the start or from the last checkpoint.

    Whatever ends it early between two iterations (Ctrl-C, SIGTERM, a broken image, a worker that dies) leaves the last
    iteration's checkpoint behind, if only it can be written; what ends it within one, the last checkpoint. A second
    Ctrl-C stops at once.

    Returns:
        The completed options; ``path.models`` is where the network is.

    Raises:
        RainOerMeError: What the user can mend, on one line.
    """
    opt = begin(request, training=True)
    with losses_told(opt["rank"], opt["world_size"]), claimed(Path(opt["path"]["log"])):
        _train(opt)
        leave_processes()
    return opt


def _train(opt: dict[str, Any]) -> None:
    checkpoint, problems = find_checkpoint(opt)
    before = (checkpoint.state.get("options") or {}).get("manual_seed") if checkpoint else None
    settle_seed(opt, before)
    warmup = None if checkpoint is None else checkpoint.state.get("warmup")
    if opt["device"] == "cpu":
        keep_memory()
    loaders = Loaders(opt)
    went_back = 0 if checkpoint is None else int(checkpoint.state.get("went_back", 0))
    with holding_log(opt) as held:
        run = _Run(_continued(opt, checkpoint, warmup), loaders, checkpoint, went_back)
    # All that can be wrong with data and checkpoints is known by now, and an older experiment is still where it was.
    open_folder(opt, keep=checkpoint is not None)
    with logging_to(opt, "train", held) as logger:
        for warning in (*opt["warnings"], *(f"passed over: {problem}" for problem in problems)):
            logger.warning(warning)
        _describe(opt, logger, loaders)
        for note in (note for data in (loaders.train_set, *loaders.val) for note in getattr(data, "notes", ())):
            logger.info(note)
        while True:
            try:
                run.go()
                return
            except CollapseError as error:
                went_back += 1
                checkpoint, warmup, told = retreat(opt, error, went_back)
                if checkpoint is None:
                    settle_seed(opt)
                logger.warning(told)
                run = _Run(_continued(opt, checkpoint, warmup), loaders, checkpoint, went_back)


def _continued(opt: Mapping[str, Any], checkpoint: Checkpoint | None, warmup: int | None) -> dict[str, Any]:
    """A copy of the options, with the networks of a checkpoint to start from, and another warm-up if there is one."""
    own = with_warmup(opt, warmup)
    if checkpoint is None:
        return own
    ignored = own["path"].get("ignore_resume_networks") or []
    for key in [key for key in own if key.startswith("network_")]:
        if key in ignored:
            continue
        label = key.removeprefix("network_")
        own["path"][f"pretrain_{key}"] = str(checkpoint.network(f"net_{label}"))
        own["path"][f"strict_load_{label}"] = True
        own["path"][f"param_key_{label}"] = "params"
        if own[key].get("type") == "DistillationNet":
            own[key].pop("pretrained", None)  # all its weights come from the checkpoint
    return own


def _describe(opt: Mapping[str, Any], logger: logging.Logger, loaders: Loaders) -> None:
    from basicsr.utils import get_env_info
    from basicsr.utils.options import dict2str

    logger.info(get_env_info() + dict2str(opt), extra={"only_file": True})
    total = int(opt["train"]["total_iter"])
    logger.info(
        f"Training {opt['name']} on {opt['device']} ({counted(opt['world_size'], 'process', 'processes')}, "
        f"{counted(torch.get_num_threads(), 'thread')}): {counted(total, 'iteration')} of "
        f"{counted(loaders.samples_an_iteration, 'sample')}, {counted(loaders.images, 'image')}, "
        f"{counted(loaders.epoch(total * loaders.samples_an_iteration), 'pass', 'passes')}; "
        f"seed {opt['manual_seed']}. Everything goes to {opt['path']['log']}"
    )


class _Run:
    """The loop itself, from a checkpoint or from the start."""

    def __init__(
        self,
        opt: dict[str, Any],
        loaders: Loaders,
        checkpoint: Checkpoint | None,
        went_back: int,
    ):
        from basicsr.utils import get_root_logger

        from ..training.skips import Skips
        from .sound_steps import watch_steps

        self.opt, self.loaders, self.logger, self.went_back = opt, loaders, get_root_logger(), went_back
        self.device = torch.device(opt["device"])
        self.model = build(opt)
        self.model.more_to_save = self._more_to_save
        if not hasattr(self.model, "skips"):
            folder = Path(opt["path"]["experiments_root"]) / "nonfinite"
            self.model.skips = Skips(int(opt["train"].get("nonfinite_limit", 10)), folder, self.logger.warning)
            watch_steps(self.model, self.model.skips, lambda: (self.iteration + 1, self.data))
        self.iteration = self.samples = 0
        self.total = int(opt["train"]["total_iter"])
        rule = best_rule(opt.get("val"), {each.name: each.metrics for each in loaders.val})
        self.best = None if rule is None else BestCheckpoint(rule, Path(opt["path"]["models"]), self.logger.info)
        if self.best is not None and not hasattr(self.model, "net_g"):
            raise OptionError(f"val.best: {type(self.model).__name__} has no network net_g that could be saved")
        if checkpoint is not None:
            self._go_on_from(checkpoint)
        self.saved_at = self.validated_at = self.iteration
        self.between = True
        """Whether the model is between two iterations: within one it is neither what it was nor what it will be."""
        self._agreed = self._saving = False

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self.iteration = int(state["iter"])
        self.samples = int(state.get("samples", self.iteration * self.loaders.samples_an_iteration))
        self.logger.info(f"Resuming after iteration {self.iteration}, from {checkpoint.path}")
        differences = changes(state["options"], self.opt["asked"]) if "options" in state else []
        for difference in differences:
            self.logger.warning(f"changed since the checkpoint: {difference}")
        if told := changed_environment(state.get("environment") or {}, environment(self.device)):
            self.logger.warning(told)
        rates_by = ["train.optim_", "train.scheduler"]
        if not {"start", "end"} <= self.opt["train"]["scheduler"].keys():
            rates_by.append("train.total_iter")  # which a schedule follows that is not written out
        changed = any(text.startswith(tuple(rates_by)) for text in differences)
        states = state.get("random") or []
        try:
            if changed:
                _resume_with_new_rates(self.model, state)
            else:
                self.model.resume_training(state)
            if hasattr(self.model, "set_more_state") and "model" in state:
                own = [state["model"], *state.get("model_elsewhere", [])]
                mine = own[self.opt["rank"] if len(own) == self.opt["world_size"] else 0]
                self.model.set_more_state({**state["model"], **mine})  # what all have alike, the first one has saved
            if self.best is not None:
                self.best.load_state_dict(state.get("best_network") or {})
            if len(states) == self.opt["world_size"]:
                set_random_states(states[self.opt["rank"]], self.device)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"{checkpoint.path} does not fit this model: {described(error)}") from None
        if state.get("best"):
            self.model.best_metric_results = state["best"]
        if len(states) not in (0, self.opt["world_size"]):
            others = counted(len(states), "process", "processes")
            self.logger.warning(f"the checkpoint is of {others}: their random states are not taken over")

    def _more_to_save(self) -> dict[str, Any]:
        """What a training state holds besides BasicSR's own; gathered by all processes before."""
        distillation = self.opt["train"].get("distillation") or {}
        return {
            "samples": self.samples,
            "random": self._random_states,
            "options": self.opt["asked"],
            "environment": environment(self.device),
            "best": getattr(self.model, "best_metric_results", {}),
            "model": self._model_states[0],
            "model_elsewhere": self._model_states[1:],
            "went_back": self.went_back,
            "warmup": distillation.get("warmup") if self.went_back else None,
            "best_network": {} if self.best is None else self.best.state_dict(),
        }

    def go(self) -> None:
        """Train to the end.

        Raises:
            RainOerMeError: What the user can mend.
            KeyboardInterrupt: It was asked to stop.
        """
        from basicsr.utils import MessageLogger

        if self.best is not None:
            self.best.settle()
        self.tb_logger = Board(self.opt, self.logger)
        self.messages = MessageLogger(self.opt, self.iteration + 1, self.tb_logger)
        with Signals(patience=2.0 if self.opt["dist"] else 0.5) as signals, warnings.catch_warnings():
            # A schedule moves on before the first step that an optimiser makes in a resumed run.
            warnings.filterwarnings("ignore", "Detected call of", UserWarning)
            try:
                self._loop(signals)
            except BaseException as error:
                # Of several processes only a stop finds all at the same iteration.
                if self.between and (self._agreed or not self.opt["dist"]):
                    self._save_what_there_is(error)
                    if self._agreed:
                        # As soon as one has ended, torchrun stops the others: all wait until the first has saved.
                        first_decides(lambda: None)
                if is_out_of_memory(error):
                    raise self._out_of_memory() from error
                raise
            finally:
                self.tb_logger.close()

    def _out_of_memory(self) -> RainOerMeError:
        if self.between:
            where = f"after iteration {self.iteration}"
            remedy = "give val.tile a smaller number or lower datasets.train.num_worker_per_gpu"
        else:
            where = f"in iteration {self.iteration + 1}"
            remedy = "lower datasets.train.batch_size_per_gpu or crop_size, or raise train.accumulation"
        return RainOerMeError(f"out of memory on {self.device} {where}; {remedy}, and go on with --auto_resume")

    def _loop(self, signals: Signals) -> None:
        start, val = time.monotonic(), self.opt.get("val") or {}
        every = {name: int(self.opt["logger"][name]) for name in ("print_freq", "save_checkpoint_freq")}
        val_freq = int(val.get("val_freq") or 0)
        title, is_first = self.opt["name"], self.opt["rank"] == 0
        with bar(self.total, title, shown=is_first, initial=self.iteration, unit="it", smoothing=0.05) as shown:
            self._iterate(signals, shown, every, val_freq)
        self.logger.info(f"Trained in {time.monotonic() - start:.0f} s")
        if self.saved_at != self.iteration:
            self._save()
        self.model.save(epoch=-1, current_iter=-1)
        if self.validated_at != self.iteration:
            self._validate(signals)
        for line in self.best.told_at_end(early=self.iteration < self.total) if self.best is not None else ():
            self.logger.info(line)

    def _iterate(self, signals: Signals, shown: Any, every: Mapping[str, int], val_freq: int) -> None:
        agreement = Agreement()
        if self.iteration and val_freq and (self.iteration % val_freq == 0 or self.iteration == self.total):
            self._validate(signals)  # it may have been stopped before it had done that
        if self._is_over:
            return
        waited = time.monotonic()
        data_time = iter_time = 0.0
        steps = 0
        for data in self.loaders.batches(self.samples, self.total - self.iteration, lambda: signals.received):
            data_time += time.monotonic() - waited
            self._step(data)
            if agreement.reached(signals.received):
                self._agreed = True
                raise KeyboardInterrupt
            iter_time += time.monotonic() - waited
            steps += 1
            shown.update()
            if self.iteration % every["print_freq"] == 0:
                self._log(iter_time / steps, data_time / steps, shown)
                data_time = iter_time = 0.0
                steps = 0
            if self.iteration % every["save_checkpoint_freq"] == 0:
                self._save()
            if val_freq and self.iteration % val_freq == 0:
                self._validate(signals)
                if self._is_over:
                    break
            waited = time.monotonic()
        agreement.close()

    @property
    def _is_over(self) -> bool:
        """Whether validations have become no better for as long as the run is to wait for that."""
        return self.best is not None and self.best.ends_run

    def _step(self, data: Mapping[str, Any]) -> None:
        self.between = False
        current = self.iteration + 1
        self.model.update_learning_rate(current, warmup_iter=int(self.opt["train"].get("warmup_iter", -1)))
        self.data = data
        with telling(f"iteration {current}", self.logger):
            self.model.feed_data(data)
            self.model.optimize_parameters(current)
        self.iteration, self.samples = current, self.samples + self.loaders.samples_an_iteration
        self.between = True

    def _log(self, iter_time: float, data_time: float, shown: Any) -> None:
        losses = dict(self.model.get_current_log())
        rates = self.model.get_current_learning_rate()
        if self.opt["rank"] != 0:
            return
        if self.tb_logger:
            self.tb_logger.add_scalar("lr", rates[0], self.iteration)
        shown.set_postfix({name.removeprefix("l_"): f"{float(value):.3g}" for name, value in losses.items()})
        self.messages(
            {
                "epoch": self.loaders.epoch(self.samples),
                "iter": self.iteration,
                "lrs": rates,
                "time": iter_time,
                "data_time": data_time,
                **losses,
            }
        )

    def _validate(self, signals: Signals) -> None:
        val = self.opt.get("val")
        if val is None:
            return
        # Alone, there is no need to wait for its end: the next run does it again. Several are waiting for each other.
        figures = {}
        with undisturbed(self.device), nullcontext() if self.opt["dist"] else signals.interruptible():
            for test_set in self.loaders.val:
                found = test_set.validate(self.model, self.iteration, self.tb_logger, bool(val["save_img"]))
                figures[test_set.name] = found
        self.validated_at = self.iteration
        if self.best is not None:
            networks = {"params": self.model.net_g, "params_ema": getattr(self.model, "net_g_ema", None)}
            bare = {key: self.model.get_bare_model(net) for key, net in networks.items() if net is not None}
            self.best.judge(self.iteration, figures[self.best.rule.dataset], bare)

    def _save(self) -> None:
        self._saving = True
        self._random_states = gather(random_states(self.device))
        self._model_states = gather(self.model.more_state() if hasattr(self.model, "more_state") else {})
        self.model.save(self.loaders.epoch(self.samples), self.iteration)
        self.saved_at, self._saving = self.iteration, False
        keep = self.opt["logger"].get("keep_checkpoints")
        if keep and self.opt["rank"] == 0:
            prune(Path(self.opt["path"]["training_states"]), int(keep), networks_of(self.opt))

    def _save_what_there_is(self, ended_by: BaseException) -> None:
        if self.iteration == self.saved_at or (self._saving and isinstance(ended_by, KeyboardInterrupt)):
            return
        try:
            self._save()
        except Exception as problem:  # what ended the run is what is to be told
            if str(problem) != str(ended_by):
                self.logger.error(f"The state of iteration {self.iteration} could not be saved: {one_line(problem)}")
        else:
            self.logger.info(f"Saved the state of iteration {self.iteration}; go on with --auto_resume")


def _resume_with_new_rates(model: Any, state: Mapping[str, Any]) -> None:
    """Take over what optimisers have learnt, but not their settings and schedules, which are the new options'."""
    for optimizer, old in zip(model.optimizers, state["optimizers"], strict=True):
        own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(old)
        for group, settings in zip(optimizer.param_groups, own, strict=True):
            group.update(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of steps of the schedule before the optimiser's first
        for scheduler in model.schedulers:
            for _ in range(int(state["iter"]) - 1):
                scheduler.step()
