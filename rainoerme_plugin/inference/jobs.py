"""What is to be derained, and one list of all files that will be written, which is checked before anything is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..data.names import as_one
from ..data.photographs import Kind
from ..errors import OptionError
from ..files import ignores_case, inode, named_after, user_path
from .compare import is_page
from .inputs import READ, Tell, find_files
from .video import VideoOptions, is_video


@dataclass(frozen=True)
class Wanted:
    """What is made of each picture and video."""

    kind: Kind | None = None
    """Of the pictures' files; None: that of the input."""
    quality: int | None = None
    """Of pictures that are written with losses, 1 to 100; None: that of the input."""
    rain: bool = False
    """Also the rain layer."""
    side: bool = False
    """Also a picture of before and after beside each result."""
    page: Path | None = None
    """A page of all pictures before and after."""
    overwrite: bool = False
    """Whether results that are there are made anew."""
    video: VideoOptions = field(default_factory=VideoOptions)


@dataclass(frozen=True)
class Job:
    """One picture or video."""

    source: Path
    name: str
    """Of the result, below the output folder; with slashes."""
    results: dict[str, Path]
    """All files that are made of it; the derained one last, so that where it is, the others are."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return is_video(self.source)

    @property
    def target(self) -> Path:
        """The derained picture or video."""
        return self.results["derained"]


def find_jobs(
    inputs: Sequence[str | Path], output: str | Path, wanted: Wanted = Wanted(), tell: Tell = print
) -> list[Job]:
    """All pictures and videos of ``inputs``, in their order, folders sorted by name, with all that is made of them.

    No result takes the place of an input, of another result or of a folder. Nothing is written yet.

    Args:
        inputs: Files, folders (all that is in them and below, but for hidden files, linked folders and the output
            folder), or patterns (``**`` stands for folders; an output folder below is left out).
        output: The folder for the results: those of a folder's files lie in it as in that folder.
        wanted: What is made of each.
        tell: Is told what was left alone.

    Raises:
        OptionError: An input is missing or holds nothing, or a result cannot be where it is to be.
    """
    output = user_path(output)
    if output.exists() and not output.is_dir():
        raise OptionError(f"-o {output}: is a file; it names the folder for the results")
    if not output.exists() and output.suffix.lower() in READ:
        raise OptionError(f"-o {output}: names the folder for the results, not a file")
    jobs: dict[tuple[str, object], Job] = {}
    for source, name in find_files(inputs, output, tell):
        name = _named(name, wanted)
        jobs.setdefault((name, inode(source) or source), Job(source, name, _results(output / name, source, wanted)))
    if not jobs:
        raise OptionError(f"{output}: is the folder for the results, and the only input; -o must name another")
    found = list(jobs.values())
    _check(found, output, wanted)
    if (wanted.rain or wanted.side or wanted.page) and any(job.is_video for job in found):
        tell("--rain and --compare are for pictures: of videos nothing else than the derained one is made")
    return found


def _named(name: str, wanted: Wanted) -> str:
    """The result's path below the output folder, with slashes."""
    path = Path(name)
    if wanted.kind is not None and not is_video(path):
        path = path.with_name(named_after(path.stem, f".{wanted.kind}"))
    return path.as_posix()


def _results(target: Path, source: Path, wanted: Wanted) -> dict[str, Path]:
    files = {}
    if wanted.rain and not is_video(source):
        files["rain"] = target.with_name(named_after(target.name, ".rain.png"))
    if wanted.side and not is_video(source):
        files["side"] = target.with_name(named_after(target.name, ".compare.jpg"))
    return {**files, "derained": target}


# --- the list of all that will be written ---

_CALLED = {
    "derained": "{}",
    "rain": "the rain layer of {}",
    "side": "the picture of before and after of {}",
}


def _written(jobs: Sequence[Job], wanted: Wanted) -> Iterator[tuple[str, Path]]:
    """What every file is to be, and the file."""
    for job in jobs:
        for what, path in job.results.items():
            yield _CALLED[what].format(job.source), path
    if wanted.page is not None and not all(job.is_video for job in jobs):
        yield "the page of before and after", wanted.page


def _check(jobs: Sequence[Job], output: Path, wanted: Wanted) -> None:
    """Refuse what would be lost, or could not be written.

    Raises:
        OptionError: The first thing that cannot be.
    """
    real = cache(os.path.realpath)
    inputs = {which: job.source for job in jobs if (which := inode(job.source)) is not None}
    written = [(what, path, Path(real(path.parent)) / path.name) for what, path in _written(jobs, wanted)]
    _check_alone(written, str)
    if len({as_one(str(place)) for *_, place in written}) < len(written) and ignores_case(output):
        _check_alone(written, as_one)
    folders = {path.parent for _, path, _ in written}
    above = {folder for _, _, path in written for folder in path.parents}
    for what, path, place in written:
        if place in above or path.is_dir():
            raise OptionError(f"{path}: is a folder, in the place of a result ({what}); move it, or choose another -o")
        if (which := inode(path)) is not None and which in inputs:
            raise OptionError(f"{path} is an input itself ({inputs[which]}); -o must name another folder")
        if path.exists() and not path.is_file():
            raise OptionError(f"{path}: is no file, in the place of a result ({what}); choose another -o")
    for folder in sorted(folders):
        there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
        if not there.is_dir():
            what = "a link that leads nowhere" if there.is_symlink() else "a file"
            raise OptionError(f"{there}: is {what}, in the place of a folder for results; choose another -o")
    if wanted.page is not None and wanted.page.exists() and not wanted.overwrite and not is_page(wanted.page):
        raise OptionError(f"{wanted.page}: is there, and no page of ours; move it, or --overwrite replaces it")


def _check_alone(written: Sequence[tuple[str, Path, Path]], key: Callable[[str], str]) -> None:
    """Refuse two results of one name."""
    seen: dict[str, str] = {}
    for what, path, place in written:
        other = seen.setdefault(key(str(place)), what)
        if other is not what:
            raise OptionError(f"{other} and {what} would both become {path}; derain them into two folders")
