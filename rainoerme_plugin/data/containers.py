"""What image files are made of: chunks, segments and tags, taken from one file into another.

Layouts: PNG (W3C, third edition), JPEG (ITU T.81 annex B), WebP (RFC 9649), TIFF 6.0, EXIF (CIPA DC-008),
Microsoft's BITMAPV4HEADER.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

ORIENTATION, XMP, ICC = 0x0112, 700, 34675
_EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x8769, 0x8825, 0xA005
X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sBIT", b"bKGD", b"hIST", b"acTL", b"fcTL", b"fdAT")
)
_PIXEL_TAGS = frozenset(
    tag
    for first, last in (
        (254, 266), (273, 273), (277, 281), (284, 285), (288, 293), (301, 301), (317, 317), (320, 330), (332, 347),
        (512, 521), (529, 532), (33421, 33422),
    )
    for tag in range(first, last + 1)
)  # fmt: skip
"""TIFF's tags of how pixels are laid out and coded, with offsets to what else a file holds."""
_BULKY_TAGS = frozenset((XMP, ICC, 33723, 34377))
"""... of what stands elsewhere in other kinds of files: XMP, profile, IPTC, Photoshop's."""
_METRE = 39.3701
_STRIP = 1 << 18
"""Bytes of a strip of a TIFF, about."""


@dataclass(frozen=True)
class Exif:
    """An EXIF block."""

    data: bytes
    """As files other than TIFFs hold it, from its byte order on."""
    tags: Mapping[int, Any] = field(default_factory=dict)
    """What a TIFF holds; blocks of its own as dictionaries. Of other files they are in ``data``."""
    types: Mapping[int, int] = field(default_factory=dict)


# --- PNG ---


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk's name, and the whole of it."""
    place = len(_SIGNATURE)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], data[place:end]
        place = end


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_depth(data: bytes) -> int:
    """Bits of a channel."""
    return data[24]


def png_parts(data: bytes) -> tuple[bytes, ...]:
    """The chunks that do not tell how pixels are coded."""
    return tuple(whole for name, whole in _chunks(data) if name not in _PIXEL_CHUNKS)


def png_with(encoded: bytes, parts: Sequence[bytes]) -> bytes:
    """A PNG with further chunks, after its header."""
    header = len(_SIGNATURE) + 25
    return encoded[:header] + b"".join(parts) + encoded[header:]


def png_metadata(
    exif: bytes | None, xmp: bytes | None, icc: bytes | None, dpi: tuple[float, float] | None
) -> list[bytes]:
    """The chunks for what comes from another kind of file."""
    parts = []
    if icc is not None:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi is not None:
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", *(round(each * _METRE) for each in dpi), 1)))
    if exif is not None:
        parts.append(_chunk(b"eXIf", exif))
    if xmp is not None:
        parts.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    return parts


def encode_png(channels: NDArray[Any]) -> bytes:
    """A PNG of (H, W, C) uint8 or uint16, and nothing in it but pixels; Pillow writes no colours of 16 bits."""
    height, width, count = channels.shape
    rows = channels.astype(">u2" if channels.dtype == np.uint16 else np.uint8).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    step = count * channels.itemsize
    # Of PNG's filters "up" and "sub" are cheap: each row takes that which leaves less.
    up = rows.copy()
    up[1:] -= rows[:-1]
    sub = rows.copy()
    sub[:, step:] -= rows[:, :-step]
    cost = [np.minimum(each, -each.astype(np.int16) & 255).sum(axis=1, dtype=np.int64) for each in (sub, up)]
    is_up = cost[1] < cost[0]
    filtered[:, 0] = np.where(is_up, 2, 1)
    filtered[:, 1:] = np.where(is_up[:, None], up, sub)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    header = struct.pack(">IIBBBBB", width, height, 8 * channels.itemsize, colour, 0, 0, 0)
    pixels = zlib.compress(filtered.tobytes(), 6)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def with_key(channels: NDArray[Any], data: bytes) -> NDArray[Any]:
    """What OpenCV has decoded of a PNG of 16 bits: grey as one channel again, its transparent colour as alpha."""
    if data[25] in (0, 4) and channels.shape[2] >= 3:
        channels = channels[..., [0, *range(3, channels.shape[2])]]
    key = next((whole[8:-4] for name, whole in _chunks(data) if name == b"tRNS"), None)
    if key is not None and channels.shape[2] in (1, 3):
        is_key = (channels == np.frombuffer(key, ">u2")).all(axis=2, keepdims=True)
        channels = np.concatenate([channels, np.where(is_key, 0, 65535).astype(np.uint16)], axis=2)
    return channels


# --- JPEG ---


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each segment before the pixels: its marker's second byte, and the whole of it."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # filling
            place += 1
            continue
        if marker == 0xDA:
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place:end]
        place = end


def _is_application(marker: int) -> bool:
    return 0xE0 <= marker <= 0xEF or marker == 0xFE


def jpeg_parts(data: bytes, *, with_profile: bool) -> tuple[bytes, ...]:
    """The segments that do not tell how pixels are coded; those of further pictures behind the first are left out."""
    parts = []
    for marker, whole in _segments(data):
        content = whole[4:]
        is_profile = marker == 0xE2 and content.startswith(b"ICC_PROFILE\0")
        if not _is_application(marker) or (is_profile and not with_profile):
            continue
        if (marker == 0xEE and content.startswith(b"Adobe")) or (marker == 0xE2 and content.startswith(b"MPF\0")):
            continue
        parts.append(whole)
    return tuple(parts)


def jpeg_with(encoded: bytes, parts: Sequence[bytes]) -> bytes:
    """A JPEG with these segments in place of its own."""
    own = sum(len(whole) for marker, whole in _segments(encoded) if _is_application(marker))
    return encoded[:2] + b"".join(parts) + encoded[2 + own :]


# --- WebP ---


def webp_chunks(data: bytes) -> list[bytes]:
    """The names of a WebP's chunks."""
    names, place = [], 12
    while place + 8 <= len(data):
        names.append(data[place : place + 4])
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return names


# --- TIFF ---


def count_pages(image: TiffImageFile) -> int:
    """The pictures in a TIFF, without smaller versions of the first."""
    count = 1
    for page in range(1, image.n_frames):
        image.seek(page)
        count += not int(image.tag_v2.get(254, 0)) & 1
    image.seek(0)
    return count


def without_orientation(data: bytes) -> bytes:
    """A TIFF whose first directory says that its pixels lie upright."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    head, size, start, place = ("Q", 20, 8, 8) if big else ("H", 12, 2, 4)
    place = struct.unpack_from(order + ("Q" if big else "I"), data, place)[0]
    changed = bytearray(data)
    for entry in range(struct.unpack_from(order + head, data, place)[0]):
        at = place + start + entry * size
        if struct.unpack_from(order + "H", data, at)[0] == ORIENTATION:
            struct.pack_into(order + "H", changed, at + size - (8 if big else 4), 1)
    return bytes(changed)


def exif_of_tiff(image: TiffImageFile) -> Exif | None:
    """What a TIFF says of its picture, but for pixels, XMP and profile."""
    found = image.getexif()
    tags: dict[int, Any] = {tag: value for tag, value in found.items() if tag not in _PIXEL_TAGS}
    for tag in (_EXIF_IFD, _GPS_IFD):
        if tag in tags:
            tags[tag] = _block(found, tag)
    tags = {tag: value for tag, value in tags.items() if tag not in (XMP, ICC)}
    types = {tag: image.tag_v2.tagtype[tag] for tag in tags if tag in image.tag_v2.tagtype}
    if not tags:
        return None
    short = {tag: value for tag, value in tags.items() if tag not in _BULKY_TAGS}
    return Exif(b"II*\0\x08\0\0\0" + _directory(short, types).tobytes(8), tags, types)


def _block(exif: PillowImage.Exif, tag: int) -> dict[int, Any]:
    block = dict(exif.get_ifd(tag))
    if tag == _EXIF_IFD and _INTEROP_IFD in block:
        block[_INTEROP_IFD] = dict(exif.get_ifd(_INTEROP_IFD))
    return block


def _directory(tags: Mapping[int, Any], types: Mapping[int, int]) -> ImageFileDirectory_v2:
    directory = ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        if tag in types and not isinstance(value, dict):
            directory.tagtype[tag] = types[tag]
        directory[tag] = value
    return directory


def encode_tiff(
    channels: NDArray[Any],
    exif: Exif | None,
    xmp: bytes | None,
    icc: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:
    """A TIFF of (H, W, C) uint8 or uint16, compressed without loss; Pillow writes no colours of 16 bits."""
    height, width, count = channels.shape
    tags, types = _tags_of(exif)
    directory = _directory(tags, types)
    if dpi is not None and X_RESOLUTION not in tags:
        directory[X_RESOLUTION], directory[_Y_RESOLUTION], directory[_RESOLUTION_UNIT] = (*dpi, 2)
    for tag, value, kind in ((XMP, xmp, 1), (ICC, icc, 7)):
        if value is not None:
            directory.tagtype[tag] = kind
            directory[tag] = value
    rows = max(1, _STRIP // (width * count * channels.itemsize))
    strips = [_strip(channels[start : start + rows]) for start in range(0, height, rows)]
    ends = np.cumsum([len(strip) for strip in strips])
    layout: dict[int, Any] = {
        256: width, 257: height, 258: (8 * channels.itemsize,) * count, 259: 8, 262: 1 if count < 3 else 2,
        273: (0, *map(int, ends[:-1])), 277: count, 278: rows, 279: tuple(len(strip) for strip in strips), 284: 1,
        317: 2,
    }  # fmt: skip
    if count in (2, 4):
        layout[338] = 2  # alpha that colours are not multiplied by
    for tag, value in layout.items():
        directory[tag] = value
    directory.tagtype[273] = directory.tagtype[279] = 4
    return b"II*\0\x08\0\0\0" + directory.tobytes(8) + b"".join(strips)


def _strip(rows: NDArray[Any]) -> bytes:
    """Rows with differences from pixel to pixel in place of values (predictor 2), compressed."""
    differences = rows.astype(rows.dtype.newbyteorder("<"))
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(differences.tobytes(), 6)


def _tags_of(exif: Exif | None) -> tuple[Mapping[int, Any], Mapping[int, int]]:
    if exif is None or exif.tags:
        return (exif.tags, exif.types) if exif else ({}, {})
    found = PillowImage.Exif()
    found.load(b"Exif\0\0" + exif.data)
    tags: dict[int, Any] = {tag: value for tag, value in found.items() if tag not in _PIXEL_TAGS}
    for tag in (_EXIF_IFD, _GPS_IFD):
        if tag in tags:
            tags[tag] = _block(found, tag)
    return tags, {}


# --- BMP ---


def encode_bmp_with_alpha(channels: NDArray[np.uint8], dpi: tuple[float, float] | None) -> bytes:
    """A BMP of (H, W, 4) RGBA, with the fourth header, whose masks say where alpha is."""
    height, width = channels.shape[:2]
    per_metre = [round(each * _METRE) for each in dpi or (0, 0)]
    pixels = channels[::-1][..., [2, 1, 0, 3]].tobytes()
    offset = 14 + 108
    header = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    masks = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    header += struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), *per_metre, 0, 0)
    header += struct.pack("<4I4s36x3I", *masks, b"BGRs", 0, 0, 0)
    return header + pixels
