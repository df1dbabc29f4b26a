"""TIFF, whose directories are what EXIF is made of, too: reading and writing them, and pixels of 8 and 16 bits.

Pillow has no colours of 16 bits; OpenCV turns some, and takes alpha for what it is not. Layout: TIFF 6.0, the
BigTIFF proposal, CIPA DC-008 (EXIF).

Readers stop at what is damaged and give what came before it; whether a file is whole, its pixels tell. Values are
copied as bytes, never looked into, so that what goes from file to file stays what it was.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import DataError
from .channels import Samples, divided_by_alpha, plain
from .images import check_size, decoding
from .whole import load_whole

# --- directories ---

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, CHANNELS = 256, 257, 258, 259, 262, 277
STRIPS, STRIP_LENGTHS, TILES, TILE_LENGTHS = 273, 279, 324, 325
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
PREVIEW, PREVIEW_LENGTH = 513, 514
PLANAR, PREDICTOR, TILE_WIDTH, EXTRA_SAMPLES, SAMPLE_FORMAT = 284, 317, 322, 338, 339
XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675
OTHER_SIZES, LAYERS, CREDENTIALS = 330, 37724, 52545
_SUBFILE, _OLD_SUBFILE = 254, 255
_DNG_VERSION = 50706
# fmt: off
LAYOUT = frozenset((
    _SUBFILE, _OLD_SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, 266, STRIPS, CHANNELS, 278, STRIP_LENGTHS,
    PLANAR, 292, 293, PREDICTOR, 320, TILE_WIDTH, 323, TILES, TILE_LENGTHS, EXTRA_SAMPLES, SAMPLE_FORMAT, 347,
    *range(512, 522), 529, 530, 531, 532,
))
"""Tags that say how pixels lie in the file."""
_OF_OLD_PIXELS = frozenset((
    280, 281, 288, 289, 290, 291, 301, 326, 327, 328, 330, *range(332, 338), 340, 341, *range(343, 347),
    *range(32995, 32999), LAYERS, CREDENTIALS,
))
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
    smaller: int = 0
    """Those."""

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

    def replaced(self, entries: Sequence[Entry], without: Collection[int] = ()) -> Directory:
        """With other entries in place of those of their tags."""
        leave = {*without, *(entry.tag for entry in entries)}
        return self._replace(entries=(*(entry for entry in self.entries if entry.tag not in leave), *entries))

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
    except (struct.error, OverflowError):
        return None
    pages, seen = 1, {place}
    while following and following not in seen and len(seen) <= _MOST_DIRECTORIES:
        seen.add(following)
        try:
            others, following = reader.directory(following, (_SUBFILE, _OLD_SUBFILE))
        except (struct.error, OverflowError):
            break
        other = Directory(order, others)
        # Bits of the tag: 1 a smaller version, 4 a mask. The older tag: 2 a smaller version.
        pages += not other.first(_SUBFILE, 0) & 5 and other.first(_OLD_SUBFILE, 0) != 2
    return Directory(order, entries, pages, len(seen) - pages)


def second_directory(exif: bytes) -> tuple[int, Directory] | None:
    """Of an EXIF block, where the pointer to its preview's directory stands, and that; None: there is none."""
    order: Order = "<" if exif[:2] == b"II" else ">"
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        pointer = first + 2 + 12 * struct.unpack_from(f"{order}H", exif, first)[0]
        (second,) = struct.unpack_from(f"{order}I", exif, pointer)
        return (pointer, Directory(order, _Reader(exif, order, False).directory(second)[0])) if second else None
    except (struct.error, OverflowError):
        return None


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
        found: dict[int, Entry | None] = {}
        for at in range(place + start, end, size):
            tag, kind, length = struct.unpack_from(f"{self.order}HH{letter}", self.data, at)
            if tag in found or (only and tag not in only):  # once, or a thousand pointers to a thousand of them ...
                continue
            found[tag] = self._entry(at + size - (8 if self.big else 4), tag, kind, length, letter, depth)
        return tuple(entry for entry in found.values() if entry is not None), following

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
            except (struct.error, OverflowError):
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


def rational(order: Order, tag: int, value: float) -> Entry:
    """An entry of a fraction, to four digits."""
    return Entry(tag, _RATIONAL, 1, struct.pack(f"{order}II", round(value * 10000), 10000))


# --- pixels ---

_ANY_BYTES = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions that know nothing of pixels: none, LZW, deflate, PackBits, deflate again, LZMA, Zstandard."""
_STRIP_BYTES = 1 << 18


def decode_tiff(data: bytes, directory: Directory, where: object) -> tuple[Samples, bool]:
    """The channels of the first picture, not turned, and whether the last of an even number is transparency.

    Raises:
        DataError: It is damaged, declares too many pixels, is a preview of a raw photograph, or holds values or
            channels that are not read.
    """
    with decoding(None, data, where):
        width, height = directory.first(WIDTH, 0), directory.first(LENGTH, 0)
        check_size(width, height, where)
        if directory.first(_SUBFILE, 0) & 1 or any(entry.tag == _DNG_VERSION for entry in directory.entries):
            raise DataError(f"{where}: a raw photograph, or a preview of one; develop it first")
        bits = set(directory.all(BITS) or [1])
        if not set(directory.all(SAMPLE_FORMAT)) <= {1, 4} or max(bits) > 16 or max(bits) in range(9, 16):
            raise DataError(f"{where}: holds values of other than 8 or 16 bits; convert it to 8 or 16 bits first")
        colours = {0: 1, 1: 1, 2: 3}.get(directory.first(PHOTOMETRIC, 1), 0)
        compression, predictor = directory.first(COMPRESSION, 1), directory.first(PREDICTOR, 1)
        is_plain = colours and bits in ({8}, {16}) and compression in _ANY_BYTES and predictor in (1, 2)
        if not is_plain:
            if max(bits) == 16:
                raise DataError(f"{where}: a TIFF of 16 bits of a kind that is not read; save it as plain RGB first")
            image = _opened(data, directory.layout(), where)
            found = plain(image, directory.bytes_of(ICC), where)
            is_clear = True
        else:
            channels = directory.first(CHANNELS, 1)
            if channels - colours not in (0, 1):
                raise DataError(
                    f"{where}: has {channels} channels, not colours or colours and alpha; remove the others"
                )
            found = _decode_plain(data, directory, channels, bits.pop(), where)
            extra = directory.first(EXTRA_SAMPLES, 2)
            if channels > colours and extra == 1:
                found = divided_by_alpha(found)
            is_clear = extra != 0
        if found.shape[:2] != (height, width):
            raise ValueError("fewer pixels than declared")
        return found, is_clear


def _opened(data: bytes, layout: Directory, where: object) -> TiffImageFile:
    try:
        image = TiffImageFile(io.BytesIO(_with_directory(data, layout)))
    except Exception:  # whatever came up
        raise DataError(f"{where}: not a TIFF this package reads, or damaged; replace or remove it") from None
    load_whole(image, data)  # not what stands behind it by now
    return image


def _decode_plain(data: bytes, directory: Directory, channels: int, bits: int, where: object) -> Samples:
    """Channels that lie side by side or in planes, as grey pictures: so Pillow reads all their bits, and turns none."""
    layout = directory.layout()
    if channels == 1 or directory.first(PLANAR, 1) == 1:
        flat = [_decode_grey(data, _as_grey(layout, channels, bits), where)]
    else:
        planes = (_as_grey(_plane(layout, number, channels), 1, bits) for number in range(channels))
        flat = [_decode_grey(data, plane, where) for plane in planes]
    height = flat[0].shape[0]
    samples: Any = flat[0].reshape(height, -1, channels) if len(flat) == 1 else np.stack(flat, axis=2)
    if directory.first(PREDICTOR, 1) == 2:  # values are differences from the pixel before, in each tile
        across = directory.first(TILE_WIDTH, 0) or samples.shape[1]
        for left in range(0, samples.shape[1], across):
            tile = samples[:, left : left + across]
            np.cumsum(tile, axis=1, dtype=samples.dtype, out=tile)
    if directory.first(PHOTOMETRIC, 1) == 0:  # 0 is white
        samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
    return samples


def _decode_grey(data: bytes, layout: Directory, where: object) -> Samples:
    flat = np.asarray(_opened(data, layout, where))
    if flat.dtype not in (np.uint8, np.dtype("<u2"), np.dtype(">u2")):
        raise ValueError("an unknown layout")
    return flat.astype(np.uint8 if flat.itemsize == 1 else np.uint16)


def _plane(layout: Directory, number: int, channels: int) -> Directory:
    """Of a picture whose channels lie one behind the other: one of them."""
    order, changed = layout.order, []
    for tag in (STRIPS, STRIP_LENGTHS, TILES, TILE_LENGTHS):
        places = layout.all(tag)
        count = len(places) // channels
        if places:
            changed.append(numbers(order, tag, *places[number * count : (number + 1) * count]))
    return layout.replaced(changed)


def _as_grey(layout: Directory, channels: int, bits: int) -> Directory:
    order = layout.order
    changed = [
        numbers(order, WIDTH, channels * layout.first(WIDTH, 0)),
        numbers(order, BITS, bits, kind=_SHORT),
        numbers(order, PHOTOMETRIC, 1, kind=_SHORT),
        numbers(order, CHANNELS, 1, kind=_SHORT),
        numbers(order, PLANAR, 1, kind=_SHORT),
        numbers(order, PREDICTOR, 1, kind=_SHORT),
    ]
    if layout.first(TILE_WIDTH, 0):
        changed.append(numbers(order, TILE_WIDTH, channels * layout.first(TILE_WIDTH, 0)))
    return layout.replaced(changed, without=(EXTRA_SAMPLES, SAMPLE_FORMAT))


def _with_directory(data: bytes, directory: Directory) -> bytes:
    """A TIFF with another first directory, the only one, whose places are those of ``data``."""
    place = len(data) + len(data) % 2
    packed = pack_directory(directory.order, directory.entries, place)
    return b"".join((tiff_header(directory.order, place), data[8:], b"\0" * (place - len(data)), packed))


def encode_tiff(samples: Samples, about: Directory, is_clear: bool = True) -> bytes:
    """(H, W, C) uint8 or uint16 as a TIFF: strips by deflate of differences, and what ``about`` says besides.

    Args:
        samples: The channels.
        about: Entries that do not describe pixels.
        is_clear: Whether the last of an even number of channels is transparency, not something unsaid.
    """
    height, width, channels = samples.shape
    order: Order = about.order
    bits = samples.itemsize * 8
    block = max(1, _STRIP_BYTES // (width * channels * samples.itemsize))
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
        numbers(order, STRIPS, *places[:-1]),
        numbers(order, CHANNELS, channels, kind=_SHORT),
        numbers(order, 278, block),
        numbers(order, STRIP_LENGTHS, *map(len, strips)),
        numbers(order, PLANAR, 1, kind=_SHORT),
        numbers(order, PREDICTOR, 2, kind=_SHORT),
        *([numbers(order, EXTRA_SAMPLES, 2 * is_clear, kind=_SHORT)] if channels % 2 == 0 else []),
    ]
    place = places[-1] + places[-1] % 2
    directory = pack_directory(order, (*about.entries, *layout), place)
    return b"".join((tiff_header(order, place), *strips, b"\0" * (place - places[-1]), directory))
