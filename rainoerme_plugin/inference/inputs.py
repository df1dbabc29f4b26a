"""Which files are derained: those that were named, all in a folder, or what a pattern finds; what is not, is told."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from ..data.images import SUFFIXES
from ..errors import OptionError, counted
from ..files import are_one, user_path
from .video import VIDEO_SUFFIXES, why_unread

READ = (*SUFFIXES, *VIDEO_SUFFIXES)
"""Suffixes of pictures and videos."""
_CONVERT = {
    **dict.fromkeys((".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd"), "convert to JPEG or PNG"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "develop to TIFF or JPEG"),
}
"""Photographs of other kinds, and what to do with them."""
_LISTED = 3
"""Names in a line."""

Found: TypeAlias = Iterator[tuple[Path, str]]
Tell: TypeAlias = Callable[[str], object]


def find_files(inputs: Sequence[str | Path], output: Path, tell: Tell) -> Found:
    """Each file, and its path below what was named; as of `jobs.find_jobs`.

    Raises:
        OptionError: Something that was named is missing, or holds nothing.
    """
    for named in inputs:
        path = user_path(named)
        if are_one(path, output) and len(inputs) > 1:  # a shell's pattern has found it, as a rule
            tell(f"{path}: is the folder for the results, and no input")
            continue
        if path.exists() or not glob.has_magic(str(named)):
            found = _in_folder(path, output, tell) if path.is_dir() else _file(path)
        else:
            found = _by_pattern(path, output, tell)
        nothing = True
        for each in found:
            nothing = False
            yield each
        if nothing:
            raise OptionError(f"{named}: no pictures or videos in it ({', '.join(READ)})")


def _file(path: Path) -> Found:
    if not path.exists():
        raise OptionError(f"{path}: no such file or folder (looked from {Path.cwd()})")
    yield path, path.name


def _in_folder(folder: Path, output: Path, tell: Tell) -> Found:
    others: Counter[str] = Counter()
    unread: dict[str, list[Path]] = {}
    linked: list[Path] = []

    def cannot(error: OSError) -> None:
        tell(f"{error.filename}: left alone, for it cannot be read ({error.strerror})")

    for place, folders, files in os.walk(folder, onerror=cannot):
        here = Path(place)
        below = [here / name for name in sorted(folders) if name[0] != "." and not are_one(here / name, output)]
        linked += filter(Path.is_symlink, below)  # os.walk does not go there
        folders[:] = [path.name for path in below]
        for name in sorted(files):
            path, suffix = here / name, Path(name).suffix.lower()
            if name[0] == ".":
                continue
            if suffix in READ:
                yield path, str(path.relative_to(folder))
            elif suffix in _CONVERT:
                unread.setdefault(_CONVERT[suffix], []).append(path)
            elif (line := why_unread(path)) is not None:
                tell(line)
            else:
                others[suffix or "without a suffix"] += 1
    for remedy, paths in unread.items():
        tell(f"left alone, for photographs of their kind are not read: {_listed(paths)}; {remedy}")
    if linked:
        tell(f"left alone, for they are links to folders: {_listed(linked)}; name them as inputs")
    if others:
        kinds = ", ".join(kind for kind, _ in others.most_common(5))
        are = "is" if others.total() == 1 else "are"
        tell(f"{folder}: {counted(others.total(), 'other file')} {are} left alone ({kinds})")


def _by_pattern(pattern: Path, output: Path, tell: Tell) -> Found:
    found = [Path(name) for name in glob.glob(str(pattern), recursive=True)]
    if not found:
        raise OptionError(f"{pattern}: nothing is called like that (looked from {Path.cwd()})")
    first = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    above = Path(*pattern.parts[:first])

    @cache
    def is_result(folder: Path) -> bool:
        real = Path(os.path.realpath(folder))
        return any(are_one(each, output) for each in (real, *real.parents))

    if not is_result(above):  # else the output folder is not below, but around it all
        found = [path for path in found if not is_result(path if path.is_dir() else path.parent)]
        if not found:
            raise OptionError(f"{pattern}: all that it finds is in the folder for the results, {output}")
    seen: set[Path] = set()
    # Links to folders may lead to what is found without them, or in circles: the shortest way counts.
    for path in sorted(found, key=lambda path: (len(path.parts), path)):
        real = Path(os.path.realpath(path.parent)) / path.name
        if real in seen:
            continue
        seen.add(real)
        if path.is_dir():
            if "**" not in pattern.parts:  # which finds what is below by itself
                yield from _in_folder(path, output, tell)
        else:
            below = path.relative_to(above)
            yield path, path.name if ".." in below.parts else str(below)


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(map(str, paths[:_LISTED])) + more
