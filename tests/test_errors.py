"""Error messages on one line, and the nearest of several names."""

from __future__ import annotations

import pytest
from torch._utils import ExceptionWrapper

from rainoerme_plugin.errors import (
    CollapseError,
    DataError,
    OptionError,
    RainOerMeError,
    WeightsError,
    counted,
    nearest,
    one_line,
    ordinal,
)


@pytest.mark.parametrize("error", [OptionError, DataError, WeightsError, CollapseError])
def test_every_error_for_the_user_is_of_one_kind(error: type[Exception]) -> None:
    assert issubclass(error, RainOerMeError)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("warmpu", "; did you mean 'warmup'?"),
        ("hard_rmap", "; did you mean 'hard_ramp'?"),
        ("warmup", "; did you mean 'warmup'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_offered_where_one_is_near(word: str, expected: str) -> None:
    assert nearest(word, ["hard_max", "hard_ramp", "warmup"]) == expected


def test_the_nearest_of_an_iterator_is_found_and_of_nothing_is_none() -> None:
    assert nearest("meen", iter(["mean", "sum"])) == "; did you mean 'mean'?"
    assert nearest("mean", []) == ""


def test_a_higher_cutoff_asks_for_a_nearer_name() -> None:
    # difflib: 2 * 3 equal letters of 8 in all, so a ratio of 0.75.
    assert nearest("abcx", ["abcd"], cutoff=0.75) == "; did you mean 'abcd'?"
    assert nearest("abcx", ["abcd"], cutoff=0.76) == ""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one line"), "one line"),
        (ValueError("  first\n\n   second  \nthird\n"), "first second third"),
        (ValueError(), "ValueError"),
        (DataError("\n \n"), "DataError"),
        (DataError("rain/1.png: expected: 3 channels"), "rain/1.png: expected: 3 channels"),
        (DataError("the worker process died: no memory"), "the worker process died: no memory"),
    ],
)
def test_a_message_is_put_on_one_line(error: BaseException, expected: str) -> None:
    assert one_line(error) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("rain/1.png: expected: 3 channels, got 4"), "rain/1.png: expected: 3 channels, got 4"),
        (RuntimeError("no colon"), "no colon"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_from_a_loaders_worker_is_its_own_text(error: Exception, expected: str) -> None:
    # What a DataLoader does with it: the worker wraps the error, the main process raises it again.
    try:
        raise error
    except Exception:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(type(error)) as caught:
        wrapped.reraise()
    assert "Traceback" in str(caught.value)
    assert one_line(caught.value) == expected


def test_a_number_of_things() -> None:
    assert [counted(count, "thread") for count in (0, 1, 2, 1000)] == [
        "0 threads",
        "1 thread",
        "2 threads",
        "1,000 threads",
    ]
    assert [counted(count, "process", "processes") for count in (1, 2)] == ["1 process", "2 processes"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "first"),
        (2, "second"),
        (3, "third"),
        (10, "tenth"),
        (11, "11th"),
        (12, "12th"),
        (13, "13th"),
        (20, "20th"),
        (21, "21st"),
        (22, "22nd"),
        (33, "33rd"),
        (44, "44th"),
        (101, "101st"),
        (111, "111th"),
        (112, "112th"),
        (1013, "1,013th"),
        (1021, "1,021st"),
    ],
)
def test_places_in_a_row(count: int, expected: str) -> None:
    assert ordinal(count) == expected
