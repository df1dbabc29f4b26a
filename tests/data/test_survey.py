"""A survey: what a folder, an LMDB or a set of pairs holds, and what of it is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_images

from rainoerme_plugin import commands
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.data.survey import survey, survey_pairs
from rainoerme_plugin.errors import DataError


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three colour images of one size, a grey one, a deep one, an opaque and a transparent one, two broken."""
    folder = tmp_path / "mixed"
    write_images(folder, 3, size=(40, 48))
    Image.new("L", (30, 20)).save(folder / "grey.png")
    Image.fromarray(np.full((20, 30), 300, np.uint16)).save(folder / "deep.png")
    Image.new("RGBA", (5, 6), (1, 2, 3, 255)).save(folder / "opaque.png")
    Image.new("RGBA", (5, 6), (1, 2, 3, 0)).save(folder / "transparent.png")
    (folder / "cut.png").write_bytes((folder / "1.png").read_bytes()[:-60])
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("no image, and none by name")
    return folder


def test_single_images_are_counted_by_size_and_mode(mixed: Path) -> None:
    found = survey(mixed)
    assert found.where == str(mixed)
    assert found.rule is None
    assert found.count == 9
    assert found.sizes == {(48, 40): 3, (30, 20): 2, (5, 6): 1}
    assert found.modes == {"RGB": 3, "L": 1, "I;16": 1, "RGBA": 1}


def test_every_broken_image_is_named_with_its_reason(mixed: Path) -> None:
    broken = survey(mixed).broken
    assert len(broken) == 3
    for message, (name, reason) in zip(
        broken,
        [("cut.png", "damaged image"), ("text.jpg", "not an image"), ("transparent.png", "transparent pixels")],
        strict=True,
    ):
        assert message.startswith(f"{mixed / name}: ")
        assert reason in message


def test_an_lmdb_is_surveyed_like_its_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "some", 3, size=(10, 14))
    Image.new("L", (7, 8)).save(tmp_path / "some" / "grey.png")
    source = FolderSource(tmp_path / "some")
    images = [(name, source.encoded(index)) for index, name in enumerate(source.names)]
    list(write_lmdb(tmp_path / "some.lmdb", images, 1 << 20))
    found = survey(str(tmp_path / "some.lmdb"))
    assert (found.count, found.rule, found.broken) == (4, None, [])
    assert found.sizes == {(14, 10): 3, (7, 8): 1}
    assert found.modes == {"RGB": 3, "L": 1}


def test_pairs_are_surveyed_by_the_rule_that_finds_them(tmp_path: Path) -> None:
    for number, size in ((1, (9, 7)), (2, (9, 7)), (3, (4, 5))):
        for name in (f"rainy/rain-{number}.png", f"norain-{number}.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.new("RGB", size).save(tmp_path / name)
    found = survey(tmp_path)
    assert (found.rule, found.count, found.broken) == ("rain-N to norain-N", 3, [])
    assert found.sizes == {(9, 7): 2, (4, 5): 1}


def test_broken_pairs_are_named_and_the_others_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "rain", 4, size=(10, 14))
    write_images(tmp_path / "norain", 4, size=(10, 14))
    Image.new("RGB", (3, 3)).save(tmp_path / "norain" / "2.png")
    cut = tmp_path / "norain" / "4.png"
    cut.write_bytes(cut.read_bytes()[:-50])
    found = survey(tmp_path)
    assert (found.rule, found.count) == ("same name", 4)
    assert found.sizes == {(14, 10): 2}
    assert len(found.broken) == 2
    assert "a pair needs one size" in found.broken[0]
    assert "2.png" in found.broken[0]
    assert f"{cut}: damaged image" in found.broken[1]


def test_halves_are_surveyed_as_pairs_where_that_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (10, 6)).save(tmp_path / "1.png")
    Image.new("RGB", (11, 6)).save(tmp_path / "2.png")
    found = survey(tmp_path, "halves-rainy-clean")
    assert (found.rule, found.count) == ("halves-rainy-clean", 2)
    assert found.sizes == {(5, 6): 1}
    assert len(found.broken) == 1
    assert "2.png: 11 pixels wide" in found.broken[0]
    assert survey(tmp_path).rule is None


def test_two_folders_are_surveyed_as_pairs_where_that_is_said(tmp_path: Path) -> None:
    write_images(tmp_path / "wet", 2, size=(10, 14))
    write_images(tmp_path / "dry", 3, size=(10, 14))
    Image.new("RGB", (3, 3)).save(tmp_path / "dry" / "2.png")
    found = survey_pairs(tmp_path / "wet", tmp_path / "dry")
    assert (found.rule, found.count, found.sizes) == ("same name", 2, {(14, 10): 1})
    assert "2.png 3x3; a pair needs one size" in found.broken[0]
    assert found.notes == (f"{tmp_path / 'dry'}: in no pair: 3.png without a rainy one",)


def test_what_is_left_alone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, linked = tmp_path / "rainy", tmp_path / "linked"
    write_images(folder, 2, size=(10, 14))
    write_images(linked, 1, size=(10, 14))
    (folder / "photo.HEIC").write_bytes(b"x")
    (folder / ".hidden").write_bytes(b"x")
    (folder / "more").symlink_to(linked)
    line = f"{folder}: left alone: 1 other file (.heic) and 1 folder (more)"
    assert survey(folder).notes == [line]
    assert FolderSource(linked).notes == []
    assert commands.main(["prepare", "check", str(folder)]) == 0
    assert f"  {line}\n" in capsys.readouterr().out
    for words in (
        ["labels", str(folder), "-o", str(tmp_path / "out")],
        ["lmdb", str(folder), "-o", str(tmp_path / "l.lmdb")],
    ):
        assert commands.main(["prepare", *words]) == 0
        assert line in capsys.readouterr().err


def test_images_that_are_named_after_others_are_told(tmp_path: Path) -> None:
    write_images(tmp_path, 2, size=(10, 14))
    Image.new("RGB", (3, 3)).save(tmp_path / "1.png_derain.png")
    (note,) = survey(tmp_path).notes
    assert note == f"{tmp_path}: named after another image there: 1, the first 1.png_derain.png"


def test_a_check_of_pairs_takes_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "wet", 2, size=(10, 14))
    write_images(tmp_path / "dry", 2, size=(10, 14))
    folders = [str(tmp_path / "wet"), str(tmp_path / "dry")]
    assert commands.main(["prepare", "check", *folders]) == 0
    assert capsys.readouterr().out.count(": 2 images") == 2
    assert commands.main(["prepare", "check", "--pairs", *folders]) == 0
    assert "2 pairs by the rule 'same name'" in capsys.readouterr().out
    for wrong in (folders[:1], [*folders, folders[0]], [*folders, "--layout", "halves-rainy-clean"]):
        assert commands.main(["prepare", "check", "--pairs", *wrong]) == 2
        assert "--pairs takes two folders" in capsys.readouterr().err


def test_a_list_file_is_surveyed_as_pairs(tmp_path: Path) -> None:
    write_images(tmp_path / "some", 2, size=(10, 14))
    (tmp_path / "list.txt").write_text("some/1.png some/2.png\n")
    found = survey(tmp_path / "list.txt")
    assert (found.rule, found.count, found.sizes) == ("list file", 1, {(14, 10): 1})


def test_progress_is_shown_for_images_and_pairs(tmp_path: Path) -> None:
    write_images(tmp_path / "rain", 2)
    write_images(tmp_path / "norain", 2)
    shown: list[tuple[int, str]] = []

    def track(items: object, total: int, title: str) -> object:
        shown.append((total, title))
        return items

    survey(tmp_path, track=track)  # type: ignore[arg-type]
    survey(tmp_path / "rain", track=track)  # type: ignore[arg-type]
    assert shown == [(2, f"reading {tmp_path}"), (2, f"reading {tmp_path / 'rain'}")]


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or list file"):
        survey(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no LMDB"):
        survey(tmp_path / "nowhere.lmdb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pairs found"):
        survey(tmp_path / "empty")


@pytest.mark.parametrize(("part", "count", "rule"), [("SPA", 2, "same name")])
def test_a_real_set_has_nothing_broken(rainoerme_data: Path, part: str, count: int, rule: str) -> None:
    found = survey(rainoerme_data / part)
    assert (found.count, found.rule, found.broken) == (count, rule, [])
    assert found.sizes == {(512, 512): count}


def test_a_data_set_with_a_clean_image_missing_is_not_taken_for_single_images(tmp_path: Path) -> None:
    for name in ("rain-1", "rain-2", "norain-1", "norain-2"):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.png")
    assert survey(tmp_path).rule == "rain-N to norain-N"
    next(tmp_path.glob("norain-*")).unlink()
    with pytest.raises(DataError, match="1 of 2 rainy images have no clean version"):
        survey(tmp_path)
