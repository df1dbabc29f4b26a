"""Many pictures and videos through one network: what is there already is left, what is broken is told at the end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..data.channels import to_8_bits
from ..data.images import Pixels, encode_jpeg
from ..data.photographs import Photograph, encode_photograph, left_out, read_photograph
from ..data.threads import Share, Track, in_threads, untold, untracked
from ..errors import RainOerMeError, described
from ..files import remove_leftovers, write_whole
from .compare import Pair, side_by_side, write_page
from .derainer import Derainer
from .jobs import Job, Wanted
from .video import derain_video

_AHEAD = 2
"""Pictures that are read before their turn, and as many that are still being written after it."""
_DAY = 86400.0
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that all further results would meet, too."""


@dataclass
class Outcome:
    """What became of the jobs."""

    done: int = 0
    skipped: int = 0
    """Whose results were there."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """The broken, and why."""
    notes: list[str] = field(default_factory=list)
    """What could not be kept of a video, and that there is no page."""
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    """What results do not hold of pictures' files, in words, and which files those are."""
    page: Path | None = None
    """The page that was written."""

    def fail(self, job: Job, error: Exception) -> None:
        """Note what went wrong."""
        reason = described(error)
        self.failed.append((job.source, reason.removeprefix(f"{job.source}: ")))


def derain_files(
    jobs: Sequence[Job], derainer: Derainer, wanted: Wanted, track: Track[Any] = untracked, reached: Share = untold
) -> Outcome:
    """Derain ``jobs``; every result is written whole or not at all.

    Pictures are read and written in threads beside the network. Ctrl-C leaves only whole results, and the next call
    does what is left.

    Args:
        jobs: What to derain, of `find_jobs` with the same ``wanted``.
        derainer: By what.
        wanted: What to make of each.
        track: Shows the progress.
        reached: Is told how many pictures are through the network, with the share of the next one.

    Returns:
        What became of them; a file that cannot be read is no error here.

    Raises:
        OSError: There is no place for results.
    """
    outcome = Outcome()
    for folder in sorted({job.target.parent for job in jobs}):
        _open_folder(folder)
    left = [job for job in jobs if wanted.overwrite or not all(map(Path.exists, job.results.values()))]
    outcome.skipped = len(jobs) - len(left)
    pictures = [job for job in left if not job.is_video]
    for _ in track(_Pictures(derainer, wanted, outcome, reached).each(pictures), len(pictures), "pictures"):
        pass
    for job in left:
        if job.is_video:
            _derain_video(job, derainer, wanted, outcome, track)
    if wanted.page is not None:
        _write_page(wanted.page, jobs, outcome, track)
    return outcome


def _open_folder(folder: Path) -> None:
    """Make a folder for results, if need be; where none could be written, nothing is derained for it.

    Raises:
        OSError: It cannot be made, or not be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))
    remove_leftovers(folder, older=_DAY)


def _write_page(path: Path, jobs: Sequence[Job], outcome: Outcome, track: Track[Any]) -> None:
    derained = [job for job in jobs if not job.is_video and job.target.exists()]
    pairs = filter(None, track(in_threads(_pair, derained, _AHEAD, _AHEAD), len(derained), "page"))
    first = next(pairs, None)
    if first is None:
        outcome.notes.append("no page was made: there are no derained pictures to show")
    else:
        write_page(path, chain([first], pairs))
        outcome.page = path


# --- pictures ---


@dataclass(frozen=True)
class _Picture:
    """A picture on its way."""

    job: Job
    photograph: Photograph
    derained: Pixels | None = None


class _Pictures:
    """The way of pictures through reading, the network, and writing."""

    def __init__(self, derainer: Derainer, wanted: Wanted, outcome: Outcome, reached: Share) -> None:
        self.derainer, self.wanted, self.outcome, self.reached = derainer, wanted, outcome, reached
        self.batch = derainer.batch or 1
        self.through = 0
        """Pictures that the network is done with."""

    def each(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Derain the jobs, one for every step."""
        pictures = in_threads(self._read, jobs, _AHEAD + self.batch, _AHEAD)
        # in_threads takes what is next to be written in this thread: the network runs here, beside reading and writing.
        yield from in_threads(self._write, self._derain(pictures), _AHEAD, _AHEAD)

    def _read(self, job: Job) -> _Picture | None:
        try:
            return _Picture(job, read_photograph(job.source))
        except (RainOerMeError, OSError, MemoryError) as error:
            self.outcome.fail(job, error)
            return None

    def _derain(self, pictures: Iterable[_Picture | None]) -> Iterator[_Picture | None]:
        """The pictures derained, those in a row that are of one size together; None for each that has failed."""
        group: list[_Picture] = []
        for picture in pictures:
            if group and (picture is None or len(group) == self.batch or not _alike(picture, group[0])):
                yield from self._derain_group(group)
                group = []
            if picture is None:
                self.through += 1
                yield None
            else:
                group.append(picture)
        yield from self._derain_group(group)

    def _derain_group(self, group: Sequence[_Picture]) -> Iterator[_Picture | None]:
        begun, count = self.through, len(group)
        try:
            images = [picture.photograph.pixels for picture in group]
            results = self.derainer.many(images, lambda share: self.reached(begun + count * share))
        except (RainOerMeError, RuntimeError, MemoryError) as error:
            if len(group) > 1:
                for picture in group:  # one of them is to blame
                    yield from self._derain_group([picture])
            else:
                self.outcome.fail(group[0].job, error)
                self.through += 1
                yield None
            return
        self.through += count
        for picture, result in zip(group, results, strict=True):
            yield replace(picture, derained=result)

    def _write(self, picture: _Picture | None) -> None:
        if picture is None:
            return
        job, photograph, derained = picture.job, picture.photograph, picture.derained
        assert derained is not None
        try:
            for what, path in job.results.items():
                if path.exists() and not self.wanted.overwrite:
                    continue
                if what == "derained":
                    data = encode_photograph(photograph, derained, self.wanted.kind, self.wanted.quality)
                elif what == "rain":
                    rain = np.maximum(photograph.pixels, derained) - derained
                    data = encode_photograph(photograph, rain, "png")
                else:
                    data = encode_jpeg(side_by_side(to_8_bits(photograph.pixels), to_8_bits(derained)))
                write_whole(path, data)
            for what in left_out(photograph, self.wanted.kind):
                self.outcome.left_out.setdefault(what, []).append(job.source)
            self.outcome.done += 1
        except (RainOerMeError, OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno in _NO_PLACE:
                raise
            self.outcome.fail(job, error)


def _alike(picture: _Picture, other: _Picture) -> bool:
    pixels, others = picture.photograph.pixels, other.photograph.pixels
    return (pixels.shape, pixels.dtype) == (others.shape, others.dtype)


def _pair(job: Job) -> Pair | None:
    """Before and after, from the files; None where one cannot be read: that was told when it was derained."""
    try:
        rainy, derained = (to_8_bits(read_photograph(path).pixels) for path in (job.source, job.target))
    except (RainOerMeError, OSError, MemoryError):
        return None
    return Pair(job.name, rainy, derained) if rainy.shape == derained.shape else None


# --- videos ---


def _derain_video(job: Job, derainer: Derainer, wanted: Wanted, outcome: Outcome, track: Track[Any]) -> None:
    try:
        options = replace(wanted.video, network=derainer.identity)
        report = derain_video(job.source, job.target, derainer.many, options, track)
        outcome.notes += report.notes
        outcome.done += 1
    except (RainOerMeError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in _NO_PLACE:
            raise
        outcome.fail(job, error)
