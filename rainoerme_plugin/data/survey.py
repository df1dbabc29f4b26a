"""Reading every image of a data set once, to know before training what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError, one_line
from ..files import user_path
from .images import decode_image, read_header
from .pairing import Layout, NoPairsError, Pairing, find_pairs, made_of_others, match_folders
from .sources import FolderSource, ImageSource, Track, in_threads, is_lmdb, list_images, open_source, untracked


@dataclass
class Survey:
    """What a folder, LMDB or list of pairs holds."""

    where: str
    count: int
    rule: str | None
    """How pairs were found; None where there are none to find."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Width and height of the good images, with how often each occurs."""
    modes: Counter[str] = field(default_factory=Counter)
    """Pillow's modes: RGB; L is grey, I;16 16-bit grey, RGBA has an alpha channel."""
    broken: list[str] = field(default_factory=list)
    """One message an image or pair that cannot be used."""
    notes: Sequence[str] = ()
    """What is to be said of files that are not read, or in no pair."""


def survey(
    where: str | Path, layout: Layout = "auto", track: Track[object] = untracked, *, allow_outside: bool = False
) -> Survey:
    """Decode everything at ``where``: a data set with pairs where it is laid out like one, else single images.

    Args:
        where: A folder, LMDB or list file.
        layout, allow_outside: As `find_pairs` has them.
        track: Shows the progress.

    Raises:
        DataError: There is nothing there.
    """
    path = user_path(where)
    if layout == "auto" and is_lmdb(path):
        return _survey_images(str(where), open_source(path), track)
    try:
        pairing = find_pairs(path, layout, allow_outside=allow_outside)
    except NoPairsError:
        if not list_images(path):
            raise
        return _survey_images(str(where), open_source(path), track)
    return _survey_pairs(str(where), pairing, track)


def survey_pairs(rainy: str | Path, clean: str | Path, track: Track[object] = untracked) -> Survey:
    """Decode all pairs of a folder of rainy images and one of their clean versions.

    Raises:
        DataError: A folder is missing or empty, or the images are no pairs.
    """
    return _survey_pairs(f"{rainy} and {clean}", match_folders(rainy, clean), track)


def _survey_images(where: str, source: ImageSource, track: Track[object]) -> Survey:
    found = Survey(where, len(source), None, notes=_notes(source))

    def look(index: int) -> tuple[str, tuple[int, int]] | str:
        try:
            encoded = source.encoded(index)
            image = decode_image(encoded, source.where(index))
            return read_header(encoded, source.where(index)).mode, (image.shape[1], image.shape[0])
        except DataError as error:
            return one_line(error)

    for result in track(in_threads(look, range(len(source))), len(source), f"reading {where}"):
        if isinstance(result, str):
            found.broken.append(result)
        elif isinstance(result, tuple):
            found.modes[result[0]] += 1
            found.sizes[result[1]] += 1
    return found


def _notes(source: ImageSource) -> Sequence[str]:
    if not isinstance(source, FolderSource):
        return []
    made = made_of_others(source.paths)
    if not made:
        return source.notes
    return [*source.notes, f"{source.root}: named after another image there: {len(made)}, the first {made[0].name}"]


def _survey_pairs(where: str, pairing: Pairing, track: Track[object]) -> Survey:
    found = Survey(where, len(pairing.pairs), pairing.rule, notes=pairing.notes)

    def look(index: int) -> tuple[int, int] | str:
        try:
            rainy, _ = pairing.pairs[index].read()
            return rainy.shape[1], rainy.shape[0]
        except DataError as error:
            return one_line(error)

    for result in track(in_threads(look, range(len(pairing.pairs))), len(pairing.pairs), f"reading {where}"):
        if isinstance(result, str):
            found.broken.append(result)
        elif isinstance(result, tuple):
            found.sizes[result] += 1
    return found
