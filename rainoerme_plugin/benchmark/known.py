"""What is known of public deraining data sets: how many pairs they hold, and which of them share scenes.

That 546 of RainTrainH's images show test scenes says PReNet's README; that Rain100L's ground truths are of 91 scenes,
and that all of 20 images of Rain200H show scenes of RainTrainL, was counted with `scenes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownSet:
    """A public test set."""

    name: str
    pairs: int
    note: str = ""


TEST_SETS = (
    KnownSet("Rain100L", 100, "100 pairs of 91 distinct scenes, BSDS500 train and val"),
    KnownSet("Rain100H", 100, "100 pairs of 91 distinct scenes, BSDS500 train and val"),
    KnownSet("Rain200L", 200),
    KnownSet("Rain200H", 200),
    KnownSet("Rain1400", 1400, "14 rainy versions of each of 100 scenes"),
    KnownSet("Rain12", 12),
    KnownSet("Test1200", 1200),
    KnownSet("Test2800", 2800, "14 rainy versions of each of 200 scenes"),
    KnownSet("SPA-Data", 1000),
)

_RAIN100 = ("Rain100L", "Rain100H")
_RAIN200 = ("Rain200L", "Rain200H")
_PARTS = {"train", "training", "val", "valid", "validation"}

SEEN: tuple[tuple[str, tuple[str, ...], str], ...] = (
    # A training set, in the words of a method's trained_on; the test sets whose scenes it holds; why.
    (
        r"rain200[lh]?\b|rain(light|heavy)\b",
        _RAIN100,
        "its training images are of BSDS500 train and val, as the test scenes",
    ),
    (r"raintrainh\b(?!,? without)|rain1800\b", _RAIN100, "546 of its 1,800 images show scenes of the test set"),
    (r"raintrainl\b", _RAIN200, "its scenes are those of the test set, BSDS500 test"),
    (r"rain13k\b", _RAIN100, "it holds RainTrainH, 546 of whose 1,800 images show scenes of the test set"),
)


def known_set(*hints: str) -> KnownSet | None:
    """The test set that one of ``hints`` (its name, its folders) names, the most telling first.

    None if a hint before that says that it is the training or the validation part.
    """
    for hint in hints:
        words = re.sub(r"[^a-z0-9]+", " ", hint.lower()).split()
        if _PARTS.intersection(words):
            return None
        # rain100l_test and Rain100L/test are Rain100L; spa and spa_data are SPA-Data.
        found = [known for known in TEST_SETS if _plain(known.name) in words or _plain(known.name) == "".join(words)]
        if not found and "spa" in words:
            found = [known for known in TEST_SETS if known.name == "SPA-Data"]
        if found:
            return found[-1]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def seen_by_training(trained_on: str, test_set: str) -> str | None:
    """Why a network trained on this has seen scenes of the test set, as far as that is known."""
    for pattern, tests, reason in SEEN:
        if test_set in tests and re.search(pattern, trained_on.lower()):
            return reason
    return None
