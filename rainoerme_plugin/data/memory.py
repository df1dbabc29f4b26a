"""Images decoded once, in one block of memory that all workers share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..devices import read_kib
from ..errors import DataError
from .images import RGB
from .labels import SoftLabels
from .sources import ImageSource, Sizes, Track, cut, in_threads, untracked

_SHARED = "/dev/shm"  # noqa: S108 - where torch puts shared memory on Linux


class MemorySource:
    """Another source with all its images decoded, by all cores, when it is made.

    Forked workers share the pixels with their parent. For spawned ones they move into shared memory, once.

    Args:
        source: The images.
        track: Shows the progress under ``title``.
        pixels: (P, 3) uint8, where they are put, rows after rows; P is theirs if it is None.
        first: Where in ``pixels`` they begin.

    Raises:
        DataError: An image cannot be read, or they do not fit into the memory that is free.
    """

    def __init__(
        self,
        source: ImageSource,
        track: Track[None] = untracked,
        title: str = "reading images",
        pixels: Tensor | None = None,
        first: int = 0,
    ) -> None:
        self._source = source
        self.names: Sequence[str] = source.names
        self._sizes = source.sizes()
        ends = np.cumsum(_areas(self._sizes))
        self.starts = first + ends - _areas(self._sizes)
        """Where in ``pixels`` each image begins, int64."""
        self.pixels = reserve(int(ends[-1])) if pixels is None else pixels

        def fill(index: int) -> None:
            image, place = source.read(index), self.read(index)
            if image.shape != place.shape:
                raise DataError(f"{self.where(index)}: has changed while it was read; start again")
            place[:] = image

        for _ in track(in_threads(fill, range(len(source))), len(source), title):
            pass

    def __len__(self) -> int:
        return len(self.names)

    def where(self, index: int) -> str:
        return self._source.where(index)

    def encoded(self, index: int) -> bytes:
        return self._source.encoded(index)

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        return self._sizes

    def read(self, index: int) -> RGB:
        height, width = self._sizes[index].tolist()
        start = int(self.starts[index])
        # A view made anew each time: moving into shared memory gives the tensor another address.
        return self.pixels[start : start + height * width].numpy().reshape(height, width, 3)

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        return cut(self.read(index), self.where(index), top, left, height, width)

    def __getstate__(self) -> dict[str, Any]:
        if not self.pixels.is_shared() and os.path.isdir(_SHARED):
            room = os.statvfs(_SHARED)
            _check_room(self.pixels.numel(), room.f_bavail * room.f_frsize, f"in {_SHARED}, for spawned workers")
        return self.__dict__


def into_memory(
    rainy: ImageSource,
    labels: ImageSource,
    clean: ImageSource,
    track: Track[None] = untracked,
    rain: ImageSource | None = None,
) -> tuple[MemorySource, ...]:
    """Decode three sources, or four with a bank of rain, into one block of memory, one behind the other.

    `SoftLabels` are made of the rainy images that are in memory by then.

    Raises:
        DataError: An image cannot be read, or they do not fit into the memory that is free.
    """
    sources = (rainy, labels, clean) if rain is None else (rainy, labels, clean, rain)
    ends = np.cumsum([int(_areas((rainy if source is labels else source).sizes()).sum()) for source in sources])
    pixels = reserve(int(ends[-1]))
    held = MemorySource(rainy, track, "rainy images into memory", pixels)
    if isinstance(labels, SoftLabels):
        labels = SoftLabels(held, labels.coarse_filter)
    others = zip((labels, *sources[2:]), ("labels", "clean images", "rain"), ends.tolist(), strict=False)
    return held, *(MemorySource(each, track, f"{what} into memory", pixels, first) for each, what, first in others)


def _areas(sizes: Sizes) -> NDArray[np.int64]:
    return np.prod(sizes, axis=1, dtype=np.int64)


def reserve(count: int) -> Tensor:
    """Memory for ``count`` pixels, (count, 3) uint8, not written yet.

    Raises:
        DataError: So much is not free.
    """
    _check_room(3 * count, free_memory(), "of memory")
    return torch.empty(count, 3, dtype=torch.uint8)


def _check_room(wanted: int, free: int | None, of_what: str) -> None:
    if free is not None and wanted > free:
        raise DataError(
            f"the decoded images take {wanted / 1e9:.1f} GB, but only {free / 1e9:.1f} GB {of_what} are free; "
            "take source: files, best with an LMDB (basicsr prepare lmdb --decoded)"
        )


def free_memory(root: str | Path = "/") -> int | None:
    """Bytes of memory that can be had, as Linux or a container's limit has it; None where neither tells.

    Args:
        root: Below it are ``proc`` and ``sys``.
    """
    known = []
    with suppress(OSError, StopIteration):
        known.append(read_kib(Path(root) / "proc/meminfo", "MemAvailable:"))
    group = Path(root) / "sys/fs/cgroup"
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        cached = [line.split()[1] for line in (group / "memory.stat").read_text().splitlines() if "_file " in line]
        known.append(max(0, limit - used + sum(map(int, cached))))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return min(known, default=None)
