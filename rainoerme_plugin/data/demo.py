"""A small data set that any machine can make: photographs that scikit-image ships, with rain rendered on some.

The rain is rendered, so a network trained on it has seen no real rain: the set shows that everything runs, and what
training without pairs does. Rainy, clean and test images come from different photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from typing_extensions import ParamSpec

from ..errors import DataError
from .images import RGB, decode_image, write_image

P = ParamSpec("P")

RAINY = ("astronaut.png", "coffee.png", "brick.png", "camera.png")
CLEAN = ("motorcycle_left.png", "gravel.png", "grass.png", "coins.png", "retina.jpg", "hubble_deep_field.jpg")
TEST = ("chelsea.png", "rocket.jpg")
RENDERINGS = 6
"""Rainy versions of each photograph of the rainy set; the test set has half as many."""
_MAX_SIDE = 640


def render_rain(image: RGB, random: np.random.Generator, scale: float = 1.0) -> RGB:
    """Rain streaks over an image: drops of random strength, drawn out along a slanted fall, in two sizes.

    Streaks are screened onto the image (they lighten it, the less the lighter it is), in one grey for all channels.

    Args:
        image: (H, W, 3) uint8.
        random: Where chance comes from.
        scale: How large the streaks are: 1 or 2 pixels wide times this, and so many fewer; those above 1 are soft at
            their sides, too.
    """
    height, width = image.shape[:2]
    slant = random.uniform(-20, 20)
    rain = np.zeros((height, width), np.float32)
    for length, thickness, share in ((random.integers(13, 22), 1, 0.006), (random.integers(24, 40), 2, 0.0015)):
        drops = (random.random((height, width)) < share / scale**2) * random.uniform(0.4, 1.0, (height, width))
        streaks = cv2.filter2D(
            drops.astype(np.float32),
            -1,
            _streak(int(length * scale), thickness, slant + random.uniform(-3, 3), scale),
            borderType=cv2.BORDER_REFLECT,
        )
        rain = np.maximum(rain, np.asarray(streaks, np.float32))
    light = random.uniform(0.5, 0.8) * np.minimum(rain, 1)[..., None]
    return np.rint(255 - (255 - image.astype(np.float32)) * (1 - light)).astype(np.uint8)


def _streak(length: int, thickness: int, slant: float, scale: float) -> NDArray[np.float32]:
    """A line through the middle of a kernel, ``slant`` degrees from the vertical, soft at its ends; its peak is 1."""
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    kernel[:, side // 2 : side // 2 + round(thickness * scale)] = np.hanning(side + 2)[1:-1, None]
    if scale > 1:
        kernel = np.asarray(cv2.GaussianBlur(kernel, (0, 0), scale / 3), np.float32)
        kernel /= kernel.max()
    turn = cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), slant, 1)
    return np.asarray(cv2.warpAffine(kernel, turn, (side, side)), np.float32)


def make_demo(root: Path, seed: int = 0, renderings: int = RENDERINGS, scale: float = 1.0) -> Iterator[Path]:
    """Write ``rainy/``, ``clean/`` and ``test/{rain,norain}/`` below ``root``, yielding each file.

    Files that are there are kept: an interrupted run goes on.

    Args:
        root: Where to.
        seed: Of the renderings.
        renderings: Rainy versions of each photograph of the rainy set.
        scale: The largest of the rainy set's streaks (`render_rain`); each rendering has its own, from 1 to this.

    Raises:
        DataError: scikit-image's photographs are not installed.
    """
    for number, name in enumerate(RAINY):
        photograph = _photograph(name)
        for rendering in range(renderings):
            random = np.random.default_rng([seed, number, rendering])
            path = root / "rainy" / f"{Path(name).stem}_{rendering + 1}.png"
            own = float(np.random.default_rng([seed, number, rendering, 1]).uniform(1, scale))
            yield _write(path, render_rain, photograph, random, own)
    for name in CLEAN:
        yield _write(root / "clean" / f"{Path(name).stem}.png", _photograph, name)
    for number, name in enumerate(TEST):
        photograph = _photograph(name)
        for rendering in range(RENDERINGS // 2):
            random = np.random.default_rng([seed, len(RAINY) + number, rendering])
            file = f"{Path(name).stem}_{rendering + 1}.png"
            yield _write(root / "test" / "rain" / file, render_rain, photograph, random)
            yield _write(root / "test" / "norain" / file, photograph.copy)


def demo_size(renderings: int = RENDERINGS) -> int:
    """How many files `make_demo` writes."""
    return len(RAINY) * renderings + len(CLEAN) + len(TEST) * RENDERINGS // 2 * 2


def _write(path: Path, make: Callable[P, RGB], *args: P.args, **kwargs: P.kwargs) -> Path:
    if not path.exists():
        write_image(path, make(*args, **kwargs))
    return path


def _photograph(name: str) -> RGB:
    try:
        import skimage
    except ImportError:
        raise DataError("the demo set needs scikit-image: pip install 'rainoerme_plugin[demo]'") from None
    image = decode_image(Path(skimage.__file__).parent / "data" / name, f"scikit-image's {name}")
    scale = _MAX_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
