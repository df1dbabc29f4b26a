"""Clean-to-rain: real rain, taken out of one photograph, added to another."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Blend = Literal["add", "screen", "alpha"]

_DARKEST_ROOM = 0.1
"""Least distance to white by which a rain layer's opacity is reckoned: nearer to it, any rounding would be opaque."""


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
    _check_shapes(clean, rain)
    return torch.clamp(clean + gain * rain.detach(), 0, 1)


def screen_rain(clean: Tensor, rain: Tensor, gain: float | Tensor = 1.0) -> Tensor:
    """``clamp(clean + gain * rain * (1 - clean), 0, 1)``: the brighter a place, the less rain is seen before it.

    This is the screen of image editors, 1 - (1 - clean)(1 - gain * rain). The arguments are those of `add_rain`.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes(clean, rain)
    return torch.clamp(clean + gain * rain.detach() * (1 - clean), 0, 1)


def opacity(rain: Tensor, background: Tensor) -> Tensor:
    """How opaque white rain must be to brighten ``background`` by ``rain``: sum(rain) / sum(1 - background), in [0, 1].

    A drop covers all colours alike, so sums go over the channels.

    Args:
        rain: Rain layers (B, 3, H, W).
        background: What lies behind them, in [0, 1], of the same shape: the photograph without its rain.

    Returns:
        (B, 3, H, W), the same in every channel, cut off from the gradient. As ``rain`` of `screen_rain` it veils
        another image as it veiled this one.
    """
    rain, background = rain.detach(), background.detach()
    room = (1 - background).mean(dim=1, keepdim=True).clamp(min=_DARKEST_ROOM)
    return (rain.mean(dim=1, keepdim=True) / room).clamp(0, 1).expand_as(rain)


def _check_shapes(clean: Tensor, rain: Tensor) -> None:
    if clean.shape != rain.shape:
        raise ValueError(f"clean images {tuple(clean.shape)} and rain layers {tuple(rain.shape)} differ in shape")
