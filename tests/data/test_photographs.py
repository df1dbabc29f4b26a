"""Photographs that come back as they were but for their colours: read by others than those who wrote them."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from damage import chunk, damaged_images, encoded, images, in_time, picture
from PIL import Image, ImageCms

from rainoerme_plugin.data import images as reading
from rainoerme_plugin.data.photographs import Kind, Photograph, encode_photograph, read_photograph
from rainoerme_plugin.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

HEIGHT, WIDTH = 21, 34
TURNED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, 1),
}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>'
    b"</x:xmpmeta>"
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's types by the number of channels."""


def profile(space: bytes) -> bytes:
    """A profile whose header names a colour space; the rest of it is another's."""
    return SRGB[:16] + space + SRGB[20:]


def noise(channels: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(0, info.max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def exif_block(orientation: int = 1, order: str = "<", maker: bytes = b"\0\1made\xff") -> bytes:
    """Made by hand: orientation and artist, an EXIF and a GPS directory with a date, a maker's note and a side."""
    date, artist = b"2020:02:03 04:05:06\0", b"Someone\0"

    def directory(start: int, *entries: tuple[int, int, int, bytes]) -> bytes:
        rows, behind = struct.pack(f"{order}H", len(entries)), b""
        place = start + 2 + 12 * len(entries) + 4
        for tag, kind, count, value in entries:
            if len(value) > 4:
                at = struct.pack(f"{order}I", place + len(behind))
                behind += value + b"\0" * (len(value) % 2)
                value = at
            rows += struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
        return rows + bytes(4) + behind

    def number(value: int) -> bytes:
        return struct.pack(f"{order}I", value)

    def first(exif: int, gps: int) -> bytes:
        turned = struct.pack(f"{order}H", orientation)
        return directory(
            8,
            (274, 3, 1, turned),
            (315, 2, len(artist), artist),
            (34665, 4, 1, number(exif)),
            (34853, 4, 1, number(gps)),
        )

    exif_at = 8 + len(first(0, 0))
    exif = directory(exif_at, (36867, 2, len(date), date), (37500, 7, len(maker), maker))
    gps = directory(exif_at + len(exif), (1, 2, 2, b"N\0"))
    head = (b"II*\0" if order == "<" else b"MM\0*") + number(8)
    return head + first(exif_at, exif_at + len(exif)) + exif + gps


def png(
    samples: np.ndarray, *more: bytes, behind: bytes = b"", palette: bool = False, bits: int | None = None
) -> bytes:
    """A PNG made by hand, with ``more`` chunks before its pixels, and some ``behind`` them."""
    height, width, channels = samples.shape
    bits = bits or samples.itemsize * 8
    big = samples.astype(f">u{samples.itemsize}")
    if bits < 8:
        spread = np.unpackbits(samples, axis=2).reshape(height, width, 8)[..., 8 - bits :].reshape(height, -1)
        big = np.packbits(spread, axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else COLOUR[channels], 0, 0, 0)
    parts = (chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), behind, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def about(data: bytes) -> list[tuple[bytes, bytes]]:
    return [each for each in chunks(data) if each[0] not in (b"IHDR", b"IDAT", b"IEND")]


def png_samples(data: bytes) -> np.ndarray:
    """The channels of a PNG as they lie in the file, by OpenCV; grey and alpha by its unused copies of grey."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    decoded = decoded.reshape(*decoded.shape[:2], -1)
    colour = data[25]
    if colour == 4:
        return decoded[..., [0, 3]]
    return decoded if decoded.shape[2] == 1 else decoded[..., [2, 1, 0, 3][: decoded.shape[2]]]


def segments(data: bytes) -> list[tuple[int, bytes]]:
    found, place = [], 2
    while data[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, place + 2)
        found.append((data[place + 1], data[place + 4 : place + 2 + length]))
        place += 2 + length
    return found


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


def riff(data: bytes) -> dict[bytes, bytes]:
    found, place = {}, 12
    while place < len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        found[kind] = data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
    return found


def read(path: Path, data: bytes, name: str = "photo") -> Photograph:
    file = path / name
    file.write_bytes(data)
    return read_photograph(file)


def again(path: Path, data: bytes, kind: Kind | None = None, quality: int | None = None) -> bytes:
    photograph = read(path, data)
    return encode_photograph(photograph, photograph.pixels, kind, quality)


def colours(samples: np.ndarray) -> np.ndarray:
    """RGB of the channels of a file."""
    return np.repeat(samples[..., :1], 3, axis=2) if samples.shape[2] < 3 else samples[..., :3]


# --- PNG ---


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_comes_back(tmp_path: Path, channels: int, dtype: Any, orientation: int) -> None:
    samples = noise(channels, dtype)
    more = (
        chunk(b"gAMA", struct.pack(">I", 45455)),
        chunk(b"pHYs", struct.pack(">IIB", 2835, 2000, 1)),
        chunk(b"tEXt", b"Comment\0rain"),
        chunk(b"raIn", b"of one's own"),
        chunk(b"eXIf", exif_block(orientation)),
    )
    data = png(samples, *more)
    photograph = read(tmp_path, data)
    assert photograph.kind == "png"
    assert photograph.pixels.dtype == dtype
    assert np.array_equal(photograph.pixels, TURNED[orientation](colours(samples)))
    back = encode_photograph(photograph, photograph.pixels)
    assert np.array_equal(png_samples(back), samples)
    assert back[24:26] == data[24:26]  # depth and colour type
    assert about(back) == about(data)


def test_what_stands_behind_the_pixels_of_a_png_is_kept(tmp_path: Path) -> None:
    data = png(noise(3), behind=chunk(b"tEXt", b"Title\0x") + chunk(b"eXIf", exif_block(1)))
    assert sorted(about(again(tmp_path, data))) == sorted(about(data))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_become_grey_of_eight_and_their_key_alpha(tmp_path: Path, bits: int) -> None:
    few = (noise(1) >> (8 - bits)).astype(np.uint8)
    back = again(tmp_path, png(few, chunk(b"tRNS", struct.pack(">H", 1)), bits=bits))
    wanted = np.concatenate([few * (255 // (2**bits - 1)), np.where(few == 1, 0, 255)], axis=2)
    assert np.array_equal(png_samples(back), wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_key_becomes_alpha(tmp_path: Path, channels: int, dtype: Any) -> None:
    samples = noise(channels, dtype)
    key = samples[3, 5].astype(">u2").tobytes()
    back = again(tmp_path, png(samples, chunk(b"tRNS", key)))
    alpha = np.where((samples == samples[3, 5]).all(axis=2, keepdims=True), 0, np.iinfo(dtype).max)
    assert np.array_equal(png_samples(back), np.concatenate([samples, alpha], axis=2))
    assert about(back) == []


@pytest.mark.parametrize("clear", [False, True])
def test_a_palette_becomes_colours(tmp_path: Path, clear: bool) -> None:
    entries = np.random.default_rng(1).integers(0, 256, (256, 4)).astype(np.uint8)
    samples = noise(1)
    more = [chunk(b"PLTE", entries[:, :3].tobytes()), chunk(b"tRNS", entries[:, 3].tobytes())]
    back = again(tmp_path, png(samples, *more[: 1 + clear], palette=True))
    assert np.array_equal(png_samples(back), entries[samples[..., 0], : 3 + clear])


def test_parts_that_are_of_the_coding_are_left_out(tmp_path: Path) -> None:
    more = (chunk(b"sBIT", b"\5\5\5"), chunk(b"bKGD", bytes(6)))
    assert about(again(tmp_path, png(noise(3), *more))) == []


def test_of_unknown_parts_those_stay_whose_names_allow_it(tmp_path: Path) -> None:
    def about_after(*kinds: bytes) -> list[bytes]:
        return [kind for kind, _ in about(again(tmp_path, png(noise(3), *(chunk(kind, b"\1") for kind in kinds))))]

    # Apple's iDOT tells where the pixels lie in the file, caBX signs them: with others, decoders stumble over them.
    assert about_after(b"iDOT", b"caBX", b"cICP", b"sRGB", b"tIME", b"vpAg") == [b"cICP", b"sRGB", b"tIME", b"vpAg"]


def test_much_text_and_a_large_profile_are_kept(tmp_path: Path) -> None:
    long = np.random.default_rng(0).bytes(3 << 20)  # more than Pillow takes
    parts = (
        chunk(b"iCCP", b"p\0\0" + zlib.compress(SRGB + long, 1)),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(long.hex().encode(), 1)),
    )
    data = png(noise(3), *parts)
    assert about(again(tmp_path, data)) == about(data)


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    broken = bytearray(chunk(b"tEXt", b"Comment\0rain"))
    broken[-1] ^= 1
    with pytest.raises(DataError, match=r"photo: .*damaged"):
        read(tmp_path, png(noise(3), bytes(broken)))


def test_a_profile_of_another_colour_space_is_left_out(tmp_path: Path) -> None:
    def of(space: bytes) -> bytes:
        return chunk(b"iCCP", b"p\0\0" + zlib.compress(profile(space)))

    for samples, space, kept in ((3, b"RGB ", True), (3, b"GRAY", False), (1, b"GRAY", True), (1, b"RGB ", False)):
        assert bool(about(again(tmp_path, png(noise(samples), of(space))))) is kept


# --- grey ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_derained_grey_is_the_mean_of_its_channels(tmp_path: Path, dtype: Any) -> None:
    photograph = read(tmp_path, png(noise(1, dtype)))
    derained = noise(3, dtype, seed=4)
    derained[0] = np.iinfo(dtype).max
    back = png_samples(encode_photograph(photograph, derained))[..., 0]
    wanted = (2 * derained.astype(np.int64).sum(axis=2) + 3) // 6
    assert np.array_equal(back, wanted)


# --- TIFF ---

_EXTRA = {2: ["unassalpha"], 4: ["unassalpha"]}


def tiff(samples: np.ndarray, orientation: int | None = 1, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tags: list[Any] = [
        (315, 2, 8, "Someone", True),
        (306, 2, 20, "2020:02:03 04:05:06", True),
        (700, 1, len(XMP), XMP, True),
        (33723, 7, 9, b"\x1c\2\0\0\2rain", True),
        (34377, 7, 10, b"8BIMabcdef", True),
        (65000, 3, 3, (1, 2, 60000), True),
    ]
    if orientation is not None:
        tags.append((274, 3, 1, orientation, True))
    channels = samples.shape[2]
    settings = {
        "photometric": "rgb" if channels > 2 else "minisblack",
        "extrasamples": _EXTRA.get(channels),
        "resolution": (300.0, 200.0),
        "resolutionunit": 2,
        "metadata": None,
        "extratags": tags,
        **({"planarconfig": "contig"} if channels > 1 else {}),
        **options,
    }
    tifffile.imwrite(buffer, samples[..., 0] if channels == 1 else samples, **settings)
    return buffer.getvalue()


def tags_of(data: bytes) -> dict[int, Any]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return {tag.code: (tag.dtype, tag.count, tag.value) for tag in file.pages[0].tags}


def tiff_samples(data: bytes) -> np.ndarray:
    decoded = tifffile.imread(io.BytesIO(data))
    return decoded.reshape(HEIGHT, WIDTH, -1)


KEPT = (274, 282, 283, 296, 306, 315, 700, 33723, 34377, 65000)


@pytest.mark.parametrize("orientation", [None, *TURNED])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_tiff_comes_back(tmp_path: Path, channels: int, dtype: Any, orientation: int | None) -> None:
    samples = noise(channels, dtype)
    data = tiff(samples, orientation, iccprofile=profile(b"GRAY" if channels < 3 else b"RGB "))
    photograph = read(tmp_path, data)
    assert np.array_equal(photograph.pixels, TURNED[orientation or 1](colours(samples)))
    back = encode_photograph(photograph, photograph.pixels)
    assert np.array_equal(tiff_samples(back), samples)
    before, after = tags_of(data), tags_of(back)
    for tag in (*KEPT, 34675):
        assert before.get(tag) == after.get(tag), tag


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": 2},
        {"compression": "zlib", "predictor": 2, "tile": (16, 16)},
        {"rowsperstrip": 5},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_a_tiff_of_any_layout_comes_back(
    tmp_path: Path, options: dict[str, Any], order: str, channels: int, dtype: Any
) -> None:
    samples = noise(channels, dtype)
    data = tiff(samples, 6, byteorder=order, **options)
    photograph = read(tmp_path, data)
    assert np.array_equal(photograph.pixels, TURNED[6](colours(samples)))
    back = encode_photograph(photograph, photograph.pixels)
    assert np.array_equal(tiff_samples(back), samples)
    assert all(tags_of(data)[tag] == tags_of(back)[tag] for tag in KEPT)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "options",
    [{}, {"rowsperstrip": 5}, {"compression": "zlib", "predictor": 2}, {"compression": "zlib", "tile": (16, 16)}],
    ids=str,
)
def test_a_tiff_in_planes_comes_back(tmp_path: Path, options: dict[str, Any], order: str, dtype: Any) -> None:
    samples = noise(3, dtype)
    buffer = io.BytesIO()
    planes = np.ascontiguousarray(samples.transpose(2, 0, 1))
    tifffile.imwrite(buffer, planes, byteorder=order, photometric="rgb", planarconfig="separate", **options)
    assert tags_of(buffer.getvalue())[284][2] == 2
    assert np.array_equal(read(tmp_path, buffer.getvalue()).pixels, samples)
    assert np.array_equal(tiff_samples(again(tmp_path, buffer.getvalue())), samples)


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *itertools.product(
            ["L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr"], ["packbits", "tiff_lzw", "tiff_deflate", "zstd", "lzma"]
        ),
        *itertools.product(["L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"], ["jpeg"]),
    ],
)
def test_a_tiff_of_pillows_comes_back(tmp_path: Path, mode: str, compression: str) -> None:
    image = picture(HEIGHT, WIDTH).convert("RGBA").convert(mode)
    data = encoded(image, "TIFF", compression=compression)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    back = tiff_samples(again(tmp_path, data))
    assert np.array_equal(colours(back), expected[..., :3])
    assert (back.shape[2] in (2, 4)) is mode.endswith("A")
    assert (back.shape[2] < 3) is mode.startswith("L")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_channel_of_unsaid_meaning_stays_one(tmp_path: Path, dtype: Any) -> None:
    samples = noise(4, dtype)
    data = tiff(samples, extrasamples=["unspecified"])
    back = again(tmp_path, data)
    assert np.array_equal(tiff_samples(back), samples)
    assert tags_of(back)[338] == tags_of(data)[338]
    assert png_samples(again(tmp_path, data, "png")).shape[2] == 3
    assert again(tmp_path, data, "jpg")[:2] == b"\xff\xd8"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_that_are_multiplied_by_alpha_are_divided_again(tmp_path: Path, dtype: Any) -> None:
    samples, top = noise(4, dtype), np.iinfo(dtype).max
    samples[..., 3] = np.maximum(samples[..., 3], top // 2)
    multiplied = samples.copy()
    multiplied[..., :3] = np.rint(samples[..., :3] * (samples[..., 3:] / top))
    data = tiff(multiplied, extrasamples=["assocalpha"])
    photograph = read(tmp_path, data)
    assert photograph.alpha is not None
    assert np.array_equal(photograph.alpha, samples[..., 3])
    assert np.abs(photograph.pixels.astype(int) - samples[..., :3]).max() <= 1
    assert tags_of(again(tmp_path, data))[338][2] == (2,)


@pytest.mark.parametrize("more", [(254, 4, 1, 1, True), (50706, 1, 4, (1, 4, 0, 0), True)], ids=["preview", "DNG"])
def test_a_raw_photograph_is_refused(tmp_path: Path, more: Any) -> None:
    options = {"subfiletype": 1} if more[0] == 254 else {"extratags": [more]}
    with pytest.raises(DataError, match=r"photo: a raw photograph, or a preview of one; develop it first"):
        read(tmp_path, tiff(noise(3), **options))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_lzw_tiff_comes_back(tmp_path: Path, dtype: Any, channels: int) -> None:
    samples = noise(channels, dtype)
    bgr = samples if channels == 1 else samples[..., [2, 1, 0, 3][:channels]]
    data = cv2.imencode(".tiff", bgr, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    assert tags_of(data)[259][2] == 5
    assert np.array_equal(tiff_samples(again(tmp_path, data)), samples)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_that_is_zero_is_turned_over(tmp_path: Path, dtype: Any) -> None:
    samples = noise(1, dtype)
    photograph = read(tmp_path, tiff(samples, photometric="miniswhite"))
    assert np.array_equal(photograph.pixels, colours(np.iinfo(dtype).max - samples))


def test_exif_and_gps_of_a_tiff_are_kept(tmp_path: Path) -> None:
    data = again(tmp_path, png(noise(3), chunk(b"eXIf", exif_block(1))), "tiff")
    before, after = tags_of(data), tags_of(again(tmp_path, data))
    for tags in (before, after):
        assert tags[34665][2]["DateTimeOriginal"] == "2020:02:03 04:05:06"
        assert tags[34665][2]["MakerNote"] == b"\0\1made\xff"
        assert tags[34853][2]["GPSLatitudeRef"] == "N"
        assert tags[315][2] == "Someone"


def test_a_smaller_version_in_a_tiff_is_no_page(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(noise(3), photometric="rgb", metadata=None)
        writer.write(noise(3)[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
    assert np.array_equal(read(tmp_path, buffer.getvalue()).pixels, noise(3))
    with pytest.raises(DataError, match=r"photo: "):
        read(tmp_path, images()["pages.tif"])


# --- WebP and BMP ---


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("channels", [3, 4])
def test_a_lossless_webp_comes_back(tmp_path: Path, channels: int, orientation: int) -> None:
    samples = noise(channels)
    options = {"exif": exif_block(orientation), "xmp": XMP, "icc_profile": SRGB}
    data = encoded(Image.fromarray(samples), "WEBP", lossless=True, exact=True, **options)
    photograph = read(tmp_path, data)
    assert np.array_equal(photograph.pixels, TURNED[orientation](samples[..., :3]))
    back = encode_photograph(photograph, photograph.pixels)
    decoded = cv2.imdecode(np.frombuffer(back, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded[..., [2, 1, 0, 3][:channels]], samples)
    before, after = riff(data), riff(back)
    assert b"VP8L" in after
    for name in (b"ICCP", b"EXIF", b"XMP "):
        assert before[name] == after[name]


def test_a_lossy_webp_stays_lossy_and_a_quality_makes_it_so(tmp_path: Path) -> None:
    assert b"VP8 " in riff(again(tmp_path, images()["lossy.webp"]))
    assert b"VP8 " in riff(again(tmp_path, images()["lossless.webp"], quality=90))
    assert b"VP8L" in riff(again(tmp_path, images()["colour.png"], "webp"))
    assert b"VP8 " in riff(again(tmp_path, images()["colour.jpg"], "webp"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_bmp_comes_back(tmp_path: Path, channels: int) -> None:
    samples = noise(channels)
    bgr = samples if channels == 1 else samples[..., [2, 1, 0, 3][:channels]]
    data = bytearray(cv2.imencode(".bmp", bgr)[1].tobytes())
    data[38:46] = struct.pack("<ii", 3000, 4001)
    back = again(tmp_path, bytes(data))
    decoded = cv2.imdecode(np.frombuffer(back, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded, bgr if channels > 1 else bgr[..., 0])
    assert struct.unpack_from("<ii", back, 38) == (3000, 4001)
    assert np.array_equal(read(tmp_path, back).pixels, colours(samples))


# --- JPEG ---


def jpeg(orientation: int = 1, *more: bytes, **options: Any) -> bytes:
    data = encoded(picture(64, 80), "JPEG", **{"quality": 83, **options})
    exif = segment(0xE1, b"Exif\0\0" + exif_block(orientation))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    (length,) = struct.unpack_from(">H", data, 4)
    head = 4 + length
    return data[:head] + b"".join((exif, xmp, *more)) + data[head:]


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_comes_back(tmp_path: Path, subsampling: int, progressive: bool, orientation: int) -> None:
    more = (segment(0xED, b"Photoshop 3.0\0x"), segment(0xFE, b"a comment"), segment(0xE7, b"whose"))
    data = jpeg(orientation, *more, subsampling=subsampling, progressive=progressive, dpi=(300, 200))
    photograph = read(tmp_path, data)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert np.abs(photograph.pixels - TURNED[orientation](expected[..., ::-1]).astype(int)).mean() < 1
    back = encode_photograph(photograph, photograph.pixels)
    for markers in (range(0xE0, 0xF0), (0xFE,), (0xDB,), (0xC0, 0xC2)):
        assert [each for each in segments(back) if each[0] in markers] == [
            each for each in segments(data) if each[0] in markers
        ]
    assert np.abs(read(tmp_path, back).pixels.astype(int) - photograph.pixels).mean() < 1.5


def test_a_grey_jpeg_stays_grey(tmp_path: Path) -> None:
    data = encoded(picture().convert("L"), "JPEG", quality=71)
    back = again(tmp_path, data)
    for marker in (0xDB, 0xC0):
        assert [each for each in segments(back) if each[0] == marker] == [
            each for each in segments(data) if each[0] == marker
        ]


def test_the_parts_of_other_pictures_and_colours_are_left_out(tmp_path: Path) -> None:
    data = jpeg(1, segment(0xE2, b"MPF\0xx"), segment(0xEE, b"Adobe\0d\0\0\0\0\1"), segment(0xE2, b"other"))
    kept = [body for marker, body in segments(again(tmp_path, data)) if marker in (0xE2, 0xEE)]
    assert kept == [b"other"]


@pytest.mark.parametrize("marked", [True, False])
def test_a_jpeg_of_rgb_stays_one(tmp_path: Path, marked: bool) -> None:
    data = encoded(picture(64, 80), "JPEG", keep_rgb=True, quality=90, subsampling=0)
    assert segments(data)[0][0] == 0xEE
    expected = np.asarray(Image.open(io.BytesIO(data)))
    if not marked:  # its channels are named R, G, B
        data = data[:2] + data[2 + 16 :]
    back = again(tmp_path, data)
    assert [body[-1] for marker, body in segments(back) if marker == 0xEE] == [0]  # Adobe's word for: as it is
    for marker in (0xDB, 0xC0):
        assert [each for each in segments(back) if each[0] == marker] == [
            each for each in segments(data) if each[0] == marker
        ]
    for decoded in (
        np.asarray(Image.open(io.BytesIO(back))),
        cv2.imdecode(np.frombuffer(back, np.uint8), 1)[..., ::-1],
    ):
        assert np.abs(decoded.astype(int) - expected).mean() < 1


def test_quality_overrides_the_tables_and_nothing_else(tmp_path: Path) -> None:
    back = again(tmp_path, jpeg(subsampling=2), quality=50)
    wanted = jpeg(subsampling=2, quality=50)
    for marker in (0xDB, 0xC0):
        assert [each for each in segments(back) if each[0] == marker] == [
            each for each in segments(wanted) if each[0] == marker
        ]


def test_noise_in_a_progressive_jpeg_of_the_highest_quality(tmp_path: Path) -> None:
    loud = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    data = encoded(Image.fromarray(loud), "JPEG", quality=100, subsampling=0)
    photograph = read(tmp_path, data)
    extreme = (photograph.pixels > 127).astype(np.uint8) * 255
    best = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    best += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    for variant in (data, cv2.imencode(".jpg", loud, best)[1].tobytes()):
        back = encode_photograph(read(tmp_path, variant), extreme)
        decoded = cv2.imdecode(np.frombuffer(back, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(decoded.astype(int) - extreme).mean() < 3


def test_a_cmyk_jpeg_becomes_rgb_without_its_profile(tmp_path: Path) -> None:
    data = encoded(picture().convert("CMYK"), "JPEG", icc_profile=profile(b"CMYK"), quality=95)
    back = again(tmp_path, data)
    assert Image.open(io.BytesIO(back)).mode == "RGB"
    assert b"ICC_PROFILE" not in back
    assert b"Adobe" not in back


def test_a_jpeg_cannot_hold_alpha(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"photo.*png.*webp.*tiff"):
        again(tmp_path, png(noise(4)), "jpg")
    for dtype in (np.uint8, np.uint16):
        opaque = noise(4, dtype)
        opaque[..., 3] = np.iinfo(dtype).max
        assert again(tmp_path, png(opaque), "jpg")[:2] == b"\xff\xd8"
        opaque[7, 9, 3] -= 1
        with pytest.raises(DataError, match=r"transparent"):
            again(tmp_path, png(opaque), "jpg")


# --- from kind to kind ---


def original(kind: Kind, orientation: int) -> bytes:
    if kind == "png":
        more = (chunk(b"iCCP", b"p\0\0" + zlib.compress(SRGB)), chunk(b"eXIf", exif_block(orientation)))
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        return png(np.asarray(picture()), *more, text, chunk(b"pHYs", struct.pack(">IIB", 11811, 7874, 1)))
    if kind == "tiff":
        buffer = io.BytesIO()
        wanted = Image.Exif()
        wanted.load(b"Exif\0\0" + exif_block(orientation))
        wanted[700] = XMP
        picture().save(buffer, "TIFF", exif=wanted, icc_profile=SRGB, dpi=(300, 200))
        return buffer.getvalue()
    options = {"exif": exif_block(orientation), "icc_profile": SRGB, "xmp": XMP}
    if kind == "webp":
        return encoded(picture(), "WEBP", lossless=True, **options)
    options["exif"] = b"Exif\0\0" + options["exif"]
    return encoded(picture(), "JPEG", quality=95, dpi=(300, 200), **options)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("target", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("source", ["png", "jpg", "webp", "tiff"])
def test_metadata_goes_from_kind_to_kind(tmp_path: Path, source: Kind, target: Kind, orientation: int) -> None:
    data = original(source, orientation)
    photograph = read(tmp_path, data)
    back = encode_photograph(photograph, photograph.pixels, target)
    image = Image.open(io.BytesIO(back))
    assert {"jpg": "JPEG"}.get(target, target.upper()) == image.format
    assert image.info["icc_profile"] == SRGB
    xmp = image.info.get("xmp")
    assert xmp == XMP
    exif = image.getexif()
    assert exif[315] == "Someone"
    assert exif[274] == orientation
    assert exif.get_ifd(34665)[36867] == "2020:02:03 04:05:06"
    assert exif.get_ifd(34665)[37500] == b"\0\1made\xff"
    assert exif.get_ifd(34853)[1] == "N"
    if "webp" not in (source, target):
        assert image.info["dpi"] == pytest.approx((300, 200), abs=0.6)
    # Pillow tells the upright size of a TIFF alone.
    assert image.size == ((24, 32) if (target, orientation) == ("tiff", 6) else (32, 24))
    assert np.abs(read(tmp_path, back).pixels.astype(int) - photograph.pixels).mean() < 3


@pytest.mark.parametrize("kind", ["jpg", "webp", "bmp"])
def test_sixteen_bits_are_rounded_for_kinds_of_eight(tmp_path: Path, kind: Kind) -> None:
    deep = np.full((HEIGHT, WIDTH, 3), 200 * 257 + 130, np.uint16)
    pixels = read(tmp_path, again(tmp_path, png(deep), kind)).pixels
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 201).max() <= (1 if kind == "jpg" else 0)


def test_a_profile_of_grey_is_none_of_a_webp(tmp_path: Path) -> None:
    part = chunk(b"iCCP", b"p\0\0" + zlib.compress(profile(b"GRAY")))
    for kind in ("tiff", "jpg"):  # which have grey
        assert profile(b"GRAY") in again(tmp_path, png(noise(1), part), kind)  # type: ignore[arg-type]
    assert b"ICCP" not in riff(again(tmp_path, png(noise(1), part), "webp"))


def test_a_bmp_lies_upright(tmp_path: Path) -> None:
    back = again(tmp_path, png(noise(3), chunk(b"eXIf", exif_block(6))), "bmp")
    decoded = cv2.imdecode(np.frombuffer(back, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded[..., ::-1], TURNED[6](noise(3)))


def test_exif_too_long_for_a_jpeg_leaves_it_upright(tmp_path: Path) -> None:
    long = exif_block(6, maker=bytes(70_000))
    back = again(tmp_path, png(np.asarray(picture()), chunk(b"eXIf", long)), "jpg")
    assert Image.open(io.BytesIO(back)).size == (24, 32)
    assert all(not body.startswith(b"Exif") for _, body in segments(back))


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_too_long_a_side_for_a_kind_is_said(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(DataError, match=r"photo.*png"):
        again(tmp_path, png(np.zeros((1, 66_000, 3), np.uint8)), kind)


# --- what is refused ---


@pytest.mark.parametrize("name", ["float.tif", "pages.tif", "moving.png", "moving.webp"])
def test_what_is_no_photograph_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: "):
        read(tmp_path, images()[name], name)


@pytest.mark.parametrize("dtype", [np.uint32, np.int16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_of_other_kinds_are_refused(tmp_path: Path, channels: int, dtype: Any) -> None:
    with pytest.raises(DataError, match=r"photo: "):
        read(tmp_path, tiff(noise(channels).astype(dtype)))


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", HEIGHT * WIDTH)
    files = (png(noise(3)), tiff(noise(4, np.uint16)))
    for data in files:
        assert np.array_equal(read(tmp_path, data).pixels.shape, (HEIGHT, WIDTH, 3))
    monkeypatch.setattr(reading, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    for data in files:
        with pytest.raises(DataError, match=r"photo: declares 34x21 pixels"):
            read(tmp_path, data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_file_cut_in_its_pixels_is_refused(tmp_path: Path, dtype: Any) -> None:
    for data in (png(noise(3, dtype)), tiff(noise(3, dtype))):
        with pytest.raises(DataError, match=r"photo: "):
            read(tmp_path, data[: len(data) * 2 // 3])
    flipped = bytearray(png(noise(3, dtype)))
    flipped[len(flipped) // 2] ^= 0x40
    with pytest.raises(DataError, match=r"photo: damaged"):
        read(tmp_path, bytes(flipped))


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF whose first directory has another number in a tag."""
    changed = bytearray(data)
    (place,) = struct.unpack_from("<I", data, 4)
    for at in range(place + 2, place + 2 + 12 * struct.unpack_from("<H", data, place)[0], 12):
        if struct.unpack_from("<H", data, at) == (tag,):
            struct.pack_into("<HII", changed, at + 2, 4, 1, value)
    return bytes(changed)


@pytest.mark.parametrize(
    "changes", [{322: 2**32 - 1}, {323: 2**32 - 1}, {256: 2**32 - 1, 257: 0}, {256: 0}, {278: 0}, {277: 65535}], ids=str
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_absurd_numbers_in_a_tiff_are_one_line(tmp_path: Path, dtype: Any, changes: dict[int, int]) -> None:
    data = tiff(noise(3, dtype), compression="zlib", **({"tile": (16, 16)} if {322, 323} & set(changes) else {}))
    for tag, value in changes.items():
        data = with_tag(data, tag, value)
    try:
        photograph = read(tmp_path, data)
    except DataError as error:
        assert str(error).startswith(str(tmp_path / "photo"))  # noqa: PT017 - either way will do
    else:
        assert np.array_equal(photograph.pixels, noise(3, dtype))


@pytest.mark.parametrize("start", [b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"])
@pytest.mark.parametrize("place", [b"\xff" * 8, b"\x80" + bytes(7), bytes(7) + b"\x80"])
def test_absurd_places_in_a_tiff_are_one_line(tmp_path: Path, start: bytes, place: bytes) -> None:
    at = struct.pack("<Q" if start[:1] == b"I" else ">Q", 16)
    for data in (start + place, start + at + place, start + at + place + bytes(100)):
        with pytest.raises(DataError, match=r"photo: "):
            read(tmp_path, data)


@pytest.mark.parametrize("whole", [True, False])
def test_thousands_of_directories_in_one_are_read_once(tmp_path: Path, whole: bool) -> None:
    count = 20_000
    start = 8 + 2 + 12 * count + 4
    pointers = struct.pack("<HHII", 34665, 4, 1, start) * count
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, 0) for tag in range(count if whole else count - 1))
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + pointers + bytes(4) + struct.pack("<H", count) + entries
    with in_time():
        again(tmp_path, png(noise(3), chunk(b"eXIf", block)), "tiff")


def test_seven_hundred_damaged_files_are_photographs_or_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 2_000_000)
    found: Counter[bool] = Counter()
    for number, (name, data) in enumerate(damaged_images(700)):
        try:
            with in_time():
                photograph = read(tmp_path, data, name)
        except DataError as error:
            assert name in str(error)  # noqa: PT017 - either way will do
            assert "\n" not in str(error)  # noqa: PT017
            found[False] += 1
            continue
        found[True] += 1
        if photograph.pixels.size < 100_000:
            kinds: tuple[Kind | None, ...] = (None, "png", "tiff", "webp", "bmp")
            try:
                with in_time():
                    encode_photograph(photograph, photograph.pixels, kinds[number % 5])
            except DataError as error:
                assert name in str(error)  # noqa: PT017
    assert found[True] > 60
    assert found[False] > 300


def test_a_bomb_in_the_metadata_is_no_gigabyte(tmp_path: Path) -> None:
    bomb = zlib.compress(SRGB + bytes(40 << 20))
    for part in (chunk(b"iCCP", b"p\0\0" + bomb), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)):
        try:
            back = again(tmp_path, png(noise(3), part), "tiff")
            assert len(back) < 1 << 20
        except DataError as error:
            assert "photo" in str(error)  # noqa: PT017 - either way will do
