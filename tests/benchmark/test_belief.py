"""What a later run believes of an earlier one, and what a reader may believe of the tables."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarking import counted, row_of, run, untimed
from changing import changed_code
from tiny import tiny_data, write_images, write_network

from rainoerme_plugin.archs.runner import Runner
from rainoerme_plugin.benchmark import measures, scoring, testsets
from rainoerme_plugin.benchmark import run as run_module
from rainoerme_plugin.benchmark.records import Records
from rainoerme_plugin.benchmark.waiting import Waiting
from rainoerme_plugin.errors import OptionError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pairs and a network."""
    write_network(tiny_data(tmp_path) / "net.pth")
    return tmp_path


# ----- code


@pytest.mark.parametrize("kept", [True, False])
def test_a_figure_of_other_code_is_not_believed(root: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(root, save_images=kept)
    calls = counted(monkeypatch)
    original = measures.scores
    ten_more = lambda *given: {name: value + 10 for name, value in original(*given).items()}  # noqa: E731
    monkeypatch.setattr(measures, "scores", ten_more)
    with changed_code(monkeypatch, "metrics.protocols"):
        second = run(root, save_images=kept)
    for name in ("input", "opening", "net"):
        before, after = (np.array(row_of(results, name)["values"]["psnr_rgb"]) for results in (first, second))
        assert after == pytest.approx(before + 10)
    assert row_of(second, "net")["outputs"] == row_of(first, "net")["outputs"]
    # A network's images that were kept are not made again for it.
    assert len(calls) == (0 if kept else 2)
    assert second["code"] != first["code"]
    assert [method["code"] for method in second["methods"]] == [method["code"] for method in first["methods"]]


def test_images_of_other_code_are_made_again_and_measured_if_they_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(root)
    calls = counted(monkeypatch)
    with monkeypatch.context() as patched, changed_code(monkeypatch, "archs.rainoerme"):
        patched.setattr(measures.Measures, "__call__", lambda *_: pytest.fail("measured again"))
        second = run(root)
    assert len(calls) == 2
    assert second["rows"] == first["rows"]
    changed = [a["code"] != b["code"] for a, b in zip(first["methods"], second["methods"], strict=True)]
    assert changed == [False, False, True]
    call = Runner.__call__
    monkeypatch.setattr(Runner, "__call__", lambda *given: 255 - call(*given))
    with changed_code(monkeypatch, "archs.tiles"):
        third = run(root)
    assert row_of(third, "net")["values"] != row_of(first, "net")["values"]


def test_costs_of_other_code_are_not_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(method: Any, *_: Any) -> list[Any]:
        measured.append(method.name)
        return []

    measure.__module__ = "rainoerme_plugin.benchmark.cost"
    monkeypatch.setattr(run_module, "measure_costs", measure)
    cost = {"sizes": [[24, 24]], "warmup": 1, "repeats": 3}
    run(root, cost=cost)
    run(root, cost=cost)
    assert measured == ["opening", "net"]
    changes = {"benchmark.report": [], "archs.rainoerme": ["net"], "benchmark.cost": ["opening", "net"]}
    for module, again in changes.items():
        measured.clear()
        with changed_code(monkeypatch, module):
            run(root, cost=cost)
        assert measured == again


def test_costs_on_another_gpu_are_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(run_module, "measure_costs", lambda method, *_: measured.append(method.name) or [])
    for name in ("one", "one", "another"):
        monkeypatch.setattr(run_module, "device_name", lambda device, name=name: name)
        run(root, cost={"sizes": [[24, 24]], "warmup": 1, "repeats": 3})
    assert measured == ["opening", "net"] * 2


def test_scenes_found_by_other_code_are_not_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(root)
    hashed: list[int] = []
    original = testsets.scene_hash

    def count(image: Any) -> Any:
        hashed.append(1)
        return original(image)

    count.__module__ = original.__module__
    monkeypatch.setattr(testsets, "scene_hash", count)
    for module, number in (("benchmark.report", 0), ("benchmark.scenes", 2)):
        with changed_code(monkeypatch, module):
            run(root)
        assert len(hashed) == number


# ----- files that change


def test_a_flipped_digit_in_the_records_is_computed_again_and_told_once(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = run(root)
    file = root / "results" / "tiny" / "records" / "0.jsonl"
    text = file.read_text()
    digit = re.search(r'"psnr_rgb": (\d)', text)
    assert digit is not None
    file.write_text(f"{text[: digit.start(1)]}{9 - int(digit[1])}{text[digit.end(1) :]}")
    capfd.readouterr()
    assert untimed(run(root)) == untimed(first)
    assert capfd.readouterr().err.count("0.jsonl: a line is damaged") == 1
    run(root)
    assert "damaged" not in capfd.readouterr().err


@pytest.mark.parametrize("folder", ["rain", "norain"])
def test_an_image_that_changes_meanwhile_is_a_failure_and_leaves_nothing(
    root: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(root, name="first")
    file, survey = root / "val" / folder / "2.png", testsets.TestSet.survey
    old = file.read_bytes()

    def replace(self: Any, *given: Any) -> None:
        survey(self, *given)
        shutil.copy(root / "val" / folder / "1.png", file)

    with monkeypatch.context() as patched:
        patched.setattr(testsets.TestSet, "survey", replace)
        changed = run(root)
    for name in ("input", "opening", "net"):
        problem = "2.png: the image or its ground truth has changed meanwhile; run again"
        assert row_of(changed, name)["failures"] == {"2.png": problem}
    file.write_bytes(old)
    assert run(root)["rows"] == first["rows"]


def test_a_result_image_that_changes_meanwhile_is_a_failure_and_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(root / "ready", 2, seed=9)
    methods = {"ready": {"type": "images", "folder": str(root / "ready")}}
    first = run(root, name="first", methods=methods)
    file, derain = root / "ready" / "2.png", scoring.Scoring._derain
    old = file.read_bytes()

    def replace(self: Any, *given: Any) -> Any:
        shutil.copy(root / "ready" / "1.png", file)
        return derain(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(scoring.Scoring, "_derain", replace)
        changed = run(root, methods=methods)
    assert row_of(changed, "ready")["failures"] == {"2.png": f"{file} has changed meanwhile; run again"}
    file.write_bytes(old)
    assert run(root, methods=methods)["rows"] == first["rows"]


def test_training_images_are_known_again_by_the_bytes_that_were_hashed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, file = Records(root / "r"), root / "clean" / "1.png"
    old, encoded = file.read_bytes(), testsets.Single.encoded
    expected = testsets.training_hashes(root / "clean", Records(root / "other"))[1]

    def replaced(self: Any) -> Any:
        found = list(encoded(self))
        shutil.copy(root / "clean" / "2.png", file)
        return iter(found)

    with monkeypatch.context() as patched:
        patched.setattr(testsets.Single, "encoded", replaced)
        testsets.training_hashes(root / "clean", records)
    file.write_bytes(old)
    assert np.array_equal(testsets.training_hashes(root / "clean", records)[1], expected)


# ----- results of others


def other_pairs(root: Path, count: int = 2) -> dict[str, Any]:
    """Pairs of the same names as those of `tiny_data`, and other contents."""
    write_images(root / "other" / "rain", count, seed=7, prefix="rain")
    write_images(root / "other" / "norain", count, seed=7)
    return {"dataroot": str(root / "other")}


def test_one_folder_of_results_is_not_scored_on_two_data_sets(root: Path) -> None:
    folder = root / "val" / "norain"
    changes: dict[str, Any] = {
        "methods": {"theirs": {"type": "images", "folder": str(folder)}},
        "datasets": {"pairs": {"dataroot": str(root / "val")}, "other": other_pairs(root)},
    }
    message = r"1\.png would be scored as the derained version of two images, one of the data set pairs, one of other; "
    with pytest.raises(OptionError, match=message + r"put .* methods\.theirs\.folder"):
        run(root, **changes)
    changes["methods"]["theirs"]["folder"] = {name: str(folder) for name in ("pairs", "other")}
    with pytest.raises(OptionError, match=message):
        run(root, **changes)
    # As the message says.
    changes["methods"]["theirs"]["folder"] = {"pairs": str(folder), "other": str(root / "other" / "norain")}
    assert [row["values"]["psnr_rgb"] for row in run(root, **changes)["rows"]] == [["inf", "inf"]] * 2
    changes["methods"]["theirs"] = {"type": "images", "folder": str(folder), "datasets": ["pairs"]}
    assert len(run(root, **changes)["rows"]) == 1
    for name, source in (("pairs", "val"), ("other", "other")):
        shutil.copytree(root / source / "norain", root / "theirs" / name)
    changes["methods"]["theirs"] = {"type": "images", "folder": str(root / "theirs")}
    assert [row["values"]["psnr_rgb"] for row in run(root, **changes)["rows"]] == [["inf", "inf"]] * 2


def test_one_folder_of_results_serves_other_names_and_one_data_set_twice(root: Path) -> None:
    other = other_pairs(root, 3)
    for folder in ("rain", "norain"):
        for number in (1, 2):
            (root / "other" / folder / f"{number}.png").unlink()
    shutil.copytree(root / "val" / "norain", root / "flat")
    shutil.copy(root / "other" / "norain" / "3.png", root / "flat")
    found = run(
        root,
        methods={"theirs": {"type": "images", "folder": str(root / "flat")}},
        datasets={
            "pairs": {"dataroot": str(root / "val")},
            "half": {"dataroot": str(root / "val"), "every": 2},
            "photographs": {"type": "SingleRainDataset", "dataroot": str(root / "val" / "rain")},
            "other": other,
        },
    )
    assert [(row["images"], row["failed"]) for row in found["rows"]] == [(2, 0), (1, 0), (2, 0), (1, 0)]


# ----- the report


def test_the_report_derains_nothing_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(root / "val" / "rain", 9, seed=3, prefix="rain")
    write_images(root / "val" / "norain", 9, seed=3)
    write_network(root / "second.pth", gain=1.5)
    calls = counted(monkeypatch)
    changes: dict[str, Any] = {
        "report": {"images": 2, "extremes": 1},
        "methods__second": {"type": "file", "file": str(root / "second.pth")},
    }
    run(root, **changes)
    assert len(calls) == 2 * 9
    folder = root / "results" / "tiny"
    shown = {path.name for path in (folder / "images" / "net" / "pairs").iterdir()}
    assert {"1.png", "9.png"} < shown
    assert shown == {path.name for path in (folder / "images" / "second" / "pairs").iterdir()}
    # What it does not show is gone, and another report shows the same without a network.
    assert len(shown) < 9
    assert not (folder / ".waiting").exists()
    before = (folder / "report.html").read_text()
    run(root, **changes)
    after = (folder / "report.html").read_text()
    assert len(calls) == 2 * 9
    pictures = re.compile(r"data:image/jpeg[^\"]+")
    assert pictures.findall(before) == pictures.findall(after) != []


def test_without_room_the_report_derains_what_it_shows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "ROOM", 0)
    calls = counted(monkeypatch)
    run(root, report={"images": 0, "extremes": 1})
    assert len(calls) == 2 + 2
    assert len(list((root / "results" / "tiny" / "images" / "net" / "pairs").iterdir())) == 2


def test_images_that_wait_take_no_more_room_than_there_is(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path / "w", 0, room=100)
    for number in range(9):
        waiting.add(Path(f"m/d/{number}.png"), bytes(30))
    assert len(list((tmp_path / "w").rglob("*.png"))) == 3
    again = Waiting(tmp_path / "w", 0, room=100)  # after a stop
    again.add(Path("m/d/9.png"), bytes(30))
    assert len(list((tmp_path / "w").rglob("*.png"))) == 3
    again.clear()
    assert not (tmp_path / "w").exists()
    (tmp_path / "w").write_text("in the way, as a full disk would be")
    Waiting(tmp_path / "w", 0).add(Path("1.png"), b"x")


# ----- the tables


def test_few_scenes_have_no_intervals(root: Path) -> None:
    results = run(root, report={"images": 1, "extremes": 0})
    for row in results["rows"]:
        for figure in row["figures"].values():
            assert figure["low"] is figure["high"] is None
            assert figure["difference"] is None or figure["difference"]["low"] is None
    for name in ("results.md", "report.html"):
        assert "no intervals, which need 20 scenes (here 2)" in (root / "results" / "tiny" / name).read_text()


@pytest.mark.parametrize("part", [{"every": 2}, {"limit": 1}, {"known_as": "Rain12"}, {}])
def test_published_figures_say_of_how_many_images_they_are(root: Path, part: dict[str, Any]) -> None:
    method = {"type": "input", "published": {"pairs": {"protocol": "rgb", "psnr": 30.0, "ssim": 0.9}}}
    results = run(root, methods__input=method, datasets={"pairs": {"dataroot": str(root / "val"), **part}})
    count = 12 if "known_as" in part else 2
    assert row_of(results, "input")["published"]["images"] == results["datasets"][0]["whole"] == count
    table = (root / "results" / "tiny" / "results.md").read_text()
    assert (f"30.00 / 0.9 rgb, on all {count} |" in table) is bool(part)
    assert ("30.00 / 0.9 rgb |" in table) is not bool(part)


def test_networks_that_have_seen_the_test_scenes_are_warned_of(
    tmp_path: Path, rainoerme_data: Path, rainoerme_weights: Path
) -> None:
    shutil.copy(rainoerme_weights / "RESCAN_RainHeavy.pth", tmp_path / "latest")
    results = run(
        tmp_path,
        methods={"RESCAN": {"type": "file", "file": str(tmp_path / "latest")}},
        datasets={"rain100l": {"dataroot": str(rainoerme_data / "Rain100L" / "test"), "limit": 1}},
        protocols=["rgb"],
        measures=[],
    )
    assert results["methods"][0]["trained_on"] == "RainHeavy*, which holds scenes of Rain100; by BRN's authors"
    (overlap,) = [warning for warning in results["warnings"] if warning["kind"] == "overlap"]
    assert overlap["text"].startswith("RESCAN was trained on RainHeavy*")
