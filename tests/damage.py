"""Small files of every kind that is read, and what may have happened to them on disks, in downloads, and by intent."""

from __future__ import annotations

import io
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

DEADLINE = 10


@contextmanager
def in_time(seconds: int = DEADLINE) -> Iterator[None]:
    """Fail a test that takes longer: a deadline against what would never end, not a measurement."""

    def fail(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"took more than {seconds} seconds")  # no Exception, so nothing on the way takes it for an error

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, rows: bytes = b"", more: bytes = b"", interlaced: bool = False) -> bytes:
    """A grey PNG of 8 bits."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + pixels + chunk(b"IEND", b"")


def interlaced_png(pixels: np.ndarray) -> bytes:
    """A grey PNG whose pixels come in seven passes (Adam7)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for top, left, down, across in passes for row in pixels[top::down, left::across] if row.size]
    return png_of(pixels.shape[1], pixels.shape[0], b"".join(b"\0" + row.tobytes() for row in rows), interlaced=True)


def exif(orientation: int = 6) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "a camera"
    return block


@lru_cache(maxsize=1)
def images() -> dict[str, bytes]:
    """One small image of every format and kind, by a name with its suffix."""
    colour = picture()
    grey = colour.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = colour.convert("RGBA")
    palette = colour.quantize(16)
    found: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "colour.png": (colour, "PNG", {"exif": exif()}),
        "grey.png": (grey, "PNG", {}),
        "deep.png": (deep, "PNG", {}),
        "clear.png": (clear, "PNG", {}),
        "grey_clear.png": (clear.convert("LA"), "PNG", {}),
        "bits.png": (grey.convert("1"), "PNG", {}),
        "palette.png": (palette, "PNG", {"transparency": 200}),
        "moving.png": (colour, "PNG", {"save_all": True, "append_images": [picture(seed=1), picture(seed=2)]}),
        "colour.jpg": (colour, "JPEG", {"exif": exif()}),
        "grey.jpg": (grey, "JPEG", {}),
        "ink.jpg": (colour.convert("CMYK"), "JPEG", {}),
        "gradual.jpg": (colour, "JPEG", {"progressive": True}),
        "colour.bmp": (colour, "BMP", {}),
        "palette.bmp": (palette, "BMP", {}),
        "bits.bmp": (grey.convert("1"), "BMP", {}),
        "colour.tif": (colour, "TIFF", {}),
        "deflated.tif": (colour, "TIFF", {"compression": "tiff_deflate"}),
        "lzw.tif": (grey, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": (colour, "TIFF", {"compression": "jpeg"}),
        "deep.tif": (deep, "TIFF", {}),
        "float.tif": (grey.convert("F"), "TIFF", {}),
        "pages.tif": (colour, "TIFF", {"save_all": True, "append_images": [picture(seed=1)]}),
        "lossy.webp": (colour, "WEBP", {"exif": exif()}),
        "lossless.webp": (colour, "WEBP", {"lossless": True}),
        "clear.webp": (clear, "WEBP", {"lossless": True}),
        "moving.webp": (colour, "WEBP", {"save_all": True, "append_images": [picture(seed=1)]}),
        "pixel.png": (picture(1, 1), "PNG", {}),
        "pixel.jpg": (picture(1, 1), "JPEG", {}),
        "pixel.bmp": (picture(1, 1), "BMP", {}),
        "pixel.tif": (picture(1, 1), "TIFF", {}),
        "pixel.webp": (picture(1, 1), "WEBP", {}),
    }
    files = {name: encoded(image, kind, **options) for name, (image, kind, options) in found.items()}
    return {**files, "interlaced.png": interlaced_png(np.asarray(grey))}


Random = np.random.Generator


def _cut(data: bytearray, random: Random) -> None:
    del data[random.integers(len(data)) :]


def _flip(data: bytearray, random: Random) -> None:
    for _ in range(random.choice([1, 3, 30])):
        data[random.integers(len(data))] ^= 1 << random.integers(8)


def _flip_first(data: bytearray, random: Random) -> None:
    for _ in range(random.choice([1, 3, 10])):
        data[random.integers(min(len(data), 200))] ^= 1 << random.integers(8)


def _zero(data: bytearray, random: Random) -> None:
    start = random.integers(len(data))
    data[start : start + 64] = bytes(len(data[start : start + 64]))


def _swap(data: bytearray, random: Random) -> None:
    length = int(random.integers(1, 1 + len(data) // 3))
    first, second = sorted(random.integers(0, len(data) - length, 2))
    data[first : first + length], data[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )


def _extreme(data: bytearray, random: Random) -> None:
    length = int(random.choice([2, 4, 8]))
    value = (b"\xff" * 8, b"\x7f" + b"\xff" * 7, bytes(8), b"\x80" + bytes(7), b"\0\0\0\1\0\0\0\1")[random.integers(5)]
    start = int(random.integers(min(len(data), 200)))
    data[start : start + length] = value[:length]


def _repeat(data: bytearray, random: Random) -> None:
    first, second = random.integers(0, len(data), 2)
    data[first:first] = data[second : second + 200]


DAMAGES: tuple[Callable[[bytearray, Random], None], ...] = (
    _cut,
    _flip,
    _flip_first,
    _zero,
    _swap,
    _extreme,
    _repeat,
)


def damaged(data: bytes, seed: int, other: bytes = b"") -> bytes:
    """``data`` with one or two damages that follow from ``seed``; an eighth gets the end of ``other`` instead."""
    random = np.random.default_rng([seed, len(data)])
    if other and random.integers(8) == 0:
        return data[: random.integers(len(data))] + other[random.integers(len(other)) :]
    broken = bytearray(data)
    for _ in range(random.integers(1, 3)):
        if len(broken) > 3:
            DAMAGES[random.integers(len(DAMAGES))](broken, random)
    return bytes(broken)


def damaged_images(count: int, first: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names, each with its number, and bytes."""
    names = list(images())
    for seed in range(first, first + count):
        name = names[seed % len(names)]
        other = images()[names[(seed * 7 + 3) % len(names)]]
        yield f"{seed}_{name}", damaged(images()[name], seed, other)
