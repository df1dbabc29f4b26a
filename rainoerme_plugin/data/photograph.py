"""A picture, and what else its file holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from . import tiff
from .images import Pixels
from .jpeg_coding import JpegCoding

Kind: TypeAlias = Literal["png", "jpg", "webp", "tiff", "bmp"]

XMP_SEGMENT, EXIF_SEGMENT, ICC_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0", b"ICC_PROFILE\0"
"""What the segments of a JPEG begin with."""
XMP_TEXT = b"XML:com.adobe.xmp\0"
"""What XMP in a text chunk of a PNG begins with."""
ELSEWHERE = (tiff.XMP, tiff.ICC, tiff.IPTC, tiff.PHOTOSHOP)
"""Tags of a TIFF for what does not stand in an EXIF block in other files."""
METRE = 39.370078740157
"""In inches."""


@dataclass(frozen=True)
class Metadata:
    """What a file holds besides pixels."""

    parts: tuple[tuple[bytes, bytes], ...] = ()
    """For a file of the same kind, by name: chunks, segments (their marker), or a TIFF's directory as an EXIF block."""
    exif: bytes = b""
    """From the byte order on."""
    xmp: bytes = b""
    icc: bytes = b""
    """A colour profile, of grey or RGB as the file is."""
    density: tuple[float, float] | None = None
    """Across and down, in pixels per metre."""


@dataclass(frozen=True)
class Photograph:
    """One picture, upright, and what else its file holds."""

    pixels: Pixels
    """(H, W, 3) RGB, uint8 or uint16, upright: rain falls downwards."""
    kind: Kind
    """Of the file."""
    source: Path
    alpha: Pixels | None = None
    """(H, W) of the pixels' dtype, upright; None: no transparency."""
    is_grey: bool = False
    """Whether the file has one channel of colour, here three times."""
    orientation: int = 1
    """How the file's pixels lie, 1 to 8 as EXIF counts."""
    is_lossless: bool = True
    is_clear: bool = True
    """Whether alpha is transparency; a TIFF may leave unsaid what it is: then other kinds of files leave it out."""
    metadata: Metadata = field(default_factory=Metadata)
    jpeg: JpegCoding | None = None
    left_out: tuple[str, ...] = ()
    """What else the file holds, and a result will not."""
