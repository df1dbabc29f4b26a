"""Where a run computes: one device a process, and its memory."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import torch

from .errors import OptionError, brief


def pick_device(name: str | torch.device, local_rank: int = 0, beside: int = 1) -> torch.device:
    """The device of this name; ``auto`` is CUDA, else MPS, else the CPU.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ... or ``mps``.
        local_rank: The number of this process on its machine; ``cuda`` is a GPU for each.
        beside: How many processes of the run are on this machine.

    Raises:
        OptionError: This machine has no such device, or it is one GPU for several processes.
    """
    name, there = str(name), devices_there()
    if name == "auto":
        name = there[-1]
    if name not in there:
        known = name == "mps" or name.partition(":")[0] == "cuda"
        why = "PyTorch finds none here" if known else "no such device"
        raise OptionError(f"--device {brief(name)[1:-1]}: {why}; there are {', '.join(('auto', *there))}")
    if ":" in name and beside > 1:
        raise OptionError(
            f"--device {name}: one GPU for {beside} processes; with --device cuda each takes one of its own, of those "
            "that the environment variable CUDA_VISIBLE_DEVICES names"
        )
    device = torch.device(name, local_rank % torch.cuda.device_count()) if name == "cuda" else torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def devices_there() -> list[str]:
    """The names of this machine's devices, the one that is taken by default last."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.append("mps")
    if torch.cuda.is_available():
        found += [*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cuda"]
    return found


def device_name(device: torch.device) -> str:
    """The model of a GPU or of this machine's processor, as far as it tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


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
