"""Colours of videos: what is not changed comes back to the bit in every format, and what is changed arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from rainoerme_plugin.inference.video import Frames, derain_video  # noqa: E402
from rainoerme_plugin.inference.video.colours import Colours, planar  # noqa: E402

HEIGHT, WIDTH = 18, 34
FORMATS = (
    *("gray", "gray9le", "gray10le", "gray12le", "gray14le", "gray16le"),
    *("gbrp", "gbrp9le", "gbrp10le", "gbrp12le", "gbrp14le", "gbrp16le", "bgr0", "rgb24", "bgr24", "rgb48le"),
    *("yuv444p", "yuv422p", "yuv420p", "yuv440p", "yuv411p", "yuv410p", "yuvj420p", "yuvj444p", "yuyv422", "nv12"),
    *("yuv444p9le", "yuv444p10le", "yuv444p12le", "yuv444p14le", "yuv444p16le", "yuv420p10le", "yuv422p10le"),
    *("yuv420p12le", "yuv420p16le", "yuv420p10be", "p010le"),
)


def raw(frame: Any) -> list[bytes]:
    """The samples of all planes, without what fills up the rows."""
    rows = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in frame.planes]
    size = [plane.width * (frame.format.padded_bits_per_pixel // 8 or 1) for plane in frame.planes]
    if frame.format.is_planar:
        deep = 2 if max(component.bits for component in frame.format.components) > 8 else 1
        apart = len({component.plane for component in frame.format.components})
        pairs = 2 if apart < len(frame.format.components) else 1
        size = [plane.width * deep * (pairs if number else 1) for number, plane in enumerate(frame.planes)]
    return [row[:, :length].tobytes() for row, length in zip(rows, size, strict=True)]


def noise(pixels: str) -> Any:
    """A frame of any levels, those that no RGB has among them."""
    random = np.random.default_rng(0)
    frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
    bits = max(component.bits for component in frame.format.components)
    for plane in frame.planes:
        if bits <= 8:
            plane.update(random.integers(0, 256, plane.buffer_size).astype(np.uint8).tobytes())
            continue
        levels = random.integers(0, 1 << bits, plane.buffer_size // 2) << (6 if pixels == "p010le" else 0)
        plane.update(levels.astype(">u2" if pixels.endswith("be") else "<u2").tobytes())
    return frame


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
@pytest.mark.parametrize("tags", [(0, 2), (1, 1), (2, 9), (1, 8)])
@pytest.mark.parametrize("pixels", FORMATS)
def test_what_is_not_changed_comes_back_to_the_bit(pixels: str, tags: tuple[int, int], codec: str) -> None:
    frame, colours = noise(pixels), Colours(pixels, HEIGHT, *tags, codec)
    rgb = colours.rgb(frame)
    assert (rgb.shape, rgb.dtype) == ((HEIGHT, WIDTH, 3), colours.dtype)
    back = colours.changed(frame, np.zeros(rgb.shape, np.float32), pixels)
    assert back.format.name == pixels
    expected, got = raw(frame), raw(back)
    if pixels in ("bgr0",):  # its fourth byte is nothing's
        expected, got = [[plane[start::4] for start in range(3)] for plane in (expected[0], got[0])]  # type: ignore[assignment]
    assert got == expected


LUMA = {5: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}


def to_rgb(yuv: Any, matrix: int, full: bool, bits: int) -> Any:
    """ITU-T H.273, equations 24 to 38, the other way round: (..., 3) levels to RGB in [0, 1], not clipped."""
    unit = 1 << (bits - 8)
    top = (1 << bits) - 1
    luma = yuv[..., 0] / top if full else (yuv[..., 0] / unit - 16) / 219
    blue, red = ((yuv[..., 1:] - 128 * unit) / top if full else (yuv[..., 1:] / unit - 128) / 224).transpose(2, 0, 1)
    of_red, of_blue = LUMA[matrix]
    r = luma + (2 - 2 * of_red) * red
    b = luma + (2 - 2 * of_blue) * blue
    g = (luma - of_red * r - of_blue * b) / (1 - of_red - of_blue)
    return np.stack([r, g, b], axis=-1)


def planes(frame: Any) -> list[Any]:
    kind = np.uint16 if max(component.bits for component in frame.format.components) > 8 else np.uint8
    return [np.frombuffer(bytes(p), kind).reshape(p.height, -1)[:, : p.width].astype(float) for p in frame.planes]


@pytest.mark.parametrize("matrix", LUMA)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_rgb_is_rounded_once(bits: int, full: bool, matrix: int) -> None:
    pixels = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    frame = noise(pixels)
    exact = np.clip(to_rgb(np.stack(planes(frame), axis=-1), matrix, full, bits), 0, 1)
    rgb = Colours(pixels, HEIGHT, 2 if full else 1, matrix).rgb(frame)
    top = 255 if bits == 8 else 65535
    assert np.abs(rgb / top - exact).max() * top <= (0.51 if bits < 16 else 0.6)


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv444p10le", "yuv420p", "yuv422p10le", "gray10le", "gbrp12le"])
def test_what_is_changed_arrives(pixels: str) -> None:
    frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
    colours = Colours(pixels, HEIGHT, 1, 1)
    bits = max(component.bits for component in frame.format.components)
    for plane in frame.planes:
        plane.update(
            np.full(
                plane.buffer_size // (1 + (bits > 8)), 1 << (bits - 1), np.uint16 if bits > 8 else np.uint8
            ).tobytes()
        )
    rainy = colours.rgb(frame)
    wanted = np.array([0.25, 0.5, 0.35] if "gray" not in pixels else [0.3] * 3)
    top = np.iinfo(rainy.dtype).max
    change = np.float32(wanted * top - rainy)
    after = colours.rgb(colours.changed(frame, change, pixels)) / top
    # Half a level of each channel of YUV, in RGB.
    assert np.abs(after - wanted).max() <= 2 / ((1 << bits) - 1)


def test_chroma_lies_where_the_codec_has_it() -> None:
    # One red column of chroma in black and white: MPEG-2's children have it at an even column, JPEG between two.
    frame = av.VideoFrame(32, 4, "yuv422p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    chroma = np.full((4, frame.planes[2].line_size), 128, np.uint8)
    chroma[:, 8] = 200
    frame.planes[2].update(chroma.tobytes())
    centres = {}
    for codec in ("h264", "mjpeg"):
        red = Colours("yuv422p", 4, 1, 1, codec).rgb(frame)[0, :, 0].astype(float)
        red -= red.min()
        centres[codec] = (red * np.arange(32)).sum() / red.sum()
    assert centres["h264"] == pytest.approx(16, abs=0.02)
    assert centres["mjpeg"] == pytest.approx(16.5, abs=0.02)


def test_grey_has_all_levels_unless_it_says_otherwise() -> None:
    frame = av.VideoFrame(16, 2, "gray10le")
    frame.planes[0].update(np.full(frame.planes[0].buffer_size // 2, 64, np.uint16).tobytes())
    assert Colours("gray10le", 2, 0, 2).rgb(frame)[0, 0].tolist() == [round(64 / 1023 * 65535)] * 3
    assert Colours("gray10le", 2, 1, 2).rgb(frame)[0, 0].tolist() == [0] * 3


def test_formats_without_whole_numbers_of_rgb_or_yuv_are_refused() -> None:
    for pixels in ("grayf32le", "gbrpf32le", "xyz12le", "bayer_rggb8"):
        with pytest.raises(ValueError, match="holds no whole numbers of RGB or YUV"):
            planar(pixels)


@pytest.mark.parametrize(
    ("pixels", "tags"),
    [("gray10le", (0, 2, 2, 2)), ("gray16le", (1, 1, 1, 1)), ("yuv420p", (1, 1, 1, 1)), ("yuv444p10le", (2, 1, 1, 1)),
     ("yuv411p", (0, 2, 2, 2)), ("gbrp12le", (0, 2, 2, 0))],
)  # fmt: skip
def test_a_lossless_video_comes_back_as_it_was(pixels: str, tags: tuple[int, ...], tmp_path: Path) -> None:
    frame = noise(pixels)
    frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace = tags
    with av.open(str(tmp_path / "x.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.color_range, stream.color_primaries, stream.color_trc, stream.colorspace = tags
        for number in range(3):
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))

    def untouched(frames: Frames) -> list[Any]:
        return list(frames)

    derain_video(tmp_path / "x.mkv", tmp_path / "out.mkv", untouched)
    found = []
    for name in ("x.mkv", "out.mkv"):
        with av.open(str(tmp_path / name)) as container:
            found.append([raw(each) for each in container.decode(video=0)])
    assert len(found[0]) == 3
    assert found[0] == found[1]
