"""Hooks: the weight schedule, the running mean of the weights, the collapse guard, pictures to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import BaseAveragedModel, is_model_wrapper
from torch import Tensor, nn

from ..data.images import to_image
from ..data.panels import PANEL_ROWS, derained_path, panel, picture_of, save_picture, stages_of
from ..distillation.collapse import CollapseGuard
from ..distillation.ema import move_mean, ramped_decay
from ..errors import OptionError
from ..horizon import of_no_use
from ..options import GuardOptions, read_section
from ..processes import mean_of_processes, rank_and_world
from .model import DistillationModel
from .optimisers import OptionSchedule


def model_of(runner: Any) -> DistillationModel:
    """The runner's model, out of its wrapper.

    Raises:
        OptionError: It is another.
    """
    model = runner.model
    while not isinstance(model, DistillationModel):
        if not (is_model_wrapper(model) or hasattr(model, "module")):
            raise OptionError(f"these hooks are for a DistillationModel; the config has a {type(model).__name__}")
        model = model.module
    return model


def networks_of(runner: Any) -> dict[str, nn.Module]:
    """The network and, if there is one, its running mean, by the keys of checkpoints; outside of a validation."""
    networks: dict[str, nn.Module] = {"params": model_of(runner).network}
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            networks["params_ema"] = hook.ema_model.module.network
    return networks


class ScheduleHook(Hook):
    """Tells the model the number of each iteration, and what its losses weigh in it (`distillation.schedule`).

    Args:
        seed: Of what the schedule draws; None: the runner's.
        tell: Whether it also tells what of the config comes to nothing in a run of its length; of option files that
            is told before.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int | None = None, tell: bool = True) -> None:
        self._seed, self._tell = seed, tell

    def before_train(self, runner: Any) -> None:
        for line in _too_short(runner) if self._tell else ():
            runner.logger.warning(line)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        model = model_of(runner)
        model.skips.folder = Path(runner.work_dir) / "nonfinite"
        model.iteration = runner.iter + 1
        model.seed = int((runner.seed if self._seed is None else self._seed) or 0)
        model.weights = model.schedule.at(model.iteration, seed=model.seed)
        if model.refinements.teacher.is_needed:
            model.teacher = self._mean(runner)

    @staticmethod
    def _mean(runner: Any) -> nn.Module:
        if (mean := networks_of(runner).get("params_ema")) is None:
            raise OptionError("model.distillation.teacher: the teacher is the running mean: add an EMAHook")
        return mean


def _too_short(runner: Any) -> list[str]:
    """What the run is too short for, or too long; in the words of option files, whose keys the config's are."""
    total, options = runner.max_iters, model_of(runner).options
    schedules = runner.param_schedulers or ()
    if isinstance(schedules, dict):  # of several optimisers
        schedules = [schedule for each in schedules.values() for schedule in each]
    own = [schedule for schedule in schedules if isinstance(schedule, OptionSchedule)]
    found = [f"param_scheduler: {text} (max_iters: {total})" for each in own for text in each.options.misfits(total)]
    every = {"val.val_freq": getattr(runner.train_loop, "val_interval", None)}
    guard = None
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            every["logger.save_checkpoint_freq"] = hook.interval
        if isinstance(hook, CollapseGuardHook):
            guard = hook.options
    warmup = max((schedule.warmup_iter for schedule in own), default=-1)
    data = runner.train_dataloader.dataset
    late_from = data.late_from if getattr(data, "late_crop_size", None) else None
    return found + of_no_use(total, warmup, every, options.distillation, options.backbone, guard, late_from=late_from)


class RampedEMA(BaseAveragedModel):
    """The running mean of the weights that BasicSR's engine keeps, for mmengine's ``EMAHook``.

    In a config: ``custom_hooks = [dict(type='EMAHook', ema_type='RampedEMA', decay=0.999)]``.

    Args:
        model: What is averaged.
        decay: How much of the mean stays in an iteration, in (0, 1), once it has been reached (`ramped_decay`).
        interval, device, update_buffers: As of every averaged model; only the first two may differ from the defaults.

    Raises:
        ValueError: ``decay`` is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float = 0.999,
        interval: int = 1,
        device: Any = None,
        update_buffers: bool = False,
    ) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay of RampedEMA must be between 0 and 1, got {decay}")
        super().__init__(model, interval, device, update_buffers=False)
        self.decay = decay

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        averaged_param.lerp_(source_param, 1 - ramped_decay(self.decay, steps + 1))

    def update_parameters(self, model: nn.Module) -> None:
        self.steps += 1
        steps = int(self.steps)
        # A step that was left out counts, and moves nothing.
        if steps % self.interval == 0 and getattr(model, "stepped", True):
            move_mean(self.module, model, ramped_decay(self.decay, steps))


class CollapseGuardHook(Hook):
    """Ends a run that only copies its input, as `CollapseGuard` finds.

    Args:
        options: ``train.collapse_guard`` of option files: interval, patience, hard_loss.

    Raises:
        CollapseError: In training, when it has happened.
    """

    priority = "NORMAL"

    def __init__(self, **options: Any) -> None:
        self.options = guard = read_section(GuardOptions, options, "CollapseGuardHook")
        self.guard = CollapseGuard(guard.interval, guard.patience, guard.hard_loss) if guard.enabled else None

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        model = model_of(runner)
        counts = model.stepped and model.last is not None and model.weights is not None and model.weights.hard > 0
        if self.guard is not None and counts:
            assert model.last is not None
            self.guard.check(model.last, model.iteration, mean_of_processes)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if self.guard is not None:
            checkpoint["collapse_guard"] = self.guard.state_dict()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if self.guard is not None and checkpoint.get("collapse_guard"):
            self.guard.load_state_dict(checkpoint["collapse_guard"])


class PanelHook(Hook):
    """Shows, at every validation, the last training crops in all their stages and the first test images.

    They go to the runner's visualiser: into ``vis_data/vis_image`` and, if it has such a backend, to TensorBoard.

    Args:
        rows: Test images that are shown; 0: none, and no crops.
        save_images: Write every derained image, too, to ``visualization`` in the run's folder.
        rounding: Of derained images to 8 bits.
    """

    priority = "BELOW_NORMAL"

    def __init__(self, rows: int = PANEL_ROWS, save_images: bool = False, rounding: Any = "round") -> None:
        self._rows, self._save_images, self._rounding = rows, save_images, rounding

    def before_val(self, runner: Any) -> None:
        step = model_of(runner).last
        if self._rows and step is not None and rank_and_world()[0] == 0:
            picture = panel(stages_of(step), min_width=160)
            runner.visualizer.add_image("training", picture, step=runner.iter)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        dataset = getattr(runner.val_loop, "name", "val")
        several = getattr(runner.val_loop, "several", False)
        for sample in outputs or ():
            if batch_idx < self._rows and rank_and_world()[0] == 0:
                clean = None if sample.clean is None else sample.clean[None]
                picture = picture_of(sample.rainy[None], sample.derained[None], clean)
                # mmengine makes no folders below its own.
                runner.visualizer.add_image(f"{dataset}_{sample.result}".replace("/", "_"), picture, step=runner.iter)
            if self._save_images:
                folder = Path(runner.work_dir) / "visualization"
                file = derained_path(folder, sample.result, runner.iter, dataset if several else None)
                save_picture(file, to_image(sample.derained, self._rounding))
