"""Progress of long work on a terminal and elsewhere, with a clock of our own."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
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


# --- before the first item is done ---


class Woken(io.StringIO):
    """Tells when something is written."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal, self.written = terminal, threading.Event()

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        length = super().write(text)
        if "labels" in text:
            self.written.set()
        return length


@pytest.mark.parametrize("terminal", [True, False])
def test_it_shows_while_the_first_item_takes_long(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    stream = Woken(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_LOOK", 0.001)
    monkeypatch.setattr(progress, "_BETWEEN_LINES", 0.001)

    def items() -> Iterator[int]:
        clock.now += 20
        assert stream.written.wait(30)  # nothing has been yielded
        yield 1

    assert list(progress.track(items(), total=1, title="labels")) == [1]
    assert "0/1 [00:20<?" in stream.getvalue() if terminal else "labels: 0/1, 20 s so far" in stream.getvalue()


def test_the_first_line_comes_after_fifteen_seconds_at_the_latest(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = progress._Lines(1, "labels")
    assert shown.look() == 15
    clock.now += 14
    assert shown.look() == 1
    assert capsys.readouterr().err == ""
    clock.now += 1
    assert shown.look() == 15
    assert capsys.readouterr().err == "labels: 0/1, 15 s so far\n"


def test_how_much_of_an_item_is_done_shows(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def items() -> Iterator[int]:
        for share in (0.25, 0.5):
            clock.now += 15
            progress.reached(share)
        yield 1
        clock.now += 20
        progress.reached(2)  # a second one is as good as done
        yield 2
        yield 3

    assert list(progress.track(items(), total=3, title="labels")) == [1, 2, 3]
    # 0.25 of 3 in 15 s: 2.75 more at 60 s; 0.5 in 30 s: 2.5 at 60 s; 2 in 50 s: 1 at 25 s.
    assert capsys.readouterr().err.splitlines() == [
        "labels: 0.25/3, 165 s left", "labels: 0.50/3, 150 s left", "labels: 2/3, 25 s left"
    ]  # fmt: skip
    progress.reached(0.5)  # of nothing


# --- the end, and nobody there ---


def test_no_bar_is_left_open_before_the_last_word(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    tracked = progress.track(work(clock, [2.0] * 4), total=4, title="labels")
    next(tracked), next(tracked)
    progress.end_all()
    progress.say("interrupted")
    assert terminal.getvalue().splitlines()[-1] == "interrupted"
    assert "labels:  25%" in terminal.getvalue().splitlines()[-2].split("\r")[-1]
    list(tracked)  # draws nothing any more
    assert terminal.getvalue().splitlines()[-1] == "interrupted"


def test_a_bar_is_closed_by_what_ends_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt), progress.bar(4, "tiny"):
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\n")


class Gone(io.StringIO):
    """A terminal that has been closed at the other end."""

    def isatty(self) -> bool:
        raise OSError(5, "Input/output error")

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed(), Gone()], ids=["none", "closed", "gone"])
def test_nothing_happens_where_nobody_can_read(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not progress.is_terminal()
    assert list(progress.track(work(clock, [20.0] * 4), total=4, title="labels")) == list(range(4))
    with progress.bar(4, "tiny") as shown:
        shown.update()
    progress.say("a line")
    assert capsys.readouterr().out == ""  # where print would put it


@pytest.mark.parametrize("columns", [0, 60])
def test_a_terminal_that_does_not_say_how_wide_it_is_has_a_bar(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", columns, columns, 0, 0))
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.bar(4, "labels") as shown:
            shown.update(4)
    drawn = b""
    with suppress(OSError):  # which is how a terminal ends
        while True:
            drawn += os.read(ours, 4096)
    os.close(ours)
    last = drawn.decode().rstrip().split("\r")[-1]
    assert last.startswith("labels: 100%")
    assert abs(len(last) - (columns or 80)) <= 1
