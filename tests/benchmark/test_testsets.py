"""The data sets of a benchmark: layouts, names, digests, scenes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_data, write_images

from rainoerme_plugin.benchmark.records import Records
from rainoerme_plugin.benchmark.testsets import TestSet, open_test_set, training_hashes
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.errors import DataError, OptionError


def surveyed(records: Path, name: str = "pairs", **options: Any) -> TestSet:
    test_set = open_test_set(
        name, {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    )
    test_set.survey(Records(records))
    return test_set


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pairs_are_those_of_the_layout(tmp_path: Path) -> None:
    found = surveyed(tmp_path / "r", dataroot=tiny_data(tmp_path) / "val")
    assert (found.paired, found.rule, len(found), found.names) == (True, "same name", 2, ["1.png", "2.png"])
    rainy, clean = found.read(1)
    assert np.array_equal(rainy, pixels(tmp_path / "val" / "rain" / "2.png"))
    assert clean is not None
    assert np.array_equal(clean, pixels(tmp_path / "val" / "norain" / "2.png"))
    assert [(look.height, look.width) for look in found.looks] == [(40, 48), (40, 48)]


def test_side_by_side_pictures(tmp_path: Path) -> None:
    tiny_data(tmp_path)
    (tmp_path / "halves").mkdir()
    halves = [pixels(tmp_path / "val" / kind / "1.png") for kind in ("norain", "rain")]
    Image.fromarray(np.hstack(halves)).save(tmp_path / "halves" / "1.png")
    found = surveyed(tmp_path / "r", dataroot=tmp_path / "halves", layout="halves-clean-rainy")
    rainy, clean = found.read(0)
    assert np.array_equal(rainy, halves[1])
    assert clean is not None
    assert np.array_equal(clean, halves[0])
    other = surveyed(tmp_path / "r", dataroot=tmp_path / "halves", layout="halves-rainy-clean")
    assert other.looks[0].digest != found.looks[0].digest
    assert np.array_equal(other.read(0)[0], halves[0])


def test_a_list_file_whose_images_have_one_name_in_several_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_images(tmp_path / folder / "rain", 1, prefix="rain")
        write_images(tmp_path / folder / "norain", 1)
    (tmp_path / "list.txt").write_text("/a/rain/1.png /a/norain/1.png\n/b/rain/1.png /b/norain/1.png\n")
    found = surveyed(tmp_path / "r", dataroot=tmp_path / "list.txt")
    assert found.names == ["a/rain/1.png", "b/rain/1.png"]
    assert found.files == ["a/rain/1.png", "b/rain/1.png"]
    assert found.scenes == [0, 0]


def test_single_images_of_a_folder_and_an_lmdb(tmp_path: Path) -> None:
    write_images(tmp_path / "rainy", 3)
    images = [(path.name, path.read_bytes()) for path in sorted((tmp_path / "rainy").iterdir())]
    list(write_lmdb(tmp_path / "rainy.lmdb", images, 1 << 20))
    folder = surveyed(tmp_path / "r", type="SingleRainDataset", dataroot=tmp_path / "rainy")
    lmdb = surveyed(tmp_path / "r", type="SingleRainDataset", dataroot=tmp_path / "rainy.lmdb", limit=2)
    assert (folder.paired, folder.rule, len(folder)) == (False, None, 3)
    assert len(lmdb) == 2
    assert folder.read(1)[1] is None
    every = surveyed(tmp_path / "r", type="SingleRainDataset", dataroot=tmp_path / "rainy", every=2)
    assert every.names == ["1.png", "3.png"]
    assert np.array_equal(every.read(1)[0], folder.read(2)[0])
    assert np.array_equal(lmdb.read(1)[0], folder.read(1)[0])


def test_every_and_limit(tmp_path: Path) -> None:
    write_images(tmp_path / "rain", 7, prefix="rain")
    write_images(tmp_path / "norain", 7)
    assert surveyed(tmp_path / "r", dataroot=tmp_path, every=3).names == ["1.png", "4.png", "7.png"]
    assert surveyed(tmp_path / "r", dataroot=tmp_path, every=3, limit=4).names == ["1.png", "4.png"]


def test_results_have_a_file_each_also_where_only_the_ending_differs(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    Image.open(tmp_path / "1.png").save(tmp_path / "1.jpg")
    found = surveyed(tmp_path / "r", type="SingleRainDataset", dataroot=tmp_path)
    assert found.names == ["1.jpg", "1.png", "2.png"]
    assert found.files == ["1.jpg.png", "1.png.png", "2.png"]


def test_a_digest_tells_contents_and_name(tmp_path: Path) -> None:
    write_images(tmp_path / "rain", 3, prefix="rain")
    write_images(tmp_path / "norain", 3)
    first = surveyed(tmp_path / "r", dataroot=tmp_path)
    assert len({look.digest for look in first.looks}) == 3
    shutil.copy(tmp_path / "norain" / "2.png", tmp_path / "norain" / "1.png")
    (tmp_path / "rain" / "3.png").rename(tmp_path / "rain" / "4.png")
    (tmp_path / "norain" / "3.png").rename(tmp_path / "norain" / "4.png")
    second = surveyed(tmp_path / "r", dataroot=tmp_path)
    same = [a.digest == b.digest for a, b in zip(first.looks, second.looks, strict=True)]
    assert same == [False, True, False]


def test_what_was_seen_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny_data(tmp_path) / "val"
    first = surveyed(tmp_path / "r", dataroot=root)
    monkeypatch.setattr("rainoerme_plugin.data.pairing.decode_image", lambda *_: pytest.fail("decoded again"))
    second = surveyed(tmp_path / "r", dataroot=root)
    assert np.array_equal(first.hashes, second.hashes)
    assert [(a.digest, a.height) for a in first.looks] == [(b.digest, b.height) for b in second.looks]


def test_a_broken_image_is_a_scene_of_its_own(tmp_path: Path) -> None:
    write_images(tmp_path / "rain", 4, prefix="rain")
    write_images(tmp_path / "norain", 4)
    shutil.copy(tmp_path / "norain" / "2.png", tmp_path / "norain" / "4.png")
    for number in (1, 3):
        (tmp_path / "norain" / f"{number}.png").write_bytes(b"no image")
    found = surveyed(tmp_path / "r", dataroot=tmp_path)
    assert found.scenes == [0, 1, 2, 1]
    assert [look.height for look in found.looks] == [None, 40, None, 40]
    assert len(found.hashes) == 2


def test_which_public_set_it_is(tmp_path: Path) -> None:
    root = (tiny_data(tmp_path / "Rain100L") / "val").rename(tmp_path / "Rain100L" / "test")
    for name, options, known in [
        ("pairs", {}, "Rain100L"),
        ("spa", {}, "SPA-Data"),
        ("pairs", {"known_as": "Rain12"}, "Rain12"),
    ]:
        found = open_test_set(name, {"dataroot": str(root), **options}).known
        assert found is not None
        assert found.name == known
    with pytest.raises(OptionError, match=r"datasets\.x\.known_as: no known test set is called 'Rain99'"):
        open_test_set("x", {"dataroot": str(root), "known_as": "Rain99"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "UnpairedRainDataset"}, r"datasets\.x\.type: expected PairedRainDataset or SingleRainDataset"),
        ({"every": 0, "dataroot": "."}, r"datasets\.x\.every"),
        ({"dataroots": "."}, r"datasets\.x\.dataroots: unknown key"),
        ({}, r"datasets\.x: needs either dataroot"),
        ({"dataroot": 3}, r"datasets\.x\.dataroot"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        open_test_set("x", options)


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"datasets\.x\.dataroot: no such folder"):
        open_test_set("x", {"dataroot": "nowhere"})


def test_training_images_are_looked_for_below_and_broken_ones_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "a", 2)
    write_images(tmp_path / "train" / "b" / "c", 1, seed=5)
    (tmp_path / "train" / "b" / "x.png").write_bytes(b"no image")
    names, hashes = training_hashes(tmp_path / "train", Records(tmp_path / "r"))
    assert names == ["a/1.png", "a/2.png", "b/c/1.png"]
    assert len(hashes) == 3
    with pytest.raises(DataError, match="no such folder"):
        training_hashes(tmp_path / "nowhere", Records(tmp_path / "r"))
