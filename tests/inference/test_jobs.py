"""Which files are derained, and where the results go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.inference.compare import write_page
from rainoerme_plugin.inference.jobs import Wanted, find_jobs


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(*inputs: str | Path, output: str | Path = "out", **wanted: Any) -> dict[str, str]:
    jobs = find_jobs(inputs, output, Wanted(**wanted), tell=lambda _: None)
    return {str(job.source): job.name for job in jobs}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_keeps_its_structure(here: Path) -> None:
    make(
        here, "in/b.JPG", "in/a.png", "in/deep/er/c.webp", "in/film.mp4", "in/.hidden.png", "in/.git/d.png", "in/e.txt"
    )
    assert found("in") == {
        "in/a.png": "a.png", "in/b.JPG": "b.JPG", "in/film.mp4": "film.mp4", "in/deep/er/c.webp": "deep/er/c.webp"
    }  # fmt: skip
    (video,) = (job for job in find_jobs(["in"], "out") if job.is_video)
    assert video.target == Path("out/film.mp4")


def test_what_is_left_alone_is_told(here: Path) -> None:
    make(here, "in/a.png", "in/b.txt", "in/c.txt", "in/notes")
    said: list[str] = []
    find_jobs(["in"], "out", tell=said.append)
    assert said == ["in: 3 other files are left alone (.txt, without a suffix)"]


def test_videos_of_other_kinds_are_told_how_to_convert(here: Path) -> None:
    make(here, "in/a.png", "in/b.gif", "in/c.MPG")
    said: list[str] = []
    assert [job.name for job in find_jobs(["in"], "out", tell=said.append)] == ["a.png"]
    assert [line.partition(":")[0] for line in said] == ["in/b.gif", "in/c.MPG"]
    assert "convert it first (ffmpeg -i IN -c:v ffv1 -pix_fmt bgr0 OUT.mkv)" in said[0]
    named = find_jobs(["in/b.gif"], "out", Wanted(kind="jpg"))
    assert [(job.name, job.is_video) for job in named] == [("b.gif", True)]


def test_results_of_an_earlier_run_below_the_input_are_no_input(here: Path) -> None:
    make(here, "in/a.png", "in/out/a.png", "in/other/out/b.png")
    assert found("in", output="in/out") == {"in/a.png": "a.png", "in/other/out/b.png": "other/out/b.png"}


def test_patterns_keep_what_is_below_their_fixed_part(here: Path) -> None:
    make(here, "in/a/1.png", "in/b/1.png", "in/b/deep/2.png", "in/b/3.jpg", "x[1].png")
    assert found("in/*/1.png") == {"in/a/1.png": "a/1.png", "in/b/1.png": "b/1.png"}
    assert set(found("in/**/*.png").values()) == {"a/1.png", "b/1.png", "b/deep/2.png"}
    assert found("in/a/[0-9].png") == {"in/a/1.png": "1.png"}
    assert found("x[1].png") == {"x[1].png": "x[1].png"}  # a file's name before it is a pattern


def test_a_file_named_twice_is_one_job(here: Path) -> None:
    make(here, "a.png")
    assert found("a.png", "./a.png", str(here / "a.png")) == {"a.png": "a.png"}


def test_a_chosen_format_changes_pictures_alone(here: Path) -> None:
    make(here, "in/a.jpg", "in/b.mp4")
    assert found("in", kind="png") == {"in/a.jpg": "a.png", "in/b.mp4": "b.mp4"}


def test_two_results_of_one_name_are_refused(here: Path) -> None:
    make(here, "one/a.png", "two/a.png", "three/a.png", "three/a.jpg")
    with pytest.raises(OptionError, match=r"one/a.png and two/a.png would both become out/a.png; .* two folders"):
        found("one/a.png", "two/a.png")
    with pytest.raises(OptionError, match=r"three/a.jpg and three/a.png would both become out/a.png"):
        found("three", kind="png")
    assert len(found("three")) == 2


@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
def test_no_result_takes_an_inputs_place(here: Path, link: str) -> None:
    make(here, "in/a.png", "in/b.png")
    output = here / "in"
    if link != "none":
        output = here / "out"
        output.mkdir()
        (output / "b.png").symlink_to(here / "in/b.png") if link == "symbolic" else (output / "b.png").hardlink_to(
            here / "in/b.png"
        )
    with pytest.raises(OptionError, match=r"b.png is an input itself \(in/b.png\)|a.png is an input itself"):
        found("in/a.png", "in/b.png", output=output)


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["nowhere.png"], "out", r"nowhere.png: no such file or folder \(looked from /"),
        (["no*.png"], "out", r"no\*.png: nothing is called like that"),
        (["empty"], "out", r"empty: no pictures or videos in it \(.png, .*.mp4"),
        (["a.png"], "a.png", r"-o a.png: is a file; it names the folder"),
        (["a.png"], "b.png", r"-o b.png: names the folder for the results, not a file"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is(
    here: Path, inputs: list[str], output: str, message: str
) -> None:
    make(here, "a.png")
    (here / "empty").mkdir()
    with pytest.raises(OptionError, match=message):
        found(*inputs, output=output)
    assert not (here / "out").exists()


def test_further_results_lie_beside_it(here: Path) -> None:
    make(here, "in/a.jpg", "in/a.png")
    assert [str(job.results["rain"]) for job in find_jobs(["in"], "out", Wanted(rain=True))] == [
        "out/a.jpg.rain.png",
        "out/a.png.rain.png",
    ]


# --- what is left alone, and told ---


def told(*inputs: str, output: str = "out", **wanted: Any) -> list[str]:
    said: list[str] = []
    find_jobs(inputs, output, Wanted(**wanted), tell=said.append)
    return said


def test_photographs_that_are_not_read_are_named_with_what_to_do(here: Path) -> None:
    make(here, "in/a.png", *(f"in/{number}.HEIC" for number in range(5)), "in/raw.dng")
    assert told("in") == [
        f"left alone, for photographs of their kind are not read: {which}"
        for which in (
            "in/0.HEIC, in/1.HEIC, in/2.HEIC and 2 more; convert to JPEG or PNG",
            "in/raw.dng; develop to TIFF or JPEG",
        )
    ]
    make(here, "only/a.heic")
    said: list[str] = []
    with pytest.raises(OptionError, match=r"^only: no pictures or videos in it"):
        find_jobs(["only"], "out", tell=said.append)
    assert "only/a.heic; convert to JPEG" in said[0]


def test_linked_folders_are_told_and_linked_files_taken(here: Path) -> None:
    make(here, "in/a.png", "elsewhere/b.png")
    (here / "in/link").symlink_to(here / "elsewhere")
    (here / "in/up").symlink_to(here)
    (here / "in/c.png").symlink_to(here / "elsewhere/b.png")
    assert found("in") == {"in/a.png": "a.png", "in/c.png": "c.png"}
    assert told("in") == ["left alone, for they are links to folders: in/link, in/up; name them as inputs"]
    assert found("in", "in/link") == {"in/a.png": "a.png", "in/c.png": "c.png", "in/link/b.png": "b.png"}
    (here / "out").mkdir()
    (here / "in/results").symlink_to(here / "out")
    assert "in/results" not in told("in")[0]


def test_a_pattern_finds_a_file_once_however_links_lead_there(here: Path) -> None:
    make(here, "in/deep/a.png", "in/b.png")
    (here / "in/deep/up").symlink_to(here / "in")
    assert found("in/**/*.png") == {"in/deep/a.png": "deep/a.png", "in/b.png": "b.png"}


def test_a_folder_that_cannot_be_read_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here, "in/a.png", "in/closed/b.png")
    scandir = os.scandir

    def scan(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert told("in") == ["in/closed: left alone, for it cannot be read (Permission denied)"]


@pytest.mark.parametrize("pattern", ["in/**/*.png", "in/*", "in/**", "i*/**/*.png"])
def test_the_same_line_with_a_pattern_may_be_typed_again(here: Path, pattern: str) -> None:
    make(here, "in/a.png", "in/deep/b.png")
    before = found(pattern, output="in/out")
    assert set(before) == {"in/a.png", "in/deep/b.png"}
    make(here, *(f"in/out/{name}" for name in before.values()), "in/out/compare.jpg")
    assert found(pattern, output="in/out") == before


def test_what_a_shell_makes_of_a_pattern_may_name_the_output_folder(here: Path) -> None:
    make(here, "in/a.png", "in/out/a.png")
    assert found("in/a.png", "in/out", output="in/out") == {"in/a.png": "a.png"}
    assert told("in/a.png", "in/out", output="in/out") == ["in/out: is the folder for the results, and no input"]
    for inputs in (["in/out/a.png"], ["in/out"], ["in/out", "in/out"]):
        with pytest.raises(OptionError, match=r"-o must name another"):
            found(*inputs, output="in/out")
    with pytest.raises(OptionError, match=r"all that it finds is in the folder for the results, in/out"):
        found("in/o*/*.png", output="in/out")


def test_a_pattern_around_which_the_output_folder_is_finds_inputs(here: Path) -> None:
    make(here, "in/a.png", "in/deep/b.png")
    assert found("in/**/*.png", output=".") == {"in/a.png": "a.png", "in/deep/b.png": "deep/b.png"}
    with pytest.raises(OptionError, match=r"in/a.png is an input itself"):
        found("in/*.png", output="in")


def test_a_pattern_with_dots_leads_no_result_out_of_the_output_folder(here: Path) -> None:
    make(here, "x/a/1.png", "x/b/2.png", "3.png")
    assert found("x/*/../b/2.png") == {"x/a/../b/2.png": "2.png"}
    assert found("x/*/../../3.png") == {"x/a/../../3.png": "3.png"}


# --- the list of all that will be written ---


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["in/a.png", "in/a.png.rain.png"], {"rain": True}, r"in/a.png.rain.png would both become out/a.png.rain.png"),
        (["in/a.png", "in/a.png.compare.jpg"], {"side": True}, r"would both become out/a.png.compare.jpg; derain them"),
        (["in/a.jpg", "in/b.png"], {"page": Path("out/a.jpg")}, "the page of before and after would both become"),
        (["in/a.jpg.png", "in/a.jpg.webp"], {"kind": "png"}, "would both become out/a.jpg.png"),
    ],
)
def test_no_result_takes_the_place_of_another(here: Path, names: list[str], wanted: Any, message: str) -> None:
    make(here, *names)
    with pytest.raises(OptionError, match=message):
        found("in", **wanted)


@pytest.mark.parametrize("wanted", [{"rain": True}, {"side": True}, {"page": Path("out/compare.html")}])
def test_no_further_result_takes_an_inputs_place(here: Path, wanted: Any) -> None:
    make(here, "in/a.png", "out/a.png.rain.png", "out/a.png.compare.jpg", "out/compare.html")
    (key,) = wanted
    name = {"rain": "a.png.rain.png", "side": "a.png.compare.jpg", "page": "compare.html"}[key]
    (here / "in/b.png").hardlink_to(here / f"out/{name}")
    with pytest.raises(OptionError, match=rf"^out/{name} is an input itself \(in/b.png\)"):
        found("in", **wanted)


def test_links_in_the_output_folder_do_not_hide_that_two_results_are_one(here: Path) -> None:
    make(here, "in/one/a.png", "in/two/a.png", "out/one/x")
    (here / "out/two").symlink_to("one")
    with pytest.raises(OptionError, match=r"in/one/a.png and in/two/a.png would both become out/two/a.png"):
        found("in")


def test_names_that_differ_in_case_alone_are_refused_where_they_are_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(here, "in/a.png", "in/A.png")
    assert len(found("in")) == 2
    monkeypatch.setattr("rainoerme_plugin.inference.jobs.ignores_case", lambda folder: True)
    with pytest.raises(OptionError, match=r"in/A.png and in/a.png would both become out/a.png"):
        found("in")


@pytest.mark.parametrize("name", ["a.png", "a.png.rain.png", "compare.html"])
def test_a_folder_in_a_results_place_is_refused(here: Path, name: str) -> None:
    make(here, "in/a.png", f"out/{name}/x")
    with pytest.raises(OptionError, match=rf"^out/{name}: is a folder, in the place of a result"):
        found("in", rain=True, page=Path("out/compare.html"))


def test_a_result_in_the_place_of_anothers_folder_is_refused(here: Path) -> None:
    make(here, "one/x.png", "two/x.png/y.png")
    with pytest.raises(OptionError, match=r"^out/x.png: is a folder, in the place of a result"):
        found("one", "two")


def test_what_is_in_the_place_of_a_folder_for_results_is_told(here: Path) -> None:
    make(here, "in/deep/a.png", "out/deep")
    with pytest.raises(OptionError, match=r"^out/deep: is a file, in the place of a folder for results"):
        found("in")
    (here / "link").symlink_to("nowhere")
    with pytest.raises(OptionError, match=r"^link: is a link that leads nowhere, in the place of a folder"):
        found("in", output="link")


def test_a_page_of_somebody_else_is_not_replaced(here: Path) -> None:
    make(here, "in/a.png", "out/compare.html")
    page = Path("out/compare.html")
    with pytest.raises(OptionError, match=r"^out/compare.html: is there, and no page of ours"):
        found("in", page=page)
    assert found("in", page=page, overwrite=True)
    write_page(page, [])
    assert found("in", page=page)


def test_names_that_become_too_long_are_cut(here: Path) -> None:
    name = "x" * 246 + ".png"
    make(here, f"in/{name}")
    (job,) = find_jobs(["in"], "out", Wanted(rain=True, side=True, kind="webp"))
    assert job.name == "x" * 246 + ".webp"
    assert all(len(path.name) <= 255 for path in job.results.values())
    assert len(set(job.results.values())) == 3
    assert job.results["rain"].name.endswith(".rain.png")


def test_that_nothing_more_is_made_of_videos_is_told(here: Path) -> None:
    make(here, "in/a.png", "in/b.mp4")
    line = "--rain and --compare are for pictures: of videos nothing else than the derained one is made"
    assert told("in", rain=True) == told("in/b.mp4", side=True) == told("in/b.mp4", page=Path("x.html")) == [line]
    assert told("in") == told("in/a.png", rain=True) == []
