"""Videos: what goes in comes out, frame by frame and packet by packet; runs that are stopped; what is broken."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from rainoerme_plugin.errors import DataError, OptionError, RainOerMeError  # noqa: E402
from rainoerme_plugin.files import claim  # noqa: E402
from rainoerme_plugin.inference.video import (  # noqa: E402
    Frames,
    VideoOptions,
    VideoReport,
    derain_video,
    probe_video,
)
from rainoerme_plugin.inference.video.pipe import EndedError, Pipe  # noqa: E402

HEIGHT, WIDTH = 48, 64
MILLI = Fraction(1, 1000)
VFR = np.cumsum(np.random.default_rng(3).integers(100, 900, 40)).tolist()
"""Times in 1/12800 s, and as well in milliseconds."""


# --- videos to test with, made by PyAV alone ---


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> Any:
    """(H, W, 3) in [0, 255], float: smooth, and moving."""
    y, x = np.mgrid[:height, :width]
    waves = ((x + 2 * number) / 9, 80), ((y + number) / 7, 70), ((x + y - number) / 11, 60)
    return np.stack([128 + size * np.sin(phase) for phase, size in waves], axis=-1)


def make(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    count: int = 40,
    audio: str | None = "aac",
    times: list[int] | None = None,
    base: Fraction = Fraction(1, 12800),
    start: int = 0,
    options: dict[str, str] | None = None,
    tags: tuple[int, int, int, int] = (0, 2, 2, 2),
    aspect: Fraction | None = None,
    display: tuple[float, bool] | None = None,
    subtitles: str | None = None,
    chapters: bool = False,
    attachment: bool = False,
    rate: Fraction = Fraction(25),
    height: int = HEIGHT,
) -> Path:
    """A video of `picture`, with a tone of both ears, subtitles, chapters, an attached file."""
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = WIDTH, height, pixels
        video.options = options or {}
        video.codec_context.time_base = base
        video.color_range, video.color_primaries, video.color_trc, video.colorspace = tags
        if aspect is not None:
            video.sample_aspect_ratio = aspect
        if display is not None:
            video.set_display_rotation(display[0], hflip=display[1])
        video.metadata["language"] = "eng"
        output.metadata["title"] = "Regen über Bergen"
        if chapters:
            output.set_chapters([chapter(1, 0, 500, "dry"), chapter(2, 500, 1500, "wet")])
        sound = None
        if audio is not None:
            sound = output.add_stream(audio, rate=48000)
            sound.layout = "stereo"
            sound.metadata["language"] = "deu"
        text = None
        if subtitles is not None:
            text = output.add_mux_stream(subtitles)
            text.time_base = MILLI
            text.metadata.update(language="fra", title="Sous-titres")
            text.disposition = av.stream.Disposition.forced
        if attachment:
            output.add_attachment("font.ttf", "application/x-truetype-font", b"letters" * 50)
        step = 1 / (rate * base)
        packets: list[Any] = []
        for number in range(count):
            frame = encodable(number, height, pixels, tags)
            frame.pts, frame.time_base = times[number] if times else int(start + number * step), base
            packets += video.encode(frame)
        packets += video.encode(None)
        if times is not None:
            # So that the whole is as long as its frames are shown.
            packets[-1].duration = packets[0].dts + times[-1] + 500 - times[0] - packets[-1].dts
        output.mux(packets)
        if sound is not None:
            tone(output, sound, count / float(rate))
        if text is not None:
            for number, begin in enumerate((100, 700, 1300)):
                line = f"line {number}".encode()
                packet = av.Packet(len(line).to_bytes(2, "big") + line if subtitles == "mov_text" else line)
                packet.pts = packet.dts = begin
                packet.duration, packet.time_base, packet.stream = 300, MILLI, text
                output.mux(packet)
    return path


def chapter(number: int, start: int, end: int, title: str) -> Any:
    return {"id": number, "start": start, "end": end, "time_base": MILLI, "metadata": {"title": title}}


def encodable(number: int, height: int, pixels: str, tags: tuple[int, int, int, int]) -> Any:
    wide = np.rint(picture(number, height) * 257).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(wide, format="rgb48le").reformat(format=pixels, interpolation="BICUBIC")
    frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace = tags
    return frame


def tone(output: Any, stream: Any, seconds: float) -> None:
    samples = np.sin(np.arange(int(48000 * seconds)) / 20) * 8000
    resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48000)
    for begin in range(0, len(samples), 1024):
        part = samples[begin : begin + 1024].astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(part, 2)[None], format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
        for ready in resampler.resample(frame):
            output.mux(stream.encode(ready))
    output.mux(stream.encode(None))


# --- what a file holds, by PyAV alone ---


def others(path: Path) -> dict[int, list[tuple[Any, ...]]]:
    """Every packet of every stream but the picture."""
    with av.open(str(path)) as container:
        found: dict[int, list[tuple[Any, ...]]] = {stream.index: [] for stream in container.streams}
        picture_stream = container.streams.video[0].index
        for packet in container.demux():
            if packet.size and packet.stream_index != picture_stream:
                # How long a packet of sound is, readers tell from the sound, or guess.
                duration = packet.duration if packet.stream.type == "subtitle" else None
                found[packet.stream_index].append((packet.pts, duration, bytes(packet)))
        return found


def about(path: Path) -> dict[str, Any]:
    """What a file says of itself and its streams."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return {
            "title": container.metadata.get("title"),
            "duration": container.duration,
            "start": container.start_time,
            "chapters": [
                (each["start"] * each["time_base"], each["end"] * each["time_base"], each["metadata"])
                for each in container.chapters()
            ],
            "streams": [
                (
                    stream.type,
                    stream.name,
                    int(stream.disposition),
                    stream.time_base,
                    # Of others these are guesses where the container does not say.
                    (stream.start_time, stream.duration) if stream.type in ("video", "audio") else None,
                )
                for stream in container.streams
            ],
            "tags": [
                {key: value for key, value in stream.metadata.items() if key != "encoder"}
                for stream in container.streams
            ],
            "attached": [stream.data for stream in container.streams if stream.type == "attachment"],
            "rate": video.average_rate,
            "aspect": video.sample_aspect_ratio,
            "size": (video.width, video.height),
        }


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def planes(path: Path) -> list[list[Any]]:
    """Of all frames, as they are decoded."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            deep = max(component.bits for component in frame.format.components) > 8
            kind = np.uint16 if deep else np.uint8
            rows = [
                np.frombuffer(bytes(plane), kind).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes
            ]
            found.append([each.astype(int) for each in rows])
    return found


def exactly(path: Path) -> list[bytes]:
    return [b"".join(plane.tobytes() for plane in frame) for frame in planes(path)]


def identity(frames: Frames) -> list[Any]:
    return list(frames)


def inverted(frames: Frames) -> list[Any]:
    return [~frame for frame in frames]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# --- what is kept ---

KINDS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"subtitles": "mov_text", "chapters": True},
    "b_frames.mkv": {"base": MILLI, "subtitles": "subrip", "chapters": True, "attachment": True, "audio": "libopus"},
    "vfr.mp4": {"times": VFR},
    "vfr.mkv": {"times": VFR, "base": MILLI},
    "late.mp4": {"start": 6400},
    "early.mp4": {"start": -512 * 5},
    "late.mkv": {"start": 700, "base": MILLI},
    "film.mov": {"codec": "prores_ks", "pixels": "yuv422p10le", "audio": "pcm_s16le", "rate": Fraction(24000, 1001),
                 "base": Fraction(1, 24000)},
    "old.avi": {"codec": "mpeg4", "audio": "pcm_s16le", "base": Fraction(1, 25)},
    "camera.avi": {"codec": "mjpeg", "pixels": "yuvj420p", "audio": "pcm_s16le", "base": Fraction(1, 25)},
    "stream.ts": {"base": Fraction(1, 90000), "start": 90000},
    "web.webm": {"codec": "libvpx-vp9", "audio": "libopus", "base": MILLI},
    "apple.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=error"}},
    "lossless.mkv": {"codec": "ffv1", "base": MILLI},
    "silent.mp4": {"audio": None},
    "single.mp4": {"count": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_all_but_the_picture_is_as_it_was(name: str, tmp_path: Path) -> None:
    source = make(tmp_path / name, **KINDS[name])
    report = derain_video(source, tmp_path / "out" / name, inverted, VideoOptions(part=15))
    target = tmp_path / "out" / name
    assert others(target) == others(source)
    assert times(target) == times(source)
    assert report.frames == len(times(source))
    expected, got = about(source), about(target)
    assert got == expected
    assert left(target.parent) == [name]
    assert report.notes == ()


def test_the_codec_is_kept(tmp_path: Path) -> None:
    # The streams' names above are those of decoders; this is what a player would look at in MP4.
    with av.open(str(make(tmp_path / "x.mp4", "libx265", options={"x265-params": "log-level=error"}))) as container:
        video = container.streams.video[0]
        with av.open(str(tmp_path / "hvc1.mp4"), "w") as output:
            made = output.add_stream_from_template(video, opaque=True)
            made.codec_context.codec_tag = "hvc1"
            for packet in container.demux(video):
                if packet.size:
                    packet.stream = made
                    output.mux(packet)
    derain_video(tmp_path / "hvc1.mp4", tmp_path / "out.mp4", identity)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_the_shape_of_pixels_is_kept(tmp_path: Path) -> None:
    source = make(tmp_path / "wide.mp4", aspect=Fraction(4, 3))
    report = derain_video(source, tmp_path / "out.mp4", identity)
    assert about(tmp_path / "out.mp4")["aspect"] == Fraction(4, 3)
    assert report.notes == ()


@pytest.mark.parametrize("tags", [(1, 9, 16, 9), (2, 1, 1, 1), (1, 6, 6, 6)])
@pytest.mark.parametrize(("codec", "pixels"), [("libx265", "yuv420p10le"), ("libx264", "yuv444p"), ("ffv1", "yuv420p")])
def test_colour_tags_and_bits_are_kept(tags: tuple[int, ...], codec: str, pixels: str, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
    suffix = ".mkv" if codec == "ffv1" else ".mp4"
    source = make(tmp_path / f"x{suffix}", codec, pixels, tags=tags, count=4, options=options, base=MILLI)  # type: ignore[arg-type]
    seen: list[np.dtype[Any]] = []
    target = tmp_path / f"out{suffix}"
    derain_video(source, target, lambda frames: [*frames, *map(seen.append, (x.dtype for x in frames))][: len(frames)])
    for path in (source, target):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            found = (frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace)
            assert found == tags
            expected = pixels if tags[0] == 1 or codec != "libx264" else pixels.replace("yuv", "yuvj")
            assert frame.format.name == expected
    assert set(seen) == {np.dtype(np.uint16 if "10" in pixels else np.uint8)}


# --- colours ---

MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


def yuv(rgb: Any, matrix: str, full: bool, bits: int) -> Any:
    """ITU-T H.273: (3,) RGB in [0, 1] to levels of YUV."""
    red, blue = MATRICES[matrix]
    luma = float(rgb @ np.array([red, 1 - red - blue, blue]))
    chroma = np.array([(rgb[2] - luma) / (2 - 2 * blue), (rgb[0] - luma) / (2 - 2 * red)])
    unit = 1 << (bits - 8)
    if full:
        return np.array([luma * ((1 << bits) - 1), *(chroma * ((1 << bits) - 1) + 128 * unit)])
    return np.array([(16 + 219 * luma) * unit, *((128 + 224 * chroma) * unit)])


def flat(path: Path, values: Any, pixels: str, tags: tuple[int, int, int, int], height: int) -> Path:
    """A lossless video of one colour."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = WIDTH, height, pixels
        video.color_range, video.color_primaries, video.color_trc, video.colorspace = tags
        frame = av.VideoFrame(WIDTH, height, pixels)
        for plane, value in zip(frame.planes, values, strict=True):
            size = 2 if "1" in pixels.removeprefix("yuv4").removeprefix("20").removeprefix("44") else 1
            level = np.full(plane.buffer_size // size, round(value), np.uint16 if size == 2 else np.uint8)
            plane.update(level.tobytes())
        frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace = tags
        for number in range(2):
            frame.pts = number
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


@pytest.mark.parametrize("colour", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.8, 0.2, 0.3), (0.1, 0.4, 0.9)])
@pytest.mark.parametrize(
    ("matrix", "pixels", "tags", "height"),
    [
        ("bt601", "yuv420p", (0, 2, 2, 2), 48),
        ("bt709", "yuv420p", (0, 2, 2, 2), 720),
        ("bt709", "yuv420p", (1, 1, 1, 1), 48),
        ("bt601", "yuv444p", (1, 5, 6, 5), 720),
        ("bt709", "yuv420p", (2, 1, 1, 1), 48),
        ("bt2020", "yuv420p10le", (1, 9, 16, 9), 48),
        ("bt709", "yuv444p10le", (2, 1, 1, 1), 48),
        ("bt2020", "yuv444p12le", (1, 9, 18, 9), 48),
    ],
)
def test_the_network_sees_the_colours_of_the_streams_own_matrix(
    colour: tuple[float, ...], matrix: str, pixels: str, tags: Any, height: int, tmp_path: Path
) -> None:
    bits = int(pixels.partition("p")[2].removesuffix("le") or 8)
    source = flat(tmp_path / "x.mkv", yuv(np.array(colour), matrix, tags[0] == 2, bits), pixels, tags, height)
    seen: list[Any] = []

    def watch(frames: Frames) -> list[Any]:
        seen.extend(frames)
        return list(frames)

    derain_video(source, tmp_path / "out.mkv", watch)
    top = 255 if bits == 8 else 65535
    # Half a level of luma and chroma each, and RGB's own rounding, in levels of the stream's depth.
    tolerance = (0.5 * (1.2 + 2.1) + 0.5) / ((1 << bits) - 1)
    assert np.abs(seen[0] / top - colour).max() <= tolerance
    for before, after in zip(planes(source), planes(tmp_path / "out.mkv"), strict=True):
        for plane, other in zip(before, after, strict=True):
            assert np.abs(plane - other).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "tags"),
    [
        ("yuv420p", (1, 1, 1, 1)),
        ("yuv420p", (2, 1, 1, 1)),
        ("yuv444p", (1, 6, 6, 6)),
        ("yuv420p10le", (1, 9, 16, 9)),
        ("yuv444p10le", (2, 1, 1, 1)),
    ],
)
def test_what_the_network_leaves_comes_back(pixels: str, tags: Any, tmp_path: Path) -> None:
    source = make(tmp_path / "x.mkv", "ffv1", pixels, tags=tags, count=3, base=MILLI, audio=None)
    derain_video(source, tmp_path / "out.mkv", identity)
    for before, after in zip(planes(source), planes(tmp_path / "out.mkv"), strict=True):
        for number, (plane, other) in enumerate(zip(before, after, strict=True)):
            # Chroma is resampled where it is subsampled.
            assert np.abs(plane - other).max() <= (1 if number == 0 or "444" in pixels else 3)
            assert abs(float((plane - other).mean())) < 0.1


def test_what_the_network_changes_arrives(tmp_path: Path) -> None:
    source = make(tmp_path / "x.mkv", "ffv1", "yuv444p", count=3, base=MILLI, audio=None)
    derain_video(source, tmp_path / "out.mkv", inverted)
    for before, after in zip(planes(source), planes(tmp_path / "out.mkv"), strict=True):
        assert np.abs(before[0] + after[0] - (16 + 235)).max() <= 2
        for plane, other in zip(before[1:], after[1:], strict=True):
            assert np.abs(plane + other - 256).max() <= 2


def test_rgb_stays_rgb(tmp_path: Path) -> None:
    source = make(tmp_path / "x.mkv", "ffv1", "bgr0", count=3, base=MILLI, tags=(0, 2, 2, 0))
    derain_video(source, tmp_path / "out.mkv", identity)
    assert exactly(tmp_path / "out.mkv") == exactly(source)


# --- upright ---


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("display", [(90.0, False), (-90.0, False), (180.0, False), (0.0, True)])
def test_frames_are_upright_for_the_network_and_as_they_were_in_the_file(
    display: tuple[float, bool], suffix: str, tmp_path: Path
) -> None:
    if suffix == ".mkv" and display[1]:
        pytest.skip("Matroska holds no mirrored frames")
    source = make(tmp_path / f"x{suffix}", display=display, count=4, base=MILLI, options={"crf": "1"})
    target = tmp_path / f"out{suffix}"
    seen: list[Any] = []

    def mark(frames: Frames) -> list[Any]:
        """White into the upper left corner, as it is seen."""
        seen.extend(frames)
        marked = [frame.copy() for frame in frames]
        for frame in marked:
            frame[:12, :12] = 255
        return marked

    derain_video(source, target, mark)
    # Counter-clockwise, as PyAV documents it.
    upright = np.rot90(picture(0), round(display[0] / 90))
    upright = upright[:, ::-1] if display[1] else upright
    assert seen[0].shape == upright.shape
    assert np.abs(seen[0] - upright).mean() < 4
    matrices = []
    for path in (source, target):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            assert (frame.width, frame.height) == (WIDTH, HEIGHT)
            matrices.append([bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"])
    assert len(matrices[0]) == 1
    assert matrices[0] == matrices[1]
    shown = np.rot90(frame.to_ndarray(format="gray"), round(display[0] / 90))
    shown = shown[:, ::-1] if display[1] else shown
    assert shown[2:10, 2:10].min() > 220
    assert shown[:, 20:].max() < 220
    assert probe_video(source)[1:3] == upright.shape[1::-1]


# --- stopped runs ---


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_at(number: int, error: type[BaseException] = StoppedError) -> Callable[[Frames], list[Any]]:
    done = 0

    def derain(frames: Frames) -> list[Any]:
        nonlocal done
        done += len(frames)
        if done > number:
            raise error
        return inverted(frames)

    return derain


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("long") / "x.mp4", times=VFR)


@pytest.mark.parametrize(
    ("blend", "batch", "stops"),
    [(0.0, 1, (3, 16, 39)), (0.8, 1, (20,)), (0.8, 4, (25, 38)), (0.0, 7, (30,)), (0.8, 64, (1,))],
)
def test_a_stopped_run_goes_on_to_the_same_result(
    blend: float, batch: int, stops: tuple[int, ...], long: Path, tmp_path: Path
) -> None:
    options = VideoOptions(part=10, batch=batch, blend=blend, network="this one")
    whole = derain_video(long, tmp_path / "whole.mp4", inverted, options)
    assert whole.reused == 0
    size = -(-10 // batch) * batch
    seen = 0
    for stop in stops:
        with pytest.raises(StoppedError):
            derain_video(long, tmp_path / "x.mp4", stop_at(stop - seen), options)
        assert not (tmp_path / "x.mp4").exists()
        parts = len(list(tmp_path.glob(".x.mp4.parts/*.part")))
        assert parts * size <= stop
        seen = max(0, parts * size - (batch if blend and parts else 0))
    report = derain_video(long, tmp_path / "x.mp4", inverted, options)
    assert report.frames == 40
    assert report.reused == len(range(0, report.reused, size)) * size <= max(stops)
    assert exactly(tmp_path / "x.mp4") == exactly(tmp_path / "whole.mp4")
    assert (tmp_path / "x.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert left(tmp_path) == ["whole.mp4", "x.mp4"]


def test_parts_are_used_and_not_made_again(long: Path, tmp_path: Path) -> None:
    options = VideoOptions(part=10)
    with pytest.raises(KeyboardInterrupt):
        derain_video(long, tmp_path / "x.mp4", stop_at(35, KeyboardInterrupt), options)
    counted = 0

    def count(frames: Frames) -> list[Any]:
        nonlocal counted
        counted += len(frames)
        return inverted(frames)

    report = derain_video(long, tmp_path / "x.mp4", count, options)
    # The encoder may have been some frames behind.
    assert report.reused in (10, 20, 30)
    assert counted == 40 - report.reused


KILLED = """
import os, sys
from pathlib import Path
from rainoerme_plugin.inference.video import VideoOptions, derain_video
done = 0
def derain(frames):
    global done
    done += 1
    if len(list(Path(sys.argv[2]).parent.glob(".x.mp4.parts/*.part"))) == 2 or done > 38:
        os.kill(os.getpid(), 9)
    return [~frame for frame in frames]
derain_video(Path(sys.argv[1]), Path(sys.argv[2]), derain, VideoOptions(part=10))
"""


def test_a_killed_run_goes_on(long: Path, tmp_path: Path) -> None:
    options = VideoOptions(part=10)
    derain_video(long, tmp_path / "whole.mp4", inverted, options)
    run = subprocess.run([sys.executable, "-c", KILLED, long, tmp_path / "x.mp4"], capture_output=True, timeout=60)
    assert run.returncode == -9
    report = derain_video(long, tmp_path / "x.mp4", inverted, options)
    assert report.reused >= 10
    assert (tmp_path / "x.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert left(tmp_path) == ["whole.mp4", "x.mp4"]


def test_parts_of_anything_else_are_not_used(long: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(long.read_bytes())

    def stopped(options: VideoOptions) -> None:
        with pytest.raises(StoppedError):
            derain_video(source, tmp_path / "x.mp4", stop_at(39), options)
        assert (tmp_path / ".x.mp4.parts").is_dir()

    options = VideoOptions(part=10, network="one")
    for other in (
        VideoOptions(part=10, network="two"),
        VideoOptions(part=10, network="one", quality=30),
        VideoOptions(part=10, network="one", blend=0.5),
        VideoOptions(part=11, network="one"),
    ):
        stopped(options)
        assert derain_video(source, tmp_path / "x.mp4", inverted, other).reused == 0
    stopped(options)
    os.utime(source, (1, 1))
    assert derain_video(source, tmp_path / "x.mp4", inverted, options).reused == 0


def test_a_part_that_is_not_whole_is_made_again(long: Path, tmp_path: Path) -> None:
    options = VideoOptions(part=10)
    derain_video(long, tmp_path / "whole.mp4", inverted, options)
    with pytest.raises(StoppedError):
        derain_video(long, tmp_path / "x.mp4", stop_at(39), options)
    parts = sorted(tmp_path.glob(".x.mp4.parts/*.part"))
    assert len(parts) >= 2
    parts[1].write_bytes(parts[1].read_bytes()[:-400])
    assert derain_video(long, tmp_path / "x.mp4", inverted, options).reused == 10
    assert (tmp_path / "x.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_files_of_others_where_parts_are_kept_stay(long: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".x.mp4.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RainOerMeError, match=r"\.x\.mp4\.parts: .* holds other files \(notes\.txt\); move them"):
        derain_video(long, tmp_path / "x.mp4", inverted)
    assert left(tmp_path) == [".x.mp4.parts"]
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_videos_name_may_be_long_and_its_mode_is_the_old_ones(long: Path, tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".mp4")
    target.touch()
    target.chmod(0o604)
    derain_video(long, target, inverted)
    assert target.stat().st_mode & 0o777 == 0o604
    assert left(tmp_path) == [target.name]


# --- what goes wrong ---


def test_an_error_of_the_network_is_raised_and_leaves_the_old_file(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.mp4"
    target.write_bytes(b"old")
    for error in (RuntimeError, KeyboardInterrupt, MemoryError):
        with pytest.raises(error):
            derain_video(long, target, stop_at(5, error))
        assert target.read_bytes() == b"old"
        assert left(tmp_path) == ["x.mp4"]


def test_the_old_file_stays_until_the_new_one_is_whole(long: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.mp4"
    target.write_bytes(b"old")

    def watch(frames: Frames) -> list[Any]:
        assert target.read_bytes() == b"old"
        return list(frames)

    derain_video(long, target, watch)
    assert len(times(target)) == 40


def test_other_frames_than_expected_are_refused(long: Path, tmp_path: Path) -> None:
    for wrong in (
        lambda frames: [],
        lambda frames: [frame[:-2] for frame in frames],
        lambda frames: [frame.astype(np.float32) for frame in frames],
    ):
        with pytest.raises(RuntimeError, match="expected 1 derained frames of"):
            derain_video(long, tmp_path / "x.mp4", wrong)  # type: ignore[arg-type]
        assert left(tmp_path) == []


def test_an_error_of_the_encoder_is_raised(long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.inference.video import parts, run

    written = 0

    def write(self: Any, *frame: Any) -> None:
        nonlocal written
        written += 1
        if written > 20:
            raise OSError(28, "No space left on device")
        original(self, *frame)

    original = parts.PartWriter.write
    monkeypatch.setattr(run.PartWriter, "write", write)
    with pytest.raises(OSError, match="No space left"):
        derain_video(long, tmp_path / "x.mp4", inverted, VideoOptions(part=5))
    monkeypatch.undo()
    assert derain_video(long, tmp_path / "x.mp4", inverted, VideoOptions(part=5)).reused == 15


FULL = """
import resource, signal, sys
from pathlib import Path
from rainoerme_plugin.inference.video import VideoOptions, derain_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    derain_video(Path(sys.argv[1]), Path(sys.argv[2]), list, VideoOptions(part=int(sys.argv[3]), quality=0))
except OSError as error:
    print("told:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of files' sizes")
@pytest.mark.parametrize("part", [10, 60])
def test_a_full_disk_is_an_error(part: int, long: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL, long, tmp_path / "x.mp4", str(part)], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.startswith("told:"), run.stderr
    assert not (tmp_path / "x.mp4").exists()


def damage(source: Path, target: Path, keep: float, zeros: float = 0) -> Path:
    data = source.read_bytes()
    begin = int(keep * len(data))
    rest = bytes(int(zeros * len(data)))
    target.write_bytes(data[:begin] + rest + data[begin + len(rest) :] if zeros else data[:begin])
    return target


@pytest.mark.parametrize(
    ("kind", "keep", "zeros"),
    [
        ("mp4", 0.5, 0),
        ("faststart.mp4", 0.6, 0),
        ("mkv", 0.6, 0),
        ("avi", 0.6, 0),
        ("mkv", 0.5, 0.05),
        ("mp4", 0.4, 0.05),
        ("lossless.mkv", 0.5, 0.001),
        ("lossless.mkv", 0.5, 0.01),
        ("ts", 0.5, 0.05),
    ],
)
def test_a_damaged_video_is_one_error(kind: str, keep: float, zeros: float, tmp_path: Path) -> None:
    source = tmp_path / f"whole.{kind}"
    if kind == "faststart.mp4":
        make(tmp_path / "plain.mp4")
        with (
            av.open(str(tmp_path / "plain.mp4")) as plain,
            av.open(str(source), "w", container_options={"movflags": "faststart"}) as output,
        ):
            streams = {each.index: output.add_stream_from_template(each, opaque=True) for each in plain.streams}
            for packet in plain.demux():
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    output.mux(packet)
    else:
        codec, pixels = {"avi": ("mpeg4", "yuv420p"), "lossless.mkv": ("ffv1", "yuv420p")}.get(
            kind, ("libx264", "yuv420p")
        )
        base = {"mp4": Fraction(1, 12800), "avi": Fraction(1, 25), "ts": Fraction(1, 90000)}.get(kind, MILLI)
        make(source, codec, pixels, base=base, audio={"avi": "mp3", "lossless.mkv": None}.get(kind, "aac"), count=60)
    broken = damage(source, tmp_path / f"broken.{kind}", keep, zeros)
    folder = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        derain_video(broken, folder / "x.mkv", identity, VideoOptions(part=5))
    assert str(caught.value).startswith(f"{broken}: ")
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_what_is_no_video_is_one_error(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video\n" * 100)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:10,\nhttp://localhost:1/x.ts\n#EXT-X-ENDLIST\n")
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        stream.layout = "stereo"
        tone(output, stream, 0.5)
    for path in (text, empty, playlist, sound, tmp_path, tmp_path / "missing.mp4"):
        for call in (probe_video, lambda path: derain_video(path, tmp_path / "out" / "x.mp4", identity)):
            with pytest.raises(DataError) as caught:
                call(path)  # type: ignore[operator]
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)
            assert not (tmp_path / "out").exists()


def test_interlaced_and_transparent_videos_are_refused(tmp_path: Path) -> None:
    interlaced = make(tmp_path / "interlaced.mp4", options={"x264-params": "interlaced=1"})
    with pytest.raises(DataError, match="is interlaced; deinterlace it first"):
        derain_video(interlaced, tmp_path / "x.mp4", identity)
    transparent = make(tmp_path / "transparent.mkv", "ffv1", "yuva420p", base=MILLI)
    with pytest.raises(DataError, match="transparency"):
        derain_video(transparent, tmp_path / "x.mkv", identity)


def test_a_container_that_cannot_hold_it_is_told_before_the_network_runs(tmp_path: Path) -> None:
    def never(frames: Frames) -> list[Any]:
        raise AssertionError

    source = make(tmp_path / "x.mkv", base=MILLI, subtitles="subrip")
    with pytest.raises(RainOerMeError, match=r"\.mp4 cannot hold subtitle stream 2 \(srt\) .* take \.mkv"):
        derain_video(source, tmp_path / "out.mp4", never)
    film = make(tmp_path / "x.mov", "prores_ks", "yuv422p10le", audio="pcm_s16le")
    with pytest.raises(RainOerMeError, match=r"cannot hold what x\.mov does .* take \.mov"):
        derain_video(film, tmp_path / "out.mp4", never)
    with pytest.raises(RainOerMeError, match=r"ends in one of \.mp4"):
        derain_video(source, tmp_path / "out.gif", never)
    with pytest.raises(RainOerMeError, match="is the video itself"):
        derain_video(source, source, never)
    (tmp_path / "link.mkv").symlink_to(source)
    with pytest.raises(RainOerMeError, match="is the video itself"):
        derain_video(source, tmp_path / "link.mkv", never)
    assert left(tmp_path) == ["link.mkv", "x.mkv", "x.mov"]


def test_one_process_at_a_time_writes_to_a_target(long: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with claim(tmp_path / "x.mp4"), pytest.raises(RainOerMeError, match="is in use by process"):
        derain_video(long, tmp_path / "x.mp4", identity)


def test_without_pyav_a_line_says_how_to_get_it(long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (lambda: probe_video(long), lambda: derain_video(long, tmp_path / "x.mp4", identity)):
        with pytest.raises(RainOerMeError, match=r"pip install 'rainoerme_plugin\[video\]'"):
            call()


# --- options, report, probe ---


def test_options(long: Path, tmp_path: Path) -> None:
    sizes = []
    for quality in (40, None, 5):
        derain_video(long, tmp_path / "x.mp4", identity, VideoOptions(quality=quality))
        sizes.append((tmp_path / "x.mp4").stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    with pytest.raises(OptionError, match=r"quality 60: expected 0 .* to 51 for libx264"):
        derain_video(long, tmp_path / "x.mp4", identity, VideoOptions(quality=60))
    for wrong in ({"batch": 0}, {"blend": 1.5}, {"blend": float("nan")}, {"part": 1}):
        with pytest.raises(OptionError):
            VideoOptions(**wrong)  # type: ignore[arg-type]


def test_batches_are_as_large_as_told(long: Path, tmp_path: Path) -> None:
    sizes = []

    def watch(frames: Frames) -> list[Any]:
        sizes.append(len(frames))
        return list(frames)

    derain_video(long, tmp_path / "x.mp4", watch, VideoOptions(batch=16))
    assert sizes == [16, 16, 8]


def test_progress_and_report(long: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def track(items: Any, total: int, title: str) -> Iterator[Any]:
        seen.append((total, title))
        for item in items:
            seen.append(item.shape)
            yield item

    def slow(frames: Frames) -> list[Any]:
        threading.Event().wait(0.01)
        return list(frames)

    report = derain_video(long, tmp_path / "x.mp4", slow, VideoOptions(), track)
    assert isinstance(report, VideoReport)
    assert seen == [(40, "x.mp4"), *[(HEIGHT, WIDTH, 3)] * 40]
    assert 0.4 <= report.network < report.seconds
    assert 0 < report.waited < report.seconds - report.network


def test_blending_lowers_flicker(tmp_path: Path) -> None:
    still = make(tmp_path / "x.mkv", "ffv1", count=12, base=MILLI, audio=None)
    random = np.random.default_rng(0)

    def flicker(frames: Frames) -> list[Any]:
        noise = [random.normal(0, 3, frame.shape) for frame in frames]
        return [
            np.clip(np.full_like(frame, 120) + each, 0, 255).astype(np.uint8)
            for frame, each in zip(frames, noise, strict=True)
        ]

    changes = []
    for blend in (0.0, 1.0):
        derain_video(still, tmp_path / "out.mkv", flicker, VideoOptions(blend=blend))
        luma = np.array([frame[0] for frame in planes(tmp_path / "out.mkv")])
        assert len(luma) == 12
        changes.append(np.abs(np.diff(luma, axis=0)).mean())
    assert changes[1] < 0.6 * changes[0]


def test_probe(tmp_path: Path) -> None:
    assert probe_video(make(tmp_path / "x.mp4")) == (40, WIDTH, HEIGHT, 1.6)
    frames, *_, seconds = probe_video(make(tmp_path / "x.mkv", base=MILLI, audio=None))
    assert (frames, seconds) == (40, pytest.approx(1.6))


# --- the pipe ---


def test_a_pipe_keeps_order_and_bounds() -> None:
    pipe = Pipe[int](3)
    highest = 0

    def fill() -> None:
        for number in range(100):
            pipe.put(number)
        pipe.end()

    thread = threading.Thread(target=fill)
    thread.start()
    got = []
    for number in pipe:
        highest = max(highest, len(pipe._items))
        got.append(number)
    thread.join(5)
    assert got == list(range(100))
    assert highest <= 3


def test_an_error_ends_both_sides_of_a_pipe() -> None:
    pipe = Pipe[int](1)
    pipe.put(0)
    caught: list[BaseException] = []

    def put() -> None:
        try:
            pipe.put(1)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    pipe.fail(StoppedError())
    pipe.fail(EndedError())
    thread.join(5)
    assert [type(error) for error in caught] == [StoppedError]
    with pytest.raises(StoppedError):
        next(iter(pipe))
