"""The option file of a benchmark: what is accepted, and one line for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import OPTIONS, benchmark_options

from rainoerme_plugin.benchmark.options import METHODS, BenchmarkOptions, read_benchmark
from rainoerme_plugin.config import read_options
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.metrics.protocols import PROTOCOLS


def options(**changes: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "methods": {"input": {"type": "input"}, "b": {"type": "file", "file": "b.pth"}},
        "datasets": {"d": {"dataroot": "d"}, "e": {"dataroot": "e"}},
        **changes,
    }


def test_what_is_not_said_has_defaults() -> None:
    read, methods = read_benchmark(options())
    assert read.protocols == list(PROTOCOLS)
    assert read.measures == ["niqe", "rain_removed", "structure_kept"]
    assert read.cost is not None
    assert read.cost.sizes == [[321, 481]]
    assert read.report is not None
    assert methods["b"].trained_on is None
    assert list(methods) == ["input", "b"]


@pytest.mark.parametrize("file", sorted(OPTIONS.glob("benchmark*.yml")), ids=lambda path: path.stem)
def test_the_shipped_files_are_right(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAINOERME_DATA", "/data")
    monkeypatch.setenv("RAINOERME_WEIGHTS", "/weights")
    read, methods = read_benchmark(read_options(file))
    assert read.name == file.stem
    assert set(read.datasets)
    assert set(methods) >= {"input"}


def test_the_commented_file_names_every_key_with_its_default() -> None:
    text = (OPTIONS / "benchmark.yml").read_text()
    given = yaml.safe_load(text)
    required = {"name", "methods", "datasets"}
    assert set(given) == set(BenchmarkOptions.model_fields)
    read, _ = read_benchmark(given)
    for name, field in BenchmarkOptions.model_fields.items():
        if name not in required:
            assert getattr(read, name) == field.get_default(call_default_factory=True), name
    for kind, section in METHODS.items():
        for key in section.model_fields:
            assert f"{key}:" in text or key == "type", (kind, key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "methods: .*at least 1"),
        ({"datasets": {}}, "datasets: .*at least 1"),
        ({"methods": {"a/b": {"type": "input"}}}, "methods.a/b"),
        ({"methods": {"../a": {"type": "input"}}}, "methods"),
        ({"datasets": {" d": {"dataroot": "d"}}}, "datasets"),
        ({"methods": {"a": {}}}, "methods.a.type: is missing; there are input, filter, file, network, run, images"),
        ({"methods": {"a": {"type": "fiel"}}}, "methods.a.type: .* 'fiel'; did you mean 'file'?"),
        ({"methods": {"a": {"type": "file"}}}, "methods.a.file: is missing"),
        ({"methods": {"a": {"type": "input", "file": "x"}}}, "methods.a.file: unknown key"),
        ({"methods": {"a": {"type": "run", "folder": "x", "iteration": "last"}}}, "methods.a.iteration"),
        ({"methods": {"a": {"type": "input", "datasets": ["f"]}}}, "methods.a.datasets: no data set is called 'f'"),
        (
            {"methods": {"a": {"type": "input", "published": {"f": {"protocol": "rgb"}}}}},
            "methods.a.published: no data set is called 'f'",
        ),
        (
            {"methods": {"a": {"type": "input", "published": {"d": {"protocol": "matlab"}}}}},
            "methods.a.published.d.protocol: no protocol is called 'matlab'; did you mean 'matlab_y'?",
        ),
        (
            {"methods": {"a": {"type": "images", "folder": {"f": "x"}}}},
            "methods.a.folder: no data set is called 'f'",
        ),
        ({"protocols": ["matlab-y"]}, "protocols: no protocol is called 'matlab-y'; did you mean 'matlab_y'?"),
        ({"protocols": ["rgb", "rgb"]}, "protocols: names one twice"),
        ({"measures": ["nique"]}, "measures: no measure is called 'nique'; did you mean 'niqe'?"),
        ({"protocols": [], "measures": []}, "both are empty"),
        ({"baseline": "inptu"}, "baseline: no method is called 'inptu'; did you mean 'input'?"),
        ({"precision": "fp16"}, "precision"),
        ({"bootstrap": 10}, "bootstrap"),
        ({"cost": {"sizes": []}}, "cost.sizes"),
        ({"cost": {"sizes": [[10]]}}, "cost.sizes.0"),
        ({"cost": {"repeats": 2}}, "cost.repeats"),
        ({"report": {"quality": 101}}, "report.quality"),
        ({"mesures": []}, "mesures: unknown key; did you mean 'measures'?"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_benchmark(options(**changes))


def test_a_training_file_is_no_benchmark() -> None:
    with pytest.raises(OptionError, match="unknown key"):
        read_benchmark(read_options(OPTIONS / "distill.yml"))


def test_a_file_inherits_and_is_overridden(tmp_path: Path) -> None:
    base = benchmark_options(tmp_path)
    (tmp_path / "child.yml").write_text(
        f"_base_: {base.name}\nmethods: {{rank: {{type: filter, filter: {{type: rank}}}}}}\n"
    )
    read, methods = read_benchmark(read_options(tmp_path / "child.yml", ["datasets.pairs.every=4", "seed=3"]))
    assert list(methods) == ["input", "opening", "net", "rank"]
    assert (read.seed, read.datasets["pairs"]["every"]) == (3, 4)
