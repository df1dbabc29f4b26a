"""What is written is read again: by the next run, by other processes, after a process was killed while it wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rainoerme_plugin.benchmark.records import Records, key_of
from rainoerme_plugin.errors import RainOerMeError


def test_a_record_is_there_for_this_run_and_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    record = {"figures": {"psnr": 31.25, "best": math.inf}, "note": "Regen über\nKöln\u2028", "error": None}
    records = Records(folder)
    assert records.get("a") is None
    records.add("a", record)
    records.add("b", {})
    for read in (records, Records(folder)):
        assert read.get("a") == record
        assert read.get("b") == {}
        assert read.get("c") is None


def test_a_line_holds_one_record_in_json(tmp_path: Path) -> None:
    records = Records(tmp_path, process=3)
    records.add("a", {"x": 1})
    records.add("b", {"text": "two\nlines"})
    text = (tmp_path / "3.jsonl").read_text(encoding="ascii")
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    times = [line.pop("at") for line in lines]
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
        assert [number for number in range(3) if records.get(f"key{number}")] == whole
        records.add("after", {"number": 9})
        again = Records(folder)
        assert again.get("after") == {"number": 9}
        assert [number for number in range(3) if again.get(f"key{number}")] == whole


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
    (tmp_path / "0.jsonl").write_bytes(b'{"key": "a", "x": 1}\n' + line + b'\n{"key": "b", "x": 2}\n')
    records = Records(tmp_path)
    assert records.get("a") == {"x": 1}
    assert records.get("b") == {"x": 2}
    assert records.get("x") is None


def test_each_process_writes_its_own_file_and_reads_all(tmp_path: Path) -> None:
    processes = [Records(tmp_path, number) for number in range(12)]
    for number, records in enumerate(processes):
        records.add(f"of {number}", {"by": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{number}.jsonl" for number in range(12))
    assert processes[0].get("of 11") is None
    processes[0].load()
    for records in (processes[0], Records(tmp_path)):
        assert [records.get(f"of {number}") for number in range(12)] == [{"by": number} for number in range(12)]


def test_the_last_record_of_a_key_counts(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for number in range(3):
        records.add("a", {"number": number})
        assert records.get("a") == {"number": number}
    assert Records(tmp_path).get("a") == {"number": 2}


def test_of_several_processes_the_record_written_last_counts(tmp_path: Path) -> None:
    # The second run of two processes failed where a later one of a single process did not.
    for number in (9, 2, 10):
        Records(tmp_path, number).add("a", {"by": number})
        assert Records(tmp_path).get("a") == {"by": number}


def test_a_record_is_kept_as_it_was_when_it_was_added(tmp_path: Path) -> None:
    record = {"x": 1}
    records = Records(tmp_path)
    records.add("a", record)
    record["x"] = 2
    assert records.get("a") == {"x": 1}


@pytest.mark.parametrize("where", ["results", "results/below"])
def test_where_nothing_can_be_written_one_line_names_the_file(tmp_path: Path, where: str) -> None:
    (tmp_path / "results").write_text("a file in the folder's place")
    records = Records(tmp_path / where)
    with pytest.raises(
        RainOerMeError, match=r"results.*0\.jsonl: cannot be written \(.*\); what is in it is kept"
    ) as found:
        records.add("a", {"x": 1})
    assert "\n" not in str(found.value)
    assert records.get("a") is None


def test_where_nothing_can_be_read_one_line_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").mkdir()
    with pytest.raises(RainOerMeError, match=r"0\.jsonl: cannot be read \(") as found:
        Records(tmp_path)
    assert "\n" not in str(found.value)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text('{"key": "a"}\n')
    assert Records(tmp_path).get("a") is None


def test_hundreds_of_thousands_of_records_are_read_and_one_more_is_written_behind_them(tmp_path: Path) -> None:
    count = 200_000
    with (tmp_path / "0.jsonl").open("w") as file:
        file.writelines(f'{{"key": "{number}", "x": {number}}}\n' for number in range(count))
    size = (tmp_path / "0.jsonl").stat().st_size
    records = Records(tmp_path)
    assert all(records.get(str(number)) == {"x": number} for number in range(0, count, 997))
    records.add("one more", {})
    assert (tmp_path / "0.jsonl").stat().st_size < size + 100


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
