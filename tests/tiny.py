"""A data set and option file small enough to train on in seconds."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from rainoerme_plugin.archs.rainoerme import RainOerMeNet

OPTIONS = Path(__file__).parent.parent / "options"
RATE = 1e-3
SHARED: dict[str, Any] = {
    "train__distillation__rain": {
        "move": False,
        "flip": False,
        "turn": 0,
        "strength": [1, 1],
        "size": [1, 1],
        "two": 0,
    },
    "train__loss_opt": {"_delete_": True, "type": "SSIMLoss"},
    "network_g__start": "noise",
    "datasets__train__label": {"type": "opening"},
}
"""Changes to `tiny_options` by which a batch gives the same step however it is shared out, the paper's way: rain layers
stay where they were found, and no loss has a corner, where roundings become signs."""


def write_images(folder: Path, count: int, size: tuple[int, int] = (40, 48), seed: int = 0, prefix: str = "") -> None:
    """Smooth random pictures (height, width), with bright vertical streaks where ``prefix`` says rain."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        coarse = random.integers(40, 160, (4, 4, 3)).astype(np.uint8)
        image = np.array(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        if prefix == "rain":
            for column in random.integers(0, size[1], 6):
                image[:, column] = np.minimum(image[:, column].astype(int) + 70, 255)
        Image.fromarray(image).save(folder / f"{number + 1}.png")


def tiny_data(root: Path) -> Path:
    """rainy/, clean/ and val/{rain,norain}/ below ``root``."""
    write_images(root / "rainy", 3, seed=1, prefix="rain")
    write_images(root / "clean", 2, seed=2)
    write_images(root / "val" / "rain", 2, seed=3, prefix="rain")
    write_images(root / "val" / "norain", 2, seed=3)
    return root


def tiny_options(root: Path, **changes: Any) -> Path:
    """An option file in ``root`` that inherits from distill_labels.yml; ``changes`` have dots written as ``__``."""
    options: dict[str, Any] = {
        "_base_": str(OPTIONS / "distill_labels.yml"),
        "name": "tiny",
        "num_gpu": 0,
        "datasets": {
            "train": {
                "dataroot_rainy": str(root / "rainy"),
                "dataroot_clean": str(root / "clean"),
                "label_cache": str(root / "labels"),
                "crop_size": 24,
                "batch_size_per_gpu": 2,
                "num_worker_per_gpu": 0,
            },
            "val": {"type": "PairedRainDataset", "dataroot": str(root / "val"), "limit": None},
        },
        "network_g": {"channels": 4},
        "train": {
            "total_iter": 6,
            "ema_decay": 0.9,
            "scheduler": {"start": 3, "end": 6},
            "distillation": {"warmup": 2},
        },
        "val": {"val_freq": 6},
        "logger": {"print_freq": 2, "save_checkpoint_freq": 3, "use_tb_logger": False},
    }
    return _write_options(root / "tiny.yml", options, changes)


def _write_options(file: Path, options: dict[str, Any], changes: dict[str, Any]) -> Path:
    for key, value in changes.items():
        *path, last = key.split("__")
        place = options
        for part in path:
            place = place.setdefault(part, {})
        place[last] = deepcopy(value)  # the changes after this one may be within it
    file.write_text(yaml.safe_dump(options, sort_keys=False))
    return file


def model_options(root: Path, network: dict[str, Any], metrics: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What BasicSR hands to a `DistillationModel` in training; ``changes`` are to the section ``train``."""
    return {
        "name": "tiny",
        "model_type": "DistillationModel",
        "num_gpu": 0,
        "dist": False,
        "rank": 0,
        "world_size": 1,
        "is_train": True,
        "manual_seed": 11,
        "network_g": network,
        "path": {"visualization": str(root / "visualization")},
        "train": {
            "total_iter": 10,
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": RATE, "betas": [0.5, 0.999]},
            "scheduler": {"type": "LinearDecayLR", "start": 5, "end": 10},
            "distillation": {"warmup": 2, "soft_decay": 3, "hard_ramp": 2, "hard_max": 1.75},
            "collapse_guard": {"enabled": False},
            **changes,
        },
        "val": {"save_img": False, "metrics": metrics},
    }


def write_network(file: Path, channels: int = 4, gain: float = 1.0) -> Path:
    """A checkpoint of the paper's network with random weights."""
    torch.manual_seed(0)
    network = RainOerMeNet(channels)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain).add_(0.05 * torch.randn_like(parameter))
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"params": network.state_dict()}, file)
    return file


def benchmark_options(root: Path, **changes: Any) -> Path:
    """An option file in ``root`` of a benchmark of three methods on the pairs of `tiny_data`; no costs, no report."""
    options: dict[str, Any] = {
        "name": "tiny",
        "methods": {
            "input": {"type": "input"},
            "opening": {"type": "filter", "filter": {"type": "opening", "window": [1, 5]}},
            "net": {"type": "file", "file": str(root / "net.pth")},
        },
        "datasets": {"pairs": {"dataroot": str(root / "val")}},
        "protocols": ["matlab_y", "rgb"],
        "measures": ["rain_removed", "structure_kept"],
        "bootstrap": 200,
        "cost": None,
        "report": None,
    }
    return _write_options(root / "benchmark.yml", options, changes)
