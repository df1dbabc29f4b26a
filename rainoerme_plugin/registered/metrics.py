"""The metrics of option files: functions that take BGR and the protocol by its name, and means over images."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..data.images import RGB
from ..errors import DataError, described
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


Metrics = Mapping[str, dict[str, Any]]
"""``val.metrics`` of an option file: by name, the ``type`` and the arguments."""


def possible_without(clean: bool, metrics: Metrics | None) -> Metrics:
    """Those that can be taken of images that have a ``clean`` version, or have none."""
    return {name: options for name, options in (metrics or {}).items() if clean or not _compares(options["type"])}


def _compares(name: str) -> bool:
    second = inspect.signature(_function(name)).parameters.get("img2")
    return second is not None and second.default is second.empty


def _function(name: str) -> Any:
    from basicsr.utils.registry import METRIC_REGISTRY

    return METRIC_REGISTRY.get(name)


def score(image: RGB, clean: RGB | None, metrics: Metrics) -> dict[str, float]:
    """An image's figures by BasicSR's metrics, beside its clean version or alone.

    Raises:
        DataError: One of them cannot be taken of this image.
    """
    found = possible_without(clean is not None, metrics)
    # They take BGR.
    data = {"img": image[..., ::-1]} if clean is None else {"img": image[..., ::-1], "img2": clean[..., ::-1]}
    return {name: _figure(name, options, data) for name, options in found.items()}


@contextmanager
def naming(image: object | None) -> Iterator[None]:
    """Say of which image no figure could be taken; None: that is not known."""
    try:
        yield
    except DataError as error:
        if image is None:
            raise
        raise DataError(f"{image}: {error}") from error


def _figure(name: str, options: Mapping[str, Any], data: Mapping[str, Any]) -> float:
    from basicsr.metrics import calculate_metric

    try:
        # ``better`` is for whoever compares figures; BasicSR's own metrics take any key.
        return float(calculate_metric(data, {key: value for key, value in options.items() if key != "better"}))
    except Exception as error:  # of any package
        height, width = data["img"].shape[:2]
        why = _too_small_for_niqe(options, height, width) or described(error)
        raise DataError(
            f"val.metrics.{name}: cannot be taken of an image of {width}x{height} pixels: {why}; leave the metric out "
            "of val.metrics, or such images out of the data set"
        ) from error


def _too_small_for_niqe(options: Mapping[str, Any], height: int, width: int) -> str:
    border, side = options.get("crop_border"), 96
    inside = [max(length - 2 * border, 0) if isinstance(border, int) else length for length in (height, width)]
    if options["type"] != "calculate_niqe" or (inside[0] // side) * (inside[1] // side) > 1:
        return ""
    return f"NIQE needs at least two blocks of {side}x{side} pixels within crop_border"


def try_first(sample: Mapping[str, Any], metrics: Metrics | None, dataset: str) -> tuple[Metrics, list[str]]:
    """What can be measured of a data set, by its first sample, before any network runs.

    The metrics are tried on noise of the clean image's size, which a network's result has as well.

    Args:
        sample: As BasicSR's data sets give it: ``gt`` is the clean image, if there is one.
        metrics: What is asked for.
        dataset: Its name, for what is told.

    Returns:
        The metrics that can be taken, and what is to be told of the others.

    Raises:
        DataError: A metric cannot be taken of images of this size.
    """
    clean = sample.get("gt")
    possible, told = possible_without(clean is not None, metrics), []
    if left := [name for name in metrics or {} if name not in possible]:
        told.append(f"{dataset} has no ground truth: {', '.join(left)} cannot be taken of it")
    if isinstance(clean, Tensor) and clean.ndim == 3:
        channels, *size = clean.shape
        noise = np.random.default_rng(0).integers(0, 256, (2, *size, channels), np.uint8)
        image, other = noise if channels > 1 else noise[..., 0]
        for name, options in possible.items():
            try:
                figure = _figure(name, options, {"img": image, "img2": other})
            except DataError as error:
                if _function(options["type"]).__module__.split(".")[0] in (__package__.split(".")[0], "basicsr"):
                    raise DataError(f"{dataset}: {error}") from error
                told.append(f"{dataset}: {error} (this was tried on noise)")  # others may need a real picture
            else:
                if math.isnan(figure):
                    told.append(
                        f"val.metrics.{name}: is no number (nan) for images of the first one's size in {dataset}"
                    )
    return possible, told


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
