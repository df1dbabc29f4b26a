"""Videos as cameras, editors and accidents leave them: refused before the work, kept, or told."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from rainoerme_plugin.errors import DataError, RainOerMeError  # noqa: E402
from rainoerme_plugin.inference.video import Frames, VideoOptions, derain_video, probe_video  # noqa: E402
from rainoerme_plugin.inference.video.whole import missing_bytes  # noqa: E402

HEIGHT, WIDTH = 48, 64
MILLI = Fraction(1, 1000)


def untouched(frames: Frames) -> list[Any]:
    return list(frames)


def never(frames: Frames) -> list[Any]:
    raise AssertionError("refusals come before the work")


def make(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    count: int = 20,
    rate: int | Fraction = 25,
    sound: str | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    prepare: Callable[[Any, Any], None] | None = None,
    **options: str,
) -> Path:
    """A video of brightening frames, and silence."""
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=rate, options=options)
        video.width, video.height, video.pix_fmt = *size, pixels
        audio = None if sound is None else output.add_stream(sound, rate=16000, layout="mono")
        if prepare is not None:
            prepare(output, video)
        for number in range(count):
            image = np.full((size[1], size[0], 3), 20 + number * 5, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = number, 1 / Fraction(rate)
            output.mux(video.encode(frame))
            if audio is not None:
                heard = av.AudioFrame.from_ndarray(np.full((1, 640), number, np.int16), format="s16", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = 16000, 640 * number, Fraction(1, 16000)
                output.mux(audio.encode(heard))
        output.mux(video.encode(None))
        if audio is not None:
            output.mux(audio.encode(None))
    return path


def packets(path: Path, kind: str = "video") -> list[float]:
    """When they are stored to be decoded."""
    with av.open(str(path)) as container:
        return [
            float(each.dts * each.time_base) for each in container.demux() if each.size and each.stream.type == kind
        ]


def frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


# --- streams and tags beside the picture ---


def with_timecode(output: Any, video: Any) -> None:
    video.metadata["timecode"] = "01:02:03:04"


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"), [("mov", "prores_ks", "yuv422p10le"), ("mp4", "libx264", "yuv420p")]
)
def test_a_timecode_track_is_kept(suffix: str, codec: str, pixels: str, tmp_path: Path) -> None:
    source = make(tmp_path / f"x.{suffix}", codec, pixels, prepare=with_timecode)
    report = derain_video(source, tmp_path / f"out.{suffix}", untouched)
    for path in (source, tmp_path / f"out.{suffix}"):
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video", "data"]
            assert [stream.metadata["timecode"] for stream in container.streams] == ["01:02:03:04"] * 2
    assert report.notes == ()
    assert frames(tmp_path / f"out.{suffix}") == 20


def renamed(path: Path, name: bytes) -> Path:
    """The timecode track as one of another kind."""
    data = path.read_bytes()
    start = data.rindex(b"stsd") + 16
    assert data[start : start + 4] == b"tmcd"
    data = data[:start] + name + data[start + 4 :]
    start = data.rindex(b"mhlrtmcd") + 4
    path.write_bytes(data[:start] + b"meta" + data[start + 4 :])
    return path


def test_data_is_kept_where_its_kind_is_known_and_told_where_not(tmp_path: Path) -> None:
    for name, notes in ((b"gpmd", 0), (b"mebx", 1), (b"rtp ", 1)):
        source = renamed(make(tmp_path / "x.mov", prepare=with_timecode), name)
        report = derain_video(source, tmp_path / "out.mov", untouched)
        assert len(report.notes) == notes, name
        assert all("data stream 1 (of unknown format) is left out" in note for note in report.notes)
        with av.open(str(tmp_path / "out.mov")) as container:
            assert len(container.streams) == 2 - notes


def test_an_attached_picture_of_matroska_stays_one(tmp_path: Path) -> None:
    cover = np.random.default_rng(0).bytes(300)
    jpeg = b"\xff\xd8\xff\xe0" + cover

    def attach(output: Any, video: Any) -> None:
        output.add_attachment("cover.jpg", "image/jpeg", jpeg)

    source = make(tmp_path / "x.mkv", prepare=attach)
    report = derain_video(source, tmp_path / "out.mkv", untouched)
    assert report.notes == ()
    for path in (source, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            assert len(container.streams) == 2
            assert container.streams[1].disposition & av.stream.Disposition.attached_pic
            assert [bytes(each) for each in container.demux(container.streams[1]) if each.size] == [jpeg]


def test_a_second_picture_is_told_to_be_as_it_was(tmp_path: Path) -> None:
    with av.open(str(make(tmp_path / "one.mkv"))) as one, av.open(str(tmp_path / "two.mkv"), "w") as output:
        made = [output.add_stream_from_template(one.streams.video[0], opaque=True) for _ in range(2)]
        for packet in one.demux():
            for stream in made:
                if packet.size:
                    packet.stream, packet.time_base = stream, MILLI
                    output.mux(packet)
    report = derain_video(tmp_path / "two.mkv", tmp_path / "out.mkv", untouched)
    assert report.notes == (
        f"{tmp_path / 'out.mkv'}: video stream 1 (h264) is copied as it is; only the first picture is derained",
    )


def test_tags_codecs_and_depths_that_are_not_kept_are_told(tmp_path: Path) -> None:
    def name(output: Any, video: Any) -> None:
        output.metadata["title"] = "Rain"

    source = make(tmp_path / "x.avi", "wmv2", prepare=name)
    notes = derain_video(source, tmp_path / "out.ts", untouched).notes
    assert any("its codec is h264, not wmv2" in note for note in notes)
    assert any("tags of the file are not kept (title)" in note for note in notes)
    deep = make(tmp_path / "deep.mov", "jpeg2000", "yuv444p12le", count=3)
    notes = derain_video(deep, tmp_path / "out.mov", untouched).notes
    assert any("its pixels are yuv444p10le, not yuv444p12le" in note for note in notes)


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [("avi", "rawvideo", "rgb555le"), ("mov", "qtrle", "rgb555be"), ("mov", "png", "rgb48be")],
)
def test_few_colours_become_true_ones(suffix: str, codec: str, pixels: str, tmp_path: Path) -> None:
    source, target = make(tmp_path / f"x.{suffix}", codec, pixels, count=2), tmp_path / f"out.{suffix}"
    derain_video(source, target, untouched)
    shown = []
    for path in (source, target):
        with av.open(str(path)) as container:
            shown.append([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(shown[0], shown[1])
    assert shown[0][1].any()


# --- refused ---


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [("libvpx", "yuva420p", "webm"), ("libvpx-vp9", "yuva420p", "webm"), ("prores_ks", "yuva444p10le", "mov"),
     ("qtrle", "argb", "mov"), ("png", "rgba", "mov"), ("ffv1", "bgra", "mkv"), ("utvideo", "gbrap", "avi")],
)  # fmt: skip
def test_transparency_is_refused_before_the_work(codec: str, pixels: str, suffix: str, tmp_path: Path) -> None:
    options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
    source = make(tmp_path / f"x.{suffix}", codec, pixels, count=3, **options)
    if suffix == "webm":  # its decoders do not show the layer
        with av.open(str(source)) as container:
            assert container.streams.video[0].metadata["alpha_mode"] == "1"
    with pytest.raises(DataError, match="has transparency, which would be lost"):
        derain_video(source, tmp_path / f"out.{suffix}", never)
    with pytest.raises(DataError, match="has transparency"):
        probe_video(source)


def test_what_changes_midway_is_refused_before_the_work(tmp_path: Path) -> None:
    one, smaller = make(tmp_path / "a.ts", count=30), make(tmp_path / "b.ts", size=(32, 32), count=30)
    interlaced = make(tmp_path / "c.ts", count=30, **{"x264-params": "interlaced=1"})
    for other, what in ((smaller, "changes from 64x48 yuv420p to 32x32 yuv420p"), (interlaced, "is interlaced")):
        with pytest.raises(DataError, match=what):
            derain_video(in_a_row(one, other, tmp_path / "both.ts"), tmp_path / "out.ts", never)


def in_a_row(one: Path, other: Path, path: Path) -> Path:
    """Two videos in one stream."""
    with av.open(str(one)) as first, av.open(str(other)) as second, av.open(str(path), "w") as output:
        made = output.add_stream_from_template(first.streams.video[0], opaque=True)
        for container, late in ((first, 0), (second, 180_000)):
            for packet in container.demux():
                if packet.size:
                    packet.stream, packet.pts, packet.dts = made, packet.pts + late, packet.dts + late
                    output.mux(packet)
    return path


def test_a_failing_muxer_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Such as a track of timecodes without a rate, which FFmpeg's muxer of MP4 refuses only when the file is closed.
    from rainoerme_plugin.inference.video import containers

    source = make(tmp_path / "x.mp4")

    class Failing:
        """A container that cannot be closed."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            self._made = opened(*arguments, **more)
            self._fails = "rehearsal.temporary." in arguments[0]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._made, name)

        def close(self) -> None:
            self._made.close()
            if self._fails:
                raise ValueError("no trailer")

    opened = av.open

    def failing(*arguments: Any, **more: Any) -> Any:
        return Failing(*arguments, **more) if "w" in arguments else opened(*arguments, **more)

    monkeypatch.setattr(containers.av, "open", failing)
    with pytest.raises(RainOerMeError, match=r"cannot hold what x\.mp4 does \(no trailer\)"):
        derain_video(source, tmp_path / "out.mp4", never)


def test_a_very_high_rate_is_kept(tmp_path: Path) -> None:
    source = make(tmp_path / "x.mp4", rate=100_000, count=30)
    derain_video(source, tmp_path / "out.mp4", untouched)
    with av.open(str(source)) as container, av.open(str(tmp_path / "out.mp4")) as other:
        expected = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        assert [frame.pts * frame.time_base for frame in other.decode(video=0)] == expected
    assert len(expected) == 30
    # In a clock of milliseconds the whole would last 0 of them, and players show nothing, or all, by the first times.
    data = (tmp_path / "out.mp4").read_bytes()
    clock = data.rindex(b"mvhd") + 16
    assert int.from_bytes(data[clock : clock + 4], "big") == 100_000


@pytest.mark.parametrize("suffix", ["mpg", "wmv", "flv", "gif", "h264", "ogv", "mxf", "y4m", "APNG"])
def test_videos_of_other_kinds_are_told_with_the_remedy(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"x.{suffix}"
    source.write_bytes(b"whatever")
    for call in (lambda: derain_video(source, tmp_path / "out" / source.name, never), lambda: probe_video(source)):
        with pytest.raises(DataError, match=r"a video of a kind that is not read .*; convert it first \(ffmpeg .*IN"):
            call()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["3gp", "3g2", "f4v", "m2t"])
def test_relatives_of_mp4_and_ts_are_read(suffix: str, tmp_path: Path) -> None:
    source = make(tmp_path / f"x.{suffix}")
    assert derain_video(source, tmp_path / f"out.{suffix}", untouched).notes == ()
    assert packets(tmp_path / f"out.{suffix}") == packets(source)


# --- AVI: one time of a packet ---


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_avi_stays_with_its_sound(codec: str, ahead: int, tmp_path: Path) -> None:
    options = {} if codec == "mjpeg" else {"bf": str(ahead)}
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    source = make(tmp_path / "x.avi", codec, pixels, sound="pcm_s16le", **options)
    report = derain_video(source, tmp_path / "out.avi", untouched)
    assert report.notes == ()
    assert packets(tmp_path / "out.avi") == packets(source)
    assert packets(tmp_path / "out.avi", "audio") == packets(source, "audio")
    assert frames(tmp_path / "out.avi") == 20


# --- what is missing ---


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("lost", [1, 4])
def test_an_avi_that_is_cut_between_two_frames_is_refused(codec: str, lost: int, tmp_path: Path) -> None:
    data = make(tmp_path / "x.avi", codec).read_bytes()
    places = [place for place in range(data.rindex(b"idx1")) if data[place : place + 4] in (b"00dc", b"00db")]
    broken = tmp_path / "y.avi"
    broken.write_bytes(data[: places[-lost]])
    with pytest.raises(DataError, match=rf"bytes are missing at its end; {20 - lost} of 20 frames are there"):
        derain_video(broken, tmp_path / "out.avi", never)
    assert not (tmp_path / "out.avi").exists()


def test_an_avi_whose_index_names_more_frames_is_refused(tmp_path: Path) -> None:
    data = bytearray(make(tmp_path / "x.avi", "mpeg4", g="1").read_bytes())
    # The last entry of the index once more, behind the end of the frames.
    index = data.rindex(b"idx1")
    length = int.from_bytes(data[index + 4 : index + 8], "little")
    entry = bytearray(data[index + 8 + length - 16 : index + 8 + length])
    entry[8:12] = (int.from_bytes(entry[8:12], "little") + (1 << 20)).to_bytes(4, "little")
    data[index + 8 + length : index + 8 + length] = entry
    data[index + 4 : index + 8] = (length + 16).to_bytes(4, "little")
    data[4:8] = (int.from_bytes(data[4:8], "little") + 16).to_bytes(4, "little")
    broken = tmp_path / "y.avi"
    broken.write_bytes(data)
    with pytest.raises(DataError, match="20 of the 21 frames that its index names are there"):
        derain_video(broken, tmp_path / "out.avi", never)


@pytest.mark.parametrize("name", ["x.avi", "x.mkv", "x.mp4", "x.mov", "x.ts", "x.m2ts", "x.webm"])
def test_a_file_that_is_short_of_some_bytes_is_refused(name: str, tmp_path: Path) -> None:
    codec = {"x.webm": "libvpx", "x.avi": "mpeg4"}.get(name, "libx264")
    source = make(tmp_path / name, codec)
    assert missing_bytes(source) == 0
    data = source.read_bytes()
    broken = tmp_path / f"cut{source.suffix}"
    for lost in (9, 100):
        broken.write_bytes(data[:-lost])
        assert missing_bytes(broken) == lost
        with pytest.raises(DataError) as caught:
            derain_video(broken, tmp_path / "out" / name, never)
        assert str(caught.value).startswith(f"{broken}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["x.ts", "x.mkv"])
def test_the_line_that_cuts_before_the_damage_counts_from_the_begin(name: str, tmp_path: Path) -> None:
    late = tmp_path / f"late{Path(name).suffix}"  # as broadcasts and most encoders' transport streams are
    with av.open(str(make(tmp_path / name, bf="0"))) as one, av.open(str(late), "w") as output:
        stream = output.add_stream_from_template(one.streams.video[0], opaque=True)
        for packet in one.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = (moment + int(5 / packet.time_base) for moment in (packet.pts, packet.dts))
                packet.stream = stream
                output.mux(packet)
    with av.open(str(late)) as container:
        assert container.start_time > 4 * av.time_base
    broken = tmp_path / f"cut{late.suffix}"
    broken.write_bytes(late.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"damaged after (0\.[67]\d) s.*\(ffmpeg -i IN -t \1 -c copy OUT\), or get the"):
        derain_video(broken, tmp_path / "out" / name, never)


def test_nothing_is_cut_where_the_damage_is_at_the_begin(tmp_path: Path) -> None:
    source = make(tmp_path / "x.mp4", "mpeg4")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        place = next(packet.pos for packet in container.demux(video=0) if packet.size)
    data[place : place + 100] = bytes(100)
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged after 0\.00 s \(.*\); get the whole file$"):
        derain_video(source, tmp_path / "out.mp4", never)


@pytest.mark.parametrize(
    ("kind", "codec", "pixels", "line"),
    [
        ("gif", "gif", "rgb8", "-pix_fmt bgr0"),
        ("flv", "flv1", "yuv420p", "-c copy"),
        ("asf", "wmv2", "yuv420p", "flac"),
    ],
)
def test_a_video_of_another_kind_than_its_suffix_says_is_told_how_to_convert(
    kind: str, codec: str, pixels: str, line: str, tmp_path: Path
) -> None:
    source = make(tmp_path / f"x.{kind}", {"flv1": "flv"}.get(codec, codec), pixels).rename(tmp_path / "x.mp4")
    with pytest.raises(
        DataError, match=rf"x\.mp4: not a video that is read .*, but .*; convert it first \(ffmpeg .*{line}.*\)"
    ):
        probe_video(source)


def test_what_does_not_say_how_long_it_is_lacks_nothing(tmp_path: Path) -> None:
    live = tmp_path / "live.mkv"
    with av.open(str(make(tmp_path / "x.mkv"))) as one, av.open(str(live), "w", options={"live": "1"}) as output:
        stream = output.add_stream_from_template(one.streams.video[0], opaque=True)
        for packet in one.demux():
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    assert missing_bytes(live) == 0
    assert derain_video(live, tmp_path / "out.mkv", untouched).frames == 20
    data = bytearray(make(tmp_path / "x.avi", "mpeg4").read_bytes())
    data[4:8] = bytes(4)  # as whatever recorded it left it when its power went
    (tmp_path / "open.avi").write_bytes(data)
    assert missing_bytes(tmp_path / "open.avi") == 0


# --- stopped runs ---


def stopped(source: Path, target: Path, options: VideoOptions) -> list[Path]:
    done = 0

    def derain(frames: Frames) -> list[Any]:
        nonlocal done
        done += len(frames)
        if done > 18:
            raise KeyboardInterrupt
        return list(frames)

    with pytest.raises(KeyboardInterrupt):
        derain_video(source, target, derain, options)
    return sorted(target.parent.glob(f".{target.name}.parts/*.part"))


def test_a_damaged_part_is_made_again_and_told(tmp_path: Path) -> None:
    source, options = make(tmp_path / "x.mp4", count=30), VideoOptions(part=5)
    derain_video(source, tmp_path / "whole.mp4", untouched, options)
    parts = stopped(source, tmp_path / "out.mp4", options)
    assert parts
    data = bytearray(parts[0].read_bytes())
    data[len(data) // 2] ^= 255
    parts[0].write_bytes(data)
    report = derain_video(source, tmp_path / "out.mp4", untouched, options)
    assert report.reused == 0
    assert report.notes == (
        f"{tmp_path / 'out.mp4'}: {len(parts)} parts of a stopped run are damaged, or were made otherwise; made anew",
    )
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("what", ["cores", "code", "libraries", "network"])
def test_parts_of_another_machine_or_code_are_not_used(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rainoerme_plugin.inference.video import run

    source, options = make(tmp_path / "x.mp4", count=30), VideoOptions(part=5, network="one")
    stopped(source, tmp_path / "out.mp4", options)
    if what == "network":
        options = VideoOptions(part=5, network="other")
    elif what == "code":
        monkeypatch.setattr(run, "code_of", lambda *modules: "other")
    elif what == "cores":
        monkeypatch.setattr(run.os, "cpu_count", lambda: 77)
    else:
        monkeypatch.setattr(run.av, "library_versions", {})
    assert derain_video(source, tmp_path / "out.mp4", untouched, options).reused == 0
