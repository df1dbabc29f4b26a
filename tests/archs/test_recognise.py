"""Networks recognised from their weights: this package's, spandrel's, and files that are refused."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import rainoerme_plugin
from rainoerme_plugin.archs.adapt import Needs, derain
from rainoerme_plugin.archs.brn import BRN
from rainoerme_plugin.archs.catalogue import CATALOGUE, needs_of
from rainoerme_plugin.archs.derain_unet import DerainUNet
from rainoerme_plugin.archs.distillation_net import DistillationNet
from rainoerme_plugin.archs.prenet import PRN, PReNet, PReNet_r, PRN_r, VRGNetPReNet
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.archs.recognise import SpandrelNet, find_own, recognise
from rainoerme_plugin.archs.rescan import RESCAN
from rainoerme_plugin.archs.spanet import SPANet
from rainoerme_plugin.errors import WeightsError
from rainoerme_plugin.registered.networks import PretrainedNet
from rainoerme_plugin.weights import checkpoint_of, load_weights, save_checkpoint

# Not above: this package mends torchvision, which spandrel imports, where that is broken.
spandrel: Any = importlib.import_module("spandrel")
Compact = importlib.import_module("spandrel.architectures.Compact").Compact
ESRGAN = importlib.import_module("spandrel.architectures.ESRGAN").ESRGAN

# Each file's network, where the weights are in it, what stands before their names, and their number.
PUBLISHED: dict[str, tuple[type[nn.Module], str | None, str, int]] = {
    "PRN6_Rain100L.pth": (PRN, None, "", 24),
    "PReNet6_Rain100L.pth": (PReNet, None, "", 32),
    "PRN6_r_Rain100L.pth": (PRN_r, None, "", 8),
    "PReNet6_r_Rain100L.pth": (PReNet_r, None, "", 16),
    "BRN_Rain100L.pth": (BRN, None, "module.", 64),
    "RESCAN_RainHeavy.pth": (RESCAN, "net", "", 88),
    "SPANet_RainHeavy.pth": (SPANet, "net", "module.", 79),
    "SPANet_SPA.pth": (SPANet, "net", "", 79),
    "VRGNet-PReNet_SPA.pth": (VRGNetPReNet, None, "derainet.", 34),
    "RainOerMe_Rain200L.pth": (RainOerMeNet, None, "", 44),
    "RainOerMe_Rain1400.pth": (RainOerMeNet, None, "", 44),
    "RainOerMe_DID_data.pth": (RainOerMeNet, None, "", 42),
}
OWN: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (RainOerMeNet, {"channels": 4, "detail_layers": 2}),
    (RainOerMeNet, {"channels": 3, "detail_layers": 3}),
    (DerainUNet, {"channels": 4, "encoder": (1, 2), "middle": 1, "decoder": (3, 1), "shrink": 2}),
    (DerainUNet, {"channels": 5, "encoder": (2,), "middle": 3, "decoder": (1,), "shrink": 1, "attention": True}),
    (PRN, {"channels": 4}),
    (PReNet, {"channels": 5}),
    (PRN_r, {"channels": 6}),
    (PReNet_r, {"channels": 7}),
    (VRGNetPReNet, {"channels": 8}),
    (BRN, {"channels": 4}),
    (RESCAN, {"channels": 4, "depth": 5}),
    (SPANet, {"channels": 6}),
]

ONE_EACH: dict[str, Any] = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 1, 4]}
THREE_LEVELS: dict[str, Any] = {"enc_blk_nums": [1, 2, 1], "dec_blk_nums": [1, 1, 1]}
FOUR_LEVELS: dict[str, Any] = {"enc_blk_nums": [1, 1, 1, 2], "dec_blk_nums": [1, 1, 1, 1]}
MAIN, EXTRA = "spandrel.architectures", "spandrel_extra_arches.architectures"

# A small network of each kind, and what it needs.
SPANDREL: dict[str, tuple[str, dict[str, Any], Needs]] = {
    "NAFNet": (f"{MAIN}.NAFNet", {"width": 4, **THREE_LEVELS}, Needs(multiple=8, zeros=True)),
    "KBNet_s": (f"{MAIN}.KBNet", {"width": 4, "middle_blk_num": 1, **THREE_LEVELS}, Needs(multiple=8, zeros=True)),
    "KBNet_l": (f"{MAIN}.KBNet", {"dim": 2, "ffn_expansion_factor": 2, **ONE_EACH}, Needs(multiple=16)),
    "Uformer": (
        f"{MAIN}.Uformer",
        {"embed_dim": 4, "depths": [1] * 9, "num_heads": [1] * 9},
        Needs(multiple=128, square=True),
    ),
    "SCUNet": (f"{MAIN}.SCUNet", {"config": [1] * 7}, Needs(multiple=64, minimum=40)),
    "IPT": (f"{MAIN}.IPT", {"patch_size": 12, "n_feats": 4, "num_layers": 1}, Needs(minimum=12)),
    "FFTformer": (
        f"{MAIN}.FFTformer",
        {"dim": 4, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1},
        Needs(multiple=32),
    ),
    "Restormer": (f"{EXTRA}.Restormer", {"dim": 8, **ONE_EACH}, Needs(multiple=8)),
    "MPRNet": (
        f"{EXTRA}.MPRNet",
        {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 2},
        Needs(multiple=8, channels_last=True),
    ),
    "MIRNet2": (f"{EXTRA}.MIRNet2", {"n_feat": 16, "n_MRB": 1}, Needs(multiple=4)),
    "M3SNet": (f"{EXTRA}.M3SNet", {"width": 4, **FOUR_LEVELS}, Needs(multiple=16)),
}

CONTAINERS: list[Callable[[Mapping[str, Tensor]], dict[str, Any]]] = [
    dict,
    lambda state: {"params": dict(state)},
    lambda state: {"params_ema": {f"module.{name}": value for name, value in state.items()}, "iteration": 7},
    lambda state: {"state_dict": {f"net_g.{name}": value for name, value in state.items()}, "epoch": 3},
    lambda state: {f"module.derainet.{name}": value for name, value in state.items()},
]


def scattered(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, with random weights that all have an effect."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def built(name: str, **changes: Any) -> nn.Module:
    module, arguments, _ = SPANDREL[name]
    pytest.importorskip(module.partition(".")[0])
    torch.manual_seed(0)
    return scattered(getattr(importlib.import_module(module), name)(**(arguments | changes)))


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def values_equal(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in state)


def refusal(path: Path, content: Any) -> str:
    """The message with which a file is refused, less the file's name."""
    with pytest.raises(WeightsError) as caught:
        PretrainedNet(saved(path, content))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_every_published_file_is_in_the_table(rainoerme_weights: Path) -> None:
    assert {path.name for path in rainoerme_weights.iterdir()} == set(PUBLISHED)


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_files_are_recognised_with_their_values(file: str, rainoerme_weights: Path) -> None:
    expected, key, prefix, count = PUBLISHED[file]
    network = PretrainedNet(str(rainoerme_weights / file))
    assert type(network) is expected
    content = torch.load(rainoerme_weights / file, map_location="cpu", weights_only=True)
    released = {name.removeprefix(prefix): value for name, value in (content[key] if key else content).items()}
    assert len(released) == count
    assert values_equal(network, released)
    assert needs_of(network) == Needs(channels_last=expected is not SPANet)


@pytest.mark.parametrize(
    ("file", "stages"), [("PReNet6_Rain100L.pth", 6), ("BRN_Rain100L.pth", 8), ("RESCAN_RainHeavy.pth", 4)]
)
def test_recurrent_networks_get_the_usual_stages(file: str, stages: int, rainoerme_weights: Path) -> None:
    assert PretrainedNet(str(rainoerme_weights / file)).stages == stages


@pytest.mark.parametrize("index", range(len(OWN)), ids=[kind.__name__ for kind, _ in OWN])
def test_own_networks_are_recognised_with_other_numbers_of_channels_in_any_container(
    index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, arguments = OWN[index]
    state = scattered(kind(**arguments)).state_dict()
    monkeypatch.setitem(sys.modules, "spandrel", None)
    network = PretrainedNet(saved(tmp_path / "a.pth", {"params": state}))
    assert type(network) is kind
    assert values_equal(network, state)
    monkeypatch.undo()
    container = CONTAINERS[index % len(CONTAINERS)]
    network = PretrainedNet(saved(tmp_path / "b.pth", container(state)))
    assert type(network) is kind
    assert values_equal(network, state)


def test_an_own_network_is_found_with_its_arguments_and_only_as_it_is() -> None:
    found = find_own(RESCAN(channels=4, depth=5).state_dict())
    assert found is not None
    assert (found[0].name, found[1]) == ("RESCAN", {"channels": 4, "depth": 5})
    assert find_own(built("NAFNet").state_dict()) is None
    assert find_own({f"module.{name}": value for name, value in PRN(channels=4).state_dict().items()}) is None
    # Without sizes to read, or none that a network can have.
    for weight in (torch.zeros(()), torch.zeros(0, 6, 3, 3)):
        names = ("conv0.0.weight", "conv_in.0.weight", "inc.0.weight", "dec.0.weight")
        assert find_own(dict.fromkeys(names, weight)) is None


def test_own_networks_of_half_precision_come_back_in_full(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in PReNet(channels=4).state_dict().items()}
    network = PretrainedNet(saved(tmp_path / "a.pth", state))
    assert values_equal(network, {name: value.float() for name, value in state.items()})


@pytest.mark.parametrize("kind", [PReNet, VRGNetPReNet, RESCAN, SPANet, RainOerMeNet])
@pytest.mark.parametrize("change", ["one more", "one less", "another shape"])
def test_weights_that_are_nearly_an_own_networks_are_refused(change: str, kind: type[nn.Module]) -> None:
    state = kind(channels=4).state_dict()
    last = list(state)[-1]
    if change == "one more":
        state["extra.weight"] = torch.zeros(1)
    elif change == "one less":
        del state[last]
    else:
        state[last] = torch.zeros(*state[last].shape, 1)
    with pytest.raises(WeightsError, match="of no network that this package or spandrel recognises"):
        recognise(state)


def test_a_network_is_only_made_once_its_weights_fit() -> None:
    # A PReNet of so many channels would take 360 GB.
    wide = torch.zeros(1).expand(100_000, 6, 3, 3)
    with pytest.raises(WeightsError, match="of no network"):
        recognise({"conv0.0.weight": wide, "conv0.0.bias": torch.zeros(1), "dec.0.weight": wide, "rnns.": wide})


def test_weights_of_sizes_that_no_machine_holds_are_refused() -> None:
    # One stored value is enough for a file to claim them.
    with pytest.raises(WeightsError, match="of no network"):
        recognise({"conv0.0.weight": torch.zeros(1).expand(2**31, 6, 3, 3)})


def test_a_trained_distillation_network_is_recognised_as_its_backbone(tmp_path: Path) -> None:
    network = DistillationNet(PRN_r(channels=4))
    save_checkpoint(checkpoint_of(network, "params") | checkpoint_of(network, "params_ema"), tmp_path / "a.pth")
    back = PretrainedNet(str(tmp_path / "a.pth"))
    assert type(back) is PRN_r
    assert values_equal(back, network.backbone.state_dict())


def test_a_named_key_is_looked_at_first_and_a_home_folder_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "a.pth", {"params": PRN(channels=4).state_dict(), "mine": PReNet_r(channels=4).state_dict()})
    assert type(PretrainedNet("~/a.pth")) is PRN
    assert type(PretrainedNet("~/a.pth", key="mine")) is PReNet_r
    saved(tmp_path / "b.pth", {"a.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=f"^{re.escape(str(tmp_path / 'b.pth'))}: "):
        PretrainedNet("~/b.pth")


def test_basicsr_builds_what_a_file_holds(tmp_path: Path) -> None:
    rainoerme_plugin.register()
    from basicsr.archs import build_network

    network = PRN(channels=4)
    file = saved(tmp_path / "a.pth", {"params": network.state_dict()})
    back = build_network({"type": "PretrainedNet", "file": file})
    assert type(back) is PRN
    assert values_equal(back, network.state_dict())


def registry() -> Any:
    """What spandrel knows, with the further networks."""
    found = spandrel.ArchRegistry()
    found.add(*spandrel.MAIN_REGISTRY)
    if importlib.util.find_spec("spandrel_extra_arches"):
        import spandrel_extra_arches

        found.add(*spandrel_extra_arches.EXTRA_REGISTRY)
    return found


@pytest.mark.parametrize("name", SPANDREL)
def test_networks_that_spandrel_knows_come_back_whole(name: str, tmp_path: Path) -> None:
    network = built(name)
    state, needs = network.state_dict(), SPANDREL[name][2]
    container = CONTAINERS[list(SPANDREL).index(name) % len(CONTAINERS)]
    back = PretrainedNet(saved(tmp_path / "a.pth", container(state))).eval()
    assert type(back) is SpandrelNet
    assert type(back.network) is type(network)
    assert values_equal(back.network, state)
    assert back.needs == needs_of(back) == needs
    # What a checkpoint holds is the bare network, for spandrel's own loader too.
    bare = checkpoint_of(back, "params")
    assert list(bare) == ["params"]
    assert bare["params"].keys() == state.keys()
    torch.save(bare, tmp_path / "b.pth")
    descriptor = spandrel.ModelLoader(registry=registry()).load_from_file(tmp_path / "b.pth")
    assert isinstance(descriptor, spandrel.ImageModelDescriptor)

    size = -(-needs.minimum // needs.multiple) * needs.multiple
    width = size if needs.square else size + needs.multiple
    rainy = torch.rand(1, 3, size, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        derained = derain(back, rainy, back.needs)
        direct = None if name == "IPT" else network(rainy)
        direct = direct[0] if name == "MPRNet" else direct
    if direct is not None:
        torch.testing.assert_close(derained, direct, rtol=0, atol=1e-5)
    # spandrel clamps.
    torch.testing.assert_close(derained.clamp(0, 1), descriptor(rainy), rtol=0, atol=1e-5)
    assert (derained.min() < 0) | (derained.max() > 1)


@pytest.mark.parametrize("name", SPANDREL)
def test_networks_that_spandrel_knows_keep_odd_sizes_and_learn(name: str) -> None:
    network = recognise(built(name).state_dict())
    rainy = torch.rand(1, 3, 13, 7, generator=torch.Generator().manual_seed(1)).requires_grad_()
    derained = derain(network, rainy, needs_of(network))
    assert derained.shape == rainy.shape
    derained.square().mean().backward()
    assert rainy.grad is not None
    assert rainy.grad.isfinite().all()
    assert rainy.grad.any()
    learns = [parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.parameters()]
    assert sum(learns) > 0.7 * len(learns)


def test_ipt_takes_several_images_at_once() -> None:
    network = recognise(built("IPT").state_dict())
    rainy = torch.rand(2, 3, 15, 14, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        derained = derain(network, rainy, needs_of(network))
        one_by_one = [derain(network, image[None], needs_of(network)) for image in rainy]
    torch.testing.assert_close(derained, torch.cat(one_by_one))


def test_what_a_recognised_network_has_learnt_is_loaded_into_it_again(tmp_path: Path) -> None:
    network = built("NAFNet")
    back = recognise(network.state_dict())
    with torch.no_grad():
        for parameter in back.parameters():
            parameter.add_(1)
    save_checkpoint(checkpoint_of(back, "params"), tmp_path / "a.pth")
    again = recognise(network.state_dict())
    count = len(network.state_dict())
    assert load_weights(again, tmp_path / "a.pth") == (count, count, ())
    assert values_equal(again, back.state_dict())


@pytest.mark.parametrize("name", ["NAFNet", "Restormer"])
def test_safetensors_files_are_recognised(name: str, tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in built(name).state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    network = PretrainedNet(str(tmp_path / "a.safetensors"))
    assert values_equal(network.network, state)


def architectures() -> list[str]:
    return [support.architecture.id for support in spandrel.MAIN_REGISTRY.architectures("detection")]


def test_spandrels_own_list_stays_as_it_is() -> None:
    before = architectures()
    for name in ("Restormer", "NAFNet"):
        recognise(built(name).state_dict())
    with pytest.raises(WeightsError):
        recognise({"a.weight": torch.zeros(1)})
    assert architectures() == before
    assert "Restormer" not in before


def test_further_networks_that_are_in_spandrels_own_list_already_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    state = built("Restormer").state_dict()
    for attribute in ("_architectures", "_ordered", "_by_id"):
        monkeypatch.setattr(spandrel.MAIN_REGISTRY, attribute, getattr(spandrel.MAIN_REGISTRY, attribute))
    import spandrel_extra_arches

    spandrel_extra_arches.install()
    assert type(recognise(state)) is SpandrelNet


def test_super_resolution_is_refused_in_a_sentence(tmp_path: Path) -> None:
    compact = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=4).state_dict()
    words = "which does not keep an image's size: no derainer"
    assert refusal(tmp_path / "a.pth", {"params": compact}) == f"the weights are of RealESRGAN Compact, {words}"
    esrgan = ESRGAN(num_filters=8, num_blocks=1, scale=4).state_dict()
    assert refusal(tmp_path / "a.pth", {"params_ema": esrgan}) == f"the weights are of ESRGAN, {words}"
    prefixed = {f"module.{name}": value for name, value in compact.items()}
    assert refusal(tmp_path / "a.pth", prefixed) == f"the weights are of RealESRGAN Compact, {words}"


def test_a_network_of_a_kind_for_super_resolution_is_taken_where_it_keeps_the_size(tmp_path: Path) -> None:
    compact = scattered(Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=1))
    network = PretrainedNet(saved(tmp_path / "a.pth", compact.state_dict())).eval()
    rainy = torch.rand(2, 3, 9, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(derain(network, rainy, needs_of(network)), compact(rainy), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "arguments", "channels"),
    [
        ("NAFNet", {"img_channel": 1}, "1 to 1"),
        ("Restormer", {"inp_channels": 1, "out_channels": 1}, "1 to 1"),
        ("Restormer", {"inp_channels": 6, "dual_pixel_task": True}, "6 to 3"),
    ],
)
def test_networks_for_other_channels_are_refused(
    name: str, arguments: dict[str, Any], channels: str, tmp_path: Path
) -> None:
    state = built(name, **arguments).state_dict()
    expected = f"the weights are of {name} from {channels} channels; a derainer has 3"
    assert refusal(tmp_path / "a.pth", {"params": state}) == expected


def test_a_network_that_makes_grey_of_colour_is_refused_for_what_it_makes(tmp_path: Path) -> None:
    state = built("Restormer", out_channels=1).state_dict()
    expected = "the weights are of Restormer from 3 to 1 channels; a derainer has 3"
    assert refusal(tmp_path / "a.pth", {"params": state}) == expected


UNKNOWN = "the weights are of no network that this package or spandrel recognises"
REMEDY = "if you know which, name it with type:"


@pytest.mark.parametrize("prefix", ["", "module.", "a.b."])
def test_unknown_weights_are_refused(prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("spandrel_extra_arches")
    content = {"params": {f"{prefix}{name}": torch.zeros(2) for name in ("first.weight", "last.weight", "x")}}
    assert refusal(tmp_path / "a.pth", content) == f"{UNKNOWN}; {REMEDY}"


def test_without_the_further_networks_it_is_said_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restormer, nafnet = built("Restormer").state_dict(), built("NAFNet").state_dict()
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    more = "spandrel_extra_arches knows more (Restormer, MPRNet ...): pip install 'spandrel_extra_arches<0.3'"
    for state in (restormer, {"a.weight": torch.zeros(2)}):
        assert refusal(tmp_path / "a.pth", state) == f"{UNKNOWN}; {more}; {REMEDY}"
    assert type(recognise(nafnet)) is SpandrelNet
    assert type(recognise(PRN(channels=4).state_dict())) is PRN


@pytest.mark.parametrize(
    "change",
    [
        {"intro.weight": torch.zeros(4, 3, 5, 5)},
        {"intro.weight": torch.zeros(6, 3, 3, 3)},
        {"intro.bias": None},
        {"extra.weight": torch.zeros(1)},
        {"intro.weight": torch.zeros(3)},
    ],
)
def test_weights_that_spandrel_takes_for_a_network_that_they_do_not_fit_are_refused(
    change: dict[str, Tensor | None], tmp_path: Path
) -> None:
    state = {name: value for name, value in (built("NAFNet").state_dict() | change).items() if value is not None}
    words = r"spandrel takes the weights for a network that they do not fit \(.+\)"
    assert re.fullmatch(words, refusal(tmp_path / "a.pth", state))


class RunsCode:
    """Makes the folder ``ran`` when it is unpickled without care."""

    def __init__(self, ran: Path) -> None:
        self.ran = str(ran)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.ran,)


def test_a_file_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    content = {"params": PRN(channels=4).state_dict(), "note": RunsCode(ran)}
    assert refusal(tmp_path / "a.pth", content).startswith("holds more than tensors and plain types")
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["own", "spandrel"])
def test_values_that_are_not_finite_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    network, name = (PRN(channels=4), "conv.0.bias") if kind == "own" else (built("NAFNet"), "intro.bias")
    state = network.state_dict()
    state[name][1] = float("nan")
    expected = f"{name} holds NaN or infinite values; the file is of no use"
    assert refusal(tmp_path / "a.pth", {"params": state}) == expected


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_cut_short_or_missing_is_refused(name: str, tmp_path: Path) -> None:
    path, state = tmp_path / name, PRN(channels=4).state_dict()
    if name == "a.pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    content = path.read_bytes()
    for length in (7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"^\S+: not a (PyTorch checkpoint|safetensors file), or damaged$"):
            PretrainedNet(str(path))
    path.unlink()
    with pytest.raises(WeightsError, match=r"^no such checkpoint: \S+ \(looked from .*\)$"):
        PretrainedNet(str(path))


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.pth", {"epoch": 3}).startswith("no network's weights found at the top or under")


def test_every_own_network_of_the_catalogue_is_tried_here() -> None:
    assert {kind for kind, _ in OWN} == {card.load() for card in CATALOGUE if card.package == "rainoerme_plugin"}
