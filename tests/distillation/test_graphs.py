"""CUDA graphs: what is copied, captured and handed back, with a stand-in for CUDA; on a GPU, the same gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.distillation.confidence import Confidence
from rainoerme_plugin.distillation.graphs import WARMUP, GraphedGradients, Images
from rainoerme_plugin.distillation.rain_layers import RainVariation
from rainoerme_plugin.distillation.refinements import OnDevice, Refinements, Teacher
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.distillation.step import DistillationStep, distillation_gradients
from rainoerme_plugin.losses.ssim import SSIMLoss
from rainoerme_plugin.losses.total import SumLoss


class Recorded:
    """A graph of one recorded call: replaying it runs that call again on the tensors it was recorded with."""

    def __init__(self) -> None:
        self.call: Any = None

    def replay(self) -> None:
        self.call()


class Work:
    """Gradients of one parameter: soft * mean of the rainy image, and hard * gain * mean of the clean one."""

    def __init__(self) -> None:
        self.parameter = nn.Parameter(torch.zeros(()))
        self.calls: list[bool] = []
        self.recording: Recorded | None = None

    def __call__(self, images: Images, weights: StepWeights, two_stages: bool) -> DistillationStep:
        rainy, label, clean, *bank = images
        assert all(isinstance(weight, Tensor) for weight in weights)
        self.calls.append(two_stages)
        result, gradient = torch.zeros(()), torch.zeros(())

        def compute() -> None:
            value = weights.soft * rainy.mean()
            value = value + weights.hard * weights.gain * clean.mean() if two_stages else value
            value = value + sum(rain.mean() for rain in bank)
            result.copy_(value)
            gradient.copy_(value)

        if self.recording is not None:
            # What is captured is not executed.
            self.recording.call, self.recording = compute, None
            assert self.parameter.grad is None, "backward would add to what is there, in every replay"
            self.parameter.grad = gradient
        else:
            compute()
            self.parameter.grad = gradient if self.parameter.grad is None else self.parameter.grad + gradient
        return DistillationStep(result, result, result, rainy, label, rainy, rainy, clean)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()

    @contextmanager
    def capture(graph: Recorded) -> Iterator[None]:
        work.recording = graph
        yield

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return work


def images_of(value: float, batch: int = 2) -> Images:
    return tuple(torch.full((batch, 3, 4, 4), value + offset) for offset in (0.0, 0.1, 0.2))  # type: ignore[return-value]


def test_each_call_replays_with_its_own_images_and_weights(work: Work) -> None:
    graphs = GraphedGradients(work, [work.parameter])
    for value, weights in [(0.5, StepWeights(0.5, 2.0, 1.5)), (0.3, StepWeights(0.25, 4.0, 1.0))]:
        images = images_of(value)
        step = graphs(images, weights)
        expected = weights.soft * value + weights.hard * weights.gain * (value + 0.2)
        assert float(step.loss) == pytest.approx(expected, abs=1e-6)
        assert float(work.parameter.grad) == pytest.approx(expected, abs=1e-6)
        assert float(step.label[0, 0, 0, 0]) == pytest.approx(value + 0.1)
        assert step.rainy is not images[0]
    assert work.calls == [True] * (WARMUP + 1)


def test_rain_of_a_bank_is_handed_over_with_every_batch(work: Work) -> None:
    graphs = GraphedGradients(work, [work.parameter])
    for value, rain in ((0.5, 0.25), (0.3, 0.0), (0.3, 0.125)):
        bank = torch.full((2, 3, 4, 4), rain)
        step = graphs((*images_of(value), bank), StepWeights(1.0, 0.0, 1.0))
        assert float(step.loss) == pytest.approx(value + rain, abs=1e-6)
        assert float(work.parameter.grad) == pytest.approx(value + rain, abs=1e-6)
    assert work.calls == [False] * (WARMUP + 1)


def test_every_state_of_training_has_a_graph_and_gradients_of_its_own(work: Work) -> None:
    graphs = GraphedGradients(work, [work.parameter])
    one, both = StepWeights(1.0, 0.0, 1.0), StepWeights(1.0, 1.0, 1.0)
    for weights, frozen in [(one, True), (both, True), (one, True), (both, False)]:
        graphs(images_of(0.5), weights, state=frozen)
        assert float(work.parameter.grad) == pytest.approx(0.5 + weights.hard * 0.7, abs=1e-6)
    assert work.calls == [False] * 4 + [True] * 8
    graphs(images_of(0.5, batch=1), both, state=False)
    assert len(work.calls) == 16


def test_what_cannot_be_captured_leaves_no_gradients(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def fails(graph: Recorded) -> Iterator[None]:
        work.recording = graph
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", fails)
    graphs = GraphedGradients(work, [work.parameter])
    with pytest.raises(RuntimeError, match="not permitted"):
        graphs(images_of(0.5), StepWeights(1.0, 1.0, 1.0))
    assert work.parameter.grad is None


def apart(ones: list[Tensor], others: list[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_on_a_gpu_replayed_gradients_are_those_of_plain_steps(precision: torch.dtype | None) -> None:
    torch.manual_seed(0)
    network, criterion = RainOerMeNet().cuda(), SSIMLoss()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)

    def compute(images: Images, weights: StepWeights, two_stages: bool) -> DistillationStep:
        return distillation_gradients(network, *images, weights, criterion, two_stages, precision=precision)

    def plain(images: Images, weights: StepWeights, precision: torch.dtype | None) -> list[Tensor]:
        network.zero_grad()
        distillation_gradients(network, *images, weights, criterion, weights.hard > 0, precision=precision)
        return [parameter.grad.clone() for parameter in network.parameters()]

    graphs = GraphedGradients(compute, network.parameters())
    for seed, weights in enumerate([StepWeights(1.0, 0.0, 1.0), StepWeights(0.5, 1.5, 1.2)] * 2):
        generator = torch.Generator().manual_seed(seed)
        rainy, label, clean = torch.rand(3, 2, 3, 32, 32, generator=generator).cuda()
        graphs((rainy, label, clean), weights)
        replayed = [parameter.grad.clone() for parameter in network.parameters()]
        own, exact = (plain((rainy, label, clean), weights, kind) for kind in (precision, None))
        # In bfloat16 each algorithm rounds its own way; that makes less of a difference than bfloat16 itself.
        allowed = apart(own, exact) if precision else 1e-3 * max(float(gradient.abs().max()) for gradient in own)
        assert apart(replayed, own) < allowed


EVERYTHING = Refinements(
    blend="alpha",
    variation=RainVariation(True, True, True, 10.0, (0.5, 1.5), (0.8, 1.2), 0.5),
    teacher=Teacher(rain=True, label_weight=0.5, label_ramp=3),
    confidence=Confidence(),
    rain_share=0.1,
)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_on_a_gpu_refinements_are_replayed_with_their_own_numbers(precision: torch.dtype | None) -> None:
    torch.manual_seed(0)
    network, teacher = RainOerMeNet().cuda(), RainOerMeNet().cuda().eval()
    for parameter in [*network.parameters(), *teacher.parameters()]:
        nn.init.normal_(parameter, std=0.1)
    on_device = OnDevice(torch.device("cuda"))
    refined = on_device(EVERYTHING.at(1, batch=4))
    losses = SumLoss([{"type": "SSIMLoss"}, {"type": "CharbonnierLoss"}, {"type": "FrequencyLoss"}])

    def compute(images: Images, weights: StepWeights, two_stages: bool) -> DistillationStep:
        return distillation_gradients(
            network, *images, weights, losses, two_stages, refined=refined, teacher=teacher, precision=precision
        )

    graphs = GraphedGradients(compute, network.parameters())
    weights = StepWeights(0.5, 1.5, 1.2)
    for iteration in range(1, 5):
        refined = on_device(EVERYTHING.at(iteration, batch=4))
        generator = torch.Generator().manual_seed(iteration)
        rainy, label, clean = torch.rand(3, 4, 3, 32, 32, generator=generator).cuda()
        replayed = graphs((rainy, label, clean), weights, refined.kernels).synthetic.clone()
        gradients = [parameter.grad.clone() for parameter in network.parameters()]
        network.zero_grad()
        plain = compute((rainy, label, clean), weights, True).synthetic
        torch.testing.assert_close(replayed, plain, atol=1e-4 if precision is None else 3e-2, rtol=0)
        own = [parameter.grad.clone() for parameter in network.parameters()]
        largest = max(float(gradient.abs().max()) for gradient in own)
        # (What bfloat16 itself makes of such gradients is several times as far from float32's.)
        assert apart(gradients, own) < (1e-2 if precision is None else 0.2) * largest
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.05)  # in place, as the running mean moves
