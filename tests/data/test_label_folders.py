"""Ready-made labels that are not what they should be: told before training, in one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from damage import damaged, encoded, images, in_time, picture
from PIL import Image

from rainoerme_plugin import commands
from rainoerme_plugin.data import images as reading
from rainoerme_plugin.data.labels import check_label_sizes, ready_labels
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.sources import FolderSource, open_source
from rainoerme_plugin.errors import DataError
from rainoerme_plugin.registered.datasets import UnpairedRainDataset


def folder(root: Path, *names: str, size: tuple[int, int] = (24, 32)) -> Path:
    root.mkdir(parents=True)
    for seed, name in enumerate(names):
        picture(*size, seed=seed).save(root / name)
    return root


def options(root: Path) -> dict[str, object]:
    return {
        "name": "unpaired",
        "type": "UnpairedRainDataset",
        "phase": "train",
        "dataroot_rainy": str(root / "rainy"),
        "dataroot_clean": str(root / "rainy"),
        "label": {"type": "folder", "path": str(root / "labels")},
        "crop_size": 16,
    }


def test_labels_of_any_format_and_names_of_many_dots_are_found(tmp_path: Path) -> None:
    rainy = FolderSource(folder(tmp_path / "rainy", "a.b.png", "a.c.png", "a.png"))
    labels = ready_labels(rainy, folder(tmp_path / "labels", "a.b.jpg", "a.c.bmp", "a.webp", "other.png"))
    assert list(labels.names) == ["a.b.jpg", "a.c.bmp", "a.webp"]


def test_names_that_an_lmdb_holds_under_one_key_share_no_label(tmp_path: Path) -> None:
    rainy = FolderSource(folder(tmp_path / "rainy", "a.b.png", "a.c.png"))
    list(write_lmdb(tmp_path / "labels.lmdb", [("a.png", images()["colour.png"])], 1 << 20))
    with pytest.raises(DataError, match=r"^a\.b\.png and a\.c\.png would have one label, a; rename one of them$"):
        ready_labels(rainy, tmp_path / "labels.lmdb")


def test_two_labels_for_one_image_are_refused(tmp_path: Path) -> None:
    rainy = FolderSource(folder(tmp_path / "rainy", "a.png"))
    labels = folder(tmp_path / "labels", "a.png", "a.jpg", "b.png", "b.jpg")
    with pytest.raises(DataError, match=r"labels: holds two labels for a\.png, of two kinds of file; remove one$"):
        ready_labels(rainy, labels)
    (labels / "a.jpg").unlink()
    assert list(ready_labels(rainy, labels).names) == ["a.png"]  # those of b are nobody's


@pytest.mark.parametrize("output", ["labels", "labels.lmdb"])
def test_two_images_that_would_write_one_label_are_told_before(
    tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path / "rainy", "a.jpg", "a.png")
    assert commands.main(["prepare", "labels", str(tmp_path / "rainy"), "-o", str(tmp_path / output)]) == 2
    told = "basicsr prepare: error: a.jpg and a.png would have one label, a; rename one of them\n"
    assert capsys.readouterr().err == told
    assert [path.name for path in tmp_path.iterdir()] == ["rainy"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", r"no such folder: .*labels"),
        ("empty", r"no images .* in .*labels"),
        ("file", r"no such folder: .*labels"),
        ("other name", r"1 of 1 rainy images have no label of their name there; the first is a\.png"),
        ("pipe", r"no images .* in .*labels"),
        ("folder", r"no images .* in .*labels"),
        ("wrong size", r"label .*a\.png is 31x24 pixels, its image .*a\.png 32x24; make the label again"),
        ("damaged", r"labels/a\.png: not an image this package reads"),
        ("text", r"labels/a\.png: not an image this package reads"),
        ("bomb", r"labels/a\.png: declares 32x24 pixels, more than the 767 that are read"),
    ],
)
def test_a_label_folder_that_is_none_is_one_line(
    tmp_path: Path, what: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "rainy", "a.png")
    labels = tmp_path / "labels"
    if what == "file":
        labels.write_bytes(b"")
    elif what != "missing":
        labels.mkdir()
    if what == "pipe":
        os.mkfifo(labels / "a.png")
    elif what == "folder":
        (labels / "a.png").mkdir()
    elif what == "wrong size":
        picture(24, 31).save(labels / "a.png")
    elif what == "damaged":
        (labels / "a.png").write_bytes(images()["colour.png"][:20])
    elif what == "text":
        (labels / "a.png").write_text("a label")
    elif what == "other name":
        picture().save(labels / "b.png")
    elif what == "bomb":
        picture().save(labels / "a.png")
        Image.new("RGB", (20, 20)).save(tmp_path / "rainy" / "a.png")
        monkeypatch.setattr(reading, "MAX_PIXELS", 32 * 24 - 1)
    with in_time(), pytest.raises(DataError, match=words) as caught:
        UnpairedRainDataset(options(tmp_path))
    assert "\n" not in str(caught.value)


def test_labels_whose_pixels_are_damaged_are_told_when_they_are_read(tmp_path: Path) -> None:
    folder(tmp_path / "rainy", "a.png")
    (tmp_path / "labels").mkdir()
    whole, told = encoded(picture(), "PNG"), 0
    for seed in range(100):
        (tmp_path / "labels" / "a.png").write_bytes(damaged(whole, seed))
        try:
            with in_time():
                sample = UnpairedRainDataset(options(tmp_path))[0]
            assert sample["label"].shape == (3, 16, 16)
        except DataError as error:
            told += "a.png" in str(error) and "\n" not in str(error)
        else:
            told += 1
    assert told == 100


def test_a_kept_label_that_is_damaged_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "rainy", "a.png").parent
    kept = {**options(root), "label": {"type": "opening", "window": [1, 5]}, "label_cache": str(tmp_path / "kept")}
    sample = UnpairedRainDataset(kept)[0]
    path = next((tmp_path / "kept").rglob("*.png"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{path.name}: damaged image .*; replace or remove it"):
        UnpairedRainDataset(kept)[0]
    path.unlink()
    assert np.array_equal(UnpairedRainDataset(kept)[0]["label"], sample["label"])


def test_sizes_are_compared_by_number(tmp_path: Path) -> None:
    rainy = open_source(folder(tmp_path / "rainy", "a.png", "b.png"))
    check_label_sizes(rainy, rainy)
