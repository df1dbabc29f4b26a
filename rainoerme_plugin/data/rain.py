"""A bank of rain: squares from plain places of rainy photographs, found once, as a source of images.

A square of rain is an image like any other: grey, repeated over three channels, black where no rain is. So a bank may
also be a folder of such images, which one can look through and remove some of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..distillation.plain import Patch, PlainPlaces, choose, find_patches
from ..errors import DataError
from ..files import user_path, write_whole
from .images import RGB, decode_image, encode_png
from .sources import ImageSource, Sizes, Track, cut, in_threads, untracked

FEWEST = 30
"""Squares that are a bank: of fewer, the same rain would come again with every batch."""


class RainBank:
    """Squares of rain as a source of images, (S, S, 3) uint8; S may differ from square to square.

    Args:
        squares: (S, S) uint8 each.
        names: Of the squares.
    """

    def __init__(self, squares: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> None:
        self._squares = list(squares)
        self.names: Sequence[str] = list(names)

    def __len__(self) -> int:
        return len(self._squares)

    def where(self, index: int) -> str:
        return self.names[index]

    def encoded(self, index: int) -> bytes:
        return encode_png(self.read(index))

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        return np.array([square.shape for square in self._squares], np.int32).reshape(-1, 2)

    def read(self, index: int) -> RGB:
        return np.repeat(self._squares[index][..., None], 3, axis=2)

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        return cut(self.read(index), self.where(index), top, left, height, width)


@dataclass(frozen=True)
class PlainRain:
    """What was found in a set of photographs: the plain squares of each, and where they are."""

    names: Sequence[str]
    """Of the photographs."""
    indices: Sequence[int]
    """Their numbers in their source."""
    patches: Sequence[Sequence[Patch]]

    @property
    def count(self) -> int:
        """Squares."""
        return sum(map(len, self.patches))

    def __str__(self) -> str:
        having = sum(map(bool, self.patches))
        return f"{self.count} plain places in {having} of {len(self.names)} photographs"

    def bank(self, smallest: int) -> RainBank:
        """The squares as images of at least this side; smaller ones go on mirrored."""
        squares, names = [], []
        for name, patches in zip(self.names, self.patches, strict=True):
            for number, patch in enumerate(patches):
                squares.append(_at_least(np.rint(patch.rain / 257).astype(np.uint8), smallest))
                names.append(f"{Path(name).with_suffix('')}-{number}.png")
        return RainBank(squares, names)


def _at_least(square: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    missing = max(0, side - len(square))
    return np.pad(square, ((0, missing), (0, missing)), mode="symmetric") if missing else square


def find_plain_rain(
    rainy: ImageSource,
    places: PlainPlaces,
    strictness: float,
    photographs: int,
    cache: str | Path | None = None,
    track: Track[list[Patch]] = untracked,
) -> PlainRain:
    """The rain of the plain places of a set of photographs.

    Args:
        rainy: The photographs.
        places, strictness: As of `choose` and `find_patches`.
        photographs: Of so many at most, spread evenly over the set.
        cache: Folder to keep what is found in each photograph in, by its content and the settings; None keeps nothing.
        track: Shows the progress.

    Raises:
        DataError: A photograph cannot be read, or the cache cannot be written.
    """
    indices = np.unique(np.linspace(0, len(rainy) - 1, min(photographs, len(rainy))).astype(int)).tolist()
    root = None if cache is None else user_path(cache) / places.key

    def find(index: int) -> list[Patch]:
        encoded = rainy.encoded(index)
        path = None if root is None else root / f"{hashlib.blake2b(encoded, digest_size=16).hexdigest()}.safetensors"
        kept = None if path is None else _kept(path)
        if kept is not None:
            return kept
        found = find_patches(decode_image(encoded, rainy.where(index)), places)
        if path is not None:
            try:
                write_whole(path, _packed(found))
            except OSError as error:
                raise DataError(f"cannot keep the rain of {rainy.where(index)}: {error.strerror or error}") from None
        return found

    found = list(track(in_threads(find, indices), len(indices), "plain places"))
    return PlainRain([rainy.names[index] for index in indices], indices, choose(found, strictness))


def _packed(patches: Sequence[Patch]) -> bytes:
    side = len(patches[0].rain) if patches else 0
    rain = np.stack([patch.rain for patch in patches]) if patches else np.zeros((0, 0, 0), np.uint16)
    assert rain.shape == (len(patches), side, side)
    return save(
        {
            "rain": rain,
            "place": np.array([(patch.top, patch.left) for patch in patches], np.int64).reshape(-1, 2),
            "measure": np.array([(patch.roughness, patch.energy) for patch in patches], np.float64).reshape(-1, 2),
        }
    )


def _kept(path: Path) -> list[Patch] | None:
    """What is kept of a photograph; None if that is nothing, or damaged."""
    try:
        parts = load(path.read_bytes())
        rows = zip(parts["rain"], parts["place"].tolist(), parts["measure"].tolist(), strict=True)
        return [Patch(rain, *place, *measure) for rain, place, measure in rows]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
