"""Test samples: whole images under BasicSR's names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rainoerme_plugin.data.paired import PairedRain, SingleRain
from rainoerme_plugin.data.pairing import Pair, Pairing, find_pairs
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.errors import DataError


def write(path: Path, seed: int, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    path.parent.mkdir(exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(image).save(path)
    return image


def same(tensor: torch.Tensor, image: np.ndarray) -> bool:
    expected = np.moveaxis(image / 255, 2, 0)
    return tensor.dtype == torch.float32 and np.allclose(tensor.numpy(), expected, rtol=0, atol=1e-7)


def test_a_pair_is_given_whole_with_both_paths(tmp_path: Path) -> None:
    images = {
        (part, name): write(tmp_path / part / f"{name}.png", seed, size)
        for seed, (part, name, size) in enumerate(
            [("rain", "a", (6, 9)), ("norain", "a", (6, 9)), ("rain", "b", (5, 7)), ("norain", "b", (5, 7))]
        )
    }
    dataset = PairedRain(find_pairs(tmp_path))
    assert len(dataset) == 2
    for index, name in enumerate("ab"):
        sample = dataset[index]
        assert same(sample["lq"], images["rain", name])
        assert same(sample["gt"], images["norain", name])
        assert sample["lq_path"] == str(tmp_path / "rain" / f"{name}.png")
        assert sample["gt_path"] == str(tmp_path / "norain" / f"{name}.png")


def test_halves_are_given_as_a_pair(tmp_path: Path) -> None:
    whole = write(tmp_path / "x.png", 1, (4, 10))
    sample = PairedRain(find_pairs(tmp_path, "halves-clean-rainy"))[0]
    assert same(sample["lq"], whole[:, 5:])
    assert same(sample["gt"], whole[:, :5])


def test_a_loader_makes_batches_of_them(tmp_path: Path) -> None:
    write(tmp_path / "rain" / "a.png", 0)
    write(tmp_path / "norain" / "a.png", 1)
    (batch,) = DataLoader(PairedRain(find_pairs(tmp_path)))
    assert batch["lq"].shape == batch["gt"].shape == (1, 3, 6, 9)
    assert batch["lq_path"] == [str(tmp_path / "rain" / "a.png")]


def test_a_pair_of_two_sizes_is_refused_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 0, (6, 9))
    write(tmp_path / "b.png", 1, (6, 8))
    dataset = PairedRain(Pairing("by hand", [Pair(tmp_path / "a.png", tmp_path / "b.png")]))
    with pytest.raises(DataError, match=r"a\.png is 9x6 pixels, its clean version .*b\.png 8x6"):
        dataset[0]


def test_an_image_without_ground_truth_has_no_gt(tmp_path: Path) -> None:
    image = write(tmp_path / "real" / "1.png", 3)
    dataset = SingleRain(FolderSource(tmp_path / "real"))
    assert len(dataset) == 1
    sample = dataset[0]
    assert set(sample) == {"lq", "lq_path", "result"}
    assert same(sample["lq"], image)
    assert sample["lq_path"] == str(tmp_path / "real" / "1.png")
