"""Which files are derained, and where the results go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rainoerme_plugin.errors import OptionError
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
    make(here, "in/a.png", "in/b.gif", "in/c.gif", "in/notes")
    said: list[str] = []
    find_jobs(["in"], "out", tell=said.append)
    assert said == ["in: 3 other files are left alone (.gif, without a suffix)"]


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
