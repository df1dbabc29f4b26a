"""Whatever an option file or an override holds: success, or one line and exit status 2, soon, and nothing is left."""

from __future__ import annotations

import io
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny import OPTIONS, benchmark_options, tiny_data, tiny_options, write_network

from rainoerme_plugin.benchmark.testsets import TestSet
from rainoerme_plugin.commands import main
from rainoerme_plugin.config import read_options
from rainoerme_plugin.engine import training
from rainoerme_plugin.models.validation import DerainingModel

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
PATIENCE = 10
"""Seconds that a command may take to refuse or to begin."""


class Began(BaseException):
    """A benchmark got as far as its images; what follows is another test's."""


class Hangs(BaseException):
    """A command took too long; no ``except Exception`` of any package ends this."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, a network, and option files that are right; runs end where training would begin."""
    folder = tiny_data(tmp_path_factory.mktemp("bad"))
    write_network(folder / "net.pth")
    tiny_options(folder, path__pretrain_network_g=str(folder / "net.pth"), datasets__train__label_cache=None)
    benchmark_options(folder)
    patch = pytest.MonkeyPatch()
    patch.setattr(training._Run, "go", lambda run: None)
    patch.setattr(DerainingModel, "validation", lambda *arguments: None)
    patch.setattr(TestSet, "survey", _begin)
    patch.chdir(folder)
    yield folder
    patch.undo()


def _begin(*_: object) -> None:
    raise Began


@pytest.fixture(scope="module")
def right(place: Path) -> dict[str, dict[str, Any]]:
    """The options of each command, all in one dict."""
    options = read_options(place / "tiny.yml")
    return {"train": options, "test": options, "benchmark": read_options(place / "benchmark.yml")}


def outcome(*arguments: object) -> str:
    """The line with which a command refuses its options, or nothing if it goes on; nothing else may happen."""
    root = Path("root")
    out, err = io.StringIO(), io.StringIO()
    rest = [] if arguments[0] == "prepare" else ["--root", str(root), "--device", "cpu"]

    def late(number: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = main([*map(str, arguments), *rest])
    except Began:
        status = 0
    except SystemExit as end:  # argparse's
        status = end.code if isinstance(end.code, int) else -1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        left = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        shutil.rmtree(root, ignore_errors=True)
    assert status in (0, 2), err.getvalue()
    lines = [line for line in err.getvalue().splitlines() if "error: " in line]
    assert "Traceback" not in err.getvalue()
    if status == 0:
        assert lines == []
        return ""
    assert len(lines) == 1, err.getvalue()
    assert left == []
    assert out.getvalue() == ""
    assert len(lines[0]) < 2000
    assert lines[0].isprintable()
    return lines[0]


def refused(file: Path, content: str | bytes, *overrides: str, command: str = "train") -> str:
    """The line with which an option file of this content is refused."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    line = outcome(command, "-opt", file, *overrides)
    assert line.startswith(f"basicsr {command}: error: ")
    return line


# --- at random ---

LEAST = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
"""The same examples every time, each as it comes: a test that fails is made smaller by hand."""

NUMBERS: list[Any] = [0, -1, 1, 2, 3, 0.5, -0.5, 1e-9, 1e308, 10**6, 10**9, 10**12, 10**18, 2**63, 10**30, -(10**30)]
NUMBERS += [float("nan"), float("inf"), -float("inf"), True, False, 10**99, 65_537, 1e6, 7.0]
TEXTS = [
    "",
    " ",
    "x",
    "..",
    ".",
    "/",
    "../../x",
    "~no-such-user/x",
    "/dev/zero",
    "/dev/null",
    "a\tb",
    "a\nb",
    "\x1b[31m",
]
TEXTS += ["x" * 300, "ü" * 90, "5e-4", "nan", "1_000", "{}", "{{ $HOME }}", "{{x}}", "${NOWHERE}", "${HOME}", "a/b"]
TEXTS += ["%s", "é", "cuda", "auto", "null", "Adam", "LBFGS", "SGD", "SparseAdam", "Optimizer", "MultiStepLR", "L1Loss"]
TEXTS += ["GANLoss", "SRModel", "EDSR", "PReNet", "PairedImageDataset", "calculate_niqe", "calculate_psnr_pt", "folder"]
BOXES: list[Any] = [[], [[]], {}, {"type": None}, {"type": []}, {"_delete_": True}, {"_delete_": 3}, [1, 2, 3], [None]]
BOXES += [[10**9, 3], ["x"], {"x": {"x": {"x": {}}}}, {"": ""}, [-1, -1], [3, 3], [float("nan")] * 2, {"a.b": 1}]
HOSTILE = st.one_of(st.none(), *map(st.sampled_from, (NUMBERS, TEXTS, BOXES)), st.text(max_size=9))
NEW_KEYS = ["x", "_base_", "_delete_", "text", "filename", "env_variables", "pretty_text", "type", "custom_imports"]


def paths_of(options: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where every key of ``options`` is."""
    if not isinstance(options, dict):
        return []
    return [path for key, value in options.items() for path in ((*above, key), *paths_of(value, (*above, key)))]


def spoil(options: dict[str, Any], data: st.DataObject) -> None:
    """Change one key somewhere: its value, its name, or that it is there."""
    *way, key = data.draw(st.sampled_from(paths_of(options)))
    section = options
    for name in way:
        section = section[name]
    deed = data.draw(st.sampled_from(["value", "value", "value", "value", "delete", "rename", "add", "copy"]))
    if deed == "value":
        section[key] = deepcopy(data.draw(HOSTILE))
    elif deed == "add":
        section[data.draw(st.sampled_from(NEW_KEYS))] = deepcopy(data.draw(HOSTILE))
    elif deed == "copy":
        section[key] = deepcopy(data.draw(st.sampled_from([options, section])))
    else:
        value = section.pop(key)
        if deed == "rename":
            section[data.draw(st.sampled_from([f"{key}s", key[1:], key.upper(), f"{key}_2", "", "\x1b"]))] = value


@pytest.mark.parametrize(("command", "count"), [("train", 600), ("test", 200), ("benchmark", 600)])
def test_wrong_keys_and_values(place: Path, right: dict[str, dict[str, Any]], command: str, count: int) -> None:
    refusals = 0

    @settings(LEAST, max_examples=count)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal refusals
        options = deepcopy(right[command])
        for _ in range(data.draw(st.integers(1, 2))):
            spoil(options, data)
        Path("spoilt.yml").write_text(yaml.dump(options, Dumper=DUMPER, sort_keys=False), "utf-8")
        refusals += outcome(command, "-opt", "spoilt.yml") != ""

    run()
    assert refusals > count / 2


PIECES = [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\t",
    b"\r",
    b"\x85",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\n",
    b"#",
]
PIECES += [
    b"&a ",
    b"*a",
    b"&a [*a]",
    b"&a {b: *a}",
    b"<<: ",
    b"- ",
    b"? ",
    b": ",
    b"|",
    b">",
    b"'",
    b'"',
    b"=",
    b"`",
    b"@",
]
PIECES += [b"!!python/name:os.getcwd ", b"!!binary ", b"!!set ", b"!!int ", b"!!float ", b"!!bool ", b"!!timestamp "]
PIECES += [b"!!str ", b"!!null ", b"!!omap ", b"!<!> ", b'"\\U00110000"', b'"\\uD800"', b'"\\0"', b"%YAML 9.9\n---\n"]
PIECES += [
    b"---\n",
    b"...\n",
    b"on: ",
    b"2001-99-99",
    b"1:2:3",
    b"0x" + b"f" * 200,
    b"9" * 5000,
    b"0o9",
    b"{{ x }}",
    b"${",
]
PIECES += [b"_base_: tiny.yml\n"]


@pytest.mark.parametrize(("file", "count"), [("distill.yml", 350), ("distill_cpu.yml", 100), ("benchmark.yml", 200)])
def test_spliced_bytes(place: Path, file: str, count: int) -> None:
    content = (OPTIONS / file).read_bytes()
    shutil.copy(OPTIONS / "distill.yml", place)
    command = "benchmark" if file == "benchmark.yml" else "train"

    @settings(LEAST, max_examples=count)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        spoilt = content
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(spoilt)))
            gone = data.draw(st.sampled_from([0, 0, 1, 5, 40]))
            piece = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
            spoilt = spoilt[:at] + piece + spoilt[at + gone :]
        Path("spliced.yml").write_bytes(spoilt)
        outcome(command, "-opt", "spliced.yml")

    run()


ENDS = ["", "", "", "", ".x", "..x", ".0", "s"]
VALUES = [
    "",
    "[",
    "{",
    "~",
    "1e999",
    "-1",
    "nan",
    ".nan",
    "[1, 9]",
    "{a: b}",
    "&a [*a]",
    "!!python/name:os.x",
    "*a",
    "1=2",
]
VALUES += ["x" * 300, "9" * 5000, "'", "\0", "\ud800", "2020-02-30", "${NOWHERE}", "{_delete_: true}", "on"]


def test_overrides_at_random(place: Path, right: dict[str, dict[str, Any]]) -> None:
    keys = [".".join(path) for path in paths_of(right["train"])]

    @settings(LEAST, max_examples=250)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        overrides = []
        for _ in range(data.draw(st.integers(1, 2))):
            key = data.draw(st.sampled_from(keys)) + data.draw(st.sampled_from(ENDS))
            overrides.append(f"{key}={data.draw(st.one_of(st.sampled_from(VALUES), st.text(max_size=6)))}")
        outcome("train", "-opt", "tiny.yml", *overrides)

    run()


# --- one by one: files ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys and values, got NoneType"),
        (b"- 1", "expected keys and values, got list"),
        (b"3", "expected keys and values, got int"),
        (b"\xff\xfea\0:\0 \0001\0", "is no text in UTF-8 (invalid start byte at byte 0)"),
        (b"a: \xe9\n", "is no text in UTF-8"),
        (b"a: \0", "unacceptable character #x0000"),
        (b'a: "\\0"', "line 1, column 4: a text with a character that no text may hold"),
        (b'a: "\\uD800"', "a character that no text may hold"),
        (b'a: "\\UFFFFFFFF"', "not valid YAML"),
        (b"a: " + b"x" * 5000, "a text of 5,000 characters; at most 1,000"),
        (b"a: 1\n" * 60_000, "larger than 256 KiB"),
        (b"[" * 100_000, "not valid YAML: line 1, column 31: nested more than 30 deep"),
        (b"{a: " * 50_000, "nested more than 30 deep"),
        (b"- " * 50_000, "nested more than 30 deep"),
        (b"a: " + b"[" * 40 + b"]" * 40, "nested more than 30 deep"),
        (b"a: &a [*a]", "nested more than 30 deep"),
        (b"a: &a {b: *a}", "nested more than 30 deep"),
        (b"&a a: {<<: {b: &c {<<: *c}}}", "nested more than 30 deep"),
        (b"a: *b", "found undefined alias 'b'"),
        (b"a: !!python/object/apply:os.mkdir [victim]", "could not determine a constructor"),
        (b"a: !!python/name:os.getcwd", "could not determine a constructor"),
        (b"a: !!binary aGk=", "could not determine a constructor"),
        (b"a: !!set {x}", "could not determine a constructor"),
        (b"a: !!omap [x: 1]", "could not determine a constructor"),
        (b"a: !!timestamp 2001-01-01", "could not determine a constructor"),
        (b"a: !!int x", "line 1, column 4: 'x' is no int"),
        (b"a: !!int ''", "'' is no int"),
        (b"a: !!float x", "'x' is no float"),
        (b"a: !!bool x", "'x' is no bool"),
        (b"a: " + b"9" * 1000, "a number of 1,000 characters; at most 100"),
        (b"a: 1" + b":1" * 100, "a number of 201 characters"),
        (b"%YAML 1." + b"9" * 5000 + b"\n--- a", "not valid YAML"),
        (b"on: 1", "line 1, column 1: the key True is no text; put it in quotes"),
        (b"~: 1", "the key None is no text"),
        (b"3: 1", "the key 3 is no text"),
        (b"a: {1.5: 1}", "the key 1.5 is no text"),
        (b"? [a]\n: 1", "the key ['a'] is no text"),
        (b"a: 1\na: 2", "line 2, column 1: the key 'a' is given twice"),
        (b"a: 1\n--- \nb: 1", "but found another document"),
        (b"a: {<<: 3}", "expected a mapping or list of mappings for merging"),
        (b"a: {{x}}", "the key {'x': None} is no text"),
        (b"a: '{{ $HOME }}'", "a: templates are not filled in, got '{{ $HOME }}'"),
        (b"a: ${NOWHERE}", "a: the environment variable NOWHERE is not set"),
        (b"a: {_delete_: 3}", "a._delete_: expected true or false, got 3"),
        (b"_base_: ~", "_base_: expected a file name or a list of them, got None"),
        (b"_base_: [3]", "_base_: expected a file name or a list of them, got 3"),
        (b"_base_: nowhere.yml", "no such option file: nowhere.yml (the _base_ of file.yml)"),
        (b"_base_: mmengine::x.yml", "no such option file: mmengine::x.yml"),
        (b"_base_: file.yml", "is its own _base_"),
        (b"_base_: ''", "an option file ends in .yml or .yaml"),
        (b"_base_: /dev/zero", "an option file ends in .yml or .yaml"),
        (b"_base_: folder.yml", "folder.yml (the _base_ of file.yml): expected a file, got a folder"),
        (b"_base_: pipe.yml", "pipe.yml (the _base_ of file.yml): expected a file, got something else"),
        (b"_base_: zero.yml", "zero.yml (the _base_ of file.yml): expected a file, got something else"),
        (b"_base_: circle.yml", "circle.yml (the _base_ of file.yml): cannot be read"),
        (b"_base_: [tiny.yml, tiny.yml]", "tiny.yml and one before it both have the key"),
        (b"_base_: 0.yml", "more than 100 files are read by way of _base_"),
        (b"_base_: tiny.yml\ntrain: {total_iter: {a: 1}}", "train.total_iter: keys cannot be merged into 6"),
        (b"_base_: tiny.yml\ntrain: 3", "train: should be a dictionary, got 3"),
    ],
    ids=lambda value: value[:30].decode("latin1") if isinstance(value, bytes) else "",
)
def test_a_file_is_refused_by_name(place: Path, content: bytes, message: str) -> None:
    prepare_files(place)
    for command in ("train", "test", "benchmark"):
        line = refused(Path("file.yml"), content, command=command)
        if "should be" not in message or command != "benchmark":
            assert message in line
            assert ".yml" in line
    assert not Path("victim").exists()


def prepare_files(place: Path) -> None:
    """What is no file but has an option file's name, and files that inherit from each other a million times."""
    if (place / "folder.yml").exists():
        return
    (place / "folder.yml").mkdir()
    os.mkfifo(place / "pipe.yml")
    (place / "zero.yml").symlink_to("/dev/zero")
    (place / "circle.yml").symlink_to("circle.yml")
    for number in range(4):
        below = "[]" if number == 3 else str([f"{number + 1}.yml"] * 10)
        (place / f"{number}.yml").write_text(f"_base_: {below}")


def test_aliases_do_not_grow_beyond_bounds(place: Path) -> None:
    for opening, closing in (("[", "]"), ("{k: [", "]}")):
        bomb = [f"a0: &a0 {opening}x{closing}"]
        bomb += [f"a{n + 1}: &a{n + 1} {opening}{', '.join([f'*a{n}'] * 9)}{closing}" for n in range(9)]
        assert "more than 100,000 values" in refused(Path("file.yml"), "\n".join(bomb))
    merges = ["a0: &a0 {x: 1}", *(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}" for n in range(9))]
    assert "more than 100,000 values" in refused(Path("file.yml"), "\n".join(merges))


def test_what_files_may_hold(place: Path) -> None:
    Path("file.yml").write_bytes(
        b"\xef\xbb\xbfa: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 2}\nc: *a\n"
        b"d: 2001-02-30\ne: !!float 1e-4\nf: =\n'on': 0x10\n"
    )
    a = {"x": 1, "y": [2, 3]}
    expected = {"a": a, "b": {"x": 2, "y": [2, 3]}, "c": a, "d": "2001-02-30", "e": 1e-4, "f": "=", "on": 16}
    assert read_options("file.yml") == expected


def test_a_variable_is_filled_in_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "${TWO}")
    monkeypatch.setenv("TWO", "${ONE}")
    Path("file.yml").write_text("a: ${ONE} ${TWO}")
    assert read_options("file.yml") == {"a": "${TWO} ${ONE}"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/zero", "an option file ends in .yml or .yaml"),
        (".", "an option file ends in .yml or .yaml"),
        ("~no-such-user/x.yml", "~no-such-user/x.yml: cannot be read"),
        ("x" * 300 + ".yml", ".yml: cannot be read"),
        ("a\0.yml", "a\\x00.yml: cannot be read"),
        ("absent.yml", "no such option file: absent.yml"),
        ("folder.yml", "folder.yml: expected a file, got a folder"),
        ("pipe.yml", "pipe.yml: expected a file, got something else"),
        ("zero.yml", "zero.yml: expected a file, got something else"),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_the_file_itself_may_be_none(place: Path, name: str, message: str) -> None:
    prepare_files(place)
    for command in ("train", "test", "benchmark"):
        assert message in outcome(command, "-opt", name)


# --- one by one: overrides ---


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.total_iter=[", "override 'train.total_iter=[': not valid YAML"),
        ("train.total_iter=" + "[" * 9999, "nested more than 30 deep"),
        ("train.total_iter=&a [*a]", "nested more than 30 deep"),
        ("train.total_iter=" + "9" * 5000, "a number of 5,000 characters"),
        ("train.total_iter=!!python/name:os.getcwd", "could not determine a constructor"),
        ("train.total_iter=" + "1" * 300_000, "longer than 256 KiB"),
        ("a..b=1", "'a..b=1': an override is KEY=VALUE"),
        ("=1", "'=1': an override is KEY=VALUE"),
        (".=1", "an override is KEY=VALUE"),
        ("x." * 5000 + "x=1", "an override is KEY=VALUE"),
        ("train=3", "train: should be a dictionary, got 3"),
        ("datasets.train=null", "datasets.train: should be a dictionary, got None"),
        ("train.total_iter.x=1", "override 'train.total_iter.x=1': train.total_iter: keys cannot be merged into 6"),
        ("train.optim_g.betas.0=1", "train.optim_g.betas: keys cannot be merged into [0.5, 0.999]"),
        ("train={_delete_: 3}", "train._delete_: expected true or false"),
        ("train.total_iter=${NOWHERE}", "train.total_iter: the environment variable NOWHERE is not set"),
        ("train.total_iter=1e999", "train.total_iter: should be an integer, got inf"),
        ("train.total_iter=nan", "train.total_iter: 'nan' is text to YAML"),
        ("train.total_iter=2020-01-01", "train.total_iter: should be an integer, got '2020-01-01'"),
    ],
    ids=lambda value: value[:40],
)
def test_an_override_is_refused(place: Path, override: str, message: str) -> None:
    assert message in outcome("train", "-opt", "tiny.yml", override)


# --- one by one: keys of the schema ---


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=..", "name: expected the name of a file or folder"),
        ("name=.hidden", "no dot first"),
        ("name=a/b", "name: "),
        ("name=../../x", "name: "),
        (f"name={'x' * 300}", "name: expected a name of at most 200 bytes"),
        ("datasets.val.name=../../x", "datasets.val.name: expected the name of a file or folder"),
        ("val.suffix=../x", "val.suffix: expected the name of a file or folder"),
        ("train.total_iter=1" + "0" * 30, "train.total_iter: should be less than or equal to 1000000000000"),
        ("train.total_iter=-1", "train.total_iter: should be greater than or equal to 1"),
        ("train.ema_decay=.nan", "train.ema_decay: should be a finite number"),
        ("train.distillation.hard_max=.inf", "train.distillation.hard_max: should be a finite number"),
        ("train.distillation.gain_range=[3, -3]", "train.distillation: gain_range must be two integers"),
        ("train.distillation.gain_range=[1]", "train.distillation.gain_range: "),
        (
            "datasets.train.label.window=[1000000000, 3]",
            "datasets.train.label.window.0: should be less than or equal to 255",
        ),
        ("datasets.train.crop_size=1000000000000", "is more than any machine can train on at once"),
        ("datasets.train.batch_size_per_gpu=1000000000", "is more than any machine can train on at once"),
        ("datasets.train.num_worker_per_gpu=1000000", "num_worker_per_gpu: should be less than or equal to 256"),
        ("datasets.train.dataroot_rainy=''", "dataroot_rainy: expected a path, or a list of paths, got ''"),
        ("datasets.train.type=[x]", "datasets.train.type: no data set is called ['x']"),
        ("datasets.train.type=PairedRainDataset", "DistillationModel does not train on PairedRainDataset"),
        ("datasets.val.type=UnpairedRainDataset", "UnpairedRainDataset is for training"),
        ("datasets.val.persistent_workers=true", "only datasets.train has processes that read images"),
        ("model_type=[x]", "model_type: no model is called ['x']"),
        ("network_g=~", "network_g: expected keys and values, got None"),
        ("network_g.channels=1000000000", "network_g.channels: expected a number of at most 65536"),
        ("network_g.channels=60000", "network_g: a network of more than 10,000,000,000 parameters"),
        ("network_g={_delete_: true, type: EDSR, num_in_ch: 3, num_out_ch: 3, num_block: 60000}", "more than 20,000"),
        (
            "network_g={_delete_: true, type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 7}",
            "network_g: scale 7 is not",
        ),
        (
            "network_g={_delete_: true, type: DistillationNet, backbone: {type: EDSR, num_in_ch: x, num_out_ch: 3}}",
            "network_g.backbone.num_in_ch: expected a whole number, got 'x'",
        ),
        ("network_g.detail_layers=5", "network_g: detail_layers must be 3"),
        ("network_g.channels=.nan", "network_g.channels: should be an integer, got nan"),
        ("path.pretrain_network_g=3", "path.pretrain_network_g: should be a text"),
        ("path.strict_load_g=3", "path.strict_load_g: should be true or false"),
        ("path.pretrain_network_g=''", "path.pretrain_network_g: should be a text"),
        ("train.optim_g.lr=-1", "train.optim_g: Invalid learning rate: -1"),
        ("train.optim_g.betas=3", "train.optim_g.betas: expected a list such as [0.9, 0.999], got 3"),
        ("train.optim_g={_delete_: true, type: Adam}", "train.optim_g.lr: is missing"),
        ("train.optim_g.type=[x]", "train.optim_g.type: no optimiser ['x'] in torch.optim"),
        ("train.optim_g={_delete_: true, type: LBFGS, lr: 1}", "train.optim_g: "),
        ("train.optim_g={_delete_: true, type: SparseAdam, lr: 1}", "train.optim_g: SparseAdam does not support dense"),
        ("train.scheduler.type=[x]", "train.scheduler.type: no scheduler ['x']"),
        (
            "train.scheduler={_delete_: true, type: MultiStepLR, milestones: 3}",
            "train.scheduler.milestones: should be a list, got 3",
        ),
        ("train.scheduler={_delete_: true, type: CosineAnnealingRestartLR, periods: [1]}", "train.scheduler: "),
        (
            "train.loss_opt.losses=[{type: SSIMLoss, window: 1000000001}]",
            "train.loss_opt.losses.0: window must be at most 1023",
        ),
        (
            "train.loss_opt.losses=[{type: SSIMLoss, sigma: 0}]",
            "train.loss_opt.losses.0: the loss of two images is no finite number",
        ),
        ("train.loss_opt={_delete_: true, type: GANLoss, gan_type: vanilla}", "train.loss_opt: "),
        ("val.metrics.psnr.crop_border=x", "val.metrics.psnr.crop_border: expected a whole number, got 'x'"),
        ("val.metrics.psnr.crop_border=-4", "val.metrics.psnr: of two images it is no finite number"),
        ("val.metrics.psnr.type=calculate_psnr_pt", "val.metrics.psnr: "),
        ("val.tile=1000000000000000", "val.tile: "),
        ("logger.wandb.project=x", "logger: wandb.project needs"),
        ("logger.wandb.projekt=x", "logger.wandb.projekt: unknown key; did you mean 'project'"),
        ("dist_params.port=99999", "dist_params.port: should be less than or equal to 65535"),
        ("dist_params.timeout=x", "dist_params.timeout: "),
    ],
    ids=lambda value: value[:40],
)
def test_a_value_is_refused_by_its_key(place: Path, override: str, message: str) -> None:
    assert message in outcome("train", "-opt", "tiny.yml", override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=..", "name: expected the name of a file or folder"),
        ("methods.opening.filter.window=[1000000001, 1]", "filter.window.0: should be less than or equal to 255"),
        ("methods={'..': {type: input}}", "methods."),
        ("methods.net.type=[x]", "methods.net.type: no kind of method is called ['x']"),
        ("datasets.pairs.type=[x]", "datasets.pairs.type: should be a text, got ['x']"),
        ("bootstrap=1000000000", "bootstrap: should be less than or equal to 100000"),
        ("cost={sizes: [[1000000000, 1000000000]]}", "cost.sizes.0.0: should be less than or equal to 65535"),
        ("methods.net.file=''", "methods.net.file: String should have at least 1 character"),
        (
            "methods.net={_delete_: true, type: network, network: {type: PRN, channels: 60000}, file: net.pth}",
            "methods.net.network: a network of more than",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_a_value_of_a_benchmark_is_refused_by_its_key(place: Path, override: str, message: str) -> None:
    assert message in outcome("benchmark", "-opt", "benchmark.yml", override)


@pytest.mark.parametrize(
    "setting", ["window=[", "window=[1000000001,1]", "type=[x]", "x=1", "=", "window=&a [*a]", "type"]
)
def test_a_setting_of_labels_is_refused(place: Path, setting: str) -> None:
    line = outcome("prepare", "labels", "rainy", setting, "-o", "root/labels")
    assert line.startswith("basicsr prepare: error: ")


def test_options_that_are_right_are_not_refused(place: Path) -> None:
    for command, file in (("train", "tiny.yml"), ("test", "tiny.yml"), ("benchmark", "benchmark.yml")):
        assert outcome(command, "-opt", file) == ""
