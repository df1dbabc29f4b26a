"""Networks made of networks, from option files: training, checkpoints, resuming, scoring, and what is refused."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import RATE, model_options, tiny_data, tiny_options, write_images
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import Needs
from rainoerme_plugin.archs.prenet import PReNet, PReNet_r
from rainoerme_plugin.commands import main
from rainoerme_plugin.config import Request
from rainoerme_plugin.engine.testing import Score
from rainoerme_plugin.engine.testing import test as run_test
from rainoerme_plugin.engine.training import train
from rainoerme_plugin.errors import DataError, OptionError, WeightsError
from rainoerme_plugin.plugin import register
from rainoerme_plugin.registered.networks import DistillationNet, PretrainedNet
from rainoerme_plugin.weights import load_weights

PRENET = {"type": "PReNet", "stages": 2, "channels": 4}
SWINIR = {"type": "SwinIR", "upscale": 1, "window_size": 4, "img_size": 24, "embed_dim": 8, "depths": [2],
          "num_heads": [2], "mlp_ratio": 2}  # fmt: skip
RCAN = {"type": "RCAN", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_group": 1, "num_block": 1,
        "squeeze_factor": 4, "upscale": 1, "img_range": 1.0}  # fmt: skip
NAFNET = {"type": "NAFNet", "width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}
UNET = {"type": "DerainUNet", "channels": 4, "encoder": [1, 2], "middle": 1, "decoder": [1, 1]}
KEYS = ["params", "params_detail", "params_ema", "params_ema_detail"]


class Eighths(nn.Module):
    """Takes multiples of 8 only, and says so nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 8, stride=8)
        self.up = nn.ConvTranspose2d(4, 3, 8, stride=8)

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy - self.up(F.relu(self.down(rainy)))


class Stages(nn.Module):
    """Returns a list: the rainy image as it is, the derained one, and half of it."""

    needs = Needs(2, 24, True, 2)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> list[Tensor]:
        derained = rainy - 0.1 * self.conv(rainy)
        return [rainy, derained, derained / 2]


class TwoHeads(nn.Module):
    """Returns a tuple, and nobody knows which is the derained image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        rain = self.conv(rainy)
        return rain, rainy - rain


class Normed(nn.Module):
    """Batch statistics in training, their running means elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy - 0.1 * self.norm(self.conv(rainy))


pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # BasicSR's SwinIR


@pytest.fixture(autouse=True)
def own_networks() -> Iterator[None]:
    """Networks of a user's, in BasicSR's registry."""
    register()
    from basicsr.utils.registry import ARCH_REGISTRY

    own = (Eighths, Stages, TwoHeads, Normed)
    for network in own:
        ARCH_REGISTRY.register(network)
    yield
    for network in own:
        del ARCH_REGISTRY._obj_map[network.__name__]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def distilled(backbone: Any = PRENET, **more: Any) -> dict[str, Any]:
    """``network_g`` of an option file."""
    return {"_delete_": True, "type": "DistillationNet", "backbone": backbone, **more}


def build(options: dict[str, Any], seed: int = 0) -> Any:
    from basicsr.archs import build_network

    torch.manual_seed(seed)
    return build_network({key: value for key, value in options.items() if key != "_delete_"})


def start(
    data: Path, backbone: dict[str, Any] = PRENET, name: str = "start.pth", seed: int = 5
) -> tuple[Path, nn.Module]:
    """A network with weights, and its file; NAFNet's blocks start as nothing, so all weights are drawn."""
    network = build(backbone, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    torch.save({"params": network.state_dict()}, data / name)
    return data / name, network


def run(data: Path, name: str, *overrides: str, resume: bool = False, **changes: Any) -> dict[str, Any]:
    """Train below ``data/name`` without validation; the contents of the last checkpoint."""
    options = tiny_options(data, **{"val": None, **changes})
    train(Request(options, overrides, auto_resume=resume, root=data / name))
    return saved(data, name)


def saved(data: Path, name: str, iteration: int | str = "latest") -> dict[str, dict[str, Tensor]]:
    file = data / name / "experiments" / "tiny" / "models" / f"net_g_{iteration}.pth"
    return torch.load(file, weights_only=True)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert list(one) == list(other)
    return all(torch.equal(one[name], other[name]) for name in one)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two state dicts."""
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


# --- what option files make ---


def test_a_backbone_starts_from_a_file_and_prefers_the_mean_in_it(data: Path) -> None:
    torch.manual_seed(3)
    plain, mean = PReNet(2, 4), PReNet(2, 4)
    torch.save({"params": plain.state_dict(), "params_ema": mean.state_dict()}, data / "net.pth")
    file = str(data / "net.pth")
    assert same(build(distilled(pretrained=file)).backbone.state_dict(), mean.state_dict())
    assert same(build(distilled(pretrained=file, param_key="params")).backbone.state_dict(), plain.state_dict())
    with pytest.raises(WeightsError, match="nothing under net, which param_key: names; it holds params, params_ema"):
        build(distilled(pretrained=file, param_key="net"))


@pytest.mark.parametrize(
    ("more", "identity"), [({}, True), ({"detail_start": "identity"}, True), ({"detail_start": "noise"}, False)]
)
@pytest.mark.parametrize("pretrained", [False, True])
def test_the_detail_block_starts_as_the_options_say(
    data: Path, more: dict[str, Any], identity: bool, pretrained: bool
) -> None:
    options = distilled(**more, **({"pretrained": str(start(data)[0])} if pretrained else {}))
    rain = 0.2 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = build(options)
    assert type(network) is DistillationNet
    with torch.no_grad():
        refined = network.detail(rain)
    if identity:
        assert (refined - rain).std() < 0.3 * rain.std()
    else:
        assert refined.std() < 0.1 * rain.std()


@pytest.mark.parametrize(("layers", "convolutions"), [({}, 3), ({"detail_layers": 3}, 3), ({"detail_layers": 2}, 2)])
def test_the_detail_block_has_so_many_convolutions(layers: dict[str, int], convolutions: int) -> None:
    network = build(distilled(**layers))
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.detail) == convolutions


@pytest.mark.parametrize(
    ("backbone", "more", "needs"),
    [
        (PRENET, {}, Needs(channels_last=True)),
        (PRENET, {"multiple": 16, "output": 0}, Needs(16, output=0, channels_last=True)),
        (NAFNET, {}, Needs(4, zeros=True)),
        (NAFNET, {"multiple": 32}, Needs(32, zeros=True)),
        (UNET, {}, Needs(8, channels_last=True)),
        (SWINIR, {}, Needs(4, 1, False, None)),
        (RCAN, {}, Needs(channels_last=True)),
        ({"type": "Stages"}, {}, Needs(2, 24, True, 2)),
        ({"type": "Stages"}, {"multiple": 8}, Needs(8, 24, True, 2)),
        ({"type": "Stages"}, {"multiple": 1}, Needs(1, 24, True, 2)),
        ({"type": "Stages"}, {"output": 0}, Needs(2, 24, True, 0)),
        ({"type": "Stages"}, {"output": -1, "multiple": 3}, Needs(3, 24, True, -1)),
    ],
)
def test_what_a_backbone_takes_is_known_unless_the_options_say_it(
    backbone: dict[str, Any], more: dict[str, Any], needs: Needs
) -> None:
    assert build(distilled(backbone, **more)).backbone_needs == needs


def test_channels_are_the_backbones_own_whatever_it_is() -> None:
    assert DistillationNet(UNET, channels=8).backbone.intro.out_channels == 8  # type: ignore[union-attr]
    assert DistillationNet({"type": "RainOerMeNet"}, channels=3).backbone.inc[0].out_channels == 3  # type: ignore[index,union-attr]
    assert DistillationNet(UNET).backbone.intro.out_channels == UNET["channels"]  # type: ignore[union-attr]


def test_options_are_left_as_they_were() -> None:
    options = {"type": "DistillationNet", "backbone": dict(PRENET)}
    build(options)
    assert options == {"type": "DistillationNet", "backbone": PRENET}
    backbone = dict(PRENET)
    DistillationNet(backbone)
    assert backbone == PRENET


def test_what_fits_of_a_file_is_loaded_on_request(data: Path) -> None:
    torch.manual_seed(3)
    recursive = PReNet_r(2, 4).state_dict()  # one residual block in place of five
    torch.save({"params": recursive}, data / "net.pth")
    with pytest.raises(
        WeightsError, match=r"net\.pth does not fit PReNet.*: 16 of 32 weights match; 16 missing: res_co"
    ):
        build(distilled(pretrained=str(data / "net.pth")))
    loaded = build(distilled(pretrained=str(data / "net.pth"), strict_load=False)).backbone.state_dict()
    fresh = build(distilled()).backbone.state_dict()
    for name, value in loaded.items():
        assert torch.equal(value, recursive.get(name, fresh[name]))


@pytest.mark.parametrize("strict", [True, False])
def test_a_file_of_quite_another_network_never_loads(data: Path, strict: bool) -> None:
    torch.save({"params": nn.Linear(3, 3).state_dict()}, data / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth does not fit PReNet: 0 of 32 weights match"):
        build(distilled(pretrained=str(data / "net.pth"), strict_load=strict))


# --- the network that a file holds ---


def test_a_network_is_recognised_from_its_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    plain, mean = PReNet(channels=5).state_dict(), PReNet(channels=6).state_dict()
    wrapped = {f"module.netG.{name}": value for name, value in plain.items()}
    torch.save({"params": wrapped, "params_ema": mean, "mine": plain}, data / "net.pth")
    monkeypatch.setenv("HOME", str(data))
    for file, key, wanted in (
        (data / "net.pth", None, mean),
        (data / "net.pth", "params", plain),
        (data / "net.pth", "mine", plain),
        ("~/net.pth", None, mean),
    ):
        network = PretrainedNet(str(file), key)
        assert type(network) is PReNet
        assert network.stages == 6
        assert same(network.state_dict(), wanted)


def test_a_file_of_no_known_network_is_refused_by_its_name(data: Path) -> None:
    torch.save({"params": nn.Linear(3, 3).state_dict()}, data / "net.pth")
    with pytest.raises(WeightsError, match=r"^.*/net\.pth: the weights are of no network that this package or"):
        PretrainedNet(str(data / "net.pth"))


# --- training ---


@pytest.mark.parametrize("backbone", [PRENET, SWINIR, RCAN, NAFNET, UNET], ids=lambda backbone: backbone["type"])
def test_any_backbone_trains_and_its_checkpoint_is_the_bare_network(data: Path, backbone: dict[str, Any]) -> None:
    file, before = start(data, backbone)
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    network = distilled(backbone, pretrained=str(file))
    run(data, "one", "train.total_iter=3", network_g=network, datasets__train__crop_size=22)
    found = saved(data, "one", 3)
    assert list(found) == KEYS
    assert list(found["params"]) == list(found["params_ema"]) == list(kept)
    detail = [f"{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")]
    assert list(found["params_detail"]) == list(found["params_ema_detail"]) == detail
    assert 1e-4 < distance(found["params"], kept) < 1e-2
    assert distance(found["params_detail"], build(network).detail.state_dict()) > 1e-4
    for suffix in ("", "_detail"):
        assert 1e-5 < distance(found[f"params{suffix}"], found[f"params_ema{suffix}"]) < 1e-2

    path = data / "one" / "experiments" / "tiny" / "models" / "net_g_3.pth"
    rainy = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    whole = build(distilled(backbone)).eval()
    for key in ("params", "params_ema"):
        plain, own = build(backbone, seed=1).eval(), build(backbone, seed=2).eval()
        plain.load_state_dict(found[key], strict=True)
        assert load_weights(own, path, key) == (len(kept), len(kept), ())
        assert load_weights(whole, path, key) == (len(kept) + 6, len(kept) + 6, ())
        assert same(own.state_dict(), found[key])
        assert same(whole.detail.state_dict(), found[f"{key}_detail"])
        with torch.no_grad():
            torch.testing.assert_close(plain(rainy), whole(rainy), rtol=0, atol=1e-5)  # one in channels last


def test_a_network_that_spandrel_recognises_is_saved_as_spandrel_knows_it(data: Path) -> None:
    file, before = start(data, NAFNET)
    found = run(data, "one", "train.total_iter=1", network_g=distilled({"type": "PretrainedNet", "file": str(file)}))
    assert list(found["params"]) == list(found["params_ema"]) == list(before.state_dict())
    assert 1e-5 < distance(found["params"], before.state_dict()) < 1e-2
    build(NAFNET).load_state_dict(found["params"], strict=True)


TRAINED: list[dict[str, Any]] = [{}, {"lr_factor": 0.1, "freeze_iter": 4}, {"lr_factor": 0.5}, {"lr_factor": 0}]


@pytest.mark.parametrize("trained", TRAINED, ids=str)
def test_stopped_and_resumed_gives_the_same_weights(data: Path, trained: dict[str, Any]) -> None:
    file, _ = start(data)
    changes = {"network_g": distilled(pretrained=str(file))}
    if trained:
        changes["train__backbone"] = trained
    whole = run(data, "whole", **changes)
    half = run(data, "parts", "train.total_iter=3", **changes)
    parts = run(data, "parts", resume=True, **changes)
    assert list(whole) == list(parts) == KEYS
    assert all(same(whole[key], parts[key]) for key in KEYS)
    assert not same(half["params_detail"], parts["params_detail"])


def test_a_run_that_starts_from_the_bare_network_starts_its_block_anew(data: Path) -> None:
    file, before = start(data)
    opt = options(data)
    opt["path"]["pretrain_network_g"] = str(file)
    model = build_model(opt)
    assert same(model.net_g.backbone.state_dict(), before.state_dict())
    assert same(model.net_g.state_dict(), model.net_g_ema.state_dict())
    assert model.net_g_ema is not model.net_g
    assert not model.net_g_ema.training


def test_a_run_goes_on_from_an_earlier_ones_network_and_block(data: Path) -> None:
    first = run(data, "one", "train.total_iter=2", network_g=distilled())
    opt = options(data)
    opt["path"]["pretrain_network_g"] = str(data / "one" / "experiments" / "tiny" / "models" / "net_g_2.pth")
    model = build_model(opt)
    for network, key in ((model.net_g, "params"), (model.net_g_ema, "params_ema")):
        assert same(network.backbone.state_dict(), first[key])
        assert same(network.detail.state_dict(), first[f"{key}_detail"])


def test_a_run_starts_from_what_fits_on_request_only(data: Path) -> None:
    opt = options(data)
    torch.manual_seed(3)
    recursive = PReNet_r(2, 4).state_dict()
    torch.save({"params": recursive}, data / "net.pth")
    opt["path"]["pretrain_network_g"] = str(data / "net.pth")
    with pytest.raises(
        WeightsError, match=r"net\.pth does not fit PReNet.*: 16 of 32 weights match; 16 missing: res_co"
    ):
        build_model(opt)
    opt["path"]["strict_load_g"] = False
    for network in (build_model(opt).net_g, build_model(opt).net_g_ema):
        loaded = network.backbone.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in recursive.items())


def test_without_a_running_mean_the_checkpoint_has_none(data: Path) -> None:
    found = run(data, "one", "train.total_iter=1", network_g=distilled(), train__ema_decay=0)
    assert list(found) == ["params", "params_detail"]


def test_batch_statistics_are_those_of_training_in_the_running_mean_too(data: Path) -> None:
    """Validation derains with the running mean; with untrained statistics it would be another network."""
    found = run(data, "one", "train.total_iter=3", network_g=distilled({"type": "Normed"}))
    for name in ("norm.running_mean", "norm.running_var"):
        assert torch.equal(found["params"][name], found["params_ema"][name])
    assert found["params"]["norm.num_batches_tracked"] == found["params_ema"]["norm.num_batches_tracked"]


def test_validation_in_training_derains_with_the_backbone(data: Path) -> None:
    network = distilled({"type": "Eighths"}, multiple=16)  # the test images are 40 high
    file = tiny_options(data, network_g=network)
    train(Request(file, ("train.total_iter=1", "val.val_freq=1"), root=data))
    log = next((data / "experiments" / "tiny").glob("train_*.log")).read_text()
    assert "# psnr" in log
    assert (data / "experiments" / "tiny" / "visualization" / "panels" / "val" / "1_1.png").is_file()


# --- how the backbone is trained ---


def options(root: Path, network: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What BasicSR hands to a model; ``changes`` are to the section ``train``."""
    bare = {key: value for key, value in (network or distilled()).items() if key != "_delete_"}
    return model_options(root, bare, {}, **changes)


def build_model(opt: dict[str, Any], seed: int = 0) -> Any:
    from basicsr.models import build_model as build_stock_model

    torch.manual_seed(seed)
    return build_stock_model(opt)


def batch(seed: int, size: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(2, 3, size, size, generator=generator) for key in ("rainy", "label", "clean")}


def rates(model: Any) -> list[float]:
    return [group["lr"] for group in model.optimizer_g.param_groups]


@pytest.mark.parametrize(
    ("trained", "wanted"),
    [
        (None, [RATE]),
        ({}, [RATE, RATE]),
        ({"lr_factor": 0.1}, [RATE, 1e-4]),
        ({"lr_factor": 2.0, "freeze_iter": 3}, [RATE, 2e-3]),
        ({"lr_factor": 0}, [RATE]),
    ],
)
def test_block_and_backbone_have_a_learning_rate_each(
    data: Path, trained: dict[str, Any] | None, wanted: list[float]
) -> None:
    model = build_model(options(data, backbone=trained))
    assert rates(model) == pytest.approx(wanted, rel=1e-9)
    groups = [group["params"] for group in model.optimizer_g.param_groups]
    backbone, detail = ({id(one) for one in part.parameters()} for part in (model.net_g.backbone, model.net_g.detail))
    found = [[id(one) for one in group] for group in groups]
    assert all(len(group) == len(set(group)) for group in found)
    if trained is None:
        assert set(found[0]) == backbone | detail
    elif trained.get("lr_factor") == 0:
        assert set(found[0]) == detail
    else:
        assert [set(group) for group in found] == [detail, backbone]
    assert all(list(group["betas"]) == [0.5, 0.999] for group in model.optimizer_g.param_groups)


def test_the_schedulers_keep_the_ratio_of_both_rates(data: Path) -> None:
    linear = build_model(options(data, backbone={"lr_factor": 0.1}))
    steps = {"type": "MultiStepLR", "milestones": [2, 4], "gamma": 0.5}
    stock = build_model(options(data, backbone={"lr_factor": 0.1}, scheduler=steps))
    found: dict[str, list[list[float]]] = {"linear": [], "stock": []}
    for iteration in range(1, 9):
        for name, model in (("linear", linear), ("stock", stock)):
            model.update_learning_rate(iteration, warmup_iter=-1)
            assert model.get_current_learning_rate() == rates(model)
            found[name].append(rates(model))
            model.optimizer_g.step()
    parts = {"linear": [1.0] * 6 + [0.8, 0.6], "stock": [1.0] * 2 + [0.5] * 2 + [0.25] * 4}
    for name, factors in parts.items():
        assert [pair[0] for pair in found[name]] == pytest.approx([RATE * factor for factor in factors])
        assert [pair[1] for pair in found[name]] == pytest.approx([0.1 * RATE * factor for factor in factors])


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_a_first_step_of_adam_is_as_long_as_each_rate(data: Path, factor: float) -> None:
    model = build_model(options(data, backbone={"lr_factor": factor}))
    before = {name: value.clone() for name, value in model.net_g.state_dict().items()}
    model.feed_data(batch(0))
    model.optimize_parameters(1)
    after = model.net_g.state_dict()
    for part, rate in (("detail.", RATE), ("backbone.", RATE * factor)):
        moved = max(float((after[name] - before[name]).abs().max()) for name in after if name.startswith(part))
        assert moved == pytest.approx(rate, rel=2e-2)


def test_a_frozen_backbone_stays_bit_for_bit_while_the_block_learns(data: Path) -> None:
    file, before = start(data)
    network = distilled(pretrained=str(file))
    found = run(data, "one", network_g=network, train__backbone={"lr_factor": 0})
    assert same(found["params"], before.state_dict())
    assert distance(found["params_ema"], before.state_dict()) < 1e-6
    assert distance(found["params_detail"], build(network).detail.state_dict()) > 1e-4
    assert distance(found["params_detail"], found["params_ema_detail"]) > 1e-5


def test_a_frozen_backbone_keeps_its_batch_statistics(data: Path) -> None:
    file, before = start(data, {"type": "Normed"})
    network = distilled({"type": "Normed"}, pretrained=str(file))
    found = run(data, "one", "train.total_iter=2", network_g=network, train__backbone={"lr_factor": 0})
    assert same(found["params"], before.state_dict())
    model = build_model(options(data, network, backbone={"lr_factor": 0}))
    assert model.net_g.training
    assert not model.net_g.backbone.norm.training


@pytest.mark.parametrize("optimiser", [{"type": "Adam"}, {"type": "AdamW", "weight_decay": 0.5}], ids=str)
def test_the_backbone_rests_for_so_many_iterations(data: Path, optimiser: dict[str, Any]) -> None:
    file, before = start(data)
    network = distilled(pretrained=str(file))
    changes = {"train__optim_g": {"_delete_": True, "lr": RATE, **optimiser}, "logger__save_checkpoint_freq": 1}
    run(data, "one", "train.total_iter=4", network_g=network, train__backbone={"freeze_iter": 3}, **changes)
    block = build(network).detail.state_dict()
    for iteration in (1, 2, 3):
        found = saved(data, "one", iteration)
        assert same(found["params"], before.state_dict())
        assert distance(found["params_ema"], before.state_dict()) < 1e-6
        assert distance(found["params_detail"], block) > 1e-4
        block = found["params_detail"]
    found = saved(data, "one", 4)
    assert 1e-4 < distance(found["params"], before.state_dict()) < 2e-3
    assert distance(found["params_detail"], block) > 1e-4


def test_without_a_rest_the_backbone_learns_at_once(data: Path) -> None:
    file, before = start(data)
    for name, changes in (("none", {}), ("zero", {"train__backbone": {"freeze_iter": 0}})):
        found = run(data, name, "train.total_iter=1", network_g=distilled(pretrained=str(file)), **changes)
        assert distance(found["params"], before.state_dict()) > 1e-4
    assert all(same(saved(data, "none")[key], saved(data, "zero")[key]) for key in KEYS)


# --- networks of one's own ---


def test_an_unknown_multiple_is_hinted_at_and_can_be_given(data: Path) -> None:
    with pytest.raises(OptionError) as caught:
        run(data, "one", network_g=distilled({"type": "Eighths"}), datasets__train__crop_size=20)
    assert str(caught.value).startswith("Eighths does not take images of 20x20 pixels (The size of tensor a (20) must")
    assert "some networks take multiples of a number only" in str(caught.value)
    found = run(data, "two", network_g=distilled({"type": "Eighths"}, multiple=8), datasets__train__crop_size=20)
    build({"type": "Eighths"}).load_state_dict(found["params"], strict=True)


def test_of_several_results_one_must_be_named(data: Path) -> None:
    with pytest.raises(OptionError, match=r"^TwoHeads returns 2 results; output: says which is the derained image"):
        run(data, "none", network_g=distilled({"type": "TwoHeads"}))
    with pytest.raises(OptionError, match=r"^TwoHeads returns 2 results, so there is no output 2$"):
        run(data, "third", network_g=distilled({"type": "TwoHeads"}, output=2))
    found = run(data, "second", network_g=distilled({"type": "TwoHeads"}, output=1))
    build({"type": "TwoHeads"}).load_state_dict(found["params"], strict=True)
    network = build(distilled({"type": "TwoHeads"}, output=1))
    rainy = torch.rand(1, 3, 9, 9)
    assert torch.equal(network(rainy), rainy - network.backbone.conv(rainy))


# --- what is refused ---


def test_only_a_distillation_net_has_a_backbone_to_train(data: Path) -> None:
    with pytest.raises(OptionError, match=r"^train\.backbone: only a DistillationNet has one; network_g is none$"):
        run(data, "one", train__backbone={"lr_factor": 0.1})


def test_a_bare_network_is_not_trained_and_the_remedy_is_shown(data: Path) -> None:
    remedy = r"write \{type: DistillationNet, backbone: \{type: PReNet, \.\.\.\}\}$"
    with pytest.raises(OptionError, match=r"^network_g: PReNet has no detail enhancement block; .*" + remedy):
        run(data, "one", network_g={"_delete_": True, **PRENET})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {**PRENET, "stagess": 2}}, r"g\.backbone\.stagess: unknown key; did you mean 'stages'"),
        ({"backbone": {"type": "PReNet", "stages": "two"}}, r"network_g\.backbone\.stages: .*integer.*'two'"),
        ({"backbone": {"stages": 2}}, r"network_g\.backbone\.type: is missing"),
        ({"backbone": {"type": "PReNett"}}, r"g\.backbone\.type: no network is called 'PReNett'; did you mean 'PRe"),
        ({"backbone": "PReNet"}, r"network_g\.backbone: "),
        (
            {"backbone": {"type": "DistillationNet", "backbone": {"type": "x"}}},
            r"g\.backbone\.backbone\.type: no netwo",
        ),
        ({"bacbone": PRENET}, r"network_g\.bacbone: unknown key; did you mean 'backbone'"),
        ({}, r"network_g\.backbone: is missing"),
        ({"backbone": PRENET, "detail_layer": 2}, "did you mean 'detail_layers'"),
        ({"backbone": PRENET, "detail_layers": "two"}, r"network_g\.detail_layers: .*'two'"),
        ({"backbone": PRENET, "strict_load": "no"}, r"network_g\.strict_load: .*'no'"),
    ],
)
def test_what_is_wrong_in_nested_options_is_named(data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(data, "one", network_g={"_delete_": True, "type": "DistillationNet", **changes})
    assert not (data / "one").exists()


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        ({"lr_facto": 0.1}, r"train\.backbone\.lr_facto: unknown key; did you mean 'lr_factor'"),
        ({"lr_factor": -0.1}, r"train\.backbone\.lr_factor: .*greater than or equal to 0, got -0\.1"),
        ({"lr_factor": "1e-1"}, r"train\.backbone\.lr_factor: '1e-1' is text to YAML; write 1\.0e-1"),
        ({"freeze_iter": -1}, r"train\.backbone\.freeze_iter: .*greater than or equal to 0, got -1"),
        ({"freeze_iter": 2.5}, r"train\.backbone\.freeze_iter: .*integer.*2\.5"),
        (0.1, r"train\.backbone: "),
    ],
)
def test_how_a_backbone_cannot_be_trained_is_named(data: Path, trained: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(data, "one", network_g=distilled(), train__backbone=trained)
    assert not (data / "one").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"detail_start": "nose"}, "detail_start"),
        ({"detail_layers": 4}, "detail_layers must be 3"),
        ({"multiple": 0}, "multiple"),
        ({"multiple": -8}, "multiple"),
        ({"multiple": "eight"}, "multiple"),
        ({"backbone": {"type": "TwoHeads"}, "output": "one"}, "output"),
        ({"pretrained": 3}, "pretrained|str"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_an_option_error(data: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(data, "one", "train.total_iter=1", network_g={**distilled(), **more})


# --- scoring ---

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True},
    "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": True},
    "rgb": {"type": "derain_psnr", "protocol": "rgb"},
}


def score(data: Path, network: dict[str, Any], root: Path | None = None, **changes: Any) -> Score:
    changes = {"val__metrics": {"_delete_": True, **METRICS}, "network_g": {"_delete_": True, **network}, **changes}
    root = root or Path(tempfile.mkdtemp(dir=data))
    (found,), _ = run_test(Request(tiny_options(data, **changes), root=root))
    assert found.images == 2
    assert set(found.rainy) == set(found.derained) == set(METRICS)
    return found


@pytest.mark.parametrize("backbone", [PRENET, NAFNET], ids=lambda backbone: backbone["type"])
def test_a_checkpoint_scores_the_same_bare_and_with_its_block(data: Path, backbone: dict[str, Any]) -> None:
    file, _ = start(data, backbone)
    run(data, "one", "train.total_iter=2", network_g=distilled(backbone, pretrained=str(file)))
    path = {"path__pretrain_network_g": str(data / "one" / "experiments" / "tiny" / "models" / "net_g_2.pth")}
    bare, whole = score(data, backbone, **path), score(data, distilled(backbone), **path)
    assert bare == whole
    mean = score(data, backbone, path__param_key_g="params_ema", **path)
    assert mean.rainy == bare.rainy
    assert mean.derained != bare.derained
    assert bare.derained != bare.rainy


def test_a_backbone_that_brings_its_weights_needs_no_path(data: Path) -> None:
    file, _ = start(data)
    bare = score(data, PRENET, path__pretrain_network_g=str(file))
    assert score(data, distilled(pretrained=str(file))) == bare
    with pytest.raises(OptionError, match=r"path\.pretrain_network_g: is missing"):
        score(data, distilled())


def test_a_file_is_scored_as_the_network_that_it_holds(data: Path) -> None:
    torch.manual_seed(3)
    plain, mean = PReNet(channels=4).state_dict(), PReNet(channels=4).state_dict()
    torch.save({"params": plain, "params_ema": mean}, data / "net.pth")
    network = {"type": "PretrainedNet", "file": str(data / "net.pth")}
    named = {"type": "PReNet", "channels": 4}
    path = {"path__pretrain_network_g": str(data / "net.pth")}
    assert score(data, network) == score(data, named, path__param_key_g="params_ema", **path)
    assert score(data, {**network, "key": "params"}) == score(data, named, **path)
    assert score(data, distilled(network)) == score(data, network)
    assert score(data, network) != score(data, {**network, "key": "params"})


def test_the_ground_truth_as_results_is_perfect_and_the_rainy_images_score_as_the_rainy_row(data: Path) -> None:
    clean = score(data, {"type": "ResultImages", "folder": str(data / "val" / "norain")})
    assert clean.derained["psnr"] == clean.derained["rgb"] == math.inf
    assert clean.derained["ssim"] == pytest.approx(1, abs=1e-9)
    rainy = score(data, {"type": "ResultImages", "folder": str(data / "val" / "rain")})
    assert rainy.rainy == clean.rainy
    assert rainy.derained == rainy.rainy
    assert 10 < rainy.rainy["psnr"] < 40


def test_one_folder_of_results_is_not_scored_on_two_test_sets(data: Path) -> None:
    write_images(data / "other" / "rain", 2, seed=7, prefix="rain")
    write_images(data / "other" / "norain", 2, seed=7)
    network = {"type": "ResultImages", "folder": str(data / "val" / "norain")}
    other = {"name": "other", "type": "PairedRainDataset", "dataroot": str(data / "other")}
    with pytest.raises(OptionError, match=r"norain/1\.png would be scored .* of the data set val, one of other; test"):
        score(data, network, datasets__val_2=other)
    # The same images again are no others.
    again = {"network_g": {"_delete_": True, **network}, "datasets__val_2": {**other, "dataroot": str(data / "val")}}
    scores, _ = run_test(Request(tiny_options(data, **again), root=data / "root"))
    assert [found.images for found in scores] == [2, 2]


def test_saved_results_score_as_the_network_that_made_them(data: Path) -> None:
    file, _ = start(data)
    first = score(data, PRENET, data, path__pretrain_network_g=str(file), val__save_img=True)
    pictures = (data / "results" / "tiny" / "visualization" / "val").rename(data / "pictures")
    again = score(data, {"type": "ResultImages", "folder": str(pictures)})
    assert again == first


def test_a_result_that_is_missing_or_of_another_size_is_named(data: Path) -> None:
    pictures = (data / "val" / "norain").rename(data / "pictures")
    (data / "val" / "rain").rename(data / "val" / "input")
    tiny_data(data)
    (pictures / "2.png").unlink()
    with pytest.raises(DataError, match=r"pictures: no derained image for .*rain/2\.png: none is called 2$"):
        score(data, {"type": "ResultImages", "folder": str(pictures)})


def test_results_are_found_by_the_rainy_images_names(data: Path) -> None:
    """Not by the clean images', which lie in the same folder here."""
    for number in (1, 2):
        (data / "val" / "rain" / f"{number}.png").rename(data / "val" / f"rain-{number}.png")
        (data / "val" / "norain" / f"{number}.png").rename(data / "val" / f"norain-{number}.png")
    (data / "val" / "rain").rmdir()
    (data / "val" / "norain").rmdir()
    found = score(data, {"type": "ResultImages", "folder": str(data / "val")})
    assert found.derained == found.rainy


def test_results_without_a_folder_are_refused_before_anything_is_written(data: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder: .*nowhere"):
        score(data, {"type": "ResultImages", "folder": str(data / "nowhere")}, data)
    assert not (data / "results").exists()


# --- bad files through the command line ---


class Code:
    """What a pickle can do to whoever loads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def bad_file(data: Path, kind: str) -> Path:
    weights = PReNet(channels=4).state_dict()
    file = data / "bad.pth"
    if kind == "other":
        torch.save({"params": nn.Linear(3, 3).state_dict()}, file)
    elif kind == "truncated":
        torch.save({"params": weights}, file)
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "code":
        torch.save({"params": weights, "more": Code(data / "made")}, file)
    else:
        file = data / "bad.safetensors"
        weights["conv_i.0.bias"][2] = math.nan
        save_file(weights, file)
    return file


MESSAGES = {
    "other": ("bad.pth does not fit PReNet: 0 of 32 weights match", "bad.pth: the weights are of no network that this"),
    "truncated": ("bad.pth: not a PyTorch checkpoint, or damaged",) * 2,
    "code": ("bad.pth: holds more than tensors and plain types, which could run code on loading; refused",) * 2,
    "nan": ("bad.safetensors: conv_i.0.bias holds NaN or infinite values",) * 2,
}
NAMED = {"type": "PReNet", "channels": 4}


@pytest.mark.parametrize("kind", list(MESSAGES))
@pytest.mark.parametrize(
    ("command", "way"),
    [
        ("test", "path"),
        ("test", "file"),
        ("test", "pretrained"),
        ("train", "path"),
        ("train", "pretrained"),
        ("train", "file"),
    ],
)
def test_a_bad_file_is_one_line_and_touches_no_earlier_run(
    data: Path, capsys: pytest.CaptureFixture[str], kind: str, command: str, way: str
) -> None:
    file = bad_file(data, kind)
    network: dict[str, Any] = {
        "path": NAMED if command == "test" else distilled(NAMED),
        "file": {"type": "PretrainedNet", "file": str(file)},
        "pretrained": distilled(NAMED, pretrained=str(file)),
    }[way]
    if (command, way) == ("train", "file"):
        network = distilled(network)
    path = {"path__pretrain_network_g": str(file)} if way == "path" else {}
    runs = data / ("results" if command == "test" else "experiments")
    options = tiny_options(data, network_g={"_delete_": True, **network}, **path)
    for earlier in (False, True):
        if earlier:
            (runs / "tiny").mkdir(parents=True)
            (runs / "tiny" / "kept.txt").write_text("kept")
        assert main([command, "-opt", str(options), "--root", str(data)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"basicsr {command}: error: ")
        assert MESSAGES[kind][way == "file"] in line
        if earlier:
            assert [path.relative_to(runs).as_posix() for path in sorted(runs.rglob("*"))] == ["tiny", "tiny/kept.txt"]
        else:
            assert not runs.exists()
    assert not (data / "made").exists()
