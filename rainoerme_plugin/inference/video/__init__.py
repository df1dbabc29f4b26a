"""Videos through a network, with everything that is not the picture as it was.

Decoding, the network and encoding run beside each other. Frames are encoded in parts that are kept in a folder beside
the target until all are there, so that a run that was stopped, by whatever means, goes on; the parts are then joined,
and sound and everything else copied, without encoding anything again.

Kept are the number of frames, each one's time, and the average rate; the shape of pixels, bits, colour tags and how a
player turns the frames; all other streams, byte for byte; chapters, and tags of the file and its streams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ...data.images import Pixels
from ...data.threads import Track, untracked
from ...errors import DataError, OptionError, RainOerMeError
from ...files import claim
from .kinds import VIDEO_SUFFIXES, is_video, why_unread

Frames: TypeAlias = Sequence[Pixels]
"""(H, W, 3) uint8 or uint16 RGB, upright, of one shape."""

DerainFrames: TypeAlias = Callable[[Frames], Sequence[Pixels]]
"""Some frames to as many derained ones of the same shape and type; called from one thread only."""

__all__ = [
    "VIDEO_SUFFIXES",
    "DerainFrames",
    "Frames",
    "VideoInfo",
    "VideoOptions",
    "VideoReport",
    "derain_video",
    "is_video",
    "probe_video",
    "why_unread",
]


@dataclass(frozen=True)
class VideoOptions:
    """How videos are derained.

    Raises:
        OptionError: A value is outside of its range.
    """

    batch: int = 1
    """Frames through the network at a time."""
    blend: float = 0.0
    """Mixing each frame with its neighbours where they are alike, against flicker: 0 (off) to 1."""
    quality: int | None = None
    """The encoder's constant rate factor, or its quantiser scale (MPEG-2, MPEG-4, MJPEG); None: no loss is seen."""
    network: str = ""
    """What tells this network and how it computes from others: a stopped run goes on only with the same."""
    part: int = 60
    """Frames that are encoded together, rounded up to whole batches; so many are lost at most when a run is stopped."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.part < 2:
            raise OptionError(f"batch must be at least 1 and part at least 2, got {self.batch} and {self.part}")
        if not 0 <= self.blend <= 1:
            raise OptionError(f"blend must be 0 (off) to 1, got {self.blend}")


class VideoInfo(NamedTuple):
    """What a video says of itself."""

    frames: int
    """Estimated from rate and duration where the container does not count; 0 where it tells neither."""
    width: int
    """Of upright frames."""
    height: int
    duration: float
    """Seconds; 0 where the container does not say."""


@dataclass(frozen=True)
class VideoReport:
    """What a run took, in seconds."""

    frames: int
    seconds: float
    network: float
    """Deraining and blending."""
    waited: float
    """The network's thread for frames to be decoded, or for the encoder."""
    reused: int
    """Frames that an earlier run had derained."""
    notes: tuple[str, ...] = ()
    """What could not be kept, a line each."""


def probe_video(path: Path) -> VideoInfo:
    """Size, length and number of frames (which may be an estimate) of a video; its first frame is decoded.

    Raises:
        DataError: It is missing, no video that is read, damaged, interlaced, or transparent.
        RainOerMeError: PyAV is not installed.
    """
    if (line := why_unread(path)) is not None:
        raise DataError(line)
    _need_av()
    from .reading import look_at

    return look_at(path)[1]


def derain_video(
    source: Path,
    target: Path,
    derain: DerainFrames,
    options: VideoOptions = VideoOptions(),
    track: Track[Any] = untracked,
) -> VideoReport:
    """Derain a video.

    ``target`` is written whole or not at all, and replaces an older one only at the end. Until then what is done is in
    ``.NAME.parts`` beside it, and used by the next call for the same source, network and options. The result is then
    the same, to the bit, as that of a run that was not stopped (on a machine with as many cores: encoders share work by
    them).

    Args:
        source: The video; only read.
        target: Its suffix decides on the container; its folder is made.
        derain: The network.
        options: How.
        track: Shows the progress.

    Raises:
        DataError: The source cannot be read to its end; what was done of it is removed.
        RainOerMeError: The target cannot hold it, another process writes to the target, or PyAV is not installed.
        OSError: There is no place for the target.
    """
    if (line := why_unread(source)) is not None:
        raise DataError(line)
    _need_av()
    from .run import derain_parts

    if target.suffix.lower() not in VIDEO_SUFFIXES:
        raise RainOerMeError(f"{target}: expected a video's name, which ends in one of {', '.join(VIDEO_SUFFIXES)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise RainOerMeError(f"{target}: is the video itself; name another file for the derained one")
    with claim(target):
        return derain_parts(source, target, derain, options, track)


def _need_av() -> None:
    try:
        import av  # noqa: F401
    except ImportError:
        raise RainOerMeError("videos need PyAV: pip install 'rainoerme_plugin[video]'") from None
