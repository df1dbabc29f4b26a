"""Optimisers and schedules as option files describe them: what BasicSR's engine makes of the same words."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

from mmengine.optim import LinearLR, OptimWrapper, _ParamScheduler
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from ..errors import OptionError
from ..registered.lr_scheduler import build_schedule, read_schedule
from ..training.optimisers import optimiser_settings, parameter_groups


class OptionOptimWrapper:
    """Constructor of an optimiser with the same groups and settings as under BasicSR, so that its state is the same.

    Args:
        optim_wrapper_cfg: ``optim_wrapper`` of a config.
        paramwise_cfg: None: what is different for a backbone is the model's ``backbone``.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        if paramwise_cfg:
            raise ValueError("OptionOptimWrapper takes no paramwise_cfg; the model's backbone=dict(lr_factor=...) does")
        self._cfg = deepcopy(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        bare: Any = getattr(model, "module", model)
        cfg = deepcopy(self._cfg)
        options = cfg.pop("optimizer")
        settings = optimiser_settings(options, next(bare.parameters()).device.type)
        groups = parameter_groups(bare.network, settings["lr"], bare.options.backbone)
        kind = OPTIMIZERS.get(options["type"])
        if kind is None:
            raise OptionError(f"optim_wrapper.optimizer.type: neither PyTorch nor mmengine has '{options['type']}'")
        optimizer = kind(groups, **settings)
        cfg.setdefault("type", "OptimWrapper")
        wrapper: OptimWrapper = OPTIM_WRAPPERS.build({**cfg, "optimizer": optimizer})
        return wrapper


class OptionSchedule(_ParamScheduler):
    """A schedule of PyTorch's kind by iterations: ``train.scheduler`` and ``train.warmup_iter`` of an option file.

    Its state is that of the iteration that was done last, as BasicSR's engine saves it: the checkpoint must be saved
    before the schedule moves on, by ``default_hooks = dict(param_scheduler=dict(type='ParamSchedulerHook',
    priority='LOWEST'))``. (mmengine's runners want its own kind; of its code nothing is used.)

    Args:
        optimizer: The optimiser in its wrapper.
        scheduler: Type and arguments: LinearDecayLR, CosineLR, MultiStepLR, MultiStepRestartLR or
            CosineAnnealingRestartLR.
        warmup_iter: Iterations over which the learning rate rises from 0; -1: none.
        end: Iterations of the run, which mmengine tells every schedule.
        by_epoch, epoch_length: What it tells, too; of no use here.

    Attributes:
        warmup_iter: As given.

    Raises:
        OptionError: There is no such schedule, or it does not take these arguments.
    """

    def __init__(
        self,
        optimizer: OptimWrapper,
        scheduler: dict[str, Any],
        warmup_iter: int = -1,
        by_epoch: bool = False,
        end: int | None = None,
        epoch_length: int | None = None,
    ) -> None:
        if by_epoch:
            raise ValueError("OptionSchedule goes by iterations: by_epoch=False")
        self.by_epoch = False
        self.optimizer = optimizer
        if end is None:
            raise ValueError("OptionSchedule needs end: how many iterations the run has")
        self.options = read_schedule(scheduler, "param_scheduler.scheduler")
        self.scheduler = build_schedule(optimizer.optimizer, scheduler, end, "param_scheduler.scheduler")
        self.warmup_iter = warmup_iter
        self._warm_up(1)

    def step(self) -> None:
        """Go to the next iteration."""
        self.scheduler.step()
        self._warm_up(self.scheduler.last_epoch + 1)

    def _warm_up(self, iteration: int) -> None:
        if iteration < self.warmup_iter:
            # Not the wrapper's groups: of several it makes up one more.
            for group in self.scheduler.optimizer.param_groups:
                group["lr"] = group["initial_lr"] / self.warmup_iter * iteration

    def state_dict(self) -> dict[str, Any]:
        """That of the schedule itself, before it moves on."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave, with the next iteration; the optimiser's own state must be there.

        Where the schedule has come to is the checkpoint's, and its rates; how it goes on is this run's.
        """
        place = {name: state[name] for name in ("last_epoch", "_step_count", "base_lrs", "_last_lr")}
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), **place})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a step before the optimiser's first
            self.step()

    def get_last_value(self) -> list[float]:
        """The learning rates now."""
        return [group["lr"] for group in self.scheduler.optimizer.param_groups]


class LinearDecay(LinearLR):
    """mmengine's ``LinearLR`` as `registered.lr_scheduler.LinearDecayLR`: constant, then falling to 0 at the end.

    For runners that take model and optimiser apart, where only mmengine's own schedules go (FSDP, DeepSpeed).

    Args:
        optimizer: The optimiser in its wrapper.
        end: Iterations of the run, which mmengine tells every schedule.
        begin: Last iteration at the full rate; None: half of ``end``.
        options: Of ``LinearLR``.
    """

    def __init__(self, optimizer: Any, end: int, begin: int | None = None, **options: Any) -> None:
        begin = end // 2 if begin is None else begin
        # mmengine's own is at 0 an iteration earlier, in the last one.
        super().__init__(optimizer, start_factor=1.0, end_factor=0.0, begin=begin, end=end + 1, **options)
