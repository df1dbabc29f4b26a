"""Several losses as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
        raise ValueError(f"losses[{place}].type: no loss {name!r}; there are {', '.join(LOSSES)}")
    try:
        return LOSSES[name](**{key: value for key, value in options.items() if key != "type"})
    except (TypeError, ValueError) as error:
        raise ValueError(f"losses[{place}]: {error}") from None
