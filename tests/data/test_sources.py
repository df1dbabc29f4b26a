"""Where images come from: folders, files, memory, picks; and work done in threads, in order."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_images

from rainoerme_plugin.data.sources import (
    FileSource,
    FolderSource,
    LmdbSource,
    check_sizes,
    in_threads,
    list_images,
    open_source,
)
from rainoerme_plugin.errors import DataError


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


class Shown:
    """A progress bar that notes what it was asked to show."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []
        self.passed = 0

    def __call__(self, items: Iterable[object], total: int, title: str) -> Iterable[object]:
        self.calls.append((total, title))
        for item in items:
            self.passed += 1
            yield item


# --- folders ---


def test_only_visible_image_files_are_listed_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "10.jpg", "2.JPG", "a.Jpeg", "c.bmp", "d.tif", "e.TIFF", "f.webp"):
        (tmp_path / name).touch()
    for name in (".hidden.png", "._2.jpg", "notes.txt", "g.gif", "png", "h.png.part", "i.npy"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = ["10.jpg", "2.JPG", "a.Jpeg", "b.png", "c.bmp", "d.tif", "e.TIFF", "f.webp"]
    assert [path.name for path in list_images(tmp_path)] == expected
    assert list(FolderSource(tmp_path).names) == expected


def test_subfolders_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    for name in ("z.png", "a/2.png", "a/1.png", "a/b/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(FolderSource(tmp_path).names) == ["z.png"]
    deep = FolderSource(tmp_path, recursive=True)
    assert list(deep.names) == ["a/1.png", "a/2.png", "a/b/3.png", "z.png"]
    assert deep.where(2) == str(tmp_path / "a" / "b" / "3.png")


def test_a_folder_gives_bytes_sizes_and_pixels_of_its_files(tmp_path: Path) -> None:
    write_images(tmp_path, 3, size=(12, 17))
    source = FolderSource(str(tmp_path))
    assert len(source) == 3
    for index in range(3):
        path = tmp_path / f"{index + 1}.png"
        assert source.where(index) == str(path)
        assert source.encoded(index) == path.read_bytes()
        assert source.sizes()[index].tolist() == [12, 17]
        assert np.array_equal(source.read(index), pixels(path))


def test_an_empty_folder_is_refused_and_the_suffixes_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=rf"no images \(\.png, \.jpg, .*\) in {re.escape(str(tmp_path))}"):
        FolderSource(tmp_path)
    assert list_images(tmp_path) == []


def test_a_missing_folder_is_refused_with_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"no such folder: nowhere \(looked from {re.escape(str(tmp_path))}\)"):
        FolderSource("nowhere")
    (tmp_path / "file.png").touch()
    with pytest.raises(DataError, match="no such folder"):
        FolderSource(tmp_path / "file.png")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_images(tmp_path / "rainy", 1)
    assert FolderSource("~/rainy").where(0) == str(tmp_path / "rainy" / "1.png")
    assert open_source("~/rainy").where(0) == str(tmp_path / "rainy" / "1.png")


def test_files_have_the_names_given_or_their_own(tmp_path: Path) -> None:
    paths = [tmp_path / "b.png", tmp_path / "a.png"]
    assert list(FileSource(paths).names) == ["b.png", "a.png"]
    named = FileSource(paths, ["x/1.jpg", "x/2.jpg"])
    assert list(named.names) == ["x/1.jpg", "x/2.jpg"]
    assert named.where(0) == str(paths[0])


# --- picks and LMDBs ---


def test_a_pick_is_some_images_in_the_order_asked_for(tmp_path: Path) -> None:
    for number, size in enumerate(((4, 5), (6, 7), (8, 9)), 1):
        write_images(tmp_path / str(number), 1, size=size, seed=number)
        (tmp_path / str(number) / "1.png").rename(tmp_path / f"{number}.png")
    picked = FolderSource(tmp_path).pick([2, 0])
    assert len(picked) == 2
    assert list(picked.names) == ["3.png", "1.png"]
    for index, number in enumerate((3, 1)):
        path = tmp_path / f"{number}.png"
        assert picked.where(index) == str(path)
        assert picked.encoded(index) == path.read_bytes()
        assert np.array_equal(picked.read(index), pixels(path))
    assert picked.sizes().tolist() == [[8, 9], [4, 5]]


def test_an_lmdb_is_known_by_its_name_or_by_what_it_holds(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    assert isinstance(open_source(tmp_path / "images"), FolderSource)
    with pytest.raises(DataError, match=r"no LMDB \(a folder with data\.mdb\) at .*gone\.lmdb"):
        open_source(tmp_path / "gone.lmdb")
    (tmp_path / "images" / "data.mdb").touch()
    with pytest.raises(DataError, match=r"meta_info\.txt cannot be read"):
        open_source(tmp_path / "images")
    with pytest.raises(DataError, match="no LMDB"):
        LmdbSource(tmp_path)


# --- work in threads ---


def test_results_come_in_order_even_if_the_first_is_last_to_finish() -> None:
    later_done = threading.Event()

    def work(index: int) -> int:
        if index == 0:
            assert later_done.wait(30)
        if index == 2:
            later_done.set()
        return index * index

    assert list(in_threads(work, range(150))) == [index * index for index in range(150)]


def test_the_first_error_in_order_ends_it() -> None:
    late = threading.Event()

    def work(index: int) -> int:
        if index == 3:
            assert late.wait(30)
            raise DataError("the third")
        if index == 5:
            late.set()
            raise DataError("the fifth")
        return index

    results = iter(in_threads(work, range(20)))
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(DataError, match="the third"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("ahead", [None, 4])
def test_only_so_much_is_worked_ahead(ahead: int | None) -> None:
    drawn = 0

    def numbers() -> Iterable[int]:
        nonlocal drawn
        for number in itertools.count():
            drawn += 1
            yield number

    limit = {} if ahead is None else {"ahead": ahead}
    results = iter(in_threads(lambda index: index, numbers(), **limit))
    assert [next(results) for _ in range(10)] == list(range(10))
    assert 10 < drawn <= 10 + (ahead or 64) + 1


def test_nothing_in_is_nothing_out() -> None:
    assert list(in_threads(lambda index: index, [])) == []


# --- sizes ---


def test_sizes_of_large_enough_images_come_back_in_order(tmp_path: Path) -> None:
    sizes = [(16, 20), (20, 16), (16, 16)]
    for number, (height, width) in enumerate(sizes):
        Image.new("RGB", (width, height)).save(tmp_path / f"{number}.png")
    shown = Shown()
    found = check_sizes(FolderSource(tmp_path), 16, shown)
    assert found.dtype == np.int32
    assert [tuple(size) for size in found.tolist()] == sizes
    assert shown.calls == [(3, "checking images")]


@pytest.mark.parametrize("size", [(15, 40), (40, 15)])
def test_an_image_smaller_than_the_crop_is_named_with_its_size(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png")
    Image.new("RGB", size).save(tmp_path / "2.png")
    wanted = rf"2\.png: {size[0]}x{size[1]} pixels is smaller than the crop of 16x16; remove it or lower crop_size"
    with pytest.raises(DataError, match=wanted):
        check_sizes(FolderSource(tmp_path), 16)


def test_a_file_that_is_no_image_is_named_when_sizes_are_checked(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    (tmp_path / "broken.png").write_text("nothing")
    with pytest.raises(DataError, match=r"broken\.png: not an image"):
        check_sizes(FolderSource(tmp_path), 8)


def test_hidden_folders_are_left_out_too(tmp_path: Path) -> None:
    write_images(tmp_path / "seen", 1)
    write_images(tmp_path / ".hidden", 1)
    assert list(FolderSource(tmp_path, recursive=True).names) == ["seen/1.png"]
