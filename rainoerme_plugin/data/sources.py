"""Where images come from: a folder or an LMDB (`memory` has the third), all alike to a dataset."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from ..errors import DataError, counted
from ..files import user_path
from .bmp import crop_bmp
from .images import RGB, SUFFIXES, decode_image, read_file, read_header
from .lmdb_store import LmdbReader
from .names import Names
from .shards import check_count, shard_folders
from .threads import Track as Track
from .threads import in_threads as in_threads
from .threads import untracked as untracked

Sizes: TypeAlias = NDArray[np.int32]
"""(N, 2), the height and width of each image."""
_SHOWN = 5
"""Names that a message lists."""


class ImageSource(Protocol):
    """A numbered collection of images.

    ``names`` are relative paths (folder) or keys (LMDB), in the order of the numbers.
    """

    names: Sequence[str]

    def __len__(self) -> int: ...

    def where(self, index: int) -> str:
        """The image's path, for messages."""
        ...

    def encoded(self, index: int) -> bytes:
        """The bytes of its file."""
        ...

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        """The sizes of all images, without decoding them; ``track`` shows the progress where that takes a while."""
        ...

    def read(self, index: int) -> RGB:
        """The image, (H, W, 3) uint8."""
        ...

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        """A window of the image, (height, width, 3) uint8, maybe a view of memory that is not to be written."""
        ...


class FileSource:
    """Image files, under the names given or their own."""

    def __init__(self, paths: Iterable[str | Path], names: Iterable[str] | None = None) -> None:
        self._files = Names(map(str, paths))
        self.names: Sequence[str] = Names(Path(file).name for file in self._files) if names is None else Names(names)
        self._sizes: Sizes | None = None

    def __len__(self) -> int:
        return len(self._files)

    @property
    def paths(self) -> list[Path]:
        """All files; a new list."""
        return [Path(file) for file in self._files]

    def where(self, index: int) -> str:
        return self._files[index]

    def encoded(self, index: int) -> bytes:
        return read_file(Path(self._files[index]))

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        if self._sizes is None:
            self._sizes = _listed(track(in_threads(self._size, range(len(self))), len(self), "checking images"))
        return self._sizes

    def _size(self, index: int) -> tuple[int, int]:
        return read_header(Path(self._files[index]))[:2]

    def read(self, index: int) -> RGB:
        return decode_image(Path(self._files[index]))

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        return cut(self.read(index), self._files[index], top, left, height, width)

    def pick(self, indices: Sequence[int]) -> FileSource:
        """Some of the images, in the order of ``indices``."""
        return FileSource((self._files[index] for index in indices), (self.names[index] for index in indices))


def list_folder(root: Path, recursive: bool = False) -> list[Path]:
    """All that is in a folder, in no order.

    Raises:
        DataError: There is no such folder, or it cannot be read.
    """
    if not os.path.isdir(root):
        raise DataError(f"no such folder: {root} (looked from {Path.cwd()})")
    try:
        return list(root.rglob("*") if recursive else root.iterdir())
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror})") from None


def list_images(root: str | Path, recursive: bool = False) -> list[Path]:
    """The images in a folder in the order of their names, those of its subfolders too if ``recursive``; maybe none.

    Only files are images, also those that links lead to: no folders, pipes or devices of such a name.

    Raises:
        DataError: There is no such folder, or it cannot be read.
    """
    return _sorted_out(user_path(root), recursive)[0]


def _sorted_out(root: Path, recursive: bool) -> tuple[list[Path], list[Path]]:
    """The images in a folder, and what else is in it; hidden files are neither."""
    images, others = [], []
    for path in sorted(list_folder(root, recursive)):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.suffix.lower() in SUFFIXES and os.path.isfile(path):
            images.append(path)
        elif not (recursive and os.path.isdir(path) and not os.path.islink(path)):  # what is in it stands here, too
            others.append(path)
    return images, others


def left_alone(root: Path, others: Iterable[Path]) -> list[str]:
    """What is said of files and folders in a folder that are not read: a line, or none."""
    folders, kinds = [], Counter[str]()
    for path in others:
        if os.path.isdir(path):
            folders.append(path.name)
        else:
            kinds[path.suffix.lower() or "without a suffix"] += 1
    told = []
    if kinds:
        listed = ", ".join(kind for kind, _ in kinds.most_common(_SHOWN))
        told.append(f"{counted(kinds.total(), 'other file')} ({listed})")
    if folders:
        more = ", ..." if len(folders) > _SHOWN else ""
        told.append(f"{counted(len(folders), 'folder')} ({', '.join(folders[:_SHOWN])}{more})")
    return [f"{root}: left alone: {' and '.join(told)}"] if told else []


class FolderSource(FileSource):
    """The images in a folder (`list_images`), named by their paths in it.

    Attributes:
        notes: What is to be said of files and folders that are left alone.

    Raises:
        DataError: There is no such folder, or no image in it.
    """

    def __init__(self, root: str | Path, recursive: bool = False) -> None:
        self.root = user_path(root)
        paths, others = _sorted_out(self.root, recursive)
        if not paths:
            raise DataError(f"no images ({', '.join(SUFFIXES)}) in {self.root}")
        self.notes: Sequence[str] = left_alone(self.root, others)
        super().__init__(paths, (path.relative_to(self.root).as_posix() for path in paths))


class LmdbSource:
    """The images of an LMDB in BasicSR's layout, in one piece or sharded (``basicsr prepare lmdb`` makes both).

    Sizes are those that its list of images tells. A crop of an uncompressed BMP file (``--decoded``) is cut out of
    the file; others are decoded.

    Raises:
        DataError: It is missing, damaged or empty, or a shard is.
    """

    notes: Sequence[str] = ()
    """As a folder's; an LMDB holds nothing besides."""

    def __init__(self, root: str | Path) -> None:
        self.root = user_path(root)
        folders = shard_folders(self.root)
        self._readers = [LmdbReader(folder) for folder in folders]
        self.names: Sequence[str] = Names.joined([reader.keys for reader in self._readers])
        self._sizes: Sizes = np.concatenate([reader.sizes for reader in self._readers])
        counts = [len(reader.keys) for reader in self._readers]
        self._shards = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        for reader in self._readers:
            del reader.keys, reader.sizes  # joined by now: once is enough
        check_count(self.root, folders, len(self))

    def __len__(self) -> int:
        return len(self.names)

    def _reader(self, index: int) -> LmdbReader:
        return self._readers[self._shards[index]]

    def where(self, index: int) -> str:
        return f"{self._reader(index).root}:{self.names[index]}"

    def encoded(self, index: int) -> bytes:
        return self._reader(index).get(self.names[index])

    def sizes(self, track: Track[tuple[int, int]] = untracked) -> Sizes:
        unknown = np.flatnonzero(self._sizes.min(axis=1) == 0)
        if len(unknown):
            found = track(in_threads(self._size, unknown.tolist()), len(unknown), "checking images")
            self._sizes[unknown] = _listed(found)
        return self._sizes

    def _size(self, index: int) -> tuple[int, int]:
        return read_header(self.encoded(index), self.where(index))[:2]

    def read(self, index: int) -> RGB:
        return decode_image(self.encoded(index), self.where(index))

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> RGB:
        with self._reader(index).view(self.names[index]) as data:
            window = crop_bmp(data, top, left, height, width)
        if window is None:
            return cut(self.read(index), self.where(index), top, left, height, width)
        return window

    def pick(self, indices: Sequence[int]) -> Self:
        """Some of the images, in the order of ``indices``."""
        picked = copy(self)
        picked.names = Names(self.names[index] for index in indices)
        numbers = np.asarray(indices, np.int64)
        picked._sizes, picked._shards = self._sizes[numbers], self._shards[numbers]
        return picked


def cut(image: RGB, where: str, top: int, left: int, height: int, width: int) -> RGB:
    """A window of an image, as a view.

    Raises:
        DataError: It goes over the image's border, which is then not of the size it was thought to be.
    """
    window = image[top : top + height, left : left + width]
    if window.shape[:2] != (height, width):
        raise DataError(
            f"{where}: is of {image.shape[1]}x{image.shape[0]} pixels, less than when it was listed; if it is in an "
            "LMDB, make that again"
        )
    return window


def open_source(root: str | Path) -> FolderSource | LmdbSource:
    """The images of an LMDB (`is_lmdb`) or of a folder."""
    path = user_path(root)
    return LmdbSource(path) if is_lmdb(path) else FolderSource(path)


def is_lmdb(path: Path) -> bool:
    """Whether a path is meant as an LMDB: by its name, or by what the folder holds."""
    return path.suffix == ".lmdb" or os.path.exists(path / "data.mdb")


def check_sizes(
    source: ImageSource, smallest: int, track: Track[tuple[int, int]] = untracked, key: str = "crop_size"
) -> Sizes:
    """The sizes of all images.

    Raises:
        DataError: One is not an image, or smaller than ``smallest`` x ``smallest`` pixels, which ``key`` asks for.
    """
    sizes = source.sizes(track)
    for index in np.flatnonzero(sizes.min(axis=1) < smallest)[:1]:
        height, width = sizes[index]
        raise DataError(
            f"{source.where(index)}: {width}x{height} pixels is smaller than the crop of {smallest}x{smallest}; "
            f"remove it or lower {key}"
        )
    return sizes


def _listed(sizes: Iterable[tuple[int, int]]) -> Sizes:
    return np.fromiter((side for size in sizes for side in size), np.int32).reshape(-1, 2)
