"""Digests of code: what changes them, and what does not."""

from __future__ import annotations

import gc
import importlib
import py_compile
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from changing import changed_code

import rainoerme_plugin
from rainoerme_plugin import provenance
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.benchmark.measures import Measures
from rainoerme_plugin.provenance import code_of, modules_of

PACKAGE = {
    "__init__.py": "",
    "one.py": 'from .two import f\nfrom . import three\ndef g(x):\n    """Twice."""\n    return 2 * f(x)  # why\n',
    "two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import four\n\nf = lambda x: x + 1\n",
    "three.py": "Y = {'a', 'b', 'c'}\n",
    "four.py": "Z = 1\n",
    "five.py": "W = 1\n",
}


def write(folder: Path, **changes: str) -> None:
    """The package ``parcel`` below a folder, some of its files with other text."""
    for name, text in {**PACKAGE, **{f"{name}.py": text for name, text in changes.items()}}.items():
        (folder / "parcel").mkdir(parents=True, exist_ok=True)
        (folder / "parcel" / name).write_text(text)


def digest(*modules: str) -> str:
    provenance._digest_of.cache_clear()
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "parcel"]:
        del sys.modules[name]
    return code_of(*(modules or ("parcel.one",)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path)
    yield tmp_path
    digest("os")


def test_what_is_no_code_does_not_count(folder: Path) -> None:
    before = digest()
    assert len(before) == 16
    text = "from .two import f\n\n\nfrom . import three\n# new\ndef g(x):\n    'Two times.'\n    return (2 * f(x))\n"
    write(folder, one=text)
    assert digest() == before


@pytest.mark.parametrize(
    ("module", "text", "counts"),
    [
        ("one", PACKAGE["one.py"].replace("2 *", "3 *"), True),
        ("two", PACKAGE["two.py"].replace("+ 1", "+ 2"), True),
        ("three", "Y = {'a', 'b'}\n", True),
        ("four", "Z = 2\n", False),  # imported for its types alone
        ("five", "W = 2\n", False),
    ],
)
def test_all_that_is_imported_counts(folder: Path, module: str, text: str, counts: bool) -> None:
    before = digest()
    write(folder, **{module: text})
    assert (digest() != before) is counts
    write(folder)
    assert digest() == before


def test_a_module_that_is_not_there_counts_as_that(folder: Path) -> None:
    before = digest("parcel.six")
    (folder / "parcel" / "six.py").write_text("")
    assert digest("parcel.six") != before
    assert digest("no_such_package.at_all") == digest("no_such_package.at_all")


def test_installed_packages_count_by_their_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, three="import numpy\n")
    before = digest()
    version = provenance._version
    monkeypatch.setattr(provenance, "_version", lambda name: "numpy 99" if name == "numpy" else version(name))
    assert digest() != before


def test_an_installation_in_a_zip_or_without_sources_has_a_digest_too(folder: Path) -> None:
    plain = digest()
    with zipfile.ZipFile(folder / "all.zip", "w") as file:
        for name in PACKAGE:
            file.write(folder / "parcel" / name, f"parcel/{name}")
    for name in PACKAGE:
        (folder / "bare" / "parcel").mkdir(parents=True, exist_ok=True)
        py_compile.compile(str(folder / "parcel" / name), str(folder / "bare" / "parcel" / f"{name}c"))
    # Hashes of texts, and so the order of sets, differ between processes.
    command = [sys.executable, "-c", "from rainoerme_plugin.provenance import code_of; print(code_of('parcel.one'))"]
    root = Path(rainoerme_plugin.__file__).parent.parent

    def of(place: Path, seed: str) -> str:
        environment = {"PYTHONPATH": f"{place}:{root}", "PYTHONHASHSEED": seed}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    assert of(folder / "all.zip", "1") == plain
    first, second = of(folder / "bare", "1"), of(folder / "bare", "2")
    assert first == second != plain


@pytest.mark.parametrize(
    ("module", "derains", "measures"),
    [
        ("metrics.protocols", False, True),
        ("metrics.rain_energy", False, True),
        ("benchmark.measures", False, True),
        ("archs.rainoerme", True, False),
        ("archs.tiles", True, False),
        ("archs.adapt", True, False),
        ("data.images", True, True),
        ("archs.prenet", False, False),
        ("archs.catalogue", False, False),
        ("archs.published", False, False),
        ("benchmark.report", False, False),
        ("benchmark.run", False, False),
        ("commands.list", False, False),
        ("errors", False, False),
        ("files", False, False),
        ("__init__", False, False),
    ],
)
def test_what_a_benchmark_depends_on(
    module: str, derains: bool, measures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both() -> tuple[str, str]:
        network = code_of("rainoerme_plugin.archs.runner", *modules_of(RainOerMeNet(4).modules()))
        return network, Measures(["rgb"], ["rain_removed"]).code

    before = both()
    with changed_code(monkeypatch, module):
        now = both()
    assert (now[0] != before[0], now[1] != before[1]) == (derains, measures)


def test_several_threads_may_ask_at_once() -> None:
    rooms = [f"rainoerme_plugin.{room}" for room in ("data.labels", "archs.tiles", "losses.ssim", "metrics.protocols")]
    alone = [code_of(room) for room in rooms]
    provenance._digest_of.cache_clear()

    # Whatever is collected may let another thread go on, in the middle of the parser.
    def pause(phase: str, about: dict[str, int]) -> None:
        time.sleep(0.0001)

    gc.callbacks.append(pause)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(code_of, rooms)) == alone
    finally:
        gc.callbacks.remove(pause)
