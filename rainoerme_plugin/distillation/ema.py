"""The running mean of a network's weights, which derains better than the weights of any one iteration."""

from __future__ import annotations

import torch
from torch import nn


def ramped_decay(decay: float, iteration: int) -> float:
    """The decay at ``iteration``, from 1: a short memory at first, or the mean would be full of the untrained network.

    (As in TensorFlow's ExponentialMovingAverage with ``num_updates``.)
    """
    return min(decay, (1 + iteration) / (10 + iteration))


@torch.no_grad()
def move_mean(mean: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean on: mean = decay * mean + (1 - decay) * network.

    What is not trained is copied: statistics of batch norms. A frozen backbone is left: it is the same in both.
    """
    trained = [
        (old, new) for old, new in zip(mean.parameters(), network.parameters(), strict=True) if new.requires_grad
    ]
    if trained:
        means, values = map(list, zip(*trained, strict=True))
        torch._foreach_lerp_(means, values, 1 - decay)
    for old, new in zip(mean.buffers(), network.buffers(), strict=True):
        old.copy_(new)
