"""Checkpoints: find the weights in a published file, and load all of them or say why not; write our own."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .archs.adapt import checkpoint_parts
from .archs.recognise import find_own, first_whole
from .errors import RainOerMeError, WeightsError
from .files import user_path, write_whole
from .pickles import UnsafePickle, check_pickle

PARAMETER_KEYS = ("params_ema", "params", "state_dict", "net", "model", "model_state_dict")
"""Where files keep their state dict, in the order of preference; else it is the file itself."""

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_NUMBERS = (*_FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_LEGACY_PICKLES = 5
"""That torch.load reads of a file without an archive: what it is, version, system, contents, storages."""
_LISTED = 3
_LONGEST_NAME = 150
_PREFIXES = 16
"""Parts of a name that may be what wrappers left; none leave so many."""
_SHARING = 32
"""Names that may stand for one and the same weights, on average."""


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
    path = user_path(path)
    if not os.path.isfile(path):
        raise WeightsError(f"no such checkpoint: {path} (looked from {Path.cwd()})")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    _check_archive(path)
    _check_pickles(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of a damaged file says the error
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


def _check_archive(path: Path) -> None:
    """Compare what a file of ``torch.save`` holds with the checksums in it (CRC-32), which PyTorch writes but ignores.

    Files in the format before PyTorch 1.6 have none.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any("/code/" in record.filename or record.filename.endswith("constants.pkl") for record in records):
                raise WeightsError(f"{path}: a TorchScript archive, which holds code; needed is its state_dict()")
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise WeightsError(f"{path}: a compressed archive, which torch.save does not write; refused")
            if sum(record.file_size for record in records) > path.stat().st_size:
                raise WeightsError(f"{path}: not a PyTorch checkpoint, or damaged (its records are longer than itself)")
            broken = archive.testzip()
    except WeightsError:
        raise
    except Exception as error:  # a damaged archive, too, fails in many ways
        reason = str(error) or type(error).__name__
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or damaged ({reason})") from None
    if broken is not None:
        raise WeightsError(f"{path}: damaged: {broken} in it does not match its checksum; fetch or make it again")


def _check_pickles(path: Path) -> None:
    """Refuse a file that would run code, take years, or fill the memory; what it says is gone through, not made."""
    try:
        with path.open("rb") as file:
            archived = file.read(4) == b"PK\3\4"  # how torch.load tells its formats apart
        if archived:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".pkl"):
                        check_pickle(io.BytesIO(archive.read(name)))
        else:
            with path.open("rb") as file:
                for _ in range(_LEGACY_PICKLES):
                    check_pickle(file)
    except UnsafePickle as error:
        raise WeightsError(
            f"{path}: holds more than tensors and plain types, which could run code on loading; refused ({error}). "
            "Save its state_dict() alone"
        ) from None
    except Exception:  # as many ways as there are bytes
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or damaged") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except Exception:  # its header may name anything
        raise WeightsError(f"{path}: not a safetensors file, or damaged") from None


def find_state_dict(checkpoint: Any, path: str | Path, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict in a checkpoint: under ``key`` if that is there, else under the first of `PARAMETER_KEYS`.

    Returns:
        The state dict, and the key it was found under (empty: the file itself).

    Raises:
        WeightsError: There is none, or a tensor in it is none of plain numbers.
    """
    found, where = checkpoint, ""
    if isinstance(checkpoint, Mapping):
        for candidate in (key, *PARAMETER_KEYS):
            if candidate is not None and isinstance(checkpoint.get(candidate), Mapping):
                found, where = checkpoint[candidate], candidate
                break
    if not _is_state_dict(found):
        raise WeightsError(f"{path}: no network's weights found at the top or under {', '.join(PARAMETER_KEYS)}")
    _check_plain(found, path)
    return dict(found), where


def _is_state_dict(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and bool(found)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items())
    )


def _check_plain(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse tensors that do not hold the numbers that their shapes promise: a network of such sizes fills the memory.

    Raises:
        WeightsError: One is complex, quantised, sparse or nested, or larger than what it is read from.
    """
    claimed, storages = 0, dict[int, int]()
    for name, value in state.items():
        if value.dtype not in _NUMBERS or value.is_nested or value.layout != torch.strided:
            kind = "nested" if value.is_nested else f"{value.layout}, {value.dtype}".replace("torch.", "")
            raise WeightsError(f"{path}: {_short(name)} is {kind}; weights are strided, and plain numbers")
        size = value.numel() * value.element_size()
        storage = value.untyped_storage()
        if value.is_meta or size > storage.nbytes():
            raise WeightsError(
                f"{path}: {_short(name)} of shape {tuple(value.shape)} has not the values for it; save the weights anew"
            )
        claimed, storages[storage.data_ptr()] = claimed + size, storage.nbytes()
    if claimed > _SHARING * sum(storages.values()):
        raise WeightsError(f"{path}: its {len(state)} tensors are all views of a few numbers; save the weights anew")


def without_prefixes(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """``state`` as it is, then without the first part of its names (``module.``, ``netG.`` ...) while all share it."""
    current = dict(state)
    for _ in range(_PREFIXES):
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
        _check_plain(state, path)
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
    if whole := first_whole(matching, own):
        raise WeightsError(f"{path}: {_short(whole)} holds whole numbers, not weights")
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
    return ", ".join(map(_short, names[:_LISTED])) + (" ..." if len(names) > _LISTED else "")


def _short(name: str) -> str:
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return name if name.isprintable() else ascii(name)[1:-1]


def check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that are not numbers.

    Raises:
        WeightsError: One is NaN or infinite; the message names it.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise WeightsError(f"{path}: {_short(name)} holds NaN or infinite values; the file is of no use")


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
            f"cannot save {path}: {error.strerror or error}; mend that and run again with --auto_resume"
        ) from None
    return hashlib.sha256(data).hexdigest()
