"""What image files are made of around their pixels: chunks of PNG and WebP, segments of JPEG, directories of TIFF.

Readers stop at what is damaged and give what came before it; whether a file is whole, its pixels tell. Values are
copied as bytes, never looked into, so that what goes from file to file stays what it was.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W, C) uint8 or uint16 as they lie in a file: grey, grey and alpha, RGB, or RGBA."""

# --- PNG ---

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ROWS_BYTES = 1 << 20
"""Of pixels that are filtered and compressed at once."""


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

APP0, APP1, APP2, APP13, APP14, APP15, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE
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


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A segment as it stands in a file."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def replace_jpeg_segments(jpeg: bytes, segments: Iterable[bytes]) -> bytes:
    """A JPEG with these segments in place of its own of applications and comments."""
    coding = [jpeg_segment(marker, body) for marker, body, _ in jpeg_segments(jpeg) if not is_about(marker)]
    end = max(end for *_, end in jpeg_segments(jpeg))
    return b"".join((jpeg[:2], *segments, *coding, jpeg[end:]))


def is_about(marker: int) -> bool:
    """Whether a JPEG segment is of applications or a comment, not of the pixels' coding."""
    return APP0 <= marker <= APP15 or marker == COMMENT


# --- WebP ---


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


# --- TIFF, and so EXIF ---

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES = 256, 257, 258, 259, 262, 277
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
PLANAR, PREDICTOR, TILE_WIDTH, EXTRA_SAMPLES, SAMPLE_FORMAT = 284, 317, 322, 338, 339
XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675
_SUBFILE, _OLD_SUBFILE = 254, 255
# fmt: off
LAYOUT = frozenset((
    _SUBFILE, _OLD_SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, 266, 273, SAMPLES, 278, 279, PLANAR, 292,
    293, PREDICTOR, 320, TILE_WIDTH, 323, 324, 325, EXTRA_SAMPLES, SAMPLE_FORMAT, 347, *range(512, 522), 529, 530, 531,
    532,
))
"""Tags that say how pixels lie in the file."""
_OF_OLD_PIXELS = frozenset((280, 281, 288, 289, 290, 291, 301, 326, 327, 328, 330, *range(332, 338), 340, 341, 37724))
"""Tags that were true of the pixels as they were: extremes, curves by number of bits, inks, other sizes, layers."""
# fmt: on
_POINTERS = (34665, 34853, 40965)
"""Tags that point to directories: EXIF, GPS, interoperability."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NARROW = {16: (4, "Q", "I"), 17: (9, "q", "i"), 18: (13, "Q", "I")}
"""Types that only BigTIFF has, and what they become."""
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_MOST_DIRECTORIES = 64

Order: TypeAlias = Literal["<", ">"]


class Entry(NamedTuple):
    """Of a directory: its value as bytes in the file's order, or a directory itself."""

    tag: int
    kind: int
    length: int
    value: bytes | tuple[Entry, ...]

    def numbers(self, order: Order) -> list[int]:
        """Its whole numbers; none where it holds others."""
        letter = {1: "B", 3: "H", 4: "I"}.get(self.kind)
        if letter is None or not isinstance(self.value, bytes):
            return []
        return list(struct.unpack(f"{order}{self.length}{letter}", self.value))

    def ratio(self, order: Order) -> float | None:
        """Its fraction; None where it holds something else."""
        if self.kind != _RATIONAL or self.length != 1 or not isinstance(self.value, bytes):
            return None
        over, under = struct.unpack(f"{order}II", self.value)
        return over / under if under else None


class Directory(NamedTuple):
    """The first directory of a TIFF or an EXIF block."""

    order: Order
    entries: tuple[Entry, ...]
    pages: int = 1
    """Images in the file, but smaller versions and masks of others."""

    def first(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        return (self.all(tag) or [default])[0]

    def all(self, tag: int) -> list[int]:
        """The numbers of a tag."""
        return next((entry.numbers(self.order) for entry in self.entries if entry.tag == tag), [])

    def bytes_of(self, tag: int) -> bytes:
        """The value of a tag as bytes."""
        value = next((entry.value for entry in self.entries if entry.tag == tag), b"")
        return value if isinstance(value, bytes) else b""

    def ratio(self, tag: int) -> float | None:
        """The fraction of a tag."""
        return next((entry.ratio(self.order) for entry in self.entries if entry.tag == tag), None)

    def about(self, without: Collection[int] = ()) -> Directory:
        """What it says that does not describe the layout of pixels."""
        leave = {*LAYOUT, *_OF_OLD_PIXELS, *without}
        return self._replace(entries=tuple(entry for entry in self.entries if entry.tag not in leave))

    def layout(self) -> Directory:
        """What describes the layout of pixels."""
        return self._replace(entries=tuple(entry for entry in self.entries if entry.tag in LAYOUT))


def numbers(order: Order, tag: int, *values: int, kind: int = _LONG) -> Entry:
    """An entry of whole numbers, `kind` 3 of 16 bits or 4 of 32."""
    letter = "H" if kind == _SHORT else "I"
    return Entry(tag, kind, len(values), struct.pack(f"{order}{len(values)}{letter}", *values))


def read_directory(data: bytes) -> Directory | None:
    """The first directory of a TIFF (or BigTIFF) or an EXIF block; None where there is none."""
    order: Order = "<" if data[:2] == b"II" else ">"
    try:
        if data[:4] in (b"II*\0", b"MM\0*"):
            reader = _Reader(data, order, False)
            place = struct.unpack_from(f"{order}I", data, 4)[0]
        elif data[:8] in (b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"):
            reader = _Reader(data, order, True)
            place = struct.unpack_from(f"{order}Q", data, 8)[0]
        else:
            return None
        entries, following = reader.directory(place)
    except struct.error:
        return None
    pages, seen = 1, {place}
    while following and following not in seen and len(seen) <= _MOST_DIRECTORIES:
        seen.add(following)
        try:
            others, following = reader.directory(following, (_SUBFILE, _OLD_SUBFILE))
        except struct.error:
            break
        other = Directory(order, others)
        # Bits of the tag: 1 a smaller version, 4 a mask. The older tag: 2 a smaller version.
        pages += not other.first(_SUBFILE, 0) & 5 and other.first(_OLD_SUBFILE, 0) != 2
    return Directory(order, entries, pages)


class _Reader:
    def __init__(self, data: bytes, order: Order, big: bool) -> None:
        self.data, self.order, self.big = data, order, big
        # Many entries may share bytes of the file; together they are no longer than it is, in sound ones.
        self.left = 2 * len(data)

    def directory(self, place: int, only: Collection[int] = (), depth: int = 0) -> tuple[tuple[Entry, ...], int]:
        """The entries of the directory at ``place``, and the place of the next."""
        count_letter, letter, size, start = ("Q", "Q", 20, 8) if self.big else ("H", "I", 12, 2)
        count = struct.unpack_from(self.order + count_letter, self.data, place)[0]
        end = place + start + count * size
        (following,) = struct.unpack_from(self.order + letter, self.data, end) if depth == 0 else (0,)
        found: dict[int, Entry] = {}
        for at in range(place + start, end, size):
            tag, kind, length = struct.unpack_from(f"{self.order}HH{letter}", self.data, at)
            if only and tag not in only:
                continue
            entry = self._entry(at + size - (8 if self.big else 4), tag, kind, length, letter, depth)
            if entry is not None:
                found.setdefault(tag, entry)
        return tuple(found.values()), following

    def _entry(self, at: int, tag: int, kind: int, length: int, letter: str, depth: int) -> Entry | None:
        size = length * _SIZES.get(kind, 0)
        if size == 0:
            return None
        if tag in _POINTERS:
            if length != 1 or kind not in (4, 13, 16, 18) or depth == 2:
                return None
            try:
                place = struct.unpack_from(self.order + letter, self.data, at)[0]
                return Entry(tag, _LONG, 1, self.directory(place, depth=depth + 1)[0])
            except struct.error:
                return None
        if size > struct.calcsize(letter if letter == "Q" else "=I"):
            at = struct.unpack_from(self.order + letter, self.data, at)[0]
        self.left -= size
        if at + size > len(self.data) or self.left < 0:
            return None
        value = self.data[at : at + size]
        if kind in _NARROW:
            kind, wide, narrow = _NARROW[kind]
            try:
                many = struct.unpack(f"{self.order}{length}{wide}", value)
                value = struct.pack(f"{self.order}{length}{narrow}", *many)
            except struct.error:  # beyond 32 bits
                return None
        return Entry(tag, kind, length, value)


def pack_directory(order: Order, entries: Iterable[Entry], start: int) -> bytes:
    """A directory that will stand at ``start``, with what its entries point to behind it."""
    chosen = sorted({entry.tag: entry for entry in entries}.values())
    rows, behind = [struct.pack(f"{order}H", len(chosen))], bytearray()
    place = start + 2 + 12 * len(chosen) + 4
    for entry in chosen:
        value = entry.value
        if isinstance(value, tuple):
            value = struct.pack(f"{order}I", place + len(behind))
            behind += pack_directory(order, entry.value, place + len(behind))  # type: ignore[arg-type]
        elif len(value) > 4:
            at = struct.pack(f"{order}I", place + len(behind))
            behind += value
            value = at
        behind += b"\0" * (len(behind) % 2)
        rows.append(struct.pack(f"{order}HHI", entry.tag, entry.kind, entry.length) + value.ljust(4, b"\0"))
    return b"".join((*rows, bytes(4), bytes(behind)))


def tiff_header(order: Order, place: int) -> bytes:
    """Of a TIFF whose first directory stands at ``place``."""
    return {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", place)


def exif_block(directory: Directory) -> bytes:
    """A directory as an EXIF block, which is a TIFF without pixels."""
    return tiff_header(directory.order, 8) + pack_directory(directory.order, directory.entries, 8)


def with_directory(data: bytes, directory: Directory) -> bytes:
    """A TIFF with another first directory, the only one, whose places are those of ``data``."""
    place = len(data) + len(data) % 2
    head = tiff_header(directory.order, place)
    return b"".join(
        (head, data[8:], b"\0" * (place - len(data)), pack_directory(directory.order, directory.entries, place))
    )


def encode_tiff(samples: Samples, about: Directory) -> bytes:
    """(H, W, C) uint8 or uint16 as a TIFF: strips by deflate of differences, and what ``about`` says besides."""
    height, width, channels = samples.shape
    order: Order = about.order
    bits = samples.itemsize * 8
    block = max(1, _ROWS_BYTES // 4 // (width * channels * samples.itemsize))
    strips = []
    for top in range(0, height, block):
        rows = samples[top : top + block].copy()
        rows[:, 1:] -= samples[top : top + block, :-1]
        strips.append(zlib.compress(rows.astype(f"{order}u{samples.itemsize}").tobytes(), 6))
    places = np.cumsum([8, *map(len, strips)]).tolist()
    layout = [
        numbers(order, WIDTH, width),
        numbers(order, LENGTH, height),
        numbers(order, BITS, *[bits] * channels, kind=_SHORT),
        numbers(order, COMPRESSION, 8, kind=_SHORT),
        numbers(order, PHOTOMETRIC, 2 if channels > 2 else 1, kind=_SHORT),
        numbers(order, 273, *places[:-1]),
        numbers(order, SAMPLES, channels, kind=_SHORT),
        numbers(order, 278, block),
        numbers(order, 279, *map(len, strips)),
        numbers(order, PLANAR, 1, kind=_SHORT),
        numbers(order, PREDICTOR, 2, kind=_SHORT),
        *([numbers(order, EXTRA_SAMPLES, 2, kind=_SHORT)] if channels % 2 == 0 else []),
    ]
    place = places[-1] + places[-1] % 2
    directory = pack_directory(order, (*about.entries, *layout), place)
    return b"".join((tiff_header(order, place), *strips, b"\0" * (place - places[-1]), directory))


def rational(order: Order, tag: int, value: float) -> Entry:
    """An entry of a fraction, to four digits."""
    return Entry(tag, _RATIONAL, 1, struct.pack(f"{order}II", round(value * 10000), 10000))
