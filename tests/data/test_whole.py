"""Files whose pixels end too early, though all checksums and end marks are right, in training and in deraining."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from damage import chunk, encoded, interlaced_png
from PIL import Image

from rainoerme_plugin.data.images import decode_image
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.photographs import read_photograph
from rainoerme_plugin.data.survey import survey
from rainoerme_plugin.errors import DataError

HEIGHT, WIDTH = 60, 72
COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's types by the number of channels."""


def scene(channels: int = 3, dtype: Any = np.uint8, lowest: int = 1) -> np.ndarray:
    """A smooth picture whose values are ``lowest`` or more."""
    loud = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, channels)).astype(np.uint8)
    smooth = np.maximum(cv2.GaussianBlur(loud, (0, 0), 2).reshape(loud.shape), lowest)
    return smooth.astype(dtype) * (257 if dtype == np.uint16 else 1)


def expect_refused(
    data: bytes, tmp_path: Path, words: str = "(its pixels end too early|image file is truncated)"
) -> None:
    path = tmp_path / "short"
    path.write_bytes(data)
    for read in (decode_image, read_photograph):
        with pytest.raises(DataError, match=rf"short: damaged image \(.*{words}.*\); replace or remove it"):
            read(path)


def expect_read(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(data)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for pixels in (decode_image(path), read_photograph(path).pixels):
        values = pixels >> 8 if pixels.dtype == np.uint16 else pixels
        assert np.abs(values.astype(int) - expected).mean() < 2


# --- PNG ---


def png(samples: np.ndarray, rows: float, *more: bytes, palette: bool = False) -> bytes:
    """A PNG of which only so many rows are there; half a row, too."""
    height, width, channels = samples.shape
    lines = b"".join(b"\0" + row.tobytes() for row in samples.astype(f">u{samples.itemsize}"))
    kept = lines[: round(rows * (1 + width * channels * samples.itemsize))]
    bits, colour = samples.itemsize * 8, 3 if palette else COLOUR[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join((header, *more, chunk(b"IDAT", zlib.compress(kept)), chunk(b"IEND", b"")))


@pytest.mark.parametrize("rows", [0, HEIGHT / 3, HEIGHT - 1, HEIGHT - 0.5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_that_ends_after_some_rows_is_refused(tmp_path: Path, channels: int, dtype: Any, rows: float) -> None:
    expect_refused(png(scene(channels, dtype), rows), tmp_path)


def test_a_palette_that_ends_after_some_rows_is_refused(tmp_path: Path) -> None:
    entries = chunk(b"PLTE", bytes(range(1, 256)) * 3 + b"xxx")
    expect_refused(png(scene(1), HEIGHT / 2, entries, palette=True), tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_that_is_black_below_is_read(tmp_path: Path, channels: int) -> None:
    black = scene(channels, lowest=0)
    black[HEIGHT // 3 :] = 0
    expect_read(png(black, HEIGHT), tmp_path)
    expect_refused(png(black, HEIGHT - 1), tmp_path)


def test_an_interlaced_png_that_ends_in_any_pass_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (13, 9)).astype(np.uint8)
    whole = interlaced_png(pixels)
    assert np.array_equal(decode_image(whole, "x")[..., 0], pixels)
    start = whole.index(b"IDAT")
    length = int.from_bytes(whole[start - 4 : start], "big")
    lines = zlib.decompress(whole[start + 4 : start + 4 + length])
    for kept in range(0, len(lines), 5):
        data = chunk(b"IDAT", zlib.compress(lines[:kept]))
        expect_refused(whole[: start - 4] + data + chunk(b"IEND", b""), tmp_path)


def test_an_interlaced_png_of_a_pixel_is_read() -> None:
    for height, width in ((1, 1), (1, 5), (5, 1), (2, 3)):
        pixels = np.zeros((height, width), np.uint8)
        assert decode_image(interlaced_png(pixels), "x").shape == (height, width, 3)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_pixels_have_a_wrong_checksum_is_refused(tmp_path: Path, interlaced: bool) -> None:
    whole = interlaced_png(scene(1)[..., 0]) if interlaced else encoded(Image.fromarray(scene()), "PNG")
    place = whole.index(b"IDAT") + 4 + int.from_bytes(whole[whole.index(b"IDAT") - 4 : whole.index(b"IDAT")], "big")
    checksum = bytes(byte ^ 1 for byte in whole[place : place + 4])
    expect_refused(whole[:place] + checksum + whole[place + 4 :], tmp_path, "the checksum of its pixels is wrong")


def test_a_png_in_many_pieces_is_read(tmp_path: Path) -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in black))
    whole = png(black, HEIGHT)
    start = whole.index(b"IDAT") - 4
    pieces = b"".join(chunk(b"IDAT", data[place : place + 3]) for place in range(0, len(data), 3))
    expect_read(whole[:start] + chunk(b"IDAT", b"") + pieces + chunk(b"IEND", b""), tmp_path)


# --- JPEG ---

JPEGS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "grey": {"mode": "L"},
    "inks": {"mode": "CMYK"},
    "RGB": {"keep_rgb": True, "subsampling": 0},
    "progressive": {"progressive": True},
    "progressive grey": {"progressive": True, "mode": "L"},
    "restarts": {"restart_marker_blocks": 2},
    "progressive restarts": {"restart_marker_blocks": 2, "progressive": True},
}


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encoded(Image.fromarray(scene()).convert(mode), "JPEG", quality=90, **options)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_ends_before_its_last_blocks_is_refused(tmp_path: Path, name: str, share: float) -> None:
    whole = jpeg(**JPEGS[name])
    if name != "inks":
        expect_read(whole, tmp_path)
    first = whole.index(b"\xff\xda")
    cut = whole[: first + round(share * (len(whole) - first))].rstrip(b"\xff")
    expect_refused(cut + b"\xff\xd9", tmp_path)


def test_a_jpeg_that_lacks_whole_scans_is_refused(tmp_path: Path) -> None:
    whole = jpeg(progressive=True)
    starts = [place for place in range(len(whole)) if whole[place : place + 2] == b"\xff\xda"]
    for start in starts[1:]:
        tables = whole.rindex(b"\xff\xc4", 0, start)
        expect_refused(whole[:tables] + b"\xff\xd9", tmp_path)


def test_a_jpeg_that_lacks_a_part_between_restarts_is_refused(tmp_path: Path) -> None:
    whole = jpeg(restart_marker_blocks=2)
    first, third = whole.index(b"\xff\xd0"), whole.index(b"\xff\xd2")
    expect_refused(whole[:first] + whole[third:], tmp_path)


@pytest.mark.parametrize("grey", [127, 128, 129])
@pytest.mark.parametrize("options", [{}, {"mode": "L"}, {"progressive": True}, {"restart_marker_blocks": 1}], ids=str)
def test_a_jpeg_that_is_grey_below_is_read(tmp_path: Path, options: dict[str, Any], grey: int) -> None:
    below = scene()
    below[HEIGHT // 2 :] = grey
    mode = options.get("mode", "RGB")
    others = {key: value for key, value in options.items() if key != "mode"}
    expect_read(encoded(Image.fromarray(below).convert(mode), "JPEG", **others), tmp_path)


# --- TIFF ---


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, photometric="rgb", **options)
    return buffer.getvalue()


def with_tag(data: bytes, tag: int, change: Callable[[int], int]) -> bytes:
    """A little-endian TIFF with another count, or where there is only one, value of a tag."""
    changed = bytearray(data)
    (place,) = struct.unpack_from("<I", data, 4)
    for at in range(place + 2, place + 2 + 12 * struct.unpack_from("<H", data, place)[0], 12):
        if struct.unpack_from("<H", data, at) == (tag,):
            (count,) = struct.unpack_from("<I", data, at + 4)
            where = at + 8 if count == 1 else at + 4
            struct.pack_into("<I" if data[at + 2] == 4 or count > 1 else "<H", changed, where, change(count))
    return bytes(changed)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_with_fewer_strips_than_rows_is_refused(tmp_path: Path, dtype: Any) -> None:
    whole = tiff(scene(3, dtype), rowsperstrip=4)
    assert np.array_equal(read_photograph(written(tmp_path, whole)).pixels, scene(3, dtype))
    expect_refused(with_tag(with_tag(whole, 273, lambda count: count // 3), 279, lambda count: count // 3), tmp_path)
    taller = with_tag(whole, 257, lambda _: 3 * HEIGHT)
    expect_refused(taller, tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_with_fewer_tiles_than_needed_is_refused(tmp_path: Path, dtype: Any) -> None:
    whole = tiff(scene(3, dtype), tile=(16, 16))
    assert np.array_equal(read_photograph(written(tmp_path, whole)).pixels, scene(3, dtype))
    expect_refused(with_tag(with_tag(whole, 324, lambda count: count - 5), 325, lambda count: count - 5), tmp_path)


def test_a_tiff_whose_one_strip_is_short_is_refused(tmp_path: Path) -> None:
    whole = tiff(scene(), rowsperstrip=HEIGHT)
    expect_refused(with_tag(whole, 279, lambda _: HEIGHT // 3 * WIDTH * 3), tmp_path)


@pytest.mark.parametrize("missing", [1, 12, WIDTH * 3, HEIGHT * WIDTH])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_that_is_cut_is_refused(tmp_path: Path, dtype: Any, missing: int) -> None:
    whole = tiff(scene(3, dtype), rowsperstrip=HEIGHT)
    assert whole.endswith(scene(3, dtype).astype("<u2" if dtype == np.uint16 else "u1").tobytes())
    expect_refused(whole[:-missing], tmp_path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
def test_a_compressed_tiff_whose_strip_is_short_is_refused(
    tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = encoded(Image.fromarray(scene()), "TIFF", compression=compression)
    expect_refused(with_tag(whole, 257, lambda _: HEIGHT + 8), tmp_path, "")


def test_a_deflated_tiff_that_does_not_fit_its_checksum_is_refused(tmp_path: Path) -> None:
    whole = tiff(scene(), compression="zlib", rowsperstrip=HEIGHT)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        place = file.pages[0].dataoffsets[0]
    # Damage in the midst makes the data longer as a rule, and libtiff stops where it has enough.
    strip = zlib.compress(scene().tobytes() + bytes(100))
    longer = with_tag(whole[:place], 279, lambda _: len(strip)) + strip
    expect_read(longer, tmp_path)
    expect_refused(longer[:-1] + bytes((longer[-1] ^ 1,)), tmp_path, "")


def test_a_tiff_of_jpegs_that_end_too_early_is_refused(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(scene()), "TIFF", compression="jpeg")
    decode_image(whole, "x")
    end = whole.index(b"\xff\xd9", whole.index(b"\xff\xda"))
    cut = whole[: end - 300].rstrip(b"\xff") + b"\xff\xd9"
    expect_refused(cut + whole[len(cut) :], tmp_path)


# --- other kinds, and whole data sets ---


def test_a_bmp_of_more_rows_than_it_has_is_refused(tmp_path: Path) -> None:
    whole = bytearray(encoded(Image.fromarray(scene()), "BMP"))
    whole[22:26] = struct.pack("<i", 3 * HEIGHT)
    expect_refused(bytes(whole), tmp_path, "")


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_that_ends_too_early_is_refused(tmp_path: Path, lossless: bool) -> None:
    whole = encoded(Image.fromarray(scene()), "WEBP", lossless=lossless)
    assert whole[12:16] in (b"VP8L", b"VP8 ")
    for share in (0.3, 0.6, 0.9):
        body = whole[20 : 20 + 2 * round(share * (len(whole) - 20) / 2)]
        file = b"WEBP" + whole[12:16] + struct.pack("<I", len(body)) + body
        expect_refused(b"RIFF" + struct.pack("<I", len(file)) + file, tmp_path, "")


def written(folder: Path, data: bytes) -> Path:
    path = folder / "image"
    path.write_bytes(data)
    return path


def test_a_survey_finds_short_images_in_folders_pairs_and_lmdbs(tmp_path: Path) -> None:
    for part in ("rain", "norain"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "1.png").write_bytes(png(scene(), HEIGHT))
    (tmp_path / "rain" / "2.png").write_bytes(png(scene(), HEIGHT / 3))
    (tmp_path / "norain" / "2.png").write_bytes(png(scene(), HEIGHT))
    for where in (tmp_path, tmp_path / "rain"):
        (message,) = survey(where).broken
        assert "2.png: damaged image (its pixels end too early)" in message
    images = [(path.name, path.read_bytes()) for path in sorted((tmp_path / "rain").iterdir())]
    with pytest.raises(DataError, match=r"2\.png: damaged image"):
        list(write_lmdb(tmp_path / "rain.lmdb", images, 1 << 20))
