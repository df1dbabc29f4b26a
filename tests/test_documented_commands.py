"""Every command of README, docs, help texts and option files does what it says, in small; or is at least understood."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from rendered import write_photographs
from tiny import write_images, write_network

from rainoerme_plugin.benchmark.options import read_benchmark
from rainoerme_plugin.commands import COMMANDS, build_parser, main
from rainoerme_plugin.config import read_options
from rainoerme_plugin.plugin import register
from rainoerme_plugin.schema import check_options

ROOT = Path(__file__).parent.parent
OURS = r"(?:[A-Z_]+=\S+ )*(?:basicsr|python -m rainoerme_plugin|python scripts/|bash scripts/|torchrun|srun) ?"


class Documented(NamedTuple):
    """A command, and the file that shows it."""

    text: str
    file: str


def documented() -> Iterator[Documented]:
    """All commands, in the order of the files, each once."""
    seen = set()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    helps = sorted((ROOT / "rainoerme_plugin" / "commands").glob("*.py"))
    others = [*helps, *sorted((ROOT / "options").glob("*.yml")), *sorted((ROOT / "scripts").glob("*.py"))]
    for path in [*pages, *others]:
        text = path.read_text("utf-8").replace("\\\n", " ")
        for found in of_page(text) if path.suffix == ".md" else of_lines(text):
            command = " ".join(found.split())
            if command not in seen:
                seen.add(command)
                yield Documented(command, path.relative_to(ROOT).as_posix())


def of_page(text: str) -> Iterator[str]:
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for language, block in fence.findall(text):
        if language not in ("python", "yaml"):
            yield from of_lines(re.sub(r"\n {6,}(?=\[)", " ", block))
    for code in re.findall(r"`([^`]+)`", fence.sub("", text)):
        if re.match(OURS, code) and " " in code:
            yield code


def of_lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        line = re.split(r"\s+(?:#|>)\s", re.sub(r"^[#\s]+", "", line))[0]
        if inner := re.search(r"bash -c '(.*)'", line):
            line = inner[1]
        for part in re.split(r"\s{3,}(?=basicsr)", line):
            if re.match(OURS + r"\S", part) and not re.match(r"basicsr[:=.(]", part):
                yield part.rstrip("\\. \"'\n") if part.count("'") % 2 else part


ALL = list(documented())


# --- how each is tried: the first pattern that fits; one that fits none fails ---


def ours(text: str) -> list[str]:
    """The arguments of ``basicsr`` in a command, without what starts it."""
    words = [word for word in shlex.split(text) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    while words[0] in ("torchrun", "srun", "python", "-m") or words[0].startswith("--"):
        words.pop(0)
    return words[1:]


def run(text: str, place: Path) -> None:
    """It ends well, on tiny images and with a tiny network."""
    arguments = ours(text)
    if "film.mp4" in arguments and find_spec("av") is None:
        arguments.remove("film.mp4")
    assert main([*arguments, *SMALL.get(arguments[0], [])]) == 0


def find_rain(text: str, place: Path) -> None:
    """As `run`, of photographs that have some."""
    write_photographs(place / "datasets" / "rainy", 2)
    run(text, place)


TRAIN = "train.total_iter=2 train.scheduler.start=1 train.scheduler.end=2 datasets.train.crop_size=16 val.val_freq=2"
TRAIN += " datasets.train.batch_size_per_gpu=1 datasets.train.num_worker_per_gpu=0 logger.use_tb_logger=false"
TRAIN += " logger.print_freq=1 logger.save_checkpoint_freq=2 datasets.val.limit=1 --device cpu"
SMALL = {
    "train": TRAIN.split(),
    "test": ["--device", "cpu"],
    "benchmark": ["cost=~", "report=~", "bootstrap=100", "measures=[]", "--device", "cpu"],
    "derain": ["--device", "cpu"],
    "export": ["--weights", "net.pth"],
}


def check(text: str, place: Path) -> None:
    """Its arguments are understood, and its option file with its overrides passes the check."""
    arguments = ours(text)
    parsed, rest = build_parser().parse_known_args(arguments)
    settings = [*getattr(parsed, "settings", []), *rest]
    assert all("=" in word and word[0] != "-" for word in rest)
    option_file = getattr(parsed, "opt", None)
    if option_file is None or option_file.suffix == ".py":
        return
    assert option_file.exists()
    if parsed.command == "benchmark":
        read_benchmark(read_options(option_file, settings))
        return
    options = read_options(option_file, settings)
    if options["network_g"].get("type") == "PretrainedNet":
        options["network_g"]["file"] = "FILE"
    check_options(options, training=parsed.command == "train")


def usage(text: str, place: Path) -> None:
    """What it shows in brackets is what the command takes."""
    command = ours(text)[0]
    (parsers,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    known = {word for action in parsers.choices[command]._actions for word in action.option_strings}
    if command == "prepare":
        known.add("--allow-outside")
    assert {*re.findall(r"(?<![\w-])--?[a-z][\w-]*", text)} - {"-m"} <= known


def script(text: str, place: Path) -> None:
    """The script is there, is valid, and knows the flags."""
    file = re.findall(r"(?:python|bash) (scripts/\w+\.\w+)", text)[0]
    code = (ROOT / file).read_text()
    if file.endswith(".sh"):
        subprocess.run(["bash", "-n", str(ROOT / file)], check=True)
        return
    compile(code, file, "exec")
    flags = re.findall(r"(?<!\S)\[?(--[a-z][\w-]*)", text)
    assert [flag for flag in flags if not re.search(rf'"{flag}"|^    {flag[2:]}: ', code, re.MULTILINE)] == []


def name(text: str, place: Path) -> None:
    """There is such a command."""
    (word,) = re.findall(r"(?:basicsr|rainoerme_plugin) ?(\w*)", text)
    assert not word or word in COMMANDS


Way = Callable[[str, Path], None]
WAYS: list[tuple[str, Way, str]] = [
    (
        r"(torchrun \.\.\. )?(basicsr|python -m rainoerme_plugin)( [a-z]+)?$|basicsr prepare \w+$",
        name,
        "no more than a name",
    ),
    (r".*(python|bash) scripts/", script, "takes minutes to days"),
    (r".*\[--|.*\[KEY|.*\.\.\.|basicsr prepare check --allow", usage, "shows what may be given"),
    (r"basicsr prepare demo", check, "renders for a minute"),
    (r"basicsr derain --weights \S+$", usage, "names no input"),
    (r"basicsr prepare rain", find_rain, ""),
    (r"basicsr (derain|prepare|list|test -opt options/test.yml)", run, ""),
    (r"basicsr export .*--check", run, ""),
    (r"basicsr export", check, "as with --check, which takes ten seconds"),
    (r".*pretrained=", check, "needs a published file of 70 MB"),
    (r"basicsr train -opt (options/distill(_cpu)?\.yml|FILE)", run, ""),
    (r"basicsr benchmark -opt options/benchmark\.yml", run, ""),
    (r".*basicsr (train|test|benchmark) ", check, "takes hours, and data and weights of others"),
    (r"(torchrun|srun) .*(basicsr|-m rainoerme_plugin) ", check, "several processes, on machines with GPUs"),
    (r"torchrun ", lambda text, place: None, "only says what torchrun is given"),
]


def way_of(text: str) -> Way | None:
    return next((way for pattern, way, _ in WAYS if re.match(pattern, text)), None)


PLACES = {
    r"-opt FILE": "-opt options/distill.yml",
    r"(--weights|-w) (FILE|RUN)": r"\1 net.pth",
    r"file=FILE": "file=net.pth",
    r"dataroot=FOLDER\b": "dataroot=val",
    r"FOLDER/\S+": "val",
    r"\b(RAINY|FOLDER|PATH)\b": "datasets/rainy",
    r"\bCLEAN\b": "datasets/clean",
    r"\bOUT\b": "out",
    r"\$SLURM_ARRAY_TASK_ID/\$SLURM_ARRAY_TASK_COUNT|\$\(\(RANK \+ 1\)\)/\$WORLD_SIZE": "1/2",
    r"\bNAME\.lmdb": "name.lmdb",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that commands name, in small."""
    folder = tmp_path_factory.mktemp("documented")
    for rainy in ("datasets/rainy", "rainy", "photographs", "val/rain", "datasets/demo/test/rain"):
        write_images(folder / rainy, 2, size=(32, 32), prefix="rain")
    for clean in ("datasets/clean", "val/norain", "datasets/demo/test/norain"):
        write_images(folder / clean, 2, size=(32, 32))
    first = Image.open(folder / "rainy" / "1.png")
    (folder / "archive" / "1999").mkdir(parents=True)
    first.save(folder / "photo.jpg")
    first.save(folder / "archive" / "1999" / "first.tif")
    write_network(folder / "net.pth")
    for experiment in ("distill", "demo"):
        models = folder / "experiments" / experiment / "models"
        models.mkdir(parents=True)
        shutil.copy(folder / "net.pth", models / "net_g_latest.pth")
        options = (ROOT / "options" / "distill_labels.yml").read_text()
        options = options.replace("_base_: ", f"_base_: {ROOT / 'options'}/").replace("channels: 16 ", "channels: 4 ")
        (models.parent / "options.yml").write_text(options)
    if find_spec("av"):
        write_film(folder / "film.mp4")
    for linked in ("options", "scripts", "rainoerme_plugin"):
        (folder / linked).symlink_to(ROOT / linked)
    return folder


def write_film(path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for level in (50, 100):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8))
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def test_commands_are_found_on_every_page_that_has_some() -> None:
    files = {command.file for command in ALL}
    assert {"README.md", "docs/options.md", "docs/deraining.md", "docs/scaling.md"} <= files
    assert "rainoerme_plugin/commands/derain.py" in files
    assert len(ALL) > 60


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.file}: {command.text}"[:120])
def test_a_documented_command(
    command: Documented, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = way_of(command.text)
    assert way is not None, "a new kind of command: say in WAYS how it is tried"
    if way is run and command.text.startswith("basicsr export"):
        pytest.importorskip("onnxscript")
    place = tmp_path / "here"
    shutil.copytree(template, place, symlinks=True)
    monkeypatch.chdir(place)
    for variable in ("RAINOERME_DATA", "RAINOERME_WEIGHTS"):
        monkeypatch.setenv(variable, os.environ.get(variable, "data"))
    register()
    text = command.text
    if way is not usage:
        for pattern, meant in PLACES.items():
            text = re.sub(pattern, meant, text)
    way(text, place)
