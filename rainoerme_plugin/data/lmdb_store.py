"""LMDB in BasicSR's layout: encoded images under their names up to the first dot, listed in ``meta_info.txt``.

lmdb refuses to open one environment twice in a process, and an environment must not cross a fork: readers share one
environment a path, opened when first used; they hold only its path, and all are closed before a fork. Of many, those
that were used longest ago are closed.
"""

from __future__ import annotations

import os
import re
import threading
from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, counted
from ..files import claim, is_temporary, named_after, sync, user_path, write_whole
from .bmp import encode_bmp
from .images import RGB, decode_image, encode_png
from .lmdb_pages import find_damage
from .names import Names
from .threads import in_threads

META = "meta_info.txt"
_AHEAD = 16
"""Images that are decoded before they are written."""
_LONGEST_KEY = 511
"""LMDB's limit, in bytes."""
_SIZE = re.compile(r" \((\d{1,6}),(\d{1,6}),\d+\) \d+$")
_MOST_OPEN = 128
"""Environments; each is an open file, of which a process has 1024 as a rule."""
_environments: dict[str, lmdb.Environment] = {}
"""Those used last come last."""
_lock = threading.Condition()
_readers: Counter[str] = Counter()
"""Threads that read from an environment; what nobody reads from is not in it."""


def key_of(name: str) -> str:
    """The key of an image of this file name: the name up to its first dot."""
    return name.partition(".")[0]


def _close_all() -> None:
    while _environments:
        _environments.popitem()[1].close()


def _before_fork() -> None:
    _lock.acquire()
    while _readers:  # a thread reads from the map that is to be closed
        _lock.wait()
    _close_all()


# A forked child would find its parent's environments open, useless to it and in the way; the parent opens them again.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)


@contextmanager
def _environment(root: Path) -> Iterator[lmdb.Environment]:
    """The environment of a path, held open for a while."""
    key = os.path.realpath(root)
    with _lock:
        environment = _open(root, key)
        _readers[key] += 1
        if len(_environments) > _MOST_OPEN:
            spare = next((other for other in _environments if other not in _readers), None)
            if spare is not None:
                _environments.pop(spare).close()
    try:
        yield environment
    finally:
        with _lock:
            _readers[key] -= 1
            if not _readers[key]:
                del _readers[key]
            _lock.notify_all()


def _open(root: Path, key: str) -> lmdb.Environment:
    environment = _environments.pop(key, None)
    if environment is None:
        try:
            environment = lmdb.open(key, readonly=True, lock=False, readahead=False, meminit=False)
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{root}: cannot be opened as an LMDB ({error}); make it again") from None
    _environments[key] = environment
    return environment


class LmdbReader:
    """Encoded images by key.

    Attributes:
        keys: In the order of the list of images.
        sizes: (N, 2) int32, height and width as listed; 0 where the list does not tell.

    Args:
        root: The LMDB's folder, usually ``NAME.lmdb``.

    Raises:
        DataError: It is not there, its list of images is missing or damaged, or it cannot be opened.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = user_path(root)
        if not os.path.isfile(self.root / "data.mdb"):
            raise DataError(f"no LMDB (a folder with data.mdb) at {self.root} (looked from {Path.cwd()})")
        try:
            if not os.path.isfile(self.root / META):  # a pipe would be waited for
                raise FileNotFoundError(f"no file {META}")
            self.keys, self.sizes = _read_meta(self.root / META)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.root}: its {META} cannot be read ({error}); make the LMDB again") from None
        if not self.keys:
            raise DataError(f"{self.root}: {META} lists no images; make the LMDB again")
        _check_pages(self.root, "make it again")
        self._file = str(self.root / "data.mdb")
        self._length = os.path.getsize(self._file)
        with _environment(self.root) as environment:
            entries = int(environment.stat()["entries"])
        if entries != len(self.keys):
            raise DataError(
                f"{self.root}: {META} lists {counted(len(self.keys), 'image')}, but it holds {entries}; make it again"
            )

    def get(self, key: str) -> bytes:
        """The encoded image under ``key``.

        Raises:
            DataError: There is none, or the LMDB is damaged.
        """
        with self.view(key) as data:
            return bytes(data)

    @contextmanager
    def view(self, key: str) -> Iterator[memoryview]:
        """The encoded image under ``key`` as it lies in the file, good until the context ends.

        Raises:
            DataError: There is none, or the LMDB is damaged.
        """
        with _environment(self.root) as environment:
            # To read behind the end of a mapped file kills the process.
            with suppress(OSError):
                if os.stat(self._file).st_size < self._length:
                    raise DataError(f"{self.root}: data.mdb is shorter than when it was opened; make the LMDB again")
            try:
                transaction = environment.begin(buffers=True)
                value = transaction.get(key.encode())
            except lmdb.Error as error:
                raise DataError(f"{self.root}: damaged LMDB ({error}); make it again") from None
            if value is None:
                raise DataError(f"{self.root}: no image under the key '{key}'; make the LMDB again")
            with transaction:
                yield value


def _check_pages(root: Path, remedy: str) -> None:
    """Refuse an LMDB whose pages would kill the process that reads them."""
    try:
        damage = find_damage(root / "data.mdb")
    except OSError as error:
        raise DataError(f"{root}: data.mdb cannot be read ({error.strerror})") from None
    if damage is not None:
        raise DataError(f"{root}: damaged LMDB ({damage}); {remedy}")


def _read_meta(path: Path) -> tuple[Names, NDArray[np.int32]]:
    sizes = array("i")

    def keys() -> Iterator[str]:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if stripped := line.strip():
                    found = _SIZE.search(stripped)
                    sizes.extend((int(found[1]), int(found[2])) if found else (0, 0))
                    yield key_of(stripped)

    names = Names(keys())
    return names, np.array(sizes, np.int32).reshape(-1, 2)


def write_lmdb(
    root: Path,
    images: Iterable[tuple[str, bytes | RGB]],
    capacity: int,
    commit_every: int = 256,
    decoded: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> Iterator[str]:
    """Write images into a new LMDB, yielding the name of each when it is written or found there.

    It grows in ``ROOT.partial`` and takes its name when all of it is on the disk; run again after an interruption, it
    keeps what was committed. All cores decode, some images ahead.

    Args:
        root: The LMDB's folder; must not exist.
        images: File names, and the bytes of the files or pixels; the key is the name up to its first dot.
        capacity: Upper bound on the bytes of all images as they are stored.
        commit_every: Images a transaction.
        decoded: Store uncompressed BMP files, which crops can be cut out of without decoding; else files are stored
            as they are, so that JPEGs stay as small as they were, and pixels as PNG.
        more: Other files to put into its folder.

    Raises:
        RainOerMeError: Another process is writing it.
        DataError: ``root`` exists, an image cannot be decoded, two names have one key, or there
            is no room.
    """
    if root.exists():
        raise DataError(f"{root} exists already; remove it, or choose another name")
    partial = root.with_name(named_after(root.name, ".partial"))
    with claim(partial):
        _check_ours(partial, more or {})
        if os.path.isfile(partial / "data.mdb"):
            _check_pages(partial, "left over; remove it and run again")
        if root.exists():  # by another process, in the moment before
            raise DataError(f"{root} exists already; remove it, or choose another name")
        partial.mkdir(exist_ok=True)
        try:
            # Its mode is masked by the umask; its own default would make the file executable.
            environment = lmdb.open(str(partial), map_size=2 * capacity + (64 << 20), lock=False, mode=0o666)
        except (lmdb.Error, OSError, OverflowError) as error:
            raise DataError(f"{partial}: left over and damaged ({error}); remove it and run again") from None
        try:
            meta = yield from _fill(environment, images, commit_every, decoded)
        except lmdb.Error as error:
            raise DataError(f"{partial}: cannot be written ({error}); make room and run again") from None
        finally:
            entries = environment.stat()["entries"]
            environment.close()
        if entries != meta.count(b"\n"):
            for path in partial.iterdir():  # `_check_ours` knows them all
                path.unlink()
            partial.rmdir()
            raise DataError(f"{partial} held images that are no longer in the folder; removed it, run again")
        # The data before the name: after a power cut the name must not stand for less. Commits are synced already.
        for name, data in {**(more or {}), META: bytes(meta)}.items():
            write_whole(partial / name, data, durable=True)
        os.replace(partial, root)
        sync(root.parent)


def _check_ours(partial: Path, more: Mapping[str, bytes]) -> None:
    """Refuse a folder in the place of a half-written LMDB that holds anything else; it is taken over, or removed."""
    ours = {"data.mdb", META, *more}
    others = [path.name for path in partial.iterdir() if path.name not in ours] if partial.exists() else []
    others = [name for name in others if not is_temporary(partial / name)]
    if others:
        raise DataError(f"{partial}: holds other files than a half-written LMDB ({others[0]}); move it away")


def _fill(
    environment: lmdb.Environment, images: Iterable[tuple[str, bytes | RGB]], commit_every: int, decoded: bool
) -> Generator[str, None, bytearray]:
    """Put all images in; returns the list of them."""

    def prepare(image: tuple[str, bytes | RGB]) -> tuple[str, bytes, tuple[int, ...]]:
        name, given = image
        pixels = decode_image(given, name) if isinstance(given, bytes) else given
        if decoded:
            data = encode_bmp(pixels)
        else:
            data = given if isinstance(given, bytes) else encode_png(pixels)
        return name, data, pixels.shape

    meta, seen = bytearray(), set[int]()
    transaction = environment.begin(write=True)
    try:
        for count, (name, data, shape) in enumerate(in_threads(prepare, images, _AHEAD), 1):
            key = _new_key(name)
            # Hashes, not names: 640,000 of them take little. One that is there already is looked up.
            if hash(key) in seen and (other := _name_with(key, meta)) is not None:
                raise DataError(f"{name} and {other} have one key, '{key}'; rename one of them")
            seen.add(hash(key))
            meta += f"{name} ({shape[0]},{shape[1]},{shape[2]}) 1\n".encode()
            if transaction.get(key.encode()) != data:
                transaction.put(key.encode(), data)
            if count % commit_every == 0:
                transaction.commit()
                transaction = environment.begin(write=True)
            yield name
    except lmdb.Error:
        transaction.abort()
        raise
    except BaseException:
        transaction.commit()
        raise
    transaction.commit()
    return meta


def _new_key(name: str) -> str:
    """The key of a file of this name, if the list of images and LMDB can hold it."""
    key = key_of(name)
    try:
        fits = 0 < len(key.encode()) <= _LONGEST_KEY and name.encode() and name.strip() == name
    except UnicodeEncodeError:
        fits = False
    if not fits or "\n" in name or "\r" in name:
        raise DataError(
            f"{name!a}: an LMDB takes names in UTF-8 of one line, with 1 to {_LONGEST_KEY} bytes before their first "
            "dot; rename it"
        )
    return key


def _name_with(key: str, meta: bytearray) -> str | None:
    """The name in a list of images whose key this is."""
    names = (line.rpartition(" (")[0] for line in meta.decode().splitlines())
    return next((name for name in names if key_of(name) == key), None)
