"""Names in one block of memory, like a list of strings; and those that are fit for results."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from rainoerme_plugin.data.names import Names, as_one, names_of, result_name, result_names, result_path
from rainoerme_plugin.errors import DataError

TEXTS = ["b.png", "", "ä/漢.png", "sub/a b.png", os.fsdecode(b"no\xffunicode.png")]


def test_names_are_the_texts_in_their_order() -> None:
    names = Names(iter(TEXTS))
    assert list(names) == TEXTS
    assert len(names) == 5
    assert [names[index] for index in range(-5, 5)] == TEXTS * 2
    assert [names[index] for index in np.arange(5)] == TEXTS
    assert names[1:4:2] == TEXTS[1:4:2]
    assert names[::-1] == TEXTS[::-1]
    assert names.index("sub/a b.png") == 3
    assert "b.png" in names
    assert "c.png" not in names
    assert list(pickle.loads(pickle.dumps(names))) == TEXTS


@pytest.mark.parametrize("index", [5, -6])
def test_there_is_nothing_beyond_the_ends(index: int) -> None:
    with pytest.raises(IndexError):
        Names(TEXTS)[index]


def test_no_texts_are_an_empty_sequence() -> None:
    assert list(Names([])) == []
    assert not Names([])


def test_they_take_their_own_bytes_and_eight_more() -> None:
    texts = [f"train/{number:06}.png" for number in range(5000)]
    assert len(pickle.dumps(Names(texts))) < 5000 * (len(texts[0]) + 8) + 1000
    assert sum(map(sys.getsizeof, texts)) > 3 * 5000 * len(texts[0])


def test_joined_names_are_those_of_all_parts() -> None:
    joined = Names.joined([Names(TEXTS[:2]), Names([]), Names(TEXTS[2:4]), Names(TEXTS[4:])])
    assert list(joined) == TEXTS
    assert joined[-1] == TEXTS[-1]
    assert joined[1:4] == TEXTS[1:4]


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/home/picture", "../a", "a/../../b", "a//b", "a/", "./a", "C:/a", "c:a",
        "\\\\server\\a", "..\\a",
        "a\\b", "a\nb", "a\0", "a\x9b2J", "x" * 256, "a/" + "ä" * 128,
    ],
)  # fmt: skip
def test_a_name_that_leads_out_of_its_folder_or_is_none_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"^a\.lmdb:1: cannot be the name of a result: .* make the LMDB again"):
        result_name(name, "a.lmdb:1")
    with pytest.raises(DataError):
        result_names(["good", name])


@pytest.mark.parametrize("name", ["a.png", "000/00000001", "...", "a..b", "a b:c", "x" * 255, "caf\udce9.png", ".a"])
def test_other_names_stay_as_they_are(name: str) -> None:
    assert result_name(name) == name


def test_no_two_results_have_one_name_even_where_case_is_ignored() -> None:
    names = ["a.png", "b.png", "b.jpg", "c.png", "C.png", "x/1.png", "y/1.png", "b.jpg~2", "d.png", "D.PNG"]
    assert result_names(names) == [
        "a", "b.png", "b.jpg", "c.png", "C.png~2", "x/1", "y/1", "b.jpg~2", "d.png", "D.PNG~2"
    ]  # fmt: skip
    # e and an accent, as macOS writes it, are one letter.
    assert len(set(map(as_one, result_names(["caf\u00e9.png", "cafe\u0301.jpg"])))) == 2


def test_a_result_lies_where_its_name_says(tmp_path: Path) -> None:
    assert result_path(tmp_path, "x/1", "_5.png") == tmp_path / "x" / "1_5.png"
    long = result_path(tmp_path, "x/" + "1" * 255, "_5.png")
    assert long.parent == tmp_path / "x"
    assert len(long.name) == 255
    assert long.name.endswith("_5.png")


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    assert names_of([Path("/a/x/1.png"), Path("/a/y/2.png")]) == ["1.png", "2.png"]
    assert names_of([Path("/a/x/1.png"), Path("/a/y/1.png")]) == ["x/1.png", "y/1.png"]
