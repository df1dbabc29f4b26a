"""Pairs that are made of clean images and a bank's rain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import write_images

from rainoerme_plugin.data.paired import MadePairs
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.errors import DataError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[FolderSource, FolderSource]:
    write_images(tmp_path / "clean", 3, (40, 48), seed=2)
    (tmp_path / "rain").mkdir()
    for number in range(2):
        rain = np.zeros((36, 33, 3), np.uint8)
        rain[:, 5 + number :: 7] = 90 * (number + 1)
        Image.fromarray(rain).save(tmp_path / "rain" / f"{number}.png")
    return FolderSource(tmp_path / "clean"), FolderSource(tmp_path / "rain")


def places_of(crop: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """Where a crop lies in an image."""
    side = len(crop)
    rows, columns = range(image.shape[0] - side + 1), range(image.shape[1] - side + 1)
    return [
        (row, column)
        for row in rows
        for column in columns
        if np.array_equal(image[row : row + side, column : column + side], crop)
    ]


def test_a_pair_is_a_clean_crop_and_the_same_with_a_crop_of_rain(folders: tuple[FolderSource, FolderSource]) -> None:
    clean, rain = folders
    pairs = MadePairs(clean, rain, 7, 24)
    assert len(pairs) == 7
    seen = set()
    for sample in (pairs[index] for index in range(7)):
        before, after = ((sample[key] * 255).round().numpy().transpose(1, 2, 0) for key in ("gt", "lq"))
        image = np.asarray(Image.open(sample["gt_path"]))
        assert places_of(before.astype(np.uint8), image)
        added = after - before
        unclipped = after < 255
        fits = [
            number
            for number in range(2)
            for left in range(33 - 24 + 1)
            if np.array_equal(added[unclipped], rain.read(number)[:24, left : left + 24].astype(np.float32)[unclipped])
        ]
        assert fits
        assert f"{fits[0]}.png" in sample["lq_path"]
        seen.add((sample["gt_path"], fits[0]))
    assert len(seen) > 2  # one with another


def test_pairs_are_the_same_again_and_others_with_another_seed(folders: tuple[FolderSource, FolderSource]) -> None:
    first, again, other = (MadePairs(*folders, 4, 24, seed) for seed in (0, 0, 1))
    for index in range(4):
        assert torch.equal(first[index]["lq"], again[index]["lq"])
        assert first[index]["result"] == again[index]["result"] == f"pair-{index + 1:03d}"
    assert any(not torch.equal(first[index]["lq"], other[index]["lq"]) for index in range(4))
    with pytest.raises(IndexError):
        first[4]


def test_images_must_be_as_large_as_the_crops(folders: tuple[FolderSource, FolderSource]) -> None:
    with pytest.raises(DataError, match="rain"):
        MadePairs(*folders, 4, 35)
