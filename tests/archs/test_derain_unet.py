"""The U-shaped network against spandrel's NAFNet, counts by hand, and what it must keep beside other networks."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import image
from small import small
from torch import Tensor, nn
from torch.nn import functional

from rainoerme_plugin.archs.adapt import Needs, derain, place
from rainoerme_plugin.archs.catalogue import needs_of
from rainoerme_plugin.archs.derain_unet import Block, DerainUNet
from rainoerme_plugin.archs.distillation_net import DistillationNet
from rainoerme_plugin.archs.receptive_field import receptive_field
from rainoerme_plugin.archs.tiles import derain_tiled
from rainoerme_plugin.inference.derainer import load_derainer

# Not above: this package mends torchvision, which spandrel imports, where that is broken.
spandrel: Any = importlib.import_module("spandrel")
NAFNet = importlib.import_module("spandrel.architectures.NAFNet").NAFNet

SHAPES: list[dict[str, Any]] = [
    {"channels": 8, "encoder": (2, 2), "middle": 2, "decoder": (2, 1), "shrink": 2},
    {"channels": 4, "encoder": (1, 3, 1), "middle": 1, "decoder": (2, 1, 2), "shrink": 1},
    {"channels": 6, "encoder": (1,), "middle": 3, "decoder": (2,), "shrink": 3},
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=["half", "full", "third"])

NAMES = {
    r"encoder\.": "encoders.",
    r"middle\.": "middle_blks.",
    r"decoder\.": "decoders.",
    r"down\.": "downs.",
    r"up\.": "ups.",
    r"expand1\.": "conv1.",
    r"depthwise\.": "conv2.",
    r"attention\.": "sca.1.",
    r"project1\.": "conv3.",
    r"expand2\.": "conv4.",
    r"project2\.": "conv5.",
}
"""What NAFNet calls our parameters."""


def scattered(network: nn.Module) -> nn.Module:
    """In double precision, with random weights that all have an effect."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.double().parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network.eval()


def as_nafnet(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = re.sub(rf"(^|\.){ours}", rf"\1{theirs}", name)
    return name


def by_nafnet(network: nn.Module, shape: dict[str, Any], rainy: Tensor) -> Tensor:
    """What spandrel's NAFNet with the same weights makes of an image, around the same pixel-unshuffle."""
    colours = 3 * shape["shrink"] ** 2
    counts = {"enc_blk_nums": list(shape["encoder"]), "dec_blk_nums": list(shape["decoder"])}
    theirs = NAFNet(img_channel=colours, width=shape["channels"], middle_blk_num=shape["middle"], **counts).double()
    weights = {as_nafnet(name): value for name, value in network.state_dict().items()}
    for name, value in theirs.state_dict().items():
        if "sca.1." in name and name not in weights:  # no attention: each channel's weight is 1
            weights[name] = torch.ones_like(value) if name.endswith("bias") else torch.zeros_like(value)
    # It adds what it computes to its input, and the rain layer is taken away.
    for end in ("weight", "bias"):
        weights[f"ending.{end}"] = -weights[f"ending.{end}"]
    theirs.load_state_dict(weights)
    with torch.no_grad():
        small = theirs(functional.pixel_unshuffle(rainy, shape["shrink"]))
    return functional.pixel_shuffle(small, shape["shrink"])


@shapes
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_computes_what_spandrels_nafnet_does(
    shape: dict[str, Any], attention: bool, layout: torch.memory_format
) -> None:
    network = scattered(DerainUNet(**shape, attention=attention))
    rainy = image(48, 24, count=2).double()
    expected = by_nafnet(network, shape, rainy)
    network.to(memory_format=layout)  # type: ignore[call-overload]
    with torch.no_grad():
        derained = network(rainy.contiguous(memory_format=layout))
    assert float((derained - rainy).std()) > 0.1
    torch.testing.assert_close(derained, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("shrink", [1, 2])
def test_features_lie_channels_last_throughout_whatever_the_image_does(attention: bool, shrink: int) -> None:
    network, seen = DerainUNet(4, shrink=shrink, attention=attention), []
    for part in network.modules():
        if isinstance(part, Block | nn.Conv2d):
            part.register_forward_hook(lambda _, given, made: seen.extend([given[0], made]))
    network(image(32, 24, count=2)).mean().backward()
    features = [x for x in seen if x.shape[2:] != (1, 1)]  # but for attention's means
    assert len(features) > 60
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in features)


def test_parameters_by_hand() -> None:
    def block(channels: int) -> int:
        # 1x1 to twice, depthwise, 1x1; 1x1 to twice, 1x1; each with a bias. Two norms of two, and two factors.
        first = 2 * channels**2 + 2 * channels + 18 * channels + 2 * channels + channels**2 + channels
        return first + 2 * channels**2 + 2 * channels + channels**2 + channels + 4 * channels + 2 * channels

    ends = 12 * 32 * 9 + 32 + 32 * 12 * 9 + 12
    down, up = 32 * 64 * 4 + 64 + 64 * 128 * 4 + 128, 128 * 256 + 64 * 128
    blocks = {32: 2 + 1, 64: 2 + 2, 128: 2}
    wanted = ends + down + up + sum(count * block(channels) for channels, count in blocks.items())
    assert sum(parameter.numel() for parameter in DerainUNet().parameters()) == wanted == 421_868
    attention = sum(count * (channels**2 + channels) for channels, count in blocks.items())
    assert sum(parameter.numel() for parameter in DerainUNet(attention=True).parameters()) == wanted + attention


def test_before_training_its_blocks_pass_on_what_they_get_and_its_rain_layer_is_not_zero() -> None:
    torch.manual_seed(0)
    network = DerainUNet(8)
    x = torch.rand(1, 8, 6, 5)
    assert torch.equal(network.encoder[0](x), x)
    with torch.no_grad():
        assert (image(16, 16) - network(image(16, 16))).std() > 0.01


@pytest.mark.parametrize("attention", [False, True])
def test_gradients_reach_every_parameter_after_a_step(attention: bool) -> None:
    torch.manual_seed(0)
    network = DistillationNet(DerainUNet(4, attention=attention))
    place(network, network.needs)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    rainy = image(24, 16, count=2)
    for _ in range(2):
        optimiser.zero_grad()
        layers = network(rainy, layers=True)
        ((layers.rain - 0.3).abs().mean() + (layers.refined - rainy).abs().mean()).backward()
        learns = {name for name, value in network.backbone.named_parameters() if bool((value.grad != 0).any())}
        optimiser.step()
    assert learns == {name for name, _ in network.backbone.named_parameters()}


@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        # At half size the first convolution and two blocks reach 3, at a quarter two blocks 2, at an eighth 2, then 2,
        # and one block and the last convolution 2: 10 + 12 + 16 pixels. The strides' grid adds less than a multiple.
        ({}, 2 * (3 + 2) + 4 * (2 + 2) + 8 * 2),
        ({"encoder": (1,), "decoder": (1,), "middle": 1, "shrink": 1}, 1 * (2 + 2) + 2 * 1),
        ({"encoder": (), "decoder": (), "middle": 2, "shrink": 3}, 3 * (1 + 2 + 1)),
    ],
)
def test_a_pixel_depends_on_so_many_around_it(shape: dict[str, Any], radius: int) -> None:
    network = DerainUNet(4, **shape)
    found = receptive_field(network, needs_of(network))
    assert found is not None
    assert radius <= found < radius + network.stride


@shapes
@pytest.mark.parametrize("size", [(150, 131), (97, 210)])
def test_tiles_give_the_whole_image(shape: dict[str, Any], size: tuple[int, int]) -> None:
    network, rainy = scattered(DerainUNet(**shape)), image(*size).double()
    needs, seen = needs_of(network), []
    receptive_field(network, needs)  # which is found by trial, once
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
    tiled = derain_tiled(network, rainy, needs, tile=24)
    assert len(seen) > 3
    assert max(seen) < size[0] * size[1]
    with torch.no_grad():
        torch.testing.assert_close(tiled, derain(network, rainy, needs), rtol=0, atol=1e-10)


@pytest.mark.parametrize("attention", [False, True])
def test_large_images_are_cut_only_without_attention(attention: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rainoerme_plugin.archs.tiles.WHOLE", 200 * 200 - 1)
    monkeypatch.setattr("rainoerme_plugin.archs.tiles.SEEN", 96)
    network, seen = small("DerainUNet", attention=attention), []
    needs = needs_of(network)
    receptive_field(network, needs)  # which is found by trial, once
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    rainy = image(200, 200)
    tiled = derain_tiled(network, rainy, needs)
    assert (max(seen) == (200, 200)) == attention
    with torch.no_grad():
        torch.testing.assert_close(tiled, derain(network, rainy, needs), rtol=0, atol=1e-5)


def test_what_it_needs_is_given_to_it_at_any_size() -> None:
    network = scattered(DerainUNet(4))
    needs = needs_of(network)
    assert needs == Needs(multiple=8, channels_last=True)
    rainy = image(13, 30).double()
    mirrored = functional.pad(rainy, (0, 2, 0, 3), mode="reflect")
    with torch.no_grad():
        torch.testing.assert_close(derain(network, rainy, needs), network(mirrored)[..., :13, :30], rtol=0, atol=1e-12)


@shapes
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("key", [None, "params", "params_ema"])
def test_a_file_is_recognised_and_is_no_nafnet_to_spandrel(
    shape: dict[str, Any], attention: bool, key: str | None, tmp_path: Path
) -> None:
    network = scattered(DerainUNet(**shape, attention=attention)).float()
    state = network.state_dict()
    torch.save(state if key is None else {key: state}, tmp_path / "a.pth")
    opened = load_derainer(tmp_path / "a.pth", device="cpu").opened
    assert opened.name == "DerainUNet"
    assert opened.needs == needs_of(network)
    back = opened.network.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in back.items())
    with torch.no_grad():
        assert torch.equal(
            derain(opened.network, image(20, 31), opened.needs), derain(network, image(20, 31), opened.needs)
        )
    assert receptive_field(opened.network, opened.needs) == receptive_field(network, opened.needs)
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.MAIN_REGISTRY.load(dict(state))


def test_a_compiled_network_gives_the_same() -> None:
    network = DistillationNet(small("DerainUNet"))
    compiled = torch.compile(network, backend="eager", dynamic=False, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image(24, 17)), network(image(24, 17)), rtol=0, atol=1e-5)


def test_autocast_keeps_the_result_near() -> None:
    network, rainy = small("DerainUNet"), image(24, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        short = network(rainy)
    with torch.no_grad():
        whole = network(rainy)
    assert short.isfinite().all()
    assert float((short - whole).abs().max()) < 0.05 * float((rainy - whole).abs().max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"encoder": (2, 0)}, "encoder must be at least 1, got 0"),
        ({"middle": 0}, "middle must be at least 1, got 0"),
        ({"decoder": (-1, 1)}, "decoder must be at least 1, got -1"),
        ({"shrink": 0}, "shrink must be at least 1, got 0"),
        ({"encoder": (1, 1, 1)}, "encoder and decoder must have as many levels, got 3 and 2 numbers"),
    ],
)
def test_numbers_that_make_no_network_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        DerainUNet(**arguments)
