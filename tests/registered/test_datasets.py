"""BasicSR's view of the data sets: options in, and messages that name the option."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from tiny import tiny_data, write_images

from rainoerme_plugin.data import memory
from rainoerme_plugin.data.labels import kept_labels
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.rain import PlainRain, find_plain_rain
from rainoerme_plugin.data.sources import FolderSource, untracked
from rainoerme_plugin.data.unpaired import UnpairedRain
from rainoerme_plugin.errors import DataError, OptionError
from rainoerme_plugin.plugin import register
from rainoerme_plugin.progress import track
from rainoerme_plugin.registered import datasets
from rainoerme_plugin.registered.datasets import PairedRainDataset, SingleRainDataset, UnpairedRainDataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def unpaired(data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "some name",
        "type": "UnpairedRainDataset",
        "phase": "train",
        "dataroot_rainy": str(data / "rainy"),
        "dataroot_clean": str(data / "clean"),
        "label": {"type": "opening", "window": [1, 3]},
        "label_cache": str(data / "cache"),
        "crop_size": 24,
        "seed": 3,
        **changes,
    }


def paired(**changes: Any) -> dict[str, Any]:
    return {"name": "some name", "type": "PairedRainDataset", "phase": "val", **changes}


def single(**changes: Any) -> dict[str, Any]:
    return {"name": "some name", "type": "SingleRainDataset", "phase": "test", **changes}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def opened(image: np.ndarray) -> np.ndarray:
    """A horizontal opening of width three, by NumPy: the smallest of three, then the largest of three."""
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), "symmetric")
    least = np.minimum(np.minimum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    padded = np.pad(least, ((0, 0), (1, 1), (0, 0)), "symmetric")
    return np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])


def levels(tensor: torch.Tensor) -> np.ndarray:
    """The (H, W, 3) values 0 to 255 of an image of bytes, or of floats in [0, 1]."""
    scale = 1 if tensor.dtype == torch.uint8 else 255
    return np.moveaxis(np.rint(tensor.numpy() * scale).astype(int), 0, 2)


def is_window(crop: np.ndarray, image: np.ndarray) -> bool:
    """Whether a crop, flipped in any way, is a window of an image."""
    side = crop.shape[0]
    return any(
        np.array_equal(flipped, image[top : top + side, left : left + side])
        for flipped in (crop, crop[::-1], crop[:, ::-1], crop[::-1, ::-1])
        for top in range(image.shape[0] - side + 1)
        for left in range(image.shape[1] - side + 1)
    )


# --- unpaired ---


def test_basicsr_builds_all_three_by_name(data: Path) -> None:
    register()
    from basicsr.data import build_dataset

    options = (unpaired(data), paired(dataroot=str(data / "val")), single(dataroot=str(data / "rainy")))
    for opt, expected in zip(options, (UnpairedRainDataset, PairedRainDataset, SingleRainDataset), strict=True):
        dataset = build_dataset(opt)
        assert type(dataset) is expected
        assert dataset.opt["name"] == "some name"


def test_a_sample_is_rainy_its_filtered_label_and_clean(data: Path) -> None:
    sample = UnpairedRainDataset(unpaired(data))[4]
    assert sample["rainy"].shape == (3, 24, 24)
    rainy = pixels(Path(sample["rainy_path"]))
    assert is_window(levels(sample["rainy"]), rainy)
    assert is_window(levels(sample["label"]), opened(rainy))
    assert is_window(levels(sample["clean"]), pixels(Path(sample["clean_path"])))
    assert Path(sample["rainy_path"]).parent == data / "rainy"
    assert Path(sample["clean_path"]).parent == data / "clean"
    assert len(list((data / "cache").rglob("*.png"))) == 3


def test_files_that_are_left_alone_are_told_when_training_begins(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "rainy" / "photo.heic").write_bytes(b"x")
    (data / "clean" / "linked").symlink_to(data / "rainy")
    (data / "val" / "norain" / "more.png").write_bytes((data / "clean" / "1.png").read_bytes())
    told: list[str] = []
    monkeypatch.setattr(logging.getLogger("basicsr"), "warning", told.append)
    UnpairedRainDataset(unpaired(data))
    PairedRainDataset(paired(dataroot=str(data / "val")))
    SingleRainDataset(single(dataroot=str(data / "rainy")))
    assert told == [
        f"datasets.train.dataroot_rainy: {data / 'rainy'}: left alone: 1 other file (.heic)",
        f"datasets.train.dataroot_clean: {data / 'clean'}: left alone: 1 folder (linked)",
        f"datasets.val.dataroot: {data / 'val' / 'norain'}: in no pair: more.png without a rainy one",
        f"datasets.test.dataroot: {data / 'rainy'}: left alone: 1 other file (.heic)",
    ]
    monkeypatch.setattr(datasets, "rank_and_world", lambda: (1, 2))
    UnpairedRainDataset(unpaired(data))
    assert len(told) == 4


def test_ready_made_labels_come_from_their_folder(data: Path) -> None:
    write_images(data / "made", 3, seed=9)
    dataset = UnpairedRainDataset(unpaired(data, label={"type": "folder", "path": str(data / "made")}))
    sample = dataset[2]
    made = pixels(data / "made" / Path(sample["rainy_path"]).name)
    assert is_window(levels(sample["label"]), made)
    assert not (data / "cache").exists()


def test_an_lmdb_of_rainy_images_gives_the_same_samples_as_its_folder(data: Path) -> None:
    folder = UnpairedRainDataset(unpaired(data))
    images = [(path.name, path.read_bytes()) for path in sorted((data / "rainy").iterdir())]
    list(write_lmdb(data / "rainy.lmdb", images, 1 << 20))
    lmdb = UnpairedRainDataset(unpaired(data, dataroot_rainy=str(data / "rainy.lmdb")))
    for position in range(6):
        for key in ("rainy", "label", "clean"):
            assert torch.equal(lmdb[position][key], folder[position][key])


@pytest.mark.parametrize("source", ["memory", "device"])
def test_in_memory_the_samples_are_the_same_when_the_files_are_gone(data: Path, source: str) -> None:
    expected = [UnpairedRainDataset(unpaired(data))[position] for position in range(6)]
    held = UnpairedRainDataset(unpaired(data, source=source))
    assert held.on_device == (source == "device")
    for folder in ("rainy", "clean", "cache"):
        (data / folder).rename(data / f"no more {folder}")
    for position, sample in enumerate(expected):
        for key in ("rainy", "label", "clean"):
            assert torch.equal(held[position][key], sample[key])


@pytest.mark.parametrize("source", ["files", "memory"])
def test_without_a_cache_labels_are_the_same_and_nothing_is_kept(
    data: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(data / "home"))
    kept = UnpairedRainDataset(unpaired(data))
    before = sorted(data.rglob("*"))
    made = UnpairedRainDataset(unpaired(data, label_cache=None, source=source))
    for position in range(12):
        for key in ("rainy", "label", "clean"):
            assert torch.equal(made[position][key], kept[position][key])
    assert sorted(data.rglob("*")) == before


def test_images_that_do_not_fit_into_memory_are_told_before_they_are_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    monkeypatch.setattr(FolderSource, "read", None)
    with pytest.raises(DataError, match=r"take 0\.0 GB, but only 0\.0 GB of memory are free; take source: files, best"):
        UnpairedRainDataset(unpaired(data, label_cache=None, source="memory"))


def test_the_seed_is_that_of_the_options_and_0_without_one(data: Path) -> None:
    def crops(seed: int | None) -> list[torch.Tensor]:
        dataset = UnpairedRainDataset(unpaired(data, seed=seed))
        return [dataset[position]["rainy"] for position in range(8)]

    def alike(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
        return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))

    assert alike(crops(None), crops(0))
    assert not alike(crops(0), crops(1))
    dataset = UnpairedRainDataset(unpaired(data, seed=1))
    bare = UnpairedRain(dataset.rainy, dataset.labels, dataset.clean, crop_size=24, seed=1)
    assert alike(crops(1), [bare[position]["rainy"] for position in range(8)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_sise": 8}, "datasets.train.crop_sise: unknown key; did you mean 'crop_size'?"),
        ({"crop_size": 0}, "datasets.train.crop_size: should be greater than or equal to 1"),
        ({"crop_size": "24"}, "datasets.train.crop_size: "),
        ({"dataroot_rainy": None}, "datasets.train.dataroot_rainy: "),
        ({"source": "disk"}, "datasets.train.source: "),
        ({"seed": -1}, "datasets.train.seed: "),
        ({"label": {"type": "opning"}}, "datasets.train.label.type: no coarse filter 'opning'; did you mean 'opening'"),
        ({"label": {"type": "median", "percent": 3}}, "datasets.train.label: the median filter has no argument"),
        ({"label": {"type": "opening", "window": [2, 3]}}, "datasets.train.label: window must be two odd numbers"),
        ({"label": {"type": "folder"}}, "datasets.train.label: 'type: folder' needs path: and nothing else"),
        ({"label": {"window": [1, 3]}}, "datasets.train.label.type: is missing"),
        ({"label": "opening"}, "datasets.train.label: "),
        ({"rain": {}}, "datasets.train.rain.type: is missing"),
        ({"rain": {"type": "plane"}}, "datasets.train.rain.type: should be 'plain' or 'folder'"),
        ({"rain": {"type": "plain", "lean": 0}}, "datasets.train.rain: lean must be above 0 and up to 90"),
        ({"rain": {"type": "plain", "path": "x"}}, "datasets.train.rain.path: is for 'type: folder'"),
        (
            {"rain": {"type": "folder", "path": "x", "most": 3}},
            "datasets.train.rain: 'type: folder' needs path: and noth",
        ),
        ({"rain": {"type": "plain", "cache": ""}}, "datasets.train.rain.cache: "),
    ],
)
def test_a_bad_option_of_unpaired_data_is_named(data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=rf"^{re.escape(message)}"):
        UnpairedRainDataset(unpaired(data, **changes))


def test_a_missing_option_of_unpaired_data_is_named(data: Path) -> None:
    opt = unpaired(data)
    del opt["dataroot_clean"]
    with pytest.raises(OptionError, match=r"^datasets\.train\.dataroot_clean: is missing"):
        UnpairedRainDataset(opt)


@pytest.mark.parametrize("key", ["dataroot_rainy", "dataroot_clean"])
@pytest.mark.parametrize(
    ("name", "message"), [("gone", "no such folder: "), ("gone.lmdb", "no LMDB "), ("", "no images")]
)
def test_missing_images_are_told_with_their_option(data: Path, key: str, name: str, message: str) -> None:
    (data / "empty").mkdir()
    with pytest.raises(DataError, match=rf"^datasets\.train\.{key}: {message}"):
        UnpairedRainDataset(unpaired(data, **{key: str(data / "empty" / name)}))


# --- several folders ---


def several(data: Path, **changes: Any) -> dict[str, Any]:
    """Two folders of rainy images, whose names are the same in both, with labels for each, and two of clean ones."""
    for name, seed in (("more rainy", 4), ("more clean", 5), ("label 1", 6), ("label 2", 7)):
        if not (data / name).exists():
            write_images(data / name, 3, seed=seed)
    roots = {key: [str(data / name), str(data / f"more {name}")] for key, name in zip(ROOTS, NAMES, strict=True)}
    return unpaired(data, **{**roots, **changes})


ROOTS, NAMES = ("dataroot_rainy", "dataroot_clean"), ("rainy", "clean")


def test_folders_come_by_their_weights_with_labels_of_their_own(data: Path) -> None:
    labels = [str(data / "label 1"), str(data / "label 2")]
    label = {"type": "folder", "path": labels}
    dataset = UnpairedRainDataset(several(data, weights_rainy=[3, 1], weights_clean=[0.5, 2], label=label))
    seen: dict[str, list[str]] = {"rainy_path": [], "clean_path": []}
    for position in range(300):
        sample = dataset[position]
        for key, folders in seen.items():
            folders.append(Path(sample[key]).parent.name)  # type: ignore[literal-required]
        rainy = Path(sample["rainy_path"])
        if position < 24:
            made = Path(labels[rainy.parent.name == "more rainy"]) / rainy.name
            assert is_window(levels(sample["label"]), pixels(made))
            assert is_window(levels(sample["rainy"]), pixels(rainy))
    assert seen["rainy_path"].count("rainy") / 300 == pytest.approx(0.75, abs=0.1)
    assert seen["clean_path"].count("clean") / 300 == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize("more", [{}, {"weights_rainy": [2.0], "weights_clean": [1]}])
def test_one_folder_in_a_list_is_that_folder(data: Path, more: dict[str, Any]) -> None:
    plain = UnpairedRainDataset(unpaired(data))
    listed = UnpairedRainDataset(
        unpaired(data, dataroot_rainy=[str(data / "rainy")], dataroot_clean=[str(data / "clean")], **more)
    )
    for position in range(12):
        for key in ("rainy", "label", "clean"):
            assert torch.equal(plain[position][key], listed[position][key])


def test_labels_of_all_folders_are_kept_once(data: Path) -> None:
    kept = UnpairedRainDataset(several(data, weights_rainy=[1, 1]))
    assert len(list((data / "cache").rglob("*.png"))) == 6
    made = UnpairedRainDataset(several(data, weights_rainy=[1, 1], label_cache=None, source="memory"))
    for position in range(12):
        for key in ("rainy", "label", "clean"):
            assert torch.equal(made[position][key], kept[position][key])


def test_a_bank_follows_the_weights_of_its_photographs_folders(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Squares are as bright as the folder's number says; the third folder has none.
    write_images(data / "third", 2, seed=8)
    opt = several(data, weights_rainy=[1, 4, 50], rain={"type": "plain"})
    opt["dataroot_rainy"].append(str(data / "third"))
    square = {bright: SimpleNamespace(rain=np.full((16, 16), bright, np.uint8)) for bright in (10, 20)}
    patches: Any = [[square[10]] * 3, [square[10]] * 40, [], [square[20]] * 2, [square[20]], [], [], []]
    found = PlainRain([str(number) for number in range(8)], list(range(8)), patches, 1.0)
    monkeypatch.setattr(datasets, "find_plain_rain", lambda *_: found)
    dataset = UnpairedRainDataset(opt)
    seen = [int(dataset[position]["rain"][0, 0, 0]) for position in range(400)]
    assert set(seen) == {10, 20}
    assert seen.count(20) / 400 == pytest.approx(0.8, abs=0.08)
    assert dataset.notes[0].endswith("; none in dataroot_rainy.2, whose weight goes to the others")
    dataset = UnpairedRainDataset({**opt, "weights_rainy": None})
    assert [int(dataset[position]["rain"][0, 0, 0]) for position in range(46)].count(20) == 3  # each square once
    assert "weight" not in dataset.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_rainy": [1, 2, 3]}, "weights_rainy should have a number for each of the 2 paths in dataroot_rainy"),
        ({"weights_clean": [1]}, "weights_clean should have a number for each of the 2 paths in dataroot_clean, in th"),
        ({"weights_rainy": [1, 0]}, "weights_rainy.1: should be greater than 0, got 0"),
        ({"weights_rainy": [-2, 1]}, "weights_rainy.0: should be greater than 0, got -2"),
        ({"weights_rainy": [1, float("nan")]}, "weights_rainy.1: should be a finite number"),
        ({"weights_rainy": 3}, "weights_rainy: should be a list, got 3"),
        ({"weights_rainy": ["1e-3", 1]}, "weights_rainy.0: '1e-3' is text to YAML; write 1.0e-3"),
        ({"dataroot_rainy": []}, "dataroot_rainy: should have at least 1 value, got []"),
        ({"dataroot_rainy": 3}, "dataroot_rainy: expected a path, or a list of paths, got 3"),
        ({"dataroot_clean": ["x", 3]}, "dataroot_clean.1: should be a string, got 3"),
        (
            {"label": {"type": "folder", "path": "labels"}},
            "label.path should have a folder of labels for each of the 2 paths in dataroot_rainy, in their order, got",
        ),
    ],
)
def test_what_does_not_fit_several_folders_is_named(data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=rf"^datasets\.train[.:] ?{re.escape(message)}"):
        UnpairedRainDataset(several(data, **changes))


@pytest.mark.parametrize("key", ROOTS)
def test_a_folder_named_twice_or_empty_is_told_with_its_option(data: Path, key: str) -> None:
    (data / "empty").mkdir()
    root = str(data / "rainy")
    for other, told in ((root, f"{root} is named twice"), (str(data / "empty"), "no images")):
        with pytest.raises(DataError, match=rf"^datasets\.train\.{key}: {re.escape(told)}"):
            UnpairedRainDataset(unpaired(data, **{key: [root, other]}))


def test_processes_share_the_labels_and_only_the_first_shows_its_progress(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(rainy: Any, coarse: Any, cache: Any, track: Any, rank: int, world: int) -> Any:
        asked.append((track, rank, world))
        return kept_labels(rainy, coarse, cache)

    monkeypatch.setattr(datasets, "kept_labels", note)
    UnpairedRainDataset(unpaired(data))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        UnpairedRainDataset(unpaired(data))
    assert asked == [(track, 0, 1), (track, 0, 3), (untracked, 1, 3), (untracked, 2, 3)]


def test_processes_share_the_search_for_rain_and_only_the_first_shows_its_progress(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(rainy: Any, places: Any, most: int, cache: Any, track: Any, rank: int, world: int) -> Any:
        asked.append((places.evidence, most, cache, track, rank, world))
        return find_plain_rain(rainy, places, most)

    monkeypatch.setattr(datasets, "find_plain_rain", note)
    UnpairedRainDataset(unpaired(data, rain={"type": "plain"}))
    monkeypatch.setattr(datasets, "rank_and_world", lambda: (1, 3))
    UnpairedRainDataset(unpaired(data, rain={"type": "plain", "evidence": 1.4, "photographs": 7, "cache": "here"}))
    assert asked == [(1.45, 1000, None, track, 0, 1), (1.4, 7, "here", untracked, 1, 3)]


def test_with_too_few_places_there_is_no_bank_and_samples_are_those_without(data: Path) -> None:
    dataset, without = UnpairedRainDataset(unpaired(data, rain={"type": "plain"})), UnpairedRainDataset(unpaired(data))
    assert dataset.rain is None
    assert without.notes == []
    (note,) = dataset.notes
    assert note.startswith(
        "datasets.train.rain: no plain place with rain in 0 of 3 photographs, too few for a bank (30 "
    )
    for position in range(5):
        one, other = dataset[position], without[position]
        assert one.keys() == other.keys() == {"rainy", "label", "clean", "rainy_path", "clean_path"}
        assert all(torch.equal(one[name], other[name]) for name in ("rainy", "label", "clean"))


def test_missing_labels_and_a_bad_cache_are_told_with_their_option(data: Path) -> None:
    write_images(data / "made", 2)
    with pytest.raises(DataError, match=r"^datasets\.train\.label: .*1 of 3 rainy images have no label .* 3\.png"):
        UnpairedRainDataset(unpaired(data, label={"type": "folder", "path": str(data / "made")}))
    (data / "file").touch()
    with pytest.raises(DataError, match=r"^datasets\.train\.label: cannot keep the label of "):
        UnpairedRainDataset(unpaired(data, label_cache=str(data / "file")))


@pytest.mark.parametrize("source", ["files", "memory", "device"])
@pytest.mark.parametrize("folder", ["rainy", "clean"])
def test_images_smaller_than_the_crop_are_named(data: Path, folder: str, source: str) -> None:
    Image.new("RGB", (30, 23)).save(data / folder / "2.png")
    with pytest.raises(DataError, match=rf"{folder}/2\.png: 30x23 pixels is smaller than the crop of 24x24.*crop_size"):
        UnpairedRainDataset(unpaired(data, source=source))


def test_a_section_of_another_name_is_named_by_it(data: Path) -> None:
    with pytest.raises(OptionError, match=r"^datasets\.train_night\.wet: unknown key"):
        UnpairedRainDataset(unpaired(data, section="train_night", wet=1))
    UnpairedRainDataset(unpaired(data, section="train_night"))


# --- paired and single ---


def test_pairs_are_found_below_a_root_or_in_two_folders(data: Path) -> None:
    both = {"dataroot_lq": str(data / "val" / "rain"), "dataroot_gt": str(data / "val" / "norain")}
    for dataset in (PairedRainDataset(paired(dataroot=str(data / "val"))), PairedRainDataset(paired(**both))):
        assert len(dataset) == 2
        for index in range(2):
            sample = dataset[index]
            assert np.array_equal(levels(sample["lq"]), pixels(data / "val" / "rain" / f"{index + 1}.png"))
            assert np.array_equal(levels(sample["gt"]), pixels(data / "val" / "norain" / f"{index + 1}.png"))


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (50, 2), (None, 2)])
def test_a_limit_takes_the_first_images(data: Path, limit: int | None, count: int) -> None:
    datasets: list[Any] = [
        PairedRainDataset(paired(dataroot=str(data / "val"), limit=limit)),
        SingleRainDataset(single(dataroot=str(data / "val" / "rain"), limit=limit)),
    ]
    for dataset in datasets:
        assert [Path(dataset[index]["lq_path"]).name for index in range(len(dataset))] == ["1.png", "2.png"][:count]


def test_the_layout_of_halves_is_passed_on(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (5, 12, 3)).astype(np.uint8)
    Image.fromarray(whole).save(tmp_path / "1.png")
    sample = PairedRainDataset(paired(dataroot=str(tmp_path), layout="halves-clean-rainy"))[0]
    assert np.array_equal(levels(sample["lq"]), whole[:, 6:])
    assert np.array_equal(levels(sample["gt"]), whole[:, :6])


def test_images_without_ground_truth_are_given_alone(data: Path) -> None:
    dataset = SingleRainDataset(single(dataroot=str(data / "rainy")))
    assert len(dataset) == 3
    assert set(dataset[1]) == {"lq", "lq_path", "result"}
    assert np.array_equal(levels(dataset[1]["lq"]), pixels(data / "rainy" / "2.png"))


@pytest.mark.parametrize("keys", [(), ("dataroot", "dataroot_gt"), ("dataroot_lq",), ("dataroot_gt",)])
def test_pairs_need_one_root_or_two_folders(data: Path, keys: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match=r"^datasets\.val: needs either dataroot, or dataroot_lq and dataroot_gt"):
        PairedRainDataset(paired(**dict.fromkeys(keys, str(data / "val"))))


@pytest.mark.parametrize(
    ("build", "opt", "message"),
    [
        (PairedRainDataset, paired(dataroot="x", limit=0), "datasets.val.limit: should be greater than or equal to 1"),
        (PairedRainDataset, paired(dataroot="x", layout="halves"), "datasets.val.layout: "),
        (PairedRainDataset, paired(datarot="x"), "datasets.val.datarot: unknown key; did you mean 'dataroot'?"),
        (SingleRainDataset, single(), "datasets.test.dataroot: is missing"),
        (SingleRainDataset, single(dataroot="x", limit=-1), "datasets.test.limit: "),
        (SingleRainDataset, single(dataroot="x", layout="auto"), "datasets.test.layout: unknown key"),
    ],
)
def test_a_bad_option_of_test_data_is_named(build: Callable[[Any], Any], opt: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=rf"^{re.escape(message)}"):
        build(opt)


def test_missing_test_data_is_told_with_its_option(data: Path) -> None:
    gone = str(data / "gone")
    with pytest.raises(DataError, match=r"^datasets\.val\.dataroot: no such folder or list file: "):
        PairedRainDataset(paired(dataroot=gone))
    with pytest.raises(DataError, match=r"^datasets\.val\.dataroot: .*no pairs found"):
        PairedRainDataset(paired(dataroot=str(data / "rainy")))
    with pytest.raises(DataError, match=r"^datasets\.val\.dataroot_lq: no such folder: "):
        PairedRainDataset(paired(dataroot_lq=gone, dataroot_gt=str(data / "clean")))
    with pytest.raises(DataError, match=r"^datasets\.test\.dataroot: no such folder: "):
        SingleRainDataset(single(dataroot=gone))


def test_a_missing_clean_folder_is_told_with_its_own_option(data: Path) -> None:
    with pytest.raises(DataError, match=r"^datasets\.val\.dataroot_gt: no such folder: "):
        PairedRainDataset(paired(dataroot_lq=str(data / "val" / "rain"), dataroot_gt=str(data / "gone")))
