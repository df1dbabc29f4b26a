"""Checks a whole option file before anything is read or written: names, keys, types.

What the plugin declares (`options`) is checked key by key. BasicSR's own classes, and other plugins', declare
nothing: for networks, losses, metrics, optimisers and schedulers a trial tells, and their signatures say what is wrong;
for models and data sets, which take one dict, the keys that their source code reads. There a key that nothing reads is
an error where it is nearly one that is read, and else a warning: BasicSR's own files hold some such leftovers. What
BasicSR itself would run is not refused; what cannot be told before is the run's own to refuse.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from .archs.catalogue import CATALOGUE, INSTALL_EXTRA
from .data.order import LATE_FROM
from .errors import OptionError, brief, nearest
from .horizon import of_no_use
from .losses.total import LOSSES, SumLoss
from .options import (
    AdversarialOptions,
    DistillationOptions,
    DistillationTrainOptions,
    LoaderOptions,
    Section,
    UnpairedRainOptions,
    check_refinements,
    read_section,
)
from .registered.lr_scheduler import SCHEDULES, STOCK, read_schedule
from .run_options import (
    DistOptions,
    LoggerOptions,
    PathOptions,
    StockTrainOptions,
    TopOptions,
    ValOptions,
    WandbOptions,
    check_best,
)
from .signatures import check_call, keys_read_by
from .trials import (
    check_numbers,
    try_comparison,
    try_loss,
    try_metric,
    try_network,
    try_optimiser,
    try_schedule,
)

S = TypeVar("S", bound=Section)


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
        Warnings: keys that nothing seems to read, or of which so short or long a run makes nothing.

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
    _check_path(options.get("path") or {}, read_by_model, warnings)
    logger = _read_with(LoggerOptions, options.get("logger") or {}, "logger", read_by_model, warnings)
    if logger.wandb:
        _tell_unread(options["logger"]["wandb"], WandbOptions.model_fields, "logger.wandb", read_by_model, warnings)
    if options.get("dist_params"):
        _tell_unread(options["dist_params"], DistOptions.model_fields, "dist_params", read_by_model, warnings)
    if "val" in options:
        val = _check_val(options["val"] or {}, tables["metric"], read_by_model, warnings)
        if training:
            check_best(val, options["datasets"])
    if training:
        train = _check_training(options, model, tables, read_by_model, warnings)
    _check_datasets(options["datasets"], tables["dataset"], model, training, warnings)
    if training:
        warnings += _too_short(train, options, logger)
        if isinstance(train, DistillationTrainOptions):
            _check_bank(options["datasets"]["train"], train.distillation, warnings)
            _check_crops(options["datasets"]["train"], train.distillation.adversarial)
    for key, network in named.items():  # the one check that takes time
        check_network(tables["arch"], network, key)
    return warnings


def check_network(table: Any, options: Any, key: str) -> None:
    """Check options that name a network of a registry's ``table`` and hold its arguments.

    Raises:
        OptionError: There is no such network, or it does not take these arguments.
    """
    found = _typed(table, options, key, "network")
    arguments = {name: value for name, value in options.items() if name not in ("type", "pretrained")}
    backbone = options.get("backbone")
    if isinstance(backbone, Mapping) and backbone["type"] not in _FROM_FILES:  # first, to name its own arguments
        check_network(table, backbone, f"{key}.backbone")
    if any(part.get("type") in _FROM_FILES for part in (options, backbone or {})):
        return
    if _is_listed(options["type"]):
        check_numbers(arguments, key)
    with _said_better(found, arguments, key):
        try_network(found, arguments, key)


def _is_known(found: Any) -> bool:
    """Whether a class or function is this package's or BasicSR's, so that it is known how it is used."""
    return str(found.__module__).split(".")[0] in (__package__, "basicsr")


def _is_listed(network: str) -> bool:
    from .plugin import ENTRIES

    return any(entry.kind == "arch" and entry.name == network for entry in ENTRIES)


@contextmanager
def _said_better(found: Any, arguments: Mapping[str, Any], key: str) -> Iterator[None]:
    """Where a trial fails for an argument of another type than the signature has, say that."""
    try:
        yield
    except OptionError:
        check_call(found, arguments, key)
        raise


@contextmanager
def _deciding(found: Any, warnings: list[str]) -> Iterator[None]:
    """Let a trial refuse only what is known here: nobody knows what images the code of others is for."""
    try:
        yield
    except OptionError as error:
        if _is_known(found):
            raise
        warnings.append(f"{error} (this was a trial; the run may do better)")


def _check_path(path: Mapping[str, Any], read_by_model: set[str] | None, warnings: list[str]) -> None:
    rest = {key: value for key, value in path.items() if not _PATH.fullmatch(key)}
    known = [*PathOptions.model_fields, "pretrain_network_g", "strict_load_g", "param_key_g"]
    _tell_unread(rest, known, "path", read_by_model, warnings)
    read_section(PathOptions, {key: value for key, value in rest.items() if key in PathOptions.model_fields}, "path")
    for key in path.keys() - rest.keys():
        wanted = bool if key.startswith("strict_load") else str
        if not isinstance(path[key], wanted | None) or path[key] == "":
            what = "true or false" if wanted is bool else "a text, or ~ for none"
            raise OptionError(f"path.{key}: should be {what}, got {brief(path[key])}")


def _check_val(val: Mapping[str, Any], metrics: Any, read_by_model: set[str] | None, warnings: list[str]) -> ValOptions:
    section = _read_with(ValOptions, val, "val", read_by_model, warnings)
    for name, options in (section.metrics or {}).items():
        key = f"val.metrics.{name}"
        metric = _class(metrics, options.get("type"), f"{key}.type", "metric")
        arguments = {word: value for word, value in options.items() if word not in ("type", "better")}
        check_call(metric, arguments, key, skip=("img", "img2"), typed=False)
        if _is_known(metric):  # BasicSR's take any key, and read only those of their signature
            _tell_unread(arguments, {*inspect.signature(metric).parameters} - {"kwargs"}, key, set(), warnings)
        with _deciding(metric, warnings):
            try_metric(metric, arguments, key)
    return section


def _check_training(
    options: Mapping[str, Any],
    model: Any,
    tables: Mapping[str, Any],
    read_by_model: set[str] | None,
    warnings: list[str],
) -> Section:
    train = options.get("train")
    if train is None:
        raise OptionError("train: is missing")
    declared = getattr(model, "TrainOptions", None)
    if declared is not None:
        section: Section = read_section(declared, train, "train")
        if isinstance(section, DistillationTrainOptions):
            section.distillation.build()
            check_refinements(section)
    else:
        section = _read_with(StockTrainOptions, train, "train", read_by_model, warnings)
    for key, value in train.items():
        if key.endswith("_opt") and value is not None:
            _check_loss(tables["loss"], value, f"train.{key}", _is_known(model), warnings)
    if "optim_g" not in train and (read_by_model is None or "optim_g" in read_by_model):
        raise OptionError(f"train.optim_g: is missing{nearest('optim_g', train)}")
    # Models of others may make both in ways of their own.
    if not (_is_known(model.setup_optimizers) and _is_known(model.get_optimizer)):
        return section
    optimisers = [_check_optimiser(value, f"train.{key}") for key, value in train.items() if key.startswith("optim_")]
    if _is_known(model.setup_schedulers):
        if train.get("scheduler") is None:
            raise OptionError(f"train.scheduler: is missing{nearest('scheduler', train)}")
        schedule = read_schedule(train["scheduler"], known=STOCK if declared is None else SCHEDULES)
        total = int(train["total_iter"])
        for optimiser in optimisers:
            try_schedule(schedule.build, optimiser, total, "train.scheduler")
        warnings += [f"train.scheduler: {text} (train.total_iter: {total})" for text in schedule.misfits(total)]
    return section


def _too_short(train: Section, options: Mapping[str, Any], logger: LoggerOptions) -> list[str]:
    """What the run is too short for."""
    val = options.get("val") or {}
    every = {"val.val_freq": val.get("val_freq")}
    every |= {f"logger.{name}": getattr(logger, name) for name in ("save_checkpoint_freq", "print_freq")}
    patience = (val.get("best") or {}).get("patience")
    if isinstance(train, StockTrainOptions):
        return of_no_use(train.total_iter, train.warmup_iter, every, patience=patience)
    if not isinstance(train, DistillationTrainOptions):
        return []
    data = options["datasets"]["train"]
    late_from = data.get("late_from", LATE_FROM) if data.get("late_crop_size") else None
    parts = train.distillation, train.backbone, train.collapse_guard
    return of_no_use(train.total_iter, train.warmup_iter, every, *parts, patience, late_from)


def _check_loss(losses: Any, options: Any, key: str, model_is_known: bool, warnings: list[str]) -> None:
    if not model_is_known and not (isinstance(options, Mapping) and str(options.get("type")) in dict(iter(losses))):
        return  # a section of another kind
    found = _typed(losses, options, key, "loss")
    if options["type"] == SumLoss.__name__ and isinstance(options["losses"], list):
        for place, each in enumerate(options["losses"]):
            _check_loss(LOSSES.items(), each, f"{key}.losses.{place}", model_is_known, warnings)
    if options["type"] == "PerceptualLoss":  # downloads its network
        return
    arguments = {word: value for word, value in options.items() if word != "type"}
    with _said_better(found, arguments, key):
        try_loss(found, arguments, key)
        # What other losses are called with, their models know.
        if model_is_known and key.startswith(("train.loss_opt", "train.pixel_opt")):
            with _deciding(found, warnings):
                try_comparison(found, arguments, key)


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
            for name, root in options.items() if _is_known(dataset) else ():
                if name.startswith("dataroot") and not isinstance(root, str | None):
                    raise OptionError(f"{key}.{name}: should be a text, got {brief(root)}")
    if training and "train" not in datasets:
        raise OptionError(f"datasets.train: is missing{nearest('train', datasets)}")


def _check_bank(data: Mapping[str, Any], distillation: DistillationOptions, warnings: list[str]) -> None:
    """Whether there is a bank of rain where one is asked for, and one is asked for where it is.

    Args:
        data: ``datasets.train``.
        distillation: ``train.distillation``.
        warnings: Is told of a bank that nothing uses.
    """
    there, share, adversarial = data.get("rain") is not None, distillation.rain.bank, distillation.adversarial
    judged = adversarial.weight > 0 and adversarial.domain == "rain"
    if share and not there:
        raise OptionError(
            f"train.distillation.rain.bank: {share:g} of the clean images should get rain of a bank, but "
            "datasets.train.rain names none; write 'rain: {type: plain}' there"
        )
    if judged and not there:
        raise OptionError(
            "train.distillation.adversarial.domain: the network's rain should be told from that of a bank, but "
            "datasets.train.rain names none; write 'rain: {type: plain}' there, or take domain: derained"
        )
    if there and not share and not judged:
        warnings.append(
            "datasets.train.rain: nothing uses it; say in train.distillation.rain.bank which share of the clean images "
            "gets its rain (0 to 1), or write 'rain: ~'"
        )


def _check_crops(data: Mapping[str, Any], adversarial: AdversarialOptions) -> None:
    """Whether a discriminator can judge crops of this size."""
    side = data.get("crop_size", UnpairedRainOptions.model_fields["crop_size"].default)
    side = min(side, data.get("late_crop_size") or side)
    if adversarial.weight > 0 and side < 2**adversarial.layers:
        raise OptionError(
            f"train.distillation.adversarial.layers: {adversarial.layers} need crops of at least "
            f"{2**adversarial.layers} pixels, those of datasets.train have {side}; take fewer"
        )


def _check_purpose(dataset: Any, model: type, phase: str, key: str) -> None:
    """Whether a data set's samples are what the model trains on or is tested on, as far as that is known."""
    unpaired = getattr(dataset, "Options", None) is UnpairedRainOptions
    distils = getattr(model, "TrainOptions", None) is DistillationTrainOptions
    is_known = hasattr(dataset, "Options") or _is_known(dataset)
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
        there = f"; there are {', '.join(names)}" if len(names) < 10 else " ('basicsr list --all' shows all)"
        raise OptionError(f"{key}: no {what} is called {brief(name)}{nearest(str(name), names)}{there}")
    return found


def _typed(table: Any, options: Any, key: str, what: str) -> Any:
    """The class that options name, whose constructor's arguments they hold; names are checked, types of our own."""
    if not isinstance(options, Mapping):
        raise OptionError(f"{key}: expected keys and values, got {brief(options)}")
    found = _class(table, options.get("type"), f"{key}.type", what)
    arguments = {word: value for word, value in options.items() if word != "type"}
    check_call(found, arguments, key, typed=str(found.__module__).split(".")[0] == __package__)
    if isinstance(options.get("backbone"), Mapping):
        _typed(table, options["backbone"], f"{key}.backbone", what)
    return found


def _read_with(section: type[S], values: Any, key: str, read: set[str] | None, warnings: list[str]) -> S:
    """Read a section of which only some keys are declared; others should be among those that code is seen to read.

    ``read`` is None where all of them are declared.
    """
    if read is None:
        return read_section(section, values, key)
    if not isinstance(values, Mapping):
        raise OptionError(f"{key}: expected keys and values, got {brief(values)}")
    others = {name: value for name, value in values.items() if not _OPTIMISER.fullmatch(str(name))}
    _tell_unread(others, {*section.model_fields, *_PASSED_ON}, key, read, warnings)
    return read_section(section, {name: item for name, item in values.items() if name in section.model_fields}, key)


def _tell_unread(
    values: Mapping[str, Any], declared: Iterable[str], key: str, read: set[str] | None, warnings: list[str]
) -> None:
    """Warn of keys that are neither declared nor ``read``; refuse them if nearly such a key, or ``read`` is None."""
    known = {*declared, *(read or ())}
    for name in values:
        if name in known:
            continue
        place = f"{key}.{name}" if key else str(name)
        if near := nearest(str(name), known, cutoff=0.6 if read is None else 0.8):
            raise OptionError(f"{place}: unknown key{near}")
        if read is None:
            raise OptionError(f"{place}: unknown key; known are {', '.join(declared)}")
        warnings.append(f"{place}: nothing seems to read this key")
