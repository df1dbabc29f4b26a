"""Photographs with rain that is known: streaks rendered before backgrounds of every kind."""

from __future__ import annotations

from math import cos, radians, sin
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def streaks(
    size: tuple[int, int],
    angle: float = 8.0,
    width: float = 2.0,
    share: float = 0.1,
    length: float = 25.0,
    seed: int = 0,
) -> NDArray[np.float32]:
    """A layer of rain (H, W), 0 to 1.

    Args:
        size: Height and width.
        angle: Of the streaks from upright, in degrees.
        width: Of a streak, in pixels.
        share: How much of the layer is covered, about.
        length: Of a streak, in widths.
        seed: Of where they are.
    """
    random, (height, across), fine = np.random.default_rng(seed), size, 4
    layer = np.zeros((height * fine, across * fine), np.float32)
    step = np.array([sin(radians(angle)), cos(radians(angle))]) * length * width * fine / 2
    for _ in range(max(1, round(share * height * across / (length * width**2)))):
        middle = random.uniform(0, 1, 2) * (across * fine, height * fine)
        ends = [tuple(np.rint(middle + sign * step).astype(int).tolist()) for sign in (-1, 1)]
        cv2.line(layer, *ends, float(random.uniform(0.15, 0.4)), max(1, round(width * fine)))
    layer = cv2.GaussianBlur(layer, (0, 0), fine * width / 4)
    return np.asarray(cv2.resize(layer, (across, height), interpolation=cv2.INTER_AREA))


def plain(size: tuple[int, int], colour: tuple[float, float, float] = (0.35, 0.4, 0.45)) -> NDArray[np.float32]:
    """Sky: a colour (H, W, 3) that changes slowly from edge to edge."""
    rows, columns = (np.linspace(-0.08, 0.08, count, dtype=np.float32) for count in size)
    return np.asarray(np.float32(colour) + rows[:, None, None] - 0.5 * columns[None, :, None], np.float32)


def textured(size: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    """Foliage: coloured blots of two and of six pixels."""
    random = np.random.default_rng([seed, 7])
    noise = [cv2.GaussianBlur(random.normal(0, 1, (*size, 3)).astype(np.float32), (0, 0), blur) for blur in (1.5, 4)]
    return np.asarray(np.clip(0.4 + sum(0.12 * each / each.std() for each in noise), 0, 1), np.float32)


def photograph(background: NDArray[np.float32], rain: NDArray[np.float32], noise: float = 0.004) -> NDArray[np.uint8]:
    """The rain before the background, as a camera would see it: (H, W, 3)."""
    grain = np.random.default_rng(5).normal(0, noise, background.shape)
    return np.rint(255 * np.clip(background + rain[..., None] + grain, 0, 1)).astype(np.uint8)


def write_photographs(folder: Path, count: int, size: tuple[int, int] = (160, 200), width: float = 2.0) -> None:
    """Photographs of sky with rain, each of another colour and direction."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        random = np.random.default_rng([3, number])
        sky = plain(size, tuple(random.uniform(0.25, 0.55, 3).tolist()))
        rain = streaks(size, random.uniform(-30, 30), width, seed=number)
        Image.fromarray(photograph(sky, rain)).save(folder / f"{number + 1}.png")


def decibels(found: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """How much larger the true rain is than what is wrong with the rain found, in dB."""
    return float(
        10 * np.log10(np.square(true, dtype=np.float64).sum() / np.square(found - true, dtype=np.float64).sum())
    )
