"""Costs: operations against PyTorch's own counter and by hand, times and memory of work that is known."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import SMALL, small
from tiny import write_network
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rainoerme_plugin.archs.adapt import Needs, derain
from rainoerme_plugin.archs.catalogue import needs_of
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.archs.runner import Runner
from rainoerme_plugin.benchmark import cost as cost_module
from rainoerme_plugin.benchmark.cost import count_flops, measure_costs, measure_time
from rainoerme_plugin.benchmark.methods import open_method
from rainoerme_plugin.benchmark.options import CostOptions, FileMethod, FilterMethod
from rainoerme_plugin.errors import WeightsError
from rainoerme_plugin.options import LabelOptions

CPU = torch.device("cpu")
MEDIAN = open_method("median", FilterMethod(type="filter", filter=LabelOptions(type="median")), "round")


def test_the_papers_network_by_hand() -> None:
    # Its convolutions but those of the detail block, each called once: a weight is a multiply-add per pixel.
    network = RainOerMeNet()
    weights = sum(
        module.weight.numel()
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and not name.startswith("out2")
    )
    flops, uncounted = count_flops(network, Needs(), 20, 30)
    assert flops == weights * 20 * 30
    assert "tanh" in uncounted


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"IPT"}))
def test_every_network_against_pytorchs_counter(name: str) -> None:
    network = small(name)
    needs = needs_of(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        derain(network, torch.zeros(1, 3, 64, 64), needs)
    flops, _ = count_flops(network, needs, 64, 64)
    assert flops is not None
    # mmengine also counts normalisation, pooling and interpolation.
    assert 1 <= flops / (counter.get_total_flops() / 2) < 1.1


def test_fused_attention_is_counted() -> None:
    class Attention(nn.Module):
        def forward(self, rainy: Tensor) -> Tensor:
            tokens = rainy.flatten(2).transpose(1, 2)
            mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens)
            return mixed.transpose(1, 2).view_as(rainy)

    flops, uncounted = count_flops(Attention(), Needs(), 8, 8)
    assert flops == 2 * 64 * 64 * 3
    assert not any("attention" in name for name in uncounted)


@pytest.mark.parametrize("name", ["PReNet", "NAFNet", "SwinIR"])
def test_large_images_are_counted_without_computing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(name)
    computed, _ = count_flops(network, needs_of(network), 64, 48)
    monkeypatch.setattr(cost_module, "WHOLE", 64 * 48 - 1)
    counted, uncounted = count_flops(network, needs_of(network), 64, 48)
    assert counted is not None
    # Normalisation and pooling are not among it.
    assert 1 <= (computed or 0) / counted < 1.1
    assert uncounted == ["all but convolutions, matrix products and attention"]
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_costs_are_those_of_the_tiles_that_scoring_uses(tmp_path: Path) -> None:
    method = open_method("m", FileMethod(type="file", file=str(write_network(tmp_path / "net.pth")), tile=16), "round")
    assert method.network is not None
    seen: list[int] = []
    method.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2]))
    cost_module._work(method, np.zeros((1, 200, 150, 3), np.uint8), Runner(CPU))()
    assert max(seen) < 200


def test_padding_costs_too() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    assert count_flops(conv, Needs(multiple=16), 20, 20)[0] == 81 * 32 * 32


def test_a_network_that_cannot_be_counted_says_so() -> None:
    class Broken(nn.Module):
        def forward(self, rainy: Tensor) -> Tensor:
            raise RuntimeError("no")

    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, rainy: Tensor) -> Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("no")
            return self.conv(rainy)

    assert count_flops(Broken(), Needs(), 8, 8) == (None, [])
    assert count_flops(Untraceable(), Needs(), 8, 8) == (
        9 * 64,
        ["all but convolutions, matrix products and attention"],
    )


def test_counting_leaves_the_network_as_it_was() -> None:
    network = RainOerMeNet(4).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_flops(network, Needs(), 8, 8)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_times_are_quartiles_of_the_runs_after_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    steps = iter([100.0, 100.0, 1.0, 2.0, 3.0, 4.0, 10.0])

    def work() -> None:
        clock[0] += next(steps)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    timing = measure_time(work, batch=6, warmup=2, repeats=5, device=CPU)
    assert (timing["low"], timing["median"], timing["high"]) == (2, 3, 4)
    assert (timing["images_per_second"], timing["repeats"]) == (2, 5)


PEAK = """
import numpy as np, torch
from rainoerme_plugin.benchmark import cost
cpu = torch.device("cpu")
held, now = cost._memory(cpu, "peak"), cost._memory(cpu, "now")
if held is not None:
    size = held - now + 256 * 2**20  # more than the process ever held: the peak is never lowered
    found = cost.measure_time(lambda: np.ones(size, np.uint8), batch=1, warmup=0, repeats=3, device=cpu)
    print(found["peak_memory"] / size)
"""


def test_the_peak_of_memory_is_what_the_work_held() -> None:
    # In a process of its own: in this one, memory that was freed may be kept, and taken again.
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    if not run.stdout:
        pytest.skip("this system does not tell a process's peak of memory")
    assert float(run.stdout) == pytest.approx(1, rel=0.05)


def test_a_system_that_does_not_tell_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_module, "_memory", lambda *_: None)
    assert measure_time(lambda: None, batch=1, warmup=0, repeats=3, device=CPU)["peak_memory"] is None


def test_a_filter_and_a_network_in_a_process_of_their_own(tmp_path: Path) -> None:
    costs = CostOptions(sizes=[[48, 32], [16, 24]], warmup=1, repeats=3)
    found = measure_costs(MEDIAN, costs, "cpu", "float32")
    assert [(cost["height"], cost["width"]) for cost in found] == [(48, 32), (16, 24)]
    assert all(cost["timing"] is not None and cost["flops"] is None for cost in found)
    method = open_method("net", FileMethod(type="file", file=str(write_network(tmp_path / "net.pth"))), "round")
    found = measure_costs(method, costs, "cpu", "bfloat16")
    assert found[0]["flops"] == pytest.approx(4 * (found[1]["flops"] or 0))
    assert all(cost["timing"] is not None and cost["error"] is None for cost in found)


def test_what_fails_at_one_size_is_said_and_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_for_large(work: Any, batch: int, *_: Any) -> Any:
        raise torch.OutOfMemoryError("not enough memory for\n  that")

    monkeypatch.setattr(cost_module, "measure_time", fail_for_large)
    (cost,) = cost_module._measure_all("m", MEDIAN.options, None, CostOptions(), "cpu", "float32")
    assert cost["timing"] is None
    assert cost["error"] == "not enough memory for that"


def test_a_process_that_is_killed_is_an_error_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_module, "_measure_all", _die)
    found = measure_costs(MEDIAN, CostOptions(sizes=[[8, 8], [9, 9]]), "cpu", "float32")
    assert len(found) == 2
    assert all("killed" in (cost["error"] or "") for cost in found)


def _die(*_: Any) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_what_the_user_can_mend_comes_back_as_it_is(tmp_path: Path) -> None:
    file = write_network(tmp_path / "net.pth")
    method = open_method("m", FileMethod(type="file", file=str(file)), "round")
    file.unlink()
    with pytest.raises(WeightsError, match=r"methods\.m: no such checkpoint: .*net\.pth"):
        measure_costs(method, CostOptions(), "cpu", "float32")


def test_costs_of_other_weights_are_not_taken_for_those_of_the_method(tmp_path: Path) -> None:
    options = FileMethod(type="file", file=str(write_network(tmp_path / "net.pth")))
    with pytest.raises(WeightsError, match=r"net\.pth has changed since the benchmark began; run again"):
        cost_module._measure_all("m", options, "another", CostOptions(), "cpu", "float32")
