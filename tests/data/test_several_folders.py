"""Images of several folders: one source behind the other, and how often each comes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rainoerme_plugin.data.device import DeviceBatches
from rainoerme_plugin.data.joined import JoinedSource, joined, open_sources
from rainoerme_plugin.data.labels import SoftLabels
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.order import Turns, shuffled
from rainoerme_plugin.data.rain import PlainRain
from rainoerme_plugin.data.sources import FolderSource, LmdbSource
from rainoerme_plugin.data.unpaired import UnpairedRain, collate_rain
from rainoerme_plugin.distillation.filters import OpeningFilter
from rainoerme_plugin.errors import DataError

CROP, SEED = 8, 5
SIZES = {"a": [(12, 14), (10, 20), (16, 8)], "b": [(9, 13), (20, 8)], "c": [(8, 8), (11, 9), (30, 10), (9, 9)]}


def write(folder: Path, sizes: list[tuple[int, int]]) -> FolderSource:
    folder.mkdir()
    for number, size in enumerate(sizes):
        noise = np.random.default_rng([len(folder.name), ord(folder.name[0]), number]).integers(0, 256, (*size, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    return FolderSource(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, sizes in SIZES.items():
        source = write(tmp_path / name, sizes)
        images = ((name, source.encoded(index)) for index, name in enumerate(source.names))
        list(write_lmdb(tmp_path / f"{name}.lmdb", images, 1 << 20, decoded=True))
    return tmp_path


# --- one source behind the other ---


def test_images_are_those_of_each_source_in_turn(root: Path) -> None:
    parts = [FolderSource(root / "a"), LmdbSource(root / "b.lmdb"), FolderSource(root / "c")]
    source = JoinedSource(parts)
    assert source.counts == [3, 2, 4]
    assert len(source) == 9
    assert list(source.names) == ["0.png", "1.png", "2.png", "0", "1", "0.png", "1.png", "2.png", "3.png"]
    assert source.sizes().tolist() == [list(size) for sizes in SIZES.values() for size in sizes]
    for index in range(9):
        name, own = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c", 0), ("c", 1), ("c", 2), ("c", 3)][index]
        pixels = np.asarray(Image.open(root / name / f"{own}.png"))
        assert np.array_equal(source.read(index), pixels)
        assert np.array_equal(source.crop(index, 1, 0, 5, 6), pixels[1:6, :6])
        assert source.where(index).startswith(str(root / name))
        if name != "b":
            assert source.encoded(index) == (root / name / f"{own}.png").read_bytes()


def test_one_source_is_itself(root: Path) -> None:
    source = FolderSource(root / "a")
    assert joined([source]) is source


def test_a_folder_that_is_named_twice_is_refused(root: Path) -> None:
    (root / "link").symlink_to(root / "a")
    for other in (root / "a", root / "link", root / "b" / ".." / "a"):
        with pytest.raises(DataError, match=rf"{other} is named twice.*; weights say how often"):
            open_sources([str(root / "a"), str(root / "b"), str(other)])


@pytest.mark.parametrize(("name", "told"), [("empty", "no images"), ("gone", "no such folder")])
def test_every_folder_must_hold_images(root: Path, name: str, told: str) -> None:
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=rf"{told}.*{root / name}"):
        open_sources([str(root / "a"), str(root / name)])


# --- which image comes when ---


def test_folders_come_by_their_weights_and_images_of_one_equally_often() -> None:
    turns = Turns([50, 4, 0, 10], [1, 6, 100, 3])  # a folder without images never comes
    seen = Counter(turns.at(7, position, 1, np.random.default_rng([7, position])) for position in range(8000))
    shares = [sum(seen[index] for index in part) / 8000 for part in (range(50), range(50, 54), range(54, 64))]
    assert shares == pytest.approx([0.1, 0.6, 0.3], abs=0.02)  # four standard deviations
    assert set(seen) == set(range(64))
    assert [seen[index] / 8000 for index in range(50, 54)] == pytest.approx([0.15] * 4, abs=0.02)


def test_a_folder_shows_no_image_twice_in_as_many_samples_as_it_has_images() -> None:
    turns = Turns([30, 40], [1, 2])
    drawn = [turns.at(3, position, 1, np.random.default_rng([3, position])) for position in range(1200)]
    for first in range(0, 1200, 30):
        of_one = [index for index in drawn[first : first + 30] if index < 30]
        assert len(set(of_one)) == len(of_one)
    rounds = [[index for index in drawn[first : first + 40] if index >= 30] for first in range(0, 1200, 40)]
    assert all(len(set(each)) == len(each) for each in rounds)
    assert len({tuple(each) for each in rounds}) == 30


@pytest.mark.parametrize("turns", [Turns([3, 4, 2]), Turns([9]), Turns([9], [0.2])])
def test_without_weights_images_come_as_those_of_one_folder_and_nothing_is_drawn(turns: Turns) -> None:
    random = np.random.default_rng(0)
    assert [turns.at(5, place, 2, random) for place in range(40)] == [shuffled(5, place, 9, 2) for place in range(40)]
    assert random.random() == np.random.default_rng(0).random()


# --- samples ---


def build(root: Path, suffix: str = "", weights: list[float] | None = None) -> UnpairedRain:
    rainy = joined(open_sources([root / f"{name}{suffix}" for name in "ab"]))
    clean = joined(open_sources([root / f"{name}{suffix}" for name in "cb"]))
    turns = {"rainy": Turns([3, 2], weights), "clean": Turns([4, 2], weights)}
    return UnpairedRain(rainy, SoftLabels(rainy, OpeningFilter((1, 3))), clean, CROP, SEED, turns=turns)


def alike(one: Any, other: Any) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("rainy", "label", "clean"))


def test_without_weights_samples_are_those_of_one_folder_with_all_images(root: Path) -> None:
    for whole, parts in (("rainy", "ab"), ("clean", "cb")):
        (root / whole).mkdir()
        for part in parts:
            for file in (root / part).iterdir():
                (root / whole / f"{parts.index(part)}_{file.name}").write_bytes(file.read_bytes())
    rainy, clean = FolderSource(root / "rainy"), FolderSource(root / "clean")
    one = UnpairedRain(rainy, SoftLabels(rainy, OpeningFilter((1, 3))), clean, CROP, SEED)
    several = build(root)
    assert all(alike(one[position], several[position]) for position in range(40))


def test_files_lmdbs_memory_workers_and_device_give_the_same(root: Path) -> None:
    weights = [1, 3.5]
    plain, held = build(root, weights=weights), build(root, ".lmdb", weights)
    held.load()
    ways = {
        "LMDB": DataLoader(build(root, ".lmdb", weights), 4, sampler=range(40), num_workers=2, collate_fn=collate_rain),
        "memory": DataLoader(held, 4, sampler=range(40)),
        "device": DeviceBatches(held, range(40), 4, torch.device("cpu")),
    }
    for batches in ways.values():
        for first, batch in zip(range(0, 40, 4), batches, strict=True):
            for place in range(4):
                assert alike({key: batch[key][place] for key in ("rainy", "label", "clean")}, plain[first + place])
    folders = Counter(Path(plain[position]["rainy_path"]).parent.name for position in range(400))
    assert folders["b"] / 400 == pytest.approx(3.5 / 4.5, abs=0.08)


def test_squares_of_a_bank_are_counted_by_the_folders_of_their_photographs() -> None:
    patch: Any = object()
    found = PlainRain(["x"] * 4, [0, 4, 5, 9], [[patch] * 2, [patch], [], [patch] * 5], 1.0)
    assert found.squares_of([5, 3, 2]) == [3, 0, 5]
    assert found.squares_of([4, 1, 5]) == [2, 1, 5]
    assert found.squares_of([10]) == [8]
