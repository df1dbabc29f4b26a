"""Uncompressed BMP files: those that a crop can be cut out of without reading the rest.

Pillow, OpenCV and so BasicSR read them like any other image file. Layout: Microsoft's BITMAPFILEHEADER and
BITMAPINFOHEADER, then rows of BGR, each filled up to four bytes, the lowest row first unless the height is negative.
"""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
from PIL import Image as PillowImage

from .images import RGB

_HEADER = struct.Struct("<2sIHHI IiiHHIIiiII")
_INFO_SIZE = 40


def encode_bmp(image: RGB) -> bytes:
    """The image as the bytes of an uncompressed BMP file: 54 more than its pixels, and up to three a row."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, format="BMP")
    return buffer.getvalue()


def crop_bmp(data: bytes | memoryview, top: int, left: int, height: int, width: int) -> RGB | None:
    """A window of a plain BMP file, (height, width, 3) uint8; no other pixel is touched.

    Returns:
        A copy, or None where the file is anything but a whole BMP of 24 bits without compression that holds the
        window: then it has to be decoded.
    """
    if len(data) < _HEADER.size:
        return None
    magic, file_size, _, _, offset, info_size, columns, rows, planes, bits, compression, *_ = _HEADER.unpack_from(data)
    if (magic, info_size, planes, bits, compression) != (b"BM", _INFO_SIZE, 1, 24, 0) or file_size != len(data):
        return None
    stride, lowest_first, rows = (3 * columns + 3) // 4 * 4, rows > 0, abs(rows)
    if offset < _HEADER.size or offset + stride * rows > len(data):
        return None
    if min(top, left, columns) < 0 or top + height > rows or left + width > columns:
        return None
    first = rows - top - height if lowest_first else top
    lines = np.frombuffer(data, np.uint8, stride * height, offset + stride * first).reshape(height, stride)
    window = lines[:, 3 * left : 3 * (left + width)].reshape(height, width, 3)
    rgb = np.asarray(cv2.cvtColor(window, cv2.COLOR_BGR2RGB), np.uint8)
    return rgb[::-1] if lowest_first else rgb
