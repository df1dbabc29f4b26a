"""What is done stays done: one line of JSON for each result, written as soon as it is there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import RainOerMeError
from ..files import write_whole

T = TypeVar("T")
_START = b'{"sum": "'


def key_of(*parts: object) -> str:
    """A key for what these parts, plain values all, determine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Records:
    """Results by key in the files of a folder, one a process.

    A line is believed if its checksum is right. One that a killed process left unfinished is ignored; others are
    `damaged`.

    Args:
        folder: Where the files are; made if need be.
        process: The number of this process, which writes to a file of its own.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self._file = folder / f"{process}.jsonl"
        self._found: dict[str, dict[str, Any]] = {}
        self._damaged: dict[Path, list[str]] = {}
        self.load()

    def load(self) -> None:
        """Read what all processes have written so far; of one key what was written last counts, in whichever file.

        Raises:
            RainOerMeError: A file cannot be read.
        """
        written: dict[str, float] = {}
        self._damaged = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError as error:
                raise RainOerMeError(f"{path}: cannot be read ({error})") from None
            for line in filter(bytes.strip, lines):
                record = _read_line(line)
                if record is not None:
                    key, at = record.pop("key"), record.pop("at")
                    if at >= written.get(key, at):
                        self._found[key], written[key] = record, at
                elif not _is_unfinished(line):
                    self._damaged.setdefault(path, []).append(hashlib.sha256(line).hexdigest())

    def damaged(self) -> list[str]:
        """What is to be told of lines that are not as they were written; each is told once.

        Raises:
            RainOerMeError: That it was told cannot be written.
        """
        texts = []
        for path, lines in self._damaged.items():
            key = key_of("told", lines)
            if key not in self._found:
                self.add(key, {})
                count, held = (f"{len(lines)} lines are", "they") if len(lines) > 1 else ("a line is", "it")
                texts.append(f"{path}: {count} damaged, or of an earlier version; what {held} held is computed again")
        return texts

    def get(self, key: str, shape: type[T]) -> T | None:
        """The result under ``key``, the last one written, if it is of this shape; keys that it has beside are left out.

        Args:
            key: As of `key_of`.
            shape: Whatever pydantic can check, as a rule a ``TypedDict``.
        """
        record = self._found.get(key)
        try:
            adapter: TypeAdapter[T] = _adapter(shape)  # type: ignore[arg-type]
            return None if record is None else adapter.validate_python(record, strict=True)
        except ValidationError:
            return None

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a result.

        Raises:
            RainOerMeError: It cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab+") as file:
                if file.tell() and not _ends_a_line(file):
                    file.write(b"\n")
                file.write(line_of(key, record, time.time()))
        except OSError as error:
            raise RainOerMeError(f"{self._file}: cannot be written ({error}); what is in it is kept") from None
        self._found[key] = dict(record)


def line_of(key: str, record: Mapping[str, Any], at: float) -> bytes:
    """A record as the line of a file, with the time at which it was written."""
    rest = json.dumps({"key": key, "at": at, **record})[1:].encode()
    return _head(rest) + rest + b"\n"


def _read_line(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None if it is not as it was written."""
    rest = line[len(_head(b"")) :]
    if not line.startswith(_head(rest)):
        return None
    try:
        record = json.loads(b"{" + rest)
        return record if isinstance(record["key"], str) and isinstance(record["at"], float) else None
    except (ValueError, KeyError, TypeError, RecursionError):  # made by hand
        return None


def _head(rest: bytes) -> bytes:
    """What a line begins with: a checksum of its rest."""
    return _START + hashlib.blake2b(rest, digest_size=8).hexdigest().encode() + b'", '


def _is_unfinished(line: bytes) -> bool:
    """Whether a process may have been killed while it wrote this."""
    return line[: len(_START)] == _START[: len(line)] and not line.endswith(b"}")


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def write_result(path: Path, data: bytes) -> None:
    """Write a file whole.

    Raises:
        RainOerMeError: It cannot be written.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise RainOerMeError(f"{path}: cannot be written ({error}); run again, nothing measured is lost") from None


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")
