"""A bank of rain: squares from plain places of rainy photographs, found once, as a source of images.

A square of rain is an image like any other: grey, repeated over three channels, black where no rain is. So a bank may
also be a folder of such images, which one can look through, remove some of, or bring from elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..distillation.plain import ZOOMS, Patch, PlainPlaces, find_patches, plainest
from ..errors import DataError, counted, one_line
from ..files import remove_leftovers, user_path, write_whole
from .images import RGB, decode_image, encode_png
from .labels import digest_of, in_parts
from .sources import ImageSource, Sizes, Track, cut, in_threads, untracked

FEWEST = 30
"""Squares that are a bank: of fewer, the same rain would come again with every batch."""
LEAST_SHARE = 0.05
"""... and of so many of the photographs: of those without rain, one in 35 has something that looks like it."""
NEEDED = f"{FEWEST} squares are needed, from {LEAST_SHARE:.0%} of the photographs"
ADVICE = (
    "try evidence=1.35 (places that are less sure), roughness=0.6 (less plain) or lean=90 (rain of every direction), "
    "or take more photographs, some with sky, walls or water behind the rain"
)
"""What to do where there are too few."""
PHOTOGRAPHS = 1000
"""Of a set at most, unless more are asked for: more rain than they have is hardly seen twice."""
_SQUARES = 10_000
"""Of a set at most, the most evident of each photograph: in memory, crops of 128x128 of them take half a gigabyte."""
_TRIED = 24
"""Photographs of a set by which it is found out how wide its streaks are."""
_CONVINCING = 10
"""Squares in those that say something."""
_MEMORY = 4 << 30
"""Bytes that may be taken ..."""
_BYTES = 25
"""... by a photograph that is looked at, a pixel: of 24 megapixels 0.4 to 0.5 gigabytes were."""
_NEXT_TO = 0.9
"""So much of the most is as good as that."""


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


class LargeEnough:
    """Another source, whose images are at least so large: smaller ones go on mirrored, right and below.

    Args:
        source: The images.
        side: Of the training crops, in pixels.
    """

    def __init__(self, source: ImageSource, side: int) -> None:
        self._source, self._side = source, side
        self.names: Sequence[str] = source.names

    def __len__(self) -> int:
        return len(self._source)

    def where(self, index: int) -> str:
        return self._source.where(index)

    def encoded(self, index: int) -> bytes:
        return encode_png(self.read(index))

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        return np.maximum(self._source.sizes(track), self._side)

    def read(self, index: int) -> RGB:
        image = self._source.read(index)
        missing = [(0, max(0, self._side - length)) for length in image.shape[:2]]
        return np.pad(image, (*missing, (0, 0)), mode="symmetric") if any(after for _, after in missing) else image

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        return cut(self.read(index), self.where(index), top, left, height, width)


@dataclass(frozen=True)
class PlainRain:
    """What was found in a set of photographs."""

    names: Sequence[str]
    """Of the photographs."""
    indices: Sequence[int]
    """Their numbers in their source."""
    patches: Sequence[Sequence[Patch]]
    """The plain squares of each."""
    zoom: float
    """How wide the streaks are, as of `PlainPlaces.scale`."""

    @property
    def count(self) -> int:
        """Squares."""
        return sum(map(len, self.patches))

    @property
    def having(self) -> int:
        """Photographs that have some."""
        return sum(map(bool, self.patches))

    @property
    def is_enough(self) -> bool:
        """Whether it can be trained with."""
        return self.count >= FEWEST and self.having >= LEAST_SHARE * len(self.names)

    def __str__(self) -> str:
        places = counted(self.count, "plain place") + " with rain" if self.count else "no plain place with rain"
        return f"{places} in {self.having} of {counted(len(self.names), 'photograph')}"

    def squares_of(self, counts: Sequence[int]) -> list[int]:
        """How many squares each of several folders has, whose photographs lie one folder behind the other.

        Args:
            counts: Photographs of each folder.
        """
        folders = np.searchsorted(np.cumsum(counts), self.indices, side="right")
        squares = np.array([len(patches) for patches in self.patches])
        return [int(squares[folders == folder].sum()) for folder in range(len(counts))]

    def told(self) -> Iterator[str]:
        """What a user is told of them, line by line."""
        yield f"{self}, up to {max(map(len, self.patches), default=0)} of one"
        sides = sorted({len(patch.rain) for patches in self.patches for patch in patches})
        if sides:
            size = f"{sides[0]}" if len(sides) == 1 else f"{sides[0]} to {sides[-1]}"
            wider = "" if self.zoom == 1 else f" (streaks {self.zoom:g} times as wide as in most sets)"
            yield f"squares of {size} pixels; zoom {self.zoom:g}{wider}"

    def bank(self) -> RainBank:
        """The squares as images, named by their photographs."""
        squares, names = [], []
        for name, patches in zip(self.names, self.patches, strict=True):
            for number, patch in enumerate(patches, 1):
                squares.append(patch.rain)
                names.append(f"{PurePosixPath(name).with_suffix('')}-{number:02d}.png")
        return RainBank(squares, names)


def find_plain_rain(
    rainy: ImageSource,
    places: PlainPlaces,
    photographs: int,
    cache: str | Path | None = None,
    track: Track[list[Patch]] = untracked,
    rank: int = 0,
    world: int = 1,
) -> PlainRain:
    """The rain of the plain places of a set of photographs.

    How wide its streaks are (`ZOOMS`) is found out by a few of them.

    Args:
        rainy: The photographs.
        places: What to look for.
        photographs: Of so many at most, spread evenly over the set.
        cache: Folder to keep what is found in each photograph in, by its content and the settings; None keeps nothing.
        track: Shows the progress.
        rank, world: This process and how many look for the same with one cache, and so share the work.

    Raises:
        DataError: A photograph cannot be read, or the cache cannot be written.
    """
    root = None if cache is None else user_path(cache) / places.key
    for folder in root.glob("??") if root else ():
        remove_leftovers(folder, older=3600)

    def find(index: int, zoom: float) -> list[Patch]:
        encoded = rainy.encoded(index)
        digest = digest_of(encoded)
        path = None if root is None else root / digest[:2] / f"{digest}-{zoom:g}.safetensors"
        kept = None if path is None else _kept(path)
        if kept is not None:
            return kept
        found = find_patches(decode_image(encoded, rainy.where(index)), places, zoom)
        if path is not None:
            try:
                write_whole(path, _packed(found))
            except OSError as error:
                raise DataError(f"cannot keep the rain of {rainy.where(index)}: {one_line(error)}") from None
        return found

    indices = spread(len(rainy), photographs)
    zoom = _zoom_of(rainy, places, [indices[place] for place in spread(len(indices), _TRIED)], find, track)
    order = in_parts(len(indices), rank, world) if root else range(len(indices))
    threads = _threads(rainy.sizes()[indices])
    made = track(
        in_threads(lambda place: find(indices[place], zoom), order, threads=threads),
        len(order),
        "looking for rain in plain places",
    )
    found = dict(zip(order, made, strict=True))
    most = max(1, _SQUARES // len(indices))
    patches = [each[:most] for each in plainest([found[place] for place in range(len(indices))], places)]
    return PlainRain([rainy.names[index] for index in indices], indices, patches, zoom)


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below ``count``, evenly spread, the first and the last among them."""
    return [int(number) for number in np.unique(np.linspace(0, count - 1, min(most, count)).round())]


def _zoom_of(
    rainy: ImageSource,
    places: PlainPlaces,
    indices: Sequence[int],
    find: Callable[[int, float], list[Patch]],
    track: Track[list[Patch]],
) -> float:
    """The zoom by which plain places cover most of these photographs, or one nearer to 1 by which next to as much."""
    sizes = rainy.sizes()[indices]
    tried: dict[tuple[float, ...], float] = {}
    for zoom in ZOOMS:  # the same versions of all need no second look
        tried.setdefault(tuple(places.scale(height, width, zoom) for height, width in sizes.tolist()), zoom)
    work = [
        (zoom, scale, index) for scales, zoom in tried.items() for scale, index in zip(scales, indices, strict=True)
    ]
    tries = in_threads(lambda each: find(each[2], each[0]), work, threads=_threads(sizes))
    found = track(tries, len(work), "how wide are the streaks")
    covered, counts = dict.fromkeys(ZOOMS, 0.0), dict.fromkeys(ZOOMS, 0)
    for (zoom, scale, _), patches in zip(work, found, strict=True):
        covered[zoom] += len(patches) * scale**2
        counts[zoom] += len(patches)
    most = max((covered[zoom] for zoom in ZOOMS if counts[zoom] >= _CONVINCING), default=0.0)
    return next((zoom for zoom in ZOOMS if counts[zoom] >= _CONVINCING and covered[zoom] >= _NEXT_TO * most), ZOOMS[0])


def _threads(sizes: Sizes) -> int:
    """How many photographs are looked at at once: as many as there are threads for, and no more than memory holds."""
    largest = int(sizes.astype(np.int64).prod(axis=1).max())
    return max(1, min((os.cpu_count() or 1) + 4, _MEMORY // (_BYTES * largest)))


def _packed(patches: Sequence[Patch]) -> bytes:
    """A side of a photograph's squares is that of all."""
    rain = np.stack([patch.rain for patch in patches]) if patches else np.zeros((0, 1, 1), np.uint8)
    place = np.array([(patch.top, patch.left) for patch in patches], np.int64).reshape(-1, 2)
    measures = [(patch.energy, patch.evidence, patch.roughness) for patch in patches]
    measure = np.array(measures, np.float64).reshape(-1, 3)
    parts: dict[str, NDArray[Any]] = {"rain": rain, "place": place, "measure": measure}
    return save({**parts, "sum": _sum_of(parts)})


def _kept(path: Path) -> list[Patch] | None:
    """What is kept of a photograph; None if that is nothing, or damaged."""
    try:
        parts = load(path.read_bytes())
        if not np.array_equal(parts.pop("sum"), _sum_of(parts)):
            return None
        rows = zip(parts["rain"], parts["place"].tolist(), parts["measure"].tolist(), strict=True)
        return [Patch(rain, *place, *measure) for rain, place, measure in rows]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _sum_of(parts: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """A checksum: what is kept decides about training, and a disk may damage it without a word."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(parts):
        digest.update(parts[name].tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
