"""Checkpoints: find the weights in a published file, and load all of them or say why not; write our own."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from .archs.adapt import checkpoint_parts
from .archs.recognise import UnknownNetworkError, find_own, first_whole, recognise
from .checkpoint_files import read_checkpoint
from .errors import RainOerMeError, WeightsError
from .files import write_whole

PARAMETER_KEYS = ("params_ema", "params", "state_dict", "net", "model", "model_state_dict")
"""Where files keep a network's weights, in the order of preference. Else the file itself is them."""
AVERAGED_KEYS = ("generator_ema", "net_g_ema", "model_ema", "ema_model", "state_dict_ema", "ema")
"""Where they keep a running mean of them beside, which is preferred."""
NETWORK_KEYS = ("generator", "netG", "net_g", "G", "network", "weights")
"""Where there may be some, too; but of two of them that differ none is more likely."""
_PREFERRED = ("params", "params_ema")
"""Keys that BasicSR asks for unless it is told otherwise: another is as good."""
_WRAPPERS = (*AVERAGED_KEYS, *PARAMETER_KEYS, *NETWORK_KEYS, "module", "_orig_mod")
"""First parts of the names of a network's weights, where there are weights and numbers of others beside."""
_BESIDE = re.compile(
    r"loss|criterion|metric|psnr|ssim|lpips|vgg|percept|^disc|^net_?d$|^d$|step_counter|n_averaged|num_updates|decay"
    r"|preprocessor|_detail$",
    re.IGNORECASE,
)
"""What these others are called, in files of mmagic, Lightning, PyTorch's AveragedModel, and here (the detail block)."""

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_NUMBERS = (*_FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_LISTED = 3
_LONGEST_NAME = 150
_PREFIXES = 16
"""Parts of a name that may be what wrappers left; none leave so many."""
_SHARING = 32
"""Names that may stand for one and the same weights, on average."""

Places: TypeAlias = list[tuple[str, Mapping[str, Tensor]]]
"""State dicts and where in a checkpoint they are."""


class Loaded(NamedTuple):
    """How much of a network came from a file."""

    loaded: int
    total: int
    fresh: tuple[str, ...] = ()
    """Parts of the network that the file does not have, and that were left as they were."""


def find_state_dict(
    checkpoint: Any, path: str | Path, key: str | None = None, *, option: str = "key:"
) -> tuple[dict[str, Tensor], str]:
    """The state dict in a checkpoint: under ``key``, else under one of the usual names, else the only one.

    Args:
        checkpoint: What `read_checkpoint` has read.
        path: From which file.
        key: Where to look: a key, with dots for one in another (``model.generator``), or what the names of a network's
            weights begin with, where there are others beside. None looks in the usual places.
        option: What the user calls ``key``, for messages.

    Returns:
        The state dict, and the key it was found under (empty: the file itself).

    Raises:
        WeightsError: There is none, or several of which none is more likely, or none under ``key``, or a tensor in it
            is none of plain numbers.
    """
    found = _search(checkpoint)
    if key is not None:
        # Also what the names begin with where the weights are looked for anyway.
        under = next(filter(None, (_under(value, key) for value in (checkpoint, *(state for _, state in found)))), None)
        if under is not None:
            found = [(f"{key}.{at}".rstrip("."), state) for at, state in _search(under)]
        elif key not in _PREFERRED:
            raise WeightsError(f"{path}: nothing under {_short(key)}, which {option} names; {_holds(checkpoint)}")
    if not found:
        raise WeightsError(
            f"{path}: no network's weights found at the top or under the usual names; {_holds(checkpoint)}; {option} "
            "names another place"
        )
    if len(found) > 1:
        raise WeightsError(
            f"{path}: holds the weights of several networks; which one, {option} says: {_some([at for at, _ in found])}"
        )
    where, state = found[0]
    _check_plain(state, path)
    return dict(state), where


def _search(value: Any, depth: int = 3) -> Places:
    """The state dicts in a checkpoint among which there is no choice by name, each with its place."""
    if _is_state_dict(value):
        return [("", value)]
    if not isinstance(value, Mapping) or depth == 0:
        return []
    inner = {key: _search(each, depth - 1) for key, each in value.items() if isinstance(key, str)}
    places = {key: [(f"{key}.{at}".rstrip("."), state) for at, state in found] for key, found in inner.items()}
    averaged, plain, others = (
        [places[key] for key in keys if places.get(key)] for keys in (AVERAGED_KEYS, PARAMETER_KEYS, NETWORK_KEYS)
    )
    usual = plain[0] if plain else [place for each in _distinct(others) for place in each]
    if averaged and (not usual or _shapes(averaged[0]) == _shapes(usual)):
        return averaged[0]
    return usual or [place for key, found in places.items() if not _BESIDE.search(key) for place in found]


def _distinct(found: list[Places]) -> list[Places]:
    """The first of those that are of networks alike."""
    return list({repr(_shapes(places)): places for places in reversed(found)}.values())[::-1]


def _shapes(places: Places) -> list[list[tuple[int, ...]]]:
    """Of the weights, but for single numbers: counters are kept among them."""
    return [sorted(tuple(value.shape) for value in state.values() if value.ndim) for _, state in places]


def _under(checkpoint: Any, key: str) -> Any:
    """What a checkpoint has under a key, or under a key of a key, or weights whose names begin so."""
    if not isinstance(checkpoint, Mapping):
        return None
    if _is_state_dict(checkpoint):
        return _beginning_with(key, checkpoint)
    if isinstance(checkpoint.get(key), Mapping):
        return checkpoint[key]
    first, _, rest = key.partition(".")
    return _under(checkpoint.get(first), rest) if rest else None


def _beginning_with(first: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin so, without that."""
    return {name[len(first) + 1 :]: value for name, value in state.items() if name.startswith(f"{first}.")}


def _holds(checkpoint: Any) -> str:
    """What there is to name, in words."""
    if not isinstance(checkpoint, Mapping):
        return f"it holds a {type(checkpoint).__name__}"
    flat = _is_state_dict(checkpoint)
    names = dict.fromkeys(str(name).partition(".")[0] if flat else str(name) for name in checkpoint)
    return f"it holds {_some(list(names))}" if names else "it is empty"


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
    """``state`` as it is, then without the first part of its names (``module.``, ``netG.`` ...) while all share it.

    Where they do not, and what is beside a network's weights is no other's (mmagic's ``step_counter`` beside
    ``generator.``, a loss beside Lightning's ``model.``): then those of the network, running means first.
    """
    current = dict(state)
    for _ in range(_PREFIXES):
        yield current
        first = dict.fromkeys(name.partition(".")[0] for name in current)
        if len(first) != 1:
            wrappers = [name for name in _WRAPPERS if name in first]
            if all(name in wrappers or _BESIDE.search(name) for name in first):
                for name in wrappers:
                    yield from without_prefixes(_beginning_with(name, current))
            return
        if not all("." in name for name in current):
            return
        current = {name.partition(".")[2]: value for name, value in current.items()}


def recognised(
    path: Path, key: str | None = None, *, option: str = "key:", remedy: str = "if you know which, name it with type:"
) -> nn.Module:
    """The network that a file of weights belongs to, recognised from the file, with its weights.

    Args:
        path: The file.
        key: As of `find_state_dict`.
        option: What the user calls ``key``, for messages.
        remedy: What to do with weights of a network that is not known.

    Raises:
        WeightsError: It has none of a network that is known, or they are of no use.
    """
    state, _ = find_state_dict(read_checkpoint(path), path, key, option=option)
    check_finite(state, path)
    try:
        return recognise(*without_prefixes(state))
    except UnknownNetworkError as error:
        parts = list(dict.fromkeys(name.partition(".")[0] for name in state))
        if len(parts) > 1 and not set(parts).isdisjoint(_WRAPPERS):
            remedy += f"; if it holds several networks, {option} says which: {_some(parts)}"
        raise WeightsError(f"{path}: {error}; {remedy}") from None
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def load_weights(
    network: nn.Module, path: str | Path, key: str | None = None, *, strict: bool = True, option: str = "key:"
) -> Loaded:
    """Load a published or saved checkpoint into ``network``.

    Prefixes that wrappers left before all names (``module.``, ``netG.``, ``derainet.``) are taken off as far as that
    makes them fit. A network of several parts (`checkpoint_parts`) gets those that the file has; its main
    part must be there.

    Args:
        network: What to load into.
        path: The file.
        key: As of `find_state_dict`.
        option: What the user calls ``key``, for messages.
        strict: Whether every weight must match; else what matches by name and shape is loaded.

    Returns:
        How many of the weights were loaded, and how many there are, of the parts that the file has.

    Raises:
        WeightsError: The file cannot be read, holds values that are not finite, nothing matches, or ``strict`` and
            something does not.
    """
    checkpoint = read_checkpoint(path)
    main, where = find_state_dict(checkpoint, path, key, option=option)
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


def save_networks(saved: Mapping[str, Mapping[str, Tensor]], path: Path, main: str | None = None) -> str:
    """Save networks as a checkpoint, and what derains of one as safetensors beside it, for whoever reads those.

    Args:
        saved: What `checkpoint_of` gives of each, together.
        path: The checkpoint, a ``.pth``.
        main: The key of what derains; None: ``params_ema``, the running mean, if there is one, else ``params``.

    Returns:
        The SHA-256 of the checkpoint.

    Raises:
        RainOerMeError: A file cannot be written.
    """
    import safetensors.torch

    state = saved[main or ("params_ema" if "params_ema" in saved else "params")]
    # Copies, for the format has no tensors that share memory.
    tensors = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    _save(safetensors.torch.save(tensors, {"format": "pt"}), path.with_suffix(".safetensors"))
    return save_checkpoint(saved, path)


def _save(data: bytes, path: Path) -> str:
    try:
        write_whole(path, data, durable=True)
    except OSError as error:
        raise RainOerMeError(
            f"cannot save {path}: {error.strerror or error}; mend that and run again with --auto_resume"
        ) from None
    return hashlib.sha256(data).hexdigest()
