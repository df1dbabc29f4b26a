"""Where a run computes: one device a process, and its memory."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from .errors import OptionError


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this name (``cpu``, ``cuda``, ``cuda:1`` ...); ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        OptionError: This machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"--device {name}: PyTorch finds no CUDA GPU here; use --device auto or cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise OptionError("--device mps: PyTorch finds no Apple GPU here; use --device auto or cpu")
    try:
        device = torch.device(name, local_rank % torch.cuda.device_count()) if name == "cuda" else torch.device(name)
    except RuntimeError:
        raise OptionError(f"no device '{name}'; there are auto, cpu, cuda, cuda:1 ... and mps") from None
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
