"""Whether an image file holds all of its pixels: decoders fill with black or grey what is not there, without a word.

A PNG's data may end after some rows, a JPEG's before its last blocks, a TIFF may have fewer strips than rows, and all
checksums and end marks be right.
"""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from . import containers as c

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG, by its type of colour."""
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of an interlaced PNG: first row and column, and the steps down and across."""
_INFLATED_BYTES = 1 << 20
_FURTHER = bytes(range(1, 128)) * 2
"""What would be taken for pixels if a JPEG's were not all there."""
_NOTHING = 128
"""What libjpeg makes of blocks that are not there."""


def load_whole(image: ImageFile, encoded: bytes) -> None:
    """Decode an image, and see whether its file held all of it.

    Raises:
        ValueError: It did not.
        Exception: Whatever Pillow raises.
    """
    image.load()
    if not _CHECKS.get(str(image.format), lambda *_: True)(image, encoded):
        raise ValueError("its pixels end too early")


# --- PNG ---


def _png_is_whole(image: Any, encoded: bytes) -> bool:
    pieces = list(c.png_data(encoded))  # Pillow does not look at their checksums
    width, height, bits, colour, _, _, interlaced = c.png_header(encoded)
    # Without interlacing what is missing is below, and black: looking once more costs half as much as decoding.
    if not interlaced and np.any(image.crop((0, height - 1, width, height))):
        return True
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for top, left, down, across in passes:
        rows, columns = len(range(top, height, down)), len(range(left, width, across))
        wanted += rows * (1 + (columns * bits * _CHANNELS[colour] + 7) // 8) * (columns > 0)
    inflater = zlib.decompressobj()
    for body in pieces:
        rest: bytes | memoryview = body
        while rest and wanted > 0 and not inflater.eof:
            wanted -= len(inflater.decompress(rest, _INFLATED_BYTES))
            rest = inflater.unconsumed_tail
    return wanted - len(inflater.flush(1)) <= 0 if wanted > 0 else True


# --- JPEG ---


def _jpeg_is_whole(image: Any, encoded: bytes) -> bool:
    scans, end = _scans(encoded)
    if not all(scan.has_all_restarts for scan in scans) or not _covers_all(image, scans):
        return False
    # Of arithmetic coding, zeros at the end may be left out: further data would change them.
    if any(marker in c.ARITHMETIC for marker, *_ in c.jpeg_marks(encoded)):
        return True
    if len(scans) == 1 and not _ends_in_nothing(image):
        return True
    # Further data at the end change nothing in a picture that is whole.
    with io.BytesIO(encoded[:end] + _FURTHER + encoded[end:]) as file:
        longer = JpegImageFile(file)
        longer.load()
        return np.array_equal(np.asarray(image), np.asarray(longer))


def _ends_in_nothing(image: Any) -> bool:
    corner = image.crop((image.width - 1, image.height - 1, image.width, image.height))
    brightness = corner.getchannel("K") if image.mode == "CMYK" else corner.convert("L")
    return abs(brightness.getpixel((0, 0)) - _NOTHING) < 3


class _Scan:
    """Once over the pixels of a JPEG: of which components, and which of their coefficients."""

    def __init__(self, head: bytes, components: frozenset[int], has_all_restarts: bool) -> None:
        self.components, self.has_all_restarts = components, has_all_restarts
        self.first, self.last, self.bits = head[-3], head[-2], head[-1] & 15


def _scans(encoded: bytes) -> tuple[list[_Scan], int]:
    """The scans of a JPEG, and where the last one's data end."""
    scans: list[_Scan] = []
    frame, interval = b"", 0
    marks = list(c.jpeg_marks(encoded))
    for (marker, body, end), (_, following, _) in itertools.pairwise([*marks, (0, slice(len(encoded), 0), 0)]):
        content = encoded[body]
        if marker in c.FRAMES:
            frame = content
        elif marker == c.RESTART_INTERVAL and len(content) >= 2:
            interval = int.from_bytes(content[:2], "big")
        elif marker == c.SCAN and len(content) >= 4:
            names = frozenset(content[1 : 1 + 2 * content[0] : 2])
            wanted = -(-_units(frame, names) // interval) - 1 if interval else 0
            found = len(c.RESTARTS.findall(encoded, end, following.start)) if wanted > 0 else 0
            scans.append(_Scan(content, names, found >= wanted))
    ends = [body.start - 2 for marker, body, _ in marks if marker == c.END]
    return scans, ends[0] if ends else len(encoded)


def _units(frame: bytes, names: frozenset[int]) -> int:
    """How many blocks, or groups of blocks of all components, a scan of these components has."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    factors = {frame[at]: (frame[at + 1] >> 4, frame[at + 1] & 15) for at in range(6, len(frame) - 2, 3)}
    across, down = (max(each) for each in zip(*factors.values(), strict=True))
    if len(names) == 1:
        own = factors[next(iter(names))]
        return -(-width * own[0] // (8 * across)) * -(-height * own[1] // (8 * down))
    return -(-width // (8 * across)) * -(-height // (8 * down))


def _covers_all(image: Any, scans: list[_Scan]) -> bool:
    """Whether the scans together hold every component, and of a progressive file every bit of the coefficients."""
    for name, *_ in image.layer:
        own = [scan for scan in scans if name in scan.components]
        if "progressive" not in image.info:
            if not own:
                return False
            continue
        done = {number for scan in own if scan.bits == 0 for number in range(scan.first, scan.last + 1)}
        if len(done & set(range(64))) < 64:
            return False
    return True


# --- TIFF ---

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _CHANNELS_TAG, _PLANAR = 256, 257, 258, 259, 277, 284
_STRIPS, _ROWS, _STRIP_LENGTHS = 273, 278, 279
_TILES, _TILE_WIDTH, _TILE_LENGTH, _TILE_LENGTHS, _JPEG_TABLES = 324, 322, 323, 325, 347
_NONE, _JPEG, _DEFLATE = 1, 7, (8, 32946)
_PHOTOMETRIC, _YCBCR = 262, 6
"""Whose colours may be fewer."""


def _tiff_is_whole(image: Any, encoded: bytes) -> bool:
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_LENGTH]
    is_tiled = _TILES in tags
    across = tags[_TILE_WIDTH] if is_tiled else width
    down = tags[_TILE_LENGTH] if is_tiled else min(tags.get(_ROWS, height), height)
    channels = tags.get(_CHANNELS_TAG, 1)
    planes, together = (channels, 1) if tags.get(_PLANAR, 1) == 2 else (1, channels)
    places = _numbers(tags, _TILES if is_tiled else _STRIPS)
    lengths = _numbers(tags, _TILE_LENGTHS if is_tiled else _STRIP_LENGTHS)
    a_plane = -(-width // across) * -(-height // down)
    if len(places) < planes * a_plane:
        return False
    compression = tags.get(_COMPRESSION, _NONE)
    if compression == _NONE and len(lengths) == len(places) and tags.get(_PHOTOMETRIC) != _YCBCR:
        row = (across * together * _numbers(tags, _BITS, 1)[0] + 7) // 8
        for number, (place, length) in enumerate(zip(places[: planes * a_plane], lengths, strict=False)):
            top = number % a_plane * down
            if min(length, len(encoded) - place) < row * (down if is_tiled else min(down, height - top)):
                return False
    if compression in _DEFLATE:
        for strip in _stored(encoded, places, lengths):
            _check_deflated(strip)
    if compression == _JPEG:
        tables = bytes(tags.get(_JPEG_TABLES, b""))
        return all(map(_stored_jpeg_is_whole, _stored(encoded, places, lengths), itertools.repeat(tables)))
    return True


def _numbers(tags: Any, tag: int, *default: int) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _stored(encoded: bytes, places: tuple[int, ...], lengths: tuple[int, ...]) -> Iterator[bytes]:
    return (encoded[place : place + length] for place, length in zip(places, lengths, strict=False))


def _check_deflated(strip: bytes) -> None:
    """See whether a strip fits its checksum: libtiff stops before that, having found as much as it wants.

    Raises:
        zlib.error: It does not, or cannot be decompressed.
    """
    inflater, rest = zlib.decompressobj(), strip
    while rest and not inflater.eof:
        inflater.decompress(rest, _INFLATED_BYTES)
        rest = inflater.unconsumed_tail


def _stored_jpeg_is_whole(strip: bytes, tables: bytes) -> bool:
    with io.BytesIO(tables[:-2] + strip[2:] if tables else strip) as file:
        try:
            image = JpegImageFile(file)
        except SyntaxError:  # two channels, which the reader of TIFFs knows
            return True
        image.load()
        return _jpeg_is_whole(image, file.getvalue())


_CHECKS = {"PNG": _png_is_whole, "JPEG": _jpeg_is_whole, "TIFF": _tiff_is_whole}
