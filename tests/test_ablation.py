"""Ablations: what is read from grids and logs, the table by hand, a killed run that goes on, no test data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ablation
import pytest
import yaml
from ablation import Grid, read_curve, read_grid, refuse_test_data, runs_of, table
from tiny import OPTIONS, tiny_data, tiny_options

from rainoerme_plugin.errors import OptionError

SCRIPT = OPTIONS.parent / "scripts" / "ablation.py"
LOG = """\
2026-01-01 10:00:00,000 INFO: [tiny.][epoch:  0, iter:   1,000, lr:(1.000e-03,)] [eta: 0:00:00] l_soft: 1.0e-01
2026-01-01 10:00:01,000 INFO: Validation val, 2 images
\t # psnr: 28.1250\tRainy: 25.5000\tBest: 28.1250 @ 1000 iter
\t # ssim: 0.9000\tRainy: 0.8000\tBest: 0.9000 @ 1000 iter
2026-01-01 10:00:02,000 INFO: Saving models and training states.
\t # psnr: 99.0000\tof something else
"""


def test_curves_are_those_of_the_logs_and_later_ones_count(tmp_path: Path) -> None:
    (tmp_path / "train_a_1.log").write_text(LOG)
    again = LOG.replace("28.1250", "29.0000") + LOG.replace("1,000", "2,000").replace("28.1250", "30.5")
    (tmp_path / "train_a_2.log").write_text(again)
    assert read_curve(tmp_path) == {1000: {"psnr": 29.0, "ssim": 0.9}, 2000: {"psnr": 30.5, "ssim": 0.9}}
    assert read_curve(tmp_path / "nowhere") == {}


def figures(psnr: float) -> dict[str, float]:
    return {"psnr": psnr, "ssim": 0.9}


def test_the_table_compares_at_the_last_iteration_that_all_variants_have() -> None:
    curves: dict[str, dict[int, Any]] = {
        "base": {0: {10: figures(28.0), 20: figures(29.0)}, 1: {10: figures(28.5), 20: figures(31.0)}},
        "other": {0: {10: figures(20.0), 20: figures(32.0), 30: figures(33.0)}, 1: {10: figures(25.0)}},
    }
    text, record = table(curves, {"other__1": "seed 1: collapsed"})
    lines = text.splitlines()
    assert "iteration 20" in lines[0]
    assert lines[4] == "| base | 2 of 2 | 30.00 ± 1.41 | 0.9000 ± 0.0000 | +0.00 |  |"
    assert lines[5] == "| other | 1 of 2 | 32.00 | 0.9000 | +2.00 | seed 1: collapsed |"
    assert record["rows"][1]["figures"]["psnr"]["values"] == [32.0]
    json.dumps(record)
    assert "iteration 0" in table({"base": {0: {}}}, {})[0]


@pytest.mark.parametrize("path", ["data/Rain100L/test", "data/Test/rain", "test", ["data/train", "data/test"]])
def test_test_data_are_refused(path: Any) -> None:
    with pytest.raises(OptionError, match=r"one: datasets.val.dataroot: settings are not chosen on test data"):
        refuse_test_data({"val": {"name": "test", "dataroot": path}}, "one")


def test_validation_data_are_not() -> None:
    refuse_test_data(
        {"val": {"name": "test", "dataroot": "latest/Rain100L/val"}, "train": {"dataroot_rainy": None}}, "x"
    )


def test_every_variant_gets_the_first_seed_first(tmp_path: Path) -> None:
    grid = Grid(Path("b.yml"), ("a=1",), {"one": (), "two": ("a=2",)}, (3, 4), 100)
    runs = runs_of(grid, tmp_path, validations=4)
    assert [run.name for run in runs] == ["one__3", "two__3", "one__4", "two__4"]
    assert runs[1].overrides[-4:] == ("a=1", "a=2", "manual_seed=3", "name=two__3")
    assert {"train.total_iter=100", "val.val_freq=25", "logger.print_freq=25"} <= set(runs[0].overrides)


def test_the_projects_grid_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAINOERME_DATA", "data")
    grid = read_grid(SCRIPT.with_suffix(".yml"), seeds=[0])
    ablation.check(grid, runs_of(grid, tmp_path, 4))
    assert len(grid.variants) > 15


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base": "x"}, "expected the keys base and variants"),
        ({"base": "x", "variants": {"a": []}, "sedes": [1]}, "expected the keys"),
        ({"base": "x", "variants": {"a": "b=1"}}, "a: expected a list of KEY=VALUE"),
        ({"base": "x", "variants": {"a/b": []}}, "'a/b' cannot be the name of a folder"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    file = tmp_path / "grid.yml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(OptionError, match=message):
        read_grid(file)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_runs_are_trained_killed_ones_are_told_and_go_on(tmp_path: Path) -> None:
    options = tiny_options(tiny_data(tmp_path))
    grid = tmp_path / "grid.yml"
    guard = ["train.collapse_guard.interval=1", "train.collapse_guard.patience=1", "train.collapse_guard.hard_loss=100"]
    variants = {"base": [], "bad": [*guard, "train.distillation.warmup=2"]}
    grid.write_text(yaml.safe_dump({"base": options.name, "variants": variants, "seeds": [0], "iterations": 4}))
    common = (grid, "--root", tmp_path / "out", "--device", "cpu", "--validations", 2, "logger.keep_checkpoints=9")
    misspelt = run(*common, "train.distillation.rian.flip=true")
    assert misspelt.returncode == 2
    assert "did you mean 'rain'" in misspelt.stderr
    done = run(*common, "--processes", 2)
    assert done.returncode == 0, done.stderr
    assert "iteration 2;" in done.stdout  # where the other one had its last
    assert "| base | 1 of 1 |" in done.stdout
    assert "seed 0: collapsed |" in done.stdout
    record = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert set(record["curves"]["base"]["0"]) == {"2", "4"}
    # As if it had been killed half-way: it goes on from there and is not begun anew.
    folder = tmp_path / "out" / "experiments" / "base__0"
    for file in [*folder.glob("models/*4*"), *folder.glob("models/*latest*"), *folder.glob("training_states/4*")]:
        file.unlink()
    for log in folder.glob("train_*.log"):
        lines = log.read_text().splitlines(keepends=True)
        cut = next(number for number, line in enumerate(lines) if "iter:       4" in line)
        log.write_text("".join(lines[:cut]))
    again = run(*common, "--only", "base")
    assert "base__0: done" in again.stderr
    repeated = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert repeated["curves"]["base"] == record["curves"]["base"]
    assert "done" not in run(*common, "--only", "base").stderr
    assert len(list(folder.glob("train_*.log"))) == 2
