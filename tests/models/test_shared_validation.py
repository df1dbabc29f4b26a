"""Validation by several processes: the figures and pictures of one alone, and only the first process writes."""

from __future__ import annotations

import os
import random
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from tiny import model_options, write_images, write_network
from torch import nn

from rainoerme_plugin.processes import leave_processes

COUNTS = (1, 2, 3, 5)
METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True},
    "ssim": {"type": "calculate_ssim", "crop_border": 0},
    "error": {"type": "calculate_psnr", "crop_border": 0, "better": "lower"},
}


class Normalising(nn.Module):
    """Derains by nothing but the running statistics of its batch normalisation."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(mean)

    def forward(self, rainy: torch.Tensor) -> torch.Tensor:
        return self.norm(rainy)


def paired(root: Path, count: int) -> Any:
    from basicsr.data import build_dataloader, build_dataset

    opt = {"name": f"{count} images", "type": "PairedRainDataset", "phase": "val", "dataroot": str(root / str(count))}
    return build_dataloader(build_dataset(opt), opt, num_gpu=0, dist=dist.is_initialized())


def random_states() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def watch_writing(folder: Path) -> list[str]:
    """Whatever this process opens for writing below a folder, from now on."""
    written: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(str(folder)):
            written.extend([arguments[0]] * bool(arguments[2] & (os.O_WRONLY | os.O_RDWR)))

    sys.addaudithook(note)
    return written


def validate(rank: int, world: int, root: Path) -> None:
    """What a process does: all test sets twice, by the same network; what it knows then goes to a file."""
    from basicsr.models import build_model

    from rainoerme_plugin.engine.mend import mend_basicsr
    from rainoerme_plugin.plugin import register

    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{root}/meeting {world}", rank=rank, world_size=world)
    register()
    mend_basicsr()
    opt = model_options(root / f"by {world}", {"type": "RainOerMeNet", "channels": 4}, METRICS)
    opt.update(dist=world > 1, rank=rank, world_size=world, device="cpu")
    opt["path"]["pretrain_network_g"] = str(root / "net.pth")
    torch.manual_seed(rank)
    model = build_model(opt)
    found: dict[str, Any] = {"written": watch_writing(root / f"by {world}")}
    for number, count in enumerate(COUNTS):
        before, loader = random_states(), paired(root, count)
        for iteration in (10, 20):
            model.validation(loader, iteration + number, None, True)
        found[f"{count} images"] = dict(model.metric_results)
        found[f"drew for {count}"] = random_states() != before
    found["best"], found["rainy"] = deepcopy(model.best_metric_results), dict(model.input_metrics)
    model.net_g_ema = Normalising(0.1 * rank)
    model.validation(loader, 30, None, False)
    found["normalised"] = dict(model.metric_results)
    found["mean"] = float(model.net_g_ema.norm.running_mean[0])
    torch.save(found, root / f"{rank} of {world}.pt")
    leave_processes()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test sets, a network, and what one, two and three processes make of them."""
    root = tmp_path_factory.mktemp("shared")
    for count in COUNTS:
        write_images(root / str(count) / "rain", count, seed=count, prefix="rain")
        write_images(root / str(count) / "norain", count, seed=count)
    write_network(root / "net.pth")
    return root


@pytest.fixture(scope="module", params=[2, 3])
def world(root: Path, request: pytest.FixtureRequest) -> int:
    for world in (1, request.param):
        if not (root / f"0 of {world}.pt").exists():
            processes.spawn(validate, (world, root), nprocs=world)
    return request.param


def found(root: Path, rank: int, world: int) -> dict[str, Any]:
    return torch.load(root / f"{rank} of {world}.pt", weights_only=True)


def test_the_figures_are_those_of_one_process_to_the_bit_and_known_to_all(root: Path, world: int) -> None:
    alone = found(root, 0, 1)
    for rank in range(world):
        shared = found(root, rank, world)
        for key in (*(f"{count} images" for count in COUNTS), "best", "rainy"):
            assert shared[key] == alone[key], (rank, key)
    assert alone["best"]["3 images"]["psnr"]["iter"] == 22
    assert alone["5 images"]["psnr"] != alone["3 images"]["psnr"]


def test_the_pictures_are_those_of_one_process(root: Path, world: int) -> None:
    def pictures(world: int) -> dict[str, bytes]:
        folder = root / f"by {world}"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    alone = pictures(1)
    names = {name.removeprefix("visualization/") for name in alone}
    assert {"3/3_12.png", "panels/5 images/4_13.png", "5/5_23.png", "panels/1 images/1_20.png"} <= names
    assert not any(name.startswith("panels/5 images/5_") for name in names)
    assert pictures(world) == alone


def test_only_the_first_process_writes(root: Path, world: int) -> None:
    written = [found(root, rank, world)["written"] for rank in range(world)]
    assert len(written[0]) == len(found(root, 0, 1)["written"]) > 0
    assert not any(written[1:])


def test_validation_draws_from_no_global_generator(root: Path, world: int) -> None:
    for rank, among in ((0, 1), *((rank, world) for rank in range(world))):
        assert not any(found(root, rank, among)[f"drew for {count}"] for count in COUNTS)


def test_all_use_the_first_ones_running_statistics_and_keep_their_own(root: Path, world: int) -> None:
    for rank in range(world):
        shared = found(root, rank, world)
        assert shared["normalised"] == found(root, 0, 1)["normalised"]
        assert shared["mean"] == pytest.approx(0.1 * rank)
