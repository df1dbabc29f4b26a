"""Photographs with all that their files hold: what `basicsr derain` reads and gives back.

`data.images` reads for training: everything becomes 8-bit RGB. Here the file that is written differs from the one
that was read in nothing but the colours of its pixels: depth, transparency, orientation, metadata and quality stay.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms, JpegImagePlugin
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import DataError
from . import containers
from .containers import Exif
from .images import MAX_SCANS, Pixels, count_scans, open_image, orientation_of, read_file

Kind: TypeAlias = Literal["png", "jpg", "webp", "tiff", "bmp"]
Channels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W, C): 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""

_KINDS: dict[str | None, Kind] = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "TIFF": "tiff", "BMP": "bmp"}
_QUALITY = 95
_BACK = {6: 8, 8: 6}
"""The turns that another one undoes; all others undo themselves."""


@dataclass(frozen=True)
class Photograph:
    """One picture, upright, and what else its file holds."""

    pixels: Pixels
    """(H, W, 3) RGB, uint8 or uint16, upright: rain falls downwards."""
    kind: Kind
    """Of the file."""
    alpha: Channels | None = None
    """(H, W) of the pixels' dtype, upright."""
    is_grey: bool = False
    """Whether the file has one channel of colour."""
    orientation: int = 1
    """How the file's pixels lie, as EXIF counts."""
    exif: Exif | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    """The colour profile, if it is one for the channels that a file of this photograph has."""
    dpi: tuple[float, float] | None = None
    parts: tuple[bytes, ...] = ()
    """What a file of the same kind takes over as it is: PNG's chunks, JPEG's segments."""
    coding: dict[str, Any] = field(default_factory=dict)
    """How a file of the same kind is to be compressed, for Pillow."""


def read_photograph(path: Path) -> Photograph:
    """Read a picture with all that its file holds.

    Raises:
        DataError: It is missing, no image, damaged, too large, an animation or of several pages, or has pixels of
            another kind than 8 or 16 bits.
    """
    data = read_file(path)
    with io.BytesIO(data) as file:
        image = open_image(file, path)
        if isinstance(image, JpegImageFile) and count_scans(data) > MAX_SCANS:
            raise DataError(f"{path}: a JPEG that goes more than {MAX_SCANS} times over its pixels; save it anew")
        try:
            return _read(image, data, path)
        except DataError:
            raise
        except MemoryError:
            raise DataError(f"{path}: too little memory to decode it") from None
        except Exception as error:  # whatever came up in a decoder
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path}: damaged image ({reason}); replace or remove it") from None


def encode_photograph(
    photograph: Photograph, pixels: Pixels, kind: Kind | None = None, quality: int | None = None
) -> bytes:
    """The bytes of a file of a photograph with other pixels.

    Args:
        photograph: What was read.
        pixels: The derained version of its pixels, of their shape and dtype.
        kind: Of the file; None: that of the photograph's own.
        quality: Of JPEG and lossy WebP, 1 to 100. None: a JPEG of a JPEG is compressed as that was, a WebP of a
            lossless file is lossless, and others have 95.

    Raises:
        ValueError: The pixels are of another shape or dtype.
        DataError: That kind of file cannot hold it.
    """
    if (pixels.shape, pixels.dtype) != (photograph.pixels.shape, photograph.pixels.dtype):
        wanted = f"{photograph.pixels.shape} {photograph.pixels.dtype}"
        raise ValueError(f"the pixels must be {wanted}, got {pixels.shape} {pixels.dtype}")
    target = kind or photograph.kind
    channels = _channels(photograph, pixels, target)
    if target == "bmp":
        photograph = replace(photograph, orientation=1)  # which cannot say how it lies
    channels = np.ascontiguousarray(_turned(channels, _BACK.get(photograph.orientation, photograph.orientation)))
    try:
        return _ENCODERS[target](photograph, channels, target == photograph.kind, quality)
    except (ValueError, OSError, struct.error, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot be written as {target} ({reason}); try another --format") from None


# --- reading ---


def _read(image: ImageFile, data: bytes, path: Path) -> Photograph:
    kind = _KINDS[image.format]
    _check_single(image, path)
    tiff = image if isinstance(image, TiffImageFile) else None
    orientation = orientation_of(image) if tiff is None else int(tiff.tag_v2.get(containers.ORIENTATION, 1))
    orientation = orientation if orientation in range(1, 9) else 1
    exif, xmp, icc = _described(image)
    coding = _coding(image, data)
    bits = containers.png_depth(data) if kind == "png" else 8 if tiff is None else max(_bits(tiff))
    profile = icc
    if bits == 16:
        channels = _decode_deep(data, image, path)
    else:
        channels, profile = _decode(image, icc, path)
    if tiff is None or bits == 16:  # Pillow turns TIFFs by itself
        channels = _turned(channels, orientation)
    is_grey = channels.shape[2] < 3
    space = b"GRAY" if is_grey else b"RGB "
    icc = profile if profile is not None and profile[16:20] == space else None
    colours = channels[..., : 1 if is_grey else 3]
    dpi = image.info.get("dpi") if tiff is None or containers.X_RESOLUTION in tiff.tag_v2 else None
    parts: tuple[bytes, ...] = ()
    if kind == "png":
        parts = containers.png_parts(data)
    elif kind == "jpg":
        parts = containers.jpeg_parts(data, with_profile=icc is not None)
    return Photograph(
        pixels=np.ascontiguousarray(np.repeat(colours, 3, axis=2) if is_grey else colours),
        kind=kind,
        alpha=channels[..., -1].copy() if channels.shape[2] in (2, 4) else None,
        is_grey=is_grey,
        orientation=orientation,
        exif=exif,
        xmp=xmp,
        icc=icc,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else None,
        parts=parts,
        coding=coding,
    )


def _check_single(image: ImageFile, path: Path) -> None:
    if isinstance(image, TiffImageFile):
        pages = containers.count_pages(image)
        if pages > 1:
            raise DataError(f"{path}: holds {pages} pictures; split it into files of one each")
    elif getattr(image, "is_animated", False):
        raise DataError(f"{path}: an animation; make single pictures or a video of it")


def _bits(image: TiffImageFile) -> tuple[int, ...]:
    bits = image.tag_v2.get(258, (1,))
    return bits if isinstance(bits, tuple) else (bits,)


def _described(image: ImageFile) -> tuple[Exif | None, bytes | None, bytes | None]:
    """EXIF, XMP and colour profile of any kind of file."""
    if isinstance(image, TiffImageFile):
        exif = containers.exif_of_tiff(image)
        xmp, icc = image.tag_v2.get(700), image.tag_v2.get(34675)
    else:
        raw = image.info.get("exif")
        exif = Exif(raw.removeprefix(b"Exif\0\0")) if raw else None
        xmp, icc = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp"), image.info.get("icc_profile")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    return exif, xmp if isinstance(xmp, bytes) else None, icc if isinstance(icc, bytes) else None


def _coding(image: ImageFile, data: bytes) -> dict[str, Any]:
    if isinstance(image, JpegImageFile):
        if image.mode == "CMYK":
            return {}
        return {
            "qtables": dict(image.quantization),
            "subsampling": max(JpegImagePlugin.get_sampling(image), 0),
            "progressive": bool(image.info.get("progressive")),
        }
    if image.format == "WEBP":
        return {"lossless": b"VP8L" in containers.webp_chunks(data)}
    return {}


def _decode_deep(data: bytes, image: ImageFile, path: Path) -> Any:
    """16 bits a channel, which Pillow has for grey only."""
    if isinstance(image, TiffImageFile):
        if set(_bits(image)) != {16} or image.tag_v2.get(339, 1) not in (1, (1,) * len(_bits(image))):
            raise DataError(f"{path}: its channels are not of 8 or 16 bits; convert it first")
        if image.tag_v2.get(262) not in (1, 2):
            raise DataError(f"{path}: a TIFF of 16 bits that is neither grey nor RGB; convert it first")
    if isinstance(image, TiffImageFile):
        data = containers.without_orientation(data)  # OpenCV would turn some, whatever its flags say
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DataError(f"{path}: damaged image, or of a kind that is not read; replace or remove it")
    if decoded.dtype != np.uint16:
        raise DataError(f"{path}: its channels are not of 8 or 16 bits; convert it first")
    channels = decoded.reshape(*decoded.shape[:2], -1)
    if channels.shape[2] >= 3:
        channels = channels[..., [2, 1, 0, *range(3, channels.shape[2])]]
    if image.format == "PNG":
        channels = containers.with_key(channels, data)
    return channels


def _decode(image: ImageFile, icc: bytes | None, path: Path) -> tuple[Channels, bytes | None]:
    """8 bits a channel, and the profile that fits them."""
    if image.mode in ("F", "I", "I;16", "I;16B", "I;16L") or "LAB" in image.mode.upper():
        raise DataError(f"{path}: its channels are not of 8 or 16 bits, or no RGB; convert it first")
    image.load()
    plain: PillowImage.Image = image
    if image.mode == "CMYK":
        return np.asarray(_rgb_of_cmyk(image, icc)), None
    if image.has_transparency_data and image.mode not in ("LA", "RGBA"):
        plain = image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        plain = image.convert("L" if image.mode == "1" else "RGB")
    pixels = np.asarray(plain)
    return pixels.reshape(*pixels.shape[:2], -1), icc


def _rgb_of_cmyk(image: PillowImage.Image, icc: bytes | None) -> PillowImage.Image:
    if icc is not None and icc[16:20] == b"CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            found = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if found is not None:
                return found
        except ImageCms.PyCMSError:
            pass
    return image.convert("RGB")


def _turned(channels: Any, orientation: int) -> Any:
    """Pixels that lie as EXIF's ``orientation`` says, upright."""
    if orientation in (5, 7):
        channels = channels.swapaxes(0, 1)
    if orientation in (6, 8):
        return np.rot90(channels, -1 if orientation == 6 else 1)
    if orientation in (2, 3, 7):
        channels = channels[:, ::-1]
    if orientation in (3, 4, 7):
        channels = channels[::-1]
    return channels


# --- writing ---


def _channels(photograph: Photograph, pixels: Pixels, kind: Kind) -> Channels:
    """What a file of this kind holds of the pixels: grey or RGB, alpha, 8 or 16 bits; upright."""
    channels: Any = pixels
    if photograph.is_grey:
        channels = np.rint(pixels.mean(axis=2, keepdims=True)).astype(pixels.dtype)
    alpha = photograph.alpha
    if kind == "jpg" and alpha is not None:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            raise DataError("has transparent pixels, which a jpg cannot hold; png, webp, tiff and bmp can")
        alpha = None
    if alpha is not None:
        channels = np.concatenate([channels, alpha[..., None]], axis=2)
    if channels.dtype == np.uint16 and kind in ("jpg", "webp", "bmp"):
        channels = np.rint(channels / 257).astype(np.uint8)
    return channels


def _pillow(channels: Channels) -> PillowImage.Image:
    return PillowImage.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)


def _saved(channels: Channels, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    _pillow(channels).save(buffer, format=kind, **{key: value for key, value in options.items() if value is not None})
    return buffer.getvalue()


def _encode_png(photograph: Photograph, channels: Channels, same: bool, quality: int | None) -> bytes:
    encoded = containers.encode_png(channels)
    if same:
        return containers.png_with(encoded, photograph.parts)
    exif = photograph.exif.data if photograph.exif else None
    return containers.png_with(encoded, containers.png_metadata(exif, photograph.xmp, photograph.icc, photograph.dpi))


def _encode_jpeg(photograph: Photograph, channels: Channels, same: bool, quality: int | None) -> bytes:
    coding: dict[str, Any] = dict(photograph.coding) if same else {}
    if quality is not None or "qtables" not in coding:
        coding = {**coding, "quality": quality or _QUALITY, "qtables": None}
    coding.setdefault("subsampling", 0)
    if same:
        return containers.jpeg_with(_saved(channels, "JPEG", **coding), photograph.parts)
    exif = b"Exif\0\0" + photograph.exif.data if photograph.exif else None
    return _saved(
        channels, "JPEG", exif=exif, icc_profile=photograph.icc, xmp=photograph.xmp, dpi=photograph.dpi, **coding
    )


def _encode_webp(photograph: Photograph, channels: Any, same: bool, quality: int | None) -> bytes:
    lossless = photograph.coding["lossless"] if same else photograph.kind != "jpg"
    lossless = lossless and quality is None
    if channels.shape[2] < 3:  # WebP has no grey
        channels = np.concatenate([channels[..., :1]] * 3 + [channels[..., 1:]], axis=2)
    return _saved(
        channels,
        "WEBP",
        lossless=lossless,
        quality=80 if lossless else quality or _QUALITY,
        exact=True,
        exif=photograph.exif.data if photograph.exif else None,
        xmp=photograph.xmp,
        icc_profile=photograph.icc if not photograph.is_grey else None,
    )


def _encode_tiff(photograph: Photograph, channels: Channels, same: bool, quality: int | None) -> bytes:
    return containers.encode_tiff(channels, photograph.exif, photograph.xmp, photograph.icc, photograph.dpi)


def _encode_bmp(photograph: Photograph, channels: Any, same: bool, quality: int | None) -> bytes:
    if channels.shape[2] == 2:
        channels = np.concatenate([channels[..., :1]] * 3 + [channels[..., 1:]], axis=2)
    if channels.shape[2] == 4:
        return containers.encode_bmp_with_alpha(channels, photograph.dpi)
    return _saved(channels, "BMP", dpi=photograph.dpi)


_ENCODERS = {
    "png": _encode_png, "jpg": _encode_jpeg, "webp": _encode_webp, "tiff": _encode_tiff, "bmp": _encode_bmp
}  # fmt: skip
