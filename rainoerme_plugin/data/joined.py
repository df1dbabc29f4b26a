"""Several folders or LMDBs as one source of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files import user_path
from .images import RGB
from .names import Names
from .sources import FolderSource, ImageSource, LmdbSource, Sizes, Track, open_source, untracked


class JoinedSource:
    """The images of several sources, one source behind the other.

    Two images of one name are two images; `where` tells them apart.

    Args:
        sources: At least one.

    Attributes:
        counts: How many images each source has.
    """

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self._sources = list(sources)
        self.names: Sequence[str] = Names(name for source in sources for name in source.names)
        self.counts = [len(source) for source in sources]
        self._ends = np.cumsum(self.counts)
        self._sizes: Sizes | None = None

    def __len__(self) -> int:
        return len(self.names)

    def _at(self, index: int) -> tuple[ImageSource, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._sources[part], int(index - self._ends[part] + self.counts[part])

    def where(self, index: int) -> str:
        source, own = self._at(index)
        return source.where(own)

    def encoded(self, index: int) -> bytes:
        source, own = self._at(index)
        return source.encoded(own)

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        if self._sizes is None:
            self._sizes = np.concatenate([source.sizes(track) for source in self._sources])
        return self._sizes

    def read(self, index: int) -> RGB:
        source, own = self._at(index)
        return source.read(own)

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        source, own = self._at(index)
        return source.crop(own, top, left, height, width)


def joined(sources: Sequence[ImageSource]) -> ImageSource:
    """`JoinedSource`; of one source, that."""
    return sources[0] if len(sources) == 1 else JoinedSource(sources)


def open_sources(roots: Sequence[str | Path]) -> list[FolderSource | LmdbSource]:
    """The images of several folders or LMDBs.

    Raises:
        DataError: One is not there, is empty or damaged, or is named twice.
    """
    seen: dict[str, str | Path] = {}
    for root in roots:
        real = os.path.realpath(user_path(root))
        if real in seen:
            other = "" if str(seen[real]) == str(root) else f" (as {seen[real]})"
            raise DataError(f"{root} is named twice{other}; weights say how often its images come")
        seen[real] = root
    return [open_source(root) for root in roots]
