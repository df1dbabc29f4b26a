"""Soft labels: made once and kept, or found ready-made."""

from __future__ import annotations

import io
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
import pytest
from changing import changed_code
from PIL import Image
from tiny import write_images

from rainoerme_plugin.commands import main
from rainoerme_plugin.data.images import encode_png
from rainoerme_plugin.data.labels import (
    SoftLabels,
    check_label_sizes,
    kept_labels,
    label_names,
    label_path,
    ready_labels,
)
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.paired import SingleRain
from rainoerme_plugin.data.sources import FileSource, FolderSource, LmdbSource, in_threads
from rainoerme_plugin.distillation.coarse import CoarseFilter
from rainoerme_plugin.distillation.filters import build_filter
from rainoerme_plugin.errors import DataError
from rainoerme_plugin.registered.datasets import SingleRainDataset


@dataclass(frozen=True)
class Negative(CoarseFilter):
    """What is asked of it turned over, with a note of every call; its key is given."""

    name: str = "negative"
    sums: list[int] = field(default_factory=list)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.sums.append(int(image.sum()))
        return 255 - image

    @property
    def key(self) -> str:
        return self.name


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def rainy(tmp_path: Path) -> FolderSource:
    write_images(tmp_path / "rainy", 4, size=(10, 12), prefix="rain")
    return FolderSource(tmp_path / "rainy")


# --- made with every crop ---

FILTERS = [
    build_filter("opening", window=(1, 9)),
    build_filter("opening", window=(5, 3)),
    build_filter("rank"),
    build_filter("rank", window=(5, 3), percent=20.0),
    build_filter("median", window=(3, 7)),
    build_filter("bilateral"),
    build_filter("guided", radius=4),
]


class Counted(FolderSource):
    """A folder that notes every decoding."""

    reads = 0

    def read(self, index: int) -> np.ndarray:
        self.reads += 1
        return super().read(index)


@pytest.mark.parametrize("coarse", FILTERS, ids=lambda coarse: coarse.key)
def test_the_label_of_a_crop_is_the_whole_images_there(tmp_path: Path, coarse: CoarseFilter) -> None:
    write_images(tmp_path, 2, size=(37, 53), prefix="rain")
    labels = SoftLabels(FolderSource(tmp_path), coarse)
    whole = [coarse(pixels(tmp_path / f"{number}.png")) for number in (1, 2)]
    rainy = [pixels(tmp_path / f"{number}.png") for number in (1, 2)]
    tolerance = 1 if "guided" in coarse.key else 0
    windows = [
        (0, 0, 37, 53),
        (0, 0, 9, 9),
        (28, 44, 9, 9),
        (0, 44, 9, 9),
        (28, 0, 9, 9),
        (14, 21, 9, 9),
        (3, 2, 1, 20),
    ]
    for index in range(2):
        for top, left, height, width in windows:
            window = (slice(top, top + height), slice(left, left + width))
            crop, label = labels.crop_both(index, top, left, height, width)
            assert np.array_equal(crop, rainy[index][window])
            assert np.abs(label.astype(int) - whole[index][window]).max() <= tolerance
            assert np.array_equal(labels.crop(index, top, left, height, width), label)
        assert np.array_equal(labels.read(index), whole[index])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(labels.encoded(index)))), whole[index])


def test_image_and_label_are_one_decoding(tmp_path: Path) -> None:
    write_images(tmp_path, 1, size=(30, 30))
    source = Counted(tmp_path)
    labels = SoftLabels(source, build_filter("opening"))
    labels.crop_both(0, 5, 5, 8, 8)
    assert source.reads == 1
    assert (labels.names[0], labels.where(0), len(labels)) == ("1.png", str(tmp_path / "1.png"), 1)
    assert labels.sizes().tolist() == [[30, 30]]


# --- made by a filter and kept ---


def test_labels_are_what_the_filter_gives_in_the_order_of_the_images(rainy: FolderSource, tmp_path: Path) -> None:
    labels = kept_labels(rainy, Negative(), tmp_path / "cache")
    assert list(labels.names) == list(rainy.names) == ["1.png", "2.png", "3.png", "4.png"]
    for index, path in enumerate(rainy.paths):
        assert np.array_equal(labels.read(index), 255 - pixels(path))
        assert labels.paths[index].is_relative_to(tmp_path / "cache" / "negative")


def test_a_jpegs_label_is_kept_without_loss(tmp_path: Path) -> None:
    (tmp_path / "rainy").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(
        tmp_path / "rainy" / "1.jpg"
    )
    labels = kept_labels(FolderSource(tmp_path / "rainy"), Negative(), tmp_path / "cache")
    assert list(labels.names) == ["1.jpg"]
    assert np.array_equal(pixels(labels.paths[0]), 255 - pixels(tmp_path / "rainy" / "1.jpg"))


def test_every_label_is_made_once(rainy: FolderSource, tmp_path: Path) -> None:
    coarse = Negative()
    first = kept_labels(rainy, coarse, tmp_path / "cache")
    assert sorted(coarse.sums) == sorted(int(pixels(path).sum()) for path in rainy.paths)
    again = kept_labels(rainy, coarse, str(tmp_path / "cache"))
    assert len(coarse.sums) == 4
    assert again.paths == first.paths


def test_the_same_image_elsewhere_has_the_same_label(rainy: FolderSource, tmp_path: Path) -> None:
    coarse = Negative()
    kept_labels(rainy, coarse, tmp_path / "cache")
    shutil.copytree(tmp_path / "rainy", tmp_path / "moved")
    (tmp_path / "moved" / "1.png").rename(tmp_path / "moved" / "9.png")
    images = [(name, rainy.encoded(index)) for index, name in enumerate(rainy.names)]
    list(write_lmdb(tmp_path / "rainy.lmdb", images, 1 << 20))
    for source in (FolderSource(tmp_path / "moved"), LmdbSource(tmp_path / "rainy.lmdb")):
        labels = kept_labels(source, coarse, tmp_path / "cache")
        assert np.array_equal(labels.read(3), 255 - source.read(3))
    assert len(coarse.sums) == 4


def test_an_image_that_changes_gets_a_new_label(rainy: FolderSource, tmp_path: Path) -> None:
    coarse = Negative()
    kept_labels(rainy, coarse, tmp_path / "cache")
    Image.fromarray(pixels(rainy.paths[1]) // 2).save(rainy.paths[1])
    labels = kept_labels(rainy, coarse, tmp_path / "cache")
    assert len(coarse.sums) == 5
    assert np.array_equal(labels.read(1), 255 - pixels(rainy.paths[1]))


def test_another_filter_makes_its_own_labels(rainy: FolderSource, tmp_path: Path) -> None:
    one, other = Negative("one"), Negative("other")
    kept_labels(rainy, one, tmp_path / "cache")
    kept_labels(rainy, other, tmp_path / "cache")
    assert len(one.sums) == len(other.sums) == 4


def test_every_argument_of_a_filter_is_part_of_a_labels_place() -> None:
    filters = [
        build_filter("rank"),
        build_filter("rank", percent=34.5),
        build_filter("rank", percent=34),
        build_filter("rank", window=(1, 9)),
        build_filter("rank", window=(9, 1)),
        build_filter("median"),
        build_filter("opening"),
        build_filter("guided"),
        build_filter("guided", eps=0.02),
        build_filter("bilateral", sigma_color=30.0),
        build_filter("bilateral", sigma_space=30.0),
    ]
    places = {label_path(Path("cache"), coarse, b"the same bytes") for coarse in filters}
    assert len(places) == len(filters)
    assert label_path(Path("cache"), build_filter("rank"), b"the same bytes") in places
    assert label_path(Path("cache"), build_filter("rank"), b"the same bytez") not in places


@pytest.mark.parametrize("module", ["distillation.rank", "data.images"])
def test_labels_of_new_code_have_other_places(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = label_path(Path("cache"), build_filter("rank"), b"bytes")
    with changed_code(monkeypatch, module):
        assert label_path(Path("cache"), build_filter("rank"), b"bytes") != before


# --- by several processes ---


@dataclass(frozen=True)
class Slow(Negative):
    """Takes its time."""

    seconds: float = 0.02

    def __call__(self, image: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        return super().__call__(image)


def made_together(rainy: FolderSource, cache: Path, filters: list[Slow]) -> list[FileSource]:
    """The labels that as many callers as filters get, each at the same time as the others."""
    world = len(filters)
    with ThreadPoolExecutor(world) as callers:
        calls = [
            callers.submit(kept_labels, rainy, coarse, cache, rank=rank, world=world)
            for rank, coarse in enumerate(filters)
        ]
        return [call.result() for call in calls]


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderSource:
    """Sixty images, and callers with two threads each."""
    monkeypatch.setattr("rainoerme_plugin.data.labels.in_threads", partial(in_threads, threads=2))
    write_images(tmp_path / "rainy", 60, size=(10, 12), prefix="rain")
    return FolderSource(tmp_path / "rainy")


@pytest.mark.parametrize("world", [2, 3])
def test_callers_share_the_work_and_all_get_all_labels_in_order(many: FolderSource, tmp_path: Path, world: int) -> None:
    filters = [Slow() for _ in range(world)]
    for labels in made_together(many, tmp_path / "cache", filters):
        assert labels.names[:] == many.names[:]
        for index in range(60):
            assert np.array_equal(labels.read(index), 255 - many.read(index))
    made = [total for coarse in filters for total in coarse.sums]
    assert len(made) <= 60 + 4 * world  # what two have begun at the same time, they both make
    assert all(len(coarse.sums) < 0.8 * 60 for coarse in filters)
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 60


def test_who_is_done_early_helps_the_others(many: FolderSource, tmp_path: Path) -> None:
    quick, slow = Slow(seconds=0.04), Slow(seconds=0.06)
    made_together(many, tmp_path / "cache", [quick, slow])
    assert len(quick.sums) + len(slow.sums) <= 60 + 4
    assert len(slow.sums) < 29  # of the thirty that are its own


def test_a_caller_whose_others_never_come_makes_all(rainy: FolderSource, tmp_path: Path) -> None:
    for world in (1, 3, 9):
        for rank in range(world):
            coarse = Negative(f"{rank} of {world}")
            labels = kept_labels(rainy, coarse, tmp_path / "cache", rank=rank, world=world)
            assert len(coarse.sums) == 4
            assert all(np.array_equal(labels.read(index), 255 - rainy.read(index)) for index in range(4))


# --- what is told, what goes wrong ---


def test_progress_is_shown_with_the_filters_name(rainy: FolderSource, tmp_path: Path) -> None:
    shown: list[tuple[int, str]] = []

    def track(items: object, total: int, title: str) -> object:
        shown.append((total, title))
        return items

    kept_labels(rainy, Negative(), tmp_path / "cache", track)  # type: ignore[arg-type]
    assert shown == [(4, "soft labels (negative)")]


def test_an_interruption_keeps_the_labels_that_are_made(tmp_path: Path) -> None:
    write_images(tmp_path / "rainy", 12, size=(10, 12), prefix="rain")
    rainy = FolderSource(tmp_path / "rainy")
    third = int(pixels(rainy.paths[2]).sum())
    enough = threading.Event()

    class Stopping(Negative):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            if int(image.sum()) == third:
                enough.wait(30)
                raise KeyboardInterrupt
            result = super().__call__(image)
            if len(self.sums) >= 3:
                enough.set()
            return result

    with pytest.raises(KeyboardInterrupt):
        kept_labels(rainy, Stopping(), tmp_path / "cache")
    kept = len(list((tmp_path / "cache").rglob("*.png")))
    assert 2 <= kept < 12
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == kept
    coarse = Negative()
    labels = kept_labels(rainy, coarse, tmp_path / "cache")
    assert len(coarse.sums) == 12 - kept
    for index, path in enumerate(rainy.paths):
        assert np.array_equal(labels.read(index), 255 - pixels(path))


def test_a_broken_rainy_image_is_named(rainy: FolderSource, tmp_path: Path) -> None:
    data = rainy.paths[2].read_bytes()
    rainy.paths[2].write_bytes(data[:-40])
    with pytest.raises(DataError, match=r"3\.png: damaged image"):
        kept_labels(rainy, Negative(), tmp_path / "cache")


def test_a_rainy_image_that_went_since_it_was_listed_is_named(rainy: FolderSource, tmp_path: Path) -> None:
    rainy.paths[2].unlink()
    with pytest.raises(DataError, match=r"3\.png: no such file"):
        kept_labels(rainy, Negative(), tmp_path / "cache")


def test_a_rainy_image_that_cannot_be_read_is_named(rainy: FolderSource, tmp_path: Path) -> None:
    rainy.paths[2].unlink()
    rainy.paths[2].mkdir()
    with pytest.raises(DataError, match=r"3\.png: cannot be read \(.*directory"):
        kept_labels(rainy, Negative(), tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_told(rainy: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"cannot keep the label of .*1\.png: .*cache"):
        kept_labels(rainy, Negative(), tmp_path / "cache")


# --- ready-made ---


def test_ready_labels_are_found_by_name_whatever_their_file_type(rainy: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for number, suffix in ((1, "bmp"), (2, "png"), (3, "tif"), (4, "webp"), (5, "png")):
        Image.new("RGB", (12, 10), (number, 0, 0)).save(tmp_path / "labels" / f"{number}.{suffix}", lossless=True)
    labels = ready_labels(rainy, tmp_path / "labels")
    assert len(labels) == 4
    assert [int(labels.read(index)[0, 0, 0]) for index in range(4)] == [1, 2, 3, 4]


def test_ready_labels_may_be_an_lmdb_and_the_rainy_images_too(rainy: FolderSource, tmp_path: Path) -> None:
    images = [(name, rainy.encoded(index)) for index, name in enumerate(rainy.names)]
    list(write_lmdb(tmp_path / "labels.lmdb", reversed(images), 1 << 20))
    for source in (rainy, LmdbSource(tmp_path / "labels.lmdb")):
        labels = ready_labels(source, tmp_path / "labels.lmdb")
        assert all(np.array_equal(labels.read(index), source.read(index)) for index in range(4))


def test_a_missing_label_is_named_with_how_many_lack(rainy: FolderSource, tmp_path: Path) -> None:
    write_images(tmp_path / "labels", 2)
    with pytest.raises(
        DataError, match=r"labels: 2 of 4 rainy images have no label of their name there; the first is 3\.png"
    ):
        ready_labels(rainy, tmp_path / "labels")


def test_a_missing_label_folder_is_refused(rainy: FolderSource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder: .*labels"):
        ready_labels(rainy, tmp_path / "labels")


# --- sizes ---


def test_labels_of_their_images_sizes_pass(rainy: FolderSource, tmp_path: Path) -> None:
    check_label_sizes(rainy, kept_labels(rainy, Negative(), tmp_path / "cache"))


@pytest.mark.parametrize("size", [(12, 11), (11, 10), (10, 12)])
def test_a_label_of_another_size_is_refused(rainy: FolderSource, tmp_path: Path, size: tuple[int, int]) -> None:
    shutil.copytree(tmp_path / "rainy", tmp_path / "labels")
    Image.new("RGB", size).save(tmp_path / "labels" / "3.png")
    message = rf"label .*labels/3\.png is {size[0]}x{size[1]} pixels, its image .*rainy/3\.png 12x10; make the label"
    with pytest.raises(DataError, match=message):
        check_label_sizes(rainy, ready_labels(rainy, tmp_path / "labels"))


def test_a_label_that_is_no_image_is_refused(rainy: FolderSource, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "rainy", tmp_path / "labels")
    (tmp_path / "labels" / "2.png").write_text("nothing")
    with pytest.raises(DataError, match=r"labels/2\.png: not an image"):
        check_label_sizes(rainy, ready_labels(rainy, tmp_path / "labels"))


def test_names_with_dots_find_their_labels_in_folders_and_lmdbs(tmp_path: Path) -> None:
    for folder in ("rainy", "labels"):
        (tmp_path / folder).mkdir()
        for name in ("a.v1", "b.v2"):
            Image.new("RGB", (8, 6), (len(name), 1, 2)).save(tmp_path / folder / f"{name}.png")
    rainy, folder = FolderSource(tmp_path / "rainy"), FolderSource(tmp_path / "labels")
    images = [(name, folder.encoded(index)) for index, name in enumerate(folder.names)]
    assert list(write_lmdb(tmp_path / "labels.lmdb", images, 1 << 20)) == ["a.v1.png", "b.v2.png"]
    for place in ("labels", "labels.lmdb"):
        found = ready_labels(rainy, tmp_path / place)
        assert [found.encoded(index) for index in range(2)] == [data for _, data in images]


# --- names that lead elsewhere ---


@pytest.mark.parametrize("name", ["{home}/picture", "C:\\\\picture", "a\\\\b"])
def test_an_lmdb_whose_names_lead_elsewhere_is_told_and_nothing_written(tmp_path: Path, name: str) -> None:
    name, root = name.format(home=tmp_path / "home"), tmp_path / "a.lmdb"
    png = encode_png(np.zeros((40, 48, 3), np.uint8))
    list(write_lmdb(root, [("good.png", png)], 1 << 20))
    with lmdb.open(str(root), map_size=1 << 20, lock=False) as environment, environment.begin(write=True) as writing:
        writing.put(name.encode(), png)
    with (root / "meta_info.txt").open("a") as meta:
        meta.write(f"{name}.png (40,48,3) 1\n")
    source = LmdbSource(root)
    assert list(source.names) == ["good", name]  # to be read it may be called what it likes
    for refuse in (label_names, SingleRain):
        with pytest.raises(DataError, match=r"a\.lmdb:.*: cannot be the name of a result.*make the LMDB again"):
            refuse(source)
    with pytest.raises(DataError, match=r"datasets\.val\.dataroot: .*a\.lmdb:.*cannot be the name"):
        SingleRainDataset({"name": "val", "phase": "val", "type": "SingleRainDataset", "dataroot": str(root)})
    assert main(["prepare", "labels", str(root), "-o", str(tmp_path / "labels")]) == 2
    assert not (tmp_path / "labels").exists()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_label_is_not_written_over_a_rainy_image(
    rainy: FolderSource, tmp_path: Path, link: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    output = rainy.root
    if link:
        output = tmp_path / "out"
        output.mkdir()
        (output / rainy.names[-1]).with_suffix(".png").symlink_to(rainy.paths[-1])
    before = [path.read_bytes() for path in rainy.paths]
    assert main(["prepare", "labels", str(rainy.root), "-o", str(output)]) == 2
    assert "is a rainy image itself" in capsys.readouterr().err
    assert [path.read_bytes() for path in rainy.paths] == before
