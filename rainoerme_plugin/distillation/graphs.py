"""CUDA graphs: a small network's step launched as one piece, where launching its kernels one by one takes longer.

The paper's network is so small that a GPU waits for the CPU. A graph holds the kernels of one forward and backward
pass with the addresses they work on; to replay it, the new images are copied to those addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .schedule import StepWeights
from .step import DistillationStep

Images = tuple[Tensor, ...]
"""Rainy crops, soft labels and clean crops, and where there is a bank its rain, each (B, 3, H, W)."""
Gradients = Callable[[Images, StepWeights, bool], DistillationStep]
"""From images, weights and whether there are two stages to gradients, which it adds to the parameters'."""

WARMUP = 3
"""Ordinary passes before the capture, in which libraries choose their kernels and take their memory."""


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    images: Images
    weights: list[Tensor]
    """Soft, hard and gain, scalars."""
    step: DistillationStep
    gradients: list[Tensor | None]


class GraphedGradients:
    """Captures what ``compute`` does, and replays it.

    There is a graph for each state of training: with or without the second stage, and whatever else ``state`` says
    decides about the kernels (a backbone that is frozen for a while). Batch norms see the warm-up passes too.

    Args:
        compute: What is captured. It must not wait for the GPU, nor decide anything by values on it.
        parameters: Those that it gives gradients to.
    """

    def __init__(self, compute: Gradients, parameters: Iterable[nn.Parameter]) -> None:
        self._compute = compute
        self._parameters = list(parameters)
        self._graphs: dict[Hashable, _Graph] = {}

    def __call__(self, images: Images, weights: StepWeights, state: Hashable = None) -> DistillationStep:
        """The gradients of one step, in place of whatever was there; the step's tensors are overwritten by the next.

        Raises:
            RuntimeError: What ``compute`` does cannot be captured.
        """
        two_stages = bool(weights.hard > 0)
        key = (state, two_stages, *((image.shape, image.dtype) for image in images))
        if key not in self._graphs:
            self._graphs[key] = self._capture(images, two_stages)
        held = self._graphs[key]
        for place, image in zip(held.images, images, strict=True):
            place.copy_(image, non_blocking=True)
        for place, value in zip(held.weights, weights, strict=True):
            place.fill_(value)
        held.graph.replay()
        for parameter, gradient in zip(self._parameters, held.gradients, strict=True):
            parameter.grad = gradient
        return held.step

    def _capture(self, images: Images, two_stages: bool) -> _Graph:
        held = tuple(image.clone() for image in images)
        scalars = [torch.ones((), device=held[0].device) for _ in range(3)]
        weights = StepWeights(*scalars)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARMUP):
                self._drop_gradients()
                self._compute(held, weights, two_stages)
        torch.cuda.current_stream().wait_stream(beside)
        self._drop_gradients()  # so that backward makes them at addresses of the graph's own
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                step = self._compute(held, weights, two_stages)
        except BaseException:
            self._drop_gradients()
            raise
        return _Graph(graph, held, scalars, step, [parameter.grad for parameter in self._parameters])

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
