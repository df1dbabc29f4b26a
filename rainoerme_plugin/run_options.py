"""Sections of option files that BasicSR's loops and models read, with the plugin's own keys among them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from .data.images import Rounding
from .errors import OptionError, brief, nearest
from .options import Count, FileName, Number, Positive, RunName, Section, Seed, Truth, Whole


class PathOptions(Section):
    """``path``; further keys name one network each."""

    root: str | None = None
    resume_state: str | None = None
    ignore_resume_networks: list[str] | str | None = None


class BestOptions(Section):
    """``val.best``: which validation is the best, and when a run ends for want of a better one."""

    metric: str | None = None
    dataset: FileName | None = None
    patience: Positive | None = None
    min_delta: Annotated[Number, Field(ge=0)] = 0.0


class ValOptions(Section):
    """``val``."""

    val_freq: Positive | None = None
    save_img: Truth = False
    pbar: Truth = True
    panels: bool = True
    suffix: FileName | None = None
    rounding: Rounding = "round"
    tile: Count | Literal["auto"] = "auto"
    metrics: dict[str, dict[str, Any]] | None = None
    best: BestOptions | None = None


def check_best(val: ValOptions, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """See whether a run can find the network that ``val.best`` asks for, as far as the option file tells.

    Args:
        val: ``val``.
        datasets: ``datasets``.

    Raises:
        OptionError: It cannot; the message names the key.
    """
    best, metrics = val.best or BestOptions(), val.metrics or {}
    if best.metric is None:
        if best.patience is not None or best.dataset is not None:
            raise OptionError("val.best.metric: is missing; it names the figure by which the best network is found")
        return
    if best.metric not in metrics:
        there = f"; there are {', '.join(metrics)}" if metrics else ", which names none"
        raise OptionError(
            f"val.best.metric: no {brief(best.metric)} under val.metrics{nearest(best.metric, metrics)}{there}"
        )
    if val.val_freq is None:
        raise OptionError(
            "val.val_freq: is missing; val.best is looked for in the validations every so many iterations"
        )
    names = [str(opt.get("name", key)) for key, opt in datasets.items() if key.split("_")[0] == "val"]
    if not names:
        raise OptionError("val.best: there is no data set to validate on; datasets.val names one")
    if best.dataset is not None and best.dataset not in names:
        raise OptionError(
            f"val.best.dataset: no validation set is called {brief(best.dataset)}{nearest(best.dataset, names)}; "
            f"there are {', '.join(names)}"
        )
    key, options = f"val.metrics.{best.metric}.better", metrics[best.metric]
    if options.get("better", "higher") not in ("higher", "lower"):
        raise OptionError(f"{key}: expected higher or lower, got {brief(options['better'])}")
    if options.get("type") == "calculate_niqe" and "better" not in options:  # of BasicSR's the only one
        raise OptionError(f"{key}: is missing; of NIQE write better: lower, or val.best takes the worst network")


class PassedOn(Section):
    """Sections that BasicSR hands on to functions of other packages, which may take more keys."""

    model_config = ConfigDict(extra="ignore")


class WandbOptions(PassedOn):
    """``logger.wandb``."""

    project: str | None = None
    resume_id: str | None = None


class LoggerOptions(Section):
    """``logger``."""

    print_freq: Positive = 100
    save_checkpoint_freq: Positive = 5000
    keep_checkpoints: Positive | None = None
    use_tb_logger: Truth = False
    wandb: WandbOptions | None = None

    @model_validator(mode="after")
    def _wandb_is_there(self) -> LoggerOptions:
        if self.wandb and self.wandb.project is not None:
            if not self.use_tb_logger:
                raise ValueError("wandb.project needs use_tb_logger: true, whose figures it takes")
            if find_spec("wandb") is None:
                raise ValueError("wandb.project needs Weights & Biases: pip install wandb")
        return self


class DistOptions(PassedOn):
    """``dist_params``."""

    backend: str | None = None
    port: Annotated[Count, Field(le=65_535)] | None = None
    timeout: Annotated[Number, Field(gt=0, le=10**9)] | None = None


class TopOptions(Section):
    """The top of an option file."""

    name: RunName
    model_type: str
    num_gpu: Count | Literal["auto"] = "auto"
    manual_seed: Seed | None = None
    scale: Number | None = None
    find_unused_parameters: Truth = False
    dist_params: DistOptions | None = None
    datasets: dict[str, dict[str, Any]]
    path: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    val: dict[str, Any] | None = None
    logger: dict[str, Any] | None = None


class StockTrainOptions(Section):
    """What BasicSR's training loop reads of ``train``, for models that declare nothing."""

    total_iter: Positive
    warmup_iter: Whole = -1
    ema_decay: Number = 0.0
    nonfinite_limit: Count = 10
    scheduler: dict[str, Any] | None = None
