"""Small versions of a picture within its metadata, which would still show the rain: they are made anew.

A new one takes the place of the old one, no longer than it, so that all that is around it stays where it was: makers'
notes point to places in the EXIF block. What is no JPEG is taken out.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

from PIL import Image as PillowImage

from . import containers as c
from . import tiff
from .images import RGB

_START = b"\xff\xd8\xff"
_QUALITIES = (90, 75, 50, 25, 10)
_ALIKE = 0.04
"""Difference of two shapes, as a share, that rounded sides may make."""


def has_preview(data: bytes) -> bool:
    """Whether there may be one in it."""
    return _START in data or tiff.second_directory(data) is not None


def renewed(data: bytes, picture: Callable[[], RGB]) -> bytes:
    """Metadata whose previews show ``picture``, (H, W, 3) uint8 as it lies in the file; as long as before."""
    changed = bytearray(data)
    kept = set()
    for start, end, width, height in jpegs_in(data):
        changed[start:end] = _fitting(picture(), width, height, end - start)
        kept.add(start)
    _take_out_others(changed, kept)
    return bytes(changed)


def jpegs_in(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Start, end, width and height of each whole JPEG in some bytes."""
    start = data.find(_START)
    while start >= 0:
        last, width, height, has_pixels = start + 2, 0, 0, False
        end = None
        for marker, body, after in c.jpeg_marks(data, start + 2):
            if marker == c.END:
                end = after if has_pixels and width and height else None
                break
            if (not has_pixels and body.start - 4 != last) or after > len(data):
                break  # what looked like a JPEG's first bytes is something else
            last = after
            if marker in c.FRAMES:
                height, width = struct.unpack_from(">HH", data, body.start + 1)
            has_pixels |= marker == c.SCAN
        if end is not None:
            yield start, end, width, height
        start = data.find(_START, start + 1 if end is None else end)


def _fitting(picture: RGB, width: int, height: int, room: int) -> bytes:
    """A JPEG of a picture, within ``width`` x ``height`` pixels and filled up to ``room`` bytes; blank if none fits."""
    import cv2  # only where it is used: the import takes longer than to derain a small picture

    rows, columns = picture.shape[:2]
    if abs(width * rows / (height * columns) - 1) > _ALIKE:
        share = min(width / columns, height / rows)
        width, height = max(1, round(share * columns)), max(1, round(share * rows))
    while True:
        smaller = PillowImage.fromarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
        for quality in _QUALITIES:
            with io.BytesIO() as buffer:
                smaller.save(buffer, "JPEG", quality=quality, optimize=True)
                if buffer.tell() <= room:
                    return buffer.getvalue().ljust(room, b"\0")
        if width == height == 1:
            return bytes(room)
        width, height = max(1, width // 2), max(1, height // 2)


def _take_out_others(exif: bytearray, kept: set[int]) -> None:
    """Of an EXIF block, blank the preview that is no whole JPEG, and unlink the directory that leads to it."""
    found = tiff.second_directory(bytes(exif))
    if found is None:
        return
    pointer, directory = found
    start = directory.first(tiff.PREVIEW, 0)
    if start in kept:
        return
    pieces = [(start, directory.first(tiff.PREVIEW_LENGTH, 0))]
    pieces += zip(directory.all(tiff.STRIPS), directory.all(tiff.STRIP_LENGTHS), strict=False)
    for place, length in pieces:
        if 8 <= place <= place + length <= len(exif):
            exif[place : place + length] = bytes(length)
    exif[pointer : pointer + 4] = bytes(4)
