"""The target's container: a stream for each of the source, as far as it can hold them, and what a player is told."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.stream import Discard

from ...errors import RainOerMeError
from .reading import Look, is_picture, opened, reason

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

COUNTED = ("BPS", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS", "DURATION")
"""Tags by which Matroska's muxers tell what they have counted."""
_HEVC_TAGS = ("hvc1", "hev1")
"""Ways to keep HEVC in MP4 that players tell apart."""
_LARGEST_CLOCK = (1 << 31) - 1


Opened = tuple["OutputContainer", "InputContainer", "VideoStream", "dict[int, Stream]", "list[str]"]


@contextmanager
def target_of(
    part: Path, source: Path, file: Path, target: Path, look: Look, with_data: bool = True
) -> Iterator[Opened]:
    """The target open, with all streams, and the source.

    Args:
        part: Holds the codec of the picture.
        source: What is derained.
        file: Is written.
        target: What messages call it; its suffix decides on the container.
        look: Of the source.
        with_data: Whether streams are copied that are neither picture, sound nor text.

    Raises:
        RainOerMeError: The container cannot hold what the source does.
    """
    with opened(source) as (container, stream), av.open(os.path.abspath(part), "r") as first:
        options = _muxing(target, container, stream)
        output = av.open(os.path.abspath(file), "w", metadata_errors="surrogateescape", container_options=options)
        try:
            streams, notes = _add_streams(output, container, stream, first.streams.video[0], look, target, with_data)
            output.start_encoding()
            yield output, container, stream, streams, notes
            output.close()
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                raise
            raise RainOerMeError(
                f"{target}: cannot hold what {source.name} does ({reason(error)}); {_remedy(source, target)}"
            ) from None
        finally:
            with suppress(av.FFmpegError, OSError, ValueError):
                output.close()


def _remedy(source: Path, target: Path, stream: int | None = None) -> str:
    if source.suffix.lower() != target.suffix.lower():
        return f"take {source.suffix}, its suffix"
    left_out = "-map 0:v:0 -map 0:a?" if stream is None else f"-map 0 -map -0:{stream}"
    return f"leave out what is in the way first (ffmpeg -i IN {left_out} -c copy OUT)"


def _muxing(target: Path, source: InputContainer, video: VideoStream) -> dict[str, str]:
    kind, from_kind = family(target.suffix), family(Path(source.name).suffix)
    if kind == "mp4":
        options = {}
        base = Fraction(video.time_base or 1)
        begin = (video.start_time or 0) * base
        is_fine = (video.duration or 0) * base < 1 or (video.average_rate or 0) > 1000
        clock = math.lcm(1000, begin.denominator, base.denominator if is_fine else 1)
        if 1000 < clock <= _LARGEST_CLOCK:
            # The file's own clock, in which a late begin and the whole length are told, has milliseconds by default,
            # and cuts off the rest: all, of some frames at a very high rate.
            options["movie_timescale"] = str(clock)
        if any(key.startswith("com.") for key in source.metadata):
            # Tags that are not in the format's own list, such as a phone's place and model.
            options["movflags"] = "use_metadata_tags"
        return options
    if kind == from_kind == "ts":
        return {"mpegts_copyts": "1"}
    if kind == from_kind == "mkv":
        # Else sound that begins before 0 would shift all the rest.
        return {"avoid_negative_ts": "disabled"}
    return {}


def family(suffix: str) -> str:
    """The container that a suffix stands for, by one of its names."""
    alike = {
        **dict.fromkeys(("m4v", "mov", "ipod", "3gp", "3g2", "f4v"), "mp4"),
        **dict.fromkeys(("mts", "m2ts", "m2t"), "ts"),
        "webm": "mkv",
    }
    name = suffix.lower().removeprefix(".")
    return alike.get(name, name)


def _add_streams(
    output: OutputContainer,
    container: InputContainer,
    video: VideoStream,
    encoded: VideoStream,
    look: Look,
    target: Path,
    with_data: bool,
) -> tuple[dict[int, Stream], list[str]]:
    """Streams of the target for those of the source, by the source's index, and what becomes of some of them."""
    output.metadata.update(container.metadata)
    output.set_chapters(container.chapters())
    streams: dict[int, Stream] = {}
    notes: list[str] = []
    timecode = None
    for stream in container.streams:
        made: Stream
        what = f"{stream.type} stream {stream.index} ({stream.name or 'of unknown format'})"
        is_data = stream.type not in ("video", "audio", "subtitle", "attachment")
        if stream.index == video.index:
            made = _add_video(output, video, encoded, look)
        elif is_data and stream.discard == Discard.all:
            continue  # titles of chapters
        elif is_data and family(target.suffix) == "mp4" and "timecode" in stream.metadata:
            # The muxer makes such a track of the tag; it cannot copy one.
            timecode = timecode or stream.metadata["timecode"]
            continue
        elif is_data and (stream.name is None or not with_data):
            # What FFmpeg does not know, its muxers write without the description that tells how to read it.
            notes.append(f"{target}: {what} is left out")
            continue
        elif family(target.suffix) == "mkv" and "mimetype" in stream.metadata and is_picture(stream.disposition):
            # An attached picture, which FFmpeg reads as a stream; as one it would be a second video.
            about = stream.metadata
            output.add_attachment(about.get("filename", "cover"), about["mimetype"], _attached(container, stream))
            continue
        else:
            try:
                made = output.add_stream_from_template(stream, opaque=True)
            except (ValueError, av.FFmpegError) as error:
                if is_data or is_picture(stream.disposition):
                    notes.append(f"{target}: {what} is left out ({reason(error)})")
                    continue
                source = Path(container.name)
                raise RainOerMeError(
                    f"{target}: {target.suffix} cannot hold {what} of the source; "
                    f"{_remedy(source, target, stream.index)}"
                ) from None
            if stream.type == "video" and not is_picture(stream.disposition):
                notes.append(f"{target}: {what} is copied as it is; only the first picture is derained")
        made.disposition = stream.disposition
        kept = {key: value for key, value in stream.metadata.items() if not key.startswith(COUNTED)}
        if stream.index == video.index:
            kept = {key: value for key, value in kept.items() if key.lower() != "encoder"}
        if "name" in kept and family(target.suffix) == "mp4":
            kept.setdefault("title", kept["name"])  # it is read by one name, and written by the other
        made.metadata.update(kept)
        streams[stream.index] = made
    if timecode is not None:
        streams[video.index].metadata.setdefault("timecode", timecode)
    return streams, notes


def _attached(container: InputContainer, stream: Stream) -> bytes:
    """The bytes of an attached picture."""
    with av.open(container.name, "r", options={"protocol_whitelist": "file"}) as again:
        return next(bytes(packet) for packet in again.demux(again.streams[stream.index]) if packet.size)


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
    if tag in _HEVC_TAGS and encoded.codec_context.name == "hevc" and family(str(output.format.name)) == "mp4":
        context.codec_tag = tag
    if encoded.codec_context.name == "rawvideo":  # which says how its bytes are to be taken by nothing else
        context.codec_tag = tag
        context.bits_per_coded_sample = encoded.format.padded_bits_per_pixel
    return made
