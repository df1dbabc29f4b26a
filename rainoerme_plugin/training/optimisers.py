"""What an optimiser is made of: groups of parameters, and settings that no option file should have to name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..options import BackboneOptions
from .distiller import backbone_of

FUSED = ("Adam", "AdamW", "SGD")
"""Optimisers that PyTorch has as one kernel, on CPU and CUDA."""


def optimiser_settings(options: Mapping[str, Any], device_type: str) -> dict[str, Any]:
    """``train.optim_g`` without its type; with ``fused`` where there is such a one and nothing else is asked for."""
    settings = {key: value for key, value in options.items() if key != "type"}
    if options["type"] in FUSED and "foreach" not in settings and device_type in ("cpu", "cuda"):
        settings.setdefault("fused", True)
    return settings


def parameter_groups(network: nn.Module, lr: float, backbone: BackboneOptions | None) -> list[dict[str, Any]]:
    """What is trained of a network: one group, or the backbone's parameters apart, at a rate of their own."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = backbone_of(network, backbone)
    if found is None:
        return [{"params": trained}]
    theirs = {id(parameter) for parameter in found[0].parameters()}
    split = ([p for p in trained if id(p) not in theirs], [p for p in trained if id(p) in theirs])
    rates = (lr, lr * found[1].lr_factor)
    return [{"params": part, "lr": rate} for part, rate in zip(split, rates, strict=True) if part]
