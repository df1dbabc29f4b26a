"""The one list of what the plugin adds to BasicSR and to mmengine, and its registration."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .archs.catalogue import CATALOGUE
from .errors import RainOerMeError


@dataclass(frozen=True)
class Entry:
    """One registered class: the kind names the registries, the target is ``module:name``."""

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
        """What it is, in a line: as given, or the first sentence of its documentation."""
        return self.about or first_sentence(self.load())


def first_sentence(found: Any) -> str:
    """The first sentence of a class's or function's documentation on one line, without the marks of code in it."""
    paragraph = " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split()).replace("`", "")
    return re.split(r"(?<=[^.]\.) ", paragraph, maxsplit=1)[0]


MMENGINE = {
    "arch": "MODELS",
    "loss": "MODELS",
    "dataset": "DATASETS",
    "metric": "FUNCTIONS",
    "mm_function": "FUNCTIONS",
    "mm_model": "MODELS",
    "mm_wrapper": "MODEL_WRAPPERS",
    "mm_sampler": "DATA_SAMPLERS",
    "mm_metric": "METRICS",
    "mm_hook": "HOOKS",
    "mm_loop": "LOOPS",
    "mm_optimiser": "OPTIM_WRAPPER_CONSTRUCTORS",
    "mm_schedule": "PARAM_SCHEDULERS",
    "mm_runner": "RUNNERS",
}
"""mmengine's registry for each kind that it knows; the first four are the same classes as BasicSR's."""

ENTRIES: tuple[Entry, ...] = (
    # Single networks have a card each in the catalogue; those of packages that are not installed are left out.
    *(Entry("arch", card.name, card.target, card.paper) for card in CATALOGUE if card.registered),
    Entry("arch", "PretrainedNet", f"{__package__}.registered.networks:PretrainedNet"),
    Entry("arch", "DistillationNet", f"{__package__}.registered.networks:DistillationNet"),
    Entry("arch", "ResultImages", f"{__package__}.archs.result_images:ResultImages"),
    Entry("dataset", "UnpairedRainDataset", f"{__package__}.registered.datasets:UnpairedRainDataset"),
    Entry("dataset", "PairedRainDataset", f"{__package__}.registered.datasets:PairedRainDataset"),
    Entry("dataset", "SingleRainDataset", f"{__package__}.registered.datasets:SingleRainDataset"),
    Entry("dataset", "MadePairsDataset", f"{__package__}.registered.datasets:MadePairsDataset"),
    Entry("loss", "SSIMLoss", f"{__package__}.losses.ssim:SSIMLoss", "1 - SSIM of two images."),
    # CharbonnierLoss is BasicSR's own name; that of losses.pixels, which gives the same, is for SumLoss.
    Entry("loss", "GradientLoss", f"{__package__}.losses.pixels:GradientLoss", "Edges of two images that differ."),
    Entry("loss", "FrequencyLoss", f"{__package__}.losses.pixels:FrequencyLoss", "Spectra of two images that differ."),
    Entry("loss", "SumLoss", f"{__package__}.losses.total:SumLoss"),
    Entry("metric", "derain_psnr", f"{__package__}.registered.metrics:derain_psnr"),
    Entry("metric", "derain_ssim", f"{__package__}.registered.metrics:derain_ssim"),
    Entry("model", "DistillationModel", f"{__package__}.models.distillation_model:DistillationModel"),
    # mmengine alone.
    Entry("mm_model", "DistillationModel", f"{__package__}.mm.model:DistillationModel"),
    Entry("mm_model", "DerainingPreprocessor", f"{__package__}.mm.model:DerainingPreprocessor"),
    Entry("mm_model", "RampedEMA", f"{__package__}.mm.hooks:RampedEMA"),
    Entry("mm_wrapper", "DistributedDistillation", f"{__package__}.mm.model:DistributedDistillation"),
    Entry("mm_sampler", "EndlessSampler", f"{__package__}.mm.loops:EndlessSampler"),
    Entry("mm_function", "collate_rain", f"{__package__}.data.unpaired:collate_rain"),
    Entry("mm_loop", "EndlessTrainLoop", f"{__package__}.mm.loops:EndlessTrainLoop"),
    Entry("mm_loop", "SeveralValLoop", f"{__package__}.mm.loops:SeveralValLoop"),
    Entry("mm_metric", "DerainingMetric", f"{__package__}.mm.evaluation:DerainingMetric"),
    Entry("mm_metric", "OptionMetrics", f"{__package__}.mm.evaluation:OptionMetrics"),
    Entry("mm_hook", "ScheduleHook", f"{__package__}.mm.hooks:ScheduleHook"),
    Entry("mm_hook", "CollapseGuardHook", f"{__package__}.mm.hooks:CollapseGuardHook"),
    Entry("mm_hook", "PanelHook", f"{__package__}.mm.hooks:PanelHook"),
    Entry("mm_hook", "BestCheckpointHook", f"{__package__}.mm.best:BestCheckpointHook"),
    Entry("mm_hook", "SafeCheckpointHook", f"{__package__}.mm.checkpoints:SafeCheckpointHook"),
    Entry("mm_optimiser", "OptionOptimWrapper", f"{__package__}.mm.optimisers:OptionOptimWrapper"),
    Entry("mm_schedule", "OptionSchedule", f"{__package__}.mm.optimisers:OptionSchedule"),
    Entry("mm_schedule", "LinearDecay", f"{__package__}.mm.optimisers:LinearDecay"),
    Entry("mm_runner", "DistillationRunner", f"{__package__}.mm.runner:DistillationRunner"),
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
    """Put every class of the list that is for BasicSR into its registries: all of them or, on an error, none.

    Calling it again does nothing.

    Raises:
        RainOerMeError: A name belongs to another class already.
    """
    tables = registries()
    _register("BasicSR", {kind: (table, table._do_register) for kind, table in tables.items()}, entries)


def register_mmengine(entries: tuple[Entry, ...] = ENTRIES) -> None:
    """Put every class of the list that is for mmengine into the registries of `registry`, as `register` does.

    Raises:
        RainOerMeError: A name belongs to another class already.
    """
    from .registry import REGISTRIES

    tables = {kind: REGISTRIES[name] for kind, name in MMENGINE.items()}
    places = {
        kind: (table.module_dict, lambda name, found, table=table: table.register_module(name=name, module=found))
        for kind, table in tables.items()
    }
    _register("mmengine", places, entries)


def _register(
    whose: str, places: Mapping[str, tuple[Any, Callable[[str, Any], Any]]], entries: tuple[Entry, ...]
) -> None:
    """Put entries into registries: by kind, what has the classes by their names, and what adds one."""
    new: list[tuple[Callable[[str, Any], Any], str, Callable[..., Any]]] = []
    for entry in entries:
        if entry.kind not in places:
            continue
        (table, add), target = places[entry.kind], entry.load()
        if entry.name not in table:
            new.append((add, entry.name, target))
        elif (owner := table.get(entry.name)) is not target:
            raise RainOerMeError(
                f"{whose}'s {entry.kind} registry has another '{entry.name}' already, from {owner.__module__}; "
                "nothing was registered"
            )
    for add, name, target in new:
        add(name, target)
