"""Reading each kind of file: pixels, metadata, and what of the file no result will hold."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from ..errors import DataError
from . import containers as c
from . import previews, tiff
from .channels import Samples, fitting, plain, upright, with_key
from .jpeg_coding import QUALITY, coding_of
from .photograph import ELSEWHERE, EXIF_SEGMENT, ICC_SEGMENT, METRE, XMP_SEGMENT, XMP_TEXT, Kind, Metadata, Photograph
from .tiff import Directory
from .whole import load_whole
from .xmp import without_others

_MOST_METADATA = 16 << 20
"""In bytes, of a decompressed profile or XMP."""
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENDED_HEAD = len(_EXTENDED_XMP) + 40
"""Bytes before the text of a piece: what it is of, its length, and at its end where it belongs."""
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_GAIN_MAP_NAMES = re.compile(rb"hdrgm:|:HDRGainMap|hdrgainmap|GainMap\"|ts:21496")
_RAW_PROFILE = b"Raw profile type "
_NOT_KEPT: tuple[tuple[int, bytes, str], ...] = (
    (c.APP0, b"JFXX\0", ""),  # a preview
    (c.APP2, b"MPF\0", ""),  # where further pictures are, of which `_behind` tells
    (c.APP2, _GAIN_MAP, ""),  # as well
    (c.APP2, b"FPXR\0", "previews (FlashPix)"),
    (c.APP11, b"", "layers or signatures of the pixels as they were (JPEG XT, JPEG-HDR, C2PA)"),
    (c.APP14, b"Adobe", ""),  # of the coding
)
"""Segments of a JPEG that are of other pictures or of the pixels as they were, and what is said of them."""
_BEHIND = "data behind the picture"
_OF_OTHERS = "what XMP says of pictures and films that are no longer in the file"
_TIFF_LEFT_OUT = {
    tiff.OTHER_SIZES: "smaller versions of the picture",
    tiff.LAYERS: "layers (Photoshop's), which show the rain",
    tiff.CREDENTIALS: "signatures of the pixels as they were (C2PA)",
}


def _photograph(
    samples: Samples, kind: Kind, path: Path, orientation: int, metadata: Metadata, **more: Any
) -> Photograph:
    channels: Any = upright(samples, orientation)
    count = channels.shape[2]
    colours = np.repeat(channels[..., :1], 3, axis=2) if count < 3 else np.ascontiguousarray(channels[..., :3])
    alpha = channels[..., -1].copy() if count in (2, 4) else None
    return Photograph(colours, kind, path, alpha, count < 3, orientation, metadata=metadata, **more)


def _about_exif(exif: bytes) -> tuple[int, tuple[float, float] | None]:
    """Orientation and density of an EXIF block; a damaged one tells nothing."""
    directory = tiff.read_directory(exif)
    if directory is None:
        return 1, None
    orientation = directory.first(tiff.ORIENTATION, 1)
    across, down = directory.ratio(tiff.X_RESOLUTION), directory.ratio(tiff.Y_RESOLUTION)
    unit = {2: METRE, 3: 100.0}.get(directory.first(tiff.RESOLUTION_UNIT, 2))
    density = (across * unit, down * unit) if across and down and unit else None
    return orientation if orientation in range(1, 9) else 1, density


def _is_preview(kind: bytes, body: bytes) -> bool:
    """Whether a PNG's chunk holds metadata as ImageMagick writes it, as digits, with a preview in it."""
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or not body.startswith(_RAW_PROFILE):
        return False
    keyword, _, text = body.partition(b"\0")
    if kind == b"iTXt":
        text = _png_text(body, len(keyword) + 1)
    elif kind == b"zTXt":
        text = c.inflated(text[1:], _MOST_METADATA)
    digits = b"".join(text.split()[2:])  # behind the profile's name and length
    try:
        return previews.has_preview(bytes.fromhex(digits.decode("ascii")).removeprefix(EXIF_SEGMENT))
    except ValueError:
        return False


def read_png(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    """A PNG of any kind; palettes become colours, a transparent colour alpha."""
    load_whole(image, encoded)
    bits, colour = encoded[24:26]
    chunks = list(c.png_chunks(encoded))
    found = dict(reversed(chunks))
    samples = plain(image, b"", path) if bits < 16 else _deep_png(encoded, image, colour, path)
    if colour in (0, 2) and b"tRNS" in found:
        samples = with_key(samples, found[b"tRNS"], bits)
    _, _, profile = found.get(b"iCCP", b"").partition(b"\0")
    icc = fitting(c.inflated(profile[1:], _MOST_METADATA), samples.shape[2] < 3)
    parts, left_out, xmp = [], [], b""
    for kind, body in chunks:
        if not c.png_is_about(kind):
            if not c.png_is_coding(kind):
                left_out.append(f"the chunk {kind.decode('latin-1')}, which is of the pixels as they were")
        elif kind == b"iCCP" and not icc:
            left_out.append("a colour profile that does not fit the pixels")
        elif _is_preview(kind, body):
            left_out.append("a raw profile with a preview in it")
        elif kind == b"iTXt" and body.startswith(XMP_TEXT):
            text = _png_text(body, len(XMP_TEXT))
            kept = without_others(text)
            xmp = xmp or without_others(text, with_extension=False)
            if kept:
                parts.append((kind, body if kept == text else XMP_TEXT + bytes(4) + kept))
            if kept != text:
                left_out.append(_OF_OTHERS)
        else:
            parts.append((kind, body))
    if c.png_end(encoded) < len(encoded):
        left_out.append(_BEHIND)
    exif = found.get(b"eXIf", b"").removeprefix(EXIF_SEGMENT)
    orientation, density = _about_exif(exif)
    if len(found.get(b"pHYs", b"")) == 9 and found[b"pHYs"][8] == 1:
        across, down = struct.unpack_from(">II", found[b"pHYs"])
        density = (float(across), float(down))
    metadata = Metadata(tuple(parts), exif, xmp, icc, density)
    return _photograph(samples, "png", path, orientation, metadata, left_out=_once(left_out))


def _png_text(body: bytes, start: int) -> bytes:
    """The text of an iTXt chunk, whose keyword ends before ``start``."""
    flags = body[start : start + 2]
    text = body[start + 2 :].split(b"\0", 2)[-1]
    return c.inflated(text, _MOST_METADATA) if flags[:1] == b"\1" else text


def _deep_png(encoded: bytes, image: ImageFile, colour: int, path: Path) -> Samples:
    """Pixels of 16 bits, by OpenCV; Pillow, which has looked whether the file is whole, must have seen the same."""
    import cv2  # only where it is used: the import takes longer than to derain a small picture

    decoded: Any = cv2.imdecode(np.frombuffer(c.png_pixels(encoded), np.uint8), cv2.IMREAD_UNCHANGED)
    channels = {0: [0], 2: [2, 1, 0], 4: [0, 3], 6: [2, 1, 0, 3]}[colour]
    samples = None if decoded is None else decoded.reshape(*decoded.shape[:2], -1)
    if samples is None or samples.dtype != np.uint16 or samples.shape[2] <= max(channels):
        raise DataError(f"{path}: damaged image; replace or remove it")
    samples = samples[..., channels]
    seen = np.asarray(image)
    first = samples[..., 0] if seen.ndim == 2 else samples[..., 0] >> 8
    if not np.array_equal(first, seen if seen.ndim == 2 else seen[..., 0]):
        raise DataError(f"{path}: a PNG of 16 bits that decoders do not agree on; save it anew")
    return samples


def read_jpeg(encoded: bytes, image: Any, path: Path) -> Photograph:
    """A JPEG; inks become RGB."""
    load_whole(image, encoded)
    about = [(marker, body) for marker, body, _ in c.jpeg_segments(encoded) if c.is_about(marker)]
    pieces = sorted(body[12:] for marker, body in about if marker == c.APP2 and body.startswith(ICC_SEGMENT))
    whole = b"".join(piece[2:] for piece in pieces)
    samples = plain(image, whole, path)
    icc = fitting(whole, samples.shape[2] < 3)
    coding = coding_of(image, encoded)
    left_out = _behind(encoded)
    if image.mode == "CMYK":
        left_out.append("its inks (CMYK): the result is RGB")
    elif coding is None:
        left_out.append(f"its lossless coding: the result is a JPEG of quality {QUALITY}")
    elif not coding.is_whole_numbered:
        left_out.append("the subsampling of its colours: the result has none")
    elif whole and not icc:
        left_out.append("a colour profile that does not fit the pixels")
    extensions = [body for marker, body in about if marker == c.APP1 and body.startswith(_EXTENDED_XMP)]
    extension = b"".join(body[_EXTENDED_HEAD:] for body in sorted(extensions, key=_place_of_extension))
    is_kept = without_others(extension) == extension
    if not is_kept:
        left_out.append("pictures within extended XMP")
    dropped = (*(() if is_kept else (_EXTENDED_XMP,)), *(() if icc else (ICC_SEGMENT,)))
    parts, xmp = [], b""
    for marker, body in about:
        reason = next((why for which, start, why in _NOT_KEPT if which == marker and body.startswith(start)), None)
        if reason is not None:
            left_out += [reason] if reason else []
        elif body.startswith(dropped):
            continue
        elif marker == c.APP1 and body.startswith(XMP_SEGMENT):
            text = body[len(XMP_SEGMENT) :]
            xmp = xmp or without_others(text, with_extension=False)
            if kept := without_others(text, is_kept):
                parts.append((marker, XMP_SEGMENT + kept))
            if kept != text and not left_out:
                left_out.append(_OF_OTHERS if kept else "XMP that tells of other pictures and cannot be read")
        elif marker == c.APP0 and body.startswith(b"JFIF\0"):
            parts.append((marker, body[:12] + bytes(2)))  # without a preview
        else:
            parts.append((marker, body))
    exif = b"".join(body[6:] for marker, body in about if marker == c.APP1 and body.startswith(EXIF_SEGMENT))
    orientation, density = _about_exif(exif)
    jfif = next((body for marker, body in about if marker == c.APP0 and body.startswith(b"JFIF\0")), b"")
    if len(jfif) >= 12 and jfif[7] in (1, 2):
        unit = {1: METRE, 2: 100.0}[jfif[7]]
        across, down = struct.unpack_from(">HH", jfif, 8)
        density = (across * unit, down * unit) if across and down else density
    metadata = Metadata(tuple((bytes((marker,)), body) for marker, body in parts), exif, xmp, icc, density)
    more = {"is_lossless": False, "jpeg": coding, "left_out": _once(left_out)}
    return _photograph(samples, "jpg", path, orientation, metadata, **more)


def _place_of_extension(body: bytes) -> int:
    return int.from_bytes(body[_EXTENDED_HEAD - 4 : _EXTENDED_HEAD], "big")


def _behind(encoded: bytes) -> list[str]:
    """What stands behind the picture of a JPEG."""
    rest = encoded[c.jpeg_end(encoded) :]
    found = []
    if next(previews.jpegs_in(rest), None) is not None:
        if _GAIN_MAP_NAMES.search(encoded):
            found.append("a further picture, the gain map: the result has no HDR version")
        else:
            found.append("a further picture behind the first one (stereo, depth or preview), which shows the rain")
    if re.search(rb"ftyp[\x20-\x7e]{4}", rest):
        found.append("the film behind the picture (motion photo)")
    return found or ([_BEHIND] if rest.strip(b"\0\xff \r\n") else [])


def read_webp(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    """A WebP that does not move."""
    load_whole(image, encoded)
    chunks = list(c.webp_chunks(encoded))
    found = dict(reversed(chunks))
    others = [kind for kind, _ in chunks if kind not in c.WEBP_CHUNKS]
    left_out = [f"the chunk {kind.decode('latin-1').strip()}" for kind in others]
    if 8 + int.from_bytes(encoded[4:8], "little") < len(encoded.rstrip(b"\0")):
        left_out.append(_BEHIND)
    exif = found.get(b"EXIF", b"").removeprefix(EXIF_SEGMENT)
    orientation, density = _about_exif(exif)
    text = found.get(b"XMP ", b"")
    xmp = without_others(text)
    if xmp != text:
        left_out.append(_OF_OTHERS)
    profile = found.get(b"ICCP", b"")
    icc = fitting(profile, False)
    if profile and not icc:
        left_out.append("a colour profile that does not fit the pixels")
    metadata = Metadata((), exif, xmp, icc, density)
    more = {"is_lossless": b"VP8L" in found, "left_out": _once(left_out)}
    return _photograph(plain(image, b"", path), "webp", path, orientation, metadata, **more)


def read_tiff(encoded: bytes, directory: Directory, path: Path) -> Photograph:
    """A TIFF of one page."""
    if directory.pages > 1:
        raise DataError(f"{path}: holds {directory.pages} pictures; split it into files of one each")
    samples, is_clear = tiff.decode_tiff(encoded, directory, path)
    profile, text = directory.bytes_of(tiff.ICC), directory.bytes_of(tiff.XMP)
    icc, xmp = fitting(profile, samples.shape[2] < 3), without_others(text)
    tags = {entry.tag for entry in directory.entries}
    left_out = [what for tag, what in _TIFF_LEFT_OUT.items() if tag in tags]
    if directory.smaller:
        left_out.append(_TIFF_LEFT_OUT[tiff.OTHER_SIZES])
    if profile and not icc:
        left_out.append("a colour profile that does not fit the pixels")
    about = directory.about(() if icc else (tiff.ICC,))
    if xmp != text:
        left_out.append(_OF_OTHERS)
        about = about.replaced([tiff.Entry(tiff.XMP, 1, len(xmp), xmp)] if xmp else [], without=(tiff.XMP,))
    exif = tiff.exif_block(about.about(ELSEWHERE))
    orientation, density = _about_exif(exif)
    metadata = Metadata(((b"", tiff.exif_block(about)),), exif, xmp, icc, density)
    more = {"is_clear": is_clear, "left_out": _once(left_out)}
    return _photograph(samples, "tiff", path, orientation, metadata, **more)


def _once(texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def read_bmp(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    """A BMP."""
    load_whole(image, encoded)
    density = None
    if int.from_bytes(encoded[14:18], "little") >= 40:
        across, down = struct.unpack_from("<ii", encoded, 38)
        density = (float(across), float(down)) if across > 0 and down > 0 else None
    return _photograph(plain(image, b"", path), "bmp", path, 1, Metadata(density=density))


READERS: dict[str, Callable[[bytes, Any, Path], Photograph]] = {
    "PNG": read_png, "JPEG": read_jpeg, "WEBP": read_webp, "BMP": read_bmp
}  # fmt: skip
"""By Pillow's names."""
