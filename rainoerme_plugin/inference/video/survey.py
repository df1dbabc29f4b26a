"""One reading of a whole video before the network works: whether all is there, when frames are shown, what changes.

All packets are read, and keyframes decoded some frames apart: what would have to be refused in the midst of the work
is refused before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from .reading import (
    DamagedVideoError,
    Look,
    Timing,
    begin_of,
    check_frame,
    damaged,
    heard,
    opened,
    reason,
    refuse_interlaced,
)
from .whole import missing_bytes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_DECLARE = {"mov", "matroska", "avi"}
"""Formats whose header says how long the whole is."""
_MISSING = 0.5
"""Seconds that a video may end before its declared end: containers round, and count a last frame or not."""
_APART = 24
"""Frames between keyframes that are decoded."""


@dataclass(frozen=True)
class Survey:
    """What a video holds from its beginning to its end, by its packets."""

    timings: list[Timing]
    """Of the frames, in the order in which they are shown."""
    are_final: bool
    """Whether frames have these times. Else they have those that the decoder gives them. In AVI a packet has one time
    only, and what FFmpeg makes of it for H.264 is late by as many frames as might be decoded ahead."""
    notes: list[str] = field(default_factory=list)
    """What is odd, a line each."""


def survey(path: Path, look: Look) -> Survey:
    """Read a video once.

    Raises:
        DamagedVideoError: A packet is damaged, the file is shorter than it says, or frames change in size or format.
        DataError: Frames in the midst are interlaced.
    """
    with opened(path) as (container, stream):
        by_packets = container.format.name == "avi"
        timings: list[Timing] = []
        end = 0.0
        begin = last = begin_of(container)
        following = packets = 0
        try:
            for packet in heard(container.demux(), "matroska"):
                if packet is None or packet.is_corrupt:
                    raise DamagedVideoError(damaged(path, last - begin))
                moment = packet.dts if by_packets or packet.pts is None else packet.pts
                seconds = last if moment is None else float(moment * packet.time_base)
                end = max(end, seconds + float((packet.duration or 0) * (packet.time_base or 0)))
                if packet.stream_index != stream.index or not packet.size:
                    continue
                packets += 1
                last = seconds
                if not packet.is_discard:
                    before = timings[-1].pts if timings else 0
                    timings.append(Timing(before if moment is None else moment, packet.duration or 0))
                if packet.is_keyframe and packets > following:
                    following = packets + _APART
                    _check_keyframe(path, packet, stream, look)
        except (av.FFmpegError, OSError) as error:
            raise DamagedVideoError(damaged(path, last - begin, reason(error))) from None
        if not timings:
            raise DamagedVideoError(f"{path}: holds no frame that players show")
        notes = _check_whole(path, container, stream, packets, last - begin, end)
        return Survey(_in_order(timings), by_packets, notes)


def _in_order(timings: Iterable[Timing]) -> list[Timing]:
    """By time, no two at one."""
    made: list[Timing] = []
    for timing in sorted(timings, key=lambda each: each.pts):
        least = made[-1].pts + 1 if made else timing.pts
        made.append(timing._replace(pts=max(least, timing.pts)))
    return made


def _check_keyframe(path: Path, packet: Any, stream: VideoStream, look: Look) -> None:
    context: Any = stream.codec_context
    try:
        frames = [*packet.decode(), *context.decode(None)]
    except av.FFmpegError:  # it is decoded again with those before it
        frames = []
    finally:
        context.flush_buffers()
    for frame in frames:
        check_frame(path, frame, look)
        refuse_interlaced(path, frame)


def _check_whole(
    path: Path, container: InputContainer, stream: VideoStream, packets: int, last: float, end: float
) -> list[str]:
    """What is odd and may be so.

    Raises:
        DamagedVideoError: Not all is there that the file names.
    """
    if lacks := missing_bytes(path):
        more = f"; {packets} of {stream.frames} frames are there" if stream.frames > packets else ""
        raise DamagedVideoError(damaged(path, last, f"{lacks:,} bytes are missing at its end{more}"))
    named = sum(entry.size > 0 for entry in stream.index_entries)
    if named > packets:
        raise DamagedVideoError(damaged(path, last, f"{packets} of the {named} frames that its index names are there"))
    formats = set(container.format.name.split(","))
    if _DECLARE & formats and container.duration:
        declared = begin_of(container) + container.duration / av.time_base
        if end < declared - _MISSING:
            raise DamagedVideoError(damaged(path, last, f"its header says that it has {declared:.2f} s"))
    if "avi" in formats and not stream.frames:
        return [f"{path}: was never finished by what wrote it, so that frames may be missing at its end"]
    return []
