"""Where a run computes: one device a process, and the processes that share the work."""

from __future__ import annotations

import ctypes
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from .errors import ElsewhereError, OptionError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Launcher: TypeAlias = Literal["none", "pytorch", "slurm"]
T = TypeVar("T")


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this name; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        OptionError: This machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: PyTorch finds no CUDA GPU here; use --device auto or cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise OptionError("--device mps: PyTorch finds no Apple GPU here; use --device auto or cpu")
    device = torch.device(name, local_rank % torch.cuda.device_count()) if name == "cuda" else torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def wait(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def keep_memory() -> None:
    """Let the C library keep freed memory for the next tensor (glibc; nothing is done elsewhere).

    By default blocks of many megabytes go back to Linux when they are freed, and every new one is mapped and filled
    with zeros first: a training step on a CPU frees and takes hundreds.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # from malloc.h
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 2**31 - 1)


def bound_memory() -> int | None:
    """Let allocations fail that would take more memory than is free now: else Linux kills the process over them.

    Returns:
        The bound on the process's data in bytes; None on other systems, where nothing is done.
    """
    try:
        import resource

        free = read_kib("/proc/meminfo", "MemAvailable:")
        bound = free + read_kib("/proc/self/status", "VmData:")
        resource.setrlimit(resource.RLIMIT_DATA, (bound, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    except (ImportError, OSError, StopIteration, ValueError):
        return None
    return bound


def read_kib(file: str | Path, field: str) -> int:
    """A field of one of Linux's status files, such as ``VmRSS:`` of /proc/self/status, in bytes.

    Raises:
        OSError: There is no such file.
        StopIteration: It has no such field.
    """
    lines = (line.split() for line in Path(file).read_text().splitlines())
    return next(int(words[1]) * 1024 for words in lines if words and words[0] == field)


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
    backend = "nccl" if pick_device(device, local_rank).type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=_meeting_place(timeout), rank=rank, world_size=world, timeout=timeout)
        control_group(timeout)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ElsewhereError(
            f"process {rank} of {world} does not find the others at {place} ({str(error).splitlines()[0]})"
        ) from error
    return dist.get_rank(), dist.get_world_size(), local_rank


def _meeting_place(timeout: timedelta | None) -> Store:
    """Where processes leave their addresses for each other."""
    from torch.distributed.distributed_c10d import PrefixStore, default_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(iter(rendezvous("env://", timeout=timeout or default_pg_timeout)))[0]
    # torchrun keeps it when it starts processes again: they would find the addresses of those that have ended. (Of
    # several torchruns each counts for itself.)
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"start {again}", store) if os.environ.get("GROUP_WORLD_SIZE") == "1" else store


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
