"""What BasicSR 1.4.2 needs to be imported beside today's torch and torchvision.

Both shims apply only where they are needed, may be called again, and work before the first ``import basicsr`` of a
process; the package's own import calls them, so that spawned data loader workers have them too. Nothing here imports
torch or torchvision until basicsr does: the package stays quick to import.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_REMOVED = "torchvision.transforms.functional_tensor"


class _FunctionalTensorFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the module that torchvision 0.17 removed and BasicSR imports: its functions moved to ``functional``.

    It stands last in ``sys.meta_path``, so that a torchvision which still has the module wins.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == _REMOVED else None

    def exec_module(self, module: ModuleType) -> None:
        from torchvision.transforms import functional

        module.__dict__.update({name: getattr(functional, name) for name in dir(functional) if name[0] != "_"})


class _TorchvisionFinder(importlib.abc.MetaPathFinder):
    """Finds torchvision where it is, and has it loaded by `_TorchvisionLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _TorchvisionLoader(spec.loader)
        return spec


class _TorchvisionLoader(importlib.abc.Loader):
    """Loads torchvision also where its compiled operators do not load.

    A torchvision built for CUDA beside a CPU torch fails to import with "operator torchvision::nms does not exist".
    Deraining calls none of its operators; that they are declared is all that the import needs.
    """

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]
            _declare_operators()
            self._loader.exec_module(module)


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    _KEPT.append(library)


_KEPT: list[object] = []  # a torch.library.Library takes its declarations with it when it is collected


def apply() -> None:
    """Install the shims; once is enough, more does no harm."""
    if not any(isinstance(finder, _FunctionalTensorFinder) for finder in sys.meta_path):
        sys.meta_path.append(_FunctionalTensorFinder())
        if "torchvision" not in sys.modules:
            sys.meta_path.insert(0, _TorchvisionFinder())
