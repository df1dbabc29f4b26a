"""JPEGs come back as they were compressed: tables, subsampling, progression and restarts, read by two other readers."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rainoerme_plugin.data.jpeg_coding import JpegCoding, encode_as
from rainoerme_plugin.data.photographs import encode_photograph, read_photograph

CODING = (0xC0, 0xC1, 0xC2, 0xDB, 0xDD)
"""Markers of frames, tables of quantisation, and restarts."""
SIZES = [(64, 80), (33, 47), (8, 1)]
TABLES = tuple(tuple(min(255, step + row + column) for row in range(8) for column in range(8)) for step in (2, 5, 9))


def scene(height: int = 64, width: int = 80) -> np.ndarray:
    loud = np.random.default_rng(0).integers(0, 256, (height + 40, width + 40, 3), dtype=np.uint8)
    return cv2.GaussianBlur(loud, (0, 0), 5)[20:-20, 20:-20]


def by_opencv(sampling: str, size: tuple[int, int] = (64, 80), **options: int) -> bytes:
    wanted = {"SAMPLING_FACTOR": getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}"), "QUALITY": 90, **options}
    words = [word for name, value in wanted.items() for word in (getattr(cv2, f"IMWRITE_JPEG_{name}"), value)]
    return cv2.imencode(".jpg", scene(*size), words)[1].tobytes()


def by_pillow(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def coding(data: bytes) -> list[tuple[int, bytes]]:
    """Frames, tables and restarts before the first pixels; tables one by one, as files bundle them as they like."""
    found, place = [], 2
    while data[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, place + 2)
        marker, body = data[place + 1], data[place + 4 : place + 2 + length]
        if marker == 0xDB:
            found += [(marker, body[at : at + 65]) for at in range(0, len(body), 65)]
        elif marker in CODING:
            found.append((marker, body))
        place += 2 + length
    return sorted(found)


def factors(data: bytes) -> list[tuple[int, int]]:
    frame = next(body for marker, body in coding(data) if marker in (0xC0, 0xC1, 0xC2))
    return [(frame[at] >> 4, frame[at] & 15) for at in range(7, len(frame), 3)]


def decoded(data: bytes) -> list[np.ndarray]:
    """RGB by OpenCV and by Pillow."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    by_cv = cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1]
    return [by_cv.astype(int), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)]


def again(tmp_path: Path, data: bytes, quality: int | None = None) -> bytes:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    photograph = read_photograph(path)
    assert photograph.left_out == ()
    return encode_photograph(photograph, photograph.pixels, quality=quality)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
def test_every_sampling_of_opencvs_comes_back(
    tmp_path: Path, sampling: str, progressive: int, size: tuple[int, int]
) -> None:
    data = by_opencv(sampling, size, PROGRESSIVE=progressive)
    back = again(tmp_path, data)
    assert factors(back)[0] == {"411": (4, 1), "420": (2, 2), "422": (2, 1), "440": (1, 2), "444": (1, 1)}[sampling]
    assert factors(back) == factors(data)
    assert {marker for marker, _ in coding(back)} == {marker for marker, _ in coding(data)}
    for before, after in zip(decoded(data), decoded(back), strict=True):
        assert after.shape == before.shape
        assert np.abs(after - before).mean() < 2


@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
def test_a_picture_gets_neither_darker_nor_brighter(tmp_path: Path, sampling: str) -> None:
    data = by_opencv(sampling, (128, 160), QUALITY=98)
    for before, after in zip(decoded(data), decoded(again(tmp_path, data)), strict=True):
        assert abs((after - before).mean()) < 0.1


@pytest.mark.parametrize("sampling", ["411", "440"])
def test_tables_stay_with_their_channels(tmp_path: Path, sampling: str) -> None:
    data = by_opencv(sampling)
    tables = {body[0]: body[1:] for marker, body in coding(data) if marker == 0xDB}
    found = [body[1:] for marker, body in coding(again(tmp_path, data)) if marker == 0xDB]
    assert found == [tables[0], tables[1], tables[1]]


def test_a_quality_changes_tables_and_not_the_sampling(tmp_path: Path) -> None:
    back = again(tmp_path, by_opencv("440"), quality=40)
    assert factors(back) == [(1, 2), (1, 1), (1, 1)]
    found = [body[1:] for marker, body in coding(back) if marker == 0xDB]
    wanted = [body[1:] for marker, body in coding(by_pillow(quality=40)) if marker == 0xDB]
    assert found == [wanted[0], wanted[1], wanted[1]]


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}], ids=str)
def test_restarts_come_back(tmp_path: Path, options: dict[str, Any]) -> None:
    data = by_pillow(restart_marker_blocks=3, **options)
    assert any(marker == 0xDD for marker, _ in coding(data))
    assert coding(again(tmp_path, data)) == coding(data)


@pytest.mark.parametrize("is_rgb", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    "sizes", [((2, 2), (2, 1), (1, 2)), ((1, 1), (2, 2), (1, 1)), ((4, 2), (1, 1), (2, 2)), ((2, 2), (2, 2), (2, 2))]
)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_sampling_by_whole_numbers_is_written_for_all_to_read(
    size: tuple[int, int], sizes: Any, progressive: bool, is_rgb: bool
) -> None:
    flat = np.full((*size, 3), (200, 90, 40), np.uint8)
    flat[: size[0] // 2] = (20, 90, 140)
    data = encode_as(flat, JpegCoding(TABLES, sizes, progressive, is_rgb), None)
    assert factors(data) == list(sizes)
    for pixels in decoded(data):
        assert np.abs(pixels - flat).mean() < 6


def test_two_tables_of_colour_are_two(tmp_path: Path) -> None:
    first = encode_as(scene(), JpegCoding(TABLES, ((2, 2), (1, 1), (1, 1)), False), None)
    back = again(tmp_path, first)
    # A file has its tables in zigzag order, whose second and third numbers are one below and one across.
    assert [body[1] for marker, body in coding(back) if marker == 0xDB] == [2, 5, 9]
    assert coding(back) == coding(first)


def test_a_sampling_by_broken_numbers_becomes_none() -> None:
    coding_of_three = JpegCoding(TABLES, ((3, 1), (2, 1), (1, 1)), False)
    assert not coding_of_three.is_whole_numbered
    assert factors(encode_as(scene(), coding_of_three, None)) == [(1, 1)] * 3
