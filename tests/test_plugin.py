"""Registration: complete, repeatable, all or nothing."""

from __future__ import annotations

import pytest

from rainoerme_plugin.errors import RainOerMeError
from rainoerme_plugin.plugin import ENTRIES, Entry, register, registries


def names() -> dict[str, set[str]]:
    return {kind: set(table.keys()) for kind, table in registries().items()}


def test_every_entry_is_registered_and_again_changes_nothing() -> None:
    register()
    before = names()
    register()
    assert names() == before
    for entry in (entry for entry in ENTRIES if not entry.kind.startswith("mm_")):  # those are tests/mm's
        assert registries()[entry.kind].get(entry.name) is entry.load()
        assert entry.load().__name__ == entry.name
        assert len(entry.summary) > 20


def test_a_name_that_is_taken_registers_nothing() -> None:
    register()
    before = names()
    fresh = Entry("arch", "Fresh", "rainoerme_plugin.archs.rainoerme:RainOerMeNet")
    taken = Entry("arch", "EDSR", "rainoerme_plugin.archs.rainoerme:RainOerMeNet")
    with pytest.raises(RainOerMeError, match=r"another 'EDSR' already, from basicsr\.archs\.edsr_arch"):
        register((fresh, taken))
    assert names() == before
