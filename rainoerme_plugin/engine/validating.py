"""A model's validation on the data sets of a run, with the metrics that each of them allows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

from torch.utils.data import DataLoader

from ..registered.metrics import Metrics, try_first
from ..training.failures import telling
from ..training.random_states import undisturbed


@dataclass(frozen=True)
class TestSet:
    """A data set that is validated on, the metrics that can be taken of it, and what is to be said of the others."""

    loader: DataLoader[Any]
    metrics: Metrics
    notes: list[str]

    @property
    def name(self) -> str:
        return str(self.loader.dataset.opt["name"])  # type: ignore[attr-defined]

    def validate(self, model: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> dict[str, float]:
        """Let a model of BasicSR's kind validate itself.

        Returns:
            The figures, by metric; of models that validate in the first process alone, only there.

        Raises:
            RainOerMeError: It cannot, whatever the reason, but for want of memory or of other processes.
        """
        asked = model.opt["val"]
        if "metrics" in asked:
            asked["metrics"] = dict(self.metrics) or None
        vars(model).pop("metric_results", None)  # of the data set before
        self._add_to_best(getattr(model, "best_metric_results", {}).get(self.name))
        with telling(f"validation on {self.name}", logging.getLogger("basicsr")), _figures_of(model) as figures:
            model.validation(self.loader, current_iter, tb_logger, save_img)
        # BasicSR's metrics give NumPy's numbers, and a training state that holds one cannot be loaded safely.
        for best in getattr(model, "best_metric_results", {}).get(self.name, {}).values():
            best.update(val=float(best["val"]))
        return figures

    def _add_to_best(self, best: dict[str, dict[str, Any]] | None) -> None:
        """Let metrics that a resumed run did not have be among the best values so far, where BasicSR looks for them."""
        for name, options in self.metrics.items() if best is not None else ():
            better = options.get("better", "higher")
            worst = -inf if better == "higher" else inf
            best.setdefault(name, {"better": better, "val": worst, "iter": -1})  # type: ignore[union-attr]


@contextmanager
def _figures_of(model: Any) -> Iterator[dict[str, float]]:
    """Collect what a model reports: all of BasicSR's do so to this method, but keep their figures in several ways."""
    figures: dict[str, float] = {}
    report = getattr(model, "_update_best_metric_result", None)

    def noted(dataset: str, metric: str, value: Any, current_iter: Any) -> None:
        figures[metric] = float(value)
        if report is not None:
            report(dataset, metric, value, current_iter)

    model._update_best_metric_result = noted
    try:
        yield figures
    finally:
        del model._update_best_metric_result


def open_test_set(loader: DataLoader[Any], val: Mapping[str, Any] | None) -> TestSet:
    """Find out what can be measured of a data set.

    Raises:
        DataError: Its first sample cannot be read, or a metric cannot be taken of images of that size.
    """
    with undisturbed():
        sample = loader.dataset[0]
    name = str(loader.dataset.opt["name"])  # type: ignore[attr-defined]
    return TestSet(loader, *try_first(sample, (val or {}).get("metrics"), name))
