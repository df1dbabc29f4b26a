"""One run over a video: decoding, the network and encoding beside each other, part by part."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import av
import numpy as np

from ...data.images import Pixels
from ...data.threads import Track
from ...errors import RainOerMeError
from ...files import hidden_beside, put_in_place, sync
from ...provenance import code_of
from ..temporal import Blender
from . import DerainFrames, VideoOptions, VideoReport
from .colours import planar
from .encoders import Encoder, encoder_for
from .joining import join, rehearse
from .kept import beside, what_is_lost
from .parts import Parts, PartWriter, frames_of
from .pipe import EndedError, Pipe
from .reading import DamagedVideoError, Look, Timing, check_frame, decoded, look_at, opened, reason, upright
from .survey import Survey, survey

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

T = TypeVar("T")
_AHEAD = 8
"""Frames that are decoded before their turn, and as many that wait to be encoded, beyond two batches."""


def derain_parts(
    source: Path, target: Path, derain: DerainFrames, options: VideoOptions, track: Track[Any]
) -> VideoReport:
    """As `derain_video`, which has looked at the names."""
    started = time.perf_counter()
    look, _ = look_at(source)
    surveyed = survey(source, look)
    suffix = target.suffix.lower()
    encoder = encoder_for(look.codec, look.profile, look.pixel_format, look.rate, look.tags, suffix, options.quality)
    look = look._replace(tags=encoder.tags)
    parts = Parts(hidden_beside(target, "parts"), _about(source, look, encoder, options))
    whole = parts.temporary("whole", target.suffix)
    try:
        done, others = parts.resume()
        notes = list(surveyed.notes)
        if others:
            notes.append(f"{target}: {others} parts of a stopped run are damaged, or were made otherwise; made anew")
        with_data = _rehearse(parts, source, target, look, encoder, surveyed.timings)
        run = _Run(source, derain, options, look, encoder, parts, done, surveyed)
        run(track)
        notes += [*run.notes(), *join(run.done, run.timings, source, whole, target, look, with_data)]
        notes += what_is_lost(source, look, whole, target)
        sync(whole)
        put_in_place(whole, target)
        sync(target.parent)
    except DamagedVideoError:
        parts.remove()
        raise
    finally:
        parts.tidy()
    parts.remove()
    seconds = time.perf_counter() - started
    return VideoReport(len(run.timings), seconds, run.network, run.waited, run.first, tuple(notes))


def _about(source: Path, look: Look, encoder: Encoder, options: VideoOptions) -> dict[str, Any]:
    """What parts depend on, as JSON gives it back."""
    state = source.stat()
    return {
        "size": state.st_size,
        "modified": state.st_mtime_ns,
        "look": repr(look),
        "encoder": repr(encoder),
        "options": repr(options),
        "code": code_of(__name__),
        "libraries": str(av.library_versions),
        "cores": os.cpu_count(),  # encoders share work by them
    }


def _rehearse(
    parts: Parts, source: Path, target: Path, look: Look, encoder: Encoder, timings: Sequence[Timing]
) -> bool:
    """Find out what cannot be written before the network has worked for hours.

    Returns:
        Whether the target can hold the source's streams of data.
    """
    part, whole = parts.temporary("rehearsal"), parts.temporary("rehearsal", target.suffix)
    colours = look.colours()
    frame = av.VideoFrame(look.width, look.height, planar(look.pixel_format))
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    image = upright(colours.rgb(frame), look.display)
    writer = PartWriter(part, look, encoder)
    try:
        for _ in range(2):
            writer.write(frame, image, image)
        writer.finish()
    except (av.FFmpegError, ValueError) as error:
        writer.abandon()
        if isinstance(error, OSError):
            raise
        raise RainOerMeError(
            f"{source}: {encoder.name} cannot encode {look.width}x{look.height} {encoder.pixel_format} "
            f"({reason(error)}); convert it first"
        ) from None
    with_data = True
    try:
        rehearse(part, timings, source, whole, target, look)
    except RainOerMeError:
        with_data = False
        rehearse(part, timings, source, whole, target, look, with_data)
    part.unlink()
    whole.unlink()
    return with_data


class _Run:
    """The three threads of a run.

    Attributes:
        done: The parts that are complete.
        timings: Of all frames of the source, as soon as it is decoded.
        first: The first frame that no earlier run has done.
        network, waited: Seconds, as `VideoReport` has them.
    """

    def __init__(
        self,
        source: Path,
        derain: DerainFrames,
        options: VideoOptions,
        look: Look,
        encoder: Encoder,
        parts: Parts,
        done: list[Path],
        surveyed: Survey,
    ) -> None:
        self._source, self._derain, self._options = source, derain, options
        self._look, self._encoder, self._parts = look, encoder, parts
        self._size = -(-options.part // options.batch) * options.batch
        self.done, self.timings = done, list[Timing]()
        self.first = sum(map(frames_of, done))
        self._surveyed = surveyed
        self._moved = self._interlaced = 0
        self._lost: set[str] = set()
        if self.first % self._size:  # only the last one is shorter
            self._start = sys.maxsize
        else:
            # The frame before is blended with; it comes out the same, to the bit, in the same batch.
            self._start = max(0, self.first - (options.batch if options.blend else 0))
        ahead = 2 * options.batch + _AHEAD
        self._frames, self._results = Pipe[Pixels](ahead), Pipe[Pixels](ahead)
        self._sources = deque[Any]()
        """What is derained at the moment, in order."""
        self.network = self.waited = 0.0

    def __call__(self, track: Track[Any]) -> None:
        """Derain what is left, into parts."""
        total = len(self._surveyed.timings)
        blender = Blender(self._options.blend)
        number = self._start
        with _beside(self._decode, self._frames), _beside(self._encode, self._results) as encoding:
            left = track(self._waiting(self._frames), max(0, total - self._start), self._source.name)
            for batch in _batches(left, self._options.batch):
                begun = time.perf_counter()
                finished = [image for derained in self._checked(batch) for image in blender.push(derained)]
                self.network += time.perf_counter() - begun
                number = self._pass_on(finished, number)
            self._pass_on(blender.finish(), number)
            self._results.end()
            begun = time.perf_counter()
            encoding.join()
            self.waited += time.perf_counter() - begun
            self._results.check()

    def _checked(self, batch: Sequence[Pixels]) -> Sequence[Pixels]:
        derained = self._derain(batch)
        expected = [(image.shape, image.dtype) for image in batch]
        if [(image.shape, image.dtype) for image in derained] != expected:
            raise RuntimeError(f"expected {len(batch)} derained frames of {expected[0]}, got other ones")
        return derained

    def _pass_on(self, images: Iterable[Pixels], number: int) -> int:
        begun = time.perf_counter()
        for image in images:
            if number >= self.first:
                self._results.put(image)
            number += 1
        self.waited += time.perf_counter() - begun
        return number

    def _waiting(self, items: Iterable[T]) -> Iterator[T]:
        """The items, and the time until each is there counted."""
        iterator = iter(items)
        while True:
            begun = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - begun
            yield item

    def _decode(self) -> None:
        colours = self._look.colours()
        with opened(self._source) as (container, stream):
            for number, frame in enumerate(decoded(self._source, container, stream)):
                self._frames.check()
                self._note(frame)
                if number >= self._start:
                    image: Any = np.ascontiguousarray(upright(colours.rgb(frame), self._look.display))
                    if number >= self.first:
                        self._sources.append((frame, image))
                    self._frames.put(image)
        self._frames.end()

    def _note(self, frame: VideoFrame) -> None:
        self._lost |= beside(frame)
        check_frame(self._source, frame, self._look)
        self._interlaced += frame.interlaced_frame
        number, known = len(self.timings), self._surveyed
        if known.are_final and number < len(known.timings):
            self.timings.append(known.timings[number])
            return
        pts = frame.dts if frame.pts is None else frame.pts
        least = self.timings[-1].pts + 1 if self.timings else None
        if pts is None or (least is not None and pts < least):
            self._moved += 1
            pts = least or 0
        self.timings.append(Timing(pts, frame.duration))

    def notes(self) -> list[str]:
        """What was not as it should be."""
        notes, total = [], len(self._surveyed.timings)
        if self._moved:
            notes.append(f"{self._source}: {self._moved} frames had no time of their own, or an earlier one's; moved")
        if len(self.timings) != total:
            notes.append(f"{self._source}: {total} packets show {len(self.timings)} frames, all of which are there")
        if self._interlaced:
            notes.append(f"{self._source}: {self._interlaced} frames are marked as interlaced, and no longer are")
        notes += (f"{self._source}: {what} are not kept" for what in sorted(self._lost))
        return notes

    def _encode(self) -> None:
        writer: PartWriter | None = None
        count = 0
        temporary = self._parts.temporary("part")
        try:
            for derained in self._results:
                frame, rainy = self._sources.popleft()
                if writer is None:
                    writer, count = PartWriter(temporary, self._look, self._encoder), 0
                writer.write(frame, rainy, derained)
                count += 1
                if count == self._size:
                    self._keep(writer, temporary, count)
                    writer = None
            if writer is not None:
                self._keep(writer, temporary, count)
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise

    def _keep(self, writer: PartWriter, temporary: Path, count: int) -> None:
        writer.finish()
        self.done.append(self._parts.keep(temporary, len(self.done), count))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@contextmanager
def _beside(work: Callable[[], None], pipe: Pipe[Any]) -> Iterator[threading.Thread]:
    """A thread that fills or empties a pipe, and does not outlive the block."""

    def run() -> None:
        try:
            work()
        except EndedError:
            pass
        except BaseException as error:
            pipe.fail(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        pipe.fail(EndedError())
        thread.join()
