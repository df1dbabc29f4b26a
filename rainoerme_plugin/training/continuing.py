"""Where a run goes on from: the checkpoint that was asked for, or the last one before a collapse."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CollapseError, counted
from ..options import DistillationOptions, GuardOptions, read_section
from ..processes import first_decides
from .checkpoints import Checkpoint, last_good, networks_of, open_checkpoint, remove_after


def find_checkpoint(opt: Mapping[str, Any]) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, and what is wrong with later ones.

    It is the one that the option file names, or with auto_resume the last good one.
    """

    def find() -> tuple[Path | None, list[str]]:
        if opt["auto_resume"]:
            checkpoint, problems = last_good(Path(opt["path"]["training_states"]))
            return (checkpoint.path if checkpoint else None), problems
        named = opt["path"].get("resume_state")
        return (Path(named) if named else None), []

    path, problems = first_decides(find)
    return (open_checkpoint(path) if path else None), problems


def with_warmup(opt: Mapping[str, Any], warmup: int | None) -> dict[str, Any]:
    """A copy of the options, with another warm-up if there is one."""
    own = deepcopy(dict(opt))
    if warmup is not None:
        own["train"]["distillation"] = {**(own["train"].get("distillation") or {}), "warmup": warmup}
    return own


class Retreat(NamedTuple):
    """What a run that has collapsed goes on with."""

    checkpoint: Checkpoint | None
    """None: it begins anew."""
    warmup: int
    """Until which iteration the warm-up is now."""
    told: str
    """What happened, for the log."""


def retreat(opt: Mapping[str, Any], error: CollapseError, went_back: int) -> Retreat:
    """The last checkpoint before a collapse; later ones are removed.

    Args:
        opt: The run's options.
        error: The collapse.
        went_back: How often it has gone back with this time.

    Raises:
        CollapseError: The options say to stop, or it has happened too often.
    """
    guard = read_section(GuardOptions, opt["train"].get("collapse_guard") or {}, "train.collapse_guard")
    if guard.policy == "stop":
        raise error
    if went_back > guard.times:
        raise CollapseError(
            f"{error} (It went back {counted(guard.times, 'time')}, as train.collapse_guard says)", error.sound
        )

    def find() -> Path | None:
        states = Path(opt["path"]["training_states"])
        good, _ = last_good(states, before=error.sound)
        remove_after(states, good.iteration if good else 0, networks_of(opt))
        return good.path if good else None

    path = first_decides(find)
    checkpoint = open_checkpoint(path) if path else None
    asked = read_section(DistillationOptions, opt["train"].get("distillation") or {}, "train.distillation")
    start = checkpoint.iteration if checkpoint else asked.build().warmup
    warmup = start + went_back * guard.longer_warmup
    told = (
        f"{error} Going back to {f'iteration {start}' if checkpoint else 'the start'}, with the warm-up until "
        f"iteration {warmup} ({went_back} of at most {counted(guard.times, 'time')})"
    )
    return Retreat(checkpoint, warmup, told)
