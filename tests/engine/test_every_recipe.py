"""Every option file in options/ that trains does an iteration as it stands, but for its data and its length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import OPTIONS, write_images

from rainoerme_plugin.config import Request, read_options
from rainoerme_plugin.engine.training import train


def recipes() -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAINOERME_DATA", "data")
        patch.setenv("RAINOERME_WEIGHTS", "weights")
        files = sorted(OPTIONS.glob("*.yml"))
        return [file.name for file in files if "train" in (read_options(file).get("datasets") or {})]


RECIPES = recipes()
SMALLER: dict[str, dict[str, Any]] = {
    "NAFNet": {"width": 8, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    "PReNet": {"stages": 2},
}
"""Arguments by which a large backbone takes no time."""


def test_all_recipes_are_looked_at() -> None:
    assert {"distill.yml", "distill_labels.yml", "rain200l.yml", "rain100l_unpaired_cpu.yml", "demo.yml"} <= {*RECIPES}
    assert len(RECIPES) >= 20


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_an_iteration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAINOERME_DATA", str(tmp_path))
    recipe = read_options(OPTIONS / name)
    side = recipe["datasets"]["train"]["crop_size"]
    write_images(tmp_path / "rainy", 2, (side + 8, side + 4), seed=1, prefix="rain")
    write_images(tmp_path / "clean", 2, (side + 8, side + 4), seed=2)
    changes: dict[str, Any] = {
        "num_gpu": 0,
        "train.total_iter": 1,
        "train.cuda_graphs": False,
        "train.compile": False,
        "datasets.train.dataroot_rainy": str(tmp_path / "rainy"),
        "datasets.train.dataroot_clean": str(tmp_path / "clean"),
        "datasets.train.num_worker_per_gpu": 0,
        "datasets.train.batch_size_per_gpu": 1,
        "datasets.train.source": "memory",
        "datasets.val": {
            "_delete_": True,
            "name": "val",
            "type": "SingleRainDataset",
            "dataroot": str(tmp_path / "rainy"),
        },
        "logger.use_tb_logger": False,
    }
    if recipe["datasets"]["train"]["label"]["type"] == "folder":
        changes["datasets.train.label.path"] = str(tmp_path / "rainy")
    for key, value in SMALLER.get(recipe["network_g"].get("backbone", {}).get("type"), {}).items():
        changes[f"network_g.backbone.{key}"] = value
    overrides = tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
    opt = train(Request(OPTIONS / name, overrides, device="cpu", root=tmp_path))
    saved = torch.load(Path(opt["path"]["models"]) / "net_g_latest.pth", weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["params"].values())
