"""Several losses as one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import nearest
from .pixels import CharbonnierLoss, FrequencyLoss, GradientLoss
from .ssim import SSIMLoss

LOSSES: dict[str, type[nn.Module]] = {
    "SSIMLoss": SSIMLoss,
    "CharbonnierLoss": CharbonnierLoss,
    "GradientLoss": GradientLoss,
    "FrequencyLoss": FrequencyLoss,
}
"""What a sum may have, by the names of option files."""


class SumLoss(nn.Module):
    """The sum of several losses of two images, each with a ``loss_weight`` of its own.

    Args:
        losses: Each a mapping as in option files, ``{type: SSIMLoss, loss_weight: 1}``, of a type in `LOSSES`.
        loss_weight: Factor of the sum.

    Raises:
        ValueError: There is none, or one is unknown or does not take its arguments.
    """

    def __init__(self, losses: Sequence[Mapping[str, Any]], loss_weight: float = 1.0) -> None:
        super().__init__()
        if isinstance(losses, str | Mapping) or not isinstance(losses, Sequence) or not losses:
            raise ValueError(f"losses must be a list of at least one loss, got {losses!r}")
        self.losses = nn.ModuleList(_build(options, place) for place, options in enumerate(losses))
        self.loss_weight = loss_weight

    def forward(self, image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.loss_weight * torch.stack([loss(image, target, weight=weight) for loss in self.losses]).sum()


def _build(options: Any, place: int) -> nn.Module:
    if not isinstance(options, Mapping) or "type" not in options:
        raise ValueError(f"losses[{place}]: expected keys and values, with type: among them, got {options!r}")
    name = options["type"]
    if not isinstance(name, str) or name not in LOSSES:
        near = nearest(str(name), LOSSES)
        raise ValueError(f"losses[{place}].type: no loss {name!r}{near}; there are {', '.join(LOSSES)}")
    arguments, known = {key: value for key, value in options.items() if key != "type"}, _arguments_of(LOSSES[name])
    for key in arguments.keys() - set(known):
        near = nearest(key, known) or f"; known are {', '.join(known)}"
        raise ValueError(f"losses[{place}].{key}: unknown key{near}")
    try:
        return LOSSES[name](**arguments)
    except TypeError:
        raise ValueError(f"losses[{place}]: {name} takes numbers of {', '.join(known)}, got {arguments!r}") from None
    except ValueError as error:
        raise ValueError(f"losses[{place}]: {error}") from None


def _arguments_of(loss: type[nn.Module]) -> list[str]:
    return list(inspect.signature(loss).parameters)
