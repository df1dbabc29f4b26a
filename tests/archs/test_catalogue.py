"""What the catalogue says of each network, against the network itself."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small import CARDS, SMALL, TWO_LEVELS, small
from torch import Tensor, nn
from torch.nn import functional

import rainoerme_plugin
from rainoerme_plugin.archs.adapt import Needs, derain
from rainoerme_plugin.archs.catalogue import CATALOGUE, Card, card_of, needs_of
from rainoerme_plugin.archs.published import PUBLISHED, published_file
from rainoerme_plugin.archs.recognise import recognise
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.files import sha256_of
from rainoerme_plugin.inference.opening import DEFAULT
from rainoerme_plugin.plugin import registries
from rainoerme_plugin.schema import check_options

LAST = Needs(channels_last=True)
NEEDS = {
    **dict.fromkeys(["RainOerMeNet", "PRN", "PReNet", "PRN_r", "PReNet_r"], LAST),
    **dict.fromkeys(["VRGNetPReNet", "BRN", "RESCAN", "RCAN", "EDSR"], LAST),
    "DerainUNet": Needs(multiple=4, channels_last=True),
    "NAFNet": Needs(multiple=4, zeros=True),
    "KBNet_s": Needs(multiple=4, zeros=True),
    "KBNet_l": Needs(multiple=16),
    "Uformer": Needs(multiple=128, square=True),
    "SCUNet": Needs(multiple=64),
    "IPT": Needs(minimum=48),
    "Restormer": Needs(multiple=8),
    "MPRNet": Needs(multiple=8, output=0, channels_last=True),
    "MIRNet_v2": Needs(multiple=4),
    "M3SNet": Needs(multiple=16),
    "SwinIR": Needs(multiple=4),
}


@pytest.fixture(autouse=True)
def registered() -> None:
    rainoerme_plugin.register()


def test_every_name_stands_once_and_is_tested_here() -> None:
    names = [card.name for card in CATALOGUE]
    assert sorted(names) == sorted(SMALL)
    assert len({card.target for card in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("card", CATALOGUE, ids=lambda card: card.name)
def test_a_card_says_where_a_network_is_from_and_what_it_may_be_used_for(card: Card) -> None:
    assert re.search(r"\S.*, .*\b20[12]\d$", card.paper)
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", card.source)
    assert card.licence.strip()
    assert card.takes in ("RGB in [0, 1]", "BGR in [0, 1]", "RGB in [0, 255]")
    assert all(published.file.strip() and published.trained_on.strip() for published in card.published)
    assert len({published.file for published in card.published}) == len(card.published)


def test_networks_under_a_licence_that_restricts_use_come_with_a_package_of_their_own() -> None:
    restricted = [card.name for card in CATALOGUE if "no commercial use" in card.licence]
    assert restricted == ["Restormer", "MPRNet", "MIRNet_v2", "M3SNet"]
    assert [card.name for card in CATALOGUE if card.package == "spandrel_extra_arches"] == restricted


def test_the_released_files_that_a_card_names_are_those_there(rainoerme_weights: Path) -> None:
    named = {published.file for published in CARDS["RainOerMeNet"].published}
    assert named - {DEFAULT.name} == {path.name for path in rainoerme_weights.glob("RainOerMe_*")}


@pytest.mark.parametrize(
    ("file", "published"),
    [
        ("RainOerMe_Rain200L.pth", "RainOerMe_Rain200L.pth"),
        ("PReNet6_r_Rain100L.pth", "logs/Rain100L/PReNet6_r/net_latest.pth"),
        ("BRN_Rain100L.pth", "logs/Rain100L/BRN/net_latest.pth"),
        ("RESCAN_RainHeavy.pth", "logs/RainHeavy/RESCAN/latest"),
        ("SPANet_RainHeavy.pth", "logs/RainHeavy/SPANet/step_40000"),
        ("SPANet_SPA.pth", "model/latest"),
        ("VRGNet-PReNet_SPA.pth", "for_spa/spamodels/DerainNet_state_800.pt"),
    ],
)
def test_published_files_are_known_by_their_checksum(rainoerme_weights: Path, file: str, published: str) -> None:
    found = published_file(Path("anything"), sha256_of(rainoerme_weights / file), None)
    assert found is not None
    assert found.file == published


def test_the_default_network_is_known_by_its_checksum() -> None:
    found = published_file(Path("anything"), sha256_of(DEFAULT), None)
    assert found is not None
    assert found.file == DEFAULT.name
    # What docs/default-network.md says.
    page = (Path(__file__).parent.parent.parent / "docs" / "default-network.md").read_text()
    rainy, clean = (line.split("|")[2] for line in page.splitlines() if line.startswith(("| rainy", "| clean")))
    names = re.findall(r"`(\w+)`", rainy + clean)
    assert len(names) == 10
    assert all(name in found.trained_on for name in names)


@pytest.mark.parametrize(
    ("path", "network", "published"),
    [
        ("x/logs/Rain100H/PReNet6/net_latest.pth", "PReNet", "logs/Rain100H/PReNet6/net_latest.pth"),
        ("logs/RainHeavy/RESCAN/latest", "RESCAN", "logs/RainHeavy/RESCAN/latest"),
        ("model/latest", "SPANet", "model/latest"),
        ("x/deraining.pth", "Restormer", "deraining.pth"),
        ("x/005_colorDN_DFWB_noise15.pth", "SwinIR", "005_colorDN_*.pth"),
        ("net_latest.pth", "PReNet", None),
        ("PReNet6/net_latest.pth", "PReNet", None),
        ("logs/RainHeavy/RESCAN/latest", "SPANet", None),
        ("model/latest", "RESCAN", None),
        ("latest", "SPANet", None),
        ("latest", None, None),
        ("deraining.pth", "MPRNet", None),
    ],
)
def test_another_file_is_known_by_its_network_and_its_whole_path(
    path: str, network: str | None, published: str | None
) -> None:
    found = published_file(Path(path), "0" * 64, network)
    assert (found and found.file) == published


def test_every_checksum_is_of_one_file() -> None:
    files = [published for card in CATALOGUE for published in card.published]
    sums = [published.sha256 for published in files if published.sha256]
    assert len(set(sums)) == len(sums) == 27
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in sums)
    assert set(PUBLISHED) <= {card.name for card in CATALOGUE}


@pytest.mark.parametrize("name", SMALL)
def test_the_class_of_a_card_is_found_again_by_its_network(name: str) -> None:
    network = small(name)
    assert isinstance(network, nn.Module)
    # spandrel calls one otherwise than its authors.
    assert type(network).__name__ == name
    assert card_of(network) is CARDS[name]


@pytest.mark.parametrize("name", SMALL)
def test_a_card_is_in_basicsrs_registry_as_the_same_class_unless_only_a_file_makes_it(name: str) -> None:
    card, registry = CARDS[name], registries()["arch"]
    assert card.registered == (name not in ("IPT", "SwinIR", "RCAN", "EDSR") and card.installed)
    if name == "IPT":
        assert name not in registry
    elif card.installed:
        assert registry.get(name) is card.load()


@pytest.mark.parametrize("name", SMALL)
def test_a_network_needs_what_its_card_says(name: str) -> None:
    assert needs_of(small(name)) == NEEDS.get(name, Needs())


def test_needs_follow_a_networks_own_arguments() -> None:
    assert needs_of(small("NAFNet", enc_blk_nums=[1, 1, 1], dec_blk_nums=[1, 1, 1])).multiple == 8
    assert needs_of(small("DerainUNet", shrink=3, encoder=(1, 1), decoder=(1, 1))).multiple == 12
    assert needs_of(small("KBNet_s", enc_blk_nums=[1], dec_blk_nums=[1])).multiple == 2
    assert needs_of(small("SwinIR", window_size=7, img_size=21)).multiple == 7


def test_a_network_tells_its_needs_itself_where_it_can() -> None:
    network = small("NAFNet")
    network.needs = Needs(multiple=12, output=1)  # type: ignore[assignment]
    assert needs_of(network) == Needs(multiple=12, output=1)
    network.needs = 12  # type: ignore[assignment]
    assert needs_of(network) == Needs(multiple=4, zeros=True)


def test_an_unknown_network_needs_nothing() -> None:
    class PReNet(nn.Conv2d):
        pass

    class Larger(type(small("NAFNet"))):  # type: ignore[misc]
        pass

    for network in (nn.Conv2d(3, 3, 1), PReNet(3, 3, 1), Larger(width=8, **TWO_LEVELS)):
        assert card_of(network) is None
        assert needs_of(network) == Needs()


def test_looking_for_a_card_imports_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small("SwinIR")
    modules = [card.target.partition(":")[0] for card in CATALOGUE if "spandrel" in card.package]
    for module in modules:
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert card_of(network) is CARDS["SwinIR"]
    assert card_of(nn.Conv2d(3, 3, 1)) is None
    assert set(modules).isdisjoint(sys.modules)


@pytest.mark.parametrize(("name", "half"), [("Restormer", 4), ("MPRNet", 4), ("MIRNet_v2", 2), ("SwinIR", 2)])
def test_half_of_what_they_need_is_not_enough(name: str, half: int) -> None:
    network = small(name)
    needs = needs_of(network)
    assert needs.multiple == 2 * half
    with torch.no_grad():
        assert derain(network, torch.rand(1, 3, 3 * half, half), needs).shape == (1, 3, 3 * half, half)
        with pytest.raises((RuntimeError, OptionError)):
            derain(network, torch.rand(1, 3, 3 * half, half), Needs(output=needs.output))


def test_the_derained_image_of_mprnet_is_its_last_stages() -> None:
    network = small("MPRNet")
    rainy = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stages = network(rainy)
        derained = derain(network, rainy, needs_of(network))
    # Its forward returns the last stage first, the only one that goes through its tail.
    torch.testing.assert_close(derained, stages[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(derained, stages[-1], atol=0.1)


SIZES = {"Uformer": (128, 128), "SCUNet": (64, 192), "IPT": (12, 96)}


@pytest.mark.parametrize(("name", "changes"), [*((name, {}) for name in SMALL), ("DerainUNet", {"attention": True})])
def test_what_is_changed_or_padded_at_one_side_reaches_the_other_only_where_a_card_says_so(
    name: str, changes: dict[str, Any]
) -> None:
    network = small(name, **changes)
    sees_whole_image = CARDS[name].sees_whole_image(network)
    if name == "SPANet":
        # Those of the published weights go up to 0.998.
        for layer, weight in network.named_parameters():
            if re.search(r"irnn\d\.\w+_weight\.weight", layer):
                nn.init.constant_(weight, 0.99)
    if CARDS[name].from_file_only:
        network = recognise(network.state_dict())
    network = network.double().eval()
    rainy = torch.rand(1, 3, *SIZES.get(name, (16, 160)), generator=torch.Generator().manual_seed(0)).double()
    changed = rainy.clone()
    changed[..., -8:] = 1 - changed[..., -8:]
    # Given as it is: padding would only make the image larger.
    needs = Needs(output=CARDS[name].output)
    with torch.no_grad():
        derained = derain(network, rainy, needs)
        effect = (derain(network, changed, needs) - derained).abs().amax((0, 1, 2))
        height, width = rainy.shape[2:]
        rows = height // 2 if CARDS[name].square else 0
        padded = derain(network, functional.pad(rainy, (0, width // 2, 0, rows), mode="reflect"), needs)
        padding = (padded[..., :8, :width] - derained[..., :8, :]).abs().amax((0, 1, 2))
    assert effect[-8:].min() > 1e-3
    assert padding[-8:].max() > 1e-8
    if sees_whole_image:
        assert effect[:8].max() > 1e-8
        assert padding[:8].max() > 1e-12
    else:
        assert effect[:8].max() == 0
        assert padding[:8].max() == 0


def own(name: str, **arguments: Any) -> dict[str, Tensor]:
    return CARDS[name].load()(**arguments).state_dict()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RainOerMeNet", {"channels": 5, "detail_layers": 3}),
        ("RainOerMeNet", {"channels": 16, "detail_layers": 2}),
        (
            "DerainUNet",
            {"channels": 8, "encoder": (2, 2), "middle": 2, "decoder": (2, 1), "shrink": 2, "attention": False},
        ),
        ("DerainUNet", {"channels": 3, "encoder": (), "middle": 11, "decoder": (), "shrink": 1, "attention": True}),
        (
            "DerainUNet",
            {"channels": 1, "encoder": (1, 12, 1), "middle": 1, "decoder": (1, 3, 2), "shrink": 3, "attention": True},
        ),
        ("PRN", {"channels": 6}),
        ("PReNet", {"channels": 7}),
        ("PRN_r", {"channels": 1}),
        ("PReNet_r", {"channels": 3}),
        ("VRGNetPReNet", {"channels": 32}),
        ("BRN", {"channels": 2}),
        ("RESCAN", {"channels": 5, "depth": 4}),
        ("RESCAN", {"channels": 24, "depth": 7}),
        ("SPANet", {"channels": 8}),
    ],
)
def test_arguments_are_read_from_the_weights(name: str, arguments: dict[str, Any]) -> None:
    read = CARDS[name].arguments
    assert read is not None
    assert read(own(name, **arguments)) == arguments


def test_networks_of_this_package_alone_are_read_from_their_weights_here() -> None:
    assert [card.name for card in CATALOGUE if card.arguments] == list(SMALL)[:10]
    assert [card.name for card in CATALOGUE if card.package == "rainoerme_plugin"] == list(SMALL)[:10]


def options(network: dict[str, Any]) -> dict[str, Any]:
    datasets = {"test": {"name": "a", "type": "SingleRainDataset", "dataroot": "a"}}
    return {"name": "a", "model_type": "SRModel", "datasets": datasets, "network_g": network}


@pytest.mark.parametrize("name", ["Restormer", "MPRNet", "MIRNet_v2", "M3SNet"])
def test_a_network_whose_package_is_missing_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    missing = "spandrel_extra_arches"
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == missing else find_spec(package))
    assert not CARDS[name].installed
    assert not CARDS[name].registered
    assert CARDS["NAFNet"].registered
    monkeypatch.delitem(registries()["arch"]._obj_map, name, raising=False)
    says = (
        f"{name} comes with spandrel_extra_arches (Academic Public License: no commercial use); "
        "pip install 'spandrel_extra_arches<0.3'"
    )
    with pytest.raises(OptionError, match=f"^{re.escape(f'network_g.type: {says}')}$"):
        check_options(options({"type": name}), training=False)
    with pytest.raises(OptionError, match=f"^{re.escape(f'network_g.backbone.type: {says}')}$"):
        check_options(options({"type": "DistillationNet", "backbone": {"type": name}}), training=False)


WITHOUT_EXTRA = """
import json, sys
sys.modules["spandrel_extra_arches"] = None  # as if it were not installed
import rainoerme_plugin
rainoerme_plugin.register()
from rainoerme_plugin.plugin import registries
print(json.dumps(sorted(registries()["arch"].keys())))
"""


def test_only_networks_whose_package_is_there_are_registered() -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRA]
    root = Path(rainoerme_plugin.__file__).parent.parent
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=root)
    assert run.returncode == 0, run.stderr
    names = set(json.loads(run.stdout.splitlines()[-1]))
    assert set(SMALL) - names == {"IPT", "Restormer", "MPRNet", "MIRNet_v2", "M3SNet"}
