"""mmengine: the same classes for its Runner, and for whoever builds on it (MMagic).

In a config: ``custom_imports = dict(imports=['rainoerme_plugin.mm'])``, or ``default_scope = 'rainoerme_plugin'``.
"""

from .. import registry as registry  # fills mmengine's registries
