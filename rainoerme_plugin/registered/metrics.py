"""The metrics of option files: functions that take BGR and the protocol by its name, and means over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


class Figures(NamedTuple):
    """By metric: of a derained image, and of the rainy one, none where they are known; or means of both."""

    derained: dict[str, float]
    rainy: dict[str, float]


def score(image: RGB, clean: RGB, metrics: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """An image's figures by BasicSR's metrics."""
    from basicsr.metrics import calculate_metric

    # They take BGR.
    data = {"img": image[..., ::-1], "img2": clean[..., ::-1]}
    return {name: float(calculate_metric(data, options)) for name, options in metrics.items()}


def mean(figures: Sequence[Figures]) -> Figures | None:
    """The means of figures, None of none; sums run in their order, whoever has found them."""

    def over(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
        totals = dict.fromkeys(values[0], 0.0)
        for each in values:
            for name, value in each.items():
                totals[name] += value
        return {name: total / len(values) for name, total in totals.items()}

    if not figures:
        return None
    return Figures(over([each.derained for each in figures]), over([each.rainy for each in figures]))
