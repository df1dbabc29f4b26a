"""Blending of video frames over time, against flicker, that leaves alone what moves.

Bilateral filtering (Tomasi and Manduchi, ICCV 1998) over time only: each pixel becomes a mean of itself and those at
its place in the frames before and after, each by how like its surroundings are. The weight is Tukey's, which ends: what
differs by more than a level of `LIMIT` is not mixed in at all, so that nothing moving leaves a ghost. The window is of
three derained frames, none of them blended: a frame depends on no more than its neighbours.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Pixels, levels

LIMIT = 16.0
"""In levels of 255: surroundings that differ by more, on the mean of their pixels, are another thing."""
SURROUNDINGS = 5
"""Side in pixels of what is compared: single pixels of noise are never alike."""
CUT = 0.2
"""Mean weight of a whole frame, 0 to 1, below which it is another scene than its neighbour."""

Weights = NDArray[np.float32]
"""(H, W), 0 to 1."""


class Blender:
    """Takes frames in order, and gives them back blended, one later.

    Args:
        strength: Weight of a neighbour that is the same, 0 (off) to 1 (that of the frame itself).
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._before: tuple[Pixels, Weights] | None = None
        self._current: Pixels | None = None

    def push(self, image: Pixels) -> list[Pixels]:
        """The frames that are ready once ``image``, (H, W, 3) uint8 or uint16, is there."""
        if self._strength == 0:
            return [image]
        ready: list[Pixels] = []
        if self._current is not None:
            after = image, self._strength * similarity(self._current, image)
            ready = self._blended(after)
            self._before = self._current, after[1]
        self._current = image
        return ready

    def finish(self) -> list[Pixels]:
        """The last frame, if there is one."""
        ready = self._blended(None)
        self._before = self._current = None
        return ready

    def _blended(self, after: tuple[Pixels, Weights] | None) -> list[Pixels]:
        if self._current is None:
            return []
        neighbours = [neighbour for neighbour in (self._before, after) if neighbour is not None]
        return [mixed(self._current, neighbours)]


def similarity(image: Pixels, other: Pixels) -> Weights:
    """How like two frames are at each place, 0 to 1; zeros where they are different scenes."""
    difference = cv2.absdiff(image, other)
    channels = cv2.split(difference)
    largest = np.asarray(cv2.max(cv2.max(channels[0], channels[1]), channels[2]), np.float32)
    local = cv2.blur(largest, (SURROUNDINGS, SURROUNDINGS))
    share = local * (255.0 / (LIMIT * levels(image.dtype)))
    weights = np.asarray(np.maximum(1 - share * share, 0) ** 2, np.float32)
    return weights if weights.mean() >= CUT else np.zeros_like(weights)


def mixed(image: Pixels, neighbours: list[tuple[Pixels, Weights]]) -> Pixels:
    """The mean of an image of weight 1 and its neighbours with theirs, per pixel, in the image's type."""
    if not neighbours:
        return image
    total = image.astype(np.float32)
    weight = np.ones(image.shape[:2], np.float32)
    for other, weights in neighbours:
        total += other.astype(np.float32) * weights[..., None]
        weight += weights
    return np.rint(total / weight[..., None]).astype(image.dtype)
