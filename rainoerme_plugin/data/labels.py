"""Soft labels: made by a coarse filter as they are needed, or once and kept, or found ready-made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..distillation.coarse import CoarseFilter
from ..errors import DataError, one_line
from ..files import remove_leftovers, user_path, write_whole
from ..provenance import code_of
from .images import RGB, decode_image, encode_png
from .lmdb_store import key_of
from .names import Names, result_name
from .sources import FileSource, ImageSource, LmdbSource, Sizes, Track, in_threads, open_source, untracked


class SoftLabels:
    """The soft labels of a source's images by a coarse filter, made whenever they are asked for.

    A crop is filtered with as much around it as its pixels depend on (``coarse_filter.reach``), so that it is the
    whole image's label there. Only the guided filter, whose running sums round, may differ by a grey level.
    """

    def __init__(self, rainy: ImageSource, coarse_filter: CoarseFilter) -> None:
        self.rainy, self.coarse_filter = rainy, coarse_filter
        self.names: Sequence[str] = rainy.names

    def __len__(self) -> int:
        return len(self.rainy)

    def where(self, index: int) -> str:
        return self.rainy.where(index)

    def encoded(self, index: int) -> bytes:
        return encode_png(self.read(index))

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        return self.rainy.sizes(track)

    def read(self, index: int) -> RGB:
        return self.coarse_filter(self.rainy.read(index))

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        return self.crop_both(index, top, left, height, width)[1]

    def crop_both(self, index: int, top: int, left: int, height: int, width: int) -> tuple[RGB, RGB]:
        """A window of a rainy image and of its label, of one reading."""
        down, across = self.coarse_filter.reach
        bottom, right = self.rainy.sizes()[index].tolist()
        first, start = max(0, top - down), max(0, left - across)
        last, end = min(bottom, top + height + down), min(right, left + width + across)
        around = self.rainy.crop(index, first, start, last - first, end - start)
        window = (slice(top - first, top - first + height), slice(left - start, left - start + width))
        return around[window], self.coarse_filter(around)[window]


def digest_of(encoded: bytes) -> str:
    """What names an image, of these bytes, as the code here decodes it."""
    decoding = code_of(decode_image.__module__).encode()
    return hashlib.blake2b(encoded, digest_size=16, key=decoding).hexdigest()


def label_path(cache: Path, coarse_filter: CoarseFilter, encoded: bytes) -> Path:
    """Where the label of the image with these bytes is kept: another image, filter or code, another path."""
    digest = digest_of(encoded)
    return cache / coarse_filter.key / digest[:2] / f"{digest}.png"


def kept_labels(
    rainy: ImageSource,
    coarse_filter: CoarseFilter,
    cache: str | Path,
    track: Track[Path] = untracked,
    rank: int = 0,
    world: int = 1,
) -> FileSource:
    """The soft labels of all rainy images by a coarse filter, in their order, kept; the missing ones are made.

    Every label is written whole under a name of its own, so that an interrupted run goes on where it stopped and
    several may share one cache. Processes that make the same labels share the work without a word: each begins with a
    part of its own, and what another has made meanwhile is there when it comes to it.

    Args:
        rainy: The rainy images.
        coarse_filter: What makes the labels.
        cache: Folder to keep them in.
        track: Shows the progress.
        rank, world: This process and how many make these labels.

    Raises:
        DataError: An image cannot be read or the cache cannot be written.
    """
    root = user_path(cache)
    for folder in (root / coarse_filter.key).glob("??"):
        remove_leftovers(folder, older=3600)

    def ensure(index: int) -> Path:
        encoded = rainy.encoded(index)
        path = label_path(root, coarse_filter, encoded)
        if not path.exists():
            label = coarse_filter(decode_image(encoded, rainy.where(index)))
            try:
                write_whole(path, encode_png(label))
            except OSError as error:
                raise DataError(f"cannot keep the label of {rainy.where(index)}: {one_line(error)}") from None
        return path

    order = in_parts(len(rainy), rank, world)
    paths = track(in_threads(ensure, order), len(order), f"soft labels ({coarse_filter.key})")
    made = Names(str(path) for path in paths)
    return FileSource((made[place] for place in np.argsort(order)), rainy.names)


def in_parts(count: int, rank: int, world: int) -> list[int]:
    """All numbers below ``count``, first the rank's part of them, and from its start on the others, backwards.

    So whoever is done early meets another one half-way; forwards it would run after it and then make the same.
    """
    first, end = rank * count // world, (rank + 1) * count // world
    return [*range(first, end), *range(first - 1, -1, -1), *range(count - 1, end - 1, -1)]


def ready_labels(rainy: ImageSource, root: str | Path) -> FileSource | LmdbSource:
    """Ready-made soft labels from a folder or LMDB, found by the rainy images' names (the file type may differ).

    Raises:
        DataError: One is missing, or it is not clear which is whose.
    """
    source = open_source(root)
    # Files may have dots before their suffix; an LMDB's keys have not.
    keyed = any(isinstance(images, LmdbSource) for images in (rainy, source))
    stem = key_of if keyed else _stem
    numbers: dict[str, int] = {}
    twice = set()
    for index, name in enumerate(source.names):
        if numbers.setdefault(stem(name), index) != index:
            twice.add(stem(name))
    missing = [name for name in rainy.names if stem(name) not in numbers]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(rainy)} rainy images have no label of their name there; "
            f"the first is {missing[0]}"
        )
    doubtful = [name for name in rainy.names if stem(name) in twice]
    if doubtful:
        raise DataError(f"{root}: holds two labels for {doubtful[0]}, of two kinds of file; remove one")
    _told_apart(rainy.names, stem)
    return source.pick([numbers[stem(name)] for name in rainy.names])


def label_names(rainy: ImageSource) -> list[str]:
    """The names of the files to write labels into, in the rainy images' order.

    Raises:
        DataError: Two images would have one, or a name is not fit for a file's.
    """
    names = [result_name(name, rainy.where(index)) for index, name in enumerate(rainy.names)]
    _told_apart(names, _stem)
    return [f"{_stem(name)}.png" for name in names]


def _told_apart(names: Sequence[str], stem: Callable[[str], str]) -> None:
    """Refuse rainy images that would share a label."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(stem(name), name)) != name:
            raise DataError(f"{other} and {name} would have one label, {stem(name)}; rename one of them")


def check_label_sizes(rainy: ImageSource, labels: ImageSource) -> None:
    """Compare the labels' sizes with those of the rainy images.

    Raises:
        DataError: A label is not an image or of another size.
    """
    sizes, found = rainy.sizes(), labels.sizes()
    for index in np.flatnonzero((sizes != found).any(axis=1))[:1]:
        height, width = found[index]
        raise DataError(
            f"label {labels.where(index)} is {width}x{height} pixels, its image {rainy.where(index)} "
            f"{sizes[index, 1]}x{sizes[index, 0]}; make the label again"
        )


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
