"""What is to be derained, and where each result goes."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.images import SUFFIXES
from ..errors import OptionError
from ..files import user_path
from .video import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Job:
    """One picture or video."""

    source: Path
    name: str
    """Of the result, below the output folder; with slashes."""
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    def beside(self, ending: str) -> Path:
        """A further result: ``x.jpg`` has ``x.jpg.ENDING`` beside it."""
        return self.target.with_name(f"{self.target.name}.{ending}")


def find_jobs(
    inputs: Sequence[str | Path], output: str | Path, suffix: str | None = None, tell: Callable[[str], object] = print
) -> list[Job]:
    """All pictures and videos of ``inputs``, in their order, folders sorted by name.

    Args:
        inputs: Files, folders (all that is in them and below, but for hidden files and the output folder), or patterns
            (``**`` stands for folders).
        output: The folder for the results: those of a folder's files lie in it as in that folder.
        suffix: Of the pictures' results, with its dot; None: that of the input.
        tell: Is told what was left alone.

    Raises:
        OptionError: An input is missing or holds nothing, or two results would have one name or take an input's place.
    """
    output = user_path(output)
    if output.exists() and not output.is_dir():
        raise OptionError(f"-o {output}: is a file; it names the folder for the results")
    if not output.exists() and output.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES):
        raise OptionError(f"-o {output}: names the folder for the results, not a file")
    jobs: dict[Path, Job] = {}
    for source, name in _files(inputs, output, tell):
        if suffix is not None and source.suffix.lower() not in VIDEO_SUFFIXES:
            name = str(Path(name).with_suffix(suffix))
        target = output / name
        other = jobs.get(target)
        if other is None:
            jobs[target] = Job(source, Path(name).as_posix(), target)
        elif not _are_one(other.source, source):
            raise OptionError(f"{other.source} and {source} would both become {target}; derain them into two folders")
    _spare_inputs(jobs.values())
    return list(jobs.values())


def _files(inputs: Sequence[str | Path], output: Path, tell: Callable[[str], object]) -> Iterator[tuple[Path, str]]:
    """Each file, and its path below what was named."""
    for named in inputs:
        path = user_path(named)
        if path.is_dir():
            yield from _in_folder(path, output, tell)
        elif path.exists():
            yield path, path.name
        elif glob.has_magic(str(named)):
            found = sorted(map(Path, glob.glob(str(path), recursive=True)))
            if not found:
                raise OptionError(f"{named}: nothing is called like that (looked from {Path.cwd()})")
            above = _above_pattern(path)
            for each in found:
                if each.is_file():
                    yield each, str(each.relative_to(above))
                elif "**" not in path.parts:  # which finds what is below by itself
                    yield from _in_folder(each, output, tell)
        else:
            raise OptionError(f"{named}: no such file or folder (looked from {Path.cwd()})")


def _above_pattern(path: Path) -> Path:
    """The folder below which a pattern looks."""
    first = next(number for number, part in enumerate(path.parts) if glob.has_magic(part))
    return Path(*path.parts[:first])


def _in_folder(folder: Path, output: Path, tell: Callable[[str], object]) -> Iterator[tuple[Path, str]]:
    others: Counter[str] = Counter()
    found = False
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and not _are_one(here / name, output))
        for name in sorted(files):
            path = here / name
            if name[0] == ".":
                continue
            if path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES):
                found = True
                yield path, str(path.relative_to(folder))
            else:
                others[path.suffix.lower() or "without a suffix"] += 1
    if not found:
        raise OptionError(f"{folder}: no pictures or videos in it ({', '.join((*SUFFIXES, *VIDEO_SUFFIXES))})")
    if others:
        kinds = ", ".join(kind for kind, _ in others.most_common(5))
        tell(f"{folder}: {others.total()} other files are left alone ({kinds})")


def _spare_inputs(jobs: Iterable[Job]) -> None:
    inputs = {which: job for job in jobs if (which := _inode(job.source)) is not None}
    for job in jobs:
        which = _inode(job.target)
        if which is not None and (spared := inputs.get(which)) is not None:
            raise OptionError(f"{job.target} is an input itself ({spared.source}); -o must name another folder")


def _are_one(path: Path, other: Path) -> bool:
    return _inode(path) is not None and _inode(path) == _inode(other)


def _inode(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to; None: to none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
