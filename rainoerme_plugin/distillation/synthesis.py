"""Clean-to-rain: real rain, taken out of one photograph, added to another."""

from __future__ import annotations

import torch
from torch import Tensor


def add_rain(clean: Tensor, rain: Tensor, gain: float | Tensor = 1.0) -> Tensor:
    """``clamp(clean + gain * rain, 0, 1)``: a rainy image whose clean version is known.

    Args:
        clean: Clean images (B, 3, H, W) in [0, 1].
        rain: Rain layers of other scenes, same shape. No gradient flows back into them: a network that could
            shape the rain it is tested on would make it easy to remove.
        gain: Strength of the added rain; 1 keeps it as it was found.

    Raises:
        ValueError: The shapes differ.
    """
    if clean.shape != rain.shape:
        raise ValueError(f"clean images {tuple(clean.shape)} and rain layers {tuple(rain.shape)} differ in shape")
    return torch.clamp(clean + gain * rain.detach(), 0, 1)
