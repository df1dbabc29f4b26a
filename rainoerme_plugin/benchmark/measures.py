"""What is measured of a derained image: full-reference figures by protocol, and figures without ground truth."""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from ..data.images import RGB, to_tensor
from ..errors import OptionError, one_line
from ..metrics.protocols import PROTOCOLS, psnr, scores, ssim
from ..metrics.rain_energy import rain_removed, structure_kept
from ..provenance import code_of

Better: TypeAlias = Literal["higher", "lower"]
INSTALL = "pip install 'torchmetrics>=1.7'"
_NIQE_BLOCK = 96
# Neither torchmetrics' objects nor the filters of `warnings` are for several threads.
_lock = threading.Lock()


@dataclass(frozen=True)
class Measure:
    """One column of the table."""

    name: str
    title: str
    better: Better
    digits: int
    about: str
    needs_clean: bool = False
    protocol: str | None = None
    """Of PSNR and SSIM."""
    ranks: bool = True
    """Whether the best value is a method's merit: the opening removes all rain, and the input keeps all structure."""


@dataclass(frozen=True)
class Extra:
    """A measure beside PSNR and SSIM; what computes it takes the derained image and the one it is compared with."""

    measure: Measure
    compute: Callable[[RGB, RGB], float]
    package: str | None = None
    """What has to be installed for it."""


def niqe(image: RGB, _: RGB | None = None) -> float:
    """BasicSR's NIQE of the luminance, no border cut: how far an image's statistics are from those of good photographs.

    Raises:
        ValueError: The image does not hold two blocks of 96x96 pixels that are not flat.
    """
    from basicsr.metrics.niqe import calculate_niqe

    height, width = image.shape[:2]
    if (height // _NIQE_BLOCK) * (width // _NIQE_BLOCK) < 2:
        raise ValueError(f"NIQE needs two blocks of {_NIQE_BLOCK}x{_NIQE_BLOCK} pixels, got {width}x{height}")
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means over flat blocks
        try:
            value = float(calculate_niqe(np.ascontiguousarray(image[..., ::-1]), 0, convert_to="y"))
        except np.linalg.LinAlgError:
            value = float("nan")
    if not np.isfinite(value):
        raise ValueError("NIQE is not defined for this image: too much of it is flat")
    return value


@dataclass(frozen=True)
class _Torchmetric:
    """What torchmetrics computes of two (1, 3, H, W) tensors."""

    target: str
    """``module:attribute`` in torchmetrics: a function, or the class of a network that is made once."""
    arguments: Mapping[str, Any]
    weights: str | None = None
    """Of the network, by torchvision's name; None for a function."""
    white: float = 1.0


_LPIPS = "image.lpip:LearnedPerceptualImagePatchSimilarity"
_TORCHMETRICS = {
    "lpips": _Torchmetric(_LPIPS, {"net_type": "alex", "normalize": True}, "AlexNet_Weights.DEFAULT"),
    "lpips_vgg": _Torchmetric(_LPIPS, {"net_type": "vgg", "normalize": True}, "VGG16_Weights.DEFAULT"),
    # Not torchmetrics' class for it, which would read the network's file again for every image.
    "dists": _Torchmetric("functional.image.dists:DISTSNetwork", {}, "VGG16_Weights.DEFAULT"),
    # VIF's noise has a variance of 2 on the scale of 0 to 255.
    "vif": _Torchmetric("functional.image.vif:visual_information_fidelity", {"sigma_n_sq": 2.0}, white=255.0),
}


@cache
def _torchmetric(name: str) -> Callable[..., Any]:
    """A metric of torchmetrics. Its network comes from PyTorch's hub, or its cache (TORCH_HOME), on first use."""
    metric = _TORCHMETRICS[name]
    module, _, attribute = metric.target.partition(":")
    try:
        found = getattr(importlib.import_module(f"torchmetrics.{module}"), attribute)
    except ImportError:
        raise OptionError(f"measures: {name} needs torchmetrics: {INSTALL}") from None
    if metric.weights is None:
        return partial(found, **metric.arguments)
    try:
        with _lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return found(**metric.arguments)
    except Exception as error:  # a download fails in many ways
        raise OptionError(
            f"measures: the network of {name} cannot be had ({one_line(error)}); it is downloaded on first use. "
            f"You can also put {_url(metric.weights)} into {torch.hub.get_dir()}/checkpoints yourself"
        ) from None


def _url(weights: str) -> str:
    from torchvision.models import get_weight

    return str(get_weight(weights).url)


def _by_torchmetrics(name: str) -> Callable[[RGB, RGB], float]:
    def compute(image: RGB, reference: RGB) -> float:
        if image.shape != reference.shape:
            raise ValueError(f"the images differ in size: {image.shape[:2]} and {reference.shape[:2]}")
        metric, white = _torchmetric(name), _TORCHMETRICS[name].white
        with _lock, torch.no_grad():
            return float(metric(to_tensor(image)[None] * white, to_tensor(reference)[None] * white))

    return compute


def _extra(
    name: str,
    title: str,
    better: Better,
    digits: int,
    compute: Callable[[RGB, RGB], float] | None,
    about: str,
    needs_clean: bool = False,
    ranks: bool = True,
) -> Extra:
    own = compute is not None
    measure = Measure(name, title, better, digits, about, needs_clean, ranks=ranks)
    return Extra(measure, compute or _by_torchmetrics(name), None if own else "torchmetrics")


EXTRAS: Mapping[str, Extra] = MappingProxyType(
    {
        extra.measure.name: extra
        for extra in (
            _extra("niqe", "NIQE", "lower", 3, niqe, "Natural image quality, no reference; BasicSR's, luminance"),
            _extra(
                "rain_removed",
                "rain removed",
                "higher",
                3,
                rain_removed,
                "Share of the rainy image's rain-like gradients that was taken out; says nothing without the next",
                ranks=False,
            ),
            _extra(
                "structure_kept",
                "structure kept",
                "higher",
                3,
                structure_kept,
                "How much of the rainy image's vertical gradients off the rain is as it was",
                ranks=False,
            ),
            _extra("lpips", "LPIPS", "lower", 4, None, "Learned perceptual distance, AlexNet; torchmetrics", True),
            _extra("lpips_vgg", "LPIPS VGG", "lower", 4, None, "The same with VGG-16", True),
            _extra("dists", "DISTS", "lower", 4, None, "Structure and texture distance; torchmetrics", True),
            _extra("vif", "VIF", "higher", 4, None, "Visual information fidelity; torchmetrics", True),
        )
    }
)


class Measures:
    """The measures of a benchmark, in the order of its table.

    Raises:
        OptionError: One needs a package or a network's weights that are not there.
    """

    def __init__(self, protocols: Sequence[str], extras: Sequence[str]) -> None:
        self.protocols = tuple(protocols)
        self.extras = [EXTRAS[name] for name in extras]
        for extra in self.extras:
            if extra.package is not None:
                _torchmetric(extra.measure.name)
        full: list[Measure] = []
        for name in protocols:
            about = PROTOCOLS[name].description
            full.append(Measure(f"psnr_{name}", f"PSNR {name}", "higher", 2, f"dB. {about}", True, name))
            full.append(Measure(f"ssim_{name}", f"SSIM {name}", "higher", 4, about, True, name))
        self.all: tuple[Measure, ...] = (*full, *(extra.measure for extra in self.extras))

    @property
    def code(self) -> str:
        """A digest of the code that takes them (`provenance`)."""
        return code_of(__name__, *(extra.package for extra in self.extras if extra.package is not None))

    def of(self, paired: bool) -> list[Measure]:
        """Those that can be taken of images with, or without, ground truth."""
        return [measure for measure in self.all if paired or not measure.needs_clean]

    def __call__(self, derained: RGB, rainy: RGB, clean: RGB | None) -> tuple[dict[str, float], dict[str, str]]:
        """All figures of one derained image; one that cannot be taken costs no other.

        Args:
            derained: (H, W, 3) uint8, RGB.
            rainy: What it was made from.
            clean: The ground truth, if there is one.

        Returns:
            The figures, and what went wrong with the others, both by the measures' names.
        """
        figures: dict[str, float] = {}
        problems: dict[str, str] = {}

        def take(name: str, figure: Callable[[], float]) -> None:
            try:
                figures[name] = figure()
            except Exception as error:  # metrics of others fail in ways of their own
                problems[name] = one_line(error)

        if clean is not None:
            try:
                figures.update(scores(derained, clean, self.protocols))
            except ValueError:  # which are they that fail?
                for name in self.protocols:
                    take(f"psnr_{name}", partial(psnr, derained, clean, name))
                    take(f"ssim_{name}", partial(ssim, derained, clean, name))
        for extra in self.extras:
            other = clean if extra.measure.needs_clean else rainy
            if other is not None:
                take(extra.measure.name, partial(extra.compute, derained, other))
        return figures, problems
