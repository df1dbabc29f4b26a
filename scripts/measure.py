"""What the benchmark scripts share: timing in turn, peak memory, the machine's limits, one JSON line a result.

Times are ratios inside one run: the plain way and ours take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from rainoerme_plugin.devices import device_name, read_kib, wait

_PACKAGES = ("torch", "numpy", "opencv-python", "scipy", "lmdb", "pillow")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # OpenCV goes by several names
        return None


def environment(device: torch.device) -> dict[str, Any]:
    """Where a figure was measured: device, threads and versions."""
    return {
        "device": f"{device.type}: {device_name(device)}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def emit(benchmark: str, device: torch.device, **values: Any) -> None:
    """Print one result as a line of JSON."""
    print(json.dumps({"benchmark": benchmark, **values, **environment(device)}), flush=True)


def say(text: str) -> None:
    """Tell on standard error what is being measured."""
    print(text, file=sys.stderr, flush=True)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long ``work`` takes, once."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def in_turn(
    works: Mapping[str, Callable[[], object]], device: torch.device, repeats: int = 7, warmup: int = 1
) -> dict[str, dict[str, float]]:
    """Time several ways of doing one thing, a round of all after the other.

    Returns:
        For each: ``median``, ``low`` and ``high`` (the quartiles) in seconds, and ``times_as_fast``: how often it goes
        into the first one's time, as the median over the rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for count in range(warmup + repeats):
        for name, work in works.items():
            taken = seconds(work, device)
            if count >= warmup:
                times[name].append(taken)
    first = next(iter(times.values()))
    return {
        name: {
            **spread(values),
            "times_as_fast": statistics.median(a / b for a, b in zip(first, values, strict=True)),
        }
        for name, values in times.items()
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return dict.fromkeys(("median", "low", "high"), values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


@lru_cache(maxsize=8)
def rates(device: torch.device, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """What the machine can do: multiply-adds a second in a large matrix product, bytes a second in a large copy."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    product = min(seconds(lambda: a @ b, device) for _ in range(5))
    source = torch.zeros(256 << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = min(seconds(lambda: target.copy_(source), device) for _ in range(5))
    return {"multiply_adds": size**3 / product, "bytes": 2 * source.numel() / copy}


def floor(device: torch.device, multiply_adds: float, moved: float, dtype: torch.dtype = torch.float32) -> float:
    """The seconds that work cannot beat here: its operations at the matrix rate, or its bytes at the bandwidth."""
    limits = rates(device, dtype)
    return max(multiply_adds / limits["multiply_adds"], moved / limits["bytes"])


class Traffic(TorchDispatchMode):
    """Counts the bytes that convolutions and matrix products read and write while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        if any(name in str(function) for name in ("convolution", "aten.mm", "aten.bmm", "aten.addmm")):
            tensors = [leaf for leaf in tree_leaves((arguments, result)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def work_of(work: Callable[[], object]) -> tuple[float, float]:
    """The multiply-adds of the convolutions and matrix products of ``work``, and the bytes that they read and write."""
    with FlopCounterMode(display=False) as counter, Traffic() as traffic:
        work()
    return counter.get_total_flops() / 2, traffic.bytes


@contextmanager
def apart(make: Callable[..., Callable[[], object]], *arguments: Any) -> Iterator[Callable[[], object]]:
    """What ``make(*arguments)`` returns, living in a process of its own: calling it runs it there, once, and waits.

    For ways of doing a thing that set up the whole process. ``make`` is a function of a module.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
    process.start()
    theirs.close()

    def run() -> None:
        ours.send(True)
        ours.recv()

    try:
        yield run
    finally:
        ours.close()
        process.join()


def _serve(pipe: Any, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    work = make(*arguments)
    try:
        while pipe.recv():
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            pipe.send(True)
    except EOFError:
        pass


def peak_memory(work: Callable[..., object], *arguments: Any) -> int:
    """How far resident memory rises, in bytes, while ``work`` runs in a fresh process with torch loaded.

    ``work`` is a function of a module: the process imports it by name.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        return int(receiver.recv())
    except EOFError:
        raise RuntimeError(f"{work.__name__}{arguments} died; see above") from None
    finally:
        process.join()


def _peak(sender: Any, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    before = read_kib("/proc/self/status", "VmRSS:")
    work(*arguments)
    sender.send(read_kib("/proc/self/status", "VmHWM:") - before)
