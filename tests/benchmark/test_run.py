"""Whole benchmarks: the files they leave, what a second run does again, what stopping and sharing change (nothing)."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarking import counted, row_of, run, untimed
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from tiny import benchmark_options, tiny_data, tiny_options, write_images, write_network

from rainoerme_plugin.archs import runner as runner_module
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.benchmark.pictures import pick_images
from rainoerme_plugin.commands import main
from rainoerme_plugin.errors import OptionError, RainOerMeError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pairs and a network."""
    write_network(tiny_data(tmp_path) / "net.pth")
    return tmp_path


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_figures_are_those_of_the_images(root: Path) -> None:
    results = run(root)
    psnr = [
        peak_signal_noise_ratio(read(root / "val" / "norain" / f"{n}.png"), read(root / "val" / "rain" / f"{n}.png"))
        for n in (1, 2)
    ]
    row = row_of(results, "input")
    assert row["values"]["psnr_rgb"] == pytest.approx(psnr, abs=1e-9)
    assert row["figures"]["psnr_rgb"]["mean"] == pytest.approx(np.mean(psnr))
    assert (row["images"], row["failed"], row["failures"]) == (2, 0, {})
    assert row["figures"]["rain_removed"]["mean"] == 0
    assert row["figures"]["structure_kept"]["mean"] == 1


def test_a_network_derains_as_it_does_outside(root: Path) -> None:
    results = run(root, save_images=True)
    network = RainOerMeNet(4)
    network.load_state_dict(torch.load(root / "net.pth", weights_only=True)["params"])
    rainy = read(root / "val" / "rain" / "1.png")
    with torch.no_grad():
        derained = network(torch.from_numpy(rainy.copy()).permute(2, 0, 1)[None].float() / 255)[0].clamp(0, 1)
    expected = np.rint(derained.permute(1, 2, 0).numpy() * 255)
    saved = read(root / "results" / "tiny" / "images" / "net" / "pairs" / "1.png")
    assert not (root / "results" / "tiny" / "images" / "input").exists()
    assert np.abs(saved - expected).max() <= 1  # channels_last may round another way at a half
    assert np.mean(saved != expected) < 1e-3
    clean = read(root / "val" / "norain" / "1.png")
    expected_psnr = peak_signal_noise_ratio(clean, saved)
    assert row_of(results, "net")["values"]["psnr_rgb"][0] == pytest.approx(expected_psnr, abs=1e-9)


def test_rows_come_data_set_by_data_set_in_the_methods_order_and_csv_agrees(root: Path) -> None:
    results = run(root, datasets__photographs={"type": "SingleRainDataset", "dataroot": str(root / "rainy")})
    order = [(row["dataset"], row["method"]) for row in results["rows"]]
    names = ["input", "opening", "net"]
    assert order == [*(("pairs", name) for name in names), *(("photographs", name) for name in names)]
    with (root / "results" / "tiny" / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["dataset"], line["method"]) for line in lines] == order
    for line, row in zip(lines, results["rows"], strict=True):
        for name in ("psnr_matlab_y", "rain_removed"):
            figure = row["figures"].get(name)
            assert line[name] == ("" if figure is None else str(figure["mean"]))
    markdown = (root / "results" / "tiny" / "results.md").read_text()
    assert "## pairs: 2 pairs" in markdown
    assert "## photographs: 3 images without ground truth" in markdown


def test_images_without_ground_truth_have_the_measures_that_need_none(root: Path) -> None:
    results = run(root, datasets={"photographs": {"type": "SingleRainDataset", "dataroot": str(root / "rainy")}})
    row = row_of(results, "opening", "photographs")
    assert set(row["figures"]) == set(row["values"]) == {"rain_removed", "structure_kept"}
    assert row["figures"]["rain_removed"]["mean"] > 0.9
    assert results["datasets"][0]["paired"] is False


def test_a_second_run_derains_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(root)

    def fail(*_: object) -> None:
        raise AssertionError("derained again")

    monkeypatch.setattr(runner_module.Runner, "__call__", fail)
    assert untimed(run(root)) == untimed(first)


@pytest.mark.parametrize("change", ["weights", "image", "rounding"])
def test_what_depends_on_a_change_is_done_again(root: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(root)
    called = counted(monkeypatch)
    changes: dict[str, Any] = {}
    if change == "weights":
        write_network(root / "net.pth", gain=1.5)
    elif change == "image":
        shutil.copy(root / "val" / "rain" / "1.png", root / "val" / "rain" / "2.png")
    else:
        changes["rounding"] = "floor"
    second = run(root, **changes)
    assert len(called) == (1 if change == "image" else 2)
    assert row_of(second, "net")["values"] != row_of(first, "net")["values"]


def test_a_measure_that_is_added_later_is_taken_of_kept_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(root, save_images=True, measures=[])
    monkeypatch.setattr(runner_module.Runner, "__call__", lambda *_: pytest.fail("derained again"))
    assert row_of(run(root, save_images=True), "net")["figures"]["rain_removed"]["images"] == 2


def test_a_kept_image_that_is_not_the_measured_one_is_made_again(root: Path) -> None:
    first = run(root, save_images=True, measures=[])
    kept = root / "results" / "tiny" / "images" / "net" / "pairs" / "1.png"
    shutil.copy(root / "val" / "rain" / "1.png", kept)
    second = run(root, save_images=True)
    assert row_of(second, "net")["outputs"] == row_of(first, "net")["outputs"]
    assert not np.array_equal(read(kept), read(root / "val" / "rain" / "1.png"))


def test_a_method_that_fails_on_an_image_is_a_marked_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = runner_module.Runner.__call__
    count = iter(range(10))

    def fail_once(*arguments: Any) -> Any:
        if next(count) == 0:
            raise torch.OutOfMemoryError("not enough memory")
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(runner_module.Runner, "__call__", fail_once)
        results = run(root)
    row = row_of(results, "net")
    assert (row["images"], row["failed"]) == (1, 1)
    assert row["failures"] == {"1.png": "not enough memory"}
    assert row["values"]["psnr_rgb"][0] is None
    assert row["figures"]["psnr_rgb"]["mean"] == row["values"]["psnr_rgb"][1]
    assert row_of(results, "opening")["failed"] == 0
    assert [warning["text"] for warning in results["warnings"] if warning["kind"] == "failed"] == [
        "net failed on 1 of 2 images of pairs; its means are of the other 1"
    ]
    # What failed is tried again, and then all is as if it never had.
    assert row_of(run(root), "net")["failed"] == 0


def test_a_broken_image_fails_for_all_and_ends_nothing(root: Path) -> None:
    file = root / "val" / "rain" / "2.png"
    file.write_bytes(file.read_bytes()[:-60])
    results = run(root)
    for name in ("input", "opening", "net"):
        row = row_of(results, name)
        assert (row["images"], row["failed"]) == (1, 1)
        assert "damaged image" in row["failures"]["2.png"]
    assert results["datasets"][0]["images"][1]["height"] is None


def test_values_that_are_not_finite_are_a_failure(root: Path) -> None:
    state = torch.load(root / "net.pth", weights_only=True)
    state["params"]["inc.0.weight"].fill_(3e38)
    torch.save(state, root / "net.pth")
    row = row_of(run(root), "net")
    assert row["failed"] == 2
    assert "not finite" in row["failures"]["1.png"]
    assert row["figures"] == {}


def test_result_images_and_equal_images_have_infinite_psnr(root: Path) -> None:
    results = run(root, methods__truth={"type": "images", "folder": str(root / "val" / "norain")})
    row = row_of(results, "truth")
    assert row["values"]["psnr_rgb"] == ["inf", "inf"]
    assert row["figures"]["psnr_rgb"]["mean"] == "inf"
    assert row["figures"]["ssim_rgb"]["mean"] == 1


def test_a_missing_result_image_is_a_failure_until_it_is_there(root: Path) -> None:
    write_images(root / "ready", 1, seed=3)
    method = {"type": "images", "folder": str(root / "ready")}
    row = row_of(run(root, methods__ready=method), "ready")
    assert row["failures"] == {"2.png": f"{root / 'ready'}: no derained image for 2.png: none is called 2"}
    write_images(root / "ready", 2, seed=3)
    row = row_of(run(root, methods__ready=method), "ready")
    assert (row["images"], row["failed"]) == (2, 0)


def test_a_result_image_that_changes_is_scored_again(root: Path) -> None:
    write_images(root / "ready", 2, seed=3)
    method = {"type": "images", "folder": str(root / "ready")}
    assert row_of(run(root, methods__ready=method), "ready")["values"]["psnr_rgb"] == ["inf", "inf"]
    shutil.copy(root / "ready" / "2.png", root / "ready" / "1.png")
    first, second = row_of(run(root, methods__ready=method), "ready")["values"]["psnr_rgb"]
    assert first < 40
    assert second == "inf"


def test_a_method_may_be_for_some_data_sets_only(root: Path) -> None:
    results = run(
        root,
        datasets__photographs={"type": "SingleRainDataset", "dataroot": str(root / "rainy")},
        methods__net={"type": "file", "file": str(root / "net.pth"), "datasets": ["photographs"]},
    )
    assert [row["dataset"] for row in results["rows"] if row["method"] == "net"] == ["photographs"]


def test_a_training_run_is_scored_by_its_options_and_knows_what_it_was_trained_on(root: Path) -> None:
    options = tiny_options(root, train__total_iter=1, datasets__train__dataroot_clean=str(root / "val" / "norain"))
    assert main(["train", "-opt", str(options), "--device", "cpu", "--root", str(root)]) == 0
    results = run(root, methods__run={"type": "run", "folder": str(root / "experiments" / "tiny")})
    method = next(method for method in results["methods"] if method["name"] == "run")
    assert method["parameters"] == sum(parameter.numel() for parameter in RainOerMeNet(4).parameters())
    assert "without pairs" in method["trained_on"]
    row = row_of(results, "run")
    assert (row["images"], row["failed"]) == (2, 0)
    # Its clean images are the test set's ground truths.
    (overlap,) = [warning for warning in results["warnings"] if warning["kind"] == "overlap"]
    assert overlap["methods"] == ["run"]
    assert "2 of its 2 images" in overlap["text"]


def test_costs_are_measured_once_in_a_process_of_their_own(root: Path) -> None:
    cost = {"sizes": [[40, 48], [24, 24]], "batch": 2, "warmup": 1, "repeats": 3}
    results = run(root, cost=cost)
    methods = {method["name"]: method for method in results["methods"]}
    assert methods["input"]["costs"] == []
    for name in ("opening", "net"):
        assert [(cost["height"], cost["width"], cost["batch"]) for cost in methods[name]["costs"]] == [
            (40, 48, 2),
            (24, 24, 2),
        ]
        for found in methods[name]["costs"]:
            timing = found["timing"]
            assert 0 < timing["low"] <= timing["median"] <= timing["high"]
            assert timing["images_per_second"] == pytest.approx(2 / timing["median"])
            assert timing["repeats"] == 3
    assert methods["opening"]["costs"][0]["flops"] is None
    # Every pixel costs the same.
    first, second = (cost["flops"] for cost in methods["net"]["costs"])
    assert first / (40 * 48) == pytest.approx(second / (24 * 24))
    assert run(root, cost=cost)["methods"] == results["methods"]


def test_killed_in_the_middle_and_started_again_is_as_if_it_never_was(root: Path) -> None:
    write_images(root / "val" / "rain", 40, seed=3, prefix="rain")
    write_images(root / "val" / "norain", 40, seed=3)
    whole = run(root, name="whole")
    options = benchmark_options(root, name="killed")
    command = [sys.executable, "-m", "rainoerme_plugin", "benchmark", "-opt", str(options), "--device", "cpu"]
    command += ["--root", str(root)]
    records = root / "results" / "killed" / "records"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        # 40 looks at images, then 120 results: killed once some of these are there.
        deadline = time.monotonic() + 120
        while sum(len(file.read_bytes().splitlines()) for file in records.glob("*.jsonl")) < 70:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
    done = sum(len(file.read_bytes().splitlines()) for file in records.glob("*.jsonl"))
    assert 70 <= done < 160
    assert not (root / "results" / "killed" / "results.json").exists()
    again = run(root, name="killed")
    for results in (whole, again):
        del results["name"], results["options"]["name"]
    assert untimed(again) == untimed(whole)


def test_an_image_over_which_the_process_dies_again_and_again_is_a_failure_at_last(root: Path) -> None:
    options = benchmark_options(root)
    program = root / "dying.py"
    program.write_text(
        "import os, signal, sys\n"
        "from rainoerme_plugin.archs import runner\n"
        "from rainoerme_plugin.commands import main\n"
        "derain = runner.derain_tiled\n"
        "def die(network, rainy, needs, **options):\n"
        "    if rainy.mean() / 255 < float(sys.argv[2]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return derain(network, rainy, needs, **options)\n"
        "runner.derain_tiled = die\n"
        "sys.exit(main(['benchmark', '-opt', sys.argv[1], '--device', 'cpu', '--root', sys.argv[3]]))\n"
    )
    means = sorted(read(root / "val" / "rain" / f"{n}.png").mean() / 255 for n in (1, 2))
    command = [sys.executable, str(program), str(options), str(np.mean(means)), str(root)]
    runs = [subprocess.run(command, capture_output=True, text=True, timeout=120) for _ in range(5)]
    assert [run.returncode for run in runs] == [-signal.SIGKILL] * 3 + [0, 0], runs[-1].stderr
    results = json.loads((root / "results" / "tiny" / "results.json").read_text())
    row = row_of(results, "net")
    assert (row["images"], row["failed"]) == (1, 1)
    assert "died 3 times" in next(iter(row["failures"].values()))


def test_being_interrupted_is_no_death(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(4):
        with monkeypatch.context() as patched:
            patched.setattr(runner_module.Runner, "__call__", interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(root)
    assert row_of(run(root), "net")["images"] == 2


def test_two_processes_share_the_images_and_make_the_same_table(root: Path) -> None:
    write_images(root / "val" / "rain", 5, seed=3, prefix="rain")
    write_images(root / "val" / "norain", 5, seed=3)
    alone = run(root, name="alone")
    options = benchmark_options(root, name="shared")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "rainoerme_plugin", "benchmark", "-opt", str(options), "--launcher", "pytorch"]
    command += ["--device", "cpu", "--root", str(root)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("data set  method") == 1
    folder = root / "results" / "shared"
    counts = [
        sum('"output"' in line for line in (folder / "records" / f"{rank}.jsonl").read_text().splitlines())
        for rank in (0, 1)
    ]
    assert counts == [9, 6]
    shared = json.loads((folder / "results.json").read_text())
    for results in (alone, shared):
        del results["name"], results["options"]["name"], results["environment"]["threads"]
    assert untimed(shared) == untimed(alone)


def test_the_report_shows_what_was_measured(root: Path) -> None:
    run(root, report={"images": 1, "extremes": 1})
    page = (root / "results" / "tiny" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * 4  # two images: rainy, two methods, clean
    assert (root / "results" / "tiny" / "images" / "net" / "pairs" / "2.png").exists()


def test_the_report_picks_images_evenly_and_the_extremes_of_each_method() -> None:
    def row(method: str, *values: float | str | None) -> Any:
        return {"method": method, "values": {"psnr": list(values)}, "figures": {"psnr": {}}}

    results: Any = {
        "measures": [{"name": "other"}, {"name": "psnr"}],
        "methods": [{"name": "input", "type": "input"}, {"name": "a", "type": "file"}, {"name": "b", "type": "file"}],
    }
    rows = [row("input", 9, 8, 7, 6, 5, 4), row("a", 3, 1, 2, "inf", 2, None), row("b", 5, 5, 0, 5, 9, 5)]

    class Options:
        images = 2
        extremes = 1

    assert pick_images(rows, 6, results, Options()) == [0, 1, 2, 3, 4, 5]  # type: ignore[arg-type]
    Options.extremes = 0
    assert pick_images(rows, 6, results, Options()) == [0, 5]  # type: ignore[arg-type]
    Options.images = 0
    Options.extremes = 1
    assert pick_images(rows[:2], 6, results, Options()) == [1, 3]  # type: ignore[arg-type]


def test_a_bad_option_ends_before_anything_is_written(root: Path) -> None:
    with pytest.raises(OptionError, match=r"benchmark\.yml: methods: .*unknown|benchmark\.yml: methods.net.fiel"):
        run(root, methods__net={"type": "file", "fiel": "x"})
    with pytest.raises(RainOerMeError, match=r"methods\.net: no such checkpoint: nowhere\.pth"):
        run(root, methods__net={"type": "file", "file": "nowhere.pth"})
    with pytest.raises(RainOerMeError, match="no such folder"):
        run(root, datasets={"pairs": {"dataroot": "nowhere"}})
    assert not (root / "results").exists()


def test_a_full_disk_is_one_line_and_loses_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("rainoerme_plugin.files.os.replace", full)
        with pytest.raises(RainOerMeError, match=r"No space left on device.*; run again, nothing measured is lost"):
            run(root)
        with pytest.raises(RainOerMeError, match=r"No space left on device.*; run again, nothing measured is lost"):
            run(root, save_images=True)
    assert row_of(run(root), "net")["images"] == 2


def test_the_published_files_reach_their_figures(tmp_path: Path, rainoerme_data: Path, rainoerme_weights: Path) -> None:
    """Two of Rain100L's pairs and SPA-Data's two pairs through a list file, against `basicsr test`'s way of scoring."""
    lines = [f"/rain/{file.name} /norain/{file.name}" for file in sorted((rainoerme_data / "SPA" / "rain").iterdir())]
    for name in ("rain", "norain"):
        shutil.copytree(rainoerme_data / "SPA" / name, tmp_path / "spa" / name)
    (tmp_path / "spa" / "real_test.txt").write_text("\n".join(lines))
    results = run(
        tmp_path,
        methods={
            "input": {"type": "input"},
            "VRGNet": {"type": "file", "file": str(rainoerme_weights / "VRGNet-PReNet_SPA.pth")},
        },
        datasets={"spa": {"dataroot": str(tmp_path / "spa" / "real_test.txt")}},
        protocols=["basicsr_y"],
    )
    row = row_of(results, "VRGNet", "spa")
    # docs/benchmarks.md, by `basicsr test`: 39.86 and 35.72 dB.
    assert sorted(row["values"]["psnr_basicsr_y"]) == pytest.approx([35.72, 39.86], abs=0.005)
    assert results["datasets"][0]["known_as"] == "SPA-Data"
    assert any(warning["kind"] == "count" for warning in results["warnings"])


def test_a_name_that_is_no_unicode_is_no_obstacle(root: Path) -> None:
    (root / "rainy" / "1.png").rename(root / "rainy" / os.fsdecode(b"\xff.png"))
    results = run(
        root,
        datasets={"photographs": {"type": "SingleRainDataset", "dataroot": str(root / "rainy")}},
        report={"images": 3, "extremes": 0},
        save_images=True,
    )
    assert row_of(results, "net", "photographs")["images"] == 3
