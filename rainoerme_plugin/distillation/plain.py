"""Rain from plain places: where a photograph's background is smooth, what is not smooth there is rain, nearly whole.

No clean version is needed for that. Sky, walls, water and what is out of focus are plain; elsewhere the rain cannot be
told from texture, and is not taken. The steps, each a function:

1. `separate` finds the background, as a mean of what is not rain, and the rain before it.
2. `find_patches` looks for the squares in which that can be believed.
3. `choose` keeps the plainest of a whole set, which tell how plain is plain enough.

Rain is as wide in a photograph as the photograph is large, so places are looked for in a version of at most
`PlainPlaces.longest` pixels a side; the rain itself is that of full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .coarse import Depth

VERSION = 1
"""Raised when the same settings find other rain, so that what is kept is found anew."""

Plane = NDArray[np.float32]
"""(H, W), 0 to 1."""


class Separated(NamedTuple):
    """A photograph, taken apart."""

    background: NDArray[np.float32]
    """(H, W, 3), 0 to 1: what would be there without rain, if it is smooth."""
    rain: Plane
    """(H, W): what is brighter than the background, the mean of the colours."""
    bare: NDArray[np.bool_]
    """(H, W): where there is no rain before the background."""


class Patch(NamedTuple):
    """A square of rain from a plain place."""

    rain: NDArray[np.uint16]
    """(S, S), 0 to 65,535: what is added to each colour of a clean image, of full size."""
    top: int
    """Its first row in the photograph."""
    left: int
    """Its first column."""
    roughness: float
    """How far the place is from a plain one: what cannot be rain, as a mean over the square, 0 to 1."""
    energy: float
    """The mean of the rain, 0 to 1."""


@dataclass(frozen=True)
class PlainPlaces:
    """Where rain is looked for, and what counts as plain.

    The defaults hold from Rain100L's thin streaks to Rain200H's curtains: docs/method.md has what was measured.

    Args:
        window: Side of the openings from which the search for the background begins, in pixels, odd.
        sigma: Of the Gaussian mean that the background is, in pixels.
        tolerance: Up to so much over the background (0 to 1), in the colour that is nearest to it, a pixel is bare.
        patch: Side of the squares, in pixels.
        longest: Photographs with a longer side are looked at in a version of that; sizes are those of it.
        coherence: How far a square's gradients must agree on a direction, 0 to 1: rain falls one way.
        lean: How far from upright its streaks may be, in degrees; 90 takes rain of every direction.
        most: Squares of one photograph at most.
    """

    name: ClassVar[str] = "plain"

    window: int = 13
    sigma: float = 8.0
    tolerance: float = 0.02
    patch: int = 64
    longest: int = 900
    coherence: float = 0.3
    lean: float = 60.0
    most: int = 60

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window must be odd and at least 3, got {self.window}")
        if self.sigma <= 0 or not 0 < self.tolerance < 1:
            raise ValueError(f"sigma must be above 0 and tolerance between 0 and 1, got {self.sigma}, {self.tolerance}")
        if self.patch < 16 or self.longest < self.patch:
            raise ValueError(f"patch must be at least 16 and at most longest, got {self.patch} and {self.longest}")
        if not 0 <= self.coherence < 1 or not 0 < self.lean <= 90 or self.most < 1:
            raise ValueError("coherence must be from 0 to below 1, lean above 0 and up to 90, most at least 1")

    @property
    def key(self) -> str:
        """A short text that names the settings; part of the key of what is kept."""
        return "-".join((self.name, *(f"{value:g}" for value in astuple(self)), f"v{VERSION}"))

    def scale(self, height: int, width: int) -> float:
        """How many times larger a photograph is than what is looked at, at least 1."""
        return max(1.0, max(height, width) / self.longest)


_ROUNDS = 3
"""Of the background: each finds better what is bare, and by that a better background."""
_CLIPPED = 0.98
"""Above this a sensor may have cut off what rain added (0 to 1)."""
_MOST_CLIPPED = 0.02
"""Share of such pixels in a square at most."""
_LEAST_ENERGY = 0.006
"""Mean of the rain in a square at least: noise has half of that."""
_REFERENCE = 0.1
"""Share of all squares, the plainest, by which `choose` knows how strong the set's rain is."""


def separate(image: NDArray[Depth], places: PlainPlaces) -> Separated:
    """Take a photograph apart into a smooth background and the rain before it.

    Bare pixels are first those that an opening leaves nearly as they are: rain is narrow in one direction at least. The
    background is their Gaussian mean; what is little brighter than that is bare; and so on, three times.

    Args:
        image: (H, W, 3), uint8 or uint16; no larger than what is looked at (`PlainPlaces.longest`).
        places: The settings.
    """
    values = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    windows = np.ones((1, places.window), np.uint8), np.ones((places.window, 1), np.uint8)
    background = np.minimum(*(cv2.morphologyEx(values, cv2.MORPH_OPEN, window) for window in windows))
    bare = np.ones(image.shape[:2], np.bool_)
    for _ in range(_ROUNDS):
        bare = (values - background).min(axis=2) < places.tolerance
        background = _mean_of(values, bare, places.sigma)
    rain = np.maximum((values - background).mean(axis=2), 0)
    return Separated(background, rain, bare)


def _mean_of(values: NDArray[np.float32], where: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """The Gaussian mean of those of ``values`` that are ``where``; of the nearest ones, where none is near."""
    weights = where.astype(np.float32)
    total = cv2.GaussianBlur(values * weights[..., None], (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    weight = cv2.GaussianBlur(weights, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(total / np.maximum(weight, 1e-4)[..., None], np.float32)


def find_patches(image: NDArray[Depth], places: PlainPlaces) -> list[Patch]:
    """The squares of a photograph whose rain can be believed, the plainest first; they overlap by a quarter at most.

    A square holds rain that falls one way, next to nothing in it is clipped, and `choose` decides by its roughness: the
    mean distance of bare pixels from the background, the mean difference between colours of what is no background, and
    what of the rain is as wide as high. None of these is rain, which is grey, narrow, and leaves the background smooth.

    Args:
        image: (H, W, 3), uint8 or uint16.
        places: The settings.

    Returns:
        At most ``places.most``; none of a photograph that is smaller than a square.
    """
    height, width = image.shape[:2]
    scale = places.scale(height, width)
    small = image
    if scale > 1:
        small = cv2.resize(image, (round(width / scale), round(height / scale)), interpolation=cv2.INTER_AREA)
    if min(small.shape[:2]) < places.patch:
        return []
    apart = separate(small, places)
    roughness, energy, fits = _judged(small, apart, places)
    grey = image.mean(axis=2, dtype=np.float32) / np.float32(np.iinfo(image.dtype).max)
    smooth = cv2.resize(apart.background.mean(axis=2), (width, height), interpolation=cv2.INTER_LINEAR)
    rain = np.maximum(grey - smooth, 0)
    side, step = min(round(places.patch * scale), height, width), _step(places)
    patches: list[Patch] = []
    taken: list[tuple[int, int]] = []
    candidates = np.argwhere(fits)
    for row, column in candidates[np.argsort(roughness[fits], kind="stable")].tolist():
        if len(patches) == places.most:
            break
        if any(abs(row - other) < 3 and abs(column - beside) < 3 for other, beside in taken):
            continue
        taken.append((row, column))
        top, left = min(round(row * step * scale), height - side), min(round(column * step * scale), width - side)
        square = np.rint(rain[top : top + side, left : left + side] * 65535).astype(np.uint16)
        patches.append(Patch(square, top, left, float(roughness[row, column]), float(energy[row, column])))
    return patches


def _step(places: PlainPlaces) -> int:
    return places.patch // 4


def _judged(
    image: NDArray[Depth], apart: Separated, places: PlainPlaces
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Roughness and energy of the squares that begin at every quarter of a square, and whether they hold rain at all."""
    values = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    over = values - apart.background
    grey = over.mean(axis=2)
    bare = apart.bare.astype(np.float32)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (places.window, places.window))
    round_rain = cv2.morphologyEx(apart.rain, cv2.MORPH_OPEN, disc)
    across, down = (
        cv2.Sobel(apart.rain, cv2.CV_32F, *order, borderType=cv2.BORDER_REFLECT) for order in ((1, 0), (0, 1))
    )

    def mean(plane: NDArray[np.floating]) -> NDArray[np.float64]:
        return _box_means(plane, places.patch, _step(places))

    energy = mean(apart.rain)
    uneven = mean(np.abs(over).mean(axis=2) * bare) / np.maximum(mean(bare), 1e-3)
    coloured = mean(np.abs(over - grey[..., None]).mean(axis=2))
    xx, yy, xy = mean(across * across), mean(down * down), mean(across * down)
    coherent = np.hypot(xx - yy, 2 * xy) >= places.coherence * (xx + yy)
    lean = np.abs(np.degrees(np.arctan2(2 * xy, xx - yy))) / 2
    clipped = mean((values.max(axis=2) > _CLIPPED).astype(np.float32))
    fits = (energy >= _LEAST_ENERGY) & coherent & (lean <= places.lean) & (clipped <= _MOST_CLIPPED)
    return uneven + coloured + mean(round_rain), energy, fits


def _box_means(plane: NDArray[np.floating], side: int, step: int) -> NDArray[np.float64]:
    """The means over all squares of this side that begin at multiples of ``step``."""
    sums = cv2.integral(plane.astype(np.float64))
    rows, columns = (np.arange(0, size - side + 1, step) for size in plane.shape)
    corners = [sums[np.ix_(rows + down, columns + right)] for down in (0, side) for right in (0, side)]
    return np.asarray((corners[3] - corners[2] - corners[1] + corners[0]) / side**2)


def choose(found: Sequence[Sequence[Patch]], strictness: float = 0.4) -> list[list[Patch]]:
    """The plain ones of the squares of a whole set, photograph by photograph.

    How plain is plain enough depends on how strong the rain is: of a curtain more can be told from the same wall. The
    limit of roughness is ``strictness`` times the energy of rain in the plainest tenth of all squares, its median.

    Args:
        found: The squares of each photograph (`find_patches`).
        strictness: Less takes fewer and plainer ones.
    """
    every = sorted((patch for patches in found for patch in patches), key=lambda patch: patch.roughness)
    if not every:
        return [[] for _ in found]
    plainest = every[: max(1, round(_REFERENCE * len(every)))]
    limit = strictness * float(np.median([patch.energy for patch in plainest]))
    return [[patch for patch in patches if patch.roughness <= limit] for patches in found]
