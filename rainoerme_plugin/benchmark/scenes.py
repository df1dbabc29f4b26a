"""Which images show the same scene: perceptual hashes, which rain, resizing and mirroring change little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.images import RGB

Hashes = NDArray[np.bool_]
"""(N, BITS)."""

SIDE = 16
BITS = SIDE * SIDE
NEAR = 0.30
"""Images whose hashes differ in at most this share of the bits show one scene.

On Rain100L, Rain200H, SPA-Data, BSDS500 and 147 photographs of real rain: an image and its version with heavy rain
differ in up to 0.297, different scenes in at least 0.359. Crops lie between (0.320 to 0.352) and are not found.
"""
_TELLING = BITS // 4
_BLOCK = 512


def scene_hash(image: RGB) -> Hashes:
    """The hash (BITS,) of an (H, W, 3) uint8 image: imagehash's pHash, by the signs of its low frequencies.

    Half of a hash's bits are set, but for an image that has hardly any low frequencies (flat, or stripes of one
    direction): few are, and `near` finds it near no other, not even one like it.
    """
    return np.asarray(imagehash.phash(Image.fromarray(image), hash_size=SIDE).hash, np.bool_).ravel()


def mirrored(hashes: Hashes) -> Hashes:
    """The hashes of the mirrored images, but for what lies at the median: odd horizontal frequencies change sign.

    A hash bit says whether a coefficient lies above the median of all, which is near zero.
    """
    bits = hashes.reshape(-1, SIDE, SIDE).copy()
    bits[:, :, 1::2] ^= True
    return bits.reshape(-1, BITS)


def near(first: Hashes, second: Hashes) -> Iterator[tuple[int, int]]:
    """The pairs of indices of images that show one scene, mirrored or not, in blocks: no table of all pairs is made."""
    limit = BITS * (1 - 2 * NEAR)
    for start in range(0, len(first), _BLOCK):
        rows = first[start : start + _BLOCK]
        for other in range(0, len(second), _BLOCK):
            columns = second[other : other + _BLOCK]
            known = np.outer(_telling(rows), _telling(columns))
            agree = np.maximum(*(_signs(rows) @ _signs(hashes).T for hashes in (columns, mirrored(columns))))
            for row, column in np.argwhere(known & (agree >= limit)):
                yield start + int(row), other + int(column)


def _telling(hashes: Hashes) -> NDArray[np.bool_]:
    return np.asarray(hashes.sum(axis=1) >= _TELLING)


def _signs(hashes: Hashes) -> NDArray[np.float32]:
    return np.where(hashes, np.float32(1), np.float32(-1))


def group_scenes(hashes: Hashes) -> list[int]:
    """For each image the number of the first one that shows its scene."""
    groups = list(range(len(hashes)))
    for first, second in near(hashes, hashes):
        if first < second and groups[second] == second:
            groups[second] = groups[first]
    return groups


def stack(hashes: Iterable[Hashes] | Sequence[Hashes]) -> Hashes:
    """Single hashes as one array, which may be empty."""
    found = list(hashes)
    return np.stack(found) if found else np.zeros((0, BITS), np.bool_)
