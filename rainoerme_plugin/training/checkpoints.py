"""The checkpoints of a run: which there are, which are good, what one holds besides the networks.

A checkpoint of iteration N is ``training_states/N.state``, written last, and the networks ``models/net_*_N.pth``
(``.safetensors`` for others' use). The state holds the SHA-256 of the networks' files, so that no network of another
run or a damaged one is taken for its own; PyTorch's archives hold checksums of their contents.

mmengine's are one file each, ``iter_N.pth`` in the run's folder; `mm.checkpoints` has them hold the networks by the
same names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..checkpoint_files import read_checkpoint
from ..errors import WeightsError


class _Best(BaseModel):
    """The best figure of a metric so far."""

    better: str
    val: float
    iter: int


class _State(BaseModel):
    """What a training state holds; BasicSR's own have the first four. docs/reliability.md has what each is."""

    model_config = ConfigDict(strict=True)

    iter: Annotated[int, Field(ge=0)]
    epoch: int
    optimizers: list[dict[str, Any]]
    schedulers: list[dict[str, Any]]
    samples: Annotated[int, Field(ge=0)] = 0
    random: list[dict[str, Any]] = []
    options: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    best: dict[str, dict[str, dict[str, Any]]] = {}
    model: dict[str, Any] = {}
    model_elsewhere: list[dict[str, Any]] = []
    networks: dict[Annotated[str, Field(pattern=r"^net_\w+_\d+\.pth$")], str] = {}
    went_back: Annotated[int, Field(ge=0)] = 0
    warmup: Annotated[int, Field(ge=0)] | None = None
    best_network: dict[str, Any] = {}

    @field_validator("best")
    @classmethod
    def _has_figures(cls, best: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
        for figures in best.values():
            for figure in figures.values():
                _Best.model_validate(figure, strict=True)
        return best


MMENGINE = ".pth"
"""How the file of a checkpoint of mmengine's ends."""


@dataclass(frozen=True)
class Checkpoint:
    """One that can be gone on from."""

    path: Path
    """Its state's file; the networks lie beside it, in ``../models``, even if the experiment was set aside."""
    state: dict[str, Any]

    @property
    def iteration(self) -> int:
        return int(self.state["iter"])

    def network(self, label: str) -> Path:
        """The file of the network with this label, such as ``net_g``.

        Raises:
            WeightsError: It is missing, or not the one that was saved with the state.
        """
        if self.path.suffix == MMENGINE:
            return self.path
        file = self.path.parent.parent / "models" / f"{label}_{self.iteration}.pth"
        if not file.is_file():
            raise WeightsError(f"{self.path} cannot be resumed: {file} is missing")
        known = (self.state.get("networks") or {}).get(file.name)
        try:
            found = hashlib.sha256(file.read_bytes()).hexdigest() if known is not None else None
        except OSError as error:
            raise WeightsError(
                f"{self.path} cannot be resumed: {file} cannot be read ({error.strerror or error})"
            ) from None
        if known != found:
            raise WeightsError(
                f"{self.path} cannot be resumed: {file} is damaged, or was written by another run (its SHA-256 is not "
                "the one in the state)"
            )
        return file


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint of a state's file.

    Raises:
        WeightsError: The file is damaged or no training state, or one of its networks is not there as it was saved.
    """
    try:
        found = read_checkpoint(path)
        state = _State.model_validate(_from_mmengine(found) if path.suffix == MMENGINE else found)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or "all of it"
        raise WeightsError(
            f"{path}: not a training state ({place}: {problem['msg']}); path.resume_state takes a .state file from "
            "training_states/, or an iter_N.pth of mmengine"
        ) from None
    checkpoint = Checkpoint(path, {name: getattr(state, name) for name in state.model_fields_set})
    for name in state.networks:
        checkpoint.network(name.rpartition("_")[0])
    return checkpoint


def _from_mmengine(found: Any) -> Any:
    """What a checkpoint of mmengine's says, in the words of a training state; whatever is wrong in it still is."""
    if not isinstance(found, Mapping) or not all(
        isinstance(found.get(key), Mapping) for key in ("meta", "distillation")
    ):
        return found  # which is then told to be none
    optimizer = found.get("optimizer")
    if isinstance(optimizer, Mapping):
        optimizer = {key: value for key, value in optimizer.items() if key in ("state", "param_groups")}
    return {
        "iter": found["meta"].get("iter"),
        "epoch": 0,
        "optimizers": [optimizer],
        "schedulers": found.get("param_schedulers") or [],
        "random": found.get("random") or [],
        "options": found.get("options") or {},
        "environment": found.get("environment") or {},
        "model": {**found["distillation"], "guard": found.get("collapse_guard")},
        "went_back": found.get("went_back", 0),
        "warmup": found.get("warmup"),
        "best_network": found.get("best_network") or {},
    }


def last_good(states: Path, before: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The last checkpoint of a run that can be gone on from, and what is wrong with those passed over.

    Args:
        states: Its folder ``training_states``.
        before: Only those of this iteration or an earlier one.

    Raises:
        WeightsError: There are some, and none is good.
    """
    problems: list[str] = []
    found = [(iteration, states / f"{iteration}.state") for iteration in _iterations(states)]
    found += [(iteration, path) for iteration, path in _mmengines(states)]
    for iteration, path in sorted(found, reverse=True):
        if before is not None and iteration > before:
            continue
        try:
            return open_checkpoint(path), problems
        except WeightsError as error:
            problems.append(str(error))
    if problems and before is None:
        raise WeightsError(
            f"none of the {len(problems)} checkpoints in {states} can be used; the last one: {problems[0]}. "
            "Without --auto_resume the run begins anew, and these are set aside"
        )
    return None, problems


def prune(states: Path, keep: int, networks: Iterable[str]) -> None:
    """Remove all but the last ``keep`` checkpoints: a state first, for without it the networks are just networks.

    Args:
        states: The run's folder ``training_states``.
        keep: How many stay.
        networks: The keys of the networks in the option file, such as ``network_g``: no file of others is removed.
    """
    for iteration in sorted(_iterations(states))[:-keep]:
        remove(states, iteration, networks)


def remove_after(states: Path, iteration: int, networks: Iterable[str]) -> None:
    """Remove the checkpoints of later iterations; as `prune`."""
    for later in _iterations(states):
        if later > iteration:
            remove(states, later, networks)
    for later, path in _mmengines(states):
        if later > iteration:
            path.unlink(missing_ok=True)


def remove(states: Path, iteration: int, networks: Iterable[str]) -> None:
    """Remove one checkpoint, or what there is of it."""
    (states / f"{iteration}.state").unlink(missing_ok=True)
    for key in networks:
        label = key.replace("network_", "net_", 1)
        for suffix in ("pth", "safetensors"):
            (states.parent / "models" / f"{label}_{iteration}.{suffix}").unlink(missing_ok=True)


def networks_of(options: Mapping[str, Any]) -> list[str]:
    """The keys of the networks in an option file."""
    return [key for key in options if key.startswith("network_")]


_NUMBER = re.compile("0|[1-9][0-9]*")
"""As iterations are written in names; 007 is somebody else's."""


def _iterations(states: Path) -> list[int]:
    return [int(path.stem) for path in states.glob("*.state") if _NUMBER.fullmatch(path.stem)]


def _mmengines(states: Path) -> list[tuple[int, Path]]:
    """mmengine's checkpoints of the run, by their iterations."""
    named = ((path.stem.removeprefix("iter_"), path) for path in states.parent.glob(f"iter_*{MMENGINE}"))
    return [(int(number), path) for number, path in named if _NUMBER.fullmatch(number)]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two option files, ``KEY: OLD -> NEW`` a line."""
    old, new = dict(_flat(before)), dict(_flat(now))
    keys = [key for key in {**old, **new} if key != "path.resume_state" and old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys]


def _flat(value: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{key}{name}.")
        else:
            yield f"{key}{name}", list(item) if isinstance(item, tuple) else item
