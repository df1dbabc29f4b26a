"""Numbers that went wrong: whether tensors are finite, and which is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether no tensor holds NaN or an infinite value, a scalar 1.0 or 0.0 on their device, which is not waited for.

    Args:
        tensors: Floating-point tensors of one device, at least one.
    """
    # The largest absolute value is NaN or infinite if one is; a sum of squares might overflow by itself.
    largest = torch.stack([value.float() for value in torch._foreach_norm(list(tensors), float("inf"))])
    return torch.isfinite(largest).all().float()


def first_nonfinite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with NaN or infinite values, and how many it has; None if there is none."""
    for name, value in tensors:
        broken = int(value.numel() - torch.isfinite(value).sum())
        if broken:
            kind = "NaN" if bool(torch.isnan(value).any()) else "infinite"
            return f"the {name} is {kind}" + (f" in {broken} of {value.numel()} values" if value.numel() > 1 else "")
    return None
