"""Train and compare image derainers without paired data: a plugin for BasicSR.

Importing this package makes BasicSR importable beside today's torch and torchvision, and does nothing else;
``register()`` puts the plugin's classes into BasicSR's registries.
"""

from . import compat

__version__ = "0.1.0"
__all__ = ["__version__", "register"]

compat.apply()


def register() -> None:
    """Put every class of the plugin into BasicSR's registries; see `rainoerme_plugin.plugin.register`."""
    from .plugin import register as _register

    _register()
