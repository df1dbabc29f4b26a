"""Reading and writing single images: every image of the package passes through here.

All become (H, W, 3) uint8 RGB. On purpose: grey images are repeated over three channels, 16-bit images keep their
upper 8 bits, an alpha channel that hides nothing is dropped and one that does is refused, and a camera's orientation
tag is followed (rain falls downwards). A file that ends too early is refused, not filled with grey.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from ..errors import DataError
from ..files import write_whole

RGB: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8, 0-255."""

Rounding: TypeAlias = Literal["round", "floor"]
"""How values become 8 bits; published figures of some derainers are of results that were rounded down."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I")
_ORIENTATION = 0x0112
_TURNS = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    """What an image file says of itself, without being decoded; the size is that after orientation."""

    height: int
    width: int
    mode: str


def _open(data: bytes | Path, where: object) -> PillowImage.Image:
    try:
        return PillowImage.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_FORMATS)
    except FileNotFoundError:
        raise DataError(f"{where}: no such file") from None
    except PillowImage.DecompressionBombError:
        raise DataError(f"{where}: declares more pixels than {2 * (PillowImage.MAX_IMAGE_PIXELS or 0):,}") from None
    except (OSError, ValueError, SyntaxError):
        raise DataError(
            f"{where}: not an image this package reads ({', '.join(_FORMATS)}), or damaged; replace or remove it"
        ) from None


def read_header(data: bytes | Path, where: object | None = None) -> Header:
    """Size and mode of an image, from the first bytes of its file.

    Raises:
        DataError: It is missing or not an image; ``where`` (the path by default) names it.
    """
    with _open(data, where or data) as image:
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
        DataError: It is missing, not an image, ends too early, or has transparent pixels.
    """
    where = where or data
    with _open(data, where) as opened:
        turn = _TURNS.get(_orientation(opened))
        try:
            opened.load()
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{where}: damaged image ({error}); replace or remove it") from None
        image = opened.copy() if turn is None else opened.transpose(turn)
    if image.mode in _DEEP_GREY:
        grey = np.asarray(image).astype(np.int64)
        if grey.min(initial=0) < 0 or grey.max(initial=0) > 65535:
            raise DataError(f"{where}: has values beyond 16 bits; convert it to 8 or 16 bits first")
        grey = (grey >> 8 if image.mode != "I" or grey.max(initial=0) > 255 else grey).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{where}: holds floating-point values of unknown range; convert it to 8 or 16 bits first")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise DataError(f"{where}: has transparent pixels; flatten it onto a background first")
    return np.ascontiguousarray(image.convert("RGB"))


def planes(image: RGB) -> Tensor:
    """(H, W, 3) uint8 to a (3, H, W) uint8 tensor, always a copy."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def to_tensor(image: RGB) -> Tensor:
    """(H, W, 3) uint8 to a (3, H, W) float32 tensor in [0, 1]."""
    return planes(image).float().div_(255)


def to_image(tensor: Tensor, rounding: Rounding = "round") -> RGB:
    """A (3, H, W) tensor in [0, 1] to (H, W, 3) uint8: clamped, then rounded to the nearest or (``floor``) down."""
    levels = tensor.detach().float().clamp(0, 1).mul(255)
    # What came from 8 bits must come back the same: 255 * (n / 255) may lie a hair below n.
    levels = levels.add(1e-4).floor() if rounding == "floor" else levels.round()
    return levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def encode_png(image: RGB) -> bytes:
    """The image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def write_image(path: Path, image: RGB) -> None:
    """Write a PNG; its folder is made if need be."""
    write_whole(path, encode_png(image))
