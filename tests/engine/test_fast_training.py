"""Training with images in memory or on the device, and its options for speed: the same run as the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_data, tiny_options
from torch import Tensor

from rainoerme_plugin.config import Request
from rainoerme_plugin.engine.training import train


def weights_after(root: Path, name: str, **changes: Any) -> dict[str, Tensor]:
    file = tiny_options(root, name=name, manual_seed=5, **changes)
    done = train(Request(file, root=root))
    checkpoint = torch.load(Path(done["path"]["models"]) / "net_g_latest.pth", weights_only=True)
    return {f"{key}.{weight}": value for key in ("params", "params_ema") for weight, value in checkpoint[key].items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets__train__source": "memory"},
        {"datasets__train__source": "device"},
        {"datasets__train__source": "memory", "datasets__train__num_worker_per_gpu": 2},
        {"datasets__train__label_cache": None},
        {"datasets__train__label_cache": None, "datasets__train__source": "device"},
    ],
)
def test_where_images_lie_does_not_change_what_is_learnt(tmp_path: Path, changes: dict[str, Any]) -> None:
    tiny_data(tmp_path)
    plain, other = weights_after(tmp_path, "plain"), weights_after(tmp_path, "other", **changes)
    assert plain.keys() == other.keys()
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_a_run_on_the_device_goes_on_where_it_stopped(tmp_path: Path) -> None:
    tiny_data(tmp_path)
    whole = weights_after(tmp_path, "whole", datasets__train__source="device")
    folder = tmp_path / "experiments" / "whole"
    for late in ("models/net_g_6.pth", "training_states/6.state"):
        (folder / late).unlink()
    done = train(Request(tmp_path / "tiny.yml", root=tmp_path, auto_resume=True))
    resumed = torch.load(Path(done["path"]["models"]) / "net_g_latest.pth", weights_only=True)["params"]
    assert all(torch.equal(resumed[name], whole[f"params.{name}"]) for name in resumed)
