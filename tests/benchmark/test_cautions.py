"""What is said beside the tables: overlaps with training data, protocols, counts, duplicates, failures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import write_images
from torch import nn

from rainoerme_plugin.archs.published import Published
from rainoerme_plugin.benchmark.cautions import find_cautions
from rainoerme_plugin.benchmark.known import photographs_in
from rainoerme_plugin.benchmark.methods import Method, open_method
from rainoerme_plugin.benchmark.options import METHODS, FileMethod
from rainoerme_plugin.benchmark.records import Records
from rainoerme_plugin.benchmark.results import Row, WarningInfo
from rainoerme_plugin.benchmark.scenes import NEAR, scene_hash
from rainoerme_plugin.benchmark.testsets import TestSet, open_test_set, training_hashes
from rainoerme_plugin.data.demo import make_demo
from rainoerme_plugin.data.images import decode_image
from rainoerme_plugin.inference.opening import DEFAULT
from rainoerme_plugin.options import read_section

PUBLISHED = {"d": {"protocol": "opencv_y", "psnr": 30.0}}


def method(name: str = "m", type: str = "input", trained_on: str | None = None, **options: Any) -> Method:
    values = {"type": type, **({"file": "x"} if type == "file" else {}), **options}
    read = read_section(METHODS[type], values, "methods")
    network = nn.Identity() if type == "file" else None
    training = options.get("training_images", [])
    return Method(name, read, "", trained_on=trained_on, network=network, training_images=training)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three pairs."""
    write_images(tmp_path / "rain", 3, (96, 128), prefix="rain")
    write_images(tmp_path / "norain", 3, (96, 128))
    return tmp_path


def surveyed(root: Path, name: str = "d", **options: Any) -> TestSet:
    found = open_test_set(name, {"dataroot": str(root), **options})
    found.survey(Records(root / "records"))
    return found


def cautions(
    methods: list[Method], test_sets: list[TestSet], rows: list[Row] | None = None, **others: Any
) -> dict[str, list[WarningInfo]]:
    arguments: dict[str, Any] = {"training": {}, "missing": {}, "protocols": ["matlab_y"], **others}
    found: dict[str, list[WarningInfo]] = {}
    for caution in find_cautions(methods, test_sets, rows or [], **arguments):
        found.setdefault(caution["kind"], []).append(caution)
    return found


def test_nothing_to_say(scenes: Path) -> None:
    assert cautions([method()], [surveyed(scenes)]) == {}


@pytest.mark.parametrize("how", ["as it is", "with rain", "mirrored", "smaller", "as JPEG"])
def test_training_images_that_show_test_scenes_are_found(scenes: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "train" / "deep"
    write_images(folder, 2, (96, 128), seed=9)
    image = Image.open(scenes / ("rain" if how == "with rain" else "norain") / "2.png")
    if how == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif how == "smaller":
        image = image.resize((64, 48))
    image.save(folder / ("leak.jpg" if how == "as JPEG" else "leak.png"))
    names = str(folder.parent)
    training = {names: training_hashes(names, Records(tmp_path / "r"))}
    (caution,) = cautions(
        [method(type="file", trained_on="mine", training_images=[names])], [surveyed(scenes)], training=training
    )["overlap"]
    assert (caution["methods"], caution["datasets"]) == (["m"], ["d"])
    assert "1 of its 3 images" in caution["text"]
    assert "2.png is deep/leak." in caution["text"]


def test_an_overlap_that_is_known_twice_is_said_once(scenes: Path, tmp_path: Path) -> None:
    training = {"t": training_hashes(scenes / "norain", Records(tmp_path / "r"))}
    (caution,) = cautions(
        [method(type="file", trained_on="Rain200L", training_images=["t"])],
        [surveyed(scenes, known_as="Rain100L")],
        training=training,
    )["overlap"]
    assert "3 of its 3 images" in caution["text"]


def test_training_images_of_other_scenes_are_no_overlap(scenes: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "train", 4, (96, 128), seed=9)
    training = {"t": training_hashes(tmp_path / "train", Records(tmp_path / "r"))}
    assert "overlap" not in cautions(
        [method(type="file", trained_on="x", training_images=["t"])], [surveyed(scenes)], training=training
    )


@pytest.mark.parametrize(
    ("trained_on", "known", "overlap"),
    [
        ("Rain200L, 1,800 rainy images", "Rain100L", True),
        ("RainHeavy*", "Rain100H", True),
        ("RainTrainL, 200 pairs", "Rain100L", False),
        ("Rain200L", "Rain12", False),
    ],
)
def test_public_training_sets_that_hold_test_scenes(scenes: Path, trained_on: str, known: str, overlap: bool) -> None:
    found = cautions([method(type="file", trained_on=trained_on)], [surveyed(scenes, known_as=known)])
    assert ("overlap" in found) == overlap


def test_what_is_known_of_a_file_counts_whatever_the_option_file_says(scenes: Path) -> None:
    known = method(type="file", trained_on="my own")
    known.published = Published("x", "RainHeavy*, which holds scenes of Rain100")
    (caution,) = cautions([known], [surveyed(scenes, known_as="Rain100L")])["overlap"]
    assert "was trained on RainHeavy*" in caution["text"]


def test_the_default_network_has_seen_photographs_of_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    for _ in make_demo(tmp_path):
        pass
    test_set = open_test_set("demo", {"dataroot": str(tmp_path / "test")})
    test_set.survey(Records(tmp_path / "r"))
    default = open_method("m", FileMethod(type="file", file=str(DEFAULT)), "round")
    found = cautions([default], [test_set])
    (caution,) = found["overlap"]
    assert "3 of its 6 images" in caution["text"]
    assert "rocket_1.png is rocket there" in caution["text"]
    assert "training" not in found
    # The data that it was trained on is seen whole.
    names, hashes = photographs_in(default.trained_on or "")
    assert len(names) == 10
    for name, known in zip(names, hashes, strict=True):
        folder, file = ("rainy", f"{name}_1.png") if (tmp_path / "rainy" / f"{name}_1.png").exists() else ("clean", "")
        image = tmp_path / folder / (file or f"{name}.png")
        if name == "rocket":
            image = tmp_path / "test" / "norain" / "rocket_1.png"
        assert near_one(scene_hash(decode_image(image)), known), name


def near_one(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.mean(first != second) <= NEAR)


def test_photographs_are_known_by_their_names() -> None:
    assert photographs_in("scikit-image's coffee, with rain")[0] == ["coffee"]
    assert photographs_in("coffee, with rain")[0] == []
    assert photographs_in("scikit-image's coffees")[1].shape == (0, 256)


def test_a_method_is_not_warned_of_for_data_sets_that_it_is_not_scored_on(scenes: Path) -> None:
    tests = [surveyed(scenes, "d", known_as="Rain100L"), surveyed(scenes, "e")]
    assert "overlap" not in cautions([method(type="file", trained_on="Rain200L", datasets=["e"])], tests)


def test_different_and_unknown_training_data(scenes: Path) -> None:
    methods = [
        method("a", "file", "RainTrainL"),
        method("b", "file", "SPA-Data"),
        method("c", "file"),
        method("d"),
    ]
    texts = {caution["text"]: caution["methods"] for caution in cautions(methods, [surveyed(scenes)])["training"]}
    assert texts == {
        "What c was trained on is not said (trained_on)": ["c"],
        "The methods were trained on different data, so the order of their rows ranks no method by itself": ["a", "b"],
    }
    assert "training" not in cautions([methods[0], method("e", "file", "RainTrainL")], [surveyed(scenes)])


def test_training_images_that_are_not_at_hand(scenes: Path) -> None:
    found = cautions(
        [method(type="file", trained_on="x", training_images=["gone"])],
        [surveyed(scenes)],
        missing={"gone": "no such folder: gone"},
    )
    assert [caution["text"] for caution in found["training"]] == [
        "Whether m was trained on test scenes is not checked: no such folder: gone"
    ]


def test_results_that_are_rounded_in_two_ways(scenes: Path) -> None:
    methods = [method("a", "file", "x"), method("b", "file", "x"), method("c", "file", "x")]
    methods[1].rounding = "floor"
    (caution,) = cautions(methods, [surveyed(scenes)])["protocol"]
    assert caution["methods"] == ["b"]
    for other in methods:
        other.rounding = "floor"
    # The rainy image itself is not rounded.
    assert "protocol" not in cautions([*methods, method("input")], [surveyed(scenes)])


def test_published_figures_under_other_protocols(scenes: Path) -> None:
    other = {"d": {"protocol": "matlab_y", "psnr": 31.0}}
    methods = [method("a", published=PUBLISHED), method("b", published=other)]
    first, second = cautions(methods, [surveyed(scenes)])["protocol"]
    assert first["methods"] == ["a"]
    assert "under opencv_y, which is not measured here" in first["text"]
    assert second["text"] == "The published figures on d are under several protocols: opencv_y (a) and matlab_y (b)"
    assert "protocol" not in cautions(methods[:1], [surveyed(scenes)], protocols=["opencv_y"])


@pytest.mark.parametrize(
    ("every", "text"), [(1, "d has 3 pairs; Rain12 has 12"), (2, "d has 2 pairs, every second image; Rain12 has 12")]
)
def test_a_count_that_is_not_the_known_one(scenes: Path, every: int, text: str) -> None:
    (caution,) = cautions([method()], [surveyed(scenes, known_as="Rain12", every=every)])["count"]
    assert caution["text"] == text


@pytest.mark.parametrize(("count", "right"), [(12, True), (13, False)])
def test_the_known_count_is_right(scenes: Path, count: int, right: bool) -> None:
    for folder in ("rain", "norain"):
        write_images(scenes / folder, count, (96, 128), prefix=folder.removeprefix("no"))
    assert ("count" not in cautions([method()], [surveyed(scenes, known_as="Rain12")])) == right


def test_images_without_ground_truth_have_no_known_count(scenes: Path) -> None:
    found = surveyed(scenes / "rain", type="SingleRainDataset", known_as="Rain12")
    assert "count" not in cautions([method()], [found])


def test_scenes_that_occur_more_than_once(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(scenes / "norain" / "1.png", scenes / "norain" / "3.png")
    (caution,) = cautions([method()], [surveyed(scenes, known_as="Rain100L")])["duplicates"]
    assert caution["text"].startswith("The 3 images of d show 2 scenes (100 pairs of 91 distinct scenes")
    assert "interval" not in caution["text"]  # of so few there is none
    monkeypatch.setattr("rainoerme_plugin.benchmark.cautions.FEWEST", 2)
    (caution,) = cautions([method()], [surveyed(scenes, known_as="Rain100L")])["duplicates"]
    assert caution["text"].endswith("; intervals are over scenes")


def test_failures() -> None:
    rows: Any = [
        {"method": "a", "dataset": "d", "images": 2, "failed": 1},
        {"method": "b", "dataset": "d", "images": 0, "failed": 3},
        {"method": "c", "dataset": "d", "images": 3, "failed": 0},
    ]
    texts = [caution["text"] for caution in cautions([], [], rows)["failed"]]
    assert texts == ["a failed on 1 of 3 images of d; its means are of the other 2", "b failed on 3 of 3 images of d"]
