"""The channels of a picture as its file holds them: (H, W, C) of grey, grey and alpha, RGB, or RGB and alpha."""

from __future__ import annotations

import io
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ..errors import DataError

Samples: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W, C) uint8 or uint16 as they lie in a file: grey, grey and alpha, RGB, or RGBA."""

_BACK = {6: 8, 8: 6}
"""The orientations that another one undoes; all others undo themselves."""


def upright(samples: Samples, orientation: int) -> Samples:
    """Pixels that lie as EXIF's ``orientation`` says, 1 to 8, upright."""
    turned: Any = samples
    if orientation in (5, 6, 7, 8):
        turned = turned.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def turned_back(samples: Samples, orientation: int) -> Samples:
    """What `upright` has turned, as it lay."""
    return upright(samples, _BACK.get(orientation, orientation))


def fitting(icc: bytes, is_grey: bool) -> bytes:
    """A colour profile if it is one of grey or RGB, whichever the channels are; else nothing."""
    return icc if icc[16:20] == (b"GRAY" if is_grey else b"RGB ") else b""


def plain(image: PillowImage.Image, icc: bytes, where: object) -> Samples:
    """The channels of a decoded image of 8 bits and any mode; inks become RGB, through the profile ``icc`` if sound.

    Raises:
        DataError: It holds values of other than 8 bits, or colours that are no RGB.
    """
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise DataError(f"{where}: holds values of other than 8 or 16 bits; convert it to 8 or 16 bits first")
    if image.mode == "LAB":
        raise DataError(f"{where}: holds colours that are no RGB (Lab); convert it to RGB first")
    if image.mode == "CMYK":
        image = _rgb_of_inks(image, icc)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    samples = np.asarray(image)
    return samples.reshape(*samples.shape[:2], -1)


def _rgb_of_inks(image: PillowImage.Image, icc: bytes) -> PillowImage.Image:
    if icc[16:20] == b"CMYK":
        from PIL import ImageCms

        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            found = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if found is not None:
                return found
        except (ImageCms.PyCMSError, OSError):  # a damaged profile
            pass
    return image.convert("RGB")


def with_key(samples: Samples, key: bytes, bits: int) -> Samples:
    """With alpha for the one colour that is transparent, as a PNG of so many bits names it."""
    if len(key) != 2 * samples.shape[2]:
        return samples
    wanted = np.frombuffer(key, ">u2").astype(np.int64) & ((1 << bits) - 1)
    if bits < 8:
        wanted = wanted * (255 // ((1 << bits) - 1))
    is_key = (samples == wanted).all(axis=2, keepdims=True)
    alpha = np.where(is_key, 0, np.iinfo(samples.dtype).max).astype(samples.dtype)
    return np.concatenate([samples, alpha], axis=2)


def divided_by_alpha(samples: Samples) -> Samples:
    """Colours that are multiplied by alpha, the last channel, as they were before."""
    colours: Any = samples[..., :-1]
    top = np.iinfo(samples.dtype).max
    alpha = np.maximum(samples[..., -1:], 1)
    whole = (colours.astype(np.uint64) * top + alpha // 2) // alpha
    return np.concatenate([np.minimum(whole, top).astype(samples.dtype), samples[..., -1:]], axis=2)


def mean_grey(pixels: Any) -> Samples:
    """(H, W, 3) to (H, W, 1): the mean of the three, rounded; where they are equal, that value."""
    return ((2 * pixels.sum(axis=2, dtype=np.int64, keepdims=True) + 3) // 6).astype(pixels.dtype)


def to_8_bits(samples: Any) -> NDArray[np.uint8]:
    """16 bits rounded to 8; 8 bits as they are."""
    if samples.dtype == np.uint8:
        return samples
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
