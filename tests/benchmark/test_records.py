"""What is written is read again: by the next run, by other processes, after a process was killed while it wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypedDict

from rainoerme_plugin.benchmark.records import Records, key_of, line_of
from rainoerme_plugin.errors import RainOerMeError

AnyRecord = dict[str, Any]


def test_a_record_is_there_for_this_run_and_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    record = {"figures": {"psnr": 31.25, "best": math.inf}, "note": "Regen über\nKöln\u2028", "error": None}
    records = Records(folder)
    assert records.get("a", AnyRecord) is None
    records.add("a", record)
    records.add("b", {})
    for read in (records, Records(folder)):
        assert read.get("a", AnyRecord) == record
        assert read.get("b", AnyRecord) == {}
        assert read.get("c", AnyRecord) is None


def test_a_line_holds_one_record_in_json(tmp_path: Path) -> None:
    records = Records(tmp_path, process=3)
    records.add("a", {"x": 1})
    records.add("b", {"text": "two\nlines"})
    text = (tmp_path / "3.jsonl").read_text(encoding="ascii")
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    times = [line.pop("at") for line in lines]
    assert all(len(line.pop("sum")) == 16 for line in lines)
    assert lines == [{"key": "a", "x": 1}, {"key": "b", "text": "two\nlines"}]
    assert times[0] <= times[1]
    assert text.endswith("\n")


def test_a_file_cut_at_any_byte_loses_only_the_last_record_and_goes_on(tmp_path: Path) -> None:
    written = Records(tmp_path / "whole")
    sizes = []
    for number in range(3):
        written.add(f"key{number}", {"number": number, "word": "naß"})
        sizes.append((tmp_path / "whole" / "0.jsonl").stat().st_size)
    data = (tmp_path / "whole" / "0.jsonl").read_bytes()
    for length in range(len(data) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "0.jsonl").write_bytes(data[:length])
        # A line is whole even without its line break.
        whole = [number for number, size in enumerate(sizes) if length >= size - 1]
        records = Records(folder)
        assert [number for number in range(3) if records.get(f"key{number}", AnyRecord)] == whole
        records.add("after", {"number": 9})
        again = Records(folder)
        assert again.get("after", AnyRecord) == {"number": 9}
        assert [number for number in range(3) if again.get(f"key{number}", AnyRecord)] == whole


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 64,
        b"\xff\xfe{}",
        '{"key": "x", "word": "nä'.encode()[:-1],
        b"[1, 2]",
        b'"key"',
        b"7",
        b"null",
        b"{}",
        b'{"key": ["x"]}',
        b'{"key": {}}',
        b"",
        b"\r",
    ],
)
def test_a_line_that_is_no_record_is_passed_over(tmp_path: Path, line: bytes) -> None:
    good = [line_of(key, {"x": x}, 0.0) for key, x in (("a", 1), ("b", 2))]
    (tmp_path / "0.jsonl").write_bytes(good[0] + line + b"\n" + good[1])
    records = Records(tmp_path)
    assert records.get("a", AnyRecord) == {"x": 1}
    assert records.get("b", AnyRecord) == {"x": 2}
    assert records.get("x", AnyRecord) is None


def test_each_process_writes_its_own_file_and_reads_all(tmp_path: Path) -> None:
    processes = [Records(tmp_path, number) for number in range(12)]
    for number, records in enumerate(processes):
        records.add(f"of {number}", {"by": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{number}.jsonl" for number in range(12))
    assert processes[0].get("of 11", AnyRecord) is None
    processes[0].load()
    for records in (processes[0], Records(tmp_path)):
        assert [records.get(f"of {number}", AnyRecord) for number in range(12)] == [
            {"by": number} for number in range(12)
        ]


def test_the_last_record_of_a_key_counts(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for number in range(3):
        records.add("a", {"number": number})
        assert records.get("a", AnyRecord) == {"number": number}
    assert Records(tmp_path).get("a", AnyRecord) == {"number": 2}


def test_of_several_processes_the_record_written_last_counts(tmp_path: Path) -> None:
    # The second run of two processes failed where a later one of a single process did not.
    for number in (9, 2, 10):
        Records(tmp_path, number).add("a", {"by": number})
        assert Records(tmp_path).get("a", AnyRecord) == {"by": number}


def test_a_record_is_kept_as_it_was_when_it_was_added(tmp_path: Path) -> None:
    record = {"x": 1}
    records = Records(tmp_path)
    records.add("a", record)
    record["x"] = 2
    assert records.get("a", AnyRecord) == {"x": 1}


@pytest.mark.parametrize("where", ["results", "results/below"])
def test_where_nothing_can_be_written_one_line_names_the_file(tmp_path: Path, where: str) -> None:
    (tmp_path / "results").write_text("a file in the folder's place")
    records = Records(tmp_path / where)
    with pytest.raises(
        RainOerMeError, match=r"results.*0\.jsonl: cannot be written \(.*\); what is in it is kept"
    ) as found:
        records.add("a", {"x": 1})
    assert "\n" not in str(found.value)
    assert records.get("a", AnyRecord) is None


def test_where_nothing_can_be_read_one_line_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").mkdir()
    with pytest.raises(RainOerMeError, match=r"0\.jsonl: cannot be read \(") as found:
        Records(tmp_path)
    assert "\n" not in str(found.value)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text('{"key": "a"}\n')
    assert Records(tmp_path).get("a", AnyRecord) is None


def test_hundreds_of_thousands_of_records_are_read_and_one_more_is_written_behind_them(tmp_path: Path) -> None:
    count = 200_000
    with (tmp_path / "0.jsonl").open("w") as file:
        file.writelines(line_of(str(number), {"x": number}, 0.0).decode() for number in range(count))
    size = (tmp_path / "0.jsonl").stat().st_size
    records = Records(tmp_path)
    assert all(records.get(str(number), AnyRecord) == {"x": number} for number in range(0, count, 997))
    records.add("one more", {})
    assert (tmp_path / "0.jsonl").stat().st_size < size + 120


class Shape(TypedDict):
    """What is asked for."""

    times: int
    figures: dict[str, float]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"times": 1},
        {"times": "1", "figures": {}},
        {"times": True, "figures": {}},
        {"times": 1, "figures": 0},
        {"times": 1, "figures": {"a": "x"}},
        {"times": 1, "figures": {"a": None}},
    ],
)
def test_a_record_of_another_shape_is_none(tmp_path: Path, record: dict[str, Any]) -> None:
    Records(tmp_path).add("a", record)
    assert Records(tmp_path).get("a", Shape) is None


def test_a_record_of_the_shape_is_itself(tmp_path: Path) -> None:
    Records(tmp_path).add("a", {"times": 1, "figures": {"a": 2, "b": math.inf}, "code": "beside it"})
    assert Records(tmp_path).get("a", Shape) == {"times": 1, "figures": {"a": 2.0, "b": math.inf}}


def test_a_changed_letter_anywhere_in_a_line_is_noticed_and_told_once(tmp_path: Path) -> None:
    good = line_of("a", {"figures": {"psnr": 31.25}}, 1.5)
    for place in range(len(good) - 1):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "0.jsonl").write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        records = Records(folder)
        assert records.get("a", AnyRecord) is None
        if place < len(good) - 2:  # else it looks cut off
            (text,) = records.damaged()
            assert "0.jsonl: a line is damaged" in text
            assert "what it held is computed again" in text
        assert Records(folder).damaged() == []


def test_lines_of_an_earlier_version_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "3.jsonl").write_bytes(b'{"key": "a", "at": 1.5, "x": 1}\n{"key": "b", "at": 1.5, "x": 1}\n')
    records = Records(tmp_path)
    assert records.get("a", AnyRecord) is None
    (text,) = records.damaged()
    assert "3.jsonl: 2 lines are damaged, or of an earlier version; what they held is computed again" in text
    assert records.damaged() == Records(tmp_path).damaged() == []


def test_a_line_that_a_killed_process_left_is_not_told(tmp_path: Path) -> None:
    line = line_of("a", {"x": 1}, 0.0)
    for length in range(len(line) - 1):
        (tmp_path / "0.jsonl").write_bytes(line[:length] + b"\n" + line)
        records = Records(tmp_path)
        assert records.damaged() == []
        assert records.get("a", AnyRecord) == {"x": 1}


# ----- keys


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (("a", 1), ("a", 1), True),
        (({"a": 1, "b": 2},), ({"b": 2, "a": 1},), True),
        (((1, 2),), ([1, 2],), True),
        (("a", "b"), ("b", "a"), False),
        (("ab",), ("a", "b"), False),
        (("a", ""), ("a",), False),
        ((1,), ("1",), False),
        ((None,), ("None",), False),
        ((0.1,), (0.10000000000000001,), True),
        ((0.1,), (0.1 + 1e-15,), False),
    ],
)
def test_a_key_stands_for_what_it_was_made_of(
    first: tuple[object, ...], second: tuple[object, ...], same: bool
) -> None:
    assert (key_of(*first) == key_of(*second)) is same


def test_a_key_is_the_same_in_every_process() -> None:
    # sha256 of '["score", {"a": 1}]', its first half.
    assert key_of("score", {"a": 1}) == "f06591bd736e52dc85e513d234191604"
