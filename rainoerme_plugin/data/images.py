"""Reading and writing single images: every image of the package passes through here.

All become (H, W, 3) uint8 RGB. On purpose: grey images are repeated over three channels, 16-bit images keep their
upper 8 bits, an alpha channel that hides nothing is dropped and one that does is refused, and a camera's orientation
tag is followed (rain falls downwards). A file that ends too early is refused, not filled with grey.

Whatever a file holds, it is an image or a `DataError` that names it: Pillow's plugins raise what comes up in them.
"""

from __future__ import annotations

import base64
import io
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from ..errors import DataError
from ..files import write_whole
from . import containers as c
from .channels import upright
from .whole import load_whole

RGB: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8, 0-255."""

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W, 3) uint8 or uint16, 0 to `levels`."""

Rounding: TypeAlias = Literal["round", "floor"]
"""How values become 8 bits; published figures of some derainers are of results that were rounded down."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAX_PIXELS = 200_000_000
"""A file that declares more is refused before it is decoded: larger than any camera's images, and a file of some bytes
may declare more than fits into any memory. Pillow's limits for all who use it are another matter, but for WebP."""
MAX_BYTES = 8 * MAX_PIXELS + (64 << 20)
"""A file that is longer is refused unread: so much take `MAX_PIXELS` of 16-bit RGBA without compression."""
MAX_SCANS = 50
"""Times that a JPEG may go over its pixels, usually ten at most; each takes time and hardly a byte."""
_KINDS: tuple[tuple[str, re.Pattern[bytes], Callable[[BinaryIO], ImageFile]], ...] = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    ("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    ("BMP", re.compile(rb"BM"), BmpImageFile),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
)
_FORMATS = ", ".join(kind for kind, *_ in _KINDS)
_OTHERS = (
    ("a HEIC photograph", re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL)),
    ("an AVIF picture", re.compile(rb"....ftypavi", re.DOTALL)),
    ("a JPEG XL picture", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("a JPEG 2000 picture", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("a GIF", re.compile(rb"GIF8[79]a")),
    ("a Photoshop file", re.compile(rb"8BPS")),
)
"""What people take for one of these, and phones save under their names."""
_SMALLER = "scale it down, or cut it into parts"
_DEEP_GREY = ("I;16", "I;16B", "I;16L")
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
"""Tags of TIFF, and of EXIF."""


class Header(NamedTuple):
    """What an image file says of itself, without being decoded; the size is that after orientation."""

    height: int
    width: int
    mode: str


def open_file(path: Path, where: object | None = None) -> BinaryIO:
    """A file opened to be read as an image: a regular one, for a pipe or a device might never end.

    Raises:
        DataError: It is missing, something else than a file, too long, or cannot be opened; ``where`` (the path by
            default) names it.
    """
    where = where or path
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{where}: cannot be read (a directory, pipe or device, not a file)")
        if about.st_size > MAX_BYTES:
            raise DataError(f"{where}: {about.st_size:,} bytes long, more than the {MAX_BYTES:,} that are read")
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{where}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise DataError(f"{where}: cannot be read ({_reason(error)})") from None


def read_file(path: Path, where: object | None = None) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: It cannot be read (`open_file`).
    """
    with open_file(path, where) as file:
        try:
            return file.read()
        except (OSError, MemoryError) as error:
            raise DataError(f"{where or path}: cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """What went wrong, on one line; some of Python's own errors say nothing."""
    if isinstance(error, MemoryError):
        return "too little memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def open_image(file: BinaryIO, where: object) -> ImageFile:
    """The image in a file, before its pixels are decoded."""
    start = file.read(16)
    file.seek(0)
    opener = next((opener for _, signature, opener in _KINDS if signature.match(start)), None)
    try:
        # Not PIL.Image.open, which warns of large images, and refuses them by a limit that anyone may have set.
        image = None if opener is None else opener(file)
    except PillowImage.DecompressionBombError as error:
        raise DataError(f"{where}: declares too many pixels ({_reason(error)}); {_SMALLER}") from None
    except MemoryError:
        raise DataError(f"{where}: too little memory to read it; {_SMALLER}") from None
    except Exception:  # whatever came up
        image = None
    if image is None:
        other = next((name for name, signature in _OTHERS if signature.match(start)), None)
        if other is not None:
            raise DataError(f"{where}: {other}, whatever its name says, which is not read; convert it to JPEG or PNG")
        raise DataError(f"{where}: not an image this package reads ({_FORMATS}), or damaged; replace or remove it")
    check_size(image.width, image.height, where)
    return image


def check_size(width: int, height: int, where: object) -> None:
    """Refuse more than `MAX_PIXELS`, before they are decoded.

    Raises:
        DataError: There are more.
    """
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{where}: declares {width}x{height} pixels, more than the {MAX_PIXELS:,} that are read; {_SMALLER}"
        )


def read_header(data: bytes | Path, where: object | None = None) -> Header:
    """Size and mode of an image, from the first bytes of its file.

    Raises:
        DataError: It is missing, not an image, or declares more than `MAX_PIXELS`; ``where`` (the path by default)
            names it.
    """
    where = where or data
    with io.BytesIO(data) if isinstance(data, bytes) else open_file(data, where) as file:
        image = open_image(file, where)
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        return Header(height, width, image.mode)


def _orientation(image: PillowImage.Image) -> int:
    """The orientation in the EXIF block before the pixels: getexif() would decode a whole PNG to look behind them."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    exif = PillowImage.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # a damaged block tells nothing, and the pixels are another matter
        return 1


def decode_image(data: bytes | Path, where: object | None = None) -> RGB:
    """The image as (H, W, 3) uint8 RGB; see the module for what becomes of other kinds.

    Raises:
        DataError: It is missing, not an image, ends too early, has transparent pixels, or declares more than
            `MAX_PIXELS`.
    """
    where = where or data
    encoded = data if isinstance(data, bytes) else read_file(data, where)
    with io.BytesIO(encoded) as file:
        image = open_image(file, where)
        with decoding(image, encoded, where):
            orientation = _orientation(image)
            return upright(_to_rgb(image, encoded, where), orientation)  # type: ignore[return-value]


@contextmanager
def decoding(image: ImageFile | None, encoded: bytes, where: object) -> Iterator[None]:
    """Whatever comes up while ``image`` is decoded becomes a `DataError`; a JPEG of too many scans is not begun.

    Raises:
        DataError: It came up.
    """
    if isinstance(image, JpegImageFile) and _count_scans(encoded) > MAX_SCANS:
        raise DataError(
            f"{where}: a JPEG that goes more than {MAX_SCANS} times over its pixels; replace it, or save it anew"
        )
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{where}: too little memory to decode it; {_SMALLER}") from None
    except Exception as error:  # whatever came up
        raise DataError(f"{where}: damaged image ({_reason(error)}); replace or remove it") from None


def _count_scans(encoded: bytes) -> int:
    """How often a JPEG goes over its pixels; at least `MAX_SCANS` times if more than that may be found at all."""
    if encoded.count(bytes((0xFF, c.SCAN))) <= MAX_SCANS:
        return 0
    # Previews in the metadata, and films behind the end, hold the same two bytes.
    return sum(marker == c.SCAN for marker, *_ in c.jpeg_marks(encoded))


def _to_rgb(file: ImageFile, encoded: bytes, where: object) -> RGB:
    load_whole(file, encoded)
    image: PillowImage.Image = file
    # A scale follows from what the file says, never from the values that it happens to hold: a data set has one.
    if (unknown := _unknown_scale(file)) is not None:
        raise DataError(f"{where}: holds {unknown}; convert it to 8 or 16 bits first")
    if image.mode in _DEEP_GREY:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:  # 0 is white
            grey = 255 - grey
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise DataError(f"{where}: has transparent pixels; flatten it onto a background first")
    return np.ascontiguousarray(image if image.mode == "RGB" else image.convert("RGB"))


def _unknown_scale(image: ImageFile) -> str | None:
    """What an image's values are, if its file does not say where black and white are."""
    if image.mode == "F":
        return "floating-point values of unknown range"
    tags: Any = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    bits = max(tags.get(_BITS, (1,)))
    if bits > 16:
        return f"whole numbers of {bits} bits, made for values beyond 16 bits and of unknown range"
    if not set(tags.get(_SAMPLE_FORMAT, (1,))) <= {1, 4}:  # without a sign, or unsaid
        return "whole numbers with a sign"
    return f"whole numbers of {bits} bits" if bits not in (1, 2, 4, 8, 16) else None


def planes(image: Pixels) -> Tensor:
    """(H, W, 3) uint8 or uint16 to a (3, H, W) tensor of that dtype, always a copy."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def to_tensor(image: Pixels) -> Tensor:
    """(H, W, 3) uint8 or uint16 to a (3, H, W) float32 tensor in [0, 1]."""
    return planes(image).float().div_(levels(image.dtype))


def to_image(tensor: Tensor, rounding: Rounding = "round") -> RGB:
    """A (3, H, W) tensor in [0, 1] to (H, W, 3) uint8: clamped, then rounded to the nearest or (``floor``) down."""
    return to_pixels(tensor, np.dtype(np.uint8), rounding)  # type: ignore[return-value]


def to_pixels(tensor: Tensor, dtype: np.dtype[Any], rounding: Rounding = "round") -> Pixels:
    """As `to_image`, to uint8 or uint16."""
    values = tensor.detach().float().clamp(0, 1).mul(levels(dtype))
    # What came from 8 bits must come back the same: 255 * (n / 255) may lie a hair below n. (With 16, a bit more.)
    hair = 1e-4 if dtype == np.uint8 else 1e-2
    values = values.add(hair).floor() if rounding == "floor" else values.round()
    # Not every device has 16 bits without a sign.
    whole = values.to(torch.uint8 if dtype == np.uint8 else torch.int32)
    return whole.permute(1, 2, 0).cpu().numpy().astype(dtype, copy=False)


def levels(dtype: np.dtype[Any]) -> int:
    """The largest value of a pixel: 255 or 65535."""
    return int(np.iinfo(dtype).max)


def encode_png(image: RGB) -> bytes:
    """The image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def encode_jpeg(image: RGB, quality: int = 95) -> bytes:
    """The image as the bytes of a JPEG file, without subsampled colours."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def jpeg_uri(image: RGB, quality: int) -> str:
    """`encode_jpeg` as an address that holds the picture itself, for pages that need no other file."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image, quality)).decode()}"


def write_image(path: Path, image: RGB) -> None:
    """Write a PNG; its folder is made if need be."""
    write_whole(path, encode_png(image))


def as_floats(images: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Images (B, 3, H, W), uint8 or float, as networks take them: float32 in [0, 1], in that memory format."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    return images.contiguous(memory_format=layout)
