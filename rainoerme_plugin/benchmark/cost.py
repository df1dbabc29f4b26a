"""What a method costs: parameters, operations, seconds, memory; apart from scoring, in a process of its own.

Such a process has nothing else in its memory and nothing else to do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from multiprocessing import get_context
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from ..archs.adapt import Needs, derain
from ..archs.runner import Precision, Runner
from ..archs.tiles import WHOLE
from ..data.images import RGB
from ..devices import bound_memory, pick_device, read_kib, wait
from ..errors import WeightsError, one_line
from .methods import Method, open_method
from .options import CostOptions, MethodOptions
from .results import Cost, Timing

_BUT_PRODUCTS = "all but convolutions, matrix products and attention"


class Costs(TypedDict):
    """What is kept of them."""

    costs: list[Cost]


def measure_costs(method: Method, costs: CostOptions, device: str, precision: Precision) -> list[Cost]:
    """The costs of a method with a network or filter, at all sizes, measured in a fresh process.

    Raises:
        RainOerMeError: The method cannot be made anew, or its file of weights is another by now.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            work = process.submit(_measure_all, method.name, method.options, method.sha256, costs, device, precision)
            return work.result()
        except BrokenProcessPool:
            text = "the measuring process was killed; it may have wanted more memory than there is"
            return [_cost(height, width, costs.batch, error=text) for height, width in costs.sizes]


def _measure_all(
    name: str, options: MethodOptions, sha256: str | None, costs: CostOptions, device: str, precision: Precision
) -> list[Cost]:
    from .. import register

    register()
    method = open_method(name, options, "round")
    if method.sha256 != sha256:
        raise WeightsError(f"{method.file} has changed since the benchmark began; run again")
    run = Runner(pick_device(device), precision)
    if run.device.type == "cpu":
        bound_memory()
    torch.backends.cudnn.benchmark = True
    with run.placed(method.network, method.needs):
        # From small to large: the peak of memory, which the system never lowers, is then that of the last one.
        found = {
            (height, width): _measure(method, height, width, costs, run)
            for height, width in sorted(map(tuple, costs.sizes), key=lambda size: size[0] * size[1])
        }
    if method.network is not None:
        for (height, width), cost in found.items():
            if cost["error"] is None:
                cost["flops"], cost["uncounted"] = count_flops(method.network.cpu(), method.needs, height, width)
    return [found[height, width] for height, width in costs.sizes]


def _cost(height: int, width: int, batch: int, timing: Timing | None = None, error: str | None = None) -> Cost:
    return {
        "height": height,
        "width": width,
        "batch": batch,
        "flops": None,
        "uncounted": [],
        "timing": timing,
        "error": error,
    }


def _measure(method: Method, height: int, width: int, costs: CostOptions, run: Runner) -> Cost:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (costs.batch, height, width, 3), dtype=np.uint8)
    try:
        timing = measure_time(_work(method, images, run), costs.batch, costs.warmup, costs.repeats, run.device)
    except Exception as error:  # out of memory, a size that a network does not take: said in the table
        return _cost(height, width, costs.batch, error=one_line(error))
    return _cost(height, width, costs.batch, timing)


def _work(method: Method, images: RGB, run: Runner) -> Callable[[], object]:
    if method.network is None:
        return lambda: [method(image, "", "", run) for image in images]
    network = method.network
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).to(run.device)
    return lambda: run(network, method.needs, batch, method.tile)


def measure_time(work: Callable[[], object], batch: int, warmup: int, repeats: int, device: torch.device) -> Timing:
    """Time ``work``, which derains a batch, after ``warmup`` runs of it.

    The peak of memory is that of all runs beyond what was there before: PyTorch's on CUDA, the process's resident
    set on a CPU, where the system tells it (Linux). The latter is only true of the largest work so far.
    """
    before = _memory(device, "now")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for count in range(warmup + repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        if count >= warmup:
            seconds.append(time.perf_counter() - start)
    peak = _memory(device, "peak")
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "median": median,
        "low": low,
        "high": high,
        "repeats": repeats,
        "images_per_second": batch / median,
        "peak_memory": None if peak is None or before is None else max(peak - before, 0),
    }


def _memory(device: torch.device, which: Literal["now", "peak"]) -> int | None:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) if which == "now" else torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        return read_kib("/proc/self/status", {"now": "VmRSS:", "peak": "VmHWM:"}[which])
    except (OSError, StopIteration):
        return None


class _Derain(nn.Module):
    """`derain` as a module, for the counters."""

    def __init__(self, network: nn.Module, needs: Needs) -> None:
        super().__init__()
        self.network = network
        self.needs = needs

    def forward(self, rainy: Tensor) -> Tensor:
        return derain(self.network, rainy, self.needs)


def count_flops(network: nn.Module, needs: Needs, height: int, width: int) -> tuple[float | None, list[str]]:
    """Multiply-adds for one image of this size, padding included, and the operators that count as nothing.

    mmengine counts by operator, and takes fused attention and functions with a backward pass of their own (KBNet's) as
    nothing. PyTorch's counter sees the convolutions, matrix products and attention in them, but no normalisation and
    no interpolation. Where it sees more than mmengine, its count is given; and for images so large that they are
    derained in tiles, where it counts without computing. What tiles share is counted once.
    """
    from mmengine.analysis.complexity_analysis import FlopAnalyzer
    from torch.utils.flop_counter import FlopCounterMode

    is_large = height * width > WHOLE
    device = torch.device("meta" if is_large else "cpu")
    module, image = _Derain(deepcopy(network).to(device), needs).eval(), torch.zeros(1, 3, height, width, device=device)
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            module(image)
    except Exception:  # what it does to a network's own operators is not ours to foresee
        return None, []
    # It counts a multiply-add as two.
    by_torch = counter.get_total_flops() / 2
    if is_large:
        return by_torch, [_BUT_PRODUCTS]
    analyser = FlopAnalyzer(module, (image,))
    analyser.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    try:
        with torch.no_grad():
            by_mmengine = float(analyser.total())
            unknown: Sequence[str] = sorted(analyser.unsupported_ops())
    except Exception:  # some networks cannot be traced
        return by_torch, [_BUT_PRODUCTS]
    seen_by_torch = by_torch > by_mmengine
    names = [name.removeprefix("aten::") for name in unknown if not (seen_by_torch and _with_products(name))]
    return max(by_torch, by_mmengine), names


def _with_products(operator: str) -> bool:
    return operator.startswith("prim::PythonOp") or "attention" in operator
