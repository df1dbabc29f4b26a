"""Parts of a derained video: some frames in a row, encoded into a file of their own that begins with a keyframe."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2

from ...data.images import Pixels
from ...errors import RainOerMeError
from ...files import is_temporary, sha256_of, sync, write_whole
from .encoders import Encoder
from .reading import Look, reason, stored

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_FORMATS = ("nut", "matroska", "mov")
"""The first that can hold the codec is taken. NUT keeps every packet to the byte."""
_TICK = Fraction(1, 1000)
"""Time base of packets, in which frames are numbered; a frame's own time is put in when parts are joined."""


class PartWriter:
    """Encodes a part."""

    def __init__(self, path: Path, look: Look, encoder: Encoder) -> None:
        self._look, self._colours = look, look.colours()
        self._format, self._count = encoder.pixel_format, 0
        self._container, self._stream = _container(path, encoder)
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = look.width, look.height, encoder.pixel_format
        context.framerate, context.time_base = encoder.rate, 1 / encoder.rate
        if look.aspect is not None:
            context.sample_aspect_ratio = look.aspect
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = look.tags
        encoder.apply(context)

    def write(self, frame: VideoFrame, rainy: Pixels, derained: Pixels) -> None:
        """Encode a frame of the source, changed as ``derained`` differs from ``rainy``, what it looks like upright."""
        change: Any = cv2.subtract(derained, rainy, dtype=cv2.CV_32F)
        change = stored(change, self._look.display)
        frame = self._colours.changed(frame, change, self._format)
        # Some encoders look at the frames' own.
        frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace = self._look.tags
        frame.pts, frame.time_base = self._count, self._stream.codec_context.time_base
        self._count += 1
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Encode what is left, and close the file."""
        self._mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Close the file, whatever is in it."""
        with suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def _mux(self, packets: Iterable[Packet[VideoStream]]) -> None:
        for packet in packets:
            # Their time base was that of the encoder, in which frames are numbered as well.
            packet.time_base, packet.duration = _TICK, 1
            self._container.mux(packet)


def _container(path: Path, encoder: Encoder) -> tuple[OutputContainer, VideoStream]:
    for name in _FORMATS:
        container = av.open(os.path.abspath(path), "w", format=name)
        try:
            stream: Any = container.add_stream(encoder.name, rate=encoder.rate)
        except ValueError:  # it cannot hold this codec
            continue
        stream.time_base = _TICK
        return container, stream
    raise RainOerMeError(f"{encoder.name}: no container for parts holds it")


def part_order(path: Path) -> list[int]:
    """The numbers of a part's frames, from 0, in the order in which they are decoded.

    Raises:
        RainOerMeError: It cannot be read.
    """
    try:
        with av.open(os.path.abspath(path), "r") as container:
            packets = container.demux(container.streams.video[0])
            numbers = [round(packet.pts * packet.time_base / _TICK) for packet in packets if packet.size]  # type: ignore[operator]
            # Muxers shift all so that the first is not decoded before 0.
            return [number - min(numbers) for number in numbers]
    except (av.FFmpegError, OSError, ValueError, IndexError, TypeError) as error:
        raise RainOerMeError(f"{path}: cannot be read ({reason(error)}); remove it") from None


@dataclass(frozen=True)
class Parts:
    """The parts of one target that are done, in a folder beside it.

    Args:
        folder: Where they are.
        about: What they belong to; parts of anything else are removed.
    """

    folder: Path
    about: dict[str, Any]

    @property
    def _manifest(self) -> Path:
        return self.folder / "about.json"

    def resume(self) -> tuple[list[Path], int]:
        """The parts from the first on that can be used, and how many cannot.

        The folder is there afterwards, and nothing else in it.

        Raises:
            RainOerMeError: In the folder is something that is not ours.
        """
        found: list[Path] = []
        there = sorted(self.folder.glob("*-*-*.part"))
        if foreign := [path.name for path in self._all() if not _is_ours(path)]:
            raise RainOerMeError(
                f"{self.folder}: is where parts of the video are kept, but holds other files ({foreign[0]}); move them"
            )
        if self._belong():
            by_number = {path.name.partition("-")[0]: path for path in there}
            while (path := by_number.get(f"{len(found):06}")) is not None and _is_whole(path):
                found.append(path)
        if not found:
            self.remove()
        write_whole(self._manifest, json.dumps(self.about).encode(), durable=True)
        for path in self._all():
            if path not in found and path != self._manifest:
                path.unlink()
        return found, len(there) - len(found)

    def _all(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.exists() else []

    def _belong(self) -> bool:
        try:
            return json.loads(self._manifest.read_bytes()) == self.about
        except (OSError, ValueError):
            return False

    def temporary(self, name: str, suffix: str = "") -> Path:
        """A file in the folder that the next run removes."""
        return self.folder / f"{name}.temporary{suffix}"

    def keep(self, temporary: Path, number: int, frames: int) -> Path:
        """Make a part of a file that is complete."""
        # Its name says what is in it, after a power cut and on a failing disk as well.
        sync(temporary)
        path = self.folder / f"{number:06}-{frames}-{sha256_of(temporary)}.part"
        os.replace(temporary, path)
        sync(self.folder)
        return path

    def tidy(self) -> None:
        """Leave what can be used later, if anything."""
        with suppress(OSError):
            if not any(self.folder.glob("*-*-*.part")):
                self.remove()
            for path in self._all():
                if _is_ours(path) and path.suffix != ".part" and path != self._manifest:
                    path.unlink()

    def remove(self) -> None:
        """Remove all that is ours."""
        with suppress(OSError):
            for path in filter(_is_ours, self._all()):
                path.unlink(missing_ok=True)
            self.folder.rmdir()


_OURS = re.compile(r"about\.json|[0-9]{6}-[0-9]+-[0-9a-f]+\.part|[a-z]+\.temporary(\.[^.]+)?")


def _is_ours(path: Path) -> bool:
    """Whether it is a file in a folder of parts that we have made, by its name."""
    return is_temporary(path) or (_OURS.fullmatch(path.name) is not None and path.is_file())


def frames_of(part: Path) -> int:
    """How many frames a part has, from its name."""
    return int(part.stem.split("-")[1])


def _is_whole(path: Path) -> bool:
    try:
        if sha256_of(path) != path.stem.split("-")[2]:
            return False
        return sorted(part_order(path)) == list(range(frames_of(path)))
    except (RainOerMeError, OSError, ValueError):  # ValueError: a name that is none of ours
        return False
