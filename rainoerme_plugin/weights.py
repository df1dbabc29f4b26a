"""Checkpoints: find the weights in a published file, and load all of them or say why not; write our own."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .archs.adapt import checkpoint_parts
from .archs.recognise import find_own
from .errors import RainOerMeError, WeightsError
from .files import write_whole

PARAMETER_KEYS = ("params_ema", "params", "state_dict", "net", "model", "model_state_dict")
"""Where files keep their state dict, in the order of preference; else it is the file itself."""

_LISTED = 3


class Loaded(NamedTuple):
    """How much of a network came from a file."""

    loaded: int
    total: int
    fresh: tuple[str, ...] = ()
    """Parts of the network that the file does not have, and that were left as they were."""


def read_checkpoint(path: str | Path) -> Any:
    """What a ``.pth``, ``.state`` or ``.safetensors`` file holds, on the CPU; only tensors and plain types are read.

    Raises:
        WeightsError: The file is missing, damaged, or holds objects that would run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f"no such checkpoint: {path} (looked from {Path.cwd()})")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    _check_archive(path)
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
        if "TorchScript" in str(error):
            raise WeightsError(f"{path}: a TorchScript archive, which holds code; needed is its state_dict()") from None
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or damaged") from None


def _check_archive(path: Path) -> None:
    """Compare what a file of ``torch.save`` holds with the checksums in it (CRC-32), which PyTorch writes but ignores.

    Files in the format before PyTorch 1.6 have none.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any("/code/" in record.filename for record in records):
                return  # TorchScript, which torch.load refuses
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise WeightsError(f"{path}: a compressed archive, which torch.save does not write; refused")
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or damaged ({error})") from None
    if broken is not None:
        raise WeightsError(f"{path}: damaged: {broken} in it does not match its checksum; fetch or make it again")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, UnicodeDecodeError):
        raise WeightsError(f"{path}: not a safetensors file, or damaged") from None


def find_state_dict(checkpoint: Any, path: str | Path, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict in a checkpoint: under ``key`` if that is there, else under the first of `PARAMETER_KEYS`.

    Returns:
        The state dict, and the key it was found under (empty: the file itself).

    Raises:
        WeightsError: There is none.
    """
    found, where = checkpoint, ""
    if isinstance(checkpoint, Mapping):
        for candidate in (key, *PARAMETER_KEYS):
            if candidate is not None and isinstance(checkpoint.get(candidate), Mapping):
                found, where = checkpoint[candidate], candidate
                break
    if not _is_state_dict(found):
        raise WeightsError(f"{path}: no network's weights found at the top or under {', '.join(PARAMETER_KEYS)}")
    return {str(name): value for name, value in found.items()}, where


def _is_state_dict(found: Any) -> bool:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(value, Tensor) for value in found.values())


def without_prefixes(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """``state`` as it is, then without the first part of its names (``module.``, ``netG.`` ...) while all share it."""
    current = dict(state)
    while True:
        yield current
        first = {name.partition(".")[0] for name in current}
        if len(first) != 1 or not all("." in name for name in current):
            return
        current = {name.partition(".")[2]: value for name, value in current.items()}


def load_weights(network: nn.Module, path: str | Path, key: str | None = None, *, strict: bool = True) -> Loaded:
    """Load a published or saved checkpoint into ``network``.

    Prefixes that wrappers left before all names (``module.``, ``netG.``, ``derainet.``) are taken off as far as that
    makes them fit. A network of several parts (`checkpoint_parts`) gets those that the file has; its main
    part must be there.

    Args:
        network: What to load into.
        path: The file.
        key: Where its state dict is; None looks in the usual places.
        strict: Whether every weight must match; else what matches by name and shape is loaded.

    Returns:
        How many of the weights were loaded, and how many there are, of the parts that the file has.

    Raises:
        WeightsError: The file cannot be read, holds values that are not finite, nothing matches, or ``strict`` and
            something does not.
    """
    checkpoint = read_checkpoint(path)
    main, where = find_state_dict(checkpoint, path, key)
    loaded = total = 0
    fresh = []
    plans = []
    for suffix, part in checkpoint_parts(network).items():
        state = main if not suffix else checkpoint.get(where + suffix) if where else None
        if state is None:
            fresh.append(suffix.lstrip("_"))
            continue
        if not _is_state_dict(state):
            raise WeightsError(f"{path}: no network's weights found under {where}{suffix}")
        matching = _match(part, state, path, strict)
        plans.append((part, matching))
        loaded, total = loaded + len(matching), total + len(part.state_dict())
    for part, matching in plans:
        part.load_state_dict(matching, strict=False)
    return Loaded(loaded, total, tuple(fresh))


def _match(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, strict: bool) -> dict[str, Tensor]:
    own = network.state_dict()
    found = max(without_prefixes(state), key=lambda candidate: len(own.keys() & candidate.keys()))
    matching = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if len(matching) != len(own) or len(matching) != len(found):
        problems = {
            "missing": [name for name in own if name not in found],
            "unexpected": [name for name in found if name not in own],
            "of another shape": [
                f"{name} {tuple(found[name].shape)} for {tuple(own[name].shape)}"
                for name in own
                if name in found and name not in matching
            ],
        }
        described = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
        if strict or not matching:
            known = next(filter(None, map(find_own, without_prefixes(state))), None)
            whose = ""
            if known is not None:
                card, arguments = known
                whose = (
                    f" (it is of {card.name}" + "".join(f", {key}: {value}" for key, value in arguments.items()) + ")"
                )
            raise WeightsError(
                f"{path} does not fit {type(network).__name__}{whose}: {len(matching)} of {len(own)} weights match; "
                f"{described}"
            )
    check_finite(matching, path)
    return matching


def _some(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (" ..." if len(names) > _LISTED else "")


def check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that are not numbers.

    Raises:
        WeightsError: One is NaN or infinite; the message names it.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise WeightsError(f"{path}: {name} holds NaN or infinite values; the file is of no use")


def checkpoint_of(network: nn.Module, key: str) -> dict[str, dict[str, Tensor]]:
    """What to save of ``network`` under ``key``, and its further parts beside it; on the CPU."""
    return {
        key + suffix: {name: value.cpu() for name, value in part.state_dict().items()}
        for suffix, part in checkpoint_parts(network).items()
    }


def save_checkpoint(value: Any, path: Path) -> str:
    """``torch.save`` that leaves the old file or the new one on the disk, never a part.

    Returns:
        The SHA-256 of the file.

    Raises:
        RainOerMeError: The file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return _save(buffer.getvalue(), path)


def save_safetensors(network: nn.Module, path: Path) -> None:
    """Save what derains of a network (its main part, `checkpoint_parts`) as safetensors, for whoever reads those.

    Raises:
        RainOerMeError: The file cannot be written.
    """
    import safetensors.torch

    state = checkpoint_parts(network)[""].state_dict()
    # Copies, for the format has no tensors that share memory.
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    _save(safetensors.torch.save(tensors, {"format": "pt"}), path)


def _save(data: bytes, path: Path) -> str:
    try:
        write_whole(path, data, durable=True)
    except OSError as error:
        raise RainOerMeError(
            f"cannot save {path}: {os.strerror(error.errno or 0)}; mend that and run again with --auto_resume"
        ) from None
    return hashlib.sha256(data).hexdigest()
