"""Checks a whole option file before anything is read or written: names, keys, types.

What the plugin declares (`options`) is checked key by key. BasicSR's own classes, and other plugins', declare
nothing: for networks, losses, metrics, optimisers and schedulers their signatures tell; for models and data sets,
which take one dict, the keys that their source code reads. There a key that nothing reads is an error where it is
nearly one that is read, and else a warning: BasicSR's own files hold some such leftovers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from .archs.catalogue import CATALOGUE, INSTALL_EXTRA
from .data.images import Rounding
from .errors import OptionError, brief, nearest
from .options import (
    Count,
    DistillationTrainOptions,
    FileName,
    LoaderOptions,
    Number,
    Positive,
    Section,
    Seed,
    UnpairedRainOptions,
    Whole,
    check_refinements,
    read_section,
)
from .signatures import check_call, keys_read_by
from .trials import try_loss, try_metric, try_network, try_optimiser, try_schedule

S = TypeVar("S", bound=Section)


class PathOptions(Section):
    """``path``; further keys name one network each."""

    root: str | None = None
    resume_state: str | None = None
    ignore_resume_networks: list[str] | str | None = None


class ValOptions(Section):
    """``val``."""

    val_freq: Positive | None = None
    save_img: bool = False
    pbar: bool = True
    panels: bool = True
    suffix: FileName | None = None
    rounding: Rounding = "round"
    tile: Count | Literal["auto"] = "auto"
    metrics: dict[str, dict[str, Any]] | None = None


class WandbOptions(Section):
    """``logger.wandb``."""

    project: str | None = None
    resume_id: str | None = None


class LoggerOptions(Section):
    """``logger``."""

    print_freq: Positive = 100
    save_checkpoint_freq: Positive = 5000
    keep_checkpoints: Positive | None = None
    use_tb_logger: bool = False
    wandb: WandbOptions | None = None

    @model_validator(mode="after")
    def _wandb_is_there(self) -> LoggerOptions:
        if self.wandb and self.wandb.project is not None:
            if not self.use_tb_logger:
                raise ValueError("wandb.project needs use_tb_logger: true, whose figures it takes")
            if find_spec("wandb") is None:
                raise ValueError("wandb.project needs Weights & Biases: pip install wandb")
        return self


class DistOptions(Section):
    """``dist_params``."""

    backend: str | None = None
    port: Annotated[Count, Field(le=65_535)] | None = None
    timeout: Annotated[Number, Field(gt=0, le=10**9)] | None = None


class TopOptions(Section):
    """The top of an option file."""

    name: Annotated[FileName, Field(pattern=r"^[\w.+-][\w.+ -]*$")]
    model_type: str
    num_gpu: Count | Literal["auto"] = "auto"
    manual_seed: Seed | None = None
    scale: Whole | None = None
    find_unused_parameters: bool = False
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
    scheduler: dict[str, Any]


_SCHEDULERS = ("MultiStepLR", "MultiStepRestartLR", "CosineAnnealingRestartLR")
_OPTIMISER = re.compile(r"optim_\w+")
_NETWORK = re.compile(r"network_\w+")
_PATH = re.compile(r"(pretrain_network|strict_load|param_key)_\w+")
# Networks that are what a file or folder makes them, which is read later.
_FROM_FILES = ("PretrainedNet", "ResultImages")
# Sections of stock files that BasicSR hands on to functions of its own, where no class tells their keys.
_PASSED_ON = {"io_backend", "wandb", "dist_params"}


def check_options(options: Mapping[str, Any], *, training: bool) -> list[str]:
    """Check the options of a run, after inheritance and overrides.

    Returns:
        Warnings: keys that nothing seems to read.

    Raises:
        OptionError: The first thing wrong: an unknown or missing key, a value of the wrong type, an unknown class.
    """
    from .plugin import registries

    tables = registries()
    warnings: list[str] = []
    model = _class(tables["model"], options.get("model_type"), "model_type", "model")
    # A model that declares its options has none beside them.
    read_by_model = None if hasattr(model, "TrainOptions") else keys_read_by(model)

    named = {key: value for key, value in options.items() if _NETWORK.fullmatch(key)}
    rest = {key: value for key, value in options.items() if key not in named}
    _read_with(TopOptions, rest, "", read_by_model, warnings)

    if "network_g" not in named and (read_by_model is None or "network_g" in read_by_model):
        raise OptionError(f"network_g: is missing{nearest('network_g', options)}")
    _check_path(options.get("path") or {})
    _read_with(LoggerOptions, options.get("logger") or {}, "logger", read_by_model, warnings)
    if "val" in options:
        _check_val(options["val"] or {}, tables["metric"], read_by_model, warnings)
    if training:
        _check_training(options, model, tables, read_by_model, warnings)
    _check_datasets(options["datasets"], tables["dataset"], model, training, warnings)
    for key, network in named.items():  # the one check that takes time
        check_network(tables["arch"], network, key)
    return warnings


def check_network(table: Any, options: Any, key: str) -> None:
    """Check options that name a network of a registry's ``table`` and hold its arguments.

    Raises:
        OptionError: There is no such network, or it does not take these arguments.
    """
    _typed(table, options, key, "network")
    arguments = {name: value for name, value in options.items() if name not in ("type", "pretrained")}
    if not any(part.get("type") in _FROM_FILES for part in (options, options.get("backbone") or {})):
        try_network(_class(table, options["type"], f"{key}.type", "network"), arguments, key)


def _check_path(path: Mapping[str, Any]) -> None:
    rest = {key: value for key, value in path.items() if not _PATH.fullmatch(key)}
    for key in rest:
        if key not in PathOptions.model_fields:
            known = [*PathOptions.model_fields, "pretrain_network_g", "strict_load_g", "param_key_g"]
            raise OptionError(f"path.{key}: unknown key{nearest(key, known)}")
    read_section(PathOptions, rest, "path")
    for key in path.keys() - rest.keys():
        wanted = bool if key.startswith("strict_load") else str
        if not isinstance(path[key], wanted | None) or path[key] == "":
            what = "true or false" if wanted is bool else "a text, or ~ for none"
            raise OptionError(f"path.{key}: should be {what}, got {brief(path[key])}")


def _check_val(val: Mapping[str, Any], metrics: Any, read_by_model: set[str] | None, warnings: list[str]) -> None:
    section = _read_with(ValOptions, val, "val", read_by_model, warnings)
    for name, options in (section.metrics or {}).items():
        key = f"val.metrics.{name}"
        metric = _class(metrics, options.get("type"), f"{key}.type", "metric")
        arguments = {word: value for word, value in options.items() if word not in ("type", "better")}
        check_call(metric, arguments, key, skip=("img", "img2"), swallows=False)
        try_metric(metric, arguments, key)


def _check_training(
    options: Mapping[str, Any],
    model: type,
    tables: Mapping[str, Any],
    read_by_model: set[str] | None,
    warnings: list[str],
) -> None:
    train = options.get("train")
    if train is None:
        raise OptionError("train: is missing")
    declared = getattr(model, "TrainOptions", None)
    if declared is not None:
        section = read_section(declared, train, "train")
        if isinstance(section, DistillationTrainOptions):
            section.distillation.build()
            check_refinements(section)
    else:
        _read_with(StockTrainOptions, train, "train", read_by_model, warnings)
    for key, value in train.items():
        if key.endswith("_opt") and value is not None:
            _check_loss(tables["loss"], value, f"train.{key}")
    if "optim_g" not in train and (read_by_model is None or "optim_g" in read_by_model):
        raise OptionError(f"train.optim_g: is missing{nearest('optim_g', train)}")
    optimisers = [_check_optimiser(value, f"train.{key}") for key, value in train.items() if key.startswith("optim_")]
    _check_schedule(train["scheduler"], optimisers, int(train["total_iter"]), own=declared is not None)


def _check_loss(losses: Any, options: Any, key: str) -> None:
    _typed(losses, options, key, "loss")
    if options["type"] == "PerceptualLoss":  # downloads its network
        return
    arguments = {word: value for word, value in options.items() if word != "type"}
    compares = key in ("train.loss_opt", "train.pixel_opt")  # what other losses are called with, their models know
    try_loss(_class(losses, options["type"], f"{key}.type", "loss"), arguments, key, compares)


def _check_optimiser(options: Any, key: str) -> Any:
    import torch

    if not isinstance(options, Mapping):
        raise OptionError(f"{key}: expected keys and values, got {brief(options)}")
    name, arguments = options.get("type"), {word: value for word, value in options.items() if word != "type"}
    optimisers = {word: found for word, found in vars(torch.optim).items() if isinstance(found, type)}
    if name not in list(optimisers):
        raise OptionError(f"{key}.type: no optimiser {brief(name)} in torch.optim{nearest(str(name), optimisers)}")
    check_call(optimisers[name], arguments, key, skip=("params",), numbers=("lr", "weight_decay", "eps"))
    if "lr" not in arguments:
        raise OptionError(f"{key}.lr: is missing")
    return try_optimiser(optimisers[name], arguments, key)


def _check_schedule(options: Mapping[str, Any], optimisers: Iterable[Any], last: int, own: bool) -> None:
    from basicsr.models import lr_scheduler as stock_schedulers

    from .registered.lr_scheduler import LinearDecayLR

    key = "train.scheduler"
    known: dict[str, Any] = {name: getattr(stock_schedulers, name, None) for name in _SCHEDULERS}
    known["MultiStepLR"] = stock_schedulers.MultiStepRestartLR
    if own:
        known["LinearDecayLR"] = LinearDecayLR
    name, arguments = options.get("type"), {word: value for word, value in options.items() if word != "type"}
    if name not in list(known):
        near = nearest(str(name), known)
        raise OptionError(f"{key}.type: no scheduler {brief(name)}{near}; there are {', '.join(known)}")
    check_call(known[name], arguments, key, skip=("optimizer", "last_epoch"))
    for optimiser in optimisers:
        try_schedule(known[name], arguments, optimiser, last, key)


def _check_datasets(datasets: Mapping[str, Any], table: Any, model: type, training: bool, warnings: list[str]) -> None:
    if not datasets:
        raise OptionError("datasets: names no data set")
    for phase, options in datasets.items():
        key = f"datasets.{phase}"
        if training and phase != "train" and phase.split("_")[0] != "val":
            raise OptionError(
                f"{key}: unknown phase{nearest(phase, ['train', 'val'])}; there are train, val, val_2 ..."
            )
        dataset = _class(table, options.get("type"), f"{key}.type", "data set")
        _check_purpose(dataset, model, phase, key)
        if phase != "train" and options.get("persistent_workers"):
            raise OptionError(f"{key}.persistent_workers: only datasets.train has processes that read images")
        declared = getattr(dataset, "Options", None)
        if declared is not None:
            read_section(declared, options, key)
        else:
            _read_with(LoaderOptions, options, key, keys_read_by(dataset), warnings)
            for name, root in options.items():
                if name.startswith("dataroot") and not isinstance(root, str | None):
                    raise OptionError(f"{key}.{name}: should be a text, got {brief(root)}")
    if training and "train" not in datasets:
        raise OptionError(f"datasets.train: is missing{nearest('train', datasets)}")


def _check_purpose(dataset: Any, model: type, phase: str, key: str) -> None:
    """Whether a data set's samples are what the model trains on or is tested on, as far as that is known."""
    unpaired = getattr(dataset, "Options", None) is UnpairedRainOptions
    distils = getattr(model, "TrainOptions", None) is DistillationTrainOptions
    is_known = hasattr(dataset, "Options") or dataset.__module__.startswith("basicsr.")
    if phase != "train" and unpaired:
        raise OptionError(
            f"{key}.type: {dataset.__name__} is for training; take PairedRainDataset or SingleRainDataset"
        )
    if phase == "train" and is_known and distils != unpaired and (distils or model.__module__.startswith("basicsr.")):
        needed = "UnpairedRainDataset" if distils else "pairs, such as those of PairedImageDataset"
        raise OptionError(f"{key}.type: {model.__name__} does not train on {dataset.__name__}; it needs {needed}")


def _class(table: Any, name: Any, key: str, what: str) -> Any:
    if name is None:
        raise OptionError(f"{key}: is missing")
    classes = dict(iter(table))
    found = classes.get(str(name)) or classes.get(f"{name}_basicsr")
    if found is None:
        for card in CATALOGUE if what == "network" else ():
            if card.name == name and not card.installed:
                raise OptionError(f"{key}: {name} comes with {card.package} ({card.licence}); {INSTALL_EXTRA}")
        names = [word.removesuffix("_basicsr") for word in classes]
        raise OptionError(
            f"{key}: no {what} is called {brief(name)}{nearest(str(name), names)} ('basicsr list' shows all)"
        )
    return found


def _typed(table: Any, options: Any, key: str, what: str) -> None:
    """Check options that name a class and hold the arguments of its constructor."""
    if not isinstance(options, Mapping):
        raise OptionError(f"{key}: expected keys and values, got {brief(options)}")
    found = _class(table, options.get("type"), f"{key}.type", what)
    check_call(found, {word: value for word, value in options.items() if word != "type"}, key)
    if isinstance(options.get("backbone"), Mapping):
        _typed(table, options["backbone"], f"{key}.backbone", what)


def _read_with(section: type[S], values: Any, key: str, read: set[str] | None, warnings: list[str]) -> S:
    """Read a section of which only some keys are declared; others should be among those that code is seen to read.

    ``read`` is None where all of them are declared.
    """
    if read is None:
        return read_section(section, values, key)
    if not isinstance(values, Mapping):
        raise OptionError(f"{key}: expected keys and values, got {brief(values)}")
    known = {*section.model_fields, *read, *_PASSED_ON}
    for name in values:
        if name in known or _OPTIMISER.fullmatch(str(name)):
            continue
        place = f"{key}.{name}" if key else str(name)
        if near := nearest(str(name), known, cutoff=0.8):
            raise OptionError(f"{place}: unknown key{near}")
        warnings.append(f"{place}: nothing seems to read this key")
    return read_section(section, {name: item for name, item in values.items() if name in section.model_fields}, key)
