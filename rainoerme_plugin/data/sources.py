"""Where images come from: a folder, an LMDB, or memory; all alike to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import DataError
from .images import RGB, SUFFIXES, Header, decode_image, read_header
from .lmdb_store import LmdbReader

A = TypeVar("A")
T = TypeVar("T")
Track = Callable[[Iterable[T], int, str], Iterable[T]]
"""Wraps an iterable of a known length and shows its progress under a title."""


def untracked(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    """Shows nothing."""
    return items


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

    def header(self, index: int) -> Header:
        """Its size, without decoding it."""
        ...

    def read(self, index: int) -> RGB:
        """The image, (H, W, 3) uint8."""
        ...


class FileSource:
    """Image files, under the names given or their own."""

    def __init__(self, paths: Sequence[Path], names: Sequence[str] | None = None) -> None:
        self.paths = list(paths)
        self.names: Sequence[str] = [path.name for path in paths] if names is None else names

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, index: int) -> str:
        return str(self.paths[index])

    def encoded(self, index: int) -> bytes:
        try:
            return self.paths[index].read_bytes()
        except FileNotFoundError:
            raise DataError(f"{self.paths[index]}: no such file") from None
        except OSError as error:
            raise DataError(f"{self.paths[index]}: cannot be read ({error})") from None

    def header(self, index: int) -> Header:
        return read_header(self.paths[index])

    def read(self, index: int) -> RGB:
        return decode_image(self.paths[index])


def list_images(root: str | Path, recursive: bool = False) -> list[Path]:
    """The images in a folder in the order of their names, those of its subfolders too if ``recursive``; maybe none.

    Raises:
        DataError: There is no such folder.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"no such folder: {root} (looked from {Path.cwd()})")
    found = root.rglob("*") if recursive else root.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    )


class FolderSource(FileSource):
    """The images in a folder (`list_images`), named by their paths in it.

    Raises:
        DataError: There is no such folder, or no image in it.
    """

    def __init__(self, root: str | Path, recursive: bool = False) -> None:
        self.root = Path(root).expanduser()
        paths = list_images(self.root, recursive)
        if not paths:
            raise DataError(f"no images ({', '.join(SUFFIXES)}) in {self.root}")
        super().__init__(paths, [path.relative_to(self.root).as_posix() for path in paths])


class LmdbSource:
    """The images of an LMDB in BasicSR's layout (``basicsr prepare lmdb`` makes one).

    Raises:
        DataError: It is missing, damaged or empty.
    """

    def __init__(self, root: str | Path) -> None:
        self._reader = LmdbReader(root)
        self.root = self._reader.root
        self.names: Sequence[str] = self._reader.keys

    def __len__(self) -> int:
        return len(self.names)

    def where(self, index: int) -> str:
        return f"{self.root}:{self.names[index]}"

    def encoded(self, index: int) -> bytes:
        return self._reader.get(self.names[index])

    def header(self, index: int) -> Header:
        return read_header(self.encoded(index), self.where(index))

    def read(self, index: int) -> RGB:
        return decode_image(self.encoded(index), self.where(index))


class MemorySource:
    """Another source with all its images decoded once: height x width x 3 bytes each; forked workers share them."""

    def __init__(self, source: ImageSource, track: Track[RGB] = untracked, title: str = "reading images") -> None:
        self._source = source
        self.names = source.names
        self._images = list(track(in_threads(source.read, range(len(source))), len(source), title))

    def __len__(self) -> int:
        return len(self._images)

    def where(self, index: int) -> str:
        return self._source.where(index)

    def encoded(self, index: int) -> bytes:
        return self._source.encoded(index)

    def header(self, index: int) -> Header:
        height, width, _ = self._images[index].shape
        return Header(height, width, "RGB")

    def read(self, index: int) -> RGB:
        return self._images[index]


class Picked:
    """Some images of a source, in the order of ``indices``."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = indices
        self.names: Sequence[str] = [source.names[index] for index in indices]

    def __len__(self) -> int:
        return len(self._indices)

    def where(self, index: int) -> str:
        return self._source.where(self._indices[index])

    def encoded(self, index: int) -> bytes:
        return self._source.encoded(self._indices[index])

    def header(self, index: int) -> Header:
        return self._source.header(self._indices[index])

    def read(self, index: int) -> RGB:
        return self._source.read(self._indices[index])


def open_source(root: str | Path) -> FolderSource | LmdbSource:
    """The images of an LMDB (`is_lmdb`) or of a folder."""
    path = Path(root).expanduser()
    return LmdbSource(path) if is_lmdb(path) else FolderSource(path)


def is_lmdb(path: Path) -> bool:
    """Whether a path is meant as an LMDB: by its name, or by what the folder holds."""
    return path.suffix == ".lmdb" or (path / "data.mdb").exists()


def in_threads(function: Callable[[A], T], items: Iterable[A], ahead: int = 64) -> Iterable[T]:
    """``map`` over a few threads, in order, at most ``ahead`` results ahead; the first error ends it."""
    with ThreadPoolExecutor() as pool:
        pending = []
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def check_sizes(source: ImageSource, smallest: int, track: Track[Header] = untracked) -> list[Header]:
    """The headers of all images.

    Raises:
        DataError: One is not an image, or smaller than ``smallest`` x ``smallest`` pixels.
    """
    headers = list(track(in_threads(source.header, range(len(source))), len(source), "checking images"))
    for index, header in enumerate(headers):
        if min(header.height, header.width) < smallest:
            raise DataError(
                f"{source.where(index)}: {header.width}x{header.height} pixels is smaller than the crop of "
                f"{smallest}x{smallest}; remove it or lower crop_size"
            )
    return headers
