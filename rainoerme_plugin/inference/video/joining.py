"""The derained video from its parts: packets are copied, of the parts and of all else that the source holds."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.stream import Discard

from ...errors import RainOerMeError
from .parts import frames_of, part_order
from .reading import Look, Timing, opened, reason

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

_COUNTED = ("BPS", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS", "DURATION")
"""Tags by which Matroska's muxers tell what they have counted."""
_REHEARSED = 64 << 20
"""Bytes of stand-ins for frames, about, that a rehearsal writes."""
_NO_TEXT = bytes(2)
"""The packet of MP4's subtitles that ends one, which its muxer puts in by itself."""
_TAGS = ("hvc1", "hev1")
"""Ways to keep HEVC in MP4 that players tell apart."""


def rehearse(part: Path, timings: Sequence[Timing], source: Path, file: Path, target: Path, look: Look) -> None:
    """Write the target into ``file`` as `join` will, with the frames of ``part`` again and again for those to come.

    Raises:
        RainOerMeError: Its container cannot hold what the source does.
    """
    with av.open(os.path.abspath(part), "r") as container:
        stream = container.streams.video[0]
        ahead = stream.codec_context.reorder_depth
        frames = [bytes(packet) for packet in container.demux(stream) if packet.size]
    apart = max(1, len(timings) * max(map(len, frames)) // _REHEARSED)
    timings = [*timings[:-1:apart], timings[-1]]
    delay = min(ahead, len(timings) - 1)
    # So many frames are decoded ahead as are to come, and those shown meanwhile in order.
    numbers = [min(delay, len(timings) - 1), *range(delay), *range(delay + 1, len(timings))]
    packets = (av.Packet(frames[place % len(frames)]) for place in range(len(timings)))
    _write(part, packets, numbers, timings, source, file, target, look)


def join(
    parts: Sequence[Path], timings: Sequence[Timing], source: Path, file: Path, target: Path, look: Look
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
    return _write(parts[0], _packets(parts), _numbers(parts, orders), timings, source, file, target, look)


def _write(
    part: Path,
    packets: Iterator[Packet[Any]],
    numbers: Sequence[int],
    timings: Sequence[Timing],
    source: Path,
    file: Path,
    target: Path,
    look: Look,
) -> list[str]:
    with _target(part, source, file, target, look) as (output, container, stream, streams, notes):
        encoded = _encoded(packets, numbers, timings, streams[stream.index], stream)
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


_Opened = tuple["OutputContainer", "InputContainer", "VideoStream", "dict[int, Stream]", "list[str]"]


@contextmanager
def _target(part: Path, source: Path, file: Path, target: Path, look: Look) -> Iterator[_Opened]:
    """The target open, with all streams, and the source."""
    with opened(source) as (container, stream), av.open(os.path.abspath(part), "r") as first:
        options = _muxing(target, container, stream)
        output = av.open(os.path.abspath(file), "w", metadata_errors="surrogateescape", container_options=options)
        try:
            streams, notes = _add_streams(output, container, stream, first.streams.video[0], look, target)
            output.start_encoding()
            yield output, container, stream, streams, notes
            output.close()
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                raise
            raise RainOerMeError(
                f"{target}: cannot hold what {source.name} does ({reason(error)}); take {source.suffix}, its suffix"
            ) from None
        finally:
            with suppress(av.FFmpegError, OSError, ValueError):
                output.close()


def _muxing(target: Path, source: InputContainer, video: VideoStream) -> dict[str, str]:
    family, from_family = _family(target.suffix), _family(Path(source.name).suffix)
    if family == "mp4":
        options = {}
        begin = (video.start_time or 0) * Fraction(video.time_base or 1)
        if (1000 * begin).denominator > 1:
            # The file's own clock, in which a late begin is told, has milliseconds by default, and cuts off the rest.
            options["movie_timescale"] = str(math.lcm(1000, begin.denominator))
        if any(key.startswith("com.") for key in source.metadata):
            # Tags that are not in the format's own list, such as a phone's place and model.
            options["movflags"] = "use_metadata_tags"
        return options
    if family == from_family == "ts":
        return {"mpegts_copyts": "1"}
    if family == from_family == "mkv":
        # Else sound that begins before 0 would shift all the rest.
        return {"avoid_negative_ts": "disabled"}
    return {}


def _family(suffix: str) -> str:
    """The container that a suffix stands for, by one of its names."""
    alike = {"m4v": "mp4", "mov": "mp4", "ipod": "mp4", "webm": "mkv", "mts": "ts", "m2ts": "ts"}
    name = suffix.lower().removeprefix(".")
    return alike.get(name, name)


def _add_streams(
    output: OutputContainer,
    container: InputContainer,
    video: VideoStream,
    encoded: VideoStream,
    look: Look,
    target: Path,
) -> tuple[dict[int, Stream], list[str]]:
    """Streams of the target for those of the source, by the source's index, and what is left out."""
    output.metadata.update(container.metadata)
    output.set_chapters(container.chapters())
    streams: dict[int, Stream] = {}
    notes: list[str] = []
    for stream in container.streams:
        made: Stream
        if stream.index == video.index:
            made = _add_video(output, video, encoded, look)
        elif stream.type == "data" and stream.discard == Discard.all:
            continue  # titles of chapters
        else:
            try:
                made = output.add_stream_from_template(stream, opaque=True)
            except (ValueError, av.FFmpegError) as error:
                what = f"{stream.type} stream {stream.index} ({stream.name or 'of unknown format'})"
                if stream.type == "data":
                    notes.append(f"{target.name}: {what} is left out ({reason(error)})")
                    continue
                suffix = Path(container.name).suffix
                raise RainOerMeError(
                    f"{target}: {target.suffix} cannot hold {what} of the source; take {suffix}, its suffix"
                ) from None
        made.disposition = stream.disposition
        kept = {key: value for key, value in stream.metadata.items() if not key.startswith(_COUNTED)}
        if stream.index == video.index:
            kept = {key: value for key, value in kept.items() if key.lower() != "encoder"}
        if "name" in kept and _family(target.suffix) == "mp4":
            kept.setdefault("title", kept["name"])  # it is read by one name, and written by the other
        made.metadata.update(kept)
        streams[stream.index] = made
    return streams, notes


def _add_video(output: OutputContainer, video: VideoStream, encoded: VideoStream, look: Look) -> Stream:
    made: Any = output.add_stream_from_template(encoded, opaque=True)
    made.time_base = video.time_base
    context = made.codec_context
    context.framerate = look.rate
    if look.aspect is not None:
        context.sample_aspect_ratio = look.aspect
    context.color_range, context.color_primaries, context.color_trc, context.colorspace = look.tags
    if look.display is not None:
        made.set_display_matrix(look.display)
    tag = video.codec_context.codec_tag
    if tag in _TAGS and encoded.codec_context.name == "hevc" and _family(str(output.format.name)) == "mp4":
        context.codec_tag = tag
    return made


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
    timings: Sequence[Timing],
    made: Stream,
    video: VideoStream,
) -> Iterator[_Timed]:
    """Packets of frames of these numbers, with the times of the source's frames."""
    # A frame is decoded before it is shown: that it is so many frames earlier than one after another suffices for all.
    delay = max(place - number for place, number in enumerate(numbers))
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
        if place == len(numbers) - 1 and _family(str(made.container.format.name)) == "mp4":
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
