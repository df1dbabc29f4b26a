"""Single images: what becomes of every kind of file, and that writing leaves all or nothing."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, PngImagePlugin

from rainoerme_plugin.data import images
from rainoerme_plugin.data.images import (
    RGB,
    decode_image,
    encode_png,
    read_header,
    to_image,
    to_tensor,
    write_image,
)
from rainoerme_plugin.errors import DataError

HEIGHT, WIDTH = 20, 30
TURNED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}
"""What each orientation tag of EXIF asks a viewer to do."""


def picture(seed: int = 0) -> RGB:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def repeated(grey: np.ndarray) -> RGB:
    return np.stack([grey] * 3, axis=2)


# --- kinds of files ---


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_a_lossless_file_gives_its_pixels_as_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(picture()).save(path, **({"lossless": True} if suffix == "webp" else {}))
    decoded = decode_image(path)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert np.array_equal(decoded, picture())
    assert np.array_equal(decode_image(path.read_bytes(), "some name"), picture())


def test_a_jpeg_agrees_with_opencv(tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(picture()).resize((64, 48), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "image.jpg", quality=90, subsampling=0)
    expected = cv2.imread(str(tmp_path / "image.jpg"))[..., ::-1].astype(int)
    assert np.abs(decode_image(tmp_path / "image.jpg") - expected).max() <= 2


def test_grey_is_repeated_over_three_channels() -> None:
    grey = picture()[..., 0]
    assert np.array_equal(decode_image(encoded(Image.fromarray(grey))), repeated(grey))


def test_one_bit_becomes_black_and_white() -> None:
    bits = picture()[..., 0] > 127
    decoded = decode_image(encoded(Image.fromarray(bits)))
    assert np.array_equal(decoded, repeated(np.where(bits, 255, 0)))


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    deep[0, :4] = 0, 255, 256, 65535
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert read_header(tmp_path / "deep.png").mode == "I;16"
    decoded = decode_image(tmp_path / "deep.png")
    assert np.array_equal(decoded, repeated(deep // 256))
    assert decoded[0, :4, 0].tolist() == [0, 0, 1, 255]


def test_dark_sixteen_bit_grey_stays_dark(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((4, 4), 200, np.uint16))
    assert not decode_image(tmp_path / "dark.png").any()


def test_sixteen_bit_big_endian_grey_keeps_its_upper_byte() -> None:
    deep = np.arange(12).reshape(3, 4) * 5000
    data = encoded(Image.frombytes("I;16B", (4, 3), deep.astype(">u2").tobytes()), "TIFF")
    assert read_header(data, "x").mode == "I;16B"
    assert np.array_equal(decode_image(data), repeated(deep // 256))


def test_sixteen_bit_colour_keeps_its_upper_byte(tmp_path: Path) -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    assert np.array_equal(decode_image(tmp_path / "deep.png"), deep // 256)


def test_sixteen_bits_of_which_zero_is_white_are_turned_over() -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deep, photometric="miniswhite", metadata=None)
    assert np.array_equal(decode_image(buffer.getvalue(), "x"), repeated((65535 - deep) >> 8))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (np.uint32, "whole numbers of 32 bits"),
        (np.int32, "whole numbers of 32 bits"),
        (np.int16, "whole numbers with a sign"),
        (np.int8, "whole numbers with a sign"),
        (np.float32, "floating-point values"),
    ],
)
@pytest.mark.parametrize("largest", [1, 100, 127])
def test_grey_of_unknown_range_is_refused_whatever_it_holds(dtype: Any, largest: int, words: str) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.full((4, 5), largest, dtype), photometric="minisblack", metadata=None)
    with pytest.raises(DataError, match=f"x: holds {words}.*; convert it to 8 or 16 bits first"):
        decode_image(buffer.getvalue(), "x")


@pytest.mark.parametrize("largest", [255, 256])
def test_grey_of_32_bits_has_no_scale_of_its_own(largest: int) -> None:
    with pytest.raises(DataError, match="x: holds whole numbers of 32 bits"):
        decode_image(encoded(Image.fromarray(np.full((4, 5), largest, np.int32)), "TIFF"), "x")


def test_twelve_bits_are_refused_as_they_are_elsewhere() -> None:
    values = np.random.default_rng(1).integers(0, 4096, (2, 4))
    packed = np.packbits((values.reshape(-1, 1) >> np.arange(11, -1, -1)) & 1).tobytes()
    tags = [(256, 4), (257, 2), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, len(packed))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + directory + bytes(4)
    with pytest.raises(DataError, match="x: holds whole numbers of 12 bits; convert it"):
        decode_image(data, "x")


def test_a_palette_is_looked_up() -> None:
    indices = np.random.default_rng(4).integers(0, 4, (HEIGHT, WIDTH)).astype(np.uint8)
    colours = np.array([[10, 20, 30], [200, 100, 0], [0, 0, 255], [77, 77, 77]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    assert np.array_equal(decode_image(encoded(image)), colours[indices])


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    ink = np.array([40, 90, 160, 50])
    image = Image.fromarray(np.tile(ink.astype(np.uint8), (16, 16, 1)), "CMYK")
    expected = 255 * (1 - ink[:3] / 255) * (1 - ink[3] / 255)
    data = encoded(image, "JPEG", quality=100)
    assert read_header(data, "x").mode == "CMYK"
    assert np.abs(decode_image(data) - expected).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_that_hides_nothing_is_dropped(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode.removesuffix("A"))
    expected = np.asarray(image.convert("RGB"))
    image.putalpha(255)
    data = encoded(image)
    assert read_header(data, "x").mode == mode
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_single_transparent_pixel_is_refused(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode.removesuffix("A"))
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[7, 9] = 254
    image.putalpha(Image.fromarray(alpha))
    with pytest.raises(DataError, match=r"rain\.png: has transparent pixels; flatten it onto a background"):
        decode_image(encoded(image), "rain.png")


@pytest.mark.parametrize(("transparent", "used"), [(1, True), (3, False)])
def test_a_transparent_palette_entry_counts_only_if_it_is_used(transparent: int, used: bool) -> None:
    image = Image.new("P", (6, 4))
    image.putpalette([0, 0, 0, 50, 60, 70, 1, 2, 3, 4, 5, 6])
    image.paste(1, (0, 0, 3, 4))
    data = encoded(image, transparency=transparent)
    if used:
        with pytest.raises(DataError, match="transparent pixels"):
            decode_image(data, "x")
    else:
        assert decode_image(data, "x")[0, :, 0].tolist() == [50, 50, 50, 0, 0, 0]


def test_a_transparent_colour_of_an_rgb_file_is_refused_where_it_occurs() -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    assert (decode_image(encoded(image, transparency=(9, 9, 9)), "x") == (1, 2, 3)).all()
    with pytest.raises(DataError, match="transparent pixels"):
        decode_image(encoded(image, transparency=(1, 2, 3)), "x")


# --- orientation ---


@pytest.mark.parametrize("orientation", TURNED)
def test_a_png_follows_its_orientation_tag(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture()), exif=exif)
    expected = TURNED[orientation](picture())
    assert np.array_equal(decode_image(data), expected)
    header = read_header(data, "x")
    assert (header.height, header.width) == expected.shape[:2]


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_other_files_follow_their_orientation_tag(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(picture())
    plain = np.asarray(Image.open(io.BytesIO(encoded(image, kind))).convert("RGB"))
    data = encoded(image, kind, exif=exif)
    assert np.array_equal(decode_image(data), TURNED[orientation](plain))


@pytest.mark.parametrize(("kind", "orientation"), itertools.product(["JPEG", "WEBP", "TIFF"], [3, 6, 8]))
def test_the_header_tells_the_size_after_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    header = read_header(encoded(Image.fromarray(picture()), kind, exif=exif), "x")
    assert (header.height, header.width) == ((WIDTH, HEIGHT) if orientation in (6, 8) else (HEIGHT, WIDTH))


def _xmp(orientation: int) -> str:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    )


def _imagemagick_profile() -> PngImagePlugin.PngInfo:
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes()):8d}\n{exif.tobytes().hex()}\n")
    return info


@pytest.mark.parametrize("where", ["xmp", "imagemagick"])
def test_header_and_pixels_agree_on_the_size_wherever_the_orientation_stands(where: str) -> None:
    image = Image.fromarray(picture())
    if where == "xmp":
        data = encoded(image, "JPEG", xmp=_xmp(6).encode())
    else:
        data = encoded(image, pnginfo=_imagemagick_profile())
    header = read_header(data, "x")
    assert (header.height, header.width) == decode_image(data, "x").shape[:2]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_exif_is_no_traceback(kind: str) -> None:
    data = encoded(Image.fromarray(picture()), kind, exif=b"Exif\x00\x00no TIFF header")
    for read in (read_header, decode_image):
        try:
            read(data, "x")
        except DataError as error:
            assert "x" in str(error)  # noqa: PT017 - either way will do: refused by name, or read without it


# --- damaged files and others ---


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, kind: str) -> None:
    whole = encoded(Image.fromarray(picture()), kind)
    path = tmp_path / "half.img"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match=r"half\.img: (damaged image|not an image).*replace or remove it"):
        decode_image(path)


def test_a_jpeg_that_lacks_its_last_bytes_is_refused() -> None:
    with pytest.raises(DataError, match=r"last\.jpg: damaged image \(.*truncated"):
        decode_image(encoded(Image.fromarray(picture()), "JPEG")[:-2], "last.jpg")


def test_a_flipped_byte_inside_a_png_is_refused() -> None:
    data = bytearray(encoded(Image.fromarray(picture())))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match=r"flipped\.png: damaged image"):
        decode_image(bytes(data), "flipped.png")


@pytest.mark.parametrize("content", [b"", b"not an image, however named", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.png"
    path.write_bytes(content)
    for read in (decode_image, read_header):
        with pytest.raises(DataError, match=r"text\.png: not an image this package reads \(PNG, JPEG, .*or damaged"):
            read(path)


def test_a_gif_is_refused_under_any_suffix(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "rain.png", format="GIF")
    for read in (decode_image, read_header):
        with pytest.raises(DataError, match=r"rain\.png: a GIF, whatever its name says"):
            read(tmp_path / "rain.png")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    for read in (decode_image, read_header):
        with pytest.raises(DataError, match=r"gone\.png: no such file"):
            read(tmp_path / "gone.png")


def test_a_file_that_declares_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(picture()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)  # Pillow's own limit is another's
    monkeypatch.setattr(images, "MAX_PIXELS", HEIGHT * WIDTH)
    assert np.array_equal(decode_image(data, "x"), picture())
    monkeypatch.setattr(images, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    for read in (decode_image, read_header):
        with pytest.raises(
            DataError, match=r"huge\.png: declares 30x20 pixels, more than the 599 that are read; scale"
        ):
            read(data, "huge.png")


def test_the_header_is_read_from_the_first_bytes_alone() -> None:
    data = encoded(Image.fromarray(picture()))
    assert tuple(read_header(data[: len(data) // 2], "x")) == (HEIGHT, WIDTH, "RGB")


# --- tensors ---


def test_a_tensor_holds_the_pixels_over_255_channels_first() -> None:
    tensor = to_tensor(picture())
    assert tensor.dtype == torch.float32
    assert tensor.shape == (3, HEIGHT, WIDTH)
    expected = np.moveaxis(picture().astype(np.float64) / 255, 2, 0)
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-7)


def test_a_tensor_shares_no_memory_with_its_image() -> None:
    grey = np.zeros((1, 1, 3), np.uint8)
    to_tensor(grey).add_(1)
    assert not grey.any()


def test_values_are_rounded_to_the_nearest_and_clamped() -> None:
    values = torch.tensor([-3.0, -0.001, 0.4 / 255, 0.6 / 255, 99.4 / 255, 99.6 / 255, 254.6 / 255, 1.0, 1.2, 7.0])
    image = to_image(values.expand(3, 1, -1))
    assert image.dtype == np.uint8
    assert image[0].tolist() == [[value] * 3 for value in (0, 0, 0, 1, 99, 100, 255, 255, 255, 255)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_every_grey_level_survives_the_way_there_and_back(dtype: torch.dtype) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.stack([levels, levels[::-1], levels.T], axis=2)
    assert np.array_equal(to_image(to_tensor(image).to(dtype)), image)


def test_a_tensor_with_a_gradient_in_any_memory_layout_becomes_an_image() -> None:
    batch = to_tensor(picture())[None].to(memory_format=torch.channels_last).requires_grad_()
    assert np.array_equal(to_image(batch[0]), picture())


# --- writing ---


def test_opencv_reads_what_is_encoded() -> None:
    decoded = cv2.imdecode(np.frombuffer(encode_png(picture()), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded[..., ::-1], picture())


def test_an_image_is_written_into_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "image.png"
    write_image(path, picture())
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], picture())
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((4, 5), 0.5, np.float32), "floating-point values of unknown range"),
        (np.full((4, 5), -1, np.int32), "values beyond 16 bits"),
        (np.full((4, 5), 65536, np.int32), "values beyond 16 bits"),
    ],
)
def test_values_that_no_8_bits_can_stand_for_are_refused(values: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=f"x: .*{words}.*convert it"):
        decode_image(encoded(Image.fromarray(values), "TIFF"), "x")


def test_values_become_eight_bits_by_rounding_or_down_and_eight_bits_stay() -> None:
    levels = torch.tensor([[-3.0, 0.4, 0.5001, 0.9, 36.49, 36.51, 254.99, 300.0]])
    tensor = (levels / 255).expand(3, 1, 8)
    assert to_image(tensor)[0, :, 0].tolist() == [0, 0, 1, 1, 36, 37, 255, 255]
    assert to_image(tensor, "floor")[0, :, 0].tolist() == [0, 0, 0, 0, 36, 36, 254, 255]
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for rounding in ("round", "floor"):
        assert np.array_equal(to_image(to_tensor(every), rounding), every)


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (b"\0\0\0\x18ftypheic", "a HEIC photograph"),
        (b"\0\0\0\x20ftypmif1", "a HEIC photograph"),
        (b"\0\0\0\x1cftypavif", "an AVIF picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b"GIF89a", "a GIF"),
        (b"8BPS\0\1", "a Photoshop file"),
    ],
)
def test_a_picture_of_another_kind_is_told_by_its_content(tmp_path: Path, begin: bytes, kind: str) -> None:
    file = tmp_path / "IMG_1.jpg"
    file.write_bytes(begin + bytes(64))
    with pytest.raises(DataError, match=rf"IMG_1\.jpg: {kind}, whatever .* convert it to JPEG or PNG$"):
        decode_image(file)
