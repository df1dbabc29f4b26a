"""What names tell of a test set, and what a training set tells of the scenes that a network has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainoerme_plugin.archs.catalogue import CATALOGUE
from rainoerme_plugin.benchmark.known import TEST_SETS, known_set, photographs_in, seen_by_training


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (["Rain100L"], "Rain100L"),
        (["rain100l"], "Rain100L"),
        (["rain100h_test"], "Rain100H"),
        (["test-Rain100L.2"], "Rain100L"),
        (["Rain 100 L"], "Rain100L"),
        (["Rain_200_H"], "Rain200H"),
        (["rain200l"], "Rain200L"),
        (["Rain1400"], "Rain1400"),
        (["Rain12"], "Rain12"),
        (["test1200"], "Test1200"),
        (["Test2800"], "Test2800"),
        (["SPA"], "SPA-Data"),
        (["spa_data"], "SPA-Data"),
        (["SPA-Data"], "SPA-Data"),
        (["spadata"], "SPA-Data"),
        (["my images", "test", "Rain100L", "data"], "Rain100L"),
        (["heavy", "test", "Rain200H", "Rain100L"], "Rain200H"),
        (["mine"], None),
        (["Rain100"], None),
        (["Rain12600"], None),
        (["rain100large"], None),
        (["space"], None),
        (["", "/"], None),
        ([], None),
    ],
)
def test_a_test_set_is_known_by_its_name_or_a_folders(hints: list[str], expected: str | None) -> None:
    found = known_set(*hints)
    assert (found and found.name) == expected


@pytest.mark.parametrize(
    "hints",
    [
        ["rain100l_val"],
        ["Rain100L-train"],
        ["mine", "train", "Rain100L"],
        ["mine", "val", "Rain100L"],
        ["rain", "Training", "SPA"],
    ],
)
def test_the_training_part_of_a_set_is_not_its_test_set(hints: list[str]) -> None:
    assert known_set(*hints) is None


def test_a_test_set_below_a_folder_of_training_runs_is_known() -> None:
    assert known_set("mine", "test", "Rain100L", "train") is not None


@pytest.mark.parametrize(
    ("part", "expected", "count"),
    [
        ("Rain100L/test", "Rain100L", 100),
        ("Rain100L/val", None, 20),
        ("Rain200H/test", "Rain200H", 20),
        ("SPA", "SPA-Data", 2),
    ],
)
def test_the_folders_of_the_real_sets_are_known(
    rainoerme_data: Path, part: str, expected: str | None, count: int
) -> None:
    folder = rainoerme_data / part
    found = known_set("mine", *reversed(folder.relative_to(rainoerme_data).parts))
    assert (found and found.name) == expected
    pairs = len(list((folder / "rain").iterdir()))
    assert pairs == count
    if found is not None:
        assert pairs <= found.pairs


def test_the_test_sets_hold_as_many_pairs_as_their_papers_say() -> None:
    assert {known.name: known.pairs for known in TEST_SETS} == {
        "Rain100L": 100,
        "Rain100H": 100,
        "Rain200L": 200,
        "Rain200H": 200,
        "Rain1400": 1400,
        "Rain12": 12,
        "Test1200": 1200,
        "Test2800": 2800,
        "SPA-Data": 1000,
    }


# ----- training

# By what docs/benchmarks.md says of leaks: the words with which the catalogue begins, and the test sets it has seen.
RAIN100, RAIN200 = {"Rain100L", "Rain100H"}, {"Rain200L", "Rain200H"}
SEEN = {
    "Rain200L, 1,800 rainy images without their pairs": RAIN100,
    "RainHeavy*, which holds scenes of Rain100": RAIN100,
    "RainHeavy*, which holds scenes of Rain100; by BRN's authors": RAIN100,
    "Rain13K, which holds Rain100's training sets": RAIN100,
    "RainTrainH": RAIN100,
    "RainTrainL": RAIN200,
    "RainTrainL, 200 pairs": RAIN200,
    "RainTrainH without the test scenes": set(),
    "RainTrainH without the test scenes, 1,254 pairs": set(),
    "Rain12600, 12,600 pairs": set(),
    "Rain1400": set(),
    "Rain1400, 12,600 rainy images without their pairs": set(),
    "DID-data, 12,000 rainy images without their pairs": set(),
    "SPA-Data, real pairs": set(),
    "ImageNet with rain drawn in; tested on Rain100L": set(),
}


def test_every_published_file_for_rain_has_seen_what_it_has_seen() -> None:
    texts = {published.trained_on for card in CATALOGUE for published in card.published}
    for text in texts:
        seen = {known.name for known in TEST_SETS if seen_by_training(text, known.name)}
        assert seen == SEEN.get(text, set()), text
        # What is not listed above is trained on no rain at all.
        assert text in SEEN or "none for rain" in text or len(photographs_in(text)[0]) == 10, text
    assert set(SEEN) <= texts


@pytest.mark.parametrize(
    ("trained_on", "test_set", "seen"),
    [
        ("RainTrainH (1,800 pairs)", "Rain100L", True),
        ("raintrainh", "Rain100H", True),
        ("RainTrainH, without the test scenes", "Rain100L", False),
        ("RainTrainH without test scenes, and Rain200H", "Rain100L", True),
        ("Rain1800", "Rain100H", True),
        ("Rain200H", "Rain100L", True),
        ("Rain200", "Rain100L", True),
        ("RainLight", "Rain100H", True),
        ("RainHeavy*", "Rain200H", False),
        ("Rain200H", "Rain200H", False),
        ("Rain2000", "Rain100L", False),
        ("RainTrainL", "Rain100L", False),
        ("RainTrainL", "Rain200H", True),
        ("SPA-Data", "SPA-Data", False),
        ("Rain13K", "Test1200", False),
        ("", "Rain100L", False),
    ],
)
def test_a_training_set_in_a_users_words_tells_what_was_seen(trained_on: str, test_set: str, seen: bool) -> None:
    assert (seen_by_training(trained_on, test_set) is not None) is seen


def test_the_reason_says_how_many_scenes_are_shared_where_that_is_known() -> None:
    assert "546 of its 1,800 images" in str(seen_by_training("RainTrainH", "Rain100L"))
    assert "546 of whose 1,800 images" in str(seen_by_training("Rain13K", "Rain100H"))
    assert "BSDS500 train and val" in str(seen_by_training("Rain200L", "Rain100L"))
    assert "BSDS500 test" in str(seen_by_training("RainTrainL", "Rain200H"))
