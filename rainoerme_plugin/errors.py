"""Errors that are for the user: the commands print one line and exit with status 2, without a traceback."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable

LONGEST = 1500
"""In characters, of a message."""


class RainOerMeError(Exception):
    """What was expected, what came, which file or key, and what to do: one line."""


class OptionError(RainOerMeError):
    """An option file, or a key in it, is not what the run needs."""


class DataError(RainOerMeError):
    """A folder, an image, an LMDB or a label cannot be used."""


class WeightsError(RainOerMeError):
    """A checkpoint cannot be read, or belongs to another network."""


class CollapseError(RainOerMeError):
    """Training has collapsed to copying its input.

    Attributes:
        sound: The last iteration before it looked like that.
    """

    def __init__(self, message: str, sound: int) -> None:
        super().__init__(message)
        self.sound = sound


class NonFiniteError(RainOerMeError):
    """Losses or gradients were NaN or infinite too often."""


class ElsewhereError(RainOerMeError):
    """Another process of the run has ended; its own error is told there."""


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """``; did you mean 'x'?`` for the nearest of ``choices``, or nothing where none is as near as ``cutoff``."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else ""


def counted(count: int, thing: str, several: str | None = None) -> str:
    """``1 image``, ``2 images``, ``1,000 images``; ``several`` where an s at the end of ``thing`` is not its plural."""
    return f"{count:,} {thing if count == 1 else several or thing + 's'}"


def ordinal(count: int) -> str:
    """``second``, ``tenth``, ``21st``, ``112th``: for a place in a row, or one in so many."""
    words = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
    if 1 <= count <= len(words):
        return words[count - 1]
    ending = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count:,}{ending}"


def brief(value: object) -> str:
    """``repr(value)`` for a message, with the most of what is long left out."""
    return _brief.repr(value)


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 120


def described(error: BaseException) -> str:
    """The message of an error of any package, with its kind where the message alone says little."""
    text, kind = one_line(error), type(error).__name__
    return text if kind in text or " " in text else f"{kind}: {text}"


def _text(error: BaseException | str) -> str:
    """What an error says; of the system's the file and the reason, without numbers and what is None."""
    if isinstance(error, OSError) and error.strerror:
        files = [os.fsdecode(file) for file in (error.filename, error.filename2) if isinstance(file, str | bytes)]
        return f"{' -> '.join(files)}: {error.strerror}" if files else error.strerror
    return str(error)


def one_line(error: BaseException | str) -> str:
    """The message of ``error`` on one line, not too long, and with nothing in it that a terminal would obey.

    An error raised in a data loader's worker comes back with the worker's traceback in its message; its own text is
    then the last line.
    """
    lines = [line.strip() for line in _text(error).splitlines() if line.strip()] or [type(error).__name__]
    if len(lines) > 1 and "worker process" in lines[0]:
        lines = [lines[-1].partition(": ")[2] or lines[-1]]
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(lines))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
