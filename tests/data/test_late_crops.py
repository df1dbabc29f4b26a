"""Crops of another size late in a run: from which sample on, and the same from every kind of source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rainoerme_plugin.data.device import DeviceBatches
from rainoerme_plugin.data.labels import SoftLabels
from rainoerme_plugin.data.order import late_start
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.data.unpaired import UnpairedRain, collate_rain
from rainoerme_plugin.distillation.filters import OpeningFilter
from rainoerme_plugin.errors import DataError, OptionError
from rainoerme_plugin.options import UnpairedRainOptions, read_section
from rainoerme_plugin.registered.datasets import UnpairedRainDataset
from rainoerme_plugin.training.sampler import StreamSampler

CROP, LATE = 8, 14
KEYS = ("rainy", "label", "clean", "rain")


def write(folder: Path, count: int, seed: int) -> FolderSource:
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng([seed, number]).integers(0, 256, (16 + number, 19, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return FolderSource(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("rainy", "clean", "rain")):
        write(tmp_path / name, 3 + seed, seed)
    return tmp_path


def build(root: Path, late: int | None = LATE, **more: Any) -> UnpairedRain:
    rainy, clean, rain = (FolderSource(root / name) for name in ("rainy", "clean", "rain"))
    labels = SoftLabels(rainy, OpeningFilter((1, 3)))
    return UnpairedRain(rainy, labels, clean, CROP, 4, rain=rain, late_crop_size=late, **more)


def alike(one: Any, other: Any) -> bool:
    return all(torch.equal(one[key], other[key]) for key in KEYS)


@pytest.mark.parametrize(("share", "total", "start"), [(0.75, 20000, 15000), (0.29, 100, 29), (0, 9, 0), (1, 9, 9)])
def test_the_start_follows_from_the_iterations(share: float, total: int, start: int) -> None:
    assert late_start(share, total) == start


def test_samples_before_are_what_they_would_be_and_later_ones_are_larger_windows(root: Path) -> None:
    dataset, small, large = build(root), build(root, None), build(root, None)
    large.crop_size = LATE
    assert all(alike(dataset[position], small[position]) for position in range(20))  # nobody has said when
    dataset.plan(total=8, samples=2)  # from the seventh iteration on, which begins with sample 12
    assert all(alike(dataset[position], small[position]) for position in range(12))
    for position in range(12, 30):
        sample = dataset[position]
        assert [tuple(sample[key].shape) for key in KEYS] == [(3, LATE, LATE)] * 4  # type: ignore[literal-required]
        assert alike(sample, large[position])
        assert dataset.draw(position).rainy == small.draw(position).rainy


def test_a_run_that_goes_on_with_more_processes_begins_at_the_same_iteration(root: Path) -> None:
    dataset = build(root)
    # Of 100 iterations 10 are done, of two samples each; now they have six.
    dataset.plan(total=100, samples=6, done=10, first=20)
    first = 20 + 65 * 6
    assert [dataset.side(position) for position in (0, first - 1, first, 10**9)] == [CROP, CROP, LATE, LATE]


@pytest.mark.parametrize("late", [LATE, 5])
def test_workers_memory_and_device_give_the_same(root: Path, late: int) -> None:
    def planned() -> UnpairedRain:
        dataset = build(root, late)
        dataset.plan(total=8, samples=2)
        return dataset

    plain, held = planned(), planned()
    held.load()
    sampler = StreamSampler(8, 16, batch=2)
    ways = {
        "files": DataLoader(planned(), 2, sampler=sampler, num_workers=2, collate_fn=collate_rain),
        "memory": DataLoader(held, 2, sampler=sampler, num_workers=2, multiprocessing_context="spawn"),
        "device": DeviceBatches(held, sampler, 2, torch.device("cpu")),
    }
    for batches in ways.values():
        sides = []
        for first, batch in zip(range(8, 16, 2), batches, strict=True):  # type: ignore[call-overload]
            sides.append(batch["rainy"].shape[-1])
            for place in range(2):
                assert alike({key: batch[key][place] for key in KEYS}, plain[first + place])
        assert sides == [CROP, CROP, late, late]


@pytest.mark.parametrize("folder", ["rainy", "clean"])
def test_images_must_be_as_large_as_the_larger_size(root: Path, folder: str) -> None:
    Image.new("RGB", (13, 30)).save(root / folder / "1.png")
    with pytest.raises(
        DataError,
        match=rf"{folder}/1\.png: 13x30 pixels is smaller than the crop of 14x14; .* or lower late_crop_size$",
    ):
        build(root)
    build(root, 13)


def options(root: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "some name",
        "type": "UnpairedRainDataset",
        "phase": "train",
        "dataroot_rainy": str(root / "rainy"),
        "dataroot_clean": str(root / "clean"),
        "label": {"type": "opening"},
        "crop_size": CROP,
        **changes,
    }


def test_squares_of_a_bank_are_made_large_enough_for_both(root: Path) -> None:
    squares = root / "squares"
    squares.mkdir()
    square = np.random.default_rng(0).integers(0, 256, (10, 10), np.uint8)
    Image.fromarray(square).save(squares / "1.png")
    bank = {"type": "folder", "path": str(squares)}
    dataset = UnpairedRainDataset(options(root, late_crop_size=LATE, late_from=0.5, rain=bank))
    dataset.plan(total=4, samples=1)
    assert [tuple(dataset[position]["rain"].shape) for position in (1, 2)] == [(3, CROP, CROP), (3, LATE, LATE)]
    mirrored = np.pad(square, (0, LATE - 10), "symmetric")
    assert np.array_equal(dataset[2]["rain"][0].numpy(), mirrored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"late_crop_size": 0}, "late_crop_size: should be greater than or equal to 1"),
        ({"late_from": 1.5}, "late_from: should be less than or equal to 1, got 1.5"),
        ({"late_from": -1}, "late_from: should be greater than or equal to 0"),
        ({"late_crop_size": 20_000, "batch_size_per_gpu": 8}, "a batch of 8 crops of 20000x20000 pixels is more than"),
    ],
)
def test_what_cannot_be_is_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        read_section(UnpairedRainOptions, options(root, **changes), "datasets.train")
    if "batch" in message:
        assert str(caught.value).endswith("lower batch_size_per_gpu or late_crop_size")
