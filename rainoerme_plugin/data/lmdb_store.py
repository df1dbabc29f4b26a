"""LMDB in BasicSR's layout: encoded images under their names up to the first dot, listed in ``meta_info.txt``.

lmdb refuses to open one environment twice in a process, and an environment must not cross a fork: readers share one
environment a path, opened when first used; they hold only its path, and all are closed before a fork.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb

from ..errors import DataError
from .images import decode_image, write_whole

META = "meta_info.txt"
_environments: dict[str, lmdb.Environment] = {}
_opening = threading.Lock()


def key_of(name: str) -> str:
    """The key of an image of this file name: the name up to its first dot."""
    return name.partition(".")[0]


def _close_all() -> None:
    while _environments:
        _environments.popitem()[1].close()


def _before_fork() -> None:
    _opening.acquire()
    _close_all()


# A forked child would find its parent's environments open, useless to it and in the way; the parent opens them again.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_opening.release, after_in_child=_opening.release)


def _environment(root: Path) -> lmdb.Environment:
    key = str(root.resolve())
    with _opening:
        if key not in _environments:
            try:
                environment = lmdb.open(key, readonly=True, lock=False, readahead=False, meminit=False)
            except lmdb.Error as error:
                raise DataError(f"{root}: cannot be opened as an LMDB ({error}); make it again") from None
            # Reading a page beyond the end of its file would kill the process.
            page_count = int(environment.info()["last_pgno"]) + 1
            if (root / "data.mdb").stat().st_size < page_count * int(environment.stat()["psize"]):
                environment.close()
                raise DataError(f"{root}: data.mdb ends too early; make the LMDB again")
            _environments[key] = environment
        return _environments[key]


class LmdbReader:
    """Encoded images by key.

    Args:
        root: The LMDB's folder, usually ``NAME.lmdb``.

    Raises:
        DataError: It is not there, its list of images is missing or damaged, or it cannot be opened.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        if not (self.root / "data.mdb").is_file():
            raise DataError(f"no LMDB (a folder with data.mdb) at {self.root} (looked from {Path.cwd()})")
        try:
            lines = (self.root / META).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.root}: its {META} cannot be read ({error}); make the LMDB again") from None
        self.keys = [key_of(line) for line in lines if line.strip()]
        if not self.keys:
            raise DataError(f"{self.root}: {META} lists no images; make the LMDB again")
        entries = int(_environment(self.root).stat()["entries"])
        if entries != len(self.keys):
            raise DataError(f"{self.root}: {META} lists {len(self.keys)} images, but it holds {entries}; make it again")

    def get(self, key: str) -> bytes:
        """The encoded image under ``key``.

        Raises:
            DataError: There is none, or the LMDB is damaged.
        """
        try:
            with _environment(self.root).begin(buffers=False) as transaction:
                value = transaction.get(key.encode())
        except lmdb.Error as error:
            raise DataError(f"{self.root}: damaged LMDB ({error}); make it again") from None
        if value is None:
            raise DataError(f"{self.root}: no image under the key '{key}'; make the LMDB again")
        return bytes(value)


def write_lmdb(
    root: Path, images: Iterable[tuple[str, bytes]], capacity: int, commit_every: int = 256
) -> Iterator[str]:
    """Write encoded images into a new LMDB, yielding the name of each when it is written or found there.

    It grows in ``ROOT.partial`` and takes its name when complete; run again after an interruption, it keeps what was
    committed. Images are stored as they are encoded, so that JPEGs stay as small as they were.

    Args:
        root: The LMDB's folder; must not exist.
        images: File names and bytes, every one an image; the key is the name up to its first dot.
        capacity: Upper bound on the bytes of all images.
        commit_every: Images a transaction.

    Raises:
        DataError: ``root`` exists, an image cannot be decoded, or two names have one key.
    """
    if root.exists():
        raise DataError(f"{root} exists already; remove it, or choose another name")
    partial = root.with_name(root.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        environment = lmdb.open(str(partial), map_size=2 * capacity + (64 << 20), lock=False)
    except lmdb.Error as error:
        raise DataError(f"{partial}: left over and damaged ({error}); remove it and run again") from None
    meta: dict[str, str] = {}
    transaction = environment.begin(write=True)
    try:
        for count, (name, data) in enumerate(images, 1):
            key = key_of(name)
            if key in meta:
                raise DataError(f"{name} and {meta[key].rpartition(' (')[0]} have one key, '{key}'; rename one of them")
            height, width, channels = decode_image(data, name).shape
            meta[key] = f"{name} ({height},{width},{channels}) 1"
            if transaction.get(key.encode()) != data:
                transaction.put(key.encode(), data)
            if count % commit_every == 0:
                transaction.commit()
                transaction = environment.begin(write=True)
            yield name
        transaction.commit()
    except BaseException:
        transaction.commit()
        environment.close()
        raise
    stale = environment.stat()["entries"] != len(meta)
    environment.sync()
    environment.close()
    if stale:
        shutil.rmtree(partial)
        raise DataError(f"{partial} held images that are no longer in the folder; removed it, run again")
    write_whole(partial / META, ("\n".join(meta.values()) + "\n").encode())
    os.replace(partial, root)
