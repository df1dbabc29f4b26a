"""``basicsr prepare labels`` and ``lmdb`` in parts: all parts together are what one process makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from several import free_port
from test_commands import refused
from tiny import write_images

from rainoerme_plugin.commands import main
from rainoerme_plugin.data.sources import LmdbSource

COUNT, PARTS = 7, 3
FILTER = ["type=opening", "window=[1,5]"]


@pytest.fixture
def rainy(tmp_path: Path) -> Path:
    write_images(tmp_path / "rainy", COUNT, size=(20, 26), prefix="rain")
    return tmp_path / "rainy"


def prepare(*arguments: object) -> None:
    assert main(["prepare", *map(str, arguments)]) == 0


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def contents(root: Path) -> list[tuple[str, bytes, list[int]]]:
    source = LmdbSource(root)
    return [(source.names[index], source.encoded(index), source.sizes()[index].tolist()) for index in range(COUNT)]


@pytest.mark.parametrize("more", [[], ["--decoded"]])
def test_shards_of_a_folder_are_its_lmdb(rainy: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    prepare("lmdb", rainy, "-o", rainy.with_name("one.lmdb"), *more)
    for number in (2, 3, 1):
        prepare("lmdb", rainy, "-o", rainy.with_name("parts.lmdb"), "--part", f"{number}/{PARTS}", *more)
    assert "3 images in " in (out := capsys.readouterr().out)
    assert "parts.lmdb, part 1/3\n" in out
    assert contents(rainy.with_name("parts.lmdb")) == contents(rainy.with_name("one.lmdb"))
    prepare("check", rainy.with_name("parts.lmdb"))
    assert "7 images\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["folder", "cache", "lmdb", "decoded"])
def test_all_parts_of_labels_are_what_one_process_makes(rainy: Path, kind: str) -> None:
    ending = "" if kind in ("folder", "cache") else ".lmdb"
    place, more = "--cache" if kind == "cache" else "-o", ["--decoded"] * (kind == "decoded")
    one, parts = (rainy.with_name(f"{name}{ending}") for name in ("one", "parts"))
    prepare("labels", rainy, *FILTER, place, one, *more)
    found = set()
    for number in (3, 1, 2):
        prepare("labels", rainy, *FILTER, place, parts, *more, "--part", f"{number}/{PARTS}")
        found.add(len(list(parts.rglob("*.png"))) if not ending else len(list(parts.iterdir())))
    assert found == ({3, 5, 7} if not ending else {1, 2, 3})  # nobody made another's
    if ending:
        assert contents(parts) == contents(one)
    else:
        assert files(parts) == files(one)
        assert len(files(one)) == COUNT


@pytest.mark.parametrize("name", ["xla", "meta", "cuda:99", ""])
def test_labels_refuse_a_name_that_is_no_device(rainy: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    line = refused(capsys, "prepare", "labels", rainy, *FILTER, "-o", rainy.with_name("out"), "--device", name)
    assert f"--device {name}: " in line
    assert "; there are auto, cpu" in line
    assert not rainy.with_name("out").exists()


def test_labels_of_shards_are_made_in_other_parts(rainy: Path) -> None:
    shards, parts = rainy.with_name("rainy.lmdb"), rainy.with_name("parts.lmdb")
    for number in (1, 2, 3):
        prepare("lmdb", rainy, "-o", shards, "--part", f"{number}/3")
    for number in (1, 2):
        prepare("labels", shards, *FILTER, "-o", parts, "--cache", rainy.with_name("cache"), "--part", f"{number}/2")
    prepare("labels", rainy, *FILTER, "-o", rainy.with_name("one.lmdb"))
    assert contents(parts) == contents(rainy.with_name("one.lmdb"))


def test_a_part_run_again_finishes_what_was_interrupted(rainy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = rainy.with_name("parts.lmdb")
    broken = rainy / "7.png"
    whole = broken.read_bytes()
    prepare("labels", rainy, *FILTER, "-o", parts, "--part", "1/2")
    broken.write_bytes(whole[:-40])
    assert "7.png: damaged" in refused(capsys, "prepare", "labels", rainy, *FILTER, "-o", parts, "--part", "2/2")
    assert "1 of 2 shards are not there: 2 (half-written)" in refused(capsys, "prepare", "check", parts)
    broken.write_bytes(whole)
    first = files(parts / "00001-of-00002.lmdb")
    for number in (1, 2):
        prepare("labels", rainy, *FILTER, "-o", parts, "--part", f"{number}/2")
    assert files(parts / "00001-of-00002.lmdb") == first
    prepare("labels", rainy, *FILTER, "-o", rainy.with_name("one.lmdb"))
    assert contents(parts) == contents(rainy.with_name("one.lmdb"))
    other = refused(capsys, "prepare", "labels", rainy, "type=median", "-o", parts, "--part", "1/2")
    assert re.search(r"is a part of soft labels \(opening-1x5-\w{8}\), not soft labels \(median", other)


def test_a_wrong_part_is_one_line(rainy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = rainy.with_name("out.lmdb")
    for command in ("lmdb", "labels"):
        assert "--part 4/3: expected K/N" in refused(capsys, "prepare", command, rainy, "-o", out, "--part", "4/3")
        line = refused(capsys, "prepare", command, rainy, "-o", out, "--part", "1/8")
        assert "--part 1/8: 7 images cannot be in 8 parts; take fewer" in line
    line = refused(capsys, "prepare", "lmdb", rainy, "-o", rainy.with_name("out"), "--part", "1/3")
    assert "--part 1/3: the shards' folder must be called NAME.lmdb, got -o " in line
    assert not out.exists()


# --- the engines of docs/scaling.md ---


def environment(**more: str) -> dict[str, str]:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHON": sys.executable, **more}


def test_torchrun_makes_labels_in_parts(rainy: Path) -> None:
    script = (
        f'"$PYTHON" -m rainoerme_plugin prepare labels {rainy} {" ".join(FILTER)} -o {rainy.with_name("parts")} '
        "--part $((RANK + 1))/$WORLD_SIZE"
    )
    launch = ["--nproc_per_node=2", f"--master_port={free_port()}", "--no-python", "bash", "-c", script]
    command = [sys.executable, "-m", "torch.distributed.run", *launch]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert {line.rpartition(", part ")[2] for line in run.stdout.splitlines()} == {"1/2", "2/2"}
    prepare("labels", rainy, *FILTER, "-o", rainy.with_name("one"))
    assert files(rainy.with_name("parts")) == files(rainy.with_name("one"))


def test_a_slurm_array_writes_shards(rainy: Path) -> None:
    script = (
        f'"$PYTHON" -m rainoerme_plugin prepare lmdb {rainy} -o {rainy.with_name("parts.lmdb")} '
        "--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
    )
    tasks = [
        subprocess.Popen(
            ["bash", "-c", script], env=environment(SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_TASK_COUNT="2")
        )
        for number in (1, 2)
    ]
    assert [task.wait(120) for task in tasks] == [0, 0]
    prepare("lmdb", rainy, "-o", rainy.with_name("one.lmdb"))
    assert contents(rainy.with_name("parts.lmdb")) == contents(rainy.with_name("one.lmdb"))
