"""Unpaired training samples: functions of their number, cropped and flipped as they should be.

The images tell where each pixel came from: red is its row, green its column, blue the image's number (labels 100 more,
clean images 200 more).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rainoerme_plugin.data.order import shuffled
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.data.unpaired import UnpairedRain, UnpairedSample
from rainoerme_plugin.errors import DataError
from rainoerme_plugin.training.sampler import StreamSampler

RAINY_SIZES = [(12, 14), (10, 20), (16, 8), (8, 8), (12, 14)]
CLEAN_SIZES = [(9, 13), (20, 8), (8, 11)]
CROP = 8


def position_image(height: int, width: int, number: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows, columns, np.full_like(rows, number)], axis=2).astype(np.uint8))


def write(folder: Path, sizes: list[tuple[int, int]], first_number: int) -> FolderSource:
    folder.mkdir()
    for number, (height, width) in enumerate(sizes):
        position_image(height, width, first_number + number).save(folder / f"{number}.png")
    return FolderSource(folder)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[FolderSource, FolderSource, FolderSource]:
    return (
        write(tmp_path / "rainy", RAINY_SIZES, 0),
        write(tmp_path / "labels", RAINY_SIZES, 100),
        write(tmp_path / "clean", CLEAN_SIZES, 200),
    )


@pytest.fixture
def dataset(sources: tuple[FolderSource, FolderSource, FolderSource]) -> UnpairedRain:
    return UnpairedRain(*sources, crop_size=CROP, seed=5)


def levels(image: torch.Tensor) -> np.ndarray:
    """The (3, H, W) values of an image, as integers that can be subtracted."""
    return image.numpy().astype(int)


def numbers(sample: UnpairedSample) -> tuple[int, int]:
    return int(levels(sample["rainy"])[2, 0, 0]), int(levels(sample["clean"])[2, 0, 0]) - 200


def window(image: np.ndarray) -> tuple[int, int, bool, bool]:
    """Top row, left column and both flips of a crop, after checking that it is a whole window of its image."""
    rows, columns, _ = image
    flipped = bool(rows[0, 0] > rows[-1, 0]), bool(columns[0, 0] > columns[0, -1])
    top, left = int(rows.min()), int(columns.min())
    expected_rows, expected_columns = np.arange(top, top + CROP), np.arange(left, left + CROP)
    assert (rows == (expected_rows[::-1] if flipped[0] else expected_rows)[:, None]).all()
    assert (columns == (expected_columns[::-1] if flipped[1] else expected_columns)[None]).all()
    return top, left, *flipped


def equal(one: UnpairedSample, other: UnpairedSample) -> bool:
    images = all(torch.equal(one[key], other[key]) for key in ("rainy", "label", "clean"))  # type: ignore[literal-required]
    return images and one["rainy_path"] == other["rainy_path"] and one["clean_path"] == other["clean_path"]


# --- what a sample is ---


def test_images_are_crops_of_bytes(dataset: UnpairedRain) -> None:
    sample = dataset[3]
    assert set(sample) == {"rainy", "label", "clean", "rainy_path", "clean_path"}
    for image in (sample["rainy"], sample["label"], sample["clean"]):
        assert image.dtype == torch.uint8
        assert image.shape == (3, CROP, CROP)
        assert image.is_contiguous()


def test_rainy_crop_and_label_are_one_window_under_one_flip(dataset: UnpairedRain) -> None:
    for position in range(60):
        sample = dataset[position]
        rainy, label = levels(sample["rainy"]), levels(sample["label"])
        window(rainy)
        assert (rainy[:2] == label[:2]).all()
        number = int(rainy[2, 0, 0])
        assert (rainy[2] == number).all()
        assert (label[2] == number + 100).all()
        assert sample["rainy_path"] == dataset.rainy.where(number)
        assert (levels(sample["clean"])[2] == numbers(sample)[1] + 200).all()
        assert sample["clean_path"] == dataset.clean.where(numbers(sample)[1])


def test_all_four_flips_occur_about_equally_and_clean_crops_are_never_flipped(dataset: UnpairedRain) -> None:
    flips: Counter[tuple[bool, bool]] = Counter()
    for position in range(240):
        sample = dataset[position]
        flips[window(levels(sample["rainy"]))[2:]] += 1
        assert window(levels(sample["clean"]))[2:] == (False, False)
    assert len(flips) == 4
    assert min(flips.values()) > 35  # 60 each on average


def test_crops_come_from_everywhere_the_borders_too(dataset: UnpairedRain) -> None:
    rainy: set[tuple[int, int, int]] = set()
    clean: set[tuple[int, int, int]] = set()
    for position in range(900):
        sample = dataset[position]
        rainy.add((numbers(sample)[0], *window(levels(sample["rainy"]))[:2]))
        clean.add((numbers(sample)[1], *window(levels(sample["clean"]))[:2]))
    for seen, sizes, number in ((rainy, RAINY_SIZES, 0), (clean, CLEAN_SIZES, 1), (clean, CLEAN_SIZES, 0)):
        height, width = sizes[number]
        windows = {(number, top, left) for top in range(height - CROP + 1) for left in range(width - CROP + 1)}
        assert {entry for entry in seen if entry[0] == number} == windows


def test_windows_of_rainy_and_clean_are_drawn_apart(sources: tuple[FolderSource, FolderSource, FolderSource]) -> None:
    rainy, labels, _ = sources
    dataset = UnpairedRain(rainy, labels, rainy, crop_size=CROP)
    offsets = set()
    for position in range(200):
        sample = dataset[position]
        offsets.add((window(levels(sample["rainy"]))[:2], window(levels(sample["clean"]))[:2]))
    assert any(one != other for one, other in offsets)


def test_a_crop_may_be_the_whole_image(tmp_path: Path) -> None:
    rainy = write(tmp_path / "rainy", [(8, 8)], 0)
    clean = write(tmp_path / "clean", [(8, 8)], 200)
    dataset = UnpairedRain(rainy, rainy, clean, crop_size=8)
    assert all(window(levels(dataset[position]["rainy"]))[:2] == (0, 0) for position in range(8))


# --- which sample comes when ---


def test_every_image_comes_once_a_pass_in_an_order_that_changes(dataset: UnpairedRain) -> None:
    seen = [numbers(dataset[position]) for position in range(60)]
    rainy = np.reshape([pair[0] for pair in seen], (12, 5))
    clean = np.reshape([pair[1] for pair in seen], (20, 3))
    assert (np.sort(rainy, axis=1) == np.arange(5)).all()
    assert (np.sort(clean, axis=1) == np.arange(3)).all()
    assert len({tuple(row) for row in rainy}) > 6
    assert len({tuple(row) for row in clean}) > 3
    assert len(set(seen)) == 15  # every rainy image meets every clean one


def test_rainy_and_clean_images_of_one_count_are_not_matched_by_number(tmp_path: Path) -> None:
    sizes = [(8, 8)] * 6
    rainy = write(tmp_path / "rainy", sizes, 0)
    dataset = UnpairedRain(rainy, rainy, write(tmp_path / "clean", sizes, 200), crop_size=8)
    pairs = [numbers(dataset[position]) for position in range(120)]
    assert sum(one == other for one, other in pairs) < 40  # 20 by chance


def test_a_sample_is_a_function_of_seed_and_number(
    dataset: UnpairedRain, sources: tuple[FolderSource, FolderSource, FolderSource]
) -> None:
    again = UnpairedRain(*sources, crop_size=CROP, seed=5)
    forwards = [dataset[position] for position in range(20)]
    np.random.seed(1)
    torch.manual_seed(1)
    for position in reversed(range(20)):
        assert equal(again[position], forwards[position])


def test_another_seed_gives_other_samples(
    dataset: UnpairedRain, sources: tuple[FolderSource, FolderSource, FolderSource]
) -> None:
    other = UnpairedRain(*sources, crop_size=CROP, seed=6)
    assert sum(equal(other[position], dataset[position]) for position in range(20)) < 3
    order = [numbers(dataset[position])[0] for position in range(20)]
    assert order != [numbers(other[position])[0] for position in range(20)]


def test_samples_do_not_repeat_from_pass_to_pass(dataset: UnpairedRain) -> None:
    first = [dataset[position] for position in range(5)]
    later = [dataset[position] for position in range(5, 10)]
    for sample in first:
        twin = next(other for other in later if other["rainy_path"] == sample["rainy_path"])
        assert not equal(sample, twin)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("start", [0, 7])
def test_the_number_of_workers_changes_nothing(dataset: UnpairedRain, start: int) -> None:
    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        torch.manual_seed(workers)
        sampler = StreamSampler(start, start + 24, batch=4)
        return list(DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers))

    plain = batches(0)
    assert len(plain) == 6
    for place, batch in enumerate(plain):
        expected = [dataset[start + 4 * place + number]["rainy"] for number in range(4)]
        assert torch.equal(batch["rainy"], torch.stack(expected))
    for workers in (1, 3):
        for one, other in zip(plain, batches(workers), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("rainy", "label", "clean"))
            assert one["rainy_path"] == other["rainy_path"]


def test_the_length_is_whole_passes_and_numbers_beyond_it_are_samples(dataset: UnpairedRain, tmp_path: Path) -> None:
    assert len(dataset) == 1_000_000
    rainy = write(tmp_path / "seven", [(8, 8)] * 7, 0)
    seven = UnpairedRain(rainy, rainy, rainy, crop_size=8)
    assert len(seven) % 7 == 0
    assert abs(len(seven) - 1_000_000) < 7
    assert seven[10**9]["rainy"].shape == (3, 8, 8)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_stream_shows_all_before_any_again(count: int) -> None:
    stream = [shuffled(3, position, count, kind=1) for position in range(6 * count)]
    assert (np.sort(np.reshape(stream, (6, count)), axis=1) == np.arange(count)).all()
    if count == 7:
        assert stream != [shuffled(3, position, count, kind=2) for position in range(6 * count)]
        assert stream != [shuffled(4, position, count, kind=1) for position in range(6 * count)]


# Number of the sample; rainy image, top, left, flips; clean image, top, left. Noted from version 0.1, whose crops these
# are: a run that is resumed, or repeated, with a later version must see the same ones.
PINNED = {
    5: [
        (0, (4, 3, 5, False, True), (0, 0, 3)),
        (1, (0, 0, 5, True, False), (2, 0, 3)),
        (2, (2, 7, 0, False, True), (1, 5, 0)),
        (3, (3, 0, 0, True, True), (1, 3, 0)),
        (4, (1, 2, 3, False, False), (2, 0, 1)),
        (5, (1, 1, 8, True, True), (0, 1, 3)),
        (1000, (3, 0, 0, True, False), (2, 0, 2)),
        (10**9, (2, 4, 0, True, True), (2, 0, 2)),
        (2**33 + 1, (0, 2, 6, False, True), (1, 8, 0)),
    ],
    0: [
        (0, (1, 2, 8, True, False), (2, 0, 1)),
        (1, (3, 0, 0, True, True), (1, 12, 0)),
        (2, (4, 4, 0, False, False), (0, 0, 3)),
        (3, (2, 4, 0, True, True), (1, 11, 0)),
        (4, (0, 2, 6, False, False), (0, 1, 2)),
        (10**9, (0, 2, 1, False, False), (0, 1, 0)),
    ],
    2**40 + 7: [
        (0, (1, 0, 10, True, False), (0, 0, 0)),
        (1, (0, 2, 4, True, False), (1, 1, 0)),
        (1000, (0, 2, 0, False, True), (0, 1, 4)),
        (2**33 + 1, (2, 5, 0, True, True), (1, 5, 0)),
    ],
}


@pytest.mark.parametrize("seed", PINNED)
def test_samples_are_those_of_earlier_versions(
    sources: tuple[FolderSource, FolderSource, FolderSource], seed: int
) -> None:
    dataset = UnpairedRain(*sources, crop_size=CROP, seed=seed)
    for position, rainy, clean in PINNED[seed]:
        sample = dataset[position]
        assert (numbers(sample)[0], *window(levels(sample["rainy"]))) == rainy
        assert (numbers(sample)[1], *window(levels(sample["clean"]))[:2]) == clean
        assert dataset.draw(position)[:8] == (*rainy, *clean)


def test_orders_are_those_of_earlier_versions() -> None:
    places = (0, 1, 999, 1000, 5432)
    assert [shuffled(3, place, 1000, kind=1) for place in places] == [77, 305, 543, 132, 253]
    assert [shuffled(3, place, 1000, kind=2) for place in places] == [647, 143, 848, 372, 212]


# --- what is refused ---


@pytest.mark.parametrize("crop", [0, -4])
def test_a_crop_of_nothing_is_refused(sources: tuple[FolderSource, FolderSource, FolderSource], crop: int) -> None:
    with pytest.raises(DataError, match=f"crop_size must be at least 1, got {crop}"):
        UnpairedRain(*sources, crop_size=crop)


def test_a_rainy_image_smaller_than_the_crop_is_refused(
    sources: tuple[FolderSource, FolderSource, FolderSource],
) -> None:
    # Of the images 16x8, 8x8 and 10x20 (height x width), the first in order is named.
    with pytest.raises(DataError, match=r"rainy/1\.png: 20x10 pixels is smaller than the crop of 12x12"):
        UnpairedRain(*sources, crop_size=12)


def test_a_clean_image_smaller_than_the_crop_is_refused(
    sources: tuple[FolderSource, FolderSource, FolderSource], tmp_path: Path
) -> None:
    rainy, labels, _ = sources
    clean = write(tmp_path / "small", [(8, 9), (9, 7)], 200)
    with pytest.raises(DataError, match=r"small/1\.png: 7x9 pixels is smaller than the crop of 8x8.*lower crop_size"):
        UnpairedRain(rainy, labels, clean, crop_size=CROP)


def test_a_label_of_another_size_than_its_image_is_refused(
    sources: tuple[FolderSource, FolderSource, FolderSource],
) -> None:
    rainy, labels, clean = sources
    position_image(14, 12, 102).save(labels.paths[4])
    with pytest.raises(DataError, match=re.escape(f"label {labels.paths[4]} is 12x14 pixels, its image")):
        UnpairedRain(rainy, labels, clean, crop_size=CROP)
