"""Writing each kind of file, as like as can be to the one that was read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from ..errors import DataError
from . import containers as c
from . import tiff
from .channels import Samples, fitting, mean_grey, to_8_bits
from .images import Pixels
from .jpeg_coding import QUALITY, encode_as
from .photograph import ELSEWHERE, EXIF_SEGMENT, ICC_SEGMENT, METRE, XMP_SEGMENT, XMP_TEXT, Kind, Metadata, Photograph
from .tiff import Directory


def samples_of(photograph: Photograph, pixels: Pixels, kind: Kind) -> Samples:
    """The channels that a file of this kind holds, upright."""
    samples: Any = mean_grey(pixels) if photograph.is_grey else pixels
    alpha: Any = photograph.alpha if photograph.is_clear or kind == "tiff" else None
    if kind == "jpg" and alpha is not None:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            raise DataError(
                f"{photograph.source}: has transparent pixels, which a jpg cannot hold; choose png, webp, tiff or bmp"
            )
        alpha = None
    if samples.shape[2] == 1 and (kind == "webp" or (kind == "bmp" and alpha is not None)):  # which have no such grey
        samples = np.repeat(samples, 3, axis=2)
    if alpha is not None:
        samples = np.concatenate([samples, alpha[..., None]], axis=2)
    return to_8_bits(samples) if kind in ("jpg", "webp", "bmp") else samples


def _saved(samples: Samples, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = PillowImage.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _encode_png(photograph: Photograph, samples: Any, quality: int | None) -> bytes:
    about = photograph.metadata
    chunks = [c.png_chunk(kind, body) for kind, body in about.parts]
    if photograph.kind != "png":
        chunks = [c.png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(about.icc))] if about.icc else []
        if about.density is not None:
            sides = [min(round(side), 0x7FFFFFFF) for side in about.density]
            chunks.append(c.png_chunk(b"pHYs", struct.pack(">IIB", *sides, 1)))
        if about.exif:
            chunks.append(c.png_chunk(b"eXIf", about.exif))
        if about.xmp:
            chunks.append(c.png_chunk(b"iTXt", XMP_TEXT + bytes(4) + about.xmp))
    encoded = c.encode_deep_png(samples) if samples.dtype == np.uint16 else _saved(samples, "PNG")
    return c.insert_png_chunks(encoded, chunks)


def _encode_jpeg(photograph: Photograph, samples: Any, quality: int | None) -> bytes:
    about = photograph.metadata
    encoded = encode_as(samples, photograph.jpeg, quality)
    if photograph.kind != "jpg":
        return c.replace_jpeg_segments(encoded, _segments(about))
    return c.replace_jpeg_segments(encoded, [c.jpeg_segment(name[0], body) for name, body in about.parts])


def fits_segment(body: bytes, start: bytes = EXIF_SEGMENT) -> bool:
    """Whether metadata are short enough for a segment of a JPEG."""
    return len(start) + len(body) <= c.LONGEST_SEGMENT


def _segments(about: Metadata) -> list[bytes]:
    """For a JPEG of another kind of file; what is longer than a segment is left out."""
    sides = [1, 1] if about.density is None else [max(1, min(round(side / METRE), 65535)) for side in about.density]
    jfif = struct.pack(">5sBBBHHBB", b"JFIF\0", 1, 1, about.density is not None, *sides, 0, 0)
    found = [c.jpeg_segment(c.APP0, jfif)]
    if about.exif:
        found.append(c.jpeg_segment(c.APP1, EXIF_SEGMENT + about.exif))
    if about.xmp and fits_segment(about.xmp, XMP_SEGMENT):
        found.append(c.jpeg_segment(c.APP1, XMP_SEGMENT + about.xmp))
    longest = c.LONGEST_SEGMENT - len(ICC_SEGMENT) - 2
    pieces = [about.icc[start : start + longest] for start in range(0, len(about.icc), longest)]
    if len(pieces) < 256:
        for number, piece in enumerate(pieces, 1):
            found.append(c.jpeg_segment(c.APP2, ICC_SEGMENT + bytes((number, len(pieces))) + piece))
    return found


def _encode_webp(photograph: Photograph, samples: Samples, quality: int | None) -> bytes:
    about = photograph.metadata
    if photograph.is_lossless and quality is None:
        encoded = _saved(samples, "WEBP", lossless=True, exact=True)
    else:
        encoded = _saved(samples, "WEBP", quality=quality or QUALITY, exact=True)
    parts = [(b"ICCP", fitting(about.icc, False)), (b"EXIF", about.exif), (b"XMP ", about.xmp)]
    height, width, channels = samples.shape
    return c.webp_with(encoded, (width, height), channels == 4, [part for part in parts if part[1]])


def _encode_tiff(photograph: Photograph, samples: Samples, quality: int | None) -> bytes:
    about = photograph.metadata
    if photograph.kind == "tiff":
        directory = tiff.read_directory(about.parts[0][1]) or Directory("<", ())
        return tiff.encode_tiff(samples, directory, photograph.is_clear)
    directory = (tiff.read_directory(about.exif) or Directory("<", ())).about(ELSEWHERE)
    order, entries = directory.order, list(directory.entries)
    if about.xmp:
        entries.append(tiff.Entry(tiff.XMP, 1, len(about.xmp), about.xmp))
    if about.icc:
        entries.append(tiff.Entry(tiff.ICC, 7, len(about.icc), about.icc))
    if about.density is not None and not any(entry.tag == tiff.X_RESOLUTION for entry in entries):
        for tag, side in zip((tiff.X_RESOLUTION, tiff.Y_RESOLUTION), about.density, strict=True):
            entries.append(tiff.rational(order, tag, min(side / METRE, 400_000)))
        entries = [entry for entry in entries if entry.tag != tiff.RESOLUTION_UNIT]
        entries.append(tiff.numbers(order, tiff.RESOLUTION_UNIT, 2, kind=3))
    return tiff.encode_tiff(samples, Directory(order, tuple(entries)))


def _encode_bmp(photograph: Photograph, samples: Any, quality: int | None) -> bytes:
    if samples.shape[2] == 4:  # Pillow writes alpha that nobody reads
        import cv2  # only where it is used: the import takes longer than to derain a small picture

        try:
            encoded = bytearray(cv2.imencode(".bmp", samples[..., [2, 1, 0, 3]])[1].tobytes())
        except cv2.error as error:
            raise ValueError(str(error)) from error
    else:
        encoded = bytearray(_saved(samples, "BMP"))
    if photograph.metadata.density is not None:
        encoded[38:46] = struct.pack("<ii", *(min(round(side), 0x7FFFFFFF) for side in photograph.metadata.density))
    return bytes(encoded)


ENCODERS: dict[Kind, Callable[[Photograph, Any, int | None], bytes]] = {
    "png": _encode_png, "jpg": _encode_jpeg, "webp": _encode_webp, "tiff": _encode_tiff, "bmp": _encode_bmp
}  # fmt: skip
