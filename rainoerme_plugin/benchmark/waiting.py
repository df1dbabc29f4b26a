"""Derained images that wait until it is known which of them the report shows, so that none is derained again for it."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..files import write_whole

ROOM = 4 << 30
"""Bytes that they take at most: what does not fit is derained again if it is shown."""


def spread_images(count: int, wanted: int) -> set[int]:
    """The numbers of so many of ``count`` images, spread evenly."""
    return {int(number) for number in np.linspace(0, count - 1, min(wanted, count))}


class Waiting:
    """A folder of PNGs that is removed once the report is written.

    Args:
        folder: The folder; images of an earlier run may be in it.
        shown: How many images of each data set, spread evenly, the report shows whatever their figures are.
        room: Bytes for all images of this process.
    """

    def __init__(self, folder: Path, shown: int, room: int = ROOM) -> None:
        self.folder = folder
        self.shown = shown
        self._left = room - sum(path.stat().st_size for path in folder.rglob("*.png"))
        self._turn = threading.Lock()

    def add(self, name: Path, image: bytes) -> None:
        """Keep an encoded image under a relative path, as far as there is room: on the disk, too."""
        with self._turn:
            fits = len(image) <= self._left
            self._left -= len(image) if fits else 0
        if fits:
            with suppress(OSError):
                write_whole(self.folder / name, image)

    def clear(self) -> None:
        """Remove all that still waits."""
        shutil.rmtree(self.folder, ignore_errors=True)
