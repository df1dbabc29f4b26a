"""Files that are whole or not there, and folders that one process at a time writes to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import stat
import sys
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

    If the block raises, nothing is left of what it wrote. The file's mode is what the user's umask gives, or that of
    the file that it replaces. A link is replaced by the file; what it leads to stays as it was.

    Raises:
        OSError: As of `write_whole`. An error of the block that names another file goes on naming that.
    """
    temporary, is_made = temporary_beside(path), False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Mode 666 is what the system takes the umask's bits from; nobody can read the umask without setting it.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        is_made = True
        try:
            with os.fdopen(handle, "wb") as file:
                _take_mode(temporary, path)  # before there is anything in it
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync(path.parent)
    except OSError as error:
        # The system names the temporary file, or none.
        if error.strerror and (not is_made or error.filename in (None, os.fspath(temporary))):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, and the mode of the file that it replaces.

    Raises:
        OSError: It cannot be done, or a folder is there.
    """
    _take_mode(temporary, path)
    os.replace(temporary, path)


def _take_mode(temporary: Path, path: Path) -> None:
    with suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode) and stat.S_IMODE(mode) != stat.S_IMODE(os.lstat(temporary).st_mode):
            os.chmod(temporary, stat.S_IMODE(mode))


# --- names of our own ---

_TEMPORARY = ".rainoerme-"
_IS_TEMPORARY = re.compile(re.escape(_TEMPORARY) + r"[0-9a-f]{32}")
LONGEST_NAME = 255
"""Bytes of a file's name on the usual file systems."""
_LONGEST_HIDDEN = 120
"""Bytes of a name of our own: some file systems take less than the usual ones."""


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of ``path`` that `remove_leftovers` knows as ours, whatever ``path`` is called."""
    return path.with_name(f"{_TEMPORARY}{secrets.token_hex(16)}")


def is_temporary(path: Path) -> bool:
    """Whether it is a file that was being written by `writing_whole`, by its name."""
    return _IS_TEMPORARY.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def named_after(name: str, ending: str, longest: int = LONGEST_NAME) -> str:
    """``name`` with an ending; what would be too long for a file's name is cut, and told from others by a digest.

    Args:
        name: Of a file.
        ending: What comes after it.
        longest: Bytes that the whole may have.
    """
    if len(os.fsencode(name + ending)) <= longest:
        return name + ending
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()
    room = longest - len(os.fsencode(ending)) - len(digest) - 1
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return f"{name}~{digest}{ending}"


def hidden_beside(path: Path, ending: str) -> Path:
    """The hidden file or folder that goes with ``path``: ``.NAME.ENDING`` beside it."""
    return path.with_name(named_after(f".{path.name}", f".{ending}", _LONGEST_HIDDEN))


def remove_leftovers(folder: Path, older: float = 0.0) -> None:
    """Remove the temporary files of `write_whole` that a killed process left in a folder, and nothing else.

    Args:
        folder: Where to look, not below.
        older: Only files that are so many seconds old; others may be being written.
    """
    with suppress(OSError):  # nothing depends on it
        for path in [path for path in folder.iterdir() if is_temporary(path)]:
            if time.time() - path.lstat().st_mtime >= older:
                path.unlink(missing_ok=True)


# --- what a file is ---


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


def inode(path: Path) -> tuple[int, int] | None:
    """Which file or folder a path leads to; None: to none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def are_one(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder that is there."""
    return (which := inode(path)) is not None and which == inode(other)


def ignores_case(folder: Path) -> bool:
    """Whether upper and lower case are one in a folder, or where it is to be; False where that cannot be tried."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    probe = temporary_beside(folder / "probe")
    try:
        probe.touch(exist_ok=False)
    except OSError:
        return False
    try:
        return probe.with_name(probe.name.upper()).exists()
    finally:
        probe.unlink(missing_ok=True)


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
    whatever means, gives it free. A file of that name that is not ours is locked, but neither changed nor removed.

    Raises:
        RainOerMeError: Another process holds it; the message says which, where and since when.
    """
    if fcntl is None:
        yield
        return
    is_new = not folder.parent.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = hidden_beside(folder, "lock")
    locked = _locked(path)
    if locked is None:
        raise RainOerMeError(
            f"{folder} is in use by {_holder(path)}; wait until it is done, stop it, or take another name"
        )
    handle, is_made = locked
    is_ours = is_made or _who(path) is not None
    _held.add(handle)
    try:
        who = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(" ", "seconds"),
            "command": " ".join(sys.argv),
        }
        if is_ours:
            with suppress(OSError):  # the lock holds without it, on a full disk, too
                os.truncate(handle, 0)
                os.pwrite(handle, json.dumps(who).encode(), 0)
        yield
    finally:
        if is_ours:
            path.unlink(missing_ok=True)
        _held.discard(handle)
        os.close(handle)
        if is_new:
            with suppress(OSError):  # there is more in it by now, as a rule
                folder.parent.rmdir()


def _locked(path: Path) -> tuple[int, bool] | None:
    """The file open and locked, and whether it was made for that; None if another process has it."""
    while True:
        is_made = True
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            is_made = False
            try:
                handle = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                if path.is_symlink():  # that leads nowhere
                    raise
                continue  # removed in the moment between
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
            return handle, is_made
        os.close(handle)


def _who(path: Path) -> dict[str, object] | None:
    """What a lock file of ours says of its holder; None: it is not one."""
    try:
        who = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return who if isinstance(who, dict) and {"process", "host", "since", "command"} <= who.keys() else None


def _holder(path: Path) -> str:
    who = _who(path)
    if who is None:
        return f"another process, which holds {path}"
    return f"process {who['process']} on {who['host']} since {who['since']} ({who['command']})"
