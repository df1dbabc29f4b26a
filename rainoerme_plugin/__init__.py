"""Train and compare image derainers without paired data: a plugin for BasicSR.

Importing this package makes BasicSR importable beside today's torch and torchvision, and does nothing else;
``register()`` puts the plugin's classes into BasicSR's registries; ``load_derainer()`` makes what derains an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import compat

if TYPE_CHECKING:
    from .inference.derainer import load_derainer as load_derainer

__version__ = "0.1.0"
__all__ = ["__version__", "load_derainer", "register"]

compat.apply()


def register() -> None:
    """Put every class of the plugin into BasicSR's registries; see `rainoerme_plugin.plugin.register`."""
    from .plugin import register as _register

    _register()


def __getattr__(name: str) -> Any:
    if name == "load_derainer":  # only now: it imports PyTorch
        from .inference.derainer import load_derainer

        return load_derainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
