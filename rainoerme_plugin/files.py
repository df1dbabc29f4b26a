"""Files that are whole or not there, and folders that one process at a time writes to."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from .errors import RainOerMeError

try:
    import fcntl
except ImportError:  # Windows: two writers at once are not noticed
    fcntl = None  # type: ignore[assignment]


def write_whole(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file so that its name never stands for a part of it: to a temporary file beside it, then renamed.

    Args:
        path: The file; its folder is made if need be.
        data: All that it is to hold.
        durable: Wait until it is on the disk, so that a power cut leaves the old file or the new one, too.

    Raises:
        OSError: It cannot be written; the old file is as it was. The error names the file.
    """
    with writing_whole(path, durable=durable) as file:
        file.write(data)


@contextmanager
def writing_whole(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """As `write_whole`, for what is written piece by piece: the file's name is given to it at the end of the block.

    If the block raises, nothing is left of what it wrote.

    Raises:
        OSError: As of `write_whole`. An error of the block that names another file goes on naming that.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if durable:
            sync(path.parent)
    except OSError as error:
        # The system names the temporary file, or none.
        if temporary is None or error.filename in (None, temporary):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def user_path(path: str | Path) -> Path:
    """A path that a user gave, ``~`` replaced by the home folder; ``~NAME`` of nobody stays, and is not found later."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def remove_leftovers(folder: Path, older: float = 0.0) -> None:
    """Remove the temporary files of `write_whole` that a killed process left in a folder.

    Args:
        folder: Where to look, not below.
        older: Only files that are so many seconds old; others may be being written.
    """
    for path in folder.glob(".*.*.????????"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= older:
                path.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_held: set[int] = set()


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


# A lock lives as long as any process has the file open, and data loaders' workers may outlive the one that has claimed.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Let no other process that asks for it write to ``folder`` in the meantime.

    The claim is a lock on a file beside the folder, ``.NAME.lock``, which says who holds it. A process that dies, by
    whatever means, gives it free.

    Raises:
        RainOerMeError: Another process holds it; the message says which, where and since when.
    """
    if fcntl is None:
        yield
        return
    is_new = not folder.parent.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    handle = _locked(path)
    if handle is None:
        raise RainOerMeError(
            f"{folder} is in use by {_holder(path)}; wait until it is done, stop it, or take another name"
        )
    _held.add(handle)
    try:
        who = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(" ", "seconds"),
            "command": " ".join(sys.argv),
        }
        with suppress(OSError):  # the lock holds without it, on a full disk, too
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps(who).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(handle)
        os.close(handle)
        if is_new:
            with suppress(OSError):  # there is more in it by now, as a rule
                folder.parent.rmdir()


def _locked(path: Path) -> int | None:
    """The file open and locked; None if another process has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        # The one who held it may have removed the file between the two calls: then the name is another file's.
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_bytes())
        return f"process {who['process']} on {who['host']} since {who['since']} ({who['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return f"another process, which holds {path}"
