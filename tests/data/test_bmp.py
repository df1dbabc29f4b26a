"""Uncompressed BMP files against OpenCV and Pillow, and files that only look like one."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from rainoerme_plugin.data.bmp import crop_bmp, encode_bmp
from rainoerme_plugin.data.images import RGB

SIZES = [(1, 1), (1, 5), (7, 1), (5, 2), (6, 3), (7, 4), (9, 13), (12, 30)]
"""Heights and widths; rows of all widths modulo 4."""


def picture(height: int, width: int) -> RGB:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3)).astype(np.uint8)


def changed(data: bytes, offset: int, layout: str, value: int) -> bytes:
    new = struct.pack(layout, value)
    return data[:offset] + new + data[offset + len(new) :]


def upside_down(image: RGB) -> bytes:
    """A BMP file whose highest row comes first: its height is negative."""
    return changed(encode_bmp(image[::-1]), 22, "<i", -image.shape[0])


@pytest.mark.parametrize("size", SIZES)
def test_opencv_and_pillow_read_what_is_written(size: tuple[int, int]) -> None:
    image = picture(*size)
    data = encode_bmp(image)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], image)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    assert len(data) == 54 + size[0] * -(-3 * size[1] // 4) * 4


@pytest.mark.parametrize("size", SIZES)
def test_every_window_of_files_of_three_writers_is_right(size: tuple[int, int]) -> None:
    image = picture(*size)
    by_opencv = cv2.imencode(".bmp", image[..., ::-1])[1].tobytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(upside_down(image)))), image)
    for data in (encode_bmp(image), by_opencv, upside_down(image)):
        for top in range(size[0]):
            for left in range(size[1]):
                for height, width in {(size[0] - top, size[1] - left), (1, 1), (1, size[1] - left)}:
                    window = crop_bmp(memoryview(data), top, left, height, width)
                    assert window is not None
                    assert np.array_equal(window, image[top : top + height, left : left + width])


def test_a_window_is_a_copy() -> None:
    data = bytearray(encode_bmp(picture(4, 5)))
    window = crop_bmp(memoryview(data), 0, 0, 4, 5)
    assert window is not None
    data[54:] = bytes(len(data) - 54)
    assert np.array_equal(window, picture(4, 5))


@pytest.mark.parametrize(
    "window", [(-1, 0, 2, 2), (0, -1, 2, 2), (4, 0, 3, 2), (0, 6, 2, 3), (0, 0, 7, 1), (0, 0, 1, 9)]
)
def test_a_window_over_the_border_is_none(window: tuple[int, int, int, int]) -> None:
    assert crop_bmp(encode_bmp(picture(6, 8)), *window) is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"BM",
        encode_bmp(picture(6, 8))[:-1],
        encode_bmp(picture(6, 8)) + b"\0",
        changed(encode_bmp(picture(6, 8)), 0, "<H", 0x4D43),  # another magic
        changed(encode_bmp(picture(6, 8)), 10, "<I", 53),  # pixels inside the header
        changed(encode_bmp(picture(6, 8)), 10, "<I", 55),  # and over the end
        changed(encode_bmp(picture(6, 8)), 14, "<I", 12),  # another header
        changed(encode_bmp(picture(6, 8)), 18, "<i", -8),  # a negative width
        changed(encode_bmp(picture(6, 8)), 18, "<i", 2**31 - 1),
        changed(encode_bmp(picture(6, 8)), 22, "<i", -(2**31)),
        changed(encode_bmp(picture(6, 8)), 26, "<H", 2),  # planes
        changed(encode_bmp(picture(6, 8)), 28, "<H", 32),  # bits
        changed(encode_bmp(picture(6, 8)), 30, "<I", 1),  # compression
    ],
)
def test_anything_else_is_none(damaged: bytes) -> None:
    assert crop_bmp(damaged, 0, 0, 2, 2) is None


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_kinds_of_bmp_are_left_to_a_decoder(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(6, 8)).convert(mode).save(buffer, "BMP")
    assert crop_bmp(buffer.getvalue(), 0, 0, 2, 2) is None
