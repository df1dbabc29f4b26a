"""The rank filter of SciPy as minima and maxima of whole shifted images.

A window's value of a given rank needs no window of its own: the sorted list of ``n`` neighbouring pixels is merged from
the sorted lists of two shorter runs, and neighbouring windows share them all. One merge is some minima and maxima
(Batcher's odd-even merge; Knuth, The Art of Computer Programming 3, 5.3.4), each of a whole tile of the image with
another one or with itself shifted, which is what NumPy does fastest. What cannot reach the wanted rank is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import ceil, sqrt
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

_BUFFER_BYTES = 192 << 10
"""Of a tile: small enough that the buffers in use stay in the caches (on a Xeon with 2 MB of L2 a thread alone is
fastest with 128 KiB), large enough that threads with an image each seldom wait for one another's calls into NumPy."""

_TOTAL_BYTES = 32 << 20
"""Of all buffers together: larger windows need more of them, and get smaller tiles."""


def rank_filter(image: NDArray[Scalar], window: tuple[int, int], rank: int) -> NDArray[Scalar]:
    """The value of this rank in the window around every pixel, per channel.

    The values are those of `scipy.ndimage.rank_filter` with a size of (height, width, 1): the image goes on mirrored
    over its border, edge pixel included, as often as the window needs it. SciPy 1.17 itself is wrong for integers
    beyond 2^53, which it rounds, and for windows ten times as wide as the image, where it reads other memory.

    Args:
        image: (H, W) or (H, W, C), of any type that `numpy.minimum` takes; without NaN.
        window: Height and width, odd.
        rank: From 0, the minimum, to height * width - 1, the maximum.

    Returns:
        A new array of the image's shape and type.

    Raises:
        ValueError: Another shape, an even window, or a rank outside it.
    """
    if image.ndim not in (2, 3):
        raise ValueError(f"image must have the shape (H, W) or (H, W, C), got {image.shape}")
    if len(window) != 2 or any(side < 1 or side % 2 == 0 for side in window):
        raise ValueError(f"window must be two odd numbers (height, width), got {window}")
    if not 0 <= rank < window[0] * window[1]:
        raise ValueError(f"rank must be from 0 to {window[0] * window[1] - 1} in a window of {window}, got {rank}")
    result = np.empty(image.shape, image.dtype)
    if image.size == 0:
        return result
    pixels, filtered = (array.reshape(*array.shape[:2], -1) for array in (image, result))
    height, width, channels = pixels.shape
    plan = _plan(window, rank)
    rows, columns = _tile_size(plan, window, (height, width), channels * image.itemsize)
    beyond_rows, beyond_columns = window[0] - 1, window[1] - 1

    # Mirrored band by band: a copy of the whole image would cost as much memory, and time, as the result.
    from_rows, from_columns = (
        np.pad(np.arange(size), side // 2, mode="symmetric") for size, side in zip((height, width), window, strict=True)
    )
    inner = slice(beyond_columns // 2, beyond_columns // 2 + width)
    margins = np.delete(np.arange(width + beyond_columns), inner)
    band = np.empty((rows + beyond_rows, width + beyond_columns, channels), image.dtype)

    buffers = np.empty((plan.buffers, rows + beyond_rows, columns + beyond_columns, channels), image.dtype)
    # Flat, so that a shift by rows and columns is one offset: what runs over a row's end lands beyond the tile.
    flat = buffers.reshape(plan.buffers, -1)
    stride = (columns + beyond_columns) * channels

    def view(value: _Value, length: int) -> NDArray[Scalar]:
        start = value.row * stride + value.column * channels
        return flat[value.source, start : start + length]

    program = []
    for step, out, (more_rows, more_columns) in plan.steps:
        length = (rows - 1 + more_rows) * stride + (columns + more_columns) * channels
        compare = np.maximum if step.larger else np.minimum
        program.append((compare, view(step.first, length), view(step.second, length), flat[out, :length]))
    selected = buffers[plan.result, :rows, :columns]

    for top in _starts(height, rows):
        band[:, inner] = pixels[from_rows[top : top + rows + beyond_rows]]
        band[:, margins] = band[:, inner.start + from_columns[margins]]
        for left in _starts(width, columns):
            buffers[0] = band[:, left : left + columns + beyond_columns]
            for compare, first, second, target in program:
                compare(first, second, out=target)
            filtered[top : top + rows, left : left + columns] = selected
    return result


def _tile_size(plan: _Plan, window: tuple[int, int], size: tuple[int, int], pixel_bytes: int) -> tuple[int, int]:
    """Rows and columns of a tile, whose values beyond it that are computed for its own cost least."""
    height, width = size
    pixels = max(1, min(_BUFFER_BYTES, _TOTAL_BYTES // plan.buffers) // pixel_bytes)
    # Of rows * columns = pixels, where (rows + beyond_rows) * (columns + window[1] - 1) is smallest.
    rows = min(height, max(1, round(sqrt(pixels * plan.beyond_rows / max(1, window[1] - 1)))))
    columns = _evenly(width, max(1, pixels // rows))
    return _evenly(height, max(1, pixels // columns)), columns


def _evenly(size: int, part: int) -> int:
    """The largest of the fewest equal parts of ``size`` that are no longer than ``part``."""
    return ceil(size / ceil(size / part))


def _starts(size: int, part: int) -> Iterable[int]:
    """Where the parts begin; the last one overlaps the one before it, so that all have one length."""
    return (min(start, size - part) for start in range(0, size, part))


class _Value(NamedTuple):
    """A node's or buffer's value so many rows further down and columns further right; the image is number 0."""

    source: int
    row: int
    column: int


class _Step(NamedTuple):
    """The larger or the smaller one of two values."""

    larger: bool
    first: _Value
    second: _Value


class _Sorted(NamedTuple):
    """The sorted values of ``size`` pixels without those that cannot be the wanted one, ``dropped`` of them smaller."""

    values: list[_Value]
    size: int
    dropped: int

    def shifted(self, rows: int, columns: int) -> _Sorted:
        return self._replace(values=[_Value(node, row + rows, column + columns) for node, row, column in self.values])


class _Plan(NamedTuple):
    """A network whose nodes have buffers; one buffer serves many nodes in turn."""

    steps: list[tuple[_Step, int, tuple[int, int]]]
    """What to compute, from values in buffers; the buffer it goes to; how many rows and columns of it beyond a tile's
    are needed."""
    buffers: int
    result: int
    beyond_rows: float
    """The mean over the steps."""


class _Network:
    """Comparisons of shifted values, each kept once."""

    def __init__(self) -> None:
        self.nodes: dict[_Step, int] = {}

    def compare(self, first: _Value, second: _Value) -> list[_Value]:
        """The smaller and the larger one."""
        first, second = sorted((first, second))
        # Both shifted alike are the same node shifted.
        row, column = min(first.row, second.row), min(first.column, second.column)
        pair = [_Value(node, y - row, x - column) for node, y, x in (first, second)]
        return [
            _Value(self.nodes.setdefault(_Step(larger, *pair), len(self.nodes) + 1), row, column)
            for larger in (False, True)
        ]

    def merge(self, first: list[_Value], second: list[_Value]) -> list[_Value]:
        """Two sorted lists of any lengths as one."""
        if not first or not second:
            return first or second
        if len(first) == len(second) == 1:
            return self.compare(first[0], second[0])
        even = self.merge(first[::2], second[::2])
        odd = self.merge(first[1::2], second[1::2])
        paired = min(len(even) - 1, len(odd))
        merged = even[:1]
        for a, b in zip(odd[:paired], even[1 : paired + 1], strict=True):
            merged += self.compare(a, b)
        return merged + odd[paired:] + even[paired + 1 :]


def _select(network: _Network, window: tuple[int, int], rank: int) -> int:
    """The node of the window's value of this rank."""
    total = window[0] * window[1]

    def join(first: _Sorted, second: _Sorted) -> _Sorted:
        size, dropped = first.size + second.size, first.dropped + second.dropped
        merged = network.merge(first.values, second.values)
        # Any other pixel of the window may be larger (or smaller) than all of these, not more than those.
        low, high = max(0, rank - (total - size)), min(size - 1, rank)
        return _Sorted(merged[low - dropped : high + 1 - dropped], size, low)

    run = _Sorted([_Value(0, 0, 0)], 1, 0)
    # The shorter side first: long lists are then merged fewer times.
    for side, (down, right) in sorted(zip(window, ((1, 0), (0, 1)), strict=True), key=lambda pair: pair[0]):
        single, length = run, 1
        for digit in f"{side:b}"[1:]:
            run, length = join(run, run.shifted(down * length, right * length)), 2 * length
            if digit == "1":
                run, length = join(run, single.shifted(down * length, right * length)), length + 1
    return run.values[0].source


@lru_cache(maxsize=8)
def _plan(window: tuple[int, int], rank: int) -> _Plan:
    """What to compute in which order and where, for the value of this rank."""
    network = _Network()
    result = _select(network, window, rank)
    steps = {node: step for step, node in network.nodes.items()}

    # Backwards: which nodes the result needs, how far each beyond the tile, and which step is the last to read it.
    beyond = {result: (0, 0)}
    last_reader: dict[int, int] = {}
    for node in reversed(steps):
        if node in beyond:
            for source, row, column in steps[node][1:]:
                rows, columns = beyond.get(source, (0, 0))
                beyond[source] = max(rows, beyond[node][0] + row), max(columns, beyond[node][1] + column)
                last_reader.setdefault(source, node)

    buffer_of, free, count = {0: 0}, list[int](), 1
    placed = []
    for node, step in steps.items():
        if node not in beyond:
            continue
        # Not a buffer that is read here: NumPy would copy what it reads at another shift.
        if free:
            buffer_of[node] = free.pop()
        else:
            buffer_of[node], count = count, count + 1
        first, second = (value._replace(source=buffer_of[value.source]) for value in step[1:])
        placed.append((_Step(step.larger, first, second), buffer_of[node], beyond[node]))
        free += {buffer_of[value.source] for value in step[1:] if last_reader[value.source] == node}
    mean = sum(rows for _, _, (rows, _) in placed) / max(1, len(placed))
    return _Plan(placed, count, buffer_of[result], mean)
