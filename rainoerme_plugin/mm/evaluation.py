"""What mmengine's evaluators measure: derained images against clean ones, and the rainy ones beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..data.images import RGB, Rounding, to_image
from ..metrics.protocols import psnr, ssim
from ..processes import first_decides, gather
from ..registered.metrics import Figures, mean, naming, score


class _ImageMetric(BaseMetric):
    """Means of figures of whole images; those of the rainy images, which do not change, are found once."""

    def __init__(self, rounding: Rounding = "round", prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self._rounding: Rounding = rounding
        self._rainy: dict[str, float] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in data_samples:
            clean: Tensor | None = sample.get("clean")
            wanted = None if clean is None else to_image(clean)
            with naming(sample.get("path")):
                figures = self._figures(to_image(sample["derained"], self._rounding), wanted)
                rainy = self._figures(to_image(sample["rainy"]), wanted) if figures and self._rainy is None else {}
            if figures:
                self.results.append(Figures(figures, rainy))

    def compute_metrics(self, results: list[Figures]) -> dict[str, float]:
        means = mean(results)
        if means is None:
            return {}
        rainy = means.rainy if self._rainy is None else self._rainy
        return {**means.derained, **{f"rainy/{name}": value for name, value in rainy.items()}}

    def evaluate(self, size: int) -> dict[str, float]:
        # mmengine lets processes exchange results in files below the current folder, and leaves that behind. They have
        # images in turn, and some of them twice in the last one.
        results = [figures for turn in zip(*gather(self.results), strict=True) for figures in turn][:size]
        self.results.clear()
        found = first_decides(lambda: self.compute_metrics(results))
        if self._rainy is None and found:
            start = "rainy/"
            self._rainy = {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in found.items()}

    def _figures(self, image: RGB, clean: RGB | None) -> dict[str, float]:
        """Those of an image; without its clean version, those that need none."""
        raise NotImplementedError


class DerainingMetric(_ImageMetric):
    """PSNR in dB and SSIM under a named protocol, of derained and of rainy images that have a clean version.

    Figures are called ``PROTOCOL/psnr``, ``PROTOCOL/ssim``, ``PROTOCOL/rainy/psnr``, ``PROTOCOL/rainy/ssim``.

    Args:
        protocol: matlab_y, matlab_y_uint8, basicsr_y, opencv_y or rgb (`metrics.protocols`).
        rounding: Of derained images to 8 bits: ``round`` or ``floor``.
        prefix: None: the protocol.
    """

    def __init__(
        self,
        protocol: str = "matlab_y",
        rounding: Rounding = "round",
        prefix: str | None = None,
    ) -> None:
        super().__init__(rounding, prefix or protocol)
        self.protocol = protocol

    def _figures(self, image: RGB, clean: RGB | None) -> dict[str, float]:
        if clean is None:
            return {}
        return {"psnr": psnr(image, clean, self.protocol), "ssim": ssim(image, clean, self.protocol)}


class OptionMetrics(_ImageMetric):
    """``val.metrics`` of an option file, by BasicSR's registry.

    Args:
        metrics: By name, ``type`` and arguments.
        rounding, prefix: As of `DerainingMetric`.
    """

    def __init__(
        self,
        metrics: Mapping[str, dict[str, Any]],
        rounding: Rounding = "round",
        prefix: str | None = None,
    ) -> None:
        super().__init__(rounding, prefix)
        self._metrics = metrics

    def _figures(self, image: RGB, clean: RGB | None) -> dict[str, float]:
        from ..plugin import register

        register()
        return score(image, clean, self._metrics)
