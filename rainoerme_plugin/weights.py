"""Published checkpoints: find the state dict in a file, and load all of it or say why not."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import WeightsError

PARAMETER_KEYS = ("params_ema", "params", "state_dict", "net", "model")
"""Where files keep their state dict, in the order of preference; else it is the file itself."""


def read_checkpoint(path: str | Path) -> Any:
    """What a ``.pth`` or ``.state`` file holds, on the CPU; only tensors and plain types are ever unpickled.

    Raises:
        WeightsError: The file is missing, damaged, or holds objects that would run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f"no such checkpoint: {path} (looked from {Path.cwd()})")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in as many ways as there are bytes
        # The unpickler's words for a class or function that it does not know.
        unknown = re.search(r"unsupported global|can only (create|build)", str(error), re.IGNORECASE)
        if isinstance(error, pickle.UnpicklingError) and unknown:
            raise WeightsError(
                f"{path}: holds more than tensors and plain types, which could run code on loading; refused. "
                "Save its state_dict() alone"
            ) from None
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or damaged") from None


def find_state_dict(checkpoint: Any, path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a checkpoint: under ``key`` if that is there, else under the first of `PARAMETER_KEYS`.

    The prefix ``module.`` that DataParallel leaves is taken off.

    Raises:
        WeightsError: There is none.
    """
    found = checkpoint
    if isinstance(checkpoint, Mapping):
        for candidate in (key, *PARAMETER_KEYS):
            if candidate is not None and isinstance(checkpoint.get(candidate), Mapping):
                found = checkpoint[candidate]
                break
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path}: no network's weights found at the top or under {', '.join(PARAMETER_KEYS)}")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def load_weights(
    network: nn.Module, path: str | Path, key: str | None = None, *, strict: bool = True
) -> tuple[int, int]:
    """Load a published or saved checkpoint into ``network``.

    Args:
        network: What to load into.
        path: The file.
        key: Where its state dict is; None looks in the usual places.
        strict: Whether every weight must match; else what matches by name and shape is loaded.

    Returns:
        How many of the network's weights were loaded, and how many it has.

    Raises:
        WeightsError: The file cannot be read, nothing matches, or ``strict`` and something does not.
    """
    loaded = find_state_dict(read_checkpoint(path), path, key)
    own = network.state_dict()
    matching = {name: value for name, value in loaded.items() if name in own and own[name].shape == value.shape}
    if len(matching) != len(own) or len(matching) != len(loaded):
        problems = {
            "missing": [name for name in own if name not in loaded],
            "unexpected": [name for name in loaded if name not in own],
            "of another shape": [
                f"{name} {tuple(loaded[name].shape)} for {tuple(own[name].shape)}"
                for name in own
                if name in loaded and name not in matching
            ],
        }
        described = "; ".join(f"{len(names)} {what}, first {names[0]}" for what, names in problems.items() if names)
        if strict or not matching:
            raise WeightsError(
                f"{path} does not fit {type(network).__name__}: {len(matching)} of {len(own)} weights match; "
                f"{described}"
            )
    network.load_state_dict(matching, strict=False)
    return len(matching), len(own)
