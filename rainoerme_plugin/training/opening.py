"""What a run needs before its first iteration, whichever engine it is for: checked options, folders, device, seed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml

from ..config import Request, read_options
from ..devices import pick_device
from ..errors import OptionError, RainOerMeError, described
from ..files import remove_leftovers, user_path, write_whole
from ..plugin import register
from ..processes import first_decides, join_processes
from ..progress import say
from ..schema import check_options
from .random_states import seed_all, undisturbed


def complete(request: Request, *, training: bool) -> dict[str, Any]:
    """Read and check the option file, join the other processes, and complete the options as BasicSR wants them.

    Nothing is written yet.

    Raises:
        OptionError: The option file is not right, or the device or the launcher is not there.
    """
    raw = read_options(request.option_file, request.overrides)
    register()
    try:
        warnings = check_options(raw, training=training)
    except OptionError as error:
        raise OptionError(f"{request.option_file}: {error}") from None
    settings = raw.get("dist_params") or {}
    patience = timedelta(seconds=settings.get("timeout") or 1800)
    rank, world, local_rank = join_processes(request.launcher, request.device, settings.get("port"), patience)
    opt = _complete(raw, request, training, rank, world)
    device = pick_device("cpu" if raw.get("num_gpu") == 0 and request.device == "auto" else request.device, local_rank)
    opt["device"] = str(device)
    opt["num_gpu"] = 1 if device.type == "cuda" else 0
    torch.backends.cudnn.benchmark = True
    opt["warnings"] = warnings
    return opt


def _complete(raw: Mapping[str, Any], request: Request, training: bool, rank: int, world: int) -> dict[str, Any]:
    opt = deepcopy(dict(raw))
    opt.update(is_train=training, dist=world > 1, rank=rank, world_size=world, root_path=str(request.root.resolve()))
    opt["auto_resume"] = request.auto_resume or _is_restart()
    opt["asked"] = deepcopy(dict(raw))
    opt["path"] = dict(opt.get("path") or {})
    defaults = {"print_freq": 100, "save_checkpoint_freq": 5000, "use_tb_logger": False}
    opt["logger"] = {**defaults, **(opt.get("logger") or {})}
    if opt.get("val") is not None:
        opt["val"] = {"save_img": False, "suffix": None, **opt["val"]}
    for phase, dataset in opt["datasets"].items():
        dataset["phase"] = phase.split("_")[0]
        dataset.setdefault("name", phase)
        if "scale" in opt:
            dataset.setdefault("scale", opt["scale"])
        for key in [key for key in dataset if key.startswith("dataroot") and isinstance(dataset[key], str | list)]:
            dataset[key] = _found(dataset[key], request.root)
        for key in ("label", "rain"):
            if isinstance(dataset.get(key), Mapping) and dataset[key].get("path"):
                dataset[key]["path"] = _found(dataset[key]["path"], request.root)
    _check_names(request.option_file, opt["datasets"])
    for key, value in opt["path"].items():
        if value and ("pretrain" in key or "resume_state" in key):
            opt["path"][key] = _found(value, request.root)
    root = Path(opt["root_path"]) / ("experiments" if training else "results") / opt["name"]
    opt["path"].update(log=str(root), visualization=str(root / "visualization"))
    if training:
        opt["path"].update(
            experiments_root=str(root), models=str(root / "models"), training_states=str(root / "training_states")
        )
    else:
        opt["path"]["results_root"] = str(root)
    return opt


def _check_names(option_file: Path, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse test sets of one name: figures and pictures are kept under it, also where upper case is lower case."""
    seen: dict[str, str] = {}
    for key, dataset in datasets.items():
        if dataset["phase"] == "train":
            continue
        other = seen.setdefault(str(dataset["name"]).casefold(), key)
        if other != key:
            raise OptionError(
                f"{option_file}: datasets.{key}.name: '{dataset['name']}' is the name of datasets.{other}, too; "
                "figures and pictures are kept by it, so give each test set its own"
            )


def _found(name: Any, root: Path) -> Any:
    """A path, or each of a list, as given, from here; what is not here but below ``--root`` is meant there."""
    if isinstance(name, list):
        return [_found(each, root) for each in name]
    path = user_path(name)
    return str(root.resolve() / path if not path.exists() and (root / path).exists() else path)


def _is_restart() -> bool:
    """Whether torchrun or SLURM has started the run again after it had ended before its time."""
    counts = (os.environ.get(name, "") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count.isdigit() and int(count) > 0 for count in counts)


def settle_seed(opt: dict[str, Any], before: int | None = None) -> None:
    """Seed all generators by ``manual_seed``; where that is null, by the seed of the run before, or one drawn now."""
    if opt.get("manual_seed") is None:
        drawn = random.SystemRandom().randrange(2**31) if before is None else before
        opt["manual_seed"] = opt["asked"]["manual_seed"] = first_decides(lambda: drawn)
    for dataset in opt["datasets"].values():
        if dataset["type"] == "UnpairedRainDataset" and dataset.get("seed") is None:
            dataset["seed"] = opt["manual_seed"]
    seed_all((opt["manual_seed"] + opt["rank"]) % 2**32)


def made_and_read(make: Callable[[Any], Any], opt: Mapping[str, Any]) -> Any:
    """A data set, whose first sample can be read if it is one of BasicSR's: much of theirs is read only then.

    Raises:
        DataError: It cannot be.
        OptionError: It does not take its options.
    """
    try:
        dataset = make(opt)
        if not hasattr(dataset, "Options"):
            with undisturbed():
                dataset[0]
    except RainOerMeError:
        raise
    except Exception as error:  # of any package's data set
        raise OptionError(f"datasets.{opt['phase']}: {described(error)}") from error
    return dataset


def open_folder(opt: Mapping[str, Any], keep: bool) -> None:
    """Make the run's folder; one that is there is kept, or set aside under a name with the time."""
    if opt["rank"] != 0:
        return
    folder = Path(opt["path"]["log"])
    if folder.exists() and not keep:
        stem = f"{folder.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"
        names = (folder.with_name(stem + (f"_{number}" if number else "")) for number in count())
        aside = next(name for name in names if not name.exists())
        folder.rename(aside)
        say(f"An earlier {folder.name} was set aside as {aside}")
    folder.mkdir(parents=True, exist_ok=True)
    for part in (folder, folder / "models", folder / "training_states"):
        remove_leftovers(part)
    write_whole(folder / "options.yml", yaml.safe_dump(opt["asked"], sort_keys=False).encode())
