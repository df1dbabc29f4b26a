"""What image files are made of around their pixels: chunks of PNG and WebP, segments of JPEG.

Readers stop at what is damaged and give what came before it; whether a file is whole, its pixels tell. Contents are
copied as bytes, never looked into, so that what goes from file to file stays what it was.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# --- PNG ---

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ROWS_BYTES = 1 << 20
"""Of pixels that are filtered and compressed at once."""
_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"))
_CODING = frozenset((b"sBIT", b"bKGD", b"hIST", b"iDOT"))
_ABOUT = frozenset(
    (
        b"cHRM",
        b"gAMA",
        b"iCCP",
        b"sRGB",
        b"cICP",
        b"mDCV",
        b"mDCv",
        b"cLLI",
        b"cLLi",
        b"pCAL",
        b"sCAL",
        b"sTER",
        b"tIME",
    )
)
"""Chunks whose names say that they are of these pixels only, but which are as true of others."""


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of the chunks of a PNG whose checksums are right, without its pixels."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            return
        if kind not in (b"IDAT", b"fdAT"):
            body = data[place + 8 : end - 4]
            if zlib.crc32(kind + body) == int.from_bytes(data[end - 4 : end], "big"):
                yield kind, body
        if kind == b"IEND":
            return
        place = end


def png_header(data: bytes) -> tuple[int, ...]:
    """Width, height, bits, type of colour, compression, filter and interlacing of a PNG."""
    return struct.unpack_from(">IIBBBBB", data, len(PNG_SIGNATURE) + 8)


def png_data(data: bytes) -> Iterator[memoryview]:
    """The pieces of a PNG's compressed pixels.

    Raises:
        ValueError: The checksum of one is wrong.
    """
    place, view = len(PNG_SIGNATURE), memoryview(data)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                raise ValueError("the checksum of its pixels is wrong")
            yield view[place + 8 : end - 4]
        place = end


def png_pixels(data: bytes) -> bytes:
    """A PNG without its metadata, some bytes of which may become gigabytes in a decoder.

    Raises:
        ValueError: The checksum of a chunk that is left out is wrong.
    """
    place, parts = len(PNG_SIGNATURE), [data[: len(PNG_SIGNATURE)]]
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, whole = data[place + 4 : place + 8], memoryview(data)[place:end]
        if kind in _PIXELS or end > len(data):  # of a chunk that ends too early, the decoder shall complain
            parts.append(bytes(whole))
        elif zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big"):
            raise ValueError(f"wrong checksum of a chunk {ascii(kind)[2:-1]}")
        if kind == b"IEND":
            break
        place = end
    return b"".join(parts)


def png_end(data: bytes) -> int:
    """Where a PNG ends, whatever stands behind it."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IEND":
            return end
        place = end
    return len(data)


def png_is_coding(kind: bytes) -> bool:
    """Whether a PNG's chunk is of how its pixels are kept, which a result has its own way to do."""
    return kind in _PIXELS or kind in _CODING


def png_is_about(kind: bytes) -> bool:
    """Whether a PNG's chunk stays true when the pixels change: known ones, and those whose fourth letter says so."""
    if png_is_coding(kind):
        return False
    return kind in _ABOUT or (kind[0] & 0x20 > 0 and kind[3] & 0x20 > 0)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk as it stands in a file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def insert_png_chunks(png: bytes, chunks: Iterable[bytes]) -> bytes:
    """A PNG with more chunks, before all others but its header."""
    header = len(PNG_SIGNATURE) + 25
    return b"".join((png[:header], *chunks, png[header:]))


def encode_deep_png(samples: NDArray[np.uint16]) -> bytes:
    """(H, W, C) uint16 as a PNG of 16 bits: Pillow writes but grey ones, and OpenCV no grey with alpha."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    compressor = zlib.compressobj(6)
    step, parts = 2 * channels, []
    above = np.zeros((1, width * step), np.uint8)
    block = max(1, _ROWS_BYTES // (width * step))
    for top in range(0, height, block):
        rows = samples[top : top + block].astype(">u2").view(np.uint8).reshape(-1, width * step)
        across = rows.copy()
        across[:, step:] -= rows[:, :-step]
        down = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        # The usual guess of what will be shorter: the filter that leaves the smaller differences.
        sums = [np.abs(each.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for each in (across, down)]
        lower = (sums[1] < sums[0])[:, None]
        filtered = np.concatenate([np.where(lower, np.uint8(2), np.uint8(1)), np.where(lower, down, across)], axis=1)
        parts.append(compressor.compress(filtered.tobytes()))
    parts.append(compressor.flush())
    pixels = b"".join(png_chunk(b"IDAT", part) for part in parts if part)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


def inflated(data: bytes, limit: int) -> bytes:
    """Decompressed metadata; nothing where it is damaged or longer than ``limit``: some bytes may become gigabytes."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, limit)
    except zlib.error:
        return b""
    return found if inflater.eof else b""


# --- JPEG ---

APP0, APP1, APP2, APP11, APP13, APP14, APP15, COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xEF, 0xFE
SCAN, END, RESTART_INTERVAL = 0xDA, 0xD9, 0xDD
FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
"""Markers of the segments that tell a JPEG's size and components."""
ARITHMETIC = frozenset(range(0xC9, 0xD0)) & FRAMES
"""Those of pictures without Huffman codes."""
RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
"""Of a JPEG: what begins a segment, even in the midst of pixels. (Its first byte is not repeated, so that it is found
sixty times as fast.)"""
LONGEST_SEGMENT = 65533
"""In bytes, of a JPEG segment's content."""


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and end of each segment of a JPEG before its pixels."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0:
        while data[place : place + 1] == b"\xff":
            place += 1
        if place + 3 > len(data):
            return
        marker, end = data[place], place + 1 + int.from_bytes(data[place + 1 : place + 3], "big")
        if marker in (0, 0x01) or 0xD0 <= marker <= 0xD8:  # no segment
            place += 1
            continue
        if marker in (0xD9, 0xDA) or end > len(data):
            return
        yield marker, data[place + 3 : end], end
        place = max(end, place + 3)


def jpeg_marks(data: bytes, place: int = 2) -> Iterator[tuple[int, slice, int]]:
    """Marker, place of the content, and end of each segment of a JPEG, those between and behind its pixels, too.

    The last is that of its `END`, where it has one: what follows there is no part of the picture.
    """
    while (found := _MARKER.search(data, place)) is not None:
        marker, start = found[1][0], found.end()
        if marker in (END, 0xD8, 0x01):  # no content
            yield marker, slice(start, start), start
            if marker == END:
                return
            place = start
            continue
        place = start + max(2, int.from_bytes(data[start : start + 2], "big"))
        yield marker, slice(start + 2, place), place


def jpeg_end(data: bytes) -> int:
    """Where the first picture of a JPEG ends, whatever stands behind it."""
    return next((end for marker, _, end in jpeg_marks(data) if marker == END), len(data))


def jpeg_scan_data(data: bytes, start: int) -> bytes:
    """The coded pixels from a place up to the next segment."""
    found = _MARKER.search(data, start)
    return data[start : found.start() if found else len(data)]


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A segment as it stands in a file."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def replace_jpeg_segments(jpeg: bytes, segments: Iterable[bytes]) -> bytes:
    """A JPEG with these segments in place of its own of applications and comments."""
    coding = []
    for marker, body, _ in jpeg_segments(jpeg):
        if not is_about(marker) or (marker == APP14 and body.startswith(b"Adobe")):  # which says: no YCbCr
            coding.append(jpeg_segment(marker, body))
    end = max(end for *_, end in jpeg_segments(jpeg))
    return b"".join((jpeg[:2], *segments, *coding, jpeg[end:]))


def is_about(marker: int) -> bool:
    """Whether a JPEG segment is of applications or a comment, not of the pixels' coding."""
    return APP0 <= marker <= APP15 or marker == COMMENT


# --- WebP ---


WEBP_CHUNKS = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"EXIF", b"XMP "))
"""That a picture which does not move may have."""


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of a WebP's chunks."""
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if place + 8 + length > len(data):
            return
        yield kind, data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def webp_file(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_with(webp: bytes, size: tuple[int, int], alpha: bool, about: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A WebP of ``size`` (width, height) with chunks of metadata, which only the extended format holds."""
    if not about:
        return webp
    flags = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
    bits = sum({flags.get(kind, 0) for kind, _ in about}) | (0x10 if alpha else 0)
    header = struct.pack("<I", bits) + b"".join((side - 1).to_bytes(3, "little") for side in size)
    pixels = [(kind, data) for kind, data in webp_chunks(webp) if kind in (b"VP8 ", b"VP8L", b"ALPH")]
    before = [chunk for chunk in about if chunk[0] == b"ICCP"]
    after = [chunk for chunk in about if chunk[0] != b"ICCP"]
    return webp_file([(b"VP8X", header), *before, *pixels, *after])
