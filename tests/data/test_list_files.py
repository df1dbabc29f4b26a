"""Lists of pairs that come from anyone: they name files of their own folder, and whatever is in them is one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from damage import images, in_time, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rainoerme_plugin import commands
from rainoerme_plugin.benchmark.testsets import open_test_set
from rainoerme_plugin.data.pairing import Pair, find_pairs
from rainoerme_plugin.data.survey import survey
from rainoerme_plugin.errors import DataError
from rainoerme_plugin.registered.datasets import PairedRainDataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set with a pair in it, beside a pair outside."""
    root = tmp_path / "set"
    for folder in (root, tmp_path / "outside"):
        (folder / "sub").mkdir(parents=True)
        for number, name in enumerate(("r.png", "c.png", "sub/r.png", "a rainy one.png")):
            picture(seed=number).save(folder / name)
    return root


def listed(root: Path, text: str | bytes) -> Path:
    path = root / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, words: str, *, allow_outside: bool = False) -> None:
    with in_time(), pytest.raises(DataError, match=words) as caught:
        find_pairs(path, allow_outside=allow_outside)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# --- what a list may hold ---


@pytest.mark.parametrize(
    "text", ["r.png c.png\n", "\ufeffr.png c.png", "r.png c.png\r\n\r\n", "r.png\tc.png\r", "/r.png /c.png"]
)
def test_lists_of_every_editor_are_read(root: Path, text: str) -> None:
    assert find_pairs(listed(root, text)).pairs == [Pair(root / "r.png", root / "c.png")]


def test_a_path_with_spaces_goes_into_quotes(root: Path) -> None:
    found = find_pairs(listed(root, '"a rainy one.png" c.png\n"/r.png" "c.png"\n'))
    assert [pair.rainy.name for pair in found.pairs] == ["a rainy one.png", "r.png"]
    refused(listed(root, "a rainy one.png c.png"), r'line 1: expected .* a path with spaces goes into "double quotes"$')


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (images()["colour.png"], r"cannot be read as a list of pairs \('utf-8' codec"),
        (b"r.png c.png\n" + bytes([0xFF]) * 10, "cannot be read as a list of pairs"),
        (b"x" * 100_000_000, r"line 1: longer than two paths can be; is it a list of pairs\?$"),
        (b"r.png c.png\n" + b"x " * 50_000, "line 2: longer than two paths"),
        (b"r.png " + b"x" * 5000, "line 1: no such file: "),
        (b"r.png c.png\0", "line 1: no such file: "),
        (b"r.png\0/../../outside/r.png c.png", "line 1: (no such file|.* lies outside)"),
        (b"\0" * 100, "line 1: expected 'rainy_path clean_path', got '"),
        (b"r.png \x1b[2Jgone.png", r"no such file: .*\\x1b\[2Jgone\.png"),
        (b"r.png sub", "line 1: no such file: .*sub"),
        (b". .", r"line 1: no such file: "),
        (b'"" c.png', "line 1: (no such file|expected)"),
        (b'"r.png c.png', "line 1: no such file: "),
        (b"", "lists no pairs"),
        (b"\xef\xbb\xbf", "lists no pairs"),
    ],
)
def test_what_is_no_list_is_one_line(root: Path, content: bytes, words: str) -> None:
    for allow_outside in (False, True):
        refused(listed(root, content), words, allow_outside=allow_outside)


def test_a_list_that_names_itself_has_no_image_there(root: Path) -> None:
    pair = find_pairs(listed(root, "list.txt c.png")).pairs[0]
    with pytest.raises(DataError, match=r"list\.txt: not an image"):
        pair.read()
    assert len(survey(root / "list.txt").broken) == 1


@settings(derandomize=True, max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_line_is_pairs_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any" / "list.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    told = ""
    with in_time():
        try:
            find_pairs(path)
        except DataError as error:
            told = str(error)
    assert "list.txt" in told
    assert "\n" not in told


# --- what lies outside ---


@pytest.mark.parametrize(
    "word", ["../outside/r.png", "sub/../../outside/r.png", "/../outside/r.png", "./../outside/./r.png"]
)
def test_a_path_that_leaves_the_folder_is_refused_unless_it_is_allowed(root: Path, word: str) -> None:
    path = listed(root, f"{word} c.png\n")
    refused(
        path, rf"line 1: {word} lies outside .*set; if that is meant, allow_outside: true of the data set, or basicsr"
    )
    found = find_pairs(path, allow_outside=True)
    assert found.pairs == [Pair(root.parent / "outside" / "r.png", root / "c.png")]


def test_an_absolute_path_is_one_of_the_folder_unless_it_is_allowed(root: Path) -> None:
    outside = root.parent / "outside" / "r.png"
    path = listed(root, f"{outside} /c.png\n")
    refused(path, rf"line 1: no such file: {root}{outside}")
    assert find_pairs(path, allow_outside=True).pairs == [Pair(outside, root / "c.png")]


def test_what_may_help_is_said_of_a_path_that_leads_nowhere(root: Path) -> None:
    outside = root.parent / "outside" / "r.png"
    words = "no such file: .*below the list's folder, .*allow_outside: true of the data set, or .*--allow-outside"
    refused(listed(root, f"{outside} c.png"), words)
    for allow_outside in (False, True):
        words = "no such file: .*; write sub/r.png, with slashes in place of the back slashes"
        refused(listed(root, r"sub\r.png c.png"), words, allow_outside=allow_outside)
    with pytest.raises(DataError, match=r"no such file: .*gone\.png$"):
        find_pairs(listed(root, "gone.png c.png"))


@pytest.mark.parametrize("word", ["sub/../r.png", "./r.png", "sub/../sub/../r.png", "..hidden.png", "sub/..r.png"])
def test_dots_that_stay_in_the_folder_are_allowed(root: Path, word: str) -> None:
    for name in ("..hidden.png", "sub/..r.png"):
        picture().save(root / name)
    assert find_pairs(listed(root, f"{word} c.png")).pairs[0].rainy == Path(os.path.normpath(root / word))


def test_a_link_in_the_folder_is_followed_wherever_it_leads(root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "outside" / "r.png")
    (root / "far").symlink_to(root.parent / "outside")
    found = find_pairs(listed(root, "link.png c.png\nfar/r.png far/c.png"))
    assert [pair.rainy for pair in found.pairs] == [root / "link.png", root / "far" / "r.png"]
    # From a linked folder, too, dots lead to the folder in which the link is.
    assert find_pairs(listed(root, "far/../r.png c.png")).pairs[0].rainy == root / "r.png"
    refused(listed(root, "far/../../outside/r.png c.png"), "lies outside")


def test_links_that_lead_nowhere_are_no_files(root: Path) -> None:
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    for word in ("loop.png", "pipe.png"):
        refused(listed(root, f"{word} c.png"), f"line 1: no such file: .*{word}")


# --- through the data sets and commands ---


def test_data_sets_and_benchmarks_take_the_option(root: Path) -> None:
    path = listed(root, "../outside/r.png c.png\n")
    options = {"name": "val", "type": "PairedRainDataset", "phase": "val", "dataroot": str(path)}
    with pytest.raises(DataError, match=r"^datasets\.val\.dataroot: .*lies outside"):
        PairedRainDataset(options)
    assert len(PairedRainDataset({**options, "allow_outside": True})) == 1
    with pytest.raises(DataError, match="lies outside"):
        open_test_set("pairs", {"dataroot": str(path)})
    assert len(open_test_set("pairs", {"dataroot": str(path), "allow_outside": True}).items) == 1


def test_a_check_reads_what_lies_outside_when_told_to(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = listed(root, "../outside/r.png c.png\n")
    assert commands.main(["prepare", "check", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"basicsr prepare: error: {path}, line 1: ../outside/r.png lies outside")
    assert commands.main(["prepare", "check", "--allow-outside", str(path)]) == 0
    assert "1 pair by the rule 'list file'" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["~no-such-user/set", "x" * 5000, "zero\0byte", "pipe", "gone", ""])
def test_a_place_that_is_none_is_one_line(root: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(root / "pipe")
    for words in (["check"], ["labels", "-o", str(root / "out")], ["lmdb", "-o", str(root / "out.lmdb")]):
        with in_time(60):
            status = commands.main(["prepare", words[0], str(root / "pipe") if where == "pipe" else where, *words[1:]])
        error = capsys.readouterr().err
        assert (status, error.count("\n")) in ((2, 1), (0, 0))
        assert status == 2 or where == ""
    assert not (root / "out").exists()


def test_an_image_is_read_as_its_pair_says(root: Path) -> None:
    pair = find_pairs(listed(root, "r.png c.png")).pairs[0]
    assert np.array_equal(pair.read()[1], np.asarray(picture(seed=1)))
