"""One option file trained by both engines, and what each did, iteration by iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered import write_photographs
from tiny import write_images
from torch import Tensor, nn

from rainoerme_plugin.config import Request
from rainoerme_plugin.engine.training import train as train_by_basicsr
from rainoerme_plugin.mm.training import train as train_by_mmengine

LEARNING: dict[str, Any] = {
    "train__optim_g__lr": 3.0e-3,
    "train__total_iter": 12,
    "train__scheduler": {"start": 6, "end": 18},
    "train__distillation": {"warmup": 3, "soft_decay": 5, "hard_ramp": 4, "hard_max": 2},
    "network_g__channels": 4,
    "val__val_freq": 6,
    "logger__save_checkpoint_freq": 6,
}
"""Changes to `tiny_options` by which weights and images change visibly in a few iterations."""


def with_bank(data: Path, **values: Any) -> dict[str, Any]:
    """Changes to `tiny_options` by which rain of plain places goes onto clean images; ``data`` gets photographs for it.

    Values are of the keys of ``train.distillation.rain``, of ``train`` or of ``datasets.train``.
    """
    write_photographs(data / "rainy", 5, size=(96, 112))
    write_images(data / "clean", 3, seed=2)
    places = {"_delete_": True, "type": "plain", "patch": 32, "evidence": 1.3}
    changes = {**LEARNING, "datasets__train__rain": places, "datasets__train__label_cache": str(data / "labels")}
    rain = {key: values.pop(key) for key in ("bank", "none", "grey") if key in values}
    changes["train__distillation"] = {**LEARNING["train__distillation"], "rain": rain}
    for key, value in values.items():
        changes[f"{'train' if key in ('accumulation', 'grad_clip') else 'datasets__train'}__{key}"] = value
    return changes


NORMED = {"_delete_": True, "type": "DistillationNet", "backbone": {"type": "Normed"}}
"""``network_g`` with batch norms; `normed` must have been asked for."""


class Normed(nn.Module):
    """A backbone with batch statistics and, if asked for, chance."""

    def __init__(self, chance: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(chance)

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy - 0.1 * self.dropout(self.norm(self.conv(rainy)))


@pytest.fixture
def normed(monkeypatch: pytest.MonkeyPatch) -> None:
    """``type: Normed`` in option files."""
    from rainoerme_plugin.plugin import registries

    monkeypatch.setitem(registries()["arch"]._obj_map, "Normed", Normed)


@dataclass
class Record:
    """What a run did."""

    losses: list[tuple[float, float, float]] = field(default_factory=list)
    """l_soft, l_hard, rain_energy of each iteration."""
    rates: list[list[float]] = field(default_factory=list)
    """Of each group of parameters, in each iteration."""
    figures: dict[int, dict[str, float]] = field(default_factory=dict)
    """Of each validation: ``SET/METRIC`` and ``SET/rainy/METRIC``."""


NAMES = ("l_soft", "l_hard", "rain_energy")


def by_basicsr(request: Request) -> Record:
    """Train by BasicSR's engine."""
    from rainoerme_plugin.models.distillation_model import DistillationModel

    record = Record()
    optimize, report = DistillationModel.optimize_parameters, DistillationModel._report

    def noted(self: Any, iteration: int) -> None:
        record.rates.append([group["lr"] for group in self.optimizer_g.param_groups])
        optimize(self, iteration)
        log = self.get_current_log()
        record.losses.append(tuple(float(log.get(name, 0.0)) for name in NAMES))  # type: ignore[arg-type]

    def reported(self: Any, iteration: Any, name: str, count: int, board: Any) -> None:
        found = record.figures.setdefault(int(iteration), {})
        found.update({f"{name}/{metric}": value for metric, value in self.metric_results.items()})
        found.update({f"{name}/rainy/{metric}": value for metric, value in self.input_metrics[name].items()})
        report(self, iteration, name, count, board)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationModel, "optimize_parameters", noted)
        patch.setattr(DistillationModel, "_report", reported)
        train_by_basicsr(request)
    return record


def by_mmengine(request: Request) -> Record:
    """Train by mmengine's."""
    from rainoerme_plugin.mm.loops import SeveralValLoop
    from rainoerme_plugin.mm.model import DistillationModel

    record = Record()
    step, validate = DistillationModel.train_step, SeveralValLoop.run

    def noted(self: Any, data: Any, optim_wrapper: Any) -> Any:
        record.rates.append([group["lr"] for group in optim_wrapper.optimizer.param_groups])
        log = step(self, data, optim_wrapper)
        record.losses.append(tuple(float(log.get(name, 0.0)) for name in NAMES))  # type: ignore[arg-type]
        return log

    def validated(self: Any) -> dict[str, float]:
        found = validate(self)
        record.figures[self.runner.iter] = dict(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        # A third of a second for each checkpoint.
        patch.setattr("mmengine.config.config.FormatCode", lambda text, **options: (text, False))
        patch.setattr(DistillationModel, "train_step", noted)
        patch.setattr(SeveralValLoop, "run", validated)
        try:
            train_by_mmengine(request)
        finally:
            forget()
    return record


def forget() -> None:
    """mmengine finds loggers and the like by a run's name and the second that it began in; the next is another run."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    for kind in (DefaultScope, MessageHub, MMLogger, Visualizer):
        kind._instance_dict.clear()


ENGINES: dict[str, Callable[[Request], Record]] = {"basicsr": by_basicsr, "mmengine": by_mmengine}


def folder(root: Path) -> Path:
    return root / "experiments" / "tiny"


def network(root: Path) -> dict[str, dict[str, Tensor]]:
    """What a run leaves: ``params``, ``params_ema`` and further parts."""
    found: dict[str, dict[str, Tensor]] = torch.load(folder(root) / "models" / "net_g_latest.pth", weights_only=True)
    return found


def saved(root: Path, iteration: int) -> dict[str, Any]:
    """What is alike in a checkpoint of either engine: networks, optimiser, schedule, what was counted."""
    state = folder(root) / "training_states" / f"{iteration}.state"
    if state.exists():
        found = torch.load(state, weights_only=True)
        networks = torch.load(folder(root) / "models" / f"net_g_{iteration}.pth", weights_only=True)
        own = {"optimizer": found["optimizers"][0], "schedule": found["schedulers"][0], **found["model"]}
    else:
        found = torch.load(folder(root) / f"iter_{iteration}.pth", weights_only=True)
        networks = {name: part for name, part in found.items() if name.startswith("params")}
        optimizer = {name: found["optimizer"][name] for name in ("state", "param_groups")}
        own = {"optimizer": optimizer, "schedule": found["param_schedulers"][0], **found["distillation"],
               "guard": found.get("collapse_guard")}  # fmt: skip
    return {"networks": {key: dict(part) for key, part in networks.items()}, **own}


def flat(value: Any, key: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        return {key: value}
    return {place: leaf for name, item in items for place, leaf in flat(item, f"{key}.{name}").items()}


def differing(one: Any, other: Any) -> list[str]:
    """Where two nests of tensors and plain values differ in a bit."""
    left, right = flat(one), flat(other)

    def same(key: str) -> bool:
        a, b = left.get(key), right.get(key)
        tensors = isinstance(a, Tensor) and isinstance(b, Tensor)
        return torch.equal(a, b) if tensors else type(a) is type(b) and a == b

    return sorted(key for key in left.keys() | right.keys() if not same(key))
