"""What PyAV reads of videos: their frames, and what these are like. What it raises becomes a `DataError`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition

from ...data.images import Pixels
from ...errors import DataError, one_line
from . import VIDEO_SUFFIXES, VideoInfo
from .colours import Colours, planar
from .encoders import Tags
from .kinds import converted

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

T = TypeVar("T")
READ = {"mov", "mp4", "matroska", "webm", "avi", "mpegts"}
"""Formats by FFmpeg's names. It reads many more things, such as lists of addresses to fetch from."""


class DamagedVideoError(DataError):
    """A video that cannot be read to its end."""


class Look(NamedTuple):
    """What a video's frames are like, as they are stored."""

    width: int
    height: int
    pixel_format: str
    tags: Tags
    aspect: Fraction | None
    """Of a stored pixel."""
    rate: Fraction
    display: tuple[int, ...] | None
    """FFmpeg's display matrix: how a player turns the frames."""
    codec: str
    profile: str | None

    def colours(self) -> Colours:
        """To and from RGB."""
        return Colours(self.pixel_format, self.height, self.tags[0], self.tags[3], self.codec)


class Timing(NamedTuple):
    """When a frame is shown, and for how long (0: unknown), in the stream's time base."""

    pts: int
    duration: int


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video, and its stream of moving pictures.

    Raises:
        DataError: There is none.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        container = av.open(
            os.path.abspath(path), "r", metadata_errors="surrogateescape", options={"protocol_whitelist": "file"}
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a video that is read, or damaged ({reason(error)}); get the whole file") from None
    with container:
        if not READ & set(container.format.name.split(",")):
            remedy = converted(container.format.name)
            kind = f", but {container.format.long_name}; convert it first ({remedy})" if remedy else ""
            raise DataError(f"{path}: not a video that is read ({', '.join(VIDEO_SUFFIXES)}){kind}")
        stream = next((stream for stream in container.streams.video if not is_picture(stream.disposition)), None)
        if stream is None or stream.codec_context is None:
            raise DataError(f"{path}: holds no video, or one in a format that PyAV does not decode")
        yield container, stream


def is_picture(disposition: Disposition) -> bool:
    """Whether a stream is a cover."""
    return bool(disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def reason(error: BaseException) -> str:
    """What FFmpeg or the system says."""
    return (getattr(error, "strerror", None) or one_line(error)).lower()


def decoded(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames that a player shows, in order.

    Raises:
        DamagedVideoError: One cannot be decoded; the message says when it would be shown.
    """
    stream.thread_type = "AUTO"  # type: ignore[assignment]
    # A frame that is made up for one that is damaged would be a loss that nobody is told of.
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
    begin = last = begin_of(container)
    frames: Iterator[VideoFrame | None] = (frame for packet in container.demux(stream) for frame in packet.decode())
    if stream.codec_context.name == "ffv1":
        stream.thread_count = 1  # or other threads would complain
        frames = heard(frames, "ffv1")
    try:
        for frame in frames:
            if frame is None or frame.is_corrupt:
                raise DamagedVideoError(damaged(path, last - begin))
            yield frame
            last = frame.time or last
    except (av.FFmpegError, OSError) as error:
        raise DamagedVideoError(damaged(path, last - begin, reason(error))) from None


def heard(items: Iterator[T], name: str) -> Iterator[T | None]:
    """The items, with None for one that FFmpeg's part of that name complains of.

    Its reader of Matroska goes on behind what is damaged, and its decoder of FFV1 makes up what fails its checksum:
    both tell nobody but the log.
    """
    level = av.logging.get_level()
    while True:
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture(local=True) as messages:
                item = next(items, None)
        finally:
            av.logging.set_level(level)
        if any(name in who for _, who, _ in messages):
            yield None
        elif item is None:
            return
        else:
            yield item


def begin_of(container: InputContainer) -> float:
    """The time that a file begins at, in seconds: those of transport streams do not begin at 0."""
    return (container.start_time or 0) / av.time_base


def damaged(path: Path, seconds: float, why: str = "") -> str:
    """The message of a `DamagedVideoError`; the time is that after `begin_of` the file."""
    cut = f"cut it there (ffmpeg -i IN -t {seconds:.2f} -c copy OUT), or " if seconds >= 0.01 else ""
    remedy = f"{cut}get the whole file"
    return f"{path}: damaged after {seconds:.2f} s{f' ({why})' if why else ''}; {remedy}"


def look_at(path: Path) -> tuple[Look, VideoInfo]:
    """What a video is like, from its header and its first frame.

    Raises:
        DataError: It is missing, no video, damaged, interlaced, or transparent.
    """
    with opened(path) as (container, stream):
        frame = next(decoded(path, container, stream), None)
        if frame is None:
            raise DataError(f"{path}: holds no frame that can be decoded")
        _check_kind(path, container, stream, frame)
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        aspect = stream.sample_aspect_ratio
        look = Look(
            width=frame.width,
            height=frame.height,
            pixel_format=frame.format.name,
            tags=(frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace),
            aspect=Fraction(aspect) if aspect else None,
            rate=rate,
            display=_display_matrix(frame),
            codec=stream.codec_context.codec.canonical_name,
            profile=stream.profile,
        )
        seconds = _seconds(container, stream)
        height, width = upright(np.empty((look.height, look.width, 3), np.uint8), look.display).shape[:2]
        return look, VideoInfo(stream.frames or round(seconds * rate), width, height, seconds)


def _check_kind(path: Path, container: InputContainer, stream: VideoStream, frame: VideoFrame) -> None:
    """Refuse what cannot be derained without a loss that nobody would see."""
    refuse_interlaced(path, frame)
    # WebM keeps it beside the picture, in packets that FFmpeg's own decoders pass by.
    has_alpha = any(component.is_alpha for component in frame.format.components)
    if has_alpha or stream.metadata.get("alpha_mode", "0") != "0":
        raise DataError(f"{path}: has transparency, which would be lost; flatten it onto a background first")
    if stream.disposition & Disposition.multilayer:
        raise DataError(
            f"{path}: has a second layer (another eye's view, or transparency), which would be lost; take it out first "
            "(ffmpeg -i IN -c:v libx265 -c:a copy OUT)"
        )
    try:
        planar(frame.format.name)
    except ValueError as error:
        raise DataError(
            f"{path}: {error}; convert it first (ffmpeg -i IN -c:v ffv1 -pix_fmt gbrp16le OUT.mkv)"
        ) from None


def refuse_interlaced(path: Path, frame: VideoFrame) -> None:
    """Refuse a frame that holds two moments.

    Raises:
        DataError: It does.
    """
    if frame.interlaced_frame:
        raise DataError(f"{path}: is interlaced; deinterlace it first (ffmpeg -i IN -vf bwdif -c:a copy OUT)")


def check_frame(path: Path, frame: VideoFrame, look: Look) -> None:
    """Refuse a frame that is not like the first one.

    Raises:
        DamagedVideoError: It has another size or pixel format.
    """
    if (frame.width, frame.height, frame.format.name) != (look.width, look.height, look.pixel_format):
        raise DamagedVideoError(
            f"{path}: changes from {look.width}x{look.height} {look.pixel_format} to "
            f"{frame.width}x{frame.height} {frame.format.name} after {frame.time or 0:.2f} s; cut it there"
        )


def _seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    side_data: Any = frame.side_data
    matrix = next((bytes(data) for data in side_data if data.type == SideData.DISPLAYMATRIX), None)
    return None if matrix is None else tuple(np.frombuffer(matrix, np.int32).tolist())


def upright(image: Pixels, display: Sequence[int] | None) -> Pixels:
    """A stored (H, W, 3) frame as a player shows it: turned by the nearest quarter, and mirrored."""
    return image if display is None else _turned(image, display, back=False)


def stored(image: Pixels, display: Sequence[int] | None) -> Pixels:
    """What `upright` has turned, turned back."""
    return image if display is None else _turned(image, display, back=True)


def _turned(image: Pixels, display: Sequence[int], back: bool) -> Pixels:
    # A pixel that is stored at x, y is shown at a * x + c * y, b * x + d * y.
    a, b, c, d = display[0], display[1], display[3], display[4]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    flips = slice(None, None, -1 if b < 0 else 1), slice(None, None, -1 if c < 0 else 1)
    return image[flips].swapaxes(0, 1) if back else image.swapaxes(0, 1)[flips]
