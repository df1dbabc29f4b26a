"""Optimisers and schedules as option files describe them: what BasicSR's engine makes of the same words."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from ..errors import OptionError
from ..registered.lr_scheduler import build_schedule
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
        scheduler: Type and arguments: LinearDecayLR, MultiStepLR, MultiStepRestartLR or CosineAnnealingRestartLR.
        warmup_iter: Iterations over which the learning rate rises from 0; -1: none.
        by_epoch, end, epoch_length: What mmengine tells every schedule; of no use here.
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
        self.scheduler = build_schedule(optimizer.optimizer, scheduler)
        self._warmup = warmup_iter
        self._warm_up(1)

    def step(self) -> None:
        """Go to the next iteration."""
        self.scheduler.step()
        self._warm_up(self.scheduler.last_epoch + 1)

    def _warm_up(self, iteration: int) -> None:
        if iteration < self._warmup:
            # Not the wrapper's groups: of several it makes up one more.
            for group in self.scheduler.optimizer.param_groups:
                group["lr"] = group["initial_lr"] / self._warmup * iteration

    def state_dict(self) -> dict[str, Any]:
        """That of the schedule itself, before it moves on."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave, with the next iteration; the optimiser's own state must be there."""
        self.scheduler.load_state_dict(state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a step before the optimiser's first
            self.step()

    def get_last_value(self) -> list[float]:
        """The learning rates now."""
        return [group["lr"] for group in self.scheduler.optimizer.param_groups]
