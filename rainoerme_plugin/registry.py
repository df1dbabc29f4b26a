"""mmengine's registries under this package's scope.

mmengine imports this module by itself where a name begins with ``rainoerme_plugin.`` or the default scope is this
package; what is in them stands in the one list of `plugin`.
"""

from __future__ import annotations

from mmengine import registry as root
from mmengine.registry import Registry

from .plugin import register_mmengine

SCOPE = __package__


REGISTRIES = {
    name: Registry(found.name, parent=found, scope=SCOPE)
    for name, found in vars(root).items()
    if isinstance(found, Registry)
}
"""One below each of mmengine's, by its name there; it warns about those that a scope lacks."""
MODELS = REGISTRIES["MODELS"]
DATASETS = REGISTRIES["DATASETS"]

register_mmengine()
