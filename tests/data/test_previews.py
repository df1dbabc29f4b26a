"""Previews within metadata show the derained picture, or are gone; all around them stays where it was."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from damage import chunk, encoded
from PIL import ExifTags, Image

from rainoerme_plugin.data.photographs import Kind, Photograph, encode_photograph, read_photograph
from rainoerme_plugin.data.previews import renewed

HEIGHT, WIDTH = 120, 160
DARK, BRIGHT = (20, 30, 40), (230, 200, 60)
"""The colours of rainy pictures, and of their derained versions."""


def flat(colour: tuple[int, int, int], height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A picture of a colour, its upper half darker."""
    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[: height // 2] //= 2
    return Image.fromarray(pixels)


def thumbnail(width: int = 40, height: int = 30) -> bytes:
    return encoded(flat(DARK, height, width), "JPEG", quality=80)


def exif(preview: bytes | None = None, maker: bytes = b"", orientation: int = 1, order: str = "<") -> bytes:
    """Made by hand: orientation, a maker's note, and a second directory that leads to a preview."""
    start = 8 + 2 + 3 * 12 + 4
    second = start + len(maker) + len(maker) % 2
    behind = second + 2 + 3 * 12 + 4
    rows = (
        struct.pack(f"{order}HHIHH", 274, 3, 1, orientation, 0),
        struct.pack(f"{order}HHI4s", 305, 2, 3, b"us\0\0"),
        struct.pack(f"{order}HHII", 37500, 7, max(5, len(maker)), start),
    )
    first = struct.pack(f"{order}H", 3) + b"".join(rows) + struct.pack(f"{order}I", second if preview else 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    whole = head + first + maker + bytes(len(maker) % 2)
    if preview is None:
        return whole + bytes(8)
    numbers = (259, 3, 6 if order == "<" else 6 << 16), (513, 4, behind), (514, 4, len(preview))
    entries = b"".join(struct.pack(f"{order}HHII", tag, kind, 1, value) for tag, kind, value in numbers)
    return whole + struct.pack(f"{order}H", 3) + entries + bytes(4) + preview


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


def photo(kind: str, block: bytes, *segments: bytes) -> bytes:
    if kind == "png":
        data = encoded(flat(DARK), "PNG")
        return data[:33] + chunk(b"eXIf", block) + data[33:]
    if kind == "webp":
        return encoded(flat(DARK), "WEBP", exif=block)
    data = encoded(flat(DARK), "JPEG", quality=90)
    return data[:20] + segment(0xE1, b"Exif\0\0" + block) + b"".join(segments) + data[20:]


def read(tmp_path: Path, data: bytes) -> Photograph:
    (tmp_path / "photo").write_bytes(data)
    return read_photograph(tmp_path / "photo")


def derained(photograph: Photograph, kind: Kind | None = None) -> bytes:
    pixels = np.asarray(flat(BRIGHT, *photograph.pixels.shape[:2]))
    return encode_photograph(photograph, pixels.astype(photograph.pixels.dtype), kind)


def exif_of(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).info["exif"].removeprefix(b"Exif\0\0")


def shown(preview: bytes) -> np.ndarray:
    """The upper and lower colour of a preview, by OpenCV."""
    pixels = cv2.imdecode(np.frombuffer(preview, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    return np.stack([pixels[: len(pixels) // 3].mean(axis=(0, 1)), pixels[-len(pixels) // 3 :].mean(axis=(0, 1))])


WANTED = np.array([np.array(BRIGHT) // 2, BRIGHT])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_the_preview_in_exif_is_of_the_derained_picture(tmp_path: Path, kind: str, order: str) -> None:
    block = exif(thumbnail(), b"maker\xff\xd8\xff is no picture", order=order)
    photograph = read(tmp_path, photo(kind, block))
    back = exif_of(derained(photograph))
    start = block.index(thumbnail())
    assert len(back) == len(block)
    assert back[:start] == block[:start]  # directories, and the maker's note
    assert np.abs(shown(back[start:]) - WANTED).max() < 12
    found = Image.Exif()
    found.load(b"Exif\0\0" + back)
    at, length = (found.get_ifd(ExifTags.IFD.IFD1)[tag] for tag in (513, 514))  # Pillow's names of it
    with Image.open(io.BytesIO(back[at : at + length])) as image:
        assert image.size == (40, 30)


@pytest.mark.parametrize("target", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_no_kind_of_file_shows_the_rain_in_a_makers_note(tmp_path: Path, kind: str, target: Kind) -> None:
    maker = b"a note " + thumbnail(64, 48) + b" and more"
    back = derained(read(tmp_path, photo(kind, exif(thumbnail(), maker))), target)
    assert thumbnail(64, 48) not in back
    assert thumbnail() not in back
    if target != "tiff":
        assert b"a note \xff\xd8" in back
        assert b" and more" in back
        assert np.abs(shown(exif_of(back)[exif_of(back).index(b"a note ") + 7 :]) - WANTED).max() < 12


def test_a_preview_lies_as_the_pixels_of_the_file(tmp_path: Path) -> None:
    photograph = read(tmp_path, photo("jpg", exif(encoded(flat(DARK, 30, 40), "JPEG"), orientation=3)))
    back = exif_of(derained(photograph))
    assert np.abs(shown(back[back.index(b"\xff\xd8\xff") :])[::-1] - WANTED).max() < 12


def test_a_preview_has_the_pictures_shape_where_the_old_one_had_bars(tmp_path: Path) -> None:
    back = exif_of(derained(read(tmp_path, photo("jpg", exif(thumbnail(60, 60))))))
    with Image.open(io.BytesIO(back[back.index(b"\xff\xd8\xff") :])) as image:
        assert image.size == (60, 45)


def test_a_preview_of_much_detail_is_no_longer_than_the_old_one(tmp_path: Path) -> None:
    loud = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    old = encoded(flat(DARK, 30, 40), "JPEG", quality=10, optimize=True)
    photograph = read(tmp_path, photo("jpg", exif(old)))
    back = exif_of(encode_photograph(photograph, loud))
    assert len(back) == len(exif(old))
    with Image.open(io.BytesIO(back[back.index(b"\xff\xd8\xff") :])) as image:
        image.load()
        assert image.width <= 40


@pytest.mark.parametrize("preview", [b"\xff\xd8\xff\xdb no end of it", bytes(range(250))])
def test_a_preview_that_is_no_whole_jpeg_is_taken_out(tmp_path: Path, preview: bytes) -> None:
    block = exif(preview, b"maker")
    back = exif_of(derained(read(tmp_path, photo("jpg", block))))
    assert preview not in back
    assert len(back) == len(block)
    found = Image.Exif()
    found.load(b"Exif\0\0" + back)
    assert found.get_ifd(ExifTags.IFD.IFD1) == {}
    assert found[305] == "us"


def test_uncompressed_previews_are_taken_out() -> None:
    pixels = bytes(range(60))
    entries = (
        (256, 3, 5),
        (257, 3, 4),
        (259, 3, 1),
        (273, 4, 8 + 2 + 12 + 4 + 2 + 6 * 12 + 4),
        (279, 4, 60),
        (262, 3, 2),
    )
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    first = struct.pack("<HHHIII", 1, 274, 3, 1, 1, 26)
    block = b"II*\0\x08\0\0\0" + first + struct.pack("<H", 6) + rows + bytes(4) + pixels
    assert struct.unpack_from("<I", block, 22) == (26,)
    back = renewed(block, lambda: np.asarray(flat(BRIGHT)))
    assert back == block[:22] + bytes(4) + block[26:-60] + bytes(60)


@pytest.mark.parametrize("pieces", [1, 2])
def test_photoshops_preview_is_of_the_derained_picture(tmp_path: Path, pieces: int) -> None:
    head = struct.pack(">IIIIIIHH", 1, 40, 30, 120, 3600, len(thumbnail()), 24, 1)
    irb = b"8BIM\x04\x0c\0\0" + struct.pack(">I", len(head + thumbnail())) + head + thumbnail() + b"8BIM\x04\x04\0\0"
    half = len(irb) // pieces
    parts = [segment(0xED, b"Photoshop 3.0\0" + irb[start : start + half]) for start in range(0, len(irb), half)]
    back = derained(read(tmp_path, photo("jpg", exif(), *parts)))
    bodies = re.findall(rb"Photoshop 3\.0\0(.{%d})" % half, back, re.DOTALL)
    whole = b"".join(bodies)
    assert len(whole) == half * pieces
    assert whole[:40] == irb[:40]
    assert np.abs(shown(whole[40:]) - WANTED).max() < 12

    tiff = encoded(flat(DARK), "TIFF", tiffinfo={34377: irb})
    back = derained(read(tmp_path, tiff))
    assert thumbnail() not in back
    assert np.abs(shown(back[back.index(b"\x04\x0c\0\0") + 4 + 4 + 28 :]) - WANTED).max() < 12


def test_the_previews_of_jfif_are_taken_out(tmp_path: Path) -> None:
    data = encoded(flat(DARK), "JPEG")
    jfif = segment(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\2\1" + b"rained")
    jfxx = segment(0xE0, b"JFXX\0\x10" + thumbnail())
    back = derained(read(tmp_path, data[:2] + jfif + jfxx + data[20:]))
    assert back[2:20] == segment(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\0\0")
    assert b"JFXX" not in back


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_raw_profile_with_a_preview_is_left_out_and_told(tmp_path: Path, kind: bytes) -> None:
    def with_profile(block: bytes) -> bytes:
        text = f"\nexif\n{len(block) + 6:8}\n{(b'Exif' + bytes(2) + block).hex()}\n".encode()
        between = {b"tEXt": b"\0", b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0"}[kind]
        body = b"Raw profile type exif" + between + (text if kind == b"tEXt" else zlib.compress(text))
        data = encoded(flat(DARK), "PNG")
        return data[:33] + chunk(kind, body) + data[33:]

    photograph = read(tmp_path, with_profile(exif(thumbnail())))
    assert photograph.left_out == ("a raw profile with a preview in it",)
    assert b"Raw profile" not in derained(photograph)
    photograph = read(tmp_path, with_profile(exif()))
    assert photograph.left_out == ()
    assert b"Raw profile" in derained(photograph)


def test_metadata_without_previews_are_not_touched(tmp_path: Path) -> None:
    block = exif(None, b"maker \xff\xd8\xff\xe0 note" + b"\xff\xd8\xff" * 20)
    for kind in ("jpg", "png", "webp"):
        assert exif_of(derained(read(tmp_path, photo(kind, block)))) == block


def test_sixteen_bits_and_grey_have_previews_too(tmp_path: Path) -> None:
    deep: Any = np.full((HEIGHT, WIDTH), 9000, np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    photograph = read(tmp_path, data[:33] + chunk(b"eXIf", exif(thumbnail())) + data[33:])
    back = encode_photograph(photograph, np.full((HEIGHT, WIDTH, 3), 200 * 257, np.uint16))
    block = exif_of(back)
    assert np.abs(shown(block[block.index(b"\xff\xd8\xff") :]) - 200).max() < 4
