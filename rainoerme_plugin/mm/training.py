"""Training by mmengine's Runner: of BasicSR's option files, and of mmengine's own configs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import utils as device_of_mmengine
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import find_latest_checkpoint

from ..archs.adapt import is_out_of_memory
from ..config import Request, parse_override
from ..devices import keep_memory, pick_device
from ..errors import CollapseError, OptionError, RainOerMeError, described
from ..processes import beside, claimed, first_decides, leave_processes, losses_told
from ..registered.metrics import Metrics, try_first
from ..registry import DATASETS, MODELS
from ..training.best import best_rule
from ..training.checkpoints import Checkpoint, changes
from ..training.checks import check_trainable, try_crop
from ..training.continuing import find_checkpoint, retreat, with_warmup
from ..training.opening import complete, made_and_read, open_folder, settle_seed
from ..weights import checkpoint_of, save_networks
from .hooks import networks_of
from .runner import DistillationRunner
from .translate import runner_config


def train(request: Request) -> Path | None:
    """Train as an option file (YAML) or a config of mmengine's (Python) says, from the start or the last checkpoint.

    Returns:
        The network's file; None in all processes but the first.

    Raises:
        RainOerMeError: What the user can mend, on one line.
    """
    if request.option_file.suffix == ".py":
        return _train_config(request)
    opt = complete(request, training=True)
    runner_config(opt)  # for what it refuses
    _compute_on(opt["device"])
    with losses_told(opt["rank"], opt["world_size"]), claimed(Path(opt["path"]["log"])):
        network = _train(opt)
        leave_processes()
    return network


def _compute_on(device: str) -> None:
    """Tell mmengine, which finds a device by itself and has no option for another."""
    found = torch.device(device)
    device_of_mmengine.DEVICE = found.type
    if found.type == "cuda" and found.index is not None:
        torch.cuda.set_device(found)
    if found.type == "cpu":
        keep_memory()


def _train(opt: dict[str, Any]) -> Path | None:
    checkpoint, problems = find_checkpoint(opt)
    state = checkpoint.state if checkpoint else {}
    settle_seed(opt, (state.get("options") or {}).get("manual_seed"))
    notes = [*opt["warnings"], *(f"passed over: {problem}" for problem in problems)]
    if "options" in state:
        differences = changes(state["options"], opt["asked"])
        notes += [f"changed since the checkpoint, whose rates are kept: {difference}" for difference in differences]
    keep, went_back, warmup = checkpoint is not None, int(state.get("went_back", 0)), state.get("warmup")
    while True:
        runner = _runner(runner_config(with_warmup(opt, warmup), went_back), opt, checkpoint, keep, notes)
        for note in notes:
            runner.logger.warning(note)
        try:
            runner.train()
        except CollapseError as error:
            went_back += 1
            checkpoint, warmup, told = retreat(opt, error, went_back)
            notes, keep = [told], True
            settle_seed(opt)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise RainOerMeError(
                    f"out of memory on {opt['device']}; lower datasets.train.batch_size_per_gpu or crop_size, or raise "
                    "train.accumulation, and go on with --auto_resume"
                ) from error
            raise
        else:
            return _latest(opt, runner)


def _runner(
    config: dict[str, Any], opt: dict[str, Any], checkpoint: Checkpoint | None, keep: bool, notes: list[str]
) -> DistillationRunner:
    """The runner. What is wrong with data and model shows before an older run is set aside.

    What is to be told of the data is added to ``notes``.
    """
    parts = deepcopy(config)
    possible: dict[str, Metrics] = {}
    try:
        loader = parts["train_dataloader"]
        for each in (loader, *_val_loaders(parts)):
            each["dataset"] = dataset = _dataset(each["dataset"])
            if each is loader:
                notes += dataset.notes
            else:
                name = dataset.opt["name"]
                possible[name], told = try_first(dataset[0], opt["val"].get("metrics"), name)
                notes += told
        parts["model"] = model = MODELS.build(parts["model"])
        check_trainable(model.network, opt["network_g"]["type"], model.options, loader["batch_size"])
        for side in loader["dataset"].crop_sizes:
            try_crop(model.network, side)
    except RainOerMeError:
        raise
    except Exception as error:  # of any package's network
        if is_out_of_memory(error):
            raise
        raise OptionError(f"the model cannot be built: {described(error)}") from error
    if rule := best_rule(opt.get("val"), possible):
        for each in (parts, config):
            each["custom_hooks"].append({"type": "BestCheckpointHook", **rule.model_dump()})
    open_folder(opt, keep=keep)
    first_decides(lambda: None)  # the folder is there for all
    if checkpoint is not None:
        parts.update(load_from=str(checkpoint.path), resume=True)
    for name in ("custom_imports", "runner_type", "model_wrapper_cfg"):
        parts.pop(name)
    return DistillationRunner(**parts, cfg=Config(config))


def _dataset(options: dict[str, Any]) -> Any:
    """A data set of an option file, which may be one that BasicSR's registry alone has."""
    from basicsr.data import build_dataset

    return made_and_read(DATASETS.build if options["type"] in DATASETS else build_dataset, options)


def _val_loaders(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    first = [config["val_dataloader"]] if "val_dataloader" in config else []
    return first + [other["dataloader"] for other in config.get("val_cfg", {}).get("others", ())]


def _latest(opt: Mapping[str, Any], runner: DistillationRunner) -> Path | None:
    """The network alone, where BasicSR's engine leaves it."""
    if opt["rank"] != 0:
        return None
    saved: dict[str, Any] = {}
    for key, network in networks_of(runner).items():
        saved.update(checkpoint_of(network, key))
    file = Path(opt["path"]["models"]) / "net_g_latest.pth"
    save_networks(saved, file)
    return file


class _Begun(Hook):
    """Notes that all parts of a run could be built: much is so only when it begins."""

    noted = False

    def before_train(self, runner: Any) -> None:
        self.noted = True


def _train_config(request: Request) -> Path | None:
    """Train as a config of mmengine's says; whatever it imports is run."""
    file = request.option_file
    try:
        config = Config.fromfile(file)
        config.merge_from_dict(dict(parse_override(text) for text in request.overrides))
    except RainOerMeError:
        raise
    except Exception as error:  # it is Python
        raise OptionError(f"{file}: {described(error)}") from error
    config.setdefault("work_dir", str(request.root / "experiments" / file.stem))
    if request.launcher != "none":
        config.launcher = request.launcher
    if request.auto_resume:
        config.resume = True
    if request.device != "auto":
        told = "" if request.launcher == "none" else os.environ.get("LOCAL_RANK", "")
        local_rank = int(told) if told.isdigit() else 0
        _compute_on(str(pick_device(request.device, local_rank, beside(local_rank))))
    begun = _Begun()
    try:
        runner = RUNNERS.build(config) if "runner_type" in config else DistillationRunner.from_cfg(config)
        runner.register_hook(begun)
        runner.train()
    except RainOerMeError:
        raise
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:  # mmengine's ways to refuse
        if begun.noted:
            raise
        if isinstance(error, KeyError) and error.args[0] in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            raise OptionError(f"{file}: is for several processes: torchrun, --launcher pytorch") from error
        raise OptionError(f"{file}: {described(error)}") from error
    saved = find_latest_checkpoint(runner.work_dir)
    rank = runner.rank
    leave_processes()
    return Path(saved) if saved and rank == 0 else None
