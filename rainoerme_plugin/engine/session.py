"""What a run needs before its first iteration: checked options, folders, a log, a device, seeds."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from ..archs.adapt import is_out_of_memory
from ..config import Request, read_options
from ..devices import pick_device
from ..errors import OptionError, RainOerMeError, described
from ..files import remove_leftovers, user_path, write_whole
from ..plugin import register
from ..processes import first_decides, join_processes
from ..progress import is_terminal
from ..schema import check_options
from .mend import mend_basicsr


def begin(request: Request, *, training: bool) -> dict[str, Any]:
    """Read and check the option file, join the other processes, and complete the options as BasicSR wants them.

    Nothing is written yet.

    Raises:
        OptionError: The option file is not right, or the device or the launcher is not there.
    """
    raw = read_options(request.option_file, request.overrides)
    _take_over_logger()
    register()
    mend_basicsr()
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
        for key in [key for key in dataset if key.startswith("dataroot") and dataset[key]]:
            dataset[key] = _found(dataset[key], request.root)
        if isinstance(dataset.get("label"), Mapping) and dataset["label"].get("path"):
            dataset["label"]["path"] = _found(dataset["label"]["path"], request.root)
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


def _found(name: str, root: Path) -> str:
    """A path as given, from here; what is not here but below ``--root`` is meant there."""
    path = user_path(name)
    return str(root.resolve() / path if not path.exists() and (root / path).exists() else path)


def _is_restart() -> bool:
    """Whether torchrun or SLURM has started the run again after it had ended before its time."""
    counts = (os.environ.get(name, "") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count.isdigit() and int(count) > 0 for count in counts)


def settle_seed(opt: dict[str, Any], before: int | None = None) -> None:
    """Seed all generators by ``manual_seed``; where that is null, by the seed of the run before, or one drawn now."""
    from basicsr.utils import set_random_seed

    if opt.get("manual_seed") is None:
        drawn = random.SystemRandom().randrange(2**31) if before is None else before
        opt["manual_seed"] = opt["asked"]["manual_seed"] = first_decides(lambda: drawn)
    for dataset in opt["datasets"].values():
        if dataset["type"] == "UnpairedRainDataset" and dataset.get("seed") is None:
            dataset["seed"] = opt["manual_seed"]
    set_random_seed((opt["manual_seed"] + opt["rank"]) % 2**32)


def build(opt: Mapping[str, Any]) -> Any:
    """The model, with its weights, while an earlier run of this name is still where it was.

    Raises:
        WeightsError: A checkpoint cannot be read, or is another network's.
        OptionError: The model or a network does not take its options, or the model not the network.
    """
    from basicsr.models import build_model

    try:
        return build_model(deepcopy(dict(opt)))  # BasicSR's models change theirs
    except RainOerMeError:
        raise
    except Exception as error:  # of any package's model or network
        if is_out_of_memory(error):
            raise
        raise OptionError(f"the model cannot be built: {described(error)}") from error


def brings_weights(network: Mapping[str, Any]) -> bool:
    """Whether a network's options name the file or folder that makes it what it is."""
    backbone = network.get("backbone")
    own = network.get("type") in ("PretrainedNet", "ResultImages") or bool(network.get("pretrained"))
    return own or (isinstance(backbone, Mapping) and brings_weights(backbone))


def open_folder(opt: Mapping[str, Any], keep: bool) -> None:
    """Make the run's folder; one that is there is kept, or set aside under a name with the time."""
    from basicsr.utils import get_time_str

    if opt["rank"] != 0:
        return
    folder = Path(opt["path"]["log"])
    if folder.exists() and not keep:
        stem = f"{folder.name}_archived_{get_time_str()}"
        names = (folder.with_name(stem + (f"_{number}" if number else "")) for number in count())
        aside = next(name for name in names if not name.exists())
        folder.rename(aside)
        print(f"An earlier {folder.name} was set aside as {aside}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    for part in (folder, folder / "models", folder / "training_states"):
        remove_leftovers(part)
    write_whole(folder / "options.yml", yaml.safe_dump(opt["asked"], sort_keys=False).encode())


def _take_over_logger() -> logging.Logger:
    """BasicSR's logger with our console in place of its own; until the run's folder is there, it only warns."""
    from basicsr.utils import logger as stock

    logger = logging.getLogger("basicsr")
    stock.initialized_logger["basicsr"] = True
    logger.handlers = [_Console()]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    return logger


@contextmanager
def holding_log(opt: Mapping[str, Any]) -> Iterator[list[logging.LogRecord]]:
    """Keep what is logged for `logging_to`: there is no folder for it yet."""
    records: list[logging.LogRecord] = []
    logger = _take_over_logger()
    logger.handlers = [_Holder(records)]
    logger.setLevel(logging.INFO if opt["rank"] == 0 else logging.ERROR)
    try:
        yield records
    finally:
        _take_over_logger()


@contextmanager
def logging_to(opt: Mapping[str, Any], kind: str, held: Sequence[logging.LogRecord] = ()) -> Iterator[logging.Logger]:
    """BasicSR's logger, writing to the run's folder and, in short, to standard error beside a progress bar.

    Args:
        opt: The run's options.
        kind: What the file's name begins with.
        held: What was logged before there was a folder.
    """
    from basicsr.utils import get_time_str

    logger = _take_over_logger()
    logger.setLevel(logging.INFO if opt["rank"] == 0 else logging.ERROR)
    if opt["rank"] == 0:
        file = _File(Path(opt["path"]["log"]) / f"{kind}_{opt['name']}_{get_time_str()}.log")
        logger.addHandler(file)
    for handler in logger.handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    for record in held:
        logger.handle(record)
    try:
        yield logger
    finally:
        for handler in logger.handlers:
            handler.close()
        _take_over_logger()


class _Holder(logging.Handler):
    """Keeps records in a list."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


class _File(logging.FileHandler):
    """A log file; where it can no longer be written, as on a full disk, training goes on and the console says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        with suppress(OSError):
            print(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)
        self.setLevel(logging.CRITICAL + 1)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written is tried once more
            super().close()


class _Console(logging.Handler):
    """Lines above the progress bar on a terminal, plain lines elsewhere; long reports stay in the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "only_file", False):
            return
        line = self.format(record)
        with suppress(OSError):  # a file on a full disk, or nobody's any more: the log file has it
            if is_terminal():
                tqdm.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr, flush=True)
