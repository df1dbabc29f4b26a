"""Images as disks, downloads and enemies leave them: pixels of the declared size, or one line that names the file."""

from __future__ import annotations

import os
import socket
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from damage import chunk, damaged, damaged_images, encoded, images, in_time, interlaced_png, picture, png_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rainoerme_plugin import commands
from rainoerme_plugin.data import images as reading
from rainoerme_plugin.data.images import RGB, Header, decode_image, read_header
from rainoerme_plugin.data.paired import PairedRain, SingleRain
from rainoerme_plugin.data.pairing import find_pairs
from rainoerme_plugin.data.sources import FileSource, FolderSource, list_images, open_source
from rainoerme_plugin.data.unpaired import UnpairedRain
from rainoerme_plugin.errors import DataError

FEW_PIXELS = 2_000_000
"""In place of the 200 million of `MAX_PIXELS`, where damaged headers declare what they like."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def expect_one_line(error: DataError, name: str) -> None:
    text = str(error)
    assert name in text
    assert "\n" not in text
    assert len(text) < 600


def outcome(data: bytes, name: str) -> tuple[Header | None, RGB | None]:
    """Header and pixels, each None where it was refused as it should be."""
    found: list[Header | RGB | None] = []
    for read in (read_header, decode_image):
        try:
            with in_time():
                found.append(read(data, name))
        except DataError as error:
            expect_one_line(error, f"{name}: ")
            found.append(None)
    return found[0], found[1]  # type: ignore[return-value]


def check(data: bytes, name: str) -> bool:
    header, pixels = outcome(data, name)
    if pixels is None:
        return False
    assert header is not None
    assert pixels.dtype == np.uint8
    assert pixels.shape == (header.height, header.width, 3)
    return True


# --- what may happen to a file ---


def test_every_original_is_read_or_refused_for_what_it_holds() -> None:
    refused = {name for name, data in images().items() if not check(data, name)}
    assert refused == {"float.tif"}


def test_three_thousand_damaged_images_are_images_or_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", FEW_PIXELS)
    read = Counter(check(data, name) for name, data in damaged_images(3000))
    assert read[False] > 1500  # or the damage were none
    assert read[True] > 300


def test_a_file_cut_anywhere_is_an_image_or_one_line() -> None:
    for name in ("gradual.jpg", "interlaced.png", "deflated.tif", "palette.bmp", "lossless.webp"):
        whole = images()[name]
        for length in range(0, len(whole), 7):
            check(whole[:length], name)


def test_an_interlaced_image_is_read_and_refused_when_it_ends_too_early() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 9)).astype(np.uint8)
    whole = interlaced_png(pixels)
    assert np.array_equal(decode_image(whole, "x"), np.repeat(pixels[..., None], 3, axis=2))
    with pytest.raises(DataError, match=r"half\.png: damaged image"):
        decode_image(whole[: len(whole) * 2 // 3], "half.png")


@settings(derandomize=True, max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"RIFF\0\0\0\0WEBPVP8 "]
    ),
    st.binary(max_size=200),
)
def test_whatever_follows_a_signature(start: bytes, rest: bytes) -> None:
    check(start + rest, "any.png")


@settings(derandomize=True, max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(images())), st.integers(0, 199), st.binary(min_size=1, max_size=8))
def test_whatever_the_first_bytes_say(name: str, place: int, value: bytes) -> None:
    before, reading.MAX_PIXELS = reading.MAX_PIXELS, FEW_PIXELS
    try:
        data = images()[name]
        check(data[:place] + value + data[place + len(value) :], name)
    finally:
        reading.MAX_PIXELS = before


@pytest.mark.parametrize("raised", [struct.error, IndexError, OverflowError, TypeError, KeyError, RecursionError])
def test_whatever_pillow_raises_is_one_line(raised: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise raised("two\nlines")

    data = images()["colour.png"]
    monkeypatch.setattr(reading.PngImageFile, "load", fail)
    with pytest.raises(DataError, match=r"^x: damaged image \('?two(\\n| )lines'?\); replace or remove it$"):
        decode_image(data, "x")
    monkeypatch.setattr(reading.PngImageFile, "_open", fail)
    for read in (decode_image, read_header):
        with pytest.raises(DataError, match=r"^x: not an image this package reads"):
            read(data, "x")


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    data = images()["colour.png"]
    monkeypatch.setattr(reading.PngImageFile, "load", fail)
    with pytest.raises(DataError, match=r"^x: too little memory to decode it; scale it down"):
        decode_image(data, "x")
    monkeypatch.setattr(reading.PngImageFile, "_open", fail)
    with pytest.raises(DataError, match=r"^x: too little memory to read it; scale it down"):
        read_header(data, "x")


# --- bombs ---


def huge(kind: str) -> bytes:
    """Some bytes that declare 100,000 x 100,000 pixels, or as many as the format can."""
    if kind == "png":
        return png_of(100_000, 100_000)
    data = bytearray(encoded(picture(), {"jpg": "JPEG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP"}[kind]))
    if kind == "jpg":
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", 65_500, 65_500)
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", 100_000, 100_000)
    elif kind == "webp":
        data[26:30] = struct.pack("<HH", 16_383, 16_383)
    else:
        for tag in (256, 257):
            place = data.index(struct.pack("<HHI", tag, 4, 1))
            data[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 100_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tif", "webp"])
def test_an_image_of_more_pixels_than_any_camera_takes_is_refused_undecoded(kind: str) -> None:
    data = huge(kind)
    assert len(data) < 5000
    for read in (read_header, decode_image):
        limit = "178956970" if kind == "webp" else "200,000,000"
        words = rf"^huge\.png: declares .*{limit}.*; scale it down, or cut it into parts$"
        with warnings.catch_warnings(record=True) as warned, in_time(), pytest.raises(DataError, match=words):
            read(data, "huge.png")
        assert not warned


def test_an_image_just_below_the_limit_is_read_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # of Pillow, which warns from there on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(images()["grey.png"], "x").shape == (24, 32, 3)


@pytest.mark.parametrize(
    "more",
    [
        b"".join(chunk(b"zTXt", b"k%d\0\0" % number + b"x" * 20) for number in range(100)),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1 << 26), 9)),
        b"".join(chunk(b"iTXt", b"k%d\0\1\0\0\0" % number + zlib.compress(bytes(1 << 20), 9)) for number in range(80)),
    ],
)
def test_a_png_whose_words_are_bombs_takes_no_time(more: bytes) -> None:
    check(png_of(8, 8, bytes(72), more), "words.png")


def test_pixels_that_go_on_behind_the_image_are_left_alone() -> None:
    with in_time():
        assert decode_image(png_of(8, 8, bytes(1 << 26)), "x").shape == (8, 8, 3)


def scans(count: int, side: int = 8) -> bytes:
    """A progressive grey JPEG that goes ``count`` times over its pixels, most of them with hardly a byte."""
    data = encoded(picture().convert("L").resize((8, 8)), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    header = bytearray(data[:first])
    place = header.index(b"\xff\xc2")
    header[place + 5 : place + 9] = struct.pack(">HH", side, side)
    more = count - data.count(b"\xff\xda")
    return bytes(header) + data[first : data.rindex(b"\xff", first, second)] * more + data[first:]


def test_a_jpeg_that_goes_over_its_pixels_for_ever_is_refused() -> None:
    data = scans(20_000, 4000)
    with in_time(), pytest.raises(DataError, match=r"^slow\.jpg: a JPEG that goes more than 50 times over its pixels;"):
        decode_image(data, "slow.jpg")
    assert check(scans(50), "x")
    with pytest.raises(DataError, match="more than 50 times"):
        decode_image(scans(51), "x")


def test_what_looks_like_a_scan_in_a_preview_or_behind_the_end_is_none() -> None:
    data = images()["gradual.jpg"]
    preview = b"\xff\xe5" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    assert check(data[:2] + preview + data[2:] + b"\0\2" + b"\xff\xda\0\2" * 1000, "film.jpg")


# --- what is no file ---


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with one image and all that may have an image's name."""
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "good.png").write_bytes(images()["colour.png"])
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "in").symlink_to(folder)
    return folder


def test_a_folder_lists_files_alone(odd: Path) -> None:
    with in_time():
        assert [path.name for path in list_images(odd)] == ["good.png"]
        assert [path.name for path in list_images(odd, recursive=True)] == ["good.png"]


@pytest.mark.parametrize("name", ["folder", "pipe", "device", "gone", "loop", "nothing", "x" * 5000, "zero\0byte"])
def test_what_is_no_file_is_refused_and_not_waited_for(odd: Path, name: str) -> None:
    path = odd / f"{name}.png"
    for read in (read_header, decode_image, lambda path: FileSource([path]).encoded(0)):
        with in_time(), pytest.raises(DataError, match=r"\.png: (cannot be read \(.+\)|no such file)$"):
            read(path)


def test_a_socket_is_no_image(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        with in_time(), pytest.raises(DataError, match="a directory, pipe or device, not a file"):
            decode_image(odd / "socket.png")


def test_a_file_of_a_terabyte_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "long.png").open("wb") as file:
        file.write(images()["colour.png"])
        file.truncate(1 << 40)
    for read in (read_header, decode_image, lambda path: FileSource([path]).encoded(0)):
        with in_time(), pytest.raises(DataError, match=r"long\.png: 1,099,511,627,776 bytes long, more than the 1,6"):
            read(tmp_path / "long.png")


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.png"
    path.write_bytes(images()["colour.png"])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as a user who may read everything
    with pytest.raises(DataError, match=r"mine\.png: cannot be read \(Permission denied\)"):
        decode_image(path)


# --- through the commands and data sets ---


def fill(folder: Path, first: int, count: int) -> Path:
    folder.mkdir(parents=True)
    for name, data in damaged_images(count, first):
        (folder / name).write_bytes(data)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit status and standard output of a command; what it says of an error is one line."""
    with in_time(60):
        status = commands.main([str(word) for word in words])
    out, error = capsys.readouterr()
    told = [line for line in error.splitlines() if "error" in line]
    assert status in (0, 2)
    assert len(told) == (status == 2)
    assert "Traceback" not in out + error
    assert not told or told[0].startswith(f"basicsr {words[0]}: error: ")
    return status, out


def test_a_check_names_every_broken_image_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", FEW_PIXELS)
    folder = fill(tmp_path / "all", 2000, 300)
    odd_name = os.fsdecode(b"caf\xe9\n.png")
    (folder / odd_name).write_bytes(b"broken")
    status, out = run(capsys, "prepare", "check", folder)
    assert status == 2
    lines = [line for line in out.splitlines() if line.startswith("  broken: ")]
    broken = {name for name, data in damaged_images(300, 2000) if outcome(data, name)[1] is None}
    assert len(lines) == len(broken) + 1
    assert all(sum(f"/{name}: " in line for line in lines) == 1 for name in broken)
    assert any(r"caf\udce9" in line and "not an image" in line for line in lines)


def test_a_folder_whose_name_is_no_unicode_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "a.png").write_bytes(images()["colour.png"])
    status, out = run(capsys, "prepare", "check", folder)
    assert status == 0
    assert r"caf\udce9: 1 image" in out


def test_a_size_of_zero_is_none() -> None:
    for kind, place in (("colour.png", 16), ("colour.bmp", 18)):
        data = bytearray(images()[kind])
        data[place : place + 4] = bytes(4)
        assert outcome(bytes(data), kind) == (None, None)


def test_labels_and_lmdbs_of_damaged_images_are_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", FEW_PIXELS)
    ended: Counter[tuple[str, int]] = Counter()
    for first in range(3000, 3120, 2):
        folder = fill(tmp_path / str(first), first, 2)
        labels, store = tmp_path / f"{first}_labels", tmp_path / f"{first}.lmdb"
        status, _ = run(capsys, "prepare", "labels", folder, "-o", labels)
        ended["labels", status] += 1
        for path in labels.glob("**/*"):
            decode_image(path)
        assert status == 2 or len(list(labels.iterdir())) == 2
        for words in ((), ("--decoded",)):
            status, _ = run(capsys, "prepare", "lmdb", folder, "-o", store, *words)
            ended["lmdb", status] += 1
            assert store.exists() == (status == 0)
            if status == 0:
                source = open_source(store)
                assert all(source.read(index).shape[2] == 3 for index in range(2))
                break
    assert min(ended.values()) > 2
    assert len(ended) == 4


def test_crops_of_damaged_images_are_crops_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", FEW_PIXELS)
    good = tmp_path / "good.png"
    good.write_bytes(images()["colour.png"])
    read: Counter[bool] = Counter()
    for name, data in damaged_images(300, 4000):
        path = tmp_path / name
        path.write_bytes(data)
        rainy = FileSource([path])
        try:
            with in_time():
                sample = UnpairedRain(rainy, rainy, FileSource([good]), crop_size=16)[0]
            assert sample["rainy"].shape == sample["clean"].shape == (3, 16, 16)
            read[True] += 1
        except DataError as error:
            expect_one_line(error, name)
            read[False] += 1
    assert min(read[True], read[False]) > 20


def test_damaged_test_images_are_images_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", FEW_PIXELS)
    (tmp_path / "rain").mkdir()
    (tmp_path / "norain").mkdir()
    for number, (_, data) in enumerate(damaged_images(100, 5000)):
        (tmp_path / "rain" / f"{number:02}.png").write_bytes(data)
        (tmp_path / "norain" / f"{number:02}.png").write_bytes(images()["colour.png"])
    pairs, singles = PairedRain(find_pairs(tmp_path)), SingleRain(FolderSource(tmp_path / "rain"))
    assert len(pairs) == len(singles) == 100
    for index in range(100):
        for dataset in (pairs, singles):
            try:
                with in_time():
                    assert dataset[index]["lq"].shape[0] == 3
            except DataError as error:
                expect_one_line(error, f"{index:02}.png")


def test_damage_follows_from_its_seed() -> None:
    assert damaged(images()["colour.png"], 7) == damaged(images()["colour.png"], 7)
    assert len({damaged(images()["colour.jpg"], seed) for seed in range(50)}) > 45
