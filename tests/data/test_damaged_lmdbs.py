"""LMDBs that are damaged: refused in one line, and never the process that reads them killed by the C library."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from damage import encoded, images, in_time, picture

from rainoerme_plugin import commands
from rainoerme_plugin.data import lmdb_store
from rainoerme_plugin.data.bmp import encode_bmp
from rainoerme_plugin.data.lmdb_pages import find_damage
from rainoerme_plugin.data.lmdb_store import LmdbReader, write_lmdb
from rainoerme_plugin.data.sources import LmdbSource, open_source
from rainoerme_plugin.data.unpaired import UnpairedRain
from rainoerme_plugin.errors import DataError

COUNT = 120
PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in leaves and, larger ones, in pages of their own; long names, so that there are branches."""
    root = tmp_path_factory.mktemp("whole") / "some.lmdb"
    files = []
    for number in range(COUNT):
        image = picture(40, 50, number) if number % 6 == 0 else picture(4, 4 + number % 5, number)
        files.append((f"{number:03}_{'name' * (number % 40)}.png", encode_bmp(np.asarray(image))))
    list(write_lmdb(root, files, 4 << 20))
    return root


def copy(whole: Path, to: Path, data: bytes | None = None, listed: bytes | None = None) -> Path:
    lmdb_store._close_all()
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(whole, to)
    if data is not None:
        (to / "data.mdb").write_bytes(data)
    if listed is not None:
        (to / "meta_info.txt").write_bytes(listed)
    return to


def damaged(whole: bytes, seed: int) -> bytes:
    random, data = np.random.default_rng(seed), bytearray(whole)
    # Half of the damage goes to the tree; there are fifteen times as many other pages.
    kinds = {number: struct.unpack_from("<H", data, number * PAGE + 10)[0] for number in range(len(data) // PAGE)}
    tree = [number for number, kind in kinds.items() if kind in (1, 2)] + [0, 1]
    kind = random.integers(7)
    for _ in range(random.choice([1, 1, 2, 5])):
        page = int(random.choice(tree)) if random.integers(2) else int(random.integers(len(data) // PAGE))
        start = page * PAGE
        if kind == 0:
            data[random.integers(start, start + PAGE)] ^= 1 << random.integers(8)
        elif kind == 1:
            data[start : start + PAGE] = bytes(PAGE)
        elif kind == 2:
            other = int(random.choice(tree)) * PAGE
            data[start : start + PAGE], data[other : other + PAGE] = (
                data[other : other + PAGE],
                data[start : start + PAGE],
            )
        elif kind == 3:  # the head of a page: its number, kind, bounds, the first nodes' places
            place = start + 2 * int(random.integers(40))
            data[place : place + 2] = (b"\xff\xff", b"\0\0", b"\1\0", random.bytes(2))[random.integers(4)]
        elif kind == 4:
            place = start + int(random.integers(PAGE - 64))
            data[place : place + 64] = b"\xff" * 64
        elif kind == 5:  # the heads of nodes: lengths, flags, numbers of pages
            node = start + struct.unpack_from("<H", data, start + 16 + 2 * int(random.integers(20)))[0] % (PAGE - 16)
            place = node + int(random.integers(8))
            data[place : place + 2] = random.bytes(2)
        else:
            return bytes(data[: random.integers(len(data))])
    return bytes(data)


def read_damaged(whole: Path, folder: Path, first: int, count: int) -> None:
    """Read all that can be read of damaged copies; print what came of each."""
    data = (whole / "data.mdb").read_bytes()
    for seed in range(first, first + count):
        root = copy(whole, folder / "copy.lmdb", damaged(data, seed))
        print(seed, end=" ", flush=True)
        read, told = 0, list[str]()
        try:
            with in_time():
                source = LmdbSource(root)
                for index in range(len(source)):
                    try:
                        source.read(index)
                        source.crop(index, 0, 0, 4, 4)
                        read += 1
                    except DataError as error:
                        told.append(str(error))
            print("read", read, flush=True)
        except DataError as error:
            told.append(str(error))
            print("refused", error, flush=True)
        assert all("\n" not in text for text in told), told


def test_no_damage_kills_the_process(whole: Path, tmp_path: Path) -> None:
    script = (
        f"import test_damaged_lmdbs as here; here.read_damaged(*map(here.Path, {(str(whole), str(tmp_path))}), 0, 500)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, (ended.returncode, ended.stdout[-200:], ended.stderr[-500:])
    lines = ended.stdout.splitlines()
    assert len(lines) == 500
    refused = sum(" refused " in line for line in lines)
    assert 200 < refused < 480  # damage in pixels shows when they are read, or not at all


def test_a_whole_lmdb_has_no_damage(whole: Path) -> None:
    assert find_damage(whole / "data.mdb") is None
    assert len(LmdbSource(whole)) == COUNT


def test_an_lmdb_that_was_written_in_parts_has_no_damage(tmp_path: Path) -> None:
    """Many transactions leave lists of free pages."""
    files = [(f"{number}.png", encoded(picture(30, 30, number), "PNG")) for number in range(60)]
    list(write_lmdb(tmp_path / "some.lmdb", files, 4 << 20, commit_every=1))
    assert find_damage(tmp_path / "some.lmdb" / "data.mdb") is None


def page_of(data: bytes, kind: int) -> int:
    """Where the first page of this kind begins that the tree uses: 1 branch, 2 leaf."""
    root = struct.unpack_from("<Q", data, newest(data) + 16 + 24 + 48 + 40)[0]
    return next(
        start
        for start in range(2 * PAGE, len(data), PAGE)
        if struct.unpack_from("<H", data, start + 10)[0] == kind and (kind == 2 or start == root * PAGE)
    )


def newest(data: bytes) -> int:
    return (
        PAGE if struct.unpack_from("<Q", data, PAGE + 16 + 128)[0] > struct.unpack_from("<Q", data, 16 + 128)[0] else 0
    )


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("page size", r"pages of 0 bytes in data\.mdb"),
        ("last page", r"data\.mdb ends too early"),
        ("root", r"page 9999 of \d+ in data\.mdb"),
        ("entries", r"120 entries in data\.mdb, not 7"),
        ("child", r"page \d+ of \d+ in data\.mdb"),
        ("cycle", r"page \d+ of data\.mdb is there twice"),
        ("bounds", r"page \d+ of data\.mdb"),
        ("node", r"page \d+ of data\.mdb"),
    ],
)
def test_each_number_that_would_lead_astray_is_looked_at(whole: Path, tmp_path: Path, what: str, told: str) -> None:
    data = bytearray((whole / "data.mdb").read_bytes())
    meta = newest(data) + 16
    branch, leaf = page_of(data, 1), page_of(data, 2)
    child = branch + struct.unpack_from("<H", data, branch + 16)[0]
    place, value = {
        "page size": (16 + 24, struct.pack("<I", 0)),
        "last page": (meta + 120, struct.pack("<Q", 1 << 40)),
        "root": (meta + 24 + 48 + 40, struct.pack("<Q", 9999)),
        "entries": (meta + 24 + 48 + 32, struct.pack("<Q", 7)),
        "child": (child, struct.pack("<HHH", 0xFFFF, 0xFFFF, 0)),
        "cycle": (child, struct.pack("<HHH", branch // PAGE, 0, 0)),
        "bounds": (leaf + 12, struct.pack("<HH", 0xFFF0, 0xFFF2)),
        "node": (leaf + 16, struct.pack("<H", PAGE - 2)),
    }[what]
    data[place : place + len(value)] = value
    root = copy(whole, tmp_path / "copy.lmdb", bytes(data))
    with pytest.raises(DataError, match=rf"copy\.lmdb: damaged LMDB \({told}\); make it again$"):
        LmdbReader(root)


def test_damaged_leftovers_of_writing_are_refused(whole: Path, tmp_path: Path) -> None:
    data = bytearray((whole / "data.mdb").read_bytes())
    data[page_of(data, 2) + 12 : page_of(data, 2) + 16] = b"\xff" * 4
    copy(whole, tmp_path / "new.lmdb.partial", bytes(data))
    with pytest.raises(DataError, match=r"new\.lmdb\.partial: damaged LMDB .*; left over; remove it and run again$"):
        list(write_lmdb(tmp_path / "new.lmdb", [("a.png", images()["colour.png"])], 1 << 20))
    assert not (tmp_path / "new.lmdb").exists()


# --- the list of images ---


def lists(whole: Path) -> dict[str, bytes]:
    plain = (whole / "meta_info.txt").read_bytes()
    first = plain.splitlines()[0]
    return {
        "other names": plain.replace(b"000_", b"999_"),
        "fewer": b"\n".join(plain.splitlines()[:5]),
        "sizes of millions": plain.replace(b"(40,50,3)", b"(999999,999999,3)"),
        "sizes beyond numbers": plain.replace(b"(40,50,3)", b"(%s,50,3)" % (b"9" * 100)),
        "no sizes": plain.replace(b" (40,50,3) 1", b""),
        "negative": plain.replace(b"(40,50,3)", b"(-40,50,3)"),
        "latin": plain.replace(b"000_", b"\xe9"),
        "zero bytes": plain.replace(b"000_", b"\0\0\0_"),
        "paths": plain.replace(b"000_", b"../../etc/passwd"),
        "one for all": b"\n".join([first] * COUNT),
        "long": plain.replace(b"000_", b"x" * 100_000),
        "binary": images()["colour.png"],
        "nothing": b"",
        "dots": b"\n".join([b"." * 10] * COUNT),
    }


@pytest.mark.parametrize("kind", [
    "other names", "fewer", "sizes of millions", "sizes beyond numbers", "no sizes", "negative", "latin", "zero bytes",
    "paths", "one for all", "long", "binary", "nothing", "dots",
])  # fmt: skip
def test_a_list_of_images_that_lies_is_one_line(whole: Path, tmp_path: Path, kind: str) -> None:
    root = copy(whole, tmp_path / "copy.lmdb", listed=lists(whole)[kind])
    told, read = [], 0
    with in_time():
        try:
            source = LmdbSource(root)
        except DataError as error:
            told.append(str(error))
        else:
            for index in range(len(source)):
                try:
                    source.read(index)
                    source.crop(index, 0, 0, 4, 4)
                    read += 1
                except DataError as error:
                    told.append(str(error))
            try:
                UnpairedRain(source, source, source, crop_size=4).load()
            except DataError as error:
                told.append(str(error))
    # Of images that would not fit into the memory no single one is to blame.
    assert all("\n" not in text and ("copy.lmdb" in text or "decoded images take" in text) for text in told)
    assert told or read == COUNT
    if kind in ("no sizes", "sizes beyond numbers", "negative"):
        assert read == COUNT
        assert source.sizes()[0].tolist() == [40, 50]


def test_a_pipe_in_place_of_the_list_is_not_waited_for(whole: Path, tmp_path: Path) -> None:
    root = copy(whole, tmp_path / "copy.lmdb")
    (root / "meta_info.txt").unlink()
    os.mkfifo(root / "meta_info.txt")
    with in_time(), pytest.raises(DataError, match=r"copy\.lmdb: its meta_info\.txt cannot be read"):
        LmdbReader(root)


@pytest.mark.parametrize("what", ["file", "empty", "pipe", "folder", "missing", "link"])
def test_what_is_no_lmdb_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "some.lmdb"
    if what == "file":
        path.write_bytes(b"data")
    elif what == "link":
        path.symlink_to(path)
    elif what != "missing":
        path.mkdir()
    if what == "pipe":
        os.mkfifo(path / "data.mdb")
    if what == "folder":
        (path / "data.mdb").mkdir()
    with in_time(), pytest.raises(DataError, match=r"no LMDB \(a folder with data\.mdb\) at .*some\.lmdb"):
        open_source(path)


# --- what is in it ---


@pytest.mark.parametrize("content", [b"", b"no image", encode_bmp(np.asarray(picture()))[:-100], b"BM" + b"\xff" * 60])
def test_an_entry_that_is_no_image_is_named_by_its_key(tmp_path: Path, content: bytes) -> None:
    list(write_lmdb(tmp_path / "some.lmdb", [("a.png", images()["colour.bmp"])], 1 << 20))
    environment = lmdb_store.lmdb.open(str(tmp_path / "some.lmdb"), map_size=1 << 20, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", content)
    environment.close()
    source = LmdbSource(tmp_path / "some.lmdb")
    for read in (lambda: source.read(0), lambda: source.crop(0, 0, 0, 8, 8)):
        with pytest.raises(DataError, match=r"some\.lmdb:a: (damaged image|not an image|declares)"):
            read()


@pytest.mark.parametrize("name", ["two\nlines.png", "caf\udce9.png", " blank.png", ".png", "x" * 600 + ".png"])
def test_names_that_no_list_can_hold_are_refused_before_they_are_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"an LMDB takes names in UTF-8 of one line, with 1 to 511 bytes"):
        list(write_lmdb(tmp_path / "some.lmdb", [(name, images()["colour.png"])], 1 << 20))
    assert not (tmp_path / "some.lmdb").exists()


@pytest.mark.parametrize("part", [["check"], ["labels", "-o", "out"], ["labels", "-o", "out.lmdb"]])
def test_the_commands_say_one_line_of_a_damaged_lmdb(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = (whole / "data.mdb").read_bytes()
    copy(whole, tmp_path / "copy.lmdb", data[: len(data) // 2])
    with in_time(60):
        assert commands.main(["prepare", part[0], "copy.lmdb", *part[1:]]) == 2
    error = capsys.readouterr().err
    assert error == "basicsr prepare: error: copy.lmdb: damaged LMDB (data.mdb ends too early); make it again\n"
    assert [path.name for path in tmp_path.iterdir()] == ["copy.lmdb"]
