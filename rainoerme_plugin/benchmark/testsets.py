"""The data sets of a benchmark: whole images with or without ground truth, known by the contents of their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from ..data.images import RGB, decode_image
from ..data.names import names_of, result_names, result_path
from ..data.pairing import Pair
from ..data.sources import FolderSource, ImageSource, Track, in_threads, is_lmdb, open_source, untracked
from ..errors import DataError, OptionError
from ..files import user_path
from ..options import read_section
from ..provenance import code_of
from ..registered.datasets import PairedRainDataset, SingleRainDataset
from .known import KnownSet, known_set
from .options import DatasetOptions
from .records import Records, key_of
from .scenes import BITS, Hashes, group_scenes, scene_hash, stack

_CLASSES: dict[str, Callable[[dict[str, Any]], PairedRainDataset | SingleRainDataset]] = {
    "PairedRainDataset": PairedRainDataset,
    "SingleRainDataset": SingleRainDataset,
}


@dataclass(frozen=True)
class Single:
    """One image of a source, without a clean version."""

    source: ImageSource
    index: int

    def encoded(self) -> Iterator[bytes]:
        """The bytes of its file.

        Raises:
            DataError: It cannot be read.
        """
        yield self.source.encoded(self.index)

    def decode(self, files: Sequence[bytes]) -> tuple[RGB, None]:
        """The image, (H, W, 3) uint8, from the bytes of its file.

        Raises:
            DataError: It is no image.
        """
        return decode_image(files[0], self.source.where(self.index)), None


@dataclass(frozen=True)
class Look:
    """What is known of an image by having read it: its files' digest, and of the picture its size and scene hash."""

    digest: str
    height: int | None = None
    width: int | None = None
    scene: Hashes | None = None
    """Of the ground truth, or of the rainy image where there is none; None, as the size, where a file is broken."""


@dataclass
class TestSet:
    """Images to derain, in order, and their ground truths if there are any."""

    __test__ = False

    name: str
    paired: bool
    rule: str | None
    """How pairs were found."""
    known: KnownSet | None
    every: int
    whole: int
    """How many images the known set has; of others, how many there are without ``every`` and ``limit``."""
    items: Sequence[Pair | Single]
    names: list[str]
    """Of the rainy images' files, unique."""
    looks: list[Look] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)
    """For each image the number of the first one with its scene."""

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> tuple[RGB, RGB | None]:
        """The rainy image and its ground truth, (H, W, 3) uint8: those that the survey saw.

        Raises:
            DataError: One cannot be read, their sizes differ, or one has changed since.
        """
        item = self.items[index]
        files = list(item.encoded())
        if key_of(self.names[index], _digest(item, files)) != self.looks[index].digest:
            raise DataError(f"{self.names[index]}: the image or its ground truth has changed meanwhile; run again")
        return item.decode(files)

    def survey(self, records: Records, track: Track[Any] = untracked) -> None:
        """Read every file: to know it again, and to know which images show one scene. Broken ones are left to scoring.

        Args:
            records: Keeps what was seen of a file, so that it is decoded once.
            track: Shows the progress.
        """
        self.looks = list(look_at(self.items, self.names, f"reading {self.name}", records, track))
        readable = [index for index, look in enumerate(self.looks) if look.scene is not None]
        groups = group_scenes(self.hashes)
        self.scenes = list(range(len(self)))
        for index, group in zip(readable, groups, strict=True):
            self.scenes[index] = readable[group]

    @property
    def hashes(self) -> Hashes:
        """The scene hashes (N, BITS) of the readable images."""
        return stack(look.scene for look in self.looks if look.scene is not None)

    @cached_property
    def files(self) -> list[str]:
        """A name for each image's result: its own with .png for its ending, or after it where two would share one."""
        return [result_path(Path(), name, ".png").as_posix() for name in result_names(self.names)]


def look_at(
    items: Sequence[Pair | Single], names: Sequence[str], title: str, records: Records, track: Track[Any] = untracked
) -> Iterator[Look]:
    """Read the files of ``items`` and know them again; what ``records`` has seen of one is not decoded again."""

    code = code_of(scene_hash.__module__, Pair.__module__)

    def read(index: int) -> tuple[str, _Seen | None, bool]:
        item, files = items[index], list[bytes]()
        try:
            files += item.encoded()
            digest = _digest(item, files)
            if (seen := records.get(key_of("look", code, digest), _Seen)) is not None:
                return digest, seen, False
            rainy, clean = item.decode(files)
        except DataError:
            return _digest(item, files), None, False
        bits = np.packbits(scene_hash(rainy if clean is None else clean))
        return digest, {"height": rainy.shape[0], "width": rainy.shape[1], "scene": bits.tobytes().hex()}, True

    found = track(in_threads(read, range(len(items))), len(items), title)
    for name, (contents, seen, new) in zip(names, found, strict=True):
        digest = key_of(name, contents)
        if seen is None:
            yield Look(digest)
            continue
        if new:
            records.add(key_of("look", code, contents), {"code": code, **seen})
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(seen["scene"]), np.uint8), count=BITS).astype(np.bool_)
        yield Look(digest, seen["height"], seen["width"], bits)


class _Seen(TypedDict):
    """What is kept of an image that was read."""

    height: int
    width: int
    scene: Annotated[str, Field(pattern=f"^[0-9a-f]{{{BITS // 4}}}$")]


def _digest(item: Pair | Single, files: Sequence[bytes]) -> str:
    """Of the contents of an image's files, and of which half of it is rainy."""
    contents = hashlib.sha256(repr(getattr(item, "halves", None)).encode())
    for data in files:
        contents.update(hashlib.sha256(data).digest())
    return contents.hexdigest()


def training_hashes(folder: str | Path, records: Records, track: Track[Any] = untracked) -> tuple[list[str], Hashes]:
    """The names and scene hashes (N, BITS) of the images that a network was trained on; broken ones are left out.

    Args:
        folder: A folder with all that is below it, or an LMDB.
        records: Keeps what was seen.
        track: Shows the progress.

    Raises:
        DataError: There are no images.
    """
    path = user_path(folder)
    source = open_source(path) if is_lmdb(path) else FolderSource(path, recursive=True)
    items = [Single(source, index) for index in range(len(source))]
    looks = list(look_at(items, source.names, f"training images in {path.name}", records, track))
    readable = [index for index, look in enumerate(looks) if look.scene is not None]
    return [source.names[index] for index in readable], stack(looks[index].scene for index in readable)  # type: ignore[misc]


def open_test_set(name: str, options: Mapping[str, Any]) -> TestSet:
    """A data set of an option file's ``datasets``: PairedRainDataset (the default) or SingleRainDataset.

    Raises:
        OptionError: Its options are not right.
        DataError: There are no such images.
    """
    key = f"datasets.{name}"
    words = DatasetOptions.model_fields
    own = read_section(DatasetOptions, {word: options[word] for word in words if word in options}, key)
    rest = {word: value for word, value in options.items() if word not in words}
    kind = rest.setdefault("type", "PairedRainDataset")
    if kind not in _CLASSES:
        raise OptionError(f"{key}.type: expected {' or '.join(_CLASSES)}, got '{kind}'")
    for word in [word for word in rest if word.startswith("dataroot") and isinstance(rest[word], str)]:
        rest[word] = str(user_path(rest[word]))
    dataset = _CLASSES[kind]({"name": name, **rest, "section": name})
    where = str(rest.get("dataroot") or rest.get("dataroot_lq"))
    known = known_set(own.known_as) if own.known_as else known_set(name, *reversed(Path(where).parts))
    if own.known_as and known is None:
        raise OptionError(f"{key}.known_as: no known test set is called '{own.known_as}'")
    items: Sequence[Pair | Single]
    whole = known.pairs if known else dataset.available
    if isinstance(dataset, PairedRainDataset):
        items = dataset.pairing.pairs[:: own.every]
        names, rule = names_of([pair.rainy for pair in items]), dataset.pairing.rule
    else:
        indices = range(0, len(dataset), own.every)
        items = [Single(dataset.rainy, index) for index in indices]
        names, rule = [dataset.rainy.names[index] for index in indices], None
    return TestSet(name, rule is not None, rule, known, own.every, whole, items, names)
