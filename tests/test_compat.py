"""BasicSR is importable after `import rainoerme_plugin`, in fresh processes and spawned workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = "".join(f"sys.path.insert(0, {str(folder)!r}); " for folder in folders)
    return subprocess.run([sys.executable, "-c", f"import sys; {path}{code}"], capture_output=True, text=True)


def test_importing_the_package_imports_neither_torch_nor_basicsr() -> None:
    result = run("import rainoerme_plugin; print({'torch', 'basicsr', 'torchvision'} & set(sys.modules))")
    assert result.stdout.strip() == "set()", result.stderr


def test_the_removed_torchvision_module_is_found_with_its_functions() -> None:
    code = (
        "import rainoerme_plugin, basicsr.data.degradations\n"
        "from torchvision.transforms.functional_tensor import rgb_to_grayscale\n"
        "from torchvision.transforms import functional\n"
        "assert rgb_to_grayscale is functional.rgb_to_grayscale"
    )
    assert run(code).returncode == 0, run(code).stderr


@pytest.mark.parametrize("operator", ["nms", "qnms"])
def test_a_torchvision_without_its_compiled_operators_is_imported(tmp_path: Path, operator: str) -> None:
    """A stand-in that fails as a CUDA torchvision does beside a CPU torch, until the operator is declared."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from . import ops\nready = True\n")
    (package / "ops.py").write_text(
        "import torch\n"
        f"if not hasattr(torch.ops.torchvision, '{operator}'):\n"
        f"    raise RuntimeError('operator torchvision::{operator} does not exist')\n"
    )
    assert run("import torchvision", tmp_path).returncode == 1
    result = run("import rainoerme_plugin, torchvision; print(torchvision.ready)", tmp_path)
    assert result.stdout.strip() == "True", result.stderr


def test_another_failure_of_torchvision_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('something else')")
    result = run("import rainoerme_plugin, torchvision", tmp_path)
    assert result.returncode == 1
    assert "something else" in result.stderr


def test_a_spawned_worker_can_read_a_registered_data_set(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from torch.utils.data import DataLoader\n"
        "from tiny import tiny_data\n"
        "from pathlib import Path\n"
        "import rainoerme_plugin\n"
        "if __name__ == '__main__':\n"
        "    rainoerme_plugin.register()\n"
        "    from basicsr.data import build_dataset\n"
        "    root = tiny_data(Path(__file__).parent)\n"
        "    data = build_dataset({'name': 'v', 'type': 'PairedRainDataset', 'dataroot': str(root / 'val')})\n"
        "    print(len(list(DataLoader(data, num_workers=1, multiprocessing_context='spawn'))))\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(Path(__file__).parent), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "2", result.stderr
