"""``basicsr derain`` and ``basicsr export``, as a user types them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_data, tiny_options, write_images

from rainoerme_plugin.commands import main


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def derain(*arguments: object) -> int:
    return run("derain", *arguments, "--device", "cpu")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "in", 3)
    return tmp_path


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path)).astype(int)


def test_a_folder_with_the_network_of_the_package(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert derain("in", "-o", "out", "--compare", "--rain") == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "RainOerMeNet, the default network, on cpu",
        "3 of 3 derained into out",
        "out/compare.html",
    ]
    names = sorted(path.name for path in (here / "in").iterdir())
    assert sorted(path.name for path in (here / "out").iterdir()) == sorted(
        ["compare.html", *names, *(f"{name}.rain.png" for name in names)]
    )
    for name in names:
        rainy, derained = pixels(here / "in" / name), pixels(here / "out" / name)
        np.testing.assert_array_equal(pixels(here / "out" / f"{name}.rain.png"), np.maximum(rainy - derained, 0))
        assert (rainy != derained).any()
    assert derain("in", "-o", "out") == 0
    assert "0 of 3 derained into out, 3 were there already (--overwrite" in capsys.readouterr().out


def test_a_broken_file_is_told_last_with_status_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "in" / "0.png").write_text("no image")
    assert derain("in", "-o", "out") == 2
    said = capsys.readouterr()
    assert "3 of 4 derained into out" in said.out
    (line,) = (line for line in said.err.splitlines() if "error" in line)
    assert line.startswith("basicsr derain: error: in/0.png: not an image this package reads")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "out"], "nowhere: no such file or folder"),
        (["in", "-o", "in"], "is an input itself"),
        (["in", "-o", "out", "-w", "nowhere.pth"], "no such checkpoint: nowhere.pth"),
        (["in", "-o", "out", "-w", "in"], "in is no folder of a training run"),
        (["in", "-o", "out", "--quality", "0"], "--quality must be 1 to 100, got 0"),
        (["in", "-o", "out", "--tile", "-1"], "tile must be at least 0"),
        (["in", "-o", "out", "--blend", "2"], "blend must be 0"),
        (["in", "-o", "out", "--device", "gpu"], "--device gpu: no such device; there are auto, cpu"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run("derain", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("basicsr derain: error: ")
    assert message in line
    assert not (here / "out").exists()


def test_a_training_runs_folder_its_checkpoint_and_its_export_give_the_same(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    options = tiny_options(tiny_data(here), train__total_iter=2)
    assert run("train", "-opt", options, "--device", "cpu", "--root", here) == 0
    (folder,) = (here / "experiments").iterdir()
    file = folder / "models" / "net_g_latest.pth"
    assert run("export", "-w", folder, "-o", "small.onnx") == 0
    assert "largest difference from PyTorch" in capsys.readouterr().out
    assert run("export", "-w", folder, "-o", "small.onnx") == 2
    assert "small.onnx is there already; --overwrite replaces it" in capsys.readouterr().err
    for number, weights in enumerate((folder, file, "small.onnx")):
        assert derain("in", "-o", f"out{number}", "-w", weights) == 0
    for path in (here / "in").iterdir():
        first, *others = (pixels(here / f"out{number}" / path.name) for number in range(3))
        np.testing.assert_array_equal(others[0], first)
        assert np.abs(others[1] - first).max() <= 1
