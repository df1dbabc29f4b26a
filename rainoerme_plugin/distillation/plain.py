"""Rain from plain places: where a photograph's background is smooth, what is not smooth there is rain, nearly whole.

No clean version is needed for that. Sky, walls, water and what is out of focus are plain; elsewhere the rain cannot be
told from texture, and is not taken. The steps, each a function:

1. `separate` finds the background, as a mean of what is not rain, and the rain before it.
2. `judge` tells of each square of the photograph how much speaks for rain, and for nothing but rain.
3. `find_patches` takes the squares for which enough does.
4. `plainest` leaves those of a whole set whose background is plain for rain as strong as the set's.

Streaks are two pixels wide in one photograph and forty in another. So squares are looked for in a version of the
photograph, as much smaller as `PlainPlaces.scale` says. `ZOOMS` are worth a trial on a set of photographs, and the one
by which plain places cover most is right: in a larger version streaks are too wide to be told from the background, in
a smaller one too narrow to be seen. The rain itself is that of full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..provenance import code_of
from .coarse import Depth

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

    rain: NDArray[np.uint8]
    """(S, S), 0 to 255: what is added to each colour of a clean image, of full size."""
    top: int
    """Its first row in the photograph."""
    left: int
    """Its first column."""
    energy: float
    """The mean of the rain, 0 to 1."""
    evidence: float
    """How much speaks for rain, and for nothing but rain (`judge`)."""
    roughness: float
    """What of the place is neither rain nor a smooth background, as a mean over the square, 0 to 1 (`judge`)."""


@dataclass(frozen=True)
class PlainPlaces:
    """Where rain is looked for, and what counts as plain.

    The defaults hold from Rain100L's thin streaks to Rain200H's curtains: docs/method.md has what was measured.

    Args:
        window: Side of the openings from which the search for the background begins, in pixels, odd.
        sigma: Of the Gaussian mean that the background is, in pixels.
        tolerance: Up to so much over the background (0 to 1), in the colour that is nearest to it, a pixel is bare.
        patch: Side of the squares, in pixels.
        longest: Longer side of the version of a photograph that is looked at, in pixels; all sizes are those of it.
        evidence: What must speak for a square at least (`judge`): more finds fewer places, and surer ones.
        roughness: How rough a place may be, in terms of how strong the set's rain is (`plainest`).
        lean: How far from upright its streaks may be, in degrees; 90 takes rain of every direction.
        most: Squares of one photograph at most.
    """

    name: ClassVar[str] = "plain"

    window: int = 13
    sigma: float = 8.0
    tolerance: float = 0.02
    patch: int = 64
    longest: int = 900
    evidence: float = 1.45
    roughness: float = 0.3
    lean: float = 60.0
    most: int = 60

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window must be odd and at least 3, got {self.window}")
        if not 0 < self.sigma <= _WIDEST or not 0 < self.tolerance < 1:
            ranges = f"sigma must be above 0 and up to {_WIDEST:g}, tolerance between 0 and 1"
            raise ValueError(f"{ranges}, got {self.sigma:g} and {self.tolerance:g}")
        if self.patch < 16 or self.longest < self.patch:
            raise ValueError(f"patch must be at least 16 and at most longest, got {self.patch} and {self.longest}")
        if self.roughness <= 0:
            raise ValueError(f"roughness must be above 0, got {self.roughness:g}")
        if not 0 <= self.evidence <= _MOST_EVIDENCE:
            raise ValueError(f"evidence must be from 0 to {_MOST_EVIDENCE:g}, got {self.evidence:g}")
        if not 0 < self.lean <= 90 or self.most < 1:
            raise ValueError(f"lean must be above 0 and up to 90, most at least 1, got {self.lean:g} and {self.most}")

    @property
    def key(self) -> str:
        """A short text that names the settings and the code; part of the key of what is kept."""
        return "-".join((self.name, *(f"{value:g}" for value in astuple(self)), code_of(__name__)))

    def scale(self, height: int, width: int, zoom: float = 1.0) -> float:
        """How many times smaller the version of a photograph is that is looked at.

        Args:
            height, width: Of the photograph, in pixels.
            zoom: So many times smaller than `longest` says: for photographs whose streaks are so many times wider.
        """
        scale = zoom * max(height, width) / self.longest
        return scale if scale > _WORTH_A_VERSION else 1.0


ZOOMS = (1.0, 2.0, 0.5, 4.0, 8.0)
"""Crops of large photographs have wide streaks, photographs that were taken from far away narrow ones. A version of
more than twice ``longest`` would take minutes, and show noise."""
_WORTH_A_VERSION = 1.4
"""A photograph that is larger by less than that is looked at as it is."""
_WIDEST = 64.0
"""Sigma at most: a wider mean is no background any more, and takes its time."""
_MOST_EVIDENCE = 1.8
"""Of a square there cannot be more (`judge`)."""
_ROUNDS = 3
"""Of the background: each finds better what is bare, and by that a better background."""
_CLIPPED = 0.98
"""Above this a sensor may have cut off what rain added (0 to 1)."""
_MOST_CLIPPED = 0.02
"""Share of such pixels in a square at most."""
_LEAST_ENERGY = 0.006
"""Mean of the rain in a square at least: noise has half of that."""
_DARKEST = 0.2
"""What lies below the background in a square at most, in terms of the rain above it: an edge has as much of both."""
_BORDER = 0.11
"""Share of what is wide in the energy, times the share of what is bare, at most: rain has up to 0.10, borders more."""
_COLOUR = 0.008
"""A photograph has colour, if its brightest colour is so much above its darkest in the mean: two levels."""
_MOST = 50.0
"""Times that energy may be chroma or blobs, to count: the rest is rounding."""
_USUAL = 16.0
"""Times that the energy of rain is its chroma."""
_LARGEST = 256
"""Side of a square at most, in pixels of the photograph: more than a training crop shows is of no use."""


def separate(image: NDArray[Depth], places: PlainPlaces) -> Separated:
    """Take a photograph apart into a smooth background and the rain before it.

    Bare pixels are first those that an opening leaves nearly as they are: rain is narrow in one direction at least. The
    background is their Gaussian mean; what is little brighter than that is bare; and so on, three times.

    Args:
        image: (H, W, 3), uint8 or uint16; a version that is looked at.
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


class Judged(NamedTuple):
    """The squares of a photograph, (rows, columns) of them, one at every quarter of a square."""

    energy: NDArray[np.float64]
    """The mean of the rain, 0 to 1."""
    evidence: NDArray[np.float64]
    """How much speaks for rain, and for nothing but rain; minus infinity where something speaks against it."""
    roughness: NDArray[np.float64]
    """What is neither rain nor a smooth background, 0 to 1."""
    step: int
    """Pixels from one to the next."""


def judge(image: NDArray[Depth], apart: Separated, places: PlainPlaces) -> Judged:
    """Tell of each square how much speaks for rain, and for nothing but rain.

    Rain falls one way, has no colour, and is narrow. So the evidence is the sum of three terms:

    - the coherence of the structure tensor of the rain found, 0 (every direction) to 1 (one);
    - a seventh of log(energy / chroma): how much there is for what differs between the colours (in a photograph without
      colour that says nothing, and counts as in most others);
    - a fourteenth of log(energy / blobs): ... for what of it is as wide as high.

    No square holds rain where the rain's mean is that of noise, where it falls flat, where the background is brighter
    than what lies before it, where what is found is wide though most of the square is bare (the border of something
    bright; before a curtain of heavy rain little is bare), or where pixels are clipped.

    Its roughness is what is neither rain nor a smooth background: the mean distance of bare pixels from the background,
    the chroma and the blobs together.

    Args:
        image: (H, W, 3), uint8 or uint16.
        apart: The image taken apart.
        places: The settings.
    """
    values = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    over = values - apart.background
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (places.window, places.window))
    across, down = (
        cv2.Sobel(apart.rain, cv2.CV_32F, *order, borderType=cv2.BORDER_REFLECT) for order in ((1, 0), (0, 1))
    )
    step = places.patch // 4

    def mean(plane: NDArray[Any]) -> NDArray[np.float64]:
        return _box_means(plane, places.patch, step)

    energy = mean(apart.rain)
    chroma = mean(np.abs(over - over.mean(axis=2, keepdims=True)).mean(axis=2))
    blobs = mean(cv2.morphologyEx(apart.rain, cv2.MORPH_OPEN, disc))
    xx, yy, xy = mean(across * across), mean(down * down), mean(across * down)
    coherence = np.hypot(xx - yy, 2 * xy) / np.maximum(xx + yy, 1e-12)
    lean = np.abs(np.degrees(np.arctan2(2 * xy, xx - yy))) / 2
    darker = mean(np.maximum(-over.mean(axis=2), 0))
    clipped = mean((values.max(axis=2) > _CLIPPED).astype(np.float32))
    has_colour = np.ptp(values, axis=2).mean() > _COLOUR
    evidence = coherence + _times(energy, chroma, _MOST if has_colour else _USUAL) / 7 + _times(energy, blobs) / 14
    against = (energy < _LEAST_ENERGY) | (lean > places.lean) | (clipped > _MOST_CLIPPED)
    bare = apart.bare.astype(np.float32)
    against |= (darker > _DARKEST * energy) | (blobs * mean(bare) > _BORDER * energy)
    uneven = mean(np.abs(over).mean(axis=2) * bare) / np.maximum(mean(bare), 1e-3)
    return Judged(energy, np.where(against, -np.inf, evidence), uneven + chroma + blobs, step)


def _times(energy: NDArray[np.float64], other: NDArray[np.float64], most: float = _MOST) -> NDArray[np.float64]:
    """The logarithm of how many times ``other`` the energy is, ``most`` times at most."""
    return np.asarray(np.log(energy.clip(min=1e-9) / np.maximum(other, energy.clip(min=1e-9) / most)))


def find_patches(image: NDArray[Depth], places: PlainPlaces, zoom: float = 1.0) -> list[Patch]:
    """The squares of a photograph that hold rain before a plain background, those with the most evidence first.

    They overlap by a quarter at most.

    Args:
        image: (H, W, 3), uint8 or uint16.
        places: The settings.
        zoom: As of `PlainPlaces.scale`.

    Returns:
        At most ``places.most``; none of a photograph that is smaller than a square.
    """
    height, width = image.shape[:2]
    scale = places.scale(height, width, zoom)
    version: NDArray[Any] = image
    if scale > 1:
        version = cv2.resize(image, (round(width / scale), round(height / scale)), interpolation=cv2.INTER_AREA)
    if min(version.shape[:2]) < places.patch:
        return []
    apart = separate(version, places)
    judged = judge(version, apart, places)
    taken: list[tuple[int, int]] = []
    is_free = judged.evidence >= places.evidence
    for place in np.argsort(-judged.evidence, axis=None, kind="stable"):
        row, column = divmod(int(place), judged.evidence.shape[1])
        if is_free[row, column] and len(taken) < places.most:
            taken.append((row, column))
            is_free[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = False
    if not taken:
        return []
    rain = _of_full_size(image, apart.background.mean(axis=2), scale)
    side = min(round(places.patch * scale), height, width)
    kept = min(side, _LARGEST)
    patches = []
    for found in taken:
        corners = (round(at * judged.step * scale) for at in found)
        top, left = (
            min(at, size - side) + (side - kept) // 2 for at, size in zip(corners, (height, width), strict=True)
        )
        square = np.rint(rain[top : top + kept, left : left + kept] * 255).astype(np.uint8)
        measures = (float(plane[found]) for plane in (judged.energy, judged.evidence, judged.roughness))
        patches.append(Patch(square, top, left, *measures))
    return patches


def plainest(found: Sequence[Sequence[Patch]], places: PlainPlaces) -> list[list[Patch]]:
    """Those squares of a set of photographs that are plain enough, photograph by photograph.

    Of a curtain more can be told from the same wall than of a drizzle. So the limit is `PlainPlaces.roughness` times
    the energy of the set's rain: the median of all squares.

    Args:
        found: The squares of each photograph (`find_patches`).
        places: The settings.
    """
    energies = [patch.energy for patches in found for patch in patches]
    limit = places.roughness * float(np.median(energies)) if energies else 0.0
    return [[patch for patch in patches if patch.roughness <= limit] for patches in found]


def _of_full_size(image: NDArray[Depth], background: Plane, scale: float) -> Plane:
    """The rain of a photograph before the background that a version of it has, without what is finer than that."""
    grey = image.mean(axis=2, dtype=np.float32) / np.float32(np.iinfo(image.dtype).max)
    if scale > 1:  # what is finer is noise, mostly
        grey = cv2.GaussianBlur(grey, (0, 0), (scale - 1) / 2, borderType=cv2.BORDER_REFLECT)
    return np.maximum(grey - cv2.resize(background, grey.shape[::-1], interpolation=cv2.INTER_LINEAR), 0)


def _box_means(plane: NDArray[Any], side: int, step: int) -> NDArray[np.float64]:
    """The means over all squares of this side that begin at multiples of ``step``."""
    sums = cv2.integral(plane.astype(np.float64))
    rows, columns = (np.arange(0, size - side + 1, step) for size in plane.shape)
    corners = [sums[np.ix_(rows + down, columns + right)] for down in (0, side) for right in (0, side)]
    return np.asarray((corners[3] - corners[2] - corners[1] + corners[0]) / side**2)
