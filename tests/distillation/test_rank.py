"""The rank filter against SciPy, against sorting, and against all windows of zeros and ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from rainoerme_plugin.distillation import rank as module
from rainoerme_plugin.distillation.rank import rank_filter

TYPES = [np.uint8, np.uint16, np.int16, np.uint32, np.float32, np.float64]
WINDOWS = [(1, 1), (1, 3), (1, 7), (1, 9), (1, 15), (3, 1), (11, 1), (3, 3), (5, 3), (3, 9), (9, 9), (13, 7)]
SHAPES = [(1, 1, 3), (1, 20, 3), (17, 1, 3), (2, 3, 3), (23, 31, 3), (12, 15, 1), (9, 14, 4)]


def noise(shape: tuple[int, ...], dtype: DTypeLike = np.uint8, seed: int = 0) -> NDArray[Any]:
    """Random values over the type's whole range; for floats normal ones and both infinities."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        values = random.normal(0, 1e4, shape)
        values[random.random(shape) < 0.02] = np.inf
        values[random.random(shape) < 0.02] = -np.inf
        return values.astype(dtype)
    limits = np.iinfo(np.dtype(dtype))
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def of_scipy(image: NDArray[Any], window: tuple[int, int], rank: int) -> NDArray[Any]:
    return ndimage.rank_filter(image, rank, size=(*window, 1)[: image.ndim])


def sorted_windows(image: NDArray[Any], window: tuple[int, int]) -> NDArray[Any]:
    """The sorted values of the window around every pixel of a grey image, (H, W, pixels of the window)."""
    for axis, (size, side) in enumerate(zip(image.shape, window, strict=True)):
        there_and_back = np.arange(-(side // 2), size + side // 2) % (2 * size)
        image = image.take(np.minimum(there_and_back, 2 * size - 1 - there_and_back), axis)
    windows = np.lib.stride_tricks.sliding_window_view(image, window)
    return np.sort(windows.reshape(*windows.shape[:2], -1), axis=-1)


def some_ranks(window: tuple[int, int]) -> list[int]:
    pixels = window[0] * window[1]
    return sorted({0, pixels // 10, int(pixels * 0.35), pixels // 2, pixels - 1})


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_values_are_those_of_scipy(window: tuple[int, int], shape: tuple[int, int, int]) -> None:
    image = noise(shape)
    for rank in some_ranks(window):
        np.testing.assert_array_equal(rank_filter(image, window, rank), of_scipy(image, window, rank))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("window", [(1, 7), (5, 3), (7, 7)])
def test_every_type_keeps_its_whole_range(dtype: type[np.generic], window: tuple[int, int]) -> None:
    image = noise((19, 22, 3), dtype)
    for rank in some_ranks(window):
        result = rank_filter(image, window, rank)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, of_scipy(image, window, rank))


@pytest.mark.parametrize("window", [(1, 1), (1, 7), (7, 1), (1, 11), (3, 3), (3, 5), (5, 3)])
def test_every_rank_of_all_windows_of_zeros_and_ones(window: tuple[int, int]) -> None:
    # What minima and maxima make of zeros and ones decides what they make of anything (Knuth 3, 5.3.4, theorem Z).
    pixels = window[0] * window[1]
    numbers = np.arange(2**pixels)
    every = ((numbers[None] >> np.arange(pixels)[:, None]) & 1).astype(np.uint8).reshape(*window, -1)
    ones = every.sum(axis=(0, 1))
    for rank in range(pixels):
        centre = rank_filter(every, window, rank)[window[0] // 2, window[1] // 2]
        np.testing.assert_array_equal(centre, ones >= pixels - rank)


@pytest.mark.parametrize("window", [(5, 5), (3, 11), (9, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_every_rank_is_that_of_sorting(window: tuple[int, int], dtype: type[np.generic]) -> None:
    # Not of SciPy for int64: it rounds to float64.
    image = noise((10, 13), dtype)
    oracle = sorted_windows(image, window)
    for rank in range(window[0] * window[1]):
        np.testing.assert_array_equal(rank_filter(image, window, rank), oracle[..., rank])


@pytest.mark.parametrize("window", [(31, 31), (1, 101), (101, 1), (41, 5)])
@pytest.mark.parametrize("shape", [(40, 35), (4, 60), (3, 2)])
def test_a_window_may_be_large_and_larger_than_the_image(window: tuple[int, int], shape: tuple[int, int]) -> None:
    # Not of SciPy: where a window is ten times the image, SciPy 1.17 returns values that the image does not have.
    image = noise(shape)
    oracle = sorted_windows(image, window)
    for rank in some_ranks(window):
        np.testing.assert_array_equal(rank_filter(image, window, rank), oracle[..., rank])


@pytest.mark.parametrize("window", [(1, 7), (7, 1), (5, 5), (3, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_of_several_tiles_shows_no_seams(window: tuple[int, int], dtype: type[np.generic]) -> None:
    image = noise((331, 467, 3), dtype)
    assert image[0].size < module._BUFFER_BYTES < image.nbytes
    rank = window[0] * window[1] // 3
    np.testing.assert_array_equal(rank_filter(image, window, rank), of_scipy(image, window, rank))


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize("window", [(1, 1), (1, 7), (7, 1), (5, 5), (9, 3)])
def test_the_tiles_size_does_not_matter(size: int, window: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUFFER_BYTES", size)
    image = noise((23, 29, 3))
    rank = window[0] * window[1] // 3
    np.testing.assert_array_equal(rank_filter(image, window, rank), of_scipy(image, window, rank))


@pytest.mark.parametrize("window", [(1, 7), (9, 9), (31, 31), (1, 101), (51, 1)])
@pytest.mark.parametrize("pixel_bytes", [1, 3, 6, 24])
def test_the_buffers_of_a_large_image_fit_the_caches(window: tuple[int, int], pixel_bytes: int) -> None:
    plan = module._plan(window, window[0] * window[1] // 3)
    rows, columns = module._tile_size(plan, window, (6000, 8000), pixel_bytes)
    tile = rows * columns * pixel_bytes
    assert tile <= module._BUFFER_BYTES
    assert tile * plan.buffers <= module._TOTAL_BYTES
    assert tile >= min(module._BUFFER_BYTES, module._TOTAL_BYTES / plan.buffers) / 2


def test_seven_in_a_row_take_fourteen_minima_and_maxima() -> None:
    # The third of seven: pairs (2), their merge to three without the last (4), of two threes (6), and the seventh (2).
    assert len(module._plan((1, 7), 2).steps) == 14


def test_the_shorter_side_comes_first() -> None:
    # Long lists are merged as seldom as can be: with the longer side first it would be 102.
    assert len(module._plan((3, 9), 9).steps) == len(module._plan((9, 3), 9).steps) == 88


def test_an_image_of_any_layout_is_left_alone() -> None:
    image = noise((40, 30, 6))
    before = image.copy()
    views = [
        image[..., ::-1],
        image[::2, 1::3, ::2],
        image[::-1, ::-1],
        image.transpose(1, 0, 2),
        np.asfortranarray(image),
        image[..., 1],
        np.broadcast_to(image[:1], image.shape),
        image.astype(">u2"),
    ]
    for view in views:
        result = rank_filter(view, (3, 5), 4)
        np.testing.assert_array_equal(result, of_scipy(np.ascontiguousarray(view), (3, 5), 4))
        assert not np.shares_memory(result, image)
    np.testing.assert_array_equal(image, before)
    image.flags.writeable = False
    np.testing.assert_array_equal(rank_filter(image, (1, 1), 0), before)


def test_threads_do_not_disturb_one_another() -> None:
    images = [noise((90, 110, 3), seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda image: rank_filter(image, (5, 5), 8), images))
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result, of_scipy(image, (5, 5), 8))


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0), (4, 4, 0)])
def test_an_empty_image_stays_empty(shape: tuple[int, ...]) -> None:
    assert rank_filter(np.empty(shape, np.uint8), (3, 3), 4).shape == shape


@pytest.mark.parametrize("shape", [(5,), (2, 5, 5, 3)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must have the shape \(H, W\) or \(H, W, C\), got \("):
        rank_filter(np.zeros(shape, np.uint8), (3, 3), 4)


@pytest.mark.parametrize("window", [(2, 3), (3, 0), (-1, 3), (3,), (3, 3, 1)])
def test_an_even_window_is_refused(window: Any) -> None:
    with pytest.raises(ValueError, match=r"window must be two odd numbers \(height, width\), got \("):
        rank_filter(np.zeros((5, 5), np.uint8), window, 0)


@pytest.mark.parametrize("rank", [-1, 9])
def test_a_rank_outside_the_window_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"rank must be from 0 to 8 in a window of \(3, 3\), got {rank}"):
        rank_filter(np.zeros((5, 5), np.uint8), (3, 3), rank)
