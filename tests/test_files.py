"""Whole files, and claims on folders."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rainoerme_plugin.errors import RainOerMeError, one_line
from rainoerme_plugin.files import (
    claim,
    ignores_case,
    named_after,
    put_in_place,
    remove_leftovers,
    temporary_beside,
    write_whole,
    writing_whole,
)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o002], indirect=True)
def test_the_umask_decides_on_the_mode_and_an_old_file_has_its_own(tmp_path: Path, umask: int) -> None:
    path, old, moved = tmp_path / "new" / "some.bin", tmp_path / "old.bin", tmp_path / "moved.bin"
    for each in (old, moved):
        each.write_bytes(b"old and longer")
        each.chmod(0o604)
    for each in (path, old):
        write_whole(each, b"new")
        assert each.read_bytes() == b"new"
    assert mode(path) == 0o666 & ~umask
    assert mode(path.parent) == 0o777 & ~umask
    assert mode(old) == 0o604
    put_in_place(path, moved)
    assert (moved.read_bytes(), mode(moved), path.exists()) == (b"new", 0o604, False)
    with claim(tmp_path / "run"):
        assert mode(tmp_path / ".run.lock") == 0o666 & ~umask


def test_nobody_else_can_read_what_replaces_a_private_file_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "private").touch(mode=0o600)
    with writing_whole(tmp_path / "private") as file:
        assert [mode(path) for path in tmp_path.iterdir()] == [0o600, 0o600]
        file.write(b"new")


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    for name, target in (("link", "mine"), ("nowhere", "nothing")):
        (tmp_path / name).symlink_to(target)
        write_whole(tmp_path / name, b"new")
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "." + "y" * 250])
def test_a_name_may_be_as_long_as_the_system_takes(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, b"new", durable=True)
    with claim(tmp_path / name), pytest.raises(RainOerMeError, match="in use by process"), claim(tmp_path / name):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_an_ending_makes_too_long_is_cut_and_still_its_own() -> None:
    assert named_after("a.png", ".rain.png") == "a.png.rain.png"
    assert named_after("x" * 246, ".rain.png") == "x" * 246 + ".rain.png"  # 255 bytes
    long = [start * 240 + end for start in ("x", "ä") for end in ("a.png", "b.png")]
    names = [named_after(name, ".compare.jpg") for name in long]
    assert len(set(names)) == 4
    assert all(len(name.encode()) <= 255 and name.endswith(".compare.jpg") for name in names)
    assert names == [named_after(name, ".compare.jpg") for name in long]


def test_an_error_names_the_file_and_nothing_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for path, reason in ((tmp_path / "folder", "Is a directory"), (tmp_path / "link" / "x", "File exists")):
        with pytest.raises(OSError) as caught:
            write_whole(path, b"new")
        assert str(caught.value).endswith(f"{reason}: '{path}'")
        assert one_line(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize("call", ["open", "replace", "chmod", "fdopen"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "some.bin"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
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
    foreign = (".notes.bak.20240101", ".IMG_1.jpg.original", ".net_g_3.pth.ab12_xyz", ".rainoerme-notes")
    keep = [tmp_path / name for name in ("3.state", ".hidden", ".tiny.lock", "net_g_3.pth", *foreign)]
    ours = temporary_beside(tmp_path / "net_g_3.pth")
    for path in (*keep, ours):
        path.write_bytes(b"")
    folder, link = temporary_beside(ours), temporary_beside(ours)
    folder.mkdir()
    link.symlink_to("3.state")
    remove_leftovers(tmp_path, older=60)
    assert ours.exists()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*keep, folder, link])
    remove_leftovers(tmp_path / "nowhere")


def test_a_killed_write_leaves_what_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)
    with pytest.raises(KeyboardInterrupt), writing_whole(tmp_path / "some.bin"):
        raise KeyboardInterrupt
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"4711", b'{"pid": 4711}'])
def test_a_lock_file_of_others_is_neither_changed_nor_removed(tmp_path: Path, content: bytes) -> None:
    lock = tmp_path / ".film.mp4.lock"
    lock.write_bytes(content)
    film = tmp_path / "film.mp4"
    with claim(film), pytest.raises(RainOerMeError, match="in use by another process"), claim(film):
        pass
    assert lock.read_bytes() == content


def test_whether_a_folder_tells_upper_from_lower_case_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def exists(path: Path) -> bool:
        seen.append(path.name)
        return (path.parent / path.name.lower()).is_file()

    assert not ignores_case(tmp_path / "not" / "yet")
    monkeypatch.setattr(Path, "exists", exists)
    assert ignores_case(tmp_path)
    assert not list(tmp_path.iterdir())
    assert seen[0].startswith(".RAINOERME-")


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
