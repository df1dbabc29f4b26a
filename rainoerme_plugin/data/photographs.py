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
from PIL import ImageCms
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import DataError, described
from . import containers as c
from .containers import Directory, Samples
from .images import Pixels, check_size, decoding, open_image, read_file

Kind: TypeAlias = Literal["png", "jpg", "webp", "tiff", "bmp"]

_QUALITY = 95
_LONGEST_SIDE: dict[str, int] = {"jpg": 65_500, "webp": 16_383}
_MOST_METADATA = 16 << 20
"""In bytes, of a decompressed profile or XMP."""
_METRE = 39.370078740157
"""In inches."""
_BACK = {6: 8, 8: 6}
"""The orientations that another one undoes; all others undo themselves."""
_PNG_CODING = (
    b"IHDR", b"PLTE", b"tRNS", b"sBIT", b"bKGD", b"hIST", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND", b"iCCP"
)  # fmt: skip
_XMP_SEGMENT, _EXIF_SEGMENT, _ICC_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0", b"ICC_PROFILE\0"
_XMP_TEXT = b"XML:com.adobe.xmp\0"


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
    metadata: Metadata = field(default_factory=Metadata)
    jpeg: JpegCoding | None = None


def read_photograph(path: Path) -> Photograph:
    """Read a picture with all that its file holds.

    Raises:
        DataError: It is missing, no image, damaged, ends too early, declares more than `MAX_PIXELS`, is an animation
            or of several pages, or has values of another kind than 8 or 16 bits.
    """
    encoded = read_file(path)
    directory = c.read_directory(encoded) if encoded[:2] in (b"II", b"MM") else None
    if directory is not None:
        return _read_tiff(encoded, directory, path)
    with io.BytesIO(encoded) as file:
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
    samples = np.ascontiguousarray(_turned(samples, _BACK.get(photograph.orientation, photograph.orientation)))
    try:
        return _ENCODERS[kind](photograph, samples, quality)
    except (OSError, ValueError, struct.error, cv2.error) as error:
        raise DataError(f"{where}: cannot be written as {kind} ({described(error)}); choose another kind") from None


# --- reading ---


def _photograph(
    samples: Samples, kind: Kind, path: Path, orientation: int, metadata: Metadata, **more: Any
) -> Photograph:
    upright: Any = np.ascontiguousarray(_turned(samples, orientation))
    channels = upright.shape[2]
    colours = np.repeat(upright[..., :1], 3, axis=2) if channels < 3 else np.ascontiguousarray(upright[..., :3])
    alpha = upright[..., -1].copy() if channels in (2, 4) else None
    return Photograph(colours, kind, path, alpha, channels < 3, orientation, metadata=metadata, **more)


def _turned(samples: Any, orientation: int) -> Any:
    """Pixels that lie as EXIF's ``orientation`` says, upright."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def _about_exif(exif: bytes) -> tuple[int, tuple[float, float] | None]:
    """Orientation and density of an EXIF block; a damaged one tells nothing."""
    directory = c.read_directory(exif)
    if directory is None:
        return 1, None
    orientation = directory.first(c.ORIENTATION, 1)
    across, down = directory.ratio(c.X_RESOLUTION), directory.ratio(c.Y_RESOLUTION)
    unit = {2: _METRE, 3: 100.0}.get(directory.first(c.RESOLUTION_UNIT, 2))
    density = (across * unit, down * unit) if across and down and unit else None
    return orientation if orientation in range(1, 9) else 1, density


def _fitting(icc: bytes, is_grey: bool) -> bytes:
    return icc if icc[16:20] == (b"GRAY" if is_grey else b"RGB ") else b""


def _plain(image: PillowImage.Image, icc: bytes, path: Path) -> Samples:
    """Pixels of 8 bits, of a decoded image of any mode."""
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise DataError(f"{path}: holds values of other than 8 or 16 bits; convert it to 8 or 16 bits first")
    if image.mode == "LAB":
        raise DataError(f"{path}: holds colours that are no RGB (Lab); convert it to RGB first")
    if image.mode == "CMYK":
        image = _rgb_of_cmyk(image, icc)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    samples = np.asarray(image)
    return samples.reshape(*samples.shape[:2], -1)


def _rgb_of_cmyk(image: PillowImage.Image, icc: bytes) -> PillowImage.Image:
    if icc[16:20] == b"CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            found = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if found is not None:
                return found
        except (ImageCms.PyCMSError, OSError):  # a damaged profile
            pass
    return image.convert("RGB")


def _read_png(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    image.load()
    bits, colour = encoded[24:26]
    chunks = list(c.png_chunks(encoded))
    found = dict(reversed(chunks))
    samples = _plain(image, b"", path) if bits < 16 else _deep_png(encoded, image, colour, path)
    if colour in (0, 2) and b"tRNS" in found:
        samples = _with_key(samples, found[b"tRNS"], bits)
    _, _, profile = found.get(b"iCCP", b"").partition(b"\0")
    icc = _fitting(c.inflated(profile[1:], _MOST_METADATA), samples.shape[2] < 3)
    parts = [c.png_chunk(kind, body) for kind, body in chunks if kind not in _PNG_CODING or (kind == b"iCCP" and icc)]
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
    decoded: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
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


def _with_key(samples: Any, key: bytes, bits: int) -> Samples:
    """Alpha for the one colour that is transparent."""
    if len(key) != 2 * samples.shape[2]:
        return samples
    wanted = np.frombuffer(key, ">u2").astype(np.int64) & ((1 << bits) - 1)
    if bits < 8:
        wanted = wanted * (255 // ((1 << bits) - 1))
    is_key = (samples == wanted).all(axis=2, keepdims=True)
    return np.concatenate([samples, np.where(is_key, 0, np.iinfo(samples.dtype).max).astype(samples.dtype)], axis=2)


def _read_jpeg(encoded: bytes, image: Any, path: Path) -> Photograph:
    image.load()
    is_ink = image.mode == "CMYK"
    about = [(marker, body) for marker, body, _ in c.jpeg_segments(encoded) if c.is_about(marker)]
    pieces = sorted(body[12:] for marker, body in about if marker == c.APP2 and body.startswith(_ICC_SEGMENT))
    whole = b"".join(piece[2:] for piece in pieces)
    samples = _plain(image, whole, path)
    icc = _fitting(whole, samples.shape[2] < 3)
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
    coding = None if is_ink else _jpeg_coding(image)
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
    plain = len(sizes) == 3 and sizes[1] == sizes[2] == (1, 1)
    return JpegCoding(tables, named.get(sizes[0], "4:4:4") if plain else "4:4:4", "progressive" in image.info)


def _read_webp(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    image.load()
    chunks = list(c.webp_chunks(encoded))
    found = dict(reversed(chunks))
    exif = found.get(b"EXIF", b"").removeprefix(_EXIF_SEGMENT)
    orientation, density = _about_exif(exif)
    metadata = Metadata((), exif, found.get(b"XMP ", b""), _fitting(found.get(b"ICCP", b""), False), density)
    return _photograph(_plain(image, b"", path), "webp", path, orientation, metadata, is_lossless=b"VP8L" in found)


def _read_bmp(encoded: bytes, image: ImageFile, path: Path) -> Photograph:
    image.load()
    density = None
    if int.from_bytes(encoded[14:18], "little") >= 40:
        across, down = struct.unpack_from("<ii", encoded, 38)
        density = (float(across), float(down)) if across > 0 and down > 0 else None
    return _photograph(_plain(image, b"", path), "bmp", path, 1, Metadata(density=density))


_READERS: dict[str, Callable[[bytes, Any, Path], Photograph]] = {
    "PNG": _read_png, "JPEG": _read_jpeg, "WEBP": _read_webp, "BMP": _read_bmp
}  # fmt: skip

# --- TIFF: Pillow has no colours of 16 bits, and OpenCV turns them and takes alpha for what it is not ---

_JPEG_INSIDE = (6, 7, 34892)


def _read_tiff(encoded: bytes, directory: Directory, path: Path) -> Photograph:
    if directory.pages > 1:
        raise DataError(f"{path}: holds several pictures; split it into files of one each")
    width, height = directory.first(c.WIDTH, 0), directory.first(c.LENGTH, 0)
    check_size(width, height, path)
    channels, photometric = directory.first(c.SAMPLES, 1), directory.first(c.PHOTOMETRIC, 1)
    bits = set(directory.all(c.BITS) or [1])
    if not set(directory.all(c.SAMPLE_FORMAT)) <= {1, 4} or max(bits) > 16 or max(bits) in range(9, 16):
        raise DataError(f"{path}: holds values of other than 8 or 16 bits; convert it to 8 or 16 bits first")
    colours = {0: 1, 1: 1, 2: 3}.get(photometric)
    is_plain = bits in ({8}, {16}) and directory.first(c.PLANAR, 1) == 1 and colours is not None
    is_plain = is_plain and directory.first(c.COMPRESSION, 1) not in _JPEG_INSIDE
    if is_plain and channels - (colours or 0) not in (0, 1):
        raise DataError(f"{path}: has {channels} channels, more than colours and alpha; remove the others first")
    if not is_plain and max(bits) == 16:
        raise DataError(f"{path}: a TIFF of 16 bits that is neither grey nor RGB, or in planes; save it as RGB first")
    layout = directory.layout()
    predictor = directory.first(c.PREDICTOR, 1)
    if is_plain:
        # A grey picture of so many times the width has the same bytes, and is read with all its bits.
        layout = _as_grey(layout, channels, bits.pop())
    data = c.with_directory(encoded, layout)
    with io.BytesIO(data) as file:
        try:
            image = TiffImageFile(file)
        except Exception:  # whatever came up
            raise DataError(f"{path}: not a TIFF this package reads, or damaged; replace or remove it") from None
        with decoding(image, b"", path):
            image.load()
            icc = directory.bytes_of(c.ICC)
            samples = _unfolded(image, directory, channels, predictor) if is_plain else _plain(image, icc, path)
    if samples.shape[:2] != (height, width):
        raise DataError(f"{path}: damaged image; replace or remove it")
    icc = _fitting(icc, samples.shape[2] < 3)
    about = directory.about(() if icc else (c.ICC,))
    exif = c.exif_block(about.about((c.XMP, c.IPTC, c.PHOTOSHOP, c.ICC)))
    orientation, density = _about_exif(exif)
    metadata = Metadata((c.exif_block(about),), exif, directory.bytes_of(c.XMP), icc, density)
    return _photograph(samples, "tiff", path, orientation, metadata)


def _as_grey(layout: Directory, channels: int, bits: int) -> Directory:
    order = layout.order
    changed = {
        c.WIDTH: c.numbers(order, c.WIDTH, channels * layout.first(c.WIDTH, 0)),
        c.BITS: c.numbers(order, c.BITS, bits, kind=3),
        c.PHOTOMETRIC: c.numbers(order, c.PHOTOMETRIC, 1, kind=3),
        c.SAMPLES: c.numbers(order, c.SAMPLES, 1, kind=3),
        c.PREDICTOR: c.numbers(order, c.PREDICTOR, 1, kind=3),
    }
    if layout.first(c.TILE_WIDTH, 0):
        changed[c.TILE_WIDTH] = c.numbers(order, c.TILE_WIDTH, channels * layout.first(c.TILE_WIDTH, 0))
    left = (*changed, c.EXTRA_SAMPLES, c.SAMPLE_FORMAT)
    return layout._replace(entries=(*(e for e in layout.entries if e.tag not in left), *changed.values()))


def _unfolded(image: PillowImage.Image, directory: Directory, channels: int, predictor: int) -> Samples:
    """The channels of a picture that was read as grey."""
    flat = np.asarray(image)
    if flat.dtype not in (np.uint8, np.dtype("<u2"), np.dtype(">u2")) or predictor not in (1, 2):
        raise ValueError("a TIFF of an unknown layout")
    samples: Any = flat.astype(np.uint8 if flat.itemsize == 1 else np.uint16)
    samples = samples.reshape(flat.shape[0], -1, channels)
    if predictor == 2:  # values are differences from the pixel before, in each tile
        across = directory.first(c.TILE_WIDTH, 0) or samples.shape[1]
        for left in range(0, samples.shape[1], across):
            tile = samples[:, left : left + across]
            np.cumsum(tile, axis=1, dtype=samples.dtype, out=tile)
    top = np.iinfo(samples.dtype).max
    if directory.first(c.PHOTOMETRIC, 1) == 0:  # 0 is white
        samples[..., 0] = top - samples[..., 0]
    if channels in (2, 4) and directory.first(c.EXTRA_SAMPLES, 2) == 1:  # colours are multiplied by alpha
        alpha = np.maximum(samples[..., -1:], 1).astype(np.float64)
        samples[..., :-1] = np.rint(np.minimum(samples[..., :-1] / alpha, 1) * top).astype(samples.dtype)
    return samples


# --- writing ---


def _samples(photograph: Photograph, pixels: Pixels, kind: Kind) -> Samples:
    """The channels that a file of this kind holds, upright."""
    samples: Any = pixels
    alpha: Any = photograph.alpha
    if photograph.is_grey:
        total = pixels.sum(axis=2, dtype=np.int64)
        samples = ((2 * total + 3) // 6).astype(pixels.dtype)[..., None]
    if kind == "jpg" and alpha is not None:
        if alpha.min(initial=255) < np.iinfo(alpha.dtype).max:
            raise DataError(
                f"{photograph.source}: has transparent pixels, which a jpg cannot hold; choose png, webp, tiff or bmp"
            )
        alpha = None
    if samples.shape[2] == 1 and (kind == "webp" or (kind == "bmp" and alpha is not None)):  # which have no such grey
        samples = np.repeat(samples, 3, axis=2)
    if alpha is not None:
        samples = np.concatenate([samples, alpha[..., None]], axis=2)
    if samples.dtype == np.uint16 and kind in ("jpg", "webp", "bmp"):
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return samples


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
        options.update(subsampling=coding.subsampling, progressive=coding.progressive)
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
    parts = [(b"ICCP", _fitting(about.icc, False)), (b"EXIF", about.exif), (b"XMP ", about.xmp)]
    height, width, channels = samples.shape
    return c.webp_with(encoded, (width, height), channels == 4, [part for part in parts if part[1]])


def _encode_tiff(photograph: Photograph, samples: Samples, quality: int | None) -> bytes:
    about = photograph.metadata
    if photograph.kind == "tiff":
        directory = c.read_directory(about.parts[0]) or Directory("<", ())
        return c.encode_tiff(samples, directory)
    directory = (c.read_directory(about.exif) or Directory("<", ())).about((c.XMP, c.ICC, c.IPTC, c.PHOTOSHOP))
    order, entries = directory.order, list(directory.entries)
    if about.xmp:
        entries.append(c.Entry(c.XMP, 1, len(about.xmp), about.xmp))
    if about.icc:
        entries.append(c.Entry(c.ICC, 7, len(about.icc), about.icc))
    if about.density is not None and not any(entry.tag == c.X_RESOLUTION for entry in entries):
        for tag, side in zip((c.X_RESOLUTION, c.Y_RESOLUTION), about.density, strict=True):
            entries.append(c.rational(order, tag, min(side / _METRE, 400_000)))
        entries = [entry for entry in entries if entry.tag != c.RESOLUTION_UNIT]
        entries.append(c.numbers(order, c.RESOLUTION_UNIT, 2, kind=3))
    return c.encode_tiff(samples, Directory(order, tuple(entries)))


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
