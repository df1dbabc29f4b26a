"""Coarse filters that look at the photograph first: how its rain falls, and which filter suits it.

Both look at the whole image, so their labels are made once and kept (`CoarseFilter.whole_image`). Neither minds the
order of the colours much: brightness is their mean.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from .coarse import CoarseFilter, Depth
from .lines import across, along, opened

Plane = NDArray[np.float32]

WIDEST = 15
"""Of what counts as a streak, in pixels, measured across the image."""
LENGTH = 21
"""A streak lasts at least so many rows; textures that are as narrow seldom do."""
SLANT = 45
"""How far from upright rain falls, in degrees."""
COHERENCE = 0.7
"""How far gradients of a neighbourhood must agree on a direction to have a say in that of the rain (0 to 1)."""


class Streaks(NamedTuple):
    """How the rain of a photograph falls."""

    slant: float
    """Degrees from upright; above 0, streaks run from the upper right to the lower left."""
    width: int
    """Pixels from side to side, odd: as wide as nearly all streaks, or wider."""


def find_streaks(image: NDArray[Depth], share: float = 0.5) -> Streaks:
    """How the rain of a photograph falls, by what is bright, narrow and long in it.

    The direction is the most frequent one of gradients, by the structure tensor (Gaussian, sigma 2), of what a
    horizontal opening takes out, weighted by their strength. The width is the least whose opening takes out ``share``
    of what of that lasts along this direction.

    Args:
        image: (H, W, 3), uint8 or uint16.
        share: 0 to 1. Rain layers of Rain100L are 5 to 9 wide; of their photographs, whose textures count too, 0.5
            gives 5 to 7, and 0.8 up to 13.

    Returns:
        Upright streaks of 3 pixels if there is nothing bright, narrow and long.
    """
    plane = _brightness(image)
    narrow = _narrow(plane)
    slant = _direction(narrow)
    streaks = _lasting(narrow, slant)
    total = float(streaks.mean())
    if total < 1e-6:
        return Streaks(slant, 3)
    for width in range(3, WIDEST, 2):
        if total - float(opened(streaks, across(slant, width)).mean()) >= share * total:
            return Streaks(slant, width)
    return Streaks(slant, WIDEST)


def _brightness(image: NDArray[Depth]) -> Plane:
    return image.mean(axis=2, dtype=np.float32) / np.float32(np.iinfo(image.dtype).max)


def _narrow(plane: Plane) -> Plane:
    """What is bright and less than `WIDEST` wide."""
    return np.asarray(plane - opened(plane, np.ones((1, WIDEST), np.uint8)), np.float32)


def _lasting(narrow: Plane, slant: float) -> Plane:
    """The part of it that lasts along the fall of the rain, a column to either side included."""
    widened = cv2.dilate(narrow, np.ones((1, 3), np.uint8), borderType=cv2.BORDER_REFLECT)
    return np.minimum(narrow, opened(widened, along(slant, LENGTH)))


def _direction(narrow: Plane) -> float:
    def gradient(right: int, down: int) -> Plane:
        return np.asarray(cv2.Sobel(narrow, cv2.CV_32F, right, down, borderType=cv2.BORDER_REFLECT), np.float32)

    def mean(values: Plane) -> Plane:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), 2.0, borderType=cv2.BORDER_REFLECT), np.float32)

    right, down = gradient(1, 0), gradient(0, 1)
    horizontal, vertical, mixed = mean(right * right), mean(down * down), mean(right * down)
    length = np.hypot(horizontal - vertical, 2 * mixed)
    # Twice the angle: a gradient and its opposite are one direction.
    slants = np.degrees(np.arctan2(2 * mixed, horizontal - vertical) / 2)
    agree = (length > 1e-8) & (length >= COHERENCE * (horizontal + vertical)) & (np.abs(slants) <= SLANT)
    if not agree.any():
        return 0.0
    # By strength, not its square: a few hard edges of the scene would outvote all rain.
    counts, _ = np.histogram(slants[agree], 2 * SLANT + 1, (-SLANT - 0.5, SLANT + 0.5), weights=np.sqrt(length[agree]))
    smooth = cv2.GaussianBlur(counts.astype(np.float32)[None], (0, 0), 2.0, borderType=cv2.BORDER_CONSTANT)
    return float(np.argmax(smooth) - SLANT)


@dataclass(frozen=True)
class AdaptiveFilter(CoarseFilter):
    """Opening by a line across the photograph's own streaks, as wide as they are (`find_streaks`).

    Args:
        shortest, longest: Bounds of the line, in columns, odd.
        share: Of the streaks' light that the line should take out, 0 to 1.
        wider: Columns that the line has more than the streaks, even.
    """

    name: ClassVar[str] = "adaptive"
    whole_image: ClassVar[bool] = True

    shortest: int = 3
    longest: int = 15
    share: float = 0.5
    wider: int = 0

    def __post_init__(self) -> None:
        if self.shortest < 1 or self.longest < self.shortest or self.shortest % 2 == 0 or self.longest % 2 == 0:
            raise ValueError(
                f"shortest and longest must be odd, 1 <= shortest <= longest, got {self.shortest} and {self.longest}"
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")
        if self.wider < 0 or self.wider % 2:
            raise ValueError(f"wider must be even and not negative, got {self.wider}")

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        streaks = find_streaks(image, self.share)
        width = min(max(streaks.width + self.wider, self.shortest), self.longest)
        return opened(image, across(streaks.slant, width))


def label_cost(rainy: NDArray[Depth], label: NDArray[Depth], slant: float, lost_weight: float) -> float:
    """How bad a soft label is, without a clean image: rain left in it, and what it lost besides rain.

    The mean of what is bright, narrow and lasting (see `find_streaks`) in the label, plus ``lost_weight`` times the
    mean of what the label changed and is not, both of brightness in [0, 1]. The rainy image itself pays for all its
    rain, a blur for all it lost.

    Args:
        rainy: (H, W, 3), uint8 or uint16.
        label: Of the same shape and type.
        slant: Of the rain, in degrees (`Streaks`).
        lost_weight: 0 asks for nothing but the rain.
    """
    before, after = _brightness(rainy), _brightness(label)
    left = float(_lasting(_narrow(after), slant).mean())
    change = before - after
    lost = float(np.abs(change).mean()) - float(_lasting(np.maximum(change, 0), slant).mean())
    return left + lost_weight * lost


_SCALES = 3
_LEFT_WEIGHT = 0.25
"""Chosen on Rain100L's validation pairs and heavy ones (docs/benchmarks.md): by edges alone, who takes next to nothing
of heavy rain is thought good."""


def separation_cost(rainy: NDArray[Depth], label: NDArray[Depth]) -> float:
    """How badly a soft label of any origin parts rain from scene, without a clean image.

    `exclusion`, plus a quarter of the share of narrow bright light (less than `WIDEST` wide) that the label has left.
    It asks nothing of direction and length of streaks. Costs compare labels of one photograph.

    Args:
        rainy: (H, W, 3), uint8 or uint16.
        label: Of the same shape and type.
    """
    before, after = (float(_narrow(_brightness(image)).mean()) for image in (rainy, label))
    return exclusion(rainy, label) + (_LEFT_WEIGHT * after / before if before > 0 else 0.0)


def exclusion(rainy: NDArray[Depth], label: NDArray[Depth]) -> float:
    """How bad a soft label is, without a clean image: how far what it took out and what it left have edges in common.

    Rain and the scene behind it know nothing of each other. Where a label has left part of a streak, or taken part of
    the scene, both have edges there. It is the absolute correlation of the magnitudes of both gradients (Sobel, of
    brightness), the mean over three scales, each half of the one before. (The idea is that of the exclusion loss of X.
    Zhang, R. Ng, Q. Chen, Single Image Reflection Separation with Perceptual Losses, CVPR 2018.)

    Args:
        rainy: (H, W, 3), uint8 or uint16.
        label: Of the same shape and type.

    Returns:
        From 0, nothing in common, to 1, which a label has that took out nothing or left nothing.
    """
    after = _brightness(label)
    taken = _brightness(rainy) - after
    found = []
    for _ in range(_SCALES):
        found.append(abs(_correlation(_steepness(taken), _steepness(after))))
        size = max(1, after.shape[1] // 2), max(1, after.shape[0] // 2)
        taken, after = _resized(taken, size), _resized(after, size)
    return float(np.mean(found))


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _steepness(plane: Plane) -> Plane:
    right, down = (cv2.Sobel(plane, cv2.CV_32F, *axis, borderType=cv2.BORDER_REFLECT) for axis in ((1, 0), (0, 1)))
    return np.hypot(right, down)


def _correlation(one: Plane, other: Plane) -> float:
    """Pearson's; 1 where one of the two is the same everywhere."""
    spreads = float(one.std(dtype=np.float64)), float(other.std(dtype=np.float64))
    if min(spreads) < 1e-9:
        return 1.0
    both = np.mean((one - one.mean(dtype=np.float64)) * (other - other.mean(dtype=np.float64)))
    return float(both) / (spreads[0] * spreads[1])


Measure = Literal["cost", "separation"]


@dataclass(frozen=True)
class BestFilter(CoarseFilter):
    """For each photograph the label of several filters that is best.

    Args:
        filters: At least one.
        lost_weight: What lost texture costs, against the same amount of rain that is left.
        measure: ``cost``: by `label_cost`, which is for filters of bright narrow things, and takes a network's labels
            for worse than they are; ``separation``: by `separation_cost`, for labels of any origin.
    """

    name: ClassVar[str] = "best_of"
    whole_image: ClassVar[bool] = True

    filters: tuple[CoarseFilter, ...]
    lost_weight: float = 1.0
    measure: Measure = "cost"

    def __post_init__(self) -> None:
        if not self.filters:
            raise ValueError("best_of needs filters: a list of at least one filter")
        if self.lost_weight < 0:
            raise ValueError(f"lost_weight must not be negative, got {self.lost_weight}")
        if self.measure not in get_args(Measure):
            raise ValueError(f"measure must be {' or '.join(get_args(Measure))}, got {self.measure!r}")

    @property
    def key(self) -> str:
        # Of any number of filters, and still the name of a folder.
        theirs = hashlib.blake2b(" ".join(each.key for each in self.filters).encode(), digest_size=8).hexdigest()
        measure = f"{self.lost_weight:g}" if self.measure == "cost" else self.measure
        return f"{self.name}-{theirs}-{measure}-{self.code}"

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        labels = [each(image) for each in self.filters]
        if self.measure == "separation":
            return min(labels, key=lambda label: separation_cost(image, label))
        slant = find_streaks(image).slant
        return min(labels, key=lambda label: label_cost(image, label, slant, self.lost_weight))
