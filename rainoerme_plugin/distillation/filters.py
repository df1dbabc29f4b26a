"""Coarse filters: what turns a rainy photograph into its soft label.

A soft label must be free of rain; that it is blurred matters less, for the clean images teach the detail. No filter
minds the order of the colours (RGB or BGR), and all continue the image over its border by reflection.

The filters of this module are local: the label of a crop can be had without the image beyond `CoarseFilter.reach`.
Those of `adaptive` look at the whole image first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from math import atan2, degrees, radians, tan
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from .adaptive import AdaptiveFilter, BestFilter
from .coarse import CoarseFilter, Depth
from .lines import Window, along, opened
from .rank import rank_filter


def _check_window(window: tuple[int, int]) -> None:
    if len(window) != 2 or any(not isinstance(side, int) or side < 1 or side % 2 == 0 for side in window):
        raise ValueError(f"window must be two odd numbers [height, width], got {list(window)}")


def _half(window: tuple[int, int]) -> tuple[int, int]:
    return window[0] // 2, window[1] // 2


@dataclass(frozen=True)
class RankFilter(CoarseFilter):
    """The ``percent`` percentile of a window, per channel.

    Streaks are brighter than what they cover, so a low percentile in a window wider than a streak leaves them out;
    a horizontal window follows from rain that falls. The values are those of `scipy.ndimage.percentile_filter`.
    """

    name: ClassVar[str] = "rank"

    window: tuple[int, int] = (1, 7)
    percent: float = 35.0

    def __post_init__(self) -> None:
        _check_window(self.window)
        if not 0 <= self.percent <= 100:
            raise ValueError(f"percent must be from 0 to 100, got {self.percent}")

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        pixels = self.window[0] * self.window[1]
        # As SciPy reckons it; 100 percent is the largest, not one beyond.
        return rank_filter(image, self.window, min(int(pixels * self.percent / 100), pixels - 1))

    @property
    def reach(self) -> tuple[int, int]:
        return _half(self.window)


@dataclass(frozen=True)
class MedianFilter(CoarseFilter):
    """The median of a window, per channel."""

    name: ClassVar[str] = "median"

    window: tuple[int, int] = (5, 5)

    def __post_init__(self) -> None:
        _check_window(self.window)

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        return rank_filter(image, self.window, self.window[0] * self.window[1] // 2)

    @property
    def reach(self) -> tuple[int, int]:
        return _half(self.window)


@dataclass(frozen=True)
class OpeningFilter(CoarseFilter):
    """Morphological opening: removes what is bright and narrower than the window, and keeps wider shapes sharp."""

    name: ClassVar[str] = "opening"

    window: tuple[int, int] = (1, 9)

    def __post_init__(self) -> None:
        _check_window(self.window)

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        return opened(image, np.ones(self.window, np.uint8))

    @property
    def reach(self) -> tuple[int, int]:
        rows, columns = _half(self.window)
        return 2 * rows, 2 * columns


@dataclass(frozen=True)
class StreaksFilter(CoarseFilter):
    """Opening that takes out nothing but streaks: what is brighter in all colours, narrow and long.

    Of what the opening by ``window`` takes out, the least of the three colours counts, and of that, what lasts for
    ``length`` rows along a line that leans by no more than ``lean`` degrees: the largest of the openings by such lines.
    That is subtracted from each colour. Texture and coloured detail stay where a plain opening blurs them, and so does
    what ends of streaks are shorter.

    Args:
        window: Height and width of the opening, odd: wider than streaks are.
        length: Of a streak at least, in pixels, odd.
        lean: How far from upright a streak may fall, to either side, in degrees.
    """

    name: ClassVar[str] = "streaks"

    window: tuple[int, int] = (1, 9)
    length: int = 7
    lean: float = 34.0

    def __post_init__(self) -> None:
        _check_window(self.window)
        if self.length < 3 or self.length % 2 == 0:
            raise ValueError(f"length must be odd and at least 3, got {self.length}")
        if not 0 <= self.lean <= 60:
            raise ValueError(f"lean must be from 0 to 60 degrees, got {self.lean}")

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        # Colour by colour: NumPy's own minimum over an axis of three takes five times as long as all the rest.
        channels = cv2.split(image - OpeningFilter(self.window)(image))
        narrow = reduce(np.minimum, channels)
        # OpenCV's own border: beyond the image a streak may go on. Reflected, an inclined one would have a kink there.
        streaks = np.max([cv2.morphologyEx(narrow, cv2.MORPH_OPEN, line) for line in self._lines], axis=0)
        return image - cv2.merge([streaks] * len(channels))

    @property
    def _aside(self) -> int:
        """How many columns the end of the most inclined line lies beside its middle."""
        return round(self.length // 2 * tan(radians(self.lean)))

    @cached_property
    def _lines(self) -> list[Window]:
        """All digital lines between the most inclined ones; asked for with every crop."""
        ends = np.arange(-self._aside, self._aside + 1)
        return [along(degrees(atan2(end, self.length // 2)), self.length) for end in ends]

    @property
    def reach(self) -> tuple[int, int]:
        rows, columns = OpeningFilter(self.window).reach
        return rows + 2 * (self.length // 2), columns + 2 * self._aside


@dataclass(frozen=True)
class GuidedFilter(CoarseFilter):
    """The guided filter (He et al., PAMI 35, 2013) with the image as its own guide, per channel.

    A crop's values may differ from the whole image's by a grey level, though in 19 million none did: OpenCV's box means
    are running sums, whose rounding depends on where they began.

    Args:
        radius: Of the square window, in pixels.
        eps: What counts as an edge, as a variance of values in [0, 1]: flatter places are smoothed.
    """

    name: ClassVar[str] = "guided"

    radius: int = 8
    eps: float = 0.01

    def __post_init__(self) -> None:
        if self.radius < 1 or self.eps <= 0:
            raise ValueError(f"radius must be at least 1 and eps above 0, got {self.radius} and {self.eps}")

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        side = (2 * self.radius + 1, 2 * self.radius + 1)

        def box(values: NDArray[np.floating]) -> NDArray[np.float32]:
            return np.asarray(cv2.blur(values, side, borderType=cv2.BORDER_REFLECT), dtype=np.float32)

        white = np.iinfo(image.dtype).max
        guide = image.astype(np.float32) / white
        mean = box(guide)
        variance = box(guide * guide) - mean * mean
        slope = variance / (variance + np.float32(self.eps))
        smooth = box(slope) * guide + box(mean * (1 - slope))
        return np.clip(np.rint(smooth * white), 0, white).astype(image.dtype)

    @property
    def reach(self) -> tuple[int, int]:
        # Means of means: of the lines through the pixels of every window that holds the pixel.
        return 2 * self.radius, 2 * self.radius


@dataclass(frozen=True)
class BilateralFilter(CoarseFilter):
    """OpenCV's bilateral filter: ``sigma_color`` in grey levels (0-255), ``sigma_space`` in pixels; uint8 alone."""

    name: ClassVar[str] = "bilateral"

    diameter: int = 9
    sigma_color: float = 75.0
    sigma_space: float = 5.0

    def __post_init__(self) -> None:
        if self.diameter < 1 or self.sigma_color <= 0 or self.sigma_space <= 0:
            raise ValueError("diameter, sigma_color and sigma_space of the bilateral filter must be positive")

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        if image.dtype != np.uint8:
            raise ValueError(f"the bilateral filter takes images of 8 bits (uint8), got {image.dtype}")
        smooth = cv2.bilateralFilter(
            image, self.diameter, self.sigma_color, self.sigma_space, borderType=cv2.BORDER_REFLECT
        )
        return smooth.astype(image.dtype, copy=False)

    @property
    def reach(self) -> tuple[int, int]:
        # OpenCV's window is odd and at least three wide.
        radius = max(1, self.diameter // 2)
        return radius, radius


_ALL: tuple[type[CoarseFilter], ...] = (
    RankFilter,
    OpeningFilter,
    StreaksFilter,
    MedianFilter,
    GuidedFilter,
    BilateralFilter,
    AdaptiveFilter,
    BestFilter,
)
FILTERS = {kind.name: kind for kind in _ALL}
"""Those of this package, by the names of option files."""


CANDIDATES = (*(OpeningFilter((1, width)) for width in (3, 5, 7, 9)), AdaptiveFilter())
"""What `BestFilter` chooses from where nothing is said."""


def build_filter(type: str, **arguments: Any) -> CoarseFilter:
    """The filter of this name in `FILTERS`, with its arguments; lists become tuples, and mappings in them filters.

    Raises:
        ValueError: No such filter, an argument it does not have, or a value it does not take.
    """
    if type not in FILTERS:
        raise ValueError(f"no coarse filter is called '{type}'; there are {', '.join(FILTERS)}")
    names = [field.name for field in fields(FILTERS[type])]
    unknown = sorted(set(arguments) - set(names))
    if unknown:
        raise ValueError(f"the {type} filter has no argument '{unknown[0]}'; it has {', '.join(names)}")
    if type == BestFilter.name:
        arguments = {"filters": CANDIDATES, **arguments}
    return FILTERS[type](**{k: _argument(v) for k, v in arguments.items()})


def _argument(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(build_filter(**each) if isinstance(each, Mapping) else each for each in value)
