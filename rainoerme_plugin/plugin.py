"""The one list of what the plugin adds to BasicSR, and its registration."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .archs.catalogue import CATALOGUE
from .errors import RainOerMeError


@dataclass(frozen=True)
class Entry:
    """One registered class: the kind names BasicSR's registry, the target is ``module:name``."""

    kind: str
    name: str
    target: str
    about: str = ""

    def load(self) -> Callable[..., Any]:
        """Import the class, or the function that makes one's objects."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    @property
    def summary(self) -> str:
        """What it is, in a line: as given, or the first of its documentation."""
        return self.about or (inspect.getdoc(self.load()) or "").partition("\n")[0]


ENTRIES: tuple[Entry, ...] = (
    # Single networks have a card each in the catalogue; those of packages that are not installed are left out.
    *(Entry("arch", card.name, card.target, card.paper) for card in CATALOGUE if card.registered),
    Entry("arch", "PretrainedNet", f"{__package__}.models.networks:PretrainedNet"),
    Entry("arch", "DistillationNet", f"{__package__}.models.networks:DistillationNet"),
    Entry("arch", "ResultImages", f"{__package__}.archs.result_images:ResultImages"),
    Entry("dataset", "UnpairedRainDataset", f"{__package__}.models.datasets:UnpairedRainDataset"),
    Entry("dataset", "PairedRainDataset", f"{__package__}.models.datasets:PairedRainDataset"),
    Entry("dataset", "SingleRainDataset", f"{__package__}.models.datasets:SingleRainDataset"),
    Entry("loss", "SSIMLoss", f"{__package__}.losses.ssim:SSIMLoss"),
    # CharbonnierLoss is BasicSR's own name; that of losses.pixels, which gives the same, is for SumLoss.
    Entry("loss", "GradientLoss", f"{__package__}.losses.pixels:GradientLoss"),
    Entry("loss", "FrequencyLoss", f"{__package__}.losses.pixels:FrequencyLoss"),
    Entry("loss", "SumLoss", f"{__package__}.losses.total:SumLoss"),
    Entry("metric", "derain_psnr", f"{__package__}.models.metrics:derain_psnr"),
    Entry("metric", "derain_ssim", f"{__package__}.models.metrics:derain_ssim"),
    Entry("model", "DistillationModel", f"{__package__}.models.distillation_model:DistillationModel"),
)


def registries() -> dict[str, Any]:
    """BasicSR's registries by kind, with its own classes in them."""
    import basicsr.archs
    import basicsr.data
    import basicsr.losses
    import basicsr.metrics
    import basicsr.models  # noqa: F401 - importing these fills the registries
    from basicsr.utils import registry

    return {
        "arch": registry.ARCH_REGISTRY,
        "dataset": registry.DATASET_REGISTRY,
        "loss": registry.LOSS_REGISTRY,
        "metric": registry.METRIC_REGISTRY,
        "model": registry.MODEL_REGISTRY,
    }


def register(entries: tuple[Entry, ...] = ENTRIES) -> None:
    """Put every class of the list into BasicSR's registries: all of them or, on an error, none.

    Calling it again does nothing.

    Raises:
        RainOerMeError: A name belongs to another class already.
    """
    tables = registries()
    new: list[tuple[Any, str, Callable[..., Any]]] = []
    for entry in entries:
        table, target = tables[entry.kind], entry.load()
        if entry.name not in table:
            new.append((table, entry.name, target))
        elif (owner := table.get(entry.name)) is not target:
            raise RainOerMeError(
                f"BasicSR's {entry.kind} registry has another '{entry.name}' already, from {owner.__module__}; "
                "nothing was registered"
            )
    for table, name, target in new:
        table._do_register(name, target)
