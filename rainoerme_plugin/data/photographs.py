"""Photographs with all that their files hold: what `basicsr derain` reads and gives back.

`data.images` reads for training: everything becomes 8-bit RGB. Here the file that is written differs from the one
that was read in nothing but the colours of its pixels: depth, grey, alpha, orientation, metadata and quality stay.
What cannot stay is told (`left_out`), and previews are made anew.
"""

from __future__ import annotations

import functools
import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, described
from . import containers as c
from . import previews, tiff
from .channels import fitting, to_8_bits, turned_back
from .images import RGB, Pixels, decoding, open_image, read_file
from .photograph import EXIF_SEGMENT, ICC_SEGMENT, XMP_SEGMENT, XMP_TEXT, Metadata
from .photograph import Kind as Kind
from .photograph import Photograph as Photograph
from .photograph_readers import READERS, read_tiff
from .photograph_writers import ENCODERS, fits_segment, samples_of

_LONGEST_SIDE: dict[str, int] = {"jpg": 65_500, "webp": 16_383}
_IN_PIECES = (EXIF_SEGMENT, b"Photoshop 3.0\0")
"""Beginnings of a JPEG's segments whose contents may go on in the next one."""


def read_photograph(path: Path) -> Photograph:
    """Read a picture with all that its file holds.

    Raises:
        DataError: It is missing, no image, damaged, ends too early, declares more than `MAX_PIXELS`, is an animation
            or of several pages, or has values of another kind than 8 or 16 bits.
    """
    encoded = read_file(path)
    directory = tiff.read_directory(encoded)
    if directory is not None:
        return read_tiff(encoded, directory, path)
    is_png = encoded.startswith(c.PNG_SIGNATURE)
    with decoding(None, encoded, path):
        pixels = c.png_pixels(encoded) if is_png else encoded
    with io.BytesIO(pixels) as file:
        image = open_image(file, path)
        if getattr(image, "is_animated", False):
            raise DataError(f"{path}: an animation; take its pictures apart, or make a video of it")
        with decoding(image, encoded, path):
            return READERS[str(image.format)](encoded, image, path)


def encode_photograph(
    photograph: Photograph, pixels: Pixels, kind: Kind | None = None, quality: int | None = None
) -> bytes:
    """The bytes of a file of a photograph with other pixels.

    Args:
        photograph: What was read.
        pixels: The derained version of its pixels, of their shape and dtype.
        kind: Of the file; None: as it was read. Kinds of 8 bits round 16.
        quality: Of JPEG and WebP, 1 to 100. None: a JPEG keeps its quality, WebP is lossless if the photograph was,
            and all else has 95.

    Raises:
        ValueError: The pixels are of another shape or dtype.
        DataError: That kind of file cannot hold it.
    """
    if (pixels.shape, pixels.dtype) != (photograph.pixels.shape, photograph.pixels.dtype):
        wanted = f"{photograph.pixels.shape} {photograph.pixels.dtype}"
        raise ValueError(f"pixels must be {wanted}, got {pixels.shape} {pixels.dtype}")
    kind = kind or photograph.kind
    where, sides = photograph.source, pixels.shape[:2]
    if max(sides) > _LONGEST_SIDE.get(kind, max(sides)):
        raise DataError(f"{where}: a {kind} has at most {_LONGEST_SIDE[kind]} pixels a side; choose png, tiff or bmp")
    if kind == "bmp" or (kind == "jpg" != photograph.kind and not fits_segment(photograph.metadata.exif)):
        # Nothing in such a file says how its pixels lie.
        photograph = replace(photograph, orientation=1, metadata=replace(photograph.metadata, exif=b""))
    photograph = replace(photograph, metadata=_renewed(photograph, pixels))
    samples = samples_of(photograph, pixels, kind)
    try:
        return ENCODERS[kind](photograph, turned_back(samples, photograph.orientation), quality)
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{where}: cannot be written as {kind} ({described(error)}); choose another kind") from None


def _renewed(photograph: Photograph, pixels: Pixels) -> Metadata:
    """Its metadata with previews of other pixels."""

    @functools.cache
    def picture() -> RGB:
        return turned_back(to_8_bits(pixels), photograph.orientation)  # type: ignore[return-value]

    about, parts = photograph.metadata, list(photograph.metadata.parts)
    pieces: dict[tuple[bytes, bytes], list[int]] = {}
    for number, (name, body) in enumerate(parts):
        start = next((start for start in _IN_PIECES if body.startswith(start)), b"")
        pieces.setdefault((name, start or bytes(number + 1)), []).append(number)
    for (name, start), numbers in pieces.items():
        skipped = len(start) if start in _IN_PIECES else 0
        whole = b"".join(parts[number][1][skipped:] for number in numbers)
        if previews.has_preview(whole):
            whole = previews.renewed(whole, picture)
            for number in numbers:
                length = len(parts[number][1]) - skipped
                parts[number] = (name, start[:skipped] + whole[:length])
                whole = whole[length:]
    exif = previews.renewed(about.exif, picture) if previews.has_preview(about.exif) else about.exif
    return replace(about, parts=tuple(parts), exif=exif)


def left_out(photograph: Photograph, kind: Kind | None = None) -> tuple[str, ...]:
    """What a photograph's file holds and one of a kind that is written of it (None: its own) does not, in words."""
    about, found = photograph.metadata, list(photograph.left_out)
    if kind in (None, photograph.kind):
        return tuple(found)
    found += _OTHERS[photograph.kind](about)
    if photograph.pixels.dtype == np.uint16 and kind in ("jpg", "webp", "bmp"):
        found.append(f"the lower 8 of its 16 bits, which a {kind} has not")
    if photograph.alpha is not None and not photograph.is_clear:
        found.append("a channel of which the file does not say what it is")
    lost = {
        "EXIF": about.exif and (kind == "bmp" or (kind == "jpg" and not fits_segment(about.exif))),
        "XMP": about.xmp and (kind == "bmp" or (kind == "jpg" and not fits_segment(about.xmp, XMP_SEGMENT))),
        "the colour profile": about.icc and (kind == "bmp" or (kind == "webp" and not fitting(about.icc, False))),
    }
    found += [f"{what}, which a {kind} cannot hold" for what, is_lost in lost.items() if is_lost]
    return tuple(dict.fromkeys(found))


def _others_of_jpeg(about: Metadata) -> list[str]:
    found = []
    for name, body in about.parts:
        if name[0] == c.COMMENT:
            found.append("comments")
        elif name[0] == c.APP13:
            found.append("IPTC and Photoshop's data")
        elif name[0] != c.APP0 and not body.startswith((EXIF_SEGMENT, XMP_SEGMENT, ICC_SEGMENT)):
            found.append(f"segments of the kind APP{name[0] - c.APP0}")
    return found


def _others_of_png(about: Metadata) -> list[str]:
    kept = (b"iCCP", b"pHYs", b"eXIf", b"sRGB")
    others = (kind for kind, body in about.parts if kind not in kept and not body.startswith(XMP_TEXT))
    return [f"chunks of the kind {kind.decode('latin-1')}" for kind in others]


def _others_of_tiff(about: Metadata) -> list[str]:
    directory = tiff.read_directory(about.parts[0][1])
    tags = {entry.tag for entry in directory.entries} if directory else set()
    return [what for tag, what in ((tiff.IPTC, "IPTC"), (tiff.PHOTOSHOP, "Photoshop's data")) if tag in tags]


_OTHERS: dict[Kind, Any] = {
    "jpg": _others_of_jpeg, "png": _others_of_png, "tiff": _others_of_tiff, "webp": lambda _: [], "bmp": lambda _: []
}  # fmt: skip
"""What only files of the same kind hold of the metadata of one."""
