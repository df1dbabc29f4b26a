"""The random number generators that training may draw from: read, set, left as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_states(device: torch.device | None = None) -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators, the device's too, as tensors and plain types."""
    version, words, gauss = random.getstate()
    name, key, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "python": [version, list(words), gauss],
        "numpy": [name, key.tolist(), position, has_gauss, cached],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
    }
    if device is not None and device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device is not None and device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: dict[str, Any], device: torch.device | None = None) -> None:
    """Set what `random_states` gave; a device's only if it is of the same kind."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, key, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(key, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if device is not None and device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device is not None and device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


@contextmanager
def undisturbed(device: torch.device | None = None) -> Iterator[None]:
    """Let what is done in the meantime draw as it likes: afterwards the generators are where they were."""
    before = random_states(device)
    try:
        yield
    finally:
        set_random_states(before, device)


def seed_host(*numbers: int) -> None:
    """Seed the generators on the host by all of these numbers together; those of devices are left alone."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch, those of all devices too."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
