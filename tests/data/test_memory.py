"""Images in memory: read once, shared by workers, refused where they would not fit."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_sources import Shown, pixels
from tiny import write_images

from rainoerme_plugin.data import memory
from rainoerme_plugin.data.labels import SoftLabels
from rainoerme_plugin.data.memory import MemorySource, free_memory, into_memory, reserve
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.distillation.filters import OpeningFilter
from rainoerme_plugin.errors import DataError


def test_memory_holds_the_images_when_the_files_are_gone(tmp_path: Path) -> None:
    write_images(tmp_path, 3, size=(9, 11))
    Image.new("L", (5, 4), 7).save(tmp_path / "4.png")
    expected = [pixels(tmp_path / f"{number}.png") for number in (1, 2, 3)]
    shown = Shown()
    held = MemorySource(FolderSource(tmp_path), shown, "into memory")
    assert shown.calls == [(4, "into memory")]
    assert shown.passed == 4
    assert held.encoded(1) == (tmp_path / "2.png").read_bytes()
    for path in tmp_path.iterdir():
        path.unlink()
    assert len(held) == 4
    assert list(held.names) == ["1.png", "2.png", "3.png", "4.png"]
    assert held.where(2) == str(tmp_path / "3.png")
    for index in range(3):
        assert np.array_equal(held.read(index), expected[index])
    assert held.sizes().tolist() == [[9, 11], [9, 11], [9, 11], [4, 5]]
    assert np.array_equal(held.crop(1, 2, 3, 5, 7), expected[1][2:7, 3:10])
    with pytest.raises(DataError, match=r"2\.png: is of 11x9 pixels, less than when it was listed"):
        held.crop(1, 5, 0, 5, 7)
    assert (held.read(3) == 7).all()


def test_three_sources_lie_in_one_block_and_labels_are_made_of_what_is_there(tmp_path: Path) -> None:
    write_images(tmp_path / "rainy", 3, size=(20, 17), prefix="rain")
    write_images(tmp_path / "clean", 2, size=(9, 30))
    decoded: list[int] = []

    class Noted(FolderSource):
        def read(self, index: int) -> np.ndarray:
            decoded.append(index)
            return super().read(index)

    rainy, coarse = Noted(tmp_path / "rainy"), OpeningFilter((1, 5))
    held = into_memory(rainy, SoftLabels(rainy, coarse), FolderSource(tmp_path / "clean"))
    assert sorted(decoded) == [0, 1, 2]
    assert all(source.pixels is held[0].pixels for source in held)
    assert held[0].pixels.shape == (2 * 3 * 20 * 17 + 2 * 9 * 30, 3)
    files = [pixels(tmp_path / "rainy" / f"{number}.png") for number in (1, 2, 3)]
    flat = [*files, *map(coarse, files), *(pixels(tmp_path / "clean" / f"{number}.png") for number in (1, 2))]
    assert np.array_equal(held[0].pixels.numpy(), np.concatenate([image.reshape(-1, 3) for image in flat]))


def test_an_image_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, 2, size=(9, 11))
    source = FolderSource(tmp_path)
    source.sizes()
    Image.new("RGB", (11, 8)).save(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"2\.png: has changed while it was read"):
        MemorySource(source)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, 3, size=(9, 11))
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"2\.png: damaged image"):
        MemorySource(FolderSource(tmp_path))


# --- shared ---


def _darken(source: MemorySource) -> None:
    source.read(0)[:] = 77


def test_a_spawned_process_has_the_same_memory_not_a_copy(tmp_path: Path) -> None:
    write_images(tmp_path, 2, size=(9, 11))
    held = MemorySource(FolderSource(tmp_path))
    second = held.read(1).copy()
    child = multiprocessing.get_context("spawn").Process(target=_darken, args=(held,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (held.read(0) == 77).all()
    assert np.array_equal(held.read(1), second)


def test_a_plain_pickle_is_a_copy(tmp_path: Path) -> None:
    write_images(tmp_path, 1, size=(9, 11))
    held = MemorySource(FolderSource(tmp_path))
    copied = pickle.loads(pickle.dumps(held))
    _darken(copied)
    assert np.array_equal(held.read(0), pixels(tmp_path / "1.png"))


def test_too_little_shared_memory_is_told_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, 1, size=(9, 11))
    held = MemorySource(FolderSource(tmp_path))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=200))
    with pytest.raises(DataError, match=r"only 0\.0 GB in /dev/shm, for spawned workers are free"):
        ForkingPickler(io.BytesIO()).dump(held)
    assert not held.pixels.is_shared()


# --- room ---


def proc(root: Path, available: int | None = None, group: dict[str, str] | None = None) -> Path:
    (root / "proc").mkdir()
    (root / "sys/fs/cgroup").mkdir(parents=True)
    if available is not None:
        (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable:  {available} kB\n")
    for name, text in (group or {}).items():
        (root / "sys/fs/cgroup" / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("available", "group", "expected"),
    [
        (500, None, 500 * 1024),
        (None, None, None),
        (500, {"memory.max": "max\n", "memory.current": "5"}, 500 * 1024),
        (500, {"memory.max": "1000", "memory.current": "600"}, 500 * 1024),  # no memory.stat
        (
            500,
            {"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 9\ninactive_file 40\nactive_file 7\n"},
            1000 - 600 + 47,
        ),
        (500, {"memory.max": "1000", "memory.current": "1200", "memory.stat": ""}, 0),
    ],
)
def test_free_memory_is_what_linux_and_the_container_allow(
    tmp_path: Path, available: int | None, group: dict[str, str] | None, expected: int | None
) -> None:
    assert free_memory(proc(tmp_path, available, group)) == expected


def test_this_machine_has_some() -> None:
    free = free_memory()
    assert free is None or 10 << 20 < free < 1 << 50


def test_more_than_there_is_is_refused_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 3_000_000_000)
    with pytest.raises(DataError, match=r"take 6\.0 GB, but only 3\.0 GB of memory are free; take source: files, best"):
        reserve(2_000_000_000)
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert reserve(7).shape == (7, 3)
    assert reserve(7).dtype == torch.uint8
