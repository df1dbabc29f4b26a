"""Blending over time: flicker falls, what moves leaves no ghost, and scenes stay apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rainoerme_plugin.inference.temporal import Blender

Image = np.ndarray[Any, Any]


def blended(frames: list[Image], strength: float) -> list[Image]:
    blender = Blender(strength)
    return [image for frame in frames for image in blender.push(frame)] + blender.finish()


def noisy(count: int, level: int, dtype: Any = np.uint8) -> list[Image]:
    random = np.random.default_rng(0)
    scale = 1 if dtype == np.uint8 else 257
    return [((level + random.normal(0, 2, (40, 50, 3))) * scale).round().astype(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_static_flicker_falls_and_the_mean_stays(dtype: Any) -> None:
    frames = noisy(9, 100, dtype)
    result = blended(frames, 1.0)
    assert len(result) == len(frames)
    assert all(image.dtype == dtype and image.shape == frames[0].shape for image in result)
    scale = np.iinfo(dtype).max / 255
    before, after = (np.std(np.stack(each), axis=0).mean() / scale for each in (frames, result))
    assert after < 0.7 * before
    assert abs(np.mean(result) - np.mean(frames)) < 0.1 * scale


def test_off_is_the_same_frames() -> None:
    frames = noisy(4, 100)
    assert all(a is b for a, b in zip(blended(frames, 0.0), frames, strict=True))


def test_what_moves_leaves_no_ghost() -> None:
    frames = []
    for number in range(5):
        frame = np.full((40, 80, 3), 60, np.uint8)
        frame[10:30, 12 * number : 12 * number + 20] = 220
        frames.append(frame)
    for frame, image in zip(frames, blended(frames, 1.0), strict=True):
        np.testing.assert_array_equal(image, frame)


def test_nothing_goes_over_a_cut() -> None:
    # Scenes of which a part is alike: the shared half must not be mixed, either.
    first, second = noisy(3, 60), noisy(3, 190)
    for image in second:
        image[:5] = 64
    together = blended(first + second, 1.0)
    apart = blended(first, 1.0) + blended(second, 1.0)
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_frame_depends_on_its_neighbours_only() -> None:
    frames = noisy(7, 100)
    whole = blended(frames, 0.6)
    np.testing.assert_array_equal(blended(frames[2:5], 0.6)[1], whole[3])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_frames(count: int) -> None:
    assert len(blended(noisy(count, 100), 1.0)) == count
