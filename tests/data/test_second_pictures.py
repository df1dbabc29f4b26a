"""What a file has beside its picture is kept or told, and never claimed and gone."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from damage import chunk, encoded, picture
from PIL import Image

from rainoerme_plugin import commands
from rainoerme_plugin.data.photographs import Kind, Photograph, encode_photograph, left_out, read_photograph

NAMESPACES = {
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "GImage": "http://ns.google.com/photos/1.0/image/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "Device": "http://ns.google.com/photos/dd/1.0/device/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "dc": "http://purl.org/dc/elements/1.1/",
}
EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
GUID = b"0123456789ABCDEF0123456789ABCDEF"


def xmp(attributes: str = "", inner: str = "") -> bytes:
    """XMP with a rating and a title, and more."""
    declared = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {declared} xmp:Rating="4" {attributes}>'
        f"<dc:title><rdf:Alt><rdf:li>Rain &amp; s\u00fcn</rdf:li></rdf:Alt></dc:title>{inner}"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


ITEMS = (
    "<Container:Directory><rdf:Seq>"
    '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
    '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Length="99"/></rdf:li>'
    "</rdf:Seq></Container:Directory>"
)
THUMBNAILS = "<xmp:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>"
CLAIMS = {
    "gain map": xmp('hdrgm:Version="1.0"', ITEMS),
    "motion photo": xmp('GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" GCamera:BurstID="b"'),
    "micro video": xmp('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="99" GCamera:BurstID="b"'),
    "Apple's": xmp('HDRGainMap:HDRGainMapVersion="65536"'),
    "dynamic depth": xmp("", "<Device:Container><Device:Item>x</Device:Item></Device:Container>"),
    "right eye": xmp('GImage:Mime="image/jpeg" GImage:Data="AAAA"'),
    "thumbnails": xmp("", THUMBNAILS),
}
CLAIM = re.compile(rb"hdr-gain-map|GainMap|container/|MotionPhoto|MicroVideo|photos/dd/|GImage|Thumbnails")


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


def xmp_segment(text: bytes) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text)


def jpeg(*segments: bytes, behind: bytes = b"") -> bytes:
    data = encoded(picture(), "JPEG", quality=85)
    return data[:20] + b"".join(segments) + data[20:] + behind


def read(tmp_path: Path, data: bytes) -> Photograph:
    (tmp_path / "photo").write_bytes(data)
    return read_photograph(tmp_path / "photo")


def written(photograph: Photograph, kind: Kind | None = None) -> bytes:
    return encode_photograph(photograph, photograph.pixels, kind)


def xmp_of(data: bytes) -> bytes:
    """By Pillow."""
    return Image.open(io.BytesIO(data)).info.get("xmp", b"")


def expect_the_rest(text: bytes) -> None:
    """What is true of the picture is there, in well-formed XMP."""
    import xml.etree.ElementTree as ElementTree

    tree = ElementTree.fromstring(text.decode())
    description = next(tree.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"))
    assert description.get("{http://ns.adobe.com/xap/1.0/}Rating") == "4"
    assert [each.text for each in tree.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")] == ["Rain & s\u00fcn"]


# --- XMP ---


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_xmp_claims_nothing_that_is_gone(tmp_path: Path, kind: str, name: str) -> None:
    text = CLAIMS[name]
    if kind == "jpg":
        data = jpeg(xmp_segment(text))
    elif kind == "png":
        png = encoded(picture(), "PNG")
        data = png[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text)) + png[33:]
    elif kind == "webp":
        data = encoded(picture(), "WEBP", xmp=text)
    else:
        data = encoded(picture(), "TIFF", tiffinfo={700: text})
    assert xmp_of(data) == text or kind == "png"
    photograph = read(tmp_path, data)
    for target in (None, "jpg", "png", "webp", "tiff"):
        back = written(photograph, target)  # type: ignore[arg-type]
        assert not CLAIM.search(back)
        expect_the_rest(xmp_of(back))
        if "BurstID" in text.decode():
            assert b"BurstID" in xmp_of(back)
    if kind != "jpg":
        assert any("XMP" in what for what in photograph.left_out)


def test_xmp_that_claims_nothing_stays_as_it_is(tmp_path: Path) -> None:
    text = xmp('GDepth:Format="RangeInverse" GDepth:Data="AAAA"')
    assert xmp_of(written(read(tmp_path, jpeg(xmp_segment(text))))) == text
    assert xmp_of(written(read(tmp_path, encoded(picture(), "WEBP", xmp=text)))) == text


@pytest.mark.parametrize("text", [CLAIMS["gain map"][:-30], b'<!DOCTYPE x [<!ENTITY a "b">]>' + CLAIMS["gain map"]])
def test_xmp_that_cannot_be_read_but_mentions_others_is_left_out_and_told(tmp_path: Path, text: bytes) -> None:
    photograph = read(tmp_path, jpeg(xmp_segment(text)))
    assert xmp_of(written(photograph)) == b""
    assert any("XMP" in what for what in photograph.left_out)


def extension(text: bytes) -> list[bytes]:
    """Extended XMP in two segments, the second one first."""
    half, length = len(text) // 2, struct.pack(">I", len(text))
    pieces = ((half, text[half:]), (0, text[:half]))
    return [segment(0xE1, EXTENDED + GUID + length + struct.pack(">I", place) + part) for place, part in pieces]


def test_extended_xmp_with_a_depth_map_is_kept_and_with_a_picture_left_out(tmp_path: Path) -> None:
    main = xmp(f'xmpNote:HasExtendedXMP="{GUID.decode()}" GDepth:Format="RangeInverse"')
    depth = xmp(f'GDepth:Data="{"A" * 500}"')
    photograph = read(tmp_path, jpeg(xmp_segment(main), *extension(depth)))
    back = written(photograph)
    assert photograph.left_out == ()
    assert all(part in back for part in extension(depth))
    assert xmp_of(back) == main
    assert b"HasExtendedXMP" not in written(photograph, "png")
    assert "segments of the kind APP1" in left_out(photograph, "png")

    photograph = read(tmp_path, jpeg(xmp_segment(main), *extension(xmp(f'GImage:Data="{"A" * 500}"'))))
    back = written(photograph)
    assert photograph.left_out == ("pictures within extended XMP",)
    for word in (EXTENDED, b"HasExtendedXMP", b"GDepth", b"GImage"):
        assert word not in back
    expect_the_rest(xmp_of(back))


# --- what stands behind ---


def test_a_gain_map_is_told_and_no_longer_claimed(tmp_path: Path) -> None:
    mpf, iso = segment(0xE2, b"MPF\0xx"), segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0")
    data = jpeg(xmp_segment(CLAIMS["gain map"]), iso, mpf, behind=encoded(picture(seed=2), "JPEG"))
    photograph = read(tmp_path, data)
    back = written(photograph)
    assert photograph.left_out == ("a further picture, the gain map: the result has no HDR version",)
    assert back.count(b"\xff\xd8\xff") == 1
    for word in (b"MPF\0", b"21496", b"hdrgm", b"GainMap"):
        assert word not in back


def test_a_second_eye_is_told(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "MPO", save_all=True, append_images=[picture(seed=1)])
    assert Image.open(io.BytesIO(buffer.getvalue())).n_frames == 2
    photograph = read(tmp_path, buffer.getvalue())
    (what,) = photograph.left_out
    assert what.startswith("a further picture behind the first one")
    assert Image.open(io.BytesIO(written(photograph))).format == "JPEG"
    assert b"MPF\0" not in written(photograph)


def test_a_motion_photo_loses_its_film_and_says_so(tmp_path: Path) -> None:
    film = struct.pack(">I", 24) + b"ftypmp42" + bytes(12) + b"\0\0\0\x08mdat" + b"\xff\xd8" * 20
    photograph = read(tmp_path, jpeg(xmp_segment(CLAIMS["motion photo"]), behind=film))
    assert photograph.left_out == ("the film behind the picture (motion photo)",)
    assert not CLAIM.search(written(photograph))


def test_anything_else_behind_a_picture_is_told_and_padding_is_not(tmp_path: Path) -> None:
    for data, told in ((b"\0" * 100, False), (b"\r\n", False), (b"SEFHxxxx", True)):
        assert bool(read(tmp_path, jpeg(behind=data)).left_out) is told
    for kind in ("PNG", "WEBP"):
        assert read(tmp_path, encoded(picture(), kind)).left_out == ()
        assert read(tmp_path, encoded(picture(), kind) + b"more").left_out == ("data behind the picture",)


# --- parts that results do not take over ---


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (segment(0xE2, b"FPXR\0xx"), "previews (FlashPix)"),
        (segment(0xEB, b"JP\0\1xxxxjumb"), "layers or signatures"),
        (segment(0xEB, b"HDR_RI ver=11"), "layers or signatures"),
        (segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(16) + b"GRAYxx"), "a colour profile"),
    ],
)
def test_segments_of_the_old_pixels_are_told(tmp_path: Path, part: bytes, told: str) -> None:
    photograph = read(tmp_path, jpeg(part))
    assert [what.startswith(told) for what in photograph.left_out] == [True]
    assert part[4:] not in written(photograph)


def test_chunks_of_the_old_pixels_are_told(tmp_path: Path) -> None:
    png = encoded(picture(), "PNG")
    photograph = read(
        tmp_path, png[:33] + chunk(b"caBX", b"x") + chunk(b"gmAP", b"x") + chunk(b"iDOT", b"x") + png[33:]
    )
    assert [what.split(",")[0] for what in photograph.left_out] == ["the chunk caBX", "the chunk gmAP"]
    webp = encoded(picture(), "WEBP", xmp=xmp())
    more = webp[12:] + b"C2PA" + struct.pack("<I", 2) + b"xx"
    data = b"RIFF" + struct.pack("<I", len(more) + 4) + b"WEBP" + more
    assert read(tmp_path, data).left_out == ("the chunk C2PA",)


def test_smaller_versions_and_layers_of_a_tiff_are_told(tmp_path: Path) -> None:
    pixels, buffer = np.asarray(picture()), io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        layers = (37724, 7, 4, b"8BIM", True)
        writer.write(pixels, photometric="rgb", metadata=None, subifds=1, extratags=[layers])
        writer.write(pixels[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
    photograph = read(tmp_path, buffer.getvalue())
    assert [what.split(" ")[0] for what in photograph.left_out] == ["smaller", "layers"]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(pixels, photometric="rgb", metadata=None)
        writer.write(pixels[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
    assert read(tmp_path, buffer.getvalue()).left_out == ("smaller versions of the picture",)


def test_inks_are_told(tmp_path: Path) -> None:
    (what,) = read(tmp_path, encoded(picture().convert("CMYK"), "JPEG")).left_out
    assert what == "its inks (CMYK): the result is RGB"


def test_what_another_kind_of_file_cannot_hold_is_told(tmp_path: Path) -> None:
    def lost(data: bytes, kind: Kind | None) -> set[str]:
        return set(left_out(read(tmp_path, data), kind))

    parts = (segment(0xED, b"Photoshop 3.0\0x"), segment(0xFE, b"a comment"), segment(0xE7, b"whose"))
    assert lost(jpeg(*parts), None) == lost(jpeg(*parts), "jpg") == set()
    assert lost(jpeg(*parts), "png") == {"IPTC and Photoshop's data", "comments", "segments of the kind APP7"}
    assert lost(jpeg(xmp_segment(xmp())), "bmp") == {"XMP, which a bmp cannot hold"}
    png = encoded(picture(), "PNG")
    long = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(inner="<dc:x>" + "y" * 70_000 + "</dc:x>"))
    texts = png[:33] + chunk(b"tEXt", b"Title\0x") + chunk(b"eXIf", b"II*\0" + bytes(70_000)) + long + png[33:]
    assert lost(texts, "webp") == {"chunks of the kind tEXt"}
    assert lost(texts, "jpg") == {
        "chunks of the kind tEXt", "EXIF, which a jpg cannot hold", "XMP, which a jpg cannot hold"
    }  # fmt: skip
    buffer = io.BytesIO()
    deep, iptc = np.full((4, 5, 3), 300, np.uint16), (33723, 7, 4, b"\x1c\2\0\0", True)
    tifffile.imwrite(buffer, deep, photometric="rgb", metadata=None, extratags=[iptc])
    assert lost(buffer.getvalue(), "png") == {"IPTC"}
    assert lost(buffer.getvalue(), "jpg") == {"IPTC", "the lower 8 of its 16 bits, which a jpg has not"}


def test_the_command_tells_once_of_many_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder: Any = tmp_path / "photographs"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(jpeg(behind=encoded(picture(seed=2), "JPEG")))
    (folder / "plain.jpg").write_bytes(jpeg())
    assert commands.main(["derain", str(folder), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "not in the result" in line]
    assert len(told) == 1
    assert re.fullmatch(rf"{folder}/\d\.jpg and 2 more: not in the result: a further picture behind .*", told[0])
