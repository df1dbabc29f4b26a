"""What is known of public images: how many pairs a data set holds, which of them share scenes, how photographs look.

That 546 of RainTrainH's images show test scenes says PReNet's README; that Rain100L's ground truths are of 91 scenes,
and that all of 20 images of Rain200H show scenes of RainTrainL, was counted with `scenes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .scenes import BITS, Hashes, stack


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

PHOTOGRAPHS: Mapping[str, str] = MappingProxyType(
    {
        "astronaut": "c2d692764c9f550f3228bd90dfb1c09bcc15b60a7b25b5e29cf34a51b50a67ac",
        "brick": "a2728dd18b753dc56efafde50619f9889ef5235f259100ae7472496c846249f4",
        "camera": "bf78f183c102c06743fc4e9c8cd8bc233327787761d3339897888f8f4b172e5c",
        "coffee": "bb2483cc209e37f24cf10fc336bc37cf32c29b273241330e60cf9936333c773c",
        "coins": "e453d552b52ca9732b5c544d52923aac7becc603d05333d4d6a452ab8fdbcc25",
        "grass": "92bbf2c8e1c08bdcabd80b0a77720dbe5132f7c06789db1588daa8e0a7acdb31",
        "gravel": "c61d75441cb5aaef347624762495a6349e2ee58d058be5ecf3b741878b9cb40c",
        "hubble_deep_field": "8486cc4e4f659ec1ba124d1d331c3eb0387374e56ba6a3da95a77963332313dc",
        "retina": "c010cd7a1feb97827afcc01f2d010ff5781f70952c7e0fc770ecec0e25e08d6a",
        "rocket": "c0d937671396ec201bdfe521127e67a19c7e0381fc7e0381ec7a1387e4f81b0f",
    }
)
"""scikit-image's photographs that the default network was trained on, with their scene hashes in hexadecimal digits."""


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


def photographs_in(trained_on: str) -> tuple[list[str], Hashes]:
    """The photographs of scikit-image that a text on training names, and their scene hashes (N, BITS)."""
    words = set(re.findall(r"\w+", trained_on)) if "scikit-image" in trained_on else ()
    names = [name for name in PHOTOGRAPHS if name in words]
    bits = (np.unpackbits(np.frombuffer(bytes.fromhex(PHOTOGRAPHS[name]), np.uint8), count=BITS) for name in names)
    return names, stack(each.astype(np.bool_) for each in bits)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def seen_by_training(trained_on: str, test_set: str) -> str | None:
    """Why a network trained on this has seen scenes of the test set, as far as that is known."""
    for pattern, tests, reason in SEEN:
        if test_set in tests and re.search(pattern, trained_on.lower()):
            return reason
    return None
