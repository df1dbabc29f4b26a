"""Optimisers of BasicSR's own models that leave out a step whose gradients are not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..distillation.finite import all_finite, first_nonfinite
from ..training.skips import Skips


def watch_steps(model: Any, skips: Skips, where: Callable[[], tuple[int, Mapping[str, Any]]]) -> None:
    """Have every optimiser of a model look at its gradients before it steps.

    Args:
        model: One of BasicSR's; those that look themselves, as `DistillationModel`, have an attribute ``skips``.
        skips: Counts those that are skipped.
        where: The number of the iteration, and its batch.
    """
    names = {
        id(parameter): f"gradient of {label}.{name}"
        for label, network in vars(model).items()
        if isinstance(network, nn.Module)
        for name, parameter in network.named_parameters()
    }
    for optimizer in model.optimizers:
        _watch(optimizer, names, skips, where)


def _watch(
    optimizer: Optimizer, names: Mapping[int, str], skips: Skips, where: Callable[[], tuple[int, Mapping[str, Any]]]
) -> None:
    def look(optimizer: Optimizer, *_: Any) -> None:
        parameters = [value for group in optimizer.param_groups for value in group["params"] if value.grad is not None]
        gradients = [(names.get(id(value), "gradient"), value.grad) for value in parameters]
        if not gradients or bool(all_finite([gradient for _, gradient in gradients])):
            return
        problem = first_nonfinite(gradients) or "a gradient is not finite"
        for parameter in parameters:
            parameter.grad = None  # optimisers leave out what has no gradient
        skips.note(where()[0], problem, where()[1])

    optimizer.register_step_pre_hook(look)
