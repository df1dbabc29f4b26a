"""The derained video from its parts: packets are copied, of the parts and of all else that the source holds."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ...errors import RainOerMeError
from .containers import family, target_of
from .parts import frames_of, part_order
from .reading import Look, Timing, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

_REHEARSED = 64 << 20
"""Bytes of stand-ins for frames, about, that a rehearsal writes."""
_NO_TEXT = bytes(2)
"""The packet of MP4's subtitles that ends one, which its muxer puts in by itself."""


def rehearse(
    part: Path, timings: Sequence[Timing], source: Path, file: Path, target: Path, look: Look, with_data: bool = True
) -> None:
    """Write the target into ``file`` as `join` will, with the frames of ``part`` again and again for those to come.

    Raises:
        RainOerMeError: Its container cannot hold what the source does.
    """
    with av.open(os.path.abspath(part), "r") as container:
        stream = container.streams.video[0]
        ahead = stream.codec_context.reorder_depth
        frames = [(bytes(packet), packet.is_keyframe) for packet in container.demux(stream) if packet.size]
    apart = max(1, len(timings) * max(len(data) for data, _ in frames) // _REHEARSED)
    timings = [*timings[:-1:apart], timings[-1]]
    numbers = range(len(timings))
    packets = (_packet(*frames[place % len(frames)]) for place in numbers)
    ahead = min(ahead, len(timings) - 1)
    _write(part, packets, numbers, ahead, timings, source, file, target, look, with_data)
    with opened(file) as (written, stream):
        shown = sum(packet.size > 0 and not packet.is_discard for packet in written.demux(stream))
    if shown < len(timings):
        raise RainOerMeError(
            f"{target}: would show {shown} of {len(timings)} frames, as the times of {source.name} do not fit its "
            "container; give it another rate first (ffmpeg -i IN -vf setpts=N/25/TB -r 25 OUT)"
        )


def _packet(data: bytes, is_keyframe: bool) -> Packet[Any]:
    packet: Packet[Any] = av.Packet(data)
    packet.is_keyframe = is_keyframe
    return packet


def join(
    parts: Sequence[Path],
    timings: Sequence[Timing],
    source: Path,
    file: Path,
    target: Path,
    look: Look,
    with_data: bool = True,
) -> list[str]:
    """Write the target into ``file``: the frames of ``parts`` at their times, and all else as it is in ``source``.

    Returns:
        What could not be kept, a line each.

    Raises:
        RainOerMeError: The target's container cannot hold what the source does, or a part is not whole.
    """
    orders = [part_order(part) for part in parts]
    if sum(map(len, orders)) != len(timings):
        raise RainOerMeError(
            f"{parts[0].parent}: holds {sum(map(len, orders))} frames of the source's {len(timings)}; remove it"
        )
    numbers = _numbers(parts, orders)
    # A frame is decoded before it is shown: that it is so many frames earlier than one after another suffices for all.
    ahead = max(place - number for place, number in enumerate(numbers))
    return _write(parts[0], _packets(parts), numbers, ahead, timings, source, file, target, look, with_data)


def _write(
    part: Path,
    packets: Iterator[Packet[Any]],
    numbers: Sequence[int],
    ahead: int,
    timings: Sequence[Timing],
    source: Path,
    file: Path,
    target: Path,
    look: Look,
    with_data: bool,
) -> list[str]:
    with target_of(part, source, file, target, look, with_data) as (output, container, stream, streams, notes):
        encoded = _encoded(packets, numbers, ahead, timings, streams[stream.index], stream)
        copied = _copied(container, stream, streams)
        for _, packet in heapq.merge(encoded, copied, key=lambda item: item[0]):
            output.mux(packet)
    return notes


def _packets(parts: Sequence[Path]) -> Iterator[Packet[Any]]:
    for part in parts:
        with av.open(os.path.abspath(part), "r") as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.size:
                    yield packet


_Timed = tuple[float, "Packet[Any]"]
"""A packet, and the seconds by which it takes its turn."""


def _copied(container: InputContainer, video: VideoStream, streams: dict[int, Stream]) -> Iterator[_Timed]:
    """Packets of all streams but the derained one."""
    last = -np.inf
    for packet in container.demux():
        if packet.stream_index == video.index or packet.stream_index not in streams or not packet.size:
            continue
        if packet.stream.name == "mov_text" and bytes(packet) == _NO_TEXT:
            continue
        moment = packet.pts if packet.dts is None else packet.dts
        if moment is not None:
            last = max(last, float(moment * packet.time_base))
        packet.stream = streams[packet.stream_index]
        yield last, packet


def _numbers(parts: Sequence[Path], orders: Sequence[Sequence[int]]) -> list[int]:
    """The numbers of all frames in the order in which they are decoded."""
    numbers: list[int] = []
    for part, order in zip(parts, orders, strict=True):
        if len(order) != frames_of(part):
            raise RainOerMeError(f"{part}: is not whole; remove it")
        start = len(numbers)
        numbers += [start + number for number in order]
    return numbers


def _encoded(
    packets: Iterable[Packet[Any]],
    numbers: Sequence[int],
    delay: int,
    timings: Sequence[Timing],
    made: Stream,
    video: VideoStream,
) -> Iterator[_Timed]:
    """Packets of frames of these numbers, with the times of the source's frames."""
    first, last = timings[0].pts, timings[-1]
    before = timings[-1 - delay].pts
    average = max(1, round((last.pts - first) / max(1, len(timings) - 1)))
    shown = _shown(timings, video) or average
    step = max(1, min(average, (last.pts - before + shown - 1) // max(1, delay)))
    for place, (number, packet) in enumerate(zip(numbers, packets, strict=True)):
        timing, late = timings[number], place - delay
        packet.time_base = video.time_base  # type: ignore[assignment]
        packet.pts, packet.duration = timing
        packet.dts = timings[late].pts if late >= 0 else first + late * step
        packet.stream = made
        if place == len(numbers) - 1 and family(str(made.container.format.name)) == "mp4":
            # There a track is as long as the times from packet to packet, and this.
            packet.duration = max(1, last.pts - before + shown - delay * step)
        yield float(packet.dts * packet.time_base), packet


def _shown(timings: Sequence[Timing], video: VideoStream) -> int:
    """How long the last frame is shown; 0: unknown."""
    if video.duration is not None:
        rest = video.duration - (timings[-1].pts - timings[0].pts)
        if 0 < rest <= 4 * max(1, timings[-1].duration):
            return rest
    return timings[-1].duration
