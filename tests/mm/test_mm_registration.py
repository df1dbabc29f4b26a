"""mmengine's registries: filled from the one list, once, all or nothing, with BasicSR's very classes."""

from __future__ import annotations

import pytest
from mmengine import registry as root

from rainoerme_plugin import registry
from rainoerme_plugin.errors import RainOerMeError
from rainoerme_plugin.plugin import ENTRIES, MMENGINE, Entry, register, register_mmengine, registries


def names() -> dict[str, set[str]]:
    return {name: set(table.module_dict) for name, table in registry.REGISTRIES.items()}


def test_what_is_registered_is_the_list_and_nothing_else() -> None:
    wanted: dict[str, set[str]] = {name: set() for name in registry.REGISTRIES}
    for entry in ENTRIES:
        if entry.kind in MMENGINE:
            wanted[MMENGINE[entry.kind]].add(entry.name)
            assert registry.REGISTRIES[MMENGINE[entry.kind]].get(entry.name) is entry.load()
            assert len(entry.summary) > 20
    assert names() == wanted
    assert sum(map(len, wanted.values())) == sum(entry.kind in MMENGINE for entry in ENTRIES)


def test_registries_stand_below_mmengines_under_the_packages_scope() -> None:
    for name, table in registry.REGISTRIES.items():
        assert table.scope == "rainoerme_plugin"
        assert table.parent is getattr(root, name)
        assert getattr(root, name)._children["rainoerme_plugin"] is table
    assert root.MODELS.get("rainoerme_plugin.SSIMLoss") is registry.MODELS.get("SSIMLoss")
    assert root.MODELS.get("SSIMLoss") is None  # mmengine's own are left alone
    assert registry.REGISTRIES["HOOKS"].get("EMAHook") is root.HOOKS.get("EMAHook")


def test_again_changes_nothing() -> None:
    before = names()
    register_mmengine()
    assert names() == before


def test_a_name_that_is_taken_registers_nothing() -> None:
    before = names()
    fresh = Entry("mm_hook", "Fresh", "rainoerme_plugin.mm.hooks:PanelHook")
    taken = Entry("mm_hook", "ScheduleHook", "rainoerme_plugin.mm.hooks:PanelHook")
    with pytest.raises(RainOerMeError, match=r"mmengine's mm_hook registry has another 'ScheduleHook' already"):
        register_mmengine((fresh, taken))
    assert names() == before


def test_both_have_the_same_classes() -> None:
    register()
    shared = [entry for entry in ENTRIES if entry.kind in registries() and entry.kind in MMENGINE]
    assert {entry.kind for entry in shared} == {"arch", "dataset", "loss", "metric"}
    for entry in shared:
        assert registries()[entry.kind].get(entry.name) is registry.REGISTRIES[MMENGINE[entry.kind]].get(entry.name)
    # Of models there are two by the same name, one of each engine.
    assert registries()["model"].get("DistillationModel") is not registry.MODELS.get("DistillationModel")
