"""BasicSR's view of the metrics: BGR in, and the protocol by its name."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.images import RGB
from ..metrics.protocols import psnr, ssim


def derain_psnr(img: RGB, img2: RGB, protocol: str = "matlab_y") -> float:
    """PSNR in dB under a named protocol: matlab_y, matlab_y_uint8, basicsr_y, opencv_y or rgb."""
    return psnr(_rgb(img), _rgb(img2), protocol)


def derain_ssim(img: RGB, img2: RGB, protocol: str = "matlab_y") -> float:
    """SSIM under a named protocol: matlab_y, matlab_y_uint8, basicsr_y, opencv_y or rgb."""
    return ssim(_rgb(img), _rgb(img2), protocol)


def _rgb(image: Any) -> RGB:
    """BasicSR hands images over as (H, W, 3) uint8 BGR."""
    return np.ascontiguousarray(image[..., ::-1])
