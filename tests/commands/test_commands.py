"""The command line: what each command prints, and that bad input is one line and exit status 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import OPTIONS, benchmark_options, tiny_data, tiny_options, write_images, write_network

from rainoerme_plugin import __version__
from rainoerme_plugin.commands import main
from rainoerme_plugin.config import read_options
from rainoerme_plugin.data.labels import ready_labels
from rainoerme_plugin.data.sources import FolderSource, LmdbSource
from rainoerme_plugin.distillation.filters import build_filter
from rainoerme_plugin.options import DEFAULT_LABEL, LabelOptions, read_section
from rainoerme_plugin.plugin import ENTRIES


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command prints when it refuses."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(lines) == 1
    return lines[0]


def test_the_module_and_the_console_script_are_one_command() -> None:
    module = subprocess.run([sys.executable, "-m", "rainoerme_plugin", "--version"], capture_output=True, text=True)
    script = subprocess.run([Path(sys.executable).parent / "basicsr", "--version"], capture_output=True, text=True)
    assert module.stdout == script.stdout == f"rainoerme_plugin {__version__}\n"


def test_list_shows_the_plugins_classes_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ENTRIES)
    for entry in ENTRIES:
        assert any(line.split()[:2] == [entry.kind, entry.name] and entry.summary in line for line in lines)


def test_list_all_shows_basicsrs_own_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--all"]) == 0
    assert {"EDSR", "SRModel", "calculate_psnr"} <= {line.split()[1] for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("RainOerMeNet", "any size"),
        ("RESCAN", "any size; sees the whole image at once"),
        ("NAFNet", "sizes padded to multiples of its padder_size; sees the whole image at once"),
        ("DerainUNet", "sizes padded to multiples of its stride; sees the whole image at once with attention"),
    ],
)
def test_list_archs_says_what_a_network_needs(name: str, needs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "archs"]) == 0
    about = f"\n{capsys.readouterr().out}".partition(f"\n{name}\n")[2].partition("\n\n")[0]
    (line,) = (line for line in about.splitlines() if line.lstrip().startswith("input"))
    assert line.partition("], ")[2] == needs


@pytest.mark.parametrize("kind", [[], ["archs"], ["--all"], ["mmengine"]], ids=str)
def test_list_is_plain_text_that_fits_a_terminal(
    kind: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["list", *kind]) == 0
    whole = capsys.readouterr().out
    assert "`" not in whole
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["list", *kind]) == 0
        out = capsys.readouterr().out
        assert out.split() == whole.split()
        assert max(len(line) for line in out.splitlines()) <= columns


@pytest.mark.parametrize("command", ["train", "test", "benchmark"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--force_yml", "train:ema_decay=0.9", "val:val_freq=2"],
            "dots between their parts: train.ema_decay=0.9 val.val_freq=2",
        ),
        (["--force_yml"], "dots between their parts: train.total_iter=1000"),
        (["--debug"], "name=debug val.val_freq=8 logger.print_freq=1 logger.save_checkpoint_freq=8"),
    ],
)
def test_flags_of_basicsrs_own_scripts_are_told_what_to_write_here(
    command: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "-opt", "x.yml", *flags])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


def test_overrides_may_stand_on_both_sides_of_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = tiny_options(tiny_data(tmp_path))
    arguments = ["train", "-opt", options, "train.total_iter=1", "--device", "cpu", "name=other", "--root", tmp_path]
    assert main([str(argument) for argument in arguments]) == 0
    assert str(tmp_path / "experiments" / "other" / "models" / "net_g_latest.pth") in capsys.readouterr().out


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "-opt", "x.yml", "--devise", "cpu"])
    assert caught.value.code == 2
    assert "--devise" in capsys.readouterr().err


def test_a_bad_option_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such option file: nowhere.yml" in refused(capsys, "train", "-opt", "nowhere.yml")
    options = tiny_options(tiny_data(tmp_path), train__total_itr=3)
    line = refused(capsys, "train", "-opt", options, "--root", tmp_path)
    assert str(options) in line
    assert not (tmp_path / "experiments").exists()


# --- prepare check ---


def test_check_reports_counts_sizes_and_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "some", 3)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "some" / "grey.png")
    assert main(["prepare", "check", str(tmp_path / "some")]) == 0
    out = capsys.readouterr().out
    assert "4 images" in out
    assert "width 30 to 48, height 20 to 40: 48x40 (3), 30x20 (1)" in out
    assert "converted when read: 1 L" in out


def test_check_names_the_pairing_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_data(tmp_path) / "val"
    assert main(["prepare", "check", str(root)]) == 0
    assert "2 pairs by the rule 'same name'" in capsys.readouterr().out


def test_check_reads_everything_and_names_every_broken_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path, 3)
    for name in ("1.png", "3.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-40])
    (tmp_path / "4.jpg").write_text("not an image")
    assert main(["prepare", "check", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    broken = [line for line in captured.out.splitlines() if "broken:" in line]
    assert [name for name in ("1.png", "3.png", "4.jpg") if any(name in line for line in broken)] == [
        "1.png",
        "3.png",
        "4.jpg",
    ]
    assert "3 of what was read cannot be used" in captured.err


def test_check_of_pairs_of_two_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_data(tmp_path) / "val"
    Image.new("RGB", (8, 8)).save(root / "norain" / "2.png")
    assert main(["prepare", "check", str(root)]) == 2
    assert "a pair needs one size" in capsys.readouterr().out


# --- prepare labels, lmdb, demo ---


def test_labels_are_those_of_the_filter_and_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "rainy", 2, prefix="rain")
    arguments = ["prepare", "labels", str(tmp_path / "rainy"), "type=rank", "-o", str(tmp_path / "out"), "percent=20"]
    arguments += ["--cache", str(tmp_path / "cache")]
    assert main(arguments) == 0
    expected = build_filter("rank", percent=20)(np.asarray(Image.open(tmp_path / "rainy" / "1.png")))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "1.png")), expected)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert len(made) == 2
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")} == made
    assert "2 soft labels by rank-1x7-20-" in capsys.readouterr().out


@pytest.mark.parametrize("decoded", [False, True])
def test_labels_go_into_a_folder_or_an_lmdb_without_a_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, decoded: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_images(tmp_path / "rainy", 3, prefix="rain")
    arguments = ["prepare", "labels", str(tmp_path / "rainy"), "type=opening", "window=[1,5]", "-o"]
    assert main([*arguments, str(tmp_path / "folder")]) == 0
    assert main([*arguments, str(tmp_path / "labels.lmdb"), *["--decoded"] * decoded]) == 0
    assert "3 soft labels by opening-1x5-" in capsys.readouterr().out
    opening = build_filter("opening", window=(1, 5))
    rainy, packed = (
        FolderSource(tmp_path / "rainy"),
        ready_labels(FolderSource(tmp_path / "rainy"), tmp_path / "labels.lmdb"),
    )
    for index in range(3):
        expected = opening(np.asarray(Image.open(rainy.where(index))))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "folder" / f"{index + 1}.png")), expected)
        assert np.array_equal(packed.read(index), expected)
        assert packed.encoded(index)[:2] == (b"BM" if decoded else b"\x89P")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "labels.lmdb", "rainy"]


def test_labels_of_an_lmdb_are_found_by_its_keys(tmp_path: Path) -> None:
    write_images(tmp_path / "rainy", 2, prefix="rain")
    lmdb = str(tmp_path / "rainy.lmdb")
    assert main(["prepare", "lmdb", str(tmp_path / "rainy"), "-o", lmdb, "--decoded"]) == 0
    for output in ("made", "made.lmdb"):
        assert main(["prepare", "labels", lmdb, "-o", str(tmp_path / output)]) == 0
        labels = ready_labels(LmdbSource(lmdb), tmp_path / output)
        for index in range(2):
            expected = build_filter("streaks")(np.asarray(Image.open(tmp_path / "rainy" / f"{index + 1}.png")))
            assert np.array_equal(labels.read(index), expected)


def test_labels_to_look_at_are_those_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mmengine.config import Config

    trained_on = [
        read_options(OPTIONS / "distill.yml")["datasets"]["train"]["label"],
        Config.fromfile(OPTIONS / "mmengine" / "distill.py").train_dataloader.dataset.label.to_dict(),
    ]
    write_images(tmp_path / "rainy", 1, prefix="rain")
    command = ["prepare", "labels", str(tmp_path / "rainy"), "-o", str(tmp_path / "look")]
    assert main(command) == 0
    for label in trained_on:
        coarse = read_section(LabelOptions, label, "label").build()
        assert coarse is not None
        assert coarse == read_section(LabelOptions, DEFAULT_LABEL, "label").build()
        assert f"1 soft label by {coarse.key} in" in capsys.readouterr().out or label is trained_on[1]
        seen = np.asarray(Image.open(tmp_path / "look" / "1.png"))
        assert np.array_equal(seen, coarse(np.asarray(Image.open(tmp_path / "rainy" / "1.png"))))
    assert main([*command, "window=[1,13]"]) == 0  # of the same type
    assert "by streaks-1x13-7-34-" in capsys.readouterr().out


def test_labels_need_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "rainy", 1)
    line = refused(capsys, "prepare", "labels", tmp_path / "rainy")
    assert "give -o OUT or --cache DIR" in line
    assert "makes them as it goes" in line
    line = refused(capsys, "prepare", "labels", tmp_path / "rainy", "-o", tmp_path / "out", "--decoded")
    assert "--decoded is for an LMDB" in line
    (tmp_path / "file").touch()
    assert "cannot write the label" in refused(capsys, "prepare", "labels", tmp_path / "rainy", "-o", tmp_path / "file")


def test_a_decoded_lmdb_holds_pixels_and_a_plain_one_the_files(tmp_path: Path) -> None:
    write_images(tmp_path / "some", 3, size=(21, 34))
    for name, more in (("plain.lmdb", []), ("decoded.lmdb", ["--decoded"])):
        assert main(["prepare", "lmdb", str(tmp_path / "some"), "-o", str(tmp_path / name), *more]) == 0
    for index in range(3):
        path = tmp_path / "some" / f"{index + 1}.png"
        assert LmdbSource(tmp_path / "plain.lmdb").encoded(index) == path.read_bytes()
        assert len(LmdbSource(tmp_path / "decoded.lmdb").encoded(index)) == 54 + 21 * 104
        assert np.array_equal(LmdbSource(tmp_path / "decoded.lmdb").read(index), np.asarray(Image.open(path)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["type=opning"], "did you mean 'opening'"),
        (["type=rank", "window=[2,4]"], "window must be two odd numbers"),
        (["type=rank", "percent=much"], r"label.percent: .*'much'"),
        (["type=median", "percent=3"], "the median filter has no argument 'percent'"),
        (["wndow=[1,3]"], "label.wndow: unknown key; did you mean 'window'"),
        (["type=folder", "path=x"], "labels that are made already"),
    ],
)
def test_a_wrong_filter_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    import re

    write_images(tmp_path, 1)
    assert re.search(message, refused(capsys, "prepare", "labels", tmp_path, *settings))


def test_an_lmdb_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "some", 3)
    arguments = ["prepare", "lmdb", str(tmp_path / "some"), "-o", str(tmp_path / "some.lmdb")]
    assert main(arguments) == 0
    assert main(["prepare", "check", str(tmp_path / "some.lmdb")]) == 0
    assert "3 images" in capsys.readouterr().out
    before = (tmp_path / "some.lmdb" / "data.mdb").read_bytes()
    assert "exists already" in refused(capsys, *arguments)
    assert (tmp_path / "some.lmdb" / "data.mdb").read_bytes() == before


def test_the_demo_set_keeps_its_scenes_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "demo", "-o", str(tmp_path)]) == 0
    scenes = {
        part: {path.stem.rstrip("_0123456789") for path in (tmp_path / part).rglob("*.png")}
        for part in ("rainy", "clean", "test")
    }
    assert all(scenes.values())
    assert not scenes["rainy"] & scenes["clean"]
    assert not scenes["test"] & (scenes["rainy"] | scenes["clean"])


def test_nothing_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, "prepare", "labels", tmp_path / "nowhere")
    assert "no such folder" in refused(capsys, "prepare", "lmdb", tmp_path / "nowhere", "-o", tmp_path / "x.lmdb")
    assert "no such folder" in refused(capsys, "prepare", "check", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no images" in refused(capsys, "prepare", "labels", tmp_path / "empty")
    assert not (tmp_path / "x.lmdb").exists()


# --- benchmark ---


def test_a_benchmark_prints_its_table_its_warnings_and_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_network(tiny_data(tmp_path) / "net.pth")
    options = benchmark_options(tmp_path, datasets__pairs__known_as="Rain12", report={"images": 1, "extremes": 0})
    assert main(["benchmark", "-opt", str(options), "--device", "cpu", "--root", str(tmp_path), "name=other"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["pairs", "input"], ["pairs", "opening"], ["pairs", "net"]]
    assert "Warning: pairs has 2 pairs; Rain12 has 12" in lines
    folder = tmp_path / "results" / "other"
    names = ("results.json", "results.csv", "results.md", "report.html")
    assert lines[-4:] == [str(folder / name) for name in names]
    assert all((folder / name).stat().st_size > 100 for name in names)


def test_a_benchmark_that_cannot_be_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = benchmark_options(tiny_data(tmp_path))
    line = refused(capsys, "benchmark", "-opt", options, "--device", "cpu", "--root", tmp_path)
    assert "methods.net: no such checkpoint" in line
    assert "benchmark.yml" in refused(capsys, "benchmark", "-opt", options, "mesures=[]", "--root", tmp_path)
    assert not (tmp_path / "results").exists()


# --- standard streams ---


def test_closed_standard_streams_change_nothing(tmp_path: Path) -> None:
    """What is opened first would have the number of one, and get what libraries print."""
    write_images(tmp_path / "in", 2)
    command = f"{sys.executable} -m rainoerme_plugin derain in -o out --rain --device cpu <&- >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=tmp_path, timeout=120).returncode == 0
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*names, *(f"{name}.rain.png" for name in names)]
    )


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("status", [0, 2])
def test_standard_streams_that_are_none_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stream: str, status: int
) -> None:
    write_images(tmp_path / "in", 1)
    monkeypatch.setattr(sys, stream, None)
    assert main(["derain", str(tmp_path / ("in" if status == 0 else "nowhere")), "-o", str(tmp_path / "out")]) == status
    assert (tmp_path / "out").exists() == (status == 0)
    assert "error" not in capsys.readouterr().out
