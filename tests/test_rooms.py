"""The rooms of the package that know no framework, and those that do not know each other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import rainoerme_plugin
from rainoerme_plugin.archs.prenet import PReNet

PACKAGE = Path(rainoerme_plugin.__file__).parent
FRAMEWORKS = {"basicsr", "mmengine", "mmagic", "mmcv"}
LONG = {"spandrel", "spandrel_extra_arches", "torchvision", "torch._dynamo", "torch._inductor", "sympy", "scipy"} | {
    *("cv2", "matplotlib", "jinja2", "pydantic", "onnx", "onnxruntime", "av", "imagehash", "lmdb", "yaml"),
}
"""What takes long to import, and one picture does not need."""
PURE = ["archs", "data", "distillation", "losses", "metrics"]
"""The rooms of the method."""

IMPORT_ALL = """
import importlib, json, pkgutil, sys
room = importlib.import_module(sys.argv[1])
names = [module.name for module in pkgutil.walk_packages(room.__path__, room.__name__ + ".")] if sys.argv[2:] else []
for name in names:
    importlib.import_module(name)
print(json.dumps([names, list(sys.modules)]))
"""


def imported(name: str, *, whole: bool) -> tuple[list[str], set[str]]:
    """What a fresh process imports with a module, or with a room and all in it: the room's modules, and every one."""
    command = [sys.executable, "-c", IMPORT_ALL, name, *(["whole"] if whole else [])]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert run.returncode == 0, run.stderr
    names, modules = json.loads(run.stdout)
    return names, set(modules)


@pytest.mark.parametrize("room", PURE)
def test_a_room_of_the_method_knows_no_framework(room: str) -> None:
    names, modules = imported(f"rainoerme_plugin.{room}", whole=True)
    files = {path.stem for path in (PACKAGE / room).rglob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in names} >= files
    assert modules.isdisjoint(FRAMEWORKS)


DERAIN = """
import json, sys
from rainoerme_plugin.commands import main
assert main(["derain", *sys.argv[1:], "--device", "cpu"]) == 0
print(json.dumps(list(sys.modules)))
"""


@pytest.mark.parametrize("weights", ["default", "other"])
def test_one_picture_is_derained_without_what_takes_long_to_import(weights: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 12)).save(tmp_path / "a.png")
    torch.save({"state_dict": PReNet(channels=4).state_dict()}, tmp_path / "a.pth")
    more = ["-w", str(tmp_path / "a.pth")] if weights == "other" else []
    command = [sys.executable, "-c", DERAIN, str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), *more]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert run.returncode == 0, run.stderr
    modules = set(json.loads(run.stdout.splitlines()[-1]))
    assert "rainoerme_plugin.inference.run" in modules
    assert modules.isdisjoint(FRAMEWORKS | LONG)


def test_the_package_itself_imports_no_framework_and_not_even_torch() -> None:
    _, modules = imported("rainoerme_plugin", whole=False)
    assert "rainoerme_plugin.compat" in modules
    assert modules.isdisjoint(FRAMEWORKS | {"torch", "torchvision", "cv2"})


@pytest.mark.parametrize("room", ["registered", "training"])
def test_what_both_engines_share_imports_neither_before_it_is_asked_to(room: str) -> None:
    names, modules = imported(f"rainoerme_plugin.{room}", whole=True)
    assert {name.rpartition(".")[2] for name in names} == {path.stem for path in (PACKAGE / room).glob("[!_]*.py")}
    assert modules.isdisjoint(FRAMEWORKS)


def test_mmengines_registries_are_filled_without_basicsr() -> None:
    _, modules = imported("rainoerme_plugin.registry", whole=False)
    assert "rainoerme_plugin.mm.model" in modules
    assert not any(name.split(".")[0] == "basicsr" for name in modules)
    assert not any(name.startswith(("rainoerme_plugin.models", "rainoerme_plugin.engine")) for name in modules)


def rooms_imported(file: Path) -> set[str]:
    """The rooms of the package that a file names in its import statements, wherever they stand in it."""
    own = ("rainoerme_plugin", *file.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else ()
            path = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*path, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "rainoerme_plugin" and len(name) > 1}
    return found


@pytest.mark.parametrize(
    ("rooms", "others"),
    [
        (PURE, {"registered", "training", "models", "engine", "mm", "benchmark", "inference"}),
        (["registered"], {"training", "models", "engine", "mm", "benchmark", "inference"}),
        (["training"], {"models", "engine", "mm", "benchmark", "inference"}),
        (["models", "engine"], {"mm", "benchmark", "inference"}),
        (["benchmark"], {"engine", "mm", "inference"}),
        (["mm"], {"models", "engine", "benchmark", "inference"}),
        ([*PURE, "registered", "training", "models", "engine", "mm", "benchmark", "inference"], {"commands"}),
    ],
)
def test_a_room_imports_none_that_stands_above_or_beside_it(rooms: list[str], others: set[str]) -> None:
    for file in (file for room in rooms for file in (PACKAGE / room).rglob("*.py")):
        assert rooms_imported(file).isdisjoint(others), file.relative_to(PACKAGE)


def test_imports_of_every_form_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    file = tmp_path / "models" / "one.py"
    file.parent.mkdir()
    file.write_text(
        "from ..mm import hooks\nfrom .. import engine\nfrom .two import x\nimport rainoerme_plugin.data.images\n"
        "def f():\n    from rainoerme_plugin.losses.ssim import ssim\n    import torch.nn\n"
    )
    assert rooms_imported(file) == {"mm", "engine", "models", "data", "losses"}
