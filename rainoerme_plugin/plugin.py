"""The one list of what the plugin adds to BasicSR, and its registration."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

from .errors import RainOerMeError


@dataclass(frozen=True)
class Entry:
    """One registered class: the kind names BasicSR's registry, the target is ``module:class``."""

    kind: str
    name: str
    target: str

    def load(self) -> type:
        """Import the class."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)

    @property
    def summary(self) -> str:
        """The first line of the class's documentation."""
        return (inspect.getdoc(self.load()) or "").partition("\n")[0]


ENTRIES: tuple[Entry, ...] = (
    Entry("arch", "RainOerMeNet", "archs.rainoerme:RainOerMeNet"),
    Entry("dataset", "UnpairedRainDataset", "models.datasets:UnpairedRainDataset"),
    Entry("dataset", "PairedRainDataset", "models.datasets:PairedRainDataset"),
    Entry("dataset", "SingleRainDataset", "models.datasets:SingleRainDataset"),
    Entry("loss", "SSIMLoss", "losses.ssim:SSIMLoss"),
    Entry("model", "DistillationModel", "models.distillation_model:DistillationModel"),
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
    new: list[tuple[Any, str, type]] = []
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
