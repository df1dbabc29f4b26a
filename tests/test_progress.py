"""Progress of long work on a terminal and elsewhere, with a clock of our own."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from rainoerme_plugin import progress


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def work(clock: Clock, seconds: list[float]) -> Iterator[int]:
    """Numbers, each of which takes so long."""
    for number, duration in enumerate(seconds):
        clock.now += duration
        yield number


def test_a_terminal_is_told_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress.is_terminal()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.is_terminal()


def test_lines_come_every_fifteen_seconds_elsewhere(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    items = list(progress.track(work(clock, [10, 4.9, 0.1, 14, 1, 30]), total=8, title="labels"))
    assert items == list(range(6))
    # After 15 s 3 of 8 are done: 5 more at 5 s; after 30 s 5 of 8: 3 more at 6 s; after 60 s 6 of 8: 2 more at 10 s.
    expected = ["labels: 3/8, 25 s left", "labels: 5/8, 18 s left", "labels: 6/8, 20 s left"]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == expected
    assert captured.out == ""


def test_short_work_says_nothing_elsewhere(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(work(clock, [1.0] * 14), total=14, title="labels")) == list(range(14))
    assert capsys.readouterr() == ("", "")


def test_a_bar_with_the_title_and_the_count_is_drawn_on_a_terminal(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.track(work(clock, [2.0] * 4), total=4, title="labels")) == list(range(4))
    last = terminal.getvalue().rstrip().split("\r")[-1]
    assert last.startswith("labels: 100%")
    assert "4/4 [00:08<00:00" in last


def test_short_work_draws_no_bar_on_a_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.track(work(clock, [0.1] * 4), total=4, title="labels")) == list(range(4))
    assert terminal.getvalue().strip() == ""


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_items_are_taken_one_at_a_time(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    for item in progress.track(items(), total=3, title="labels"):
        assert taken[-1] == item
        assert len(taken) == item + 1
    assert list(progress.track([], total=0, title="labels")) == []
