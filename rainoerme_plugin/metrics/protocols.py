"""PSNR and SSIM under the protocols of the deraining literature, each by its name.

The same two images differ by 1.32 dB between the two luminances in use, so a figure says nothing without its protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import RGB

Planes = NDArray[np.float64]
"""The planes that a protocol compares, (H, W, P) in 0 to 255."""

PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
# MATLAB's rgb2ycbcr (ITU-R BT.601), in thousandths.
_LUMA = np.array([65481, 128553, 24966])


def _matlab_y(image: RGB) -> Planes:
    return (16 + image.astype(np.int64) @ _LUMA / 255_000)[..., None]


def _matlab_y_uint8(image: RGB) -> Planes:
    # In integers: MATLAB rounds half away from zero, and some colours' luminance is a half exactly.
    return np.asarray(16 + (image.astype(np.int64) @ _LUMA + 127_500) // 255_000, np.float64)[..., None]


def _opencv_y(image: RGB) -> Planes:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., :1], np.float64)


def _rgb(image: RGB) -> Planes:
    return image.astype(np.float64)


def _wang_2003(first: Planes, second: Planes) -> float:
    """SSIM of Wang et al.: 11x11 Gaussian window, sigma 1.5, where it fits; the mean over planes."""
    kernel = cv2.getGaussianKernel(11, 1.5)

    def mean(plane: Planes) -> Planes:
        return np.asarray(cv2.sepFilter2D(plane, -1, kernel, kernel), np.float64)[5:-5, 5:-5]

    return _ssim(first, second, mean, 1.0)


def _wang_2009(first: Planes, second: Planes) -> float:
    """The same after the 2009 script's box filter and subsampling by max(1, round(min(H, W) / 256))."""
    factor = max(1, int(np.floor(min(first.shape[:2]) / 256 + 0.5)))
    if factor > 1:
        first, second = (_subsample(planes, factor) for planes in (first, second))
    return _wang_2003(first, second)


def _subsample(planes: Planes, factor: int) -> Planes:
    # MATLAB's imfilter: symmetric border, and the centre of an even window is the element before its middle.
    anchor = ((factor - 1) // 2,) * 2
    smooth = np.asarray(cv2.blur(planes, (factor, factor), anchor=anchor, borderType=cv2.BORDER_REFLECT), np.float64)
    return smooth.reshape(planes.shape)[::factor, ::factor]


def _scikit_image(first: Planes, second: Planes) -> float:
    """scikit-image's default SSIM: 7x7 uniform window, sample covariance, where the window fits."""
    count = 7 * 7

    def mean(plane: Planes) -> Planes:
        return np.asarray(cv2.blur(plane, (7, 7)), np.float64)[3:-3, 3:-3]

    return _ssim(first, second, mean, count / (count - 1))


def _ssim(first: Planes, second: Planes, mean: Callable[[Planes], Planes], correction: float) -> float:
    values = []
    for x, y in zip(np.moveaxis(first, 2, 0), np.moveaxis(second, 2, 0), strict=True):
        mean_x, mean_y = mean(x), mean(y)
        variance_x = correction * (mean(x * x) - mean_x**2)
        variance_y = correction * (mean(y * y) - mean_y**2)
        covariance = correction * (mean(x * y) - mean_x * mean_y)
        numerator = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
        denominator = (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
        values.append(float(np.mean(numerator / denominator)))
    return float(np.mean(values))


@dataclass(frozen=True)
class Protocol:
    """What of an image is compared, and how its SSIM is computed."""

    planes: Callable[[RGB], Planes]
    similarity: Callable[[Planes, Planes], float]
    minimum: int
    """The smallest height and width that its SSIM takes."""
    description: str


PROTOCOLS: MappingProxyType[str, Protocol] = MappingProxyType(
    {
        "matlab_y": Protocol(
            _matlab_y, _wang_2009, 11, "MATLAB luminance, unrounded, 16 to 235; SSIM of 2009 with subsampling"
        ),
        "matlab_y_uint8": Protocol(_matlab_y_uint8, _wang_2003, 11, "MATLAB luminance, rounded; SSIM of 2003"),
        "basicsr_y": Protocol(_matlab_y, _wang_2003, 11, "BasicSR's test_y_channel: as matlab_y, SSIM of 2003"),
        "opencv_y": Protocol(_opencv_y, _scikit_image, 7, "OpenCV luminance, rounded, 0 to 255; scikit-image's SSIM"),
        "rgb": Protocol(_rgb, _wang_2003, 11, "RGB; SSIM of 2003, mean of the channels"),
    }
)
"""By name; who uses which stands in docs/benchmarks.md."""


def psnr(image: RGB, reference: RGB, protocol: str = "matlab_y") -> float:
    """Peak signal-to-noise ratio in dB, peak 255, over whole images; infinite for equal ones.

    Args:
        image: (H, W, 3) uint8, RGB.
        reference: What it is compared with, of the same shape.
        protocol: A name in `PROTOCOLS`.

    Raises:
        ValueError: The images are not uint8 RGB of one size, or there is no such protocol.
    """
    return _psnr(*_planes(image, reference, protocol))


def ssim(image: RGB, reference: RGB, protocol: str = "matlab_y") -> float:
    """Structural similarity, at most 1, over whole images.

    Args:
        image: (H, W, 3) uint8, RGB.
        reference: What it is compared with, of the same shape.
        protocol: A name in `PROTOCOLS`.

    Raises:
        ValueError: The images are not uint8 RGB of one size, or smaller than the window, or there is no such protocol.
    """
    return _similarity(*_planes(image, reference, protocol), protocol)


def scores(image: RGB, reference: RGB, protocols: Sequence[str] = tuple(PROTOCOLS)) -> dict[str, float]:
    """PSNR and SSIM under several protocols at once: ``psnr_NAME`` and ``ssim_NAME`` of each, in their order.

    The same values as of `psnr` and `ssim`, in less time: what protocols have in common is computed once.

    Raises:
        ValueError: As of `ssim`.
    """
    found: dict[str, float] = {}
    planes: dict[object, tuple[Planes, Planes]] = {}
    for name in protocols:
        key = PROTOCOLS[name].planes if name in PROTOCOLS else None
        if key not in planes:
            planes[key] = _planes(image, reference, name)
        found[f"psnr_{name}"] = _psnr(*planes[key])
        found[f"ssim_{name}"] = _similarity(*planes[key], name)
    return found


def _psnr(first: Planes, second: Planes) -> float:
    error = float(np.mean((first - second) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def _similarity(first: Planes, second: Planes, protocol: str) -> float:
    chosen = PROTOCOLS[protocol]
    height, width = first.shape[:2]
    if min(height, width) < chosen.minimum:
        raise ValueError(f"SSIM under {protocol} needs at least {chosen.minimum} pixels each way, got {width}x{height}")
    return chosen.similarity(first, second)


def _planes(image: RGB, reference: RGB, protocol: str) -> tuple[Planes, Planes]:
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol '{protocol}'; there are {', '.join(PROTOCOLS)}")
    for given in (image, reference):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or given.size == 0:
            raise ValueError(f"expected (H, W, 3) uint8, got {given.shape} {given.dtype}")
    if image.shape != reference.shape:
        raise ValueError(f"the images differ in size: {image.shape[:2]} and {reference.shape[:2]}")
    planes = PROTOCOLS[protocol].planes
    return planes(image), planes(reference)
