"""The processes that share a run: how they join, what they tell each other, what the end of one means for all."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch.distributed as dist
from torch import Tensor

from .devices import pick_device
from .errors import ElsewhereError, OptionError, RainOerMeError
from .files import claim

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Launcher: TypeAlias = Literal["none", "pytorch", "slurm"]
T = TypeVar("T")
_left: list[Any] = []
"""Groups of processes that were left. PyTorch's thread wants Python once more, for the last tensors that it exchanged,
and whoever takes its group down waits for it, with Python in hand: so nobody does."""
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|socket|TCPStore|broken pipe|timed out", re.IGNORECASE)


def join_processes(
    launcher: Launcher, device: str, port: int | None = None, timeout: timedelta | None = None
) -> tuple[int, int, int]:
    """Join the processes that torchrun or SLURM has started: nccl on GPUs, gloo elsewhere.

    Args:
        launcher: What started them.
        device: What ``--device`` says.
        port: Of the first process, for SLURM.
        timeout: How long one may wait for another; None is PyTorch's own (10 to 30 minutes).

    Returns:
        Rank, number of processes, and rank on this machine.

    Raises:
        OptionError: The launcher's environment variables are missing.
        ElsewhereError: The other processes do not come, or cannot be reached.
    """
    if launcher == "none":
        return 0, 1, 0
    if launcher == "slurm":
        _slurm_environment(port)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if not os.environ.get(name)]:
        raise OptionError(f"--launcher {launcher}: {', '.join(missing)} not set; start with torchrun or srun")
    try:
        rank, world, local_rank = (int(os.environ[name]) for name in names[:3])
    except ValueError as error:
        raise OptionError(f"--launcher {launcher}: {', '.join(names[:3])} must be numbers ({error})") from None
    backend = "nccl" if pick_device(device, local_rank, beside(local_rank)).type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=_meeting_place(timeout), rank=rank, world_size=world, timeout=timeout)
        control_group(timeout)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ElsewhereError(
            f"process {rank} of {world} does not find the others at {place} ({str(error).splitlines()[0]})"
        ) from error
    return dist.get_rank(), dist.get_world_size(), local_rank


def beside(local_rank: int) -> int:
    """How many processes of the run are on this machine, as far as is known: torchrun says it."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(told) if told.isdigit() else local_rank + 1


def _meeting_place(timeout: timedelta | None) -> Store:
    """Where processes leave their addresses for each other."""
    from torch.distributed.distributed_c10d import PrefixStore, default_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(iter(rendezvous("env://", timeout=timeout or default_pg_timeout)))[0]
    # torchrun keeps its own when it starts processes again: they would find the addresses of those that have ended.
    is_kept, again = (os.environ.get(f"TORCHELASTIC_{name}") for name in ("USE_AGENT_STORE", "RESTART_COUNT"))
    return PrefixStore(f"start {again}", store) if is_kept == "True" else store


def leave_processes() -> None:
    """Part from the others when all have come so far; who ends without may be aborted by PyTorch's own threads."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        _left.append(dist.group.WORLD)
        dist.destroy_process_group()


def has_joined() -> bool:
    """Whether this process is one of several, or was before it left them."""
    return bool(_left) or (dist.is_available() and dist.is_initialized())


def control_group(timeout: timedelta | None = None) -> dist.ProcessGroup | None:
    """All processes, for what they tell each other beside gradients: figures, pictures, decisions, by gloo.

    Where they have joined by nccl, which takes nothing but what is on GPUs, it is a group of its own, made at the first
    call: that must then be every process's, as in `join_processes`.

    Args:
        timeout: How long one may wait for another in that group; None is PyTorch's own.

    Returns:
        None: This process is alone.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    everyone = dist.group.WORLD
    assert everyone is not None
    if dist.get_backend(everyone) == "gloo":
        return everyone
    if everyone not in _beside:
        _beside[everyone] = dist.new_group(timeout=timeout, backend="gloo")
    return _beside[everyone]


_beside: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are; 0 and 1 if it has joined no others."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def mean_of_processes(value: Tensor) -> Tensor:
    """The mean over all processes of a tensor that each has."""
    _, world = rank_and_world()
    if world > 1:
        dist.all_reduce(value)
        value = value / world
    return value


def gather(value: T) -> list[T]:
    """Every process's value, in the order of their ranks, on the first of them; on the others an empty list.

    All must call it.
    """
    group = control_group()
    if group is None:
        return [value]
    first = dist.get_rank(group) == 0
    found: list[Any] | None = [None] * dist.get_world_size(group) if first else None
    dist.gather_object(value, found, dst=0, group=group)
    return found or []


def _slurm_environment(port: int | None) -> None:
    try:
        rank, count = os.environ["SLURM_PROCID"], os.environ["SLURM_NTASKS"]
        local_rank, nodes = os.environ["SLURM_LOCALID"], os.environ["SLURM_NODELIST"]
    except KeyError as error:
        raise OptionError(f"--launcher slurm: {error.args[0]} is not set; start with srun") from None
    try:
        hosts = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise OptionError(f"--launcher slurm: scontrol, which tells the nodes' names, fails ({error})") from None
    os.environ.update(RANK=rank, WORLD_SIZE=count, LOCAL_RANK=local_rank, MASTER_ADDR=hosts.stdout.split()[0])
    os.environ.setdefault("MASTER_PORT", str(port or 29500))


def first_decides(decide: Callable[[], T]) -> T:
    """What ``decide`` gives on rank 0, on all ranks; it is called there alone.

    Raises:
        RainOerMeError: ``decide`` raised it; on the other ranks an `ElsewhereError`.
    """
    group = control_group()
    if group is None:
        return decide()
    told: list[Any] = [None, False]
    problem: RainOerMeError | None = None
    if dist.get_rank() == 0:
        try:
            told = [decide(), False]
        except RainOerMeError as error:
            problem, told = error, [None, True]
    dist.broadcast_object_list(told, src=0, group=group)
    if problem is not None:
        raise problem
    if told[1]:
        raise ElsewhereError("process 0 has ended with an error, which is told there")
    return told[0]


@contextmanager
def losses_told(rank: int, world: int) -> Iterator[None]:
    """Tell the end of another process, of which this one hears by way of a lost connection, as what it is.

    Raises:
        ElsewhereError: A connection was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if world == 1 or not is_loss(error):
            raise
        raise ElsewhereError(
            f"process {rank} of {world} has lost another one, whose error is told there; go on from the last "
            f"checkpoint with --auto_resume ({str(error).splitlines()[0]})"
        ) from error


def is_loss(error: BaseException) -> bool:
    """Whether an error is how the end of another process shows."""
    lost = isinstance(error, dist.DistError) or _LOST.search(str(error)) is not None
    return isinstance(error, RuntimeError) and lost


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a run's folder against other runs (`files.claim`), for all processes of this one.

    Raises:
        RainOerMeError: Another run has it; the message says who.
    """
    with ExitStack() as stack:
        # What it gives is of no use to other processes, and cannot be told to them.
        first_decides(lambda: stack.enter_context(claim(folder)))
        yield
