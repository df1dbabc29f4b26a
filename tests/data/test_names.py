"""Names in one block of memory: a sequence like a list of strings."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest

from rainoerme_plugin.data.names import Names

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
