"""The best checkpoint of a run, by a figure of its validations, and the end of a run that gets no better.

What is best lies in ``models/net_g_best.pth``, and all of it in every training state: whichever state a run goes on
from, the file becomes what was best then. A file of a later iteration, of a run that was killed or has gone back from
a collapse, is of a future that may not come again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..errors import OptionError, counted
from ..options import Positive, Section, read_section
from ..processes import first_decides, rank_and_world
from ..registered.metrics import Metrics
from ..run_options import BestOptions
from ..weights import checkpoint_of, save_networks

NAME = "net_g_best"


class BestRule(Section):
    """What is best, and when a run ends for want of anything better.

    Args:
        dataset: Name of the validation set.
        metric: Name of the figure there.
        better: Whether ``higher`` or ``lower`` figures are better.
        measured_by: The metric's own options; figures of others cannot be compared.
        patience: Validations without a better figure after which the run ends; None: never.
        min_delta: By at least so much, in the figure's unit, a figure must be better to count.
    """

    dataset: str
    metric: str
    better: Literal["higher", "lower"] = "higher"
    measured_by: dict[str, Any] = Field(default={})
    patience: Positive | None = None
    min_delta: float = 0.0

    @property
    def figure(self) -> str:
        return f"{self.metric} of {self.dataset}"

    def measures_as(self, other: BestRule) -> bool:
        """Whether figures of both can be compared."""
        keys = ("dataset", "metric", "better", "measured_by")
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    def is_gain(self, figure: float, best: float | None) -> bool:
        """Whether a figure counts as better than the best so far; NaN never does."""
        if math.isnan(figure) or best is None:
            return not math.isnan(figure)
        gain = figure - best if self.better == "higher" else best - figure
        return gain > 0 and gain >= self.min_delta


class BestState(BaseModel):
    """What a training state holds of it."""

    model_config = ConfigDict(strict=True, frozen=True, arbitrary_types_allowed=True)

    rule: BestRule
    figure: float | None = None
    """None: there is none yet."""
    iteration: int = 0
    """Whose figure that is."""
    waited: int = 0
    """Validations since then without a better one."""
    judged: int = 0
    """The iteration of the last validation that counted: one that is done again does not."""
    networks: dict[str, dict[str, Tensor]] = {}
    """As `weights.checkpoint_of` gives them; in the first process alone."""


def best_rule(val: Mapping[str, Any] | None, possible: Mapping[str, Metrics]) -> BestRule | None:
    """The rule of an option file whose ``val.best`` `run_options.check_best` has passed; None: no best is kept.

    Args:
        val: ``val``.
        possible: By the name of each validation set, in their order, the metrics that can be taken of it.

    Raises:
        OptionError: The metric cannot be taken of the data set, which has no ground truth.
    """
    options = read_section(BestOptions, (val or {}).get("best") or {}, "val.best")
    if options.metric is None:
        return None
    giving = [name for name, metrics in possible.items() if options.metric in metrics]
    dataset = options.dataset or next(iter(giving), None)
    if dataset not in giving:
        raise OptionError(
            f"val.best.metric: {options.metric} cannot be taken of {dataset or ', '.join(possible)}: there is no "
            "ground truth; take a metric that needs none, or a data set with pairs"
        )
    measured_by = dict(possible[dataset][options.metric])
    return BestRule(
        dataset=dataset,
        metric=options.metric,
        better=measured_by.get("better", "higher"),
        measured_by=measured_by,
        patience=options.patience,
        min_delta=options.min_delta,
    )


class BestCheckpoint:
    """Keeps the network of the best validation, and counts those since.

    All processes must call its methods, but the first alone writes.

    Args:
        rule: What is best.
        folder: Where the network goes, the run's ``models``.
        tell: Is told what is better, and what has changed.
    """

    def __init__(self, rule: BestRule, folder: Path, tell: Callable[[str], None]) -> None:
        self.rule, self._file, self._tell = rule, folder / f"{NAME}.pth", tell
        self._state = BestState(rule=rule)

    def judge(self, iteration: int, figures: Mapping[str, float], networks: Mapping[str, nn.Module]) -> None:
        """Take note of a validation; if it is the best so far, save the network.

        Args:
            iteration: After which it was.
            figures: Of the rule's data set, by metric; those of the first process count.
            networks: That were validated, bare: ``params`` and, where there is a running mean, ``params_ema``.

        Raises:
            RainOerMeError: The network cannot be saved.
        """
        figure = first_decides(lambda: figures.get(self.rule.metric))
        before = self._state
        if figure is None or iteration <= before.judged:
            return
        if not self.rule.is_gain(figure, before.figure):
            self._state = before.model_copy(update={"waited": before.waited + 1, "judged": iteration})
            return
        kept = {}
        if rank_and_world()[0] == 0:
            for key, network in networks.items():
                for name, part in checkpoint_of(network, key).items():
                    kept[name] = {weight: value.clone() for weight, value in part.items()}
        # At once, and before the file: whatever ends the run in between, the state is whole and the file follows it.
        self._state = BestState(rule=self.rule, figure=figure, iteration=iteration, judged=iteration, networks=kept)
        self.settle()
        self._tell(f"{self.rule.figure} is the best so far: {figure:.4f} at iteration {iteration}, {self._file.name}")

    def settle(self) -> None:
        """Have the files hold what is best, or not be there while nothing is.

        Raises:
            RainOerMeError: They cannot be written.
        """
        if rank_and_world()[0] != 0:
            return
        if self._state.networks:
            save_networks(self._state.networks, self._file)
        else:
            for suffix in (".safetensors", ".pth"):
                self._file.with_suffix(suffix).unlink(missing_ok=True)

    @property
    def ends_run(self) -> bool:
        """Whether the run has waited long enough for something better."""
        return self.rule.patience is not None and self._state.waited >= self.rule.patience

    def told_at_end(self, early: bool) -> list[str]:
        """What the log says of it when a run has come to its end, ``early`` or not."""
        state, found = self._state, []
        if early:
            validations = counted(state.waited, "validation")
            found.append(
                f"Ended early, after iteration {state.judged}: {self.rule.figure} has not become better in "
                f"{validations} (val.best.patience)"
            )
        if state.figure is None:
            return [*found, f"There is no best network: no validation gave a number for {self.rule.figure}"]
        best = f"{state.figure:.4f} at iteration {state.iteration}, {self._file}"
        return [*found, f"Best {self.rule.figure}: {best}"]

    def state_dict(self) -> dict[str, Any]:
        """What a training state must hold: tensors and plain types."""
        return self._state.model_dump()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, as far as it was found by this rule; `settle` then sees to the files.

        Raises:
            ValueError: It is nothing of the kind.
        """
        found = BestState.model_validate(state) if state else None
        if found is None:
            self._tell(f"val.best is new since the checkpoint: the best {self.rule.figure} is looked for from here on")
        elif not self.rule.measures_as(found.rule):
            own = self.rule.figure
            now = own if own != found.rule.figure else f"{own}, measured in another way"
            self._tell(
                f"val.best has changed since the checkpoint, from {found.rule.figure} to {now}: the best is looked for "
                f"anew from here on, and {NAME} of before is removed"
            )
        elif self.rule != found.rule:
            self._tell(
                "val.best.patience or min_delta has changed since the checkpoint: validations are counted anew from "
                "here on; what was best stays"
            )
            self._state = found.model_copy(update={"rule": self.rule, "waited": 0})
        else:
            self._state = found
