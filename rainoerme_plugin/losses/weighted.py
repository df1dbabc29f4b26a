"""The mean over images of values that count differently from place to place."""

from __future__ import annotations

from torch import Tensor


def weighted_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """``sum(weight * values) / sum(weight)``, a scalar; without weights the plain mean.

    Args:
        values: (B, C, H, W).
        weight: (B, 1, H, W) or (B, C, H, W), none negative; 0 everywhere gives 0. As with BasicSR's losses.

    Raises:
        ValueError: The weights are not of such a shape.
    """
    if weight is None:
        return values.mean()
    weight = _checked(values, weight)
    total = weight.sum() * (values.shape[1] // weight.shape[1])
    return (values * weight).sum() / total.clamp(min=1e-12)


def mean_one(values: Tensor, weight: Tensor) -> Tensor:
    """Weights divided by their mean, so that what is multiplied by them needs nothing but a plain mean.

    Args:
        values, weight: As of `weighted_mean`.

    Raises:
        ValueError: The weights are not of such a shape.
    """
    weight = _checked(values, weight)
    return weight / weight.mean().clamp(min=1e-12)


def _checked(values: Tensor, weight: Tensor) -> Tensor:
    if weight.dim() != 4 or weight.shape[1] not in (1, values.shape[1]) or weight.shape[2:] != values.shape[2:]:
        raise ValueError(
            f"weight must be (B, 1, H, W) or (B, C, H, W) of {tuple(values.shape)}, got {tuple(weight.shape)}"
        )
    return weight.to(values.dtype)
