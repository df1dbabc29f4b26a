"""What is done stays done: one line of JSON for each result, written as soon as it is there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RainOerMeError
from ..files import write_whole


def key_of(*parts: object) -> str:
    """A key for what these parts, plain values all, determine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Records:
    """Results by key in the files of a folder, one a process; a line that a killed process left unfinished is ignored.

    Args:
        folder: Where the files are; made if need be.
        process: The number of this process, which writes to a file of its own.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self._file = folder / f"{process}.jsonl"
        self._found: dict[str, dict[str, Any]] = {}
        self.load()

    def load(self) -> None:
        """Read what all processes have written so far; of one key what was written last counts, in whichever file.

        Raises:
            RainOerMeError: A file cannot be read.
        """
        written: dict[str, float] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError as error:
                raise RainOerMeError(f"{path}: cannot be read ({error})") from None
            for line in lines:
                try:
                    record = json.loads(line)
                    key, at = record.pop("key"), float(record.pop("at", 0.0))
                    if at >= written.get(key, at):
                        self._found[key], written[key] = record, at
                except (ValueError, KeyError, AttributeError, TypeError):
                    continue

    def get(self, key: str) -> dict[str, Any] | None:
        """The result under ``key``, the last one written."""
        return self._found.get(key)

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a result.

        Raises:
            RainOerMeError: It cannot be written.
        """
        line = json.dumps({"key": key, "at": time.time(), **record}) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab+") as file:
                if file.tell() and not _ends_a_line(file):
                    file.write(b"\n")
                file.write(line.encode())
        except OSError as error:
            raise RainOerMeError(f"{self._file}: cannot be written ({error}); what is in it is kept") from None
        self._found[key] = dict(record)


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
