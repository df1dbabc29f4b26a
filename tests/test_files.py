"""Whole files, and claims on folders."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rainoerme_plugin.errors import RainOerMeError
from rainoerme_plugin.files import claim, remove_leftovers, write_whole


def test_writing_replaces_the_old_file_and_all_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "some.bin"
    path.write_bytes(b"old and longer")
    mask = os.umask(0o077)
    try:
        write_whole(path, b"new")
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["replace", "chmod", "fdopen"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "some.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "some.bin", b"new")
    assert not list(tmp_path.iterdir())


def test_the_name_never_stands_for_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bytes, Path]] = []
    replace = os.replace

    def look(source: str, target: Path) -> None:
        seen.append((target.exists(), Path(source).read_bytes(), Path(source).parent))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_whole(tmp_path / "some.bin", b"all of it")
    assert seen == [(False, b"all of it", tmp_path)]


def test_a_durable_write_reaches_the_disk_before_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("name"), replace(*names)))
    write_whole(tmp_path / "some.bin", b"all of it", durable=True)
    assert order == ["file", "name", "folder"]


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    keep = [tmp_path / name for name in ("3.state", ".hidden", ".tiny.lock", "net_g_3.pth")]
    for path in (*keep, tmp_path / ".net_g_3.pth.ab12_xyz"):
        path.write_bytes(b"")
    remove_leftovers(tmp_path, older=60)
    assert len(list(tmp_path.iterdir())) == 5
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(keep)


FORK = """
import os, sys, time
from pathlib import Path
from rainoerme_plugin.files import claim
with claim(Path(sys.argv[1])):
    begun, begins = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begins, b".")
        time.sleep(60)
    os.read(begun, 1)
    print(child, flush=True)
    time.sleep(60)
"""


def test_a_child_that_outlives_its_parent_does_not_hold_the_claim(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    holder = subprocess.Popen([sys.executable, "-c", FORK, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        holder.kill()
        holder.wait()
        with claim(folder):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


HOLD = """
import sys, time
from pathlib import Path
from rainoerme_plugin.files import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_claim_says_who_holds_the_first_and_death_gives_it_free(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = rf"tiny is in use by process {holder.pid} on {re.escape(socket.gethostname())} since 20"
        with pytest.raises(RainOerMeError, match=said), claim(folder):
            pass
    finally:
        holder.kill()
        holder.wait()
    with claim(folder):
        pass
    assert not list(tmp_path.iterdir())
