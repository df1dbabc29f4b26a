"""A folder of derained images as a network: which file belongs to which rainy image, and its very pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rainoerme_plugin.archs.result_images import ResultImages
from rainoerme_plugin.errors import DataError

RAINY = torch.zeros(1, 3, 8, 12)


def write(path: Path, level: int | None = None, size: tuple[int, int] = (8, 12), seed: int = 0) -> np.ndarray:
    """A picture of one grey level, or of random pixels."""
    random = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = random if level is None else np.full_like(random, level)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def level(image: Tensor) -> int:
    """The one grey level of a picture."""
    values = torch.unique(image)
    assert values.numel() == 1
    return round(float(values) * 255)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize(
    "name", ["street.png", "street.jpg", "street", "some/where/street.png", "/data/rain/street.tif"]
)
def test_the_pixels_are_those_of_the_file_of_that_name(tmp_path: Path, suffix: str, name: str) -> None:
    pixels = write(tmp_path / f"street{suffix}")
    write(tmp_path / "other.png", seed=1)
    image = ResultImages(str(tmp_path))(RAINY, [name])
    assert image.shape == (1, 3, 8, 12)
    assert image.dtype == torch.float32
    expected = np.moveaxis(pixels.astype(np.float32) / np.float32(255), 2, 0)
    assert np.array_equal(image[0].numpy(), expected)


def test_a_batch_gets_each_its_own_and_the_type_of_the_rainy_images(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"{number}.png", 10 * number)
    images = ResultImages(str(tmp_path))(RAINY.double().repeat(2, 1, 1, 1), ["3.png", "1.png"])
    assert images.dtype == torch.float64
    assert [level(image) for image in images] == [30, 10]


def test_a_grey_picture_becomes_three_channels(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 12), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "1.png")
    image = ResultImages(str(tmp_path))(RAINY, ["1.png"])
    assert np.array_equal((image[0].numpy() * 255).round(), np.stack([grey] * 3))


@pytest.mark.parametrize(
    ("rainy", "derained"),
    [
        ("rain-12.png", "norain-12.png"),
        ("norain-12x2.png", "norain-12.png"),
        ("rain-12x2.png", "norain-12.png"),
        ("rain-001.png", "norain-001.jpg"),
        ("901_14.jpg", "901.png"),
        ("norain-12.png", "norain-12.png"),
        ("norain-12x2.png", "norain-12x2.png"),
    ],
)
def test_a_result_may_have_the_name_of_the_clean_image(tmp_path: Path, rainy: str, derained: str) -> None:
    write(tmp_path / "norain-1.png", 50)
    write(tmp_path / "norain-2.png", 60)
    write(tmp_path / "90.png", 70)
    write(tmp_path / derained, 200)
    assert abs(level(ResultImages(str(tmp_path))(RAINY, [rainy])[0]) - 200) <= 1


def test_the_very_name_goes_before_the_clean_images(tmp_path: Path) -> None:
    for number, name in enumerate(("norain-1", "rain-1", "norain-1x2", "rain-1x2")):
        write(tmp_path / f"{name}.png", 10 * (number + 1))
    network = ResultImages(str(tmp_path))
    for number, name in enumerate(("norain-1", "rain-1", "norain-1x2", "rain-1x2")):
        assert level(network(RAINY, [f"{name}.jpg"])) == 10 * (number + 1)


def test_a_result_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    network = ResultImages(str(tmp_path))
    for name, stem in (("some/2.jpg", "2"), ("11.png", "11"), ("1x.png", "1x"), ("norain-1.png", "norain-1")):
        with pytest.raises(DataError) as caught:
            network(RAINY, [name])
        assert str(caught.value) == f"{tmp_path}: no derained image for {name}: none is called {stem}"


def test_a_result_of_another_size_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.png", size=(8, 13))
    write(tmp_path / "2.png", size=(12, 8))
    network = ResultImages(str(tmp_path))
    with pytest.raises(DataError, match=r"1\.png is 13x8 pixels, its rainy image some/1\.jpg 12x8; a result keeps"):
        network(RAINY, ["some/1.jpg"])
    with pytest.raises(DataError, match=r"2\.png is 8x12 pixels, its rainy image 2\.jpg 12x8; a result keeps the size"):
        network(RAINY, ["2.jpg"])


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"1\.png: damaged image"):
        ResultImages(str(tmp_path))(RAINY, ["1.png"])


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    write(tmp_path / "1.bmp")
    with pytest.raises(DataError, match=r"1\.png and 1\.bmp are of one name"):
        ResultImages(str(tmp_path))


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no such folder: .*nowhere"):
        ResultImages(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "scores.txt").write_text("30.0")
    with pytest.raises(DataError, match=r"^no images .* in .*empty$"):
        ResultImages(str(tmp_path / "empty"))


def test_results_below_the_home_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "results" / "1.png", 80)
    assert level(ResultImages("~/results")(RAINY, ["1.png"])) == 80


def test_other_files_beside_the_results_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path / "1.png", 80)
    write(tmp_path / "panels" / "1.png", 90)
    (tmp_path / "1.txt").write_text("30.0")
    assert level(ResultImages(str(tmp_path))(RAINY, ["1.png"])) == 80
