"""A network with its weights, from the folder of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..archs.result_images import ResultImages
from ..checkpoint_files import Iteration
from ..config import read_options
from ..errors import OptionError, WeightsError
from ..files import user_path
from ..weights import load_weights


@dataclass(frozen=True)
class RunNetwork:
    """What a training run has made."""

    network: nn.Module
    file: Path
    """Of its weights."""
    built_from: Mapping[str, Any]
    """``network_g``, without what its weights came from."""
    options: Mapping[str, Any]
    """All that the run's options.yml says."""


def open_run(folder: str | Path, iteration: Iteration = "latest") -> RunNetwork:
    """The network of a training run, on the CPU, with the weights that were saved at ``iteration``.

    Raises:
        OptionError: The folder is not that of a run, or its options name no network that can be built.
        WeightsError: Its weights are missing, damaged, or of another network.
    """
    folder = user_path(folder)
    record = folder / "options.yml"
    if not record.is_file():
        raise OptionError(f"{folder} is no folder of a training run: it has no options.yml")
    run = read_options(record)
    options = run.get("network_g")
    if not isinstance(options, Mapping):
        raise OptionError(f"{record}: network_g: is missing")
    # The checkpoint holds the whole network: the file that training began with need not be there any more.
    options = {**options, **({"pretrained": None} if "pretrained" in options else {})}
    file = run_weights(folder, iteration)
    if iteration == "best" and not file.is_file():
        raise WeightsError(
            f"{file} is missing: a run keeps its best network if its option file names val.best.metric, from its first "
            "validation on"
        )
    network = build_checked(options, f"{record}: network_g")
    load_weights(network, file)
    return RunNetwork(network, file, options, run)


def run_weights(folder: str | Path, iteration: Iteration = "latest") -> Path:
    """The file of the weights that a training run saved at ``iteration``."""
    return user_path(folder) / "models" / f"net_g_{iteration}.pth"


def build_checked(options: Mapping[str, Any], key: str) -> nn.Module:
    """A registered network, its options checked as those of ``network_g`` are; ``key`` names them in errors."""
    from basicsr.archs import build_network

    from ..plugin import register, registries
    from ..schema import check_network

    register()
    check_network(registries()["arch"], options, key)
    try:
        network = build_network(dict(options))
    except (TypeError, ValueError, AssertionError) as error:
        raise OptionError(f"{key}: {error}") from None
    if isinstance(network, ResultImages):
        raise OptionError(f"{key}: a folder of result images is no network")
    return network
