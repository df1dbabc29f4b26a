"""How a JPEG is compressed, and writing another in the same way: tables, subsampling of colours, restarts, progression.

Pillow writes three of the sizes that colours may have. For others each channel is written as a grey JPEG of its own
size, and these become the scans of one file (ITU-T T.81, A.2.2: what a scan of one component holds does not depend on
the others).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from . import containers as c

QUALITY = 95
"""Where nothing tells another."""
_PILLOWS = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
"""By the factors of brightness, where those of both colours are 1."""
_HUFFMAN_TABLES, _QUANTISATION_TABLES = 0xC4, 0xDB


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG of brightness, or of three channels, is compressed."""

    tables: tuple[tuple[int, ...], ...]
    """Of quantisation, 64 numbers for each channel."""
    factors: tuple[tuple[int, int], ...]
    """Samples of each channel, across and down, beside those of the others."""
    progressive: bool
    is_rgb: bool = False
    """Whether it holds RGB, not brightness and colour."""
    interval: int = 0
    """Groups of blocks from restart to restart; 0: there is none."""

    @property
    def is_whole_numbered(self) -> bool:
        """Whether every channel is smaller than the largest by whole numbers; others cannot be written."""
        largest = self.largest
        return all(largest[side] % own[side] == 0 for own in self.factors for side in (0, 1))

    @property
    def largest(self) -> tuple[int, int]:
        """The factors that belong to the picture's size."""
        return max(across for across, _ in self.factors), max(down for _, down in self.factors)


def coding_of(image: Any, encoded: bytes) -> JpegCoding | None:
    """The coding of a decoded JPEG; None where it has no tables, being lossless, or holds inks."""
    if image.mode == "CMYK" or any(table not in image.quantization for *_, table in image.layer):
        return None
    tables = tuple(tuple(image.quantization[table]) for *_, table in image.layer)
    factors = tuple((across, down) for _, across, down, _ in image.layer)
    names = bytes(layer[0] for layer in image.layer)
    # As libjpeg takes them; a JFIF header rules it out.
    is_rgb = image.info.get("adobe_transform") == 0 if "adobe" in image.info else names == b"RGB"
    is_rgb = is_rgb and len(names) == 3 and "jfif" not in image.info
    intervals = (body for marker, body, _ in c.jpeg_segments(encoded) if marker == c.RESTART_INTERVAL)
    interval = int.from_bytes(next(intervals, b"")[:2], "big")
    return JpegCoding(tables, factors, "progressive" in image.info, is_rgb, interval)


def encode_as(samples: NDArray[np.uint8], coding: JpegCoding | None, quality: int | None) -> bytes:
    """(H, W, C) uint8, grey or RGB, as a JPEG of this coding; ``quality`` takes the place of its tables."""
    channels = samples.shape[2]
    if coding is None or not coding.is_whole_numbered:
        more: dict[str, Any] = {} if channels == 1 else {"subsampling": "4:4:4"}
        return _saved(samples, quality=quality or QUALITY, **more)
    tables = coding.tables if quality is None else _tables_of(quality, coding.is_rgb)[:channels]
    if channels == 1:
        return _saved(samples, [tables[0]], progressive=coding.progressive, restart_marker_blocks=coding.interval)
    pillows = _PILLOWS.get(coding.factors[0]) if set(coding.factors[1:]) == {(1, 1)} else None
    if pillows is None:
        return _merged(samples, coding, tables)
    own = list(tables)
    while len(own) > 1 and own[-1] == own[-2]:  # Pillow takes the last one for what follows
        own.pop()
    options = {"progressive": coding.progressive, "restart_marker_blocks": coding.interval}
    return _saved(samples, own, subsampling=pillows, keep_rgb=coding.is_rgb, **options)


def _tables_of(quality: int, is_rgb: bool) -> tuple[tuple[int, ...], ...]:
    with io.BytesIO(_saved(np.zeros((8, 8, 3), np.uint8), quality=quality)) as file:
        found = PillowImage.open(file).quantization  # type: ignore[attr-defined]
    brightness, colour = (tuple(found[number]) for number in (0, 1))
    return (brightness, brightness if is_rgb else colour, brightness if is_rgb else colour)


def _saved(samples: NDArray[np.uint8], tables: Sequence[Sequence[int]] | None = None, **options: Any) -> bytes:
    if tables is not None:
        options.update(qtables=[list(table) for table in tables], quality=-1)
    image = PillowImage.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    with io.BytesIO() as buffer:
        try:
            image.save(buffer, "JPEG", **options)
        except OSError:
            if not options.pop("progressive", False):
                raise
            return _saved(samples, **options)  # Pillow's guess of a progressive file's size was too low
        return buffer.getvalue()


def _merged(samples: NDArray[np.uint8], coding: JpegCoding, tables: Sequence[Sequence[int]]) -> bytes:
    import cv2  # of which most pictures have no need

    # By OpenCV, which rounds: Pillow rounds down, so that a picture would get darker by half a level.
    channels: Any = samples if coding.is_rgb else cv2.cvtColor(samples, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    names = b"RGB" if coding.is_rgb else b"\1\2\3"
    height, width = samples.shape[:2]
    across, down = coding.largest
    frames, quantisation, components, scans = [], [], b"", b""
    for number, (channel, own, table) in enumerate(
        zip(np.moveaxis(channels, 2, 0), coding.factors, tables, strict=True)
    ):
        smaller = _reduced(channel, across // own[0], down // own[1])
        grey = _saved(smaller[..., None], [table], progressive=coding.progressive)
        for marker, body, end in c.jpeg_marks(grey):
            content = grey[body]
            if marker == _QUANTISATION_TABLES:
                quantisation.append(c.jpeg_segment(marker, bytes((content[0] & 0xF0 | number,)) + content[1:]))
            elif marker in c.FRAMES:
                frames.append(marker)
            elif marker == _HUFFMAN_TABLES:
                scans += c.jpeg_segment(marker, content)
            elif marker == c.SCAN:
                head = bytes((1, names[number])) + content[2:]
                scans += c.jpeg_segment(marker, head) + c.jpeg_scan_data(grey, end)
        components += bytes((names[number], own[0] << 4 | own[1], number))
    frame = bytes((8, *height.to_bytes(2, "big"), *width.to_bytes(2, "big"), 3)) + components
    # Adobe's segment says that the channels are RGB.
    adobe = c.jpeg_segment(c.APP14, b"Adobe\0d" + bytes(5)) if coding.is_rgb else b""
    head = b"".join((b"\xff\xd8", adobe, *quantisation, c.jpeg_segment(max(frames), frame)))
    return head + scans + bytes((0xFF, c.END))


def _reduced(channel: NDArray[np.uint8], across: int, down: int) -> NDArray[np.uint8]:
    """A channel smaller by whole numbers: the rounded mean of what falls together, as libjpeg has it."""
    height, width = channel.shape
    filled = np.pad(channel, ((0, -height % down), (0, -width % across)), "edge")
    blocks = filled.reshape(filled.shape[0] // down, down, filled.shape[1] // across, across)
    count = across * down
    return ((blocks.sum(axis=(1, 3), dtype=np.uint32) + count // 2) // count).astype(np.uint8)
