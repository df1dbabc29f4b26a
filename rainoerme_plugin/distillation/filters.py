"""Coarse filters: what turns a rainy photograph into its soft label.

A soft label must be free of rain; that it is blurred matters less, for the clean images teach the detail. No filter
minds the order of the colours (RGB or BGR), and all continue the image over its border by reflection.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8, 0-255."""


@dataclass(frozen=True)
class CoarseFilter:
    """A filter from a rainy image to its soft label; the subclasses hold their arguments."""

    version: ClassVar[int] = 1
    """Raised when the same arguments give other values, so that cached labels are made anew."""

    def __call__(self, image: Image) -> Image:
        """The soft label of ``image``, both (H, W, 3) uint8 of one size."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """A short text that names the filter with its arguments and version; part of a label's cache key."""
        arguments = "-".join(_text(value) for value in asdict(self).values())
        return f"{FILTER_NAMES[type(self)]}-{arguments}-v{self.version}"


def _text(value: Any) -> str:
    return "x".join(map(_text, value)) if isinstance(value, (tuple, list)) else f"{value:g}"


def _check_window(window: tuple[int, int]) -> None:
    if len(window) != 2 or any(not isinstance(side, int) or side < 1 or side % 2 == 0 for side in window):
        raise ValueError(f"window must be two odd numbers [height, width], got {list(window)}")


@dataclass(frozen=True)
class RankFilter(CoarseFilter):
    """The ``percent`` percentile of a window, per channel.

    Streaks are brighter than what they cover, so a low percentile in a window wider than a streak leaves them out;
    a horizontal window follows from rain that falls. The rank is that of `scipy.ndimage.percentile_filter`.
    """

    window: tuple[int, int] = (1, 7)
    percent: float = 35.0

    def __post_init__(self) -> None:
        _check_window(self.window)
        if not 0 <= self.percent <= 100:
            raise ValueError(f"percent must be from 0 to 100, got {self.percent}")

    def __call__(self, image: Image) -> Image:
        return ndimage.percentile_filter(image, self.percent, size=(*self.window, 1))


@dataclass(frozen=True)
class MedianFilter(CoarseFilter):
    """The median of a window, per channel."""

    window: tuple[int, int] = (5, 5)

    def __post_init__(self) -> None:
        _check_window(self.window)

    def __call__(self, image: Image) -> Image:
        return ndimage.median_filter(image, size=(*self.window, 1))


@dataclass(frozen=True)
class OpeningFilter(CoarseFilter):
    """Morphological opening: removes what is bright and narrower than the window, and keeps wider shapes sharp."""

    window: tuple[int, int] = (1, 9)

    def __post_init__(self) -> None:
        _check_window(self.window)

    def __call__(self, image: Image) -> Image:
        kernel = np.ones(self.window, np.uint8)
        return cv2.dilate(
            cv2.erode(image, kernel, borderType=cv2.BORDER_REFLECT), kernel, borderType=cv2.BORDER_REFLECT
        ).astype(np.uint8, copy=False)


@dataclass(frozen=True)
class GuidedFilter(CoarseFilter):
    """The guided filter (He et al., PAMI 35, 2013) with the image as its own guide, per channel.

    Args:
        radius: Of the square window, in pixels.
        eps: What counts as an edge, as a variance of values in [0, 1]: flatter places are smoothed.
    """

    radius: int = 8
    eps: float = 0.01

    def __post_init__(self) -> None:
        if self.radius < 1 or self.eps <= 0:
            raise ValueError(f"radius must be at least 1 and eps above 0, got {self.radius} and {self.eps}")

    def __call__(self, image: Image) -> Image:
        side = (2 * self.radius + 1, 2 * self.radius + 1)

        def box(values: NDArray[np.floating]) -> NDArray[np.float32]:
            return np.asarray(cv2.blur(values, side, borderType=cv2.BORDER_REFLECT), dtype=np.float32)

        guide = image.astype(np.float32) / 255
        mean = box(guide)
        variance = box(guide * guide) - mean * mean
        slope = variance / (variance + np.float32(self.eps))
        smooth = box(slope) * guide + box(mean * (1 - slope))
        return np.clip(np.rint(smooth * 255), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class BilateralFilter(CoarseFilter):
    """OpenCV's bilateral filter: ``sigma_color`` in grey levels (0-255), ``sigma_space`` in pixels."""

    diameter: int = 9
    sigma_color: float = 75.0
    sigma_space: float = 5.0

    def __post_init__(self) -> None:
        if self.diameter < 1 or self.sigma_color <= 0 or self.sigma_space <= 0:
            raise ValueError("diameter, sigma_color and sigma_space of the bilateral filter must be positive")

    def __call__(self, image: Image) -> Image:
        smooth = cv2.bilateralFilter(
            image, self.diameter, self.sigma_color, self.sigma_space, borderType=cv2.BORDER_REFLECT
        )
        return smooth.astype(np.uint8, copy=False)


FILTERS: dict[str, type[CoarseFilter]] = {
    "rank": RankFilter,
    "opening": OpeningFilter,
    "median": MedianFilter,
    "guided": GuidedFilter,
    "bilateral": BilateralFilter,
}
FILTER_NAMES = {filter_class: name for name, filter_class in FILTERS.items()}


def build_filter(type: str, **arguments: Any) -> CoarseFilter:
    """The filter of this name in `FILTERS`, with its arguments; lists become tuples.

    Raises:
        ValueError: No such filter, an argument it does not have, or a value it does not take.
    """
    if type not in FILTERS:
        raise ValueError(f"no coarse filter is called '{type}'; there are {', '.join(FILTERS)}")
    names = [field.name for field in fields(FILTERS[type])]
    unknown = sorted(set(arguments) - set(names))
    if unknown:
        raise ValueError(f"the {type} filter has no argument '{unknown[0]}'; it has {', '.join(names)}")
    return FILTERS[type](**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
