"""Windows that are lines, and morphological openings by them: what is narrow or long in a photograph."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Window = NDArray[np.uint8]


def across(slant: float, width: int) -> Window:
    """A digital line across streaks of this slant in degrees from upright (above 0: from the upper right to the lower
    left), ``width`` columns wide, odd."""
    columns = np.arange(width) - width // 2
    rows = np.rint(columns * np.tan(np.radians(slant))).astype(int)
    return _line(rows, columns)


def along(slant: float, length: int) -> Window:
    """A digital line along such streaks, ``length`` rows long, odd."""
    rows = np.arange(length) - length // 2
    return _line(rows, np.rint(-rows * np.tan(np.radians(slant))).astype(int))


def _line(rows: NDArray[np.int_], columns: NDArray[np.int_]) -> Window:
    high, wide = int(np.abs(rows).max()), int(np.abs(columns).max())
    window = np.zeros((2 * high + 1, 2 * wide + 1), np.uint8)
    window[rows + high, columns + wide] = 1
    return window


def opened(image: NDArray[Any], window: Window) -> NDArray[Any]:
    """The opening of (H, W) or (H, W, C) by a window, of the image's type; over its border it goes on by reflection."""
    # Not morphologyEx, which would turn the window's opening into one of another border for each half.
    eroded = cv2.erode(image, window, borderType=cv2.BORDER_REFLECT)
    result = cv2.dilate(eroded, window, borderType=cv2.BORDER_REFLECT)
    return np.asarray(result).astype(image.dtype, copy=False)
