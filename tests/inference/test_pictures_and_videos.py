"""Many pictures in one call: whole results, nothing lost, nothing done twice."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made import Of
from PIL import Image
from torch import Tensor

from rainoerme_plugin.archs.adapt import Needs
from rainoerme_plugin.files import temporary_beside
from rainoerme_plugin.inference import run as run_module
from rainoerme_plugin.inference.derainer import Derainer
from rainoerme_plugin.inference.jobs import Wanted, find_jobs
from rainoerme_plugin.inference.opening import Opened
from rainoerme_plugin.inference.run import Outcome, derain_files


def half(rainy: Tensor) -> Tensor:
    return rainy / 2


def photograph(seed: int, height: int = 20, width: int = 30) -> np.ndarray[Any, Any]:
    """Even values: half of them is a whole number."""
    return 2 * np.random.default_rng(seed).integers(0, 128, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    (root / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.bmp", "c.png", "deep/d.tif", "e.png", "f.jpg")):
        Image.fromarray(photograph(number)).save(root / name)
    return root


def derain(
    folder: Path, network: Callable[[Tensor], Tensor] = half, batch: int | None = None, **wanted: Any
) -> tuple[Outcome, Of]:
    counted = Of(network)
    opened = Opened(counted.eval(), Needs(), "Of", Path("of.pth"), "0" * 64)
    derainer = Derainer(opened, torch.device("cpu"), batch=batch)
    asked = Wanted(**wanted)
    jobs = find_jobs([folder], folder.parent / "out", asked)
    return derain_files(jobs, derainer, asked), counted


def results(folder: Path) -> set[str]:
    """All files, hidden ones too."""
    out = folder.parent / "out"
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


ALL = {"a.png", "b.bmp", "c.png", "deep/d.tif", "e.png", "f.jpg"}


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_every_picture_is_derained_into_its_place(folder: Path, batch: int | None) -> None:
    outcome, network = derain(folder, batch=batch)
    assert (outcome.done, outcome.skipped, outcome.failed) == (6, 0, [])
    assert results(folder) == ALL
    for number, name in enumerate(("a.png", "b.bmp", "c.png", "deep/d.tif", "e.png")):
        np.testing.assert_array_equal(pixels(folder.parent / "out" / name), photograph(number) // 2)
        np.testing.assert_array_equal(pixels(folder / name), photograph(number))
    assert sum(size[0] for size in network.seen) == 6
    assert max(size[0] for size in network.seen) == (batch or 1)


def test_what_is_there_is_left(folder: Path) -> None:
    derain(folder)
    out = folder.parent / "out"
    (out / "c.png").unlink()
    (out / "a.png").write_bytes(b"mine")
    outcome, network = derain(folder)
    assert (outcome.done, outcome.skipped, len(network.seen)) == (1, 5, 1)
    assert (out / "a.png").read_bytes() == b"mine"
    outcome, _ = derain(folder, overwrite=True)
    assert (outcome.done, outcome.skipped) == (6, 0)
    np.testing.assert_array_equal(pixels(out / "a.png"), photograph(0) // 2)


def test_a_broken_file_is_told_and_the_others_are_done(folder: Path) -> None:
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:100])
    (folder / "text.jpg").write_text("no image")
    outcome, _ = derain(folder, batch=4)
    assert outcome.done == 6
    assert results(folder) == ALL
    assert sorted(path.name for path, _ in outcome.failed) == ["bad.png", "text.jpg"]
    assert all(reason and str(path) not in reason for path, reason in outcome.failed)


def test_an_image_that_the_network_fails_on_takes_no_other_with_it(folder: Path) -> None:
    def fails(rainy: Tensor) -> Tensor:
        white = (rainy == 1).flatten(1).all(1)
        return torch.where(white.view(-1, 1, 1, 1), torch.nan, rainy)

    Image.fromarray(np.full((20, 30, 3), 255, np.uint8)).save(folder / "bb.png")
    outcome, _ = derain(folder, fails, batch=8)
    assert outcome.done == 6
    ((path, reason),) = outcome.failed
    assert path.name == "bb.png"
    assert "not finite" in reason


def test_the_rain_layer_and_the_result_make_the_input(folder: Path) -> None:
    outcome, _ = derain(folder, rain=True, side=True)
    out = folder.parent / "out"
    assert outcome.done == 6
    assert results(folder) == ALL | {f"{name}.rain.png" for name in ALL} | {f"{name}.compare.jpg" for name in ALL}
    for name in ("a.png", "b.bmp", "deep/d.tif"):
        np.testing.assert_array_equal(pixels(out / name) + pixels(out / f"{name}.rain.png"), pixels(folder / name))
    (out / "c.png.rain.png").unlink()
    kept = (out / "c.png").stat().st_mtime_ns
    outcome, network = derain(folder, rain=True, side=True)
    assert (outcome.done, outcome.skipped, len(network.seen)) == (1, 5, 1)
    assert (out / "c.png.rain.png").exists()
    assert (out / "c.png").stat().st_mtime_ns == kept


def test_deep_pictures_keep_16_bits_in_result_and_rain(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "in").mkdir()
    deep = 2 * np.random.default_rng(0).integers(0, 1 << 15, (12, 14, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "in" / "deep.png"), deep)
    derain(tmp_path / "in", rain=True)
    for name in ("deep.png", "deep.png.rain.png"):
        found = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, deep // 2)


def test_the_page_shows_what_was_derained_in_any_run(folder: Path) -> None:
    page = folder.parent / "out" / "compare.html"
    derain(folder)
    (folder / "bad.png").write_bytes(b"no image")
    outcome, network = derain(folder, page=page)
    assert (outcome.skipped, len(network.seen)) == (6, 0)
    text = page.read_text()
    assert all(name in text for name in ALL)
    assert "bad.png" not in text


def test_another_format(folder: Path) -> None:
    derain(folder, kind="webp")
    assert results(folder) == {str(Path(name).with_suffix(".webp")) for name in ALL}
    assert pixels(folder.parent / "out" / "a.webp").shape == (20, 30, 3)
    np.testing.assert_array_equal(pixels(folder.parent / "out" / "a.webp"), photograph(0) // 2)


def test_an_interrupted_run_leaves_whole_files_and_the_next_does_the_rest(folder: Path) -> None:
    calls = 0

    def interrupted(rainy: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return half(rainy)

    with pytest.raises(KeyboardInterrupt):
        derain(folder, interrupted)
    there = results(folder)
    assert there < ALL
    for name in there & {"a.png", "b.bmp", "c.png"}:
        np.testing.assert_array_equal(pixels(folder.parent / "out" / name), pixels(folder / name) // 2)
    outcome, network = derain(folder)
    assert (outcome.done, outcome.skipped, len(network.seen)) == (6 - len(there), len(there), 6 - len(there))
    assert results(folder) == ALL


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_ends_it_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(run_module, "write_whole", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        derain(folder)


def test_a_result_that_cannot_be_written_is_told(folder: Path) -> None:
    def put_in_the_way(rainy: Tensor) -> Tensor:
        (folder.parent / "out" / "a.png" / "in the way").mkdir(parents=True, exist_ok=True)
        return half(rainy)

    outcome, _ = derain(folder, put_in_the_way, overwrite=True)
    ((path, reason),) = outcome.failed
    assert path.name == "a.png"
    assert reason == f"{folder.parent / 'out' / 'a.png'}: Is a directory"
    assert outcome.done == 5


def test_leftovers_of_a_killed_run_go_after_a_day(folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    old, new, mine = temporary_beside(out / "a.png"), temporary_beside(out / "a.png"), out / ".notes.bak.20240101"
    for path in (old, new, mine):
        path.write_bytes(b"")
    for path in (old, mine):
        os.utime(path, (time.time() - 100_000,) * 2)
    derain(folder)
    assert not old.exists()
    assert new.exists()
    assert mine.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_middle_of_a_folder(tmp_path: Path, number: int) -> None:
    (tmp_path / "in").mkdir()
    for count in range(30):
        Image.fromarray(photograph(count, 300, 300)).save(tmp_path / "in" / f"{count:02}.png")
    command = [sys.executable, "-m", "rainoerme_plugin", "derain", "in", "-o", "out", "--device", "cpu"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("out/*.png")) and time.monotonic() < end:
        time.sleep(0.01)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "Traceback" not in said
    there = list((tmp_path / "out").iterdir())
    assert 0 < len(there) < 30
    for path in there:  # none hidden, none half
        assert pixels(path).shape == (300, 300, 3)
    run_again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run_again.returncode == 0
    assert f"{30 - len(there)} of 30 derained into out, {len(there)} were there already" in run_again.stdout


def test_a_page_is_only_made_where_there_is_something_to_show(folder: Path) -> None:
    page = folder.parent / "out" / "compare.html"
    for path in folder.rglob("*.*"):
        path.write_bytes(b"no image")
    outcome, _ = derain(folder, page=page)
    assert (outcome.done, outcome.page) == (0, None)
    assert outcome.notes == ["no page was made: there are no derained pictures to show"]
    assert not page.exists()
    Image.fromarray(photograph(0)).save(folder / "a.png")
    outcome, _ = derain(folder, page=page)
    assert (outcome.done, outcome.page, outcome.notes) == (1, page, [])
    assert derain(folder, page=page)[0].page == page  # it is ours, so it is made anew


@pytest.mark.parametrize("problem", ["made", "written to"])
def test_a_folder_that_takes_no_results_ends_it_before_the_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    def never(rainy: Tensor) -> Tensor:
        raise AssertionError

    def refuse(path: Path, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    if problem == "made":
        monkeypatch.setattr(Path, "mkdir", refuse)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError) as caught:
        derain(folder, never)
    assert caught.value.filename == str(folder.parent / "out")


@pytest.mark.parametrize("batch", [1, 2])
def test_how_far_the_network_is_is_told(folder: Path, batch: int) -> None:
    """Of six pictures one is broken; one is cut into tiles of 16 pixels, 2 x 2 of them."""
    (folder / "c.png").write_bytes(b"no image")
    opened = Opened(Of(half).eval(), Needs(), "Of", Path("of.pth"), "0" * 64)
    jobs, told = find_jobs([folder], folder.parent / "out"), list[float]()
    derain_files(jobs, Derainer(opened, torch.device("cpu"), batch=batch), Wanted(), reached=told.append)
    assert told == sorted(told)
    assert told[-1] == 6
    assert 5 in told if batch == 1 else 2 in told
