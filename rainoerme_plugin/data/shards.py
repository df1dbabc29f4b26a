"""Sharded LMDBs: a folder ``NAME.lmdb`` with ``00001-of-00016.lmdb`` and so on in it, each an LMDB in BasicSR's layout.

A shard is made by itself, on any machine, of a contiguous part of the images; so the shards one after the other hold
the images in the order of one LMDB of all. What it is a part of stands in it, for shards of two data sets may lie in
one folder by mistake.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, OptionError, counted
from ..files import user_path
from .images import RGB
from .lmdb_store import key_of, write_lmdb

RECORD = "part.json"
"""In a shard's folder: the `Whole` that it is a part of."""
_MOST = 99_999
"""Parts, for the names have five digits."""
_NAME = re.compile(r"(\d{5})-of-(\d{5})\.lmdb(\.partial)?")
_LISTED = 10
"""Numbers of parts that a message names."""


@dataclass(frozen=True)
class Part:
    """The part of this ``number``, from 1, of ``count`` parts."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """The shard's folder."""
        return f"{self.number:05}-of-{self.count:05}.lmdb"

    def of(self, length: int) -> range:
        """The part's numbers of ``length`` images: contiguous, and as many as in the other parts or one more.

        Raises:
            OptionError: There are fewer images than parts.
        """
        if length < self.count:
            raise OptionError(
                f"--part {self}: {counted(length, 'image')} cannot be in {counted(self.count, 'part')}; take fewer"
            )
        return range((self.number - 1) * length // self.count, self.number * length // self.count)


def parse_part(text: str) -> Part:
    """The part that ``K/N`` names.

    Raises:
        OptionError: It is none.
    """
    found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise OptionError(f"--part {text}: expected K/N with K from 1 to N and N up to {_MOST}, such as 3/16")
    return Part(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Whole:
    """What shards are parts of; those of one data set agree in it.

    Attributes:
        content: What is in it, and how it was made.
        images: Their number.
        names: A digest of all their names in their order.
    """

    content: str
    images: int
    names: str

    def encoded(self) -> bytes:
        """The contents of `RECORD`."""
        return json.dumps(asdict(self)).encode()


def whole_of(names: Sequence[str], content: str) -> Whole:
    """The data set of these images, all of them.

    Raises:
        DataError: Two images have one key.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    # Two may be in two shards, whose writers do not see each other. Hashes, not keys: eight bytes for each image.
    hashes = np.fromiter((hash(key_of(name)) for name in names), np.int64, len(names))
    order = np.argsort(hashes, kind="stable")
    for place in np.flatnonzero(np.diff(hashes[order]) == 0):
        one, other = (names[order[place + step]] for step in (0, 1))
        if key_of(one) == key_of(other):
            raise DataError(f"{other} and {one} have one key, '{key_of(one)}'; rename one of them")
    return Whole(content, len(names), digest.hexdigest())


def shard_folders(root: str | Path) -> list[Path]:
    """The shards of a sharded LMDB in their order; of a folder without any, that folder.

    Raises:
        DataError: A shard is missing, half-written, or one of another data set.
    """
    root = user_path(root)
    found, half = _parts_in(root)
    if not (found or half):
        return [root]
    counts = sorted({part.count for part in found | half})
    if len(counts) > 1:
        raise DataError(
            f"{root}: holds shards of {counted(counts[0], 'part')} and others of {counts[1]}; remove those of one kind"
        )
    parts = [Part(number, counts[0]) for number in range(1, counts[0] + 1)]
    if missing := [part for part in parts if part not in found]:
        numbers = [f"{part.number}{' (half-written)' * (part in half)}" for part in missing[:_LISTED]]
        more = ", ..." if len(missing) > _LISTED else ""
        raise DataError(
            f"{root}: {len(missing)} of {counts[0]} shards are not there: {', '.join(numbers)}{more}; "
            f"make them, by --part {missing[0]} and so on"
        )
    folders = [root / part.name for part in parts]
    first = _read_record(folders[0])
    for folder in folders[1:]:
        _check_alike(folder, _read_record(folder), first, f"{folders[0].name}")
    return folders


def check_count(root: Path, folders: Sequence[Path], images: int) -> None:
    """Compare the number of images in all shards with what they say that it is.

    Raises:
        DataError: It is another.
    """
    if folders != [root] and images != (expected := _read_record(folders[0]).images):
        raise DataError(
            f"{root}: its shards hold {counted(images, 'image')}, but should hold {expected}; make them again"
        )


def write_shard(
    root: Path,
    part: Part,
    whole: Whole,
    images: Iterable[tuple[str, bytes | RGB]],
    capacity: int,
    decoded: bool = False,
) -> Iterator[str]:
    """Write the images of a part into its shard below ``root``, yielding as `write_lmdb` does; nothing if it is there.

    Args:
        root: The sharded LMDB's folder.
        part: Which part it is.
        whole: The data set that the images are a part of.
        images, capacity, decoded: Of the part, as for `write_lmdb`.

    Raises:
        RainOerMeError: Another process is writing it.
        DataError: As of `write_lmdb`, or ``root`` holds another data set or other parts.
    """
    if (root / "data.mdb").exists():
        raise DataError(f"{root} is an LMDB in one piece; remove it, or choose another name")
    found, half = _parts_in(root)
    if other := next((other for other in found | half if other.count != part.count), None):
        raise DataError(f"{root}: holds {other.name}, of other parts than {part}; remove it, or choose another name")
    # One of the others tells: a thousand writers need not read a thousand.
    for there in {part, min(found, key=lambda other: other.number, default=part)} & found:
        _check_alike(root / there.name, _read_record(root / there.name), whole, f"part {part} is to be")
    if part in found:
        return
    yield from write_lmdb(root / part.name, images, capacity, decoded=decoded, more={RECORD: whole.encoded()})


def _parts_in(root: Path) -> tuple[set[Part], set[Part]]:
    """The shards in a folder, and the half-written ones."""
    found: set[Part] = set()
    half: set[Part] = set()
    try:
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror})") from None
    shards = [fits for name in names if (fits := _NAME.fullmatch(name))]
    for fits in shards:
        part = Part(int(fits[1]), int(fits[2]))
        if not 1 <= part.number <= part.count:
            raise DataError(f"{root}: {fits[0]} is no part of {part.count}; remove it")
        (half if fits[3] else found).add(part)
    others = [name for name in names if name == "data.mdb" or (name.endswith(".lmdb") and not _NAME.fullmatch(name))]
    if shards and others:
        raise DataError(f"{root}: {others[0]} is no shard; remove it, or the shards beside it")
    return found, half - found


def _read_record(folder: Path) -> Whole:
    try:
        record = json.loads((folder / RECORD).read_bytes())
        return Whole(str(record["content"]), int(record["images"]), str(record["names"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise DataError(f"{folder}: its {RECORD} is missing or damaged; remove the shard and make it again") from None


def _check_alike(folder: Path, found: Whole, expected: Whole, others: str) -> None:
    if found == expected:
        return
    if found.content != expected.content:
        differs = f"{found.content}, not {expected.content}"
    elif found.images != expected.images:
        differs = f"{counted(found.images, 'image')}, not {expected.images}"
    else:
        differs = "as many images of other names, not the same"
    raise DataError(f"{folder}: is a part of {differs} as {others}; remove it and make it again")
