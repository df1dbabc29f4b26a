"""How much rain was taken out of a photograph, and how much of the rest was kept, where there is no clean version.

Both compare gradients of the derained image with those of the rainy one. Rain is bright, narrow and long, and falls
steeply: its gradients lie in what a horizontal opening removes, and over a neighbourhood they agree to point across the
fall. Structure is measured elsewhere and in the other direction: by vertical gradients, to which falling rain adds
little, while every blur and every coarse filter takes of them.

Neither says anything alone: a blur takes out much rain, the opening all of it by definition, and the rainy image keeps
all structure. They compare methods on the same images: thin bright upright things (poles, stalks) count as rain, so the
clean image does not reach 1 where rain is light; where rain is dense or falls aslant, some of it counts as structure. A
darker image has weaker gradients of both kinds. docs/benchmarks.md has the measures of known images.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import RGB

Plane = NDArray[np.float32]

WINDOW = 9
"""As wide as this, in pixels, or wider, nothing counts as a streak; the window of the default coarse filter."""
SLANT = 30.0
"""How far from upright a streak may be, in degrees."""
SPREAD = 2.0
"""Sigma, in pixels, of the neighbourhood whose gradients are asked for their direction."""
COHERENCE = 0.7
"""How far they must agree: 0 for all directions alike, as in a texture, 1 for one direction.

Without it every texture is a third rain: on Rain100L the clean images then take out 0.48 of the rainy ones' energy, and
0.67 with it.
"""
# ITU-R BT.601 luma, in thousandths: summed as floats, in an order that varies, flat images would get gradients.
_LUMA = np.array([299, 587, 114])


def rain_removed(derained: RGB, rainy: RGB) -> float:
    """The share of the rain-like gradient energy that was taken out: 1 - E(derained) / E(rainy).

    E is the sum of squared horizontal gradients (Sobel) of an image's streak layer, its luminance less the horizontal
    1x9 opening of it, over the pixels where that layer is upright. It is upright where the structure tensor (Gaussian,
    sigma 2) has a coherence of 0.7 and more, and points at most 30 degrees off the horizontal.

    Args:
        derained: (H, W, 3) uint8, RGB.
        rainy: The image it was made from, of the same shape.

    Returns:
        At most 1; 0 for the rainy image itself, negative where streaks were added. 0 if the rainy image has no such
        energy.

    Raises:
        ValueError: The images are of two shapes.
    """
    before, after = _rain_energy(_luminance(rainy, derained)), _rain_energy(_luminance(derained, rainy))
    return 0.0 if before == 0 else 1 - after / before


def structure_kept(derained: RGB, rainy: RGB) -> float:
    """How much of the vertical gradients is as it was: 1 - sum((d - r)^2) / sum(r^2).

    d and r are the vertical gradients (Sobel) of the luminance of the derained and of the rainy image, at the pixels
    where the rainy image is not upright (see `rain_removed`; of the luminance here).

    Args:
        derained: (H, W, 3) uint8, RGB.
        rainy: The image it was made from, of the same shape.

    Returns:
        At most 1, which the rainy image itself has; 0 for a flat image, negative where more was added than there was.
        1 if the rainy image has no such gradients.

    Raises:
        ValueError: The images are of two shapes.
    """
    plane = _luminance(rainy, derained)
    rest = ~_upright(_gradient(plane, 1, 0), _gradient(plane, 0, 1))
    before = _gradient(plane, 0, 1)[rest].astype(np.float64)
    after = _gradient(_luminance(derained, rainy), 0, 1)[rest].astype(np.float64)
    total = float(np.sum(before**2))
    return 1.0 if total == 0 else 1 - float(np.sum((after - before) ** 2)) / total


def _luminance(image: RGB, other: RGB) -> Plane:
    if image.shape != other.shape:
        raise ValueError(f"the images differ in size: {image.shape[:2]} and {other.shape[:2]}")
    return (image.astype(np.int64) @ _LUMA).astype(np.float32) / np.float32(255_000)


def _gradient(plane: Plane, across: int, down: int) -> Plane:
    return np.asarray(cv2.Sobel(plane, cv2.CV_32F, across, down, borderType=cv2.BORDER_REFLECT), np.float32)


def _upright(across: Plane, down: Plane) -> NDArray[np.bool_]:
    """Where gradients agree on a direction at most SLANT off the horizontal; a flat place has no direction."""

    def mean(values: Plane) -> Plane:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), SPREAD, borderType=cv2.BORDER_REFLECT), np.float32)

    horizontal, vertical = mean(across * across), mean(down * down)
    # Twice the angle: a gradient and its opposite are one direction.
    difference = horizontal - vertical
    length = np.hypot(difference, 2 * mean(across * down))
    agree = (length > 0) & (length >= COHERENCE * (horizontal + vertical))
    return np.asarray(agree & (difference >= np.cos(2 * np.radians(SLANT)) * length))


def _rain_energy(luminance: Plane) -> float:
    window = np.ones((1, WINDOW), np.uint8)
    streaks = luminance - cv2.morphologyEx(luminance, cv2.MORPH_OPEN, window, borderType=cv2.BORDER_REFLECT)
    across = _gradient(streaks, 1, 0)
    upright = _upright(across, _gradient(streaks, 0, 1))
    return float(np.sum(across[upright].astype(np.float64) ** 2))
