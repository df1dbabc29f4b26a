"""Photographs with all that their files hold: what `basicsr derain` reads and gives back.

`data.images` reads for training: everything becomes 8-bit RGB. Here the file that is written differs from the one
that was read in nothing but the colours of its pixels: depth, grey, alpha, orientation, metadata and quality stay.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL.ImageFile import ImageFile

from ..errors import DataError, described
from . import containers as c
from . import tiff
from .channels import Samples, fitting, mean_grey, plain, to_8_bits, turned_back, upright, with_key
from .images import Pixels, decoding, open_image, read_file
from .tiff import Directory
from .whole import load_whole

Kind: TypeAlias = Literal["png", "jpg", "webp", "tiff", "bmp"]

_QUALITY = 95
_LONGEST_SIDE: dict[str, int] = {"jpg": 65_500, "webp": 16_383}
_MOST_METADATA = 16 << 20
"""In bytes, of a decompressed profile or XMP."""
_METRE = 39.370078740157
"""In inches."""
_XMP_SEGMENT, _EXIF_SEGMENT, _ICC_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0", b"ICC_PROFILE\0"
_XMP_TEXT = b"XML:com.adobe.xmp\0"
_ELSEWHERE = (tiff.XMP, tiff.ICC, tiff.IPTC, tiff.PHOTOSHOP)
"""Tags of a TIFF for what does not stand in an EXIF block in other files."""


@dataclass(frozen=True)
class Metadata:
    """What a file holds besides pixels."""

    parts: tuple[bytes, ...] = ()
    """For a file of the same kind, as they stand in it: chunks, segments, or a TIFF's directory as an EXIF block."""
    exif: bytes = b""
    """From the byte order on."""
    xmp: bytes = b""
    icc: bytes = b""
    """A colour profile, of grey or RGB as the file is."""
    density: tuple[float, float] | None = None
    """Across and down, in pixels per metre."""


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG is compressed."""

    tables: list[list[int]]
    """Of brightness and of colour, 64 numbers each; one that serves both stands once."""
    subsampling: str
    """Of colours, as Pillow names it."""
    progressive: bool
    is_rgb: bool = False
    """Whether it holds RGB, not brightness and colour."""


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


def read_photograph(path: Path) -> Photograph:
    """Read a picture with all that its file holds.

    Raises:
        DataError: It is missing, no image, damaged, ends too early, declares more than `MAX_PIXELS`, is an animation
            or of several pages, or has values of another kind than 8 or 16 bits.
    """
    encoded = read_file(path)
    directory = tiff.read_directory(encoded)
    if directory is not None:
        return _read_tiff(encoded, directory, path)
    is_png = encoded.startswith(c.PNG_SIGNATURE)
    with decoding(None, encoded, path):
        pixels = c.png_pixels(encoded) if is_png else encoded
    with io.BytesIO(pixels) as file:
        image = open_image(file, path)
        if getattr(image, "is_animated", False):
            raise DataError(f"{path}: an animation; take its pictures apart, or make a video of it")
        with decoding(image, encoded, path):
            return _READERS[str(image.format)](encoded, image, path)


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
    if kind == "bmp" or (kind == "jpg" != photograph.kind and not _fits_segment(photograph.metadata.exif)):
        # Nothing in such a file says how its pixels lie.
        photograph = replace(photograph, orientation=1, metadata=replace(photograph.metadata, exif=b""))
    samples = _samples(photograph, pixels, kind)
    try:
        return _ENCODERS[kind](photograph, turned_back(samples, photograph.orientation), quality)
    except (OSError, ValueError, struct.error, cv2.error) as error:
        raise DataError(f"{where}: cannot be written as {kind} ({described(error)}); choose another kind") from None


# --- reading ---


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
    unit = {2: _METRE, 3: 100.0}.get(directory.first(tiff.RESOLUTION_UNIT, 2))
    density = (across * unit, down * unit) if across and down and unit else None
    return orientation if orientation in range(1, 9) else 1, density


def _read_png(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    load_whole(image, encoded)
    bits, colour = encoded[24:26]
    chunks = list(c.png_chunks(encoded))
    found = dict(reversed(chunks))
    samples = plain(image, b"", path) if bits < 16 else _deep_png(encoded, image, colour, path)
    if colour in (0, 2) and b"tRNS" in found:
        samples = with_key(samples, found[b"tRNS"], bits)
    _, _, profile = found.get(b"iCCP", b"").partition(b"\0")
    icc = fitting(c.inflated(profile[1:], _MOST_METADATA), samples.shape[2] < 3)
    kept = [(kind, body) for kind, body in chunks if c.png_is_about(kind) and (kind != b"iCCP" or icc)]
    parts = [c.png_chunk(kind, body) for kind, body in kept]
    exif = found.get(b"eXIf", b"").removeprefix(_EXIF_SEGMENT)
    orientation, density = _about_exif(exif)
    if len(found.get(b"pHYs", b"")) == 9 and found[b"pHYs"][8] == 1:
        across, down = struct.unpack_from(">II", found[b"pHYs"])
        density = (float(across), float(down))
    texts = (body for kind, body in chunks if kind == b"iTXt" and body.startswith(_XMP_TEXT))
    xmp = _png_text(next(texts, b""))
    return _photograph(samples, "png", path, orientation, Metadata(tuple(parts), exif, xmp, icc, density))


def _png_text(body: bytes) -> bytes:
    """The text of an iTXt chunk."""
    flags = body[len(_XMP_TEXT) : len(_XMP_TEXT) + 2]
    text = body[len(_XMP_TEXT) + 2 :].split(b"\0", 2)[-1]
    return c.inflated(text, _MOST_METADATA) if flags[:1] == b"\1" else text


def _deep_png(encoded: bytes, image: ImageFile, colour: int, path: Path) -> Samples:
    """Pixels of 16 bits, by OpenCV; Pillow, which has looked whether the file is whole, must have seen the same."""
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


def _read_jpeg(encoded: bytes, image: Any, path: Path) -> Photograph:
    load_whole(image, encoded)
    is_ink = image.mode == "CMYK"
    about = [(marker, body) for marker, body, _ in c.jpeg_segments(encoded) if c.is_about(marker)]
    pieces = sorted(body[12:] for marker, body in about if marker == c.APP2 and body.startswith(_ICC_SEGMENT))
    whole = b"".join(piece[2:] for piece in pieces)
    samples = plain(image, whole, path)
    icc = fitting(whole, samples.shape[2] < 3)
    coding = None if is_ink else _jpeg_coding(image)
    parts = []
    for marker, body in about:
        of_inks = marker == c.APP14 and body.startswith(b"Adobe")
        of_others = marker == c.APP2 and body.startswith(b"MPF\0")
        of_profile = marker == c.APP2 and body.startswith(_ICC_SEGMENT) and not icc
        if not (of_inks or of_others or of_profile):
            parts.append(c.jpeg_segment(marker, body))
    ones = [body for marker, body in about if marker == c.APP1]
    exif = b"".join(body[6:] for body in ones if body.startswith(_EXIF_SEGMENT))
    xmp = next((body[len(_XMP_SEGMENT) :] for body in ones if body.startswith(_XMP_SEGMENT)), b"")
    orientation, density = _about_exif(exif)
    jfif = next((body for marker, body in about if marker == c.APP0 and body.startswith(b"JFIF\0")), b"")
    if len(jfif) >= 12 and jfif[7] in (1, 2):
        unit = {1: _METRE, 2: 100.0}[jfif[7]]
        across, down = struct.unpack_from(">HH", jfif, 8)
        density = (across * unit, down * unit) if across and down else density
    metadata = Metadata(tuple(parts), exif, xmp, icc, density)
    return _photograph(samples, "jpg", path, orientation, metadata, is_lossless=False, jpeg=coding)


def _jpeg_coding(image: Any) -> JpegCoding | None:
    tables = [list(image.quantization[table]) for *_, table in image.layer if table in image.quantization]
    if len(tables) != len(image.layer):
        return None
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables.pop()
    # The first is brightness, at full size; of the rest, encoders here know three sizes.
    sizes = [(across, down) for _, across, down, _ in image.layer]
    named = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
    subsampling = named.get(sizes[0], "4:4:4") if sizes[1:] == [(1, 1), (1, 1)] else "4:4:4"
    names = bytes(layer[0] for layer in image.layer)
    # As libjpeg takes them; a JFIF header rules it out.
    is_rgb = image.info.get("adobe_transform") == 0 if "adobe" in image.info else names == b"RGB"
    is_rgb = is_rgb and len(names) == 3 and "jfif" not in image.info
    return JpegCoding(tables, subsampling, "progressive" in image.info, is_rgb)


def _read_webp(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    load_whole(image, encoded)
    chunks = list(c.webp_chunks(encoded))
    found = dict(reversed(chunks))
    exif = found.get(b"EXIF", b"").removeprefix(_EXIF_SEGMENT)
    orientation, density = _about_exif(exif)
    metadata = Metadata((), exif, found.get(b"XMP ", b""), fitting(found.get(b"ICCP", b""), False), density)
    return _photograph(plain(image, b"", path), "webp", path, orientation, metadata, is_lossless=b"VP8L" in found)


def _read_tiff(encoded: bytes, directory: Directory, path: Path) -> Photograph:
    if directory.pages > 1:
        raise DataError(f"{path}: holds {directory.pages} pictures; split it into files of one each")
    samples, is_clear = tiff.decode_tiff(encoded, directory, path)
    icc = fitting(directory.bytes_of(tiff.ICC), samples.shape[2] < 3)
    about = directory.about(() if icc else (tiff.ICC,))
    exif = tiff.exif_block(about.about(_ELSEWHERE))
    orientation, density = _about_exif(exif)
    metadata = Metadata((tiff.exif_block(about),), exif, directory.bytes_of(tiff.XMP), icc, density)
    return _photograph(samples, "tiff", path, orientation, metadata, is_clear=is_clear)


def _read_bmp(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    load_whole(image, encoded)
    density = None
    if int.from_bytes(encoded[14:18], "little") >= 40:
        across, down = struct.unpack_from("<ii", encoded, 38)
        density = (float(across), float(down)) if across > 0 and down > 0 else None
    return _photograph(plain(image, b"", path), "bmp", path, 1, Metadata(density=density))


_READERS: dict[str, Callable[[bytes, Any, Path], Photograph]] = {
    "PNG": _read_png, "JPEG": _read_jpeg, "WEBP": _read_webp, "BMP": _read_bmp
}  # fmt: skip

# --- writing ---


def _samples(photograph: Photograph, pixels: Pixels, kind: Kind) -> Samples:
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
    chunks = list(about.parts)
    if photograph.kind != "png":
        chunks = [c.png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(about.icc))] if about.icc else []
        if about.density is not None:
            sides = [min(round(side), 0x7FFFFFFF) for side in about.density]
            chunks.append(c.png_chunk(b"pHYs", struct.pack(">IIB", *sides, 1)))
        if about.exif:
            chunks.append(c.png_chunk(b"eXIf", about.exif))
        if about.xmp:
            chunks.append(c.png_chunk(b"iTXt", _XMP_TEXT + bytes(4) + about.xmp))
    encoded = c.encode_deep_png(samples) if samples.dtype == np.uint16 else _saved(samples, "PNG")
    return c.insert_png_chunks(encoded, chunks)


def _encode_jpeg(photograph: Photograph, samples: Samples, quality: int | None) -> bytes:
    about, coding = photograph.metadata, photograph.jpeg
    options: dict[str, Any] = {"quality": quality or _QUALITY, "subsampling": "4:4:4"}
    if coding is not None:
        options.update(subsampling=coding.subsampling, progressive=coding.progressive, keep_rgb=coding.is_rgb)
        if quality is None:
            options.update(qtables=coding.tables, quality=-1)
    if samples.shape[2] == 1:
        del options["subsampling"]
    try:
        encoded = _saved(samples, "JPEG", **options)
    except OSError:
        if not options.pop("progressive", False):
            raise
        encoded = _saved(samples, "JPEG", **options)  # Pillow's guess of a progressive file's size was too low
    return c.replace_jpeg_segments(encoded, about.parts if photograph.kind == "jpg" else _segments(about))


def _fits_segment(exif: bytes) -> bool:
    return len(exif) + len(_EXIF_SEGMENT) <= c.LONGEST_SEGMENT


def _segments(about: Metadata) -> list[bytes]:
    """For a JPEG of another kind of file; what is longer than a segment is left out."""
    sides = [1, 1] if about.density is None else [max(1, min(round(side / _METRE), 65535)) for side in about.density]
    jfif = struct.pack(">5sBBBHHBB", b"JFIF\0", 1, 1, about.density is not None, *sides, 0, 0)
    found = [c.jpeg_segment(c.APP0, jfif)]
    if about.exif:
        found.append(c.jpeg_segment(c.APP1, _EXIF_SEGMENT + about.exif))
    if about.xmp and len(_XMP_SEGMENT + about.xmp) <= c.LONGEST_SEGMENT:
        found.append(c.jpeg_segment(c.APP1, _XMP_SEGMENT + about.xmp))
    longest = c.LONGEST_SEGMENT - len(_ICC_SEGMENT) - 2
    pieces = [about.icc[start : start + longest] for start in range(0, len(about.icc), longest)]
    if len(pieces) < 256:
        for number, piece in enumerate(pieces, 1):
            found.append(c.jpeg_segment(c.APP2, _ICC_SEGMENT + bytes((number, len(pieces))) + piece))
    return found


def _encode_webp(photograph: Photograph, samples: Samples, quality: int | None) -> bytes:
    about = photograph.metadata
    if photograph.is_lossless and quality is None:
        encoded = _saved(samples, "WEBP", lossless=True, exact=True)
    else:
        encoded = _saved(samples, "WEBP", quality=quality or _QUALITY, exact=True)
    parts = [(b"ICCP", fitting(about.icc, False)), (b"EXIF", about.exif), (b"XMP ", about.xmp)]
    height, width, channels = samples.shape
    return c.webp_with(encoded, (width, height), channels == 4, [part for part in parts if part[1]])


def _encode_tiff(photograph: Photograph, samples: Samples, quality: int | None) -> bytes:
    about = photograph.metadata
    if photograph.kind == "tiff":
        directory = tiff.read_directory(about.parts[0]) or Directory("<", ())
        return tiff.encode_tiff(samples, directory, photograph.is_clear)
    directory = (tiff.read_directory(about.exif) or Directory("<", ())).about(_ELSEWHERE)
    order, entries = directory.order, list(directory.entries)
    if about.xmp:
        entries.append(tiff.Entry(tiff.XMP, 1, len(about.xmp), about.xmp))
    if about.icc:
        entries.append(tiff.Entry(tiff.ICC, 7, len(about.icc), about.icc))
    if about.density is not None and not any(entry.tag == tiff.X_RESOLUTION for entry in entries):
        for tag, side in zip((tiff.X_RESOLUTION, tiff.Y_RESOLUTION), about.density, strict=True):
            entries.append(tiff.rational(order, tag, min(side / _METRE, 400_000)))
        entries = [entry for entry in entries if entry.tag != tiff.RESOLUTION_UNIT]
        entries.append(tiff.numbers(order, tiff.RESOLUTION_UNIT, 2, kind=3))
    return tiff.encode_tiff(samples, Directory(order, tuple(entries)))


def _encode_bmp(photograph: Photograph, samples: Any, quality: int | None) -> bytes:
    if samples.shape[2] == 4:  # Pillow writes alpha that nobody reads
        encoded = bytearray(cv2.imencode(".bmp", samples[..., [2, 1, 0, 3]])[1].tobytes())
    else:
        encoded = bytearray(_saved(samples, "BMP"))
    if photograph.metadata.density is not None:
        encoded[38:46] = struct.pack("<ii", *(min(round(side), 0x7FFFFFFF) for side in photograph.metadata.density))
    return bytes(encoded)


_ENCODERS: dict[Kind, Callable[[Photograph, Any, int | None], bytes]] = {
    "png": _encode_png, "jpg": _encode_jpeg, "webp": _encode_webp, "tiff": _encode_tiff, "bmp": _encode_bmp
}  # fmt: skip
