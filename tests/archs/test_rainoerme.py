"""The network against its released checkpoints and a functional version written from the paper's facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rainoerme_plugin.archs.rainoerme import RainLayers, RainOerMeNet
from rainoerme_plugin.weights import load_weights

RELEASED = [("RainOerMe_Rain200L.pth", 3), ("RainOerMe_Rain1400.pth", 3), ("RainOerMe_DID_data.pth", 2)]


def functional_layers(weights: Mapping[str, Tensor], rainy: Tensor) -> tuple[Tensor, Tensor]:
    """The rain layer and its refined version, convolution by convolution."""

    def conv(x: Tensor, name: str, dilation: int = 1) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=dilation, dilation=dilation)

    def high_pass(x: Tensor, name: str) -> Tensor:
        a = F.relu(conv(x, f"{name}.conv1.0"))
        return F.relu(conv(x - a, f"{name}.dilated_conv", dilation=3) + a)

    def block(x: Tensor, name: str) -> Tensor:
        one = high_pass(x, f"{name}.conv1")
        two = high_pass(one, f"{name}.conv2")
        return F.relu(conv(torch.cat([one, two], 1), f"{name}.merge.0"))

    x = F.relu(conv(rainy, "inc.0"))
    b1 = block(x, "block1")
    f01 = F.relu(conv(torch.cat([b1, block(b1, "block2")], 1), "merge11.0"))
    f33 = F.relu(conv(torch.cat([f01, block(f01, "block3")], 1), "merge12.0"))
    rain = torch.tanh(conv(f33, "outc.0"))
    refined = conv(F.relu(conv(rain, "out2.0")), "out2.2")
    if "out2.4.weight" in weights:
        refined = conv(F.relu(refined), "out2.4")
    else:
        refined = F.relu(refined)
    return rain, refined


@pytest.mark.parametrize(("detail_layers", "count"), [(3, 55046), (2, 52726)])
def test_the_number_of_parameters_is_the_papers(detail_layers: int, count: int) -> None:
    assert sum(parameter.numel() for parameter in RainOerMeNet(detail_layers=detail_layers).parameters()) == count


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 31)])
def test_any_size_keeps_its_shape(size: tuple[int, int]) -> None:
    rainy = torch.rand(2, 3, *size)
    network = RainOerMeNet(channels=4)
    layers = network(rainy, layers=True)
    assert isinstance(layers, RainLayers)
    assert network(rainy).shape == layers.rain.shape == layers.refined.shape == rainy.shape


@pytest.mark.parametrize(("channels", "detail_layers"), [(16, 3), (16, 2), (4, 3)])
def test_both_layers_are_those_of_the_paper_with_any_weights(channels: int, detail_layers: int) -> None:
    torch.manual_seed(0)
    network = RainOerMeNet(channels, detail_layers).double()
    for parameter in network.parameters():
        # Large enough for every layer to leave its trace, small enough for tanh not to saturate.
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 16
        torch.nn.init.normal_(parameter, std=(1.5 / fan_in) ** 0.5)
    rainy = torch.rand(2, 3, 17, 14, dtype=torch.float64)
    with torch.no_grad():
        rain, refined = functional_layers(network.state_dict(), rainy)
        layers, derained = network(rainy, layers=True), network(rainy)
    assert rain.std() > 0.05
    assert rain.abs().max() < 0.999
    assert refined.std() > 0.01
    torch.testing.assert_close(layers.rain, rain, rtol=0, atol=1e-12)
    torch.testing.assert_close(layers.refined, refined, rtol=0, atol=1e-12)
    torch.testing.assert_close(derained, rainy - rain, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("file", "detail_layers"), RELEASED)
def test_released_checkpoints_load_whole_and_give_their_layers(
    file: str, detail_layers: int, rainoerme_weights: Path
) -> None:
    network = RainOerMeNet(detail_layers=detail_layers)
    loaded, count, _ = load_weights(network, rainoerme_weights / file)
    released = torch.load(rainoerme_weights / file, map_location="cpu", weights_only=True)
    assert loaded == count == len(released)
    rainy = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layers = network(rainy, layers=True)
        rain, refined = functional_layers(released, rainy)
    torch.testing.assert_close(layers.rain, rain, rtol=0, atol=1e-5)
    torch.testing.assert_close(layers.refined, refined, rtol=0, atol=1e-5)


def test_the_released_rain200l_network_derains(rainoerme_data: Path, rainoerme_weights: Path) -> None:
    network = RainOerMeNet()
    load_weights(network, rainoerme_weights / "RainOerMe_Rain200L.pth")
    folder = rainoerme_data / "Rain100L" / "test"

    def crop(kind: str) -> Tensor:
        pixels = np.asarray(Image.open(folder / kind / "norain-1.png").convert("RGB"))[80:240, 120:280]
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255

    def psnr(image: Tensor, reference: Tensor) -> float:
        return float(-10 * torch.log10(((image - reference) ** 2).mean()))

    rainy, clean = crop("rain"), crop("norain")
    with torch.no_grad():
        derained = network(rainy).clamp(0, 1)
    assert psnr(derained, clean) > psnr(rainy, clean) + 4


def test_weights_start_small_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    state = RainOerMeNet().state_dict()
    weights = torch.cat([value.flatten() for name, value in state.items() if name.endswith("weight")])
    biases = torch.cat([value.flatten() for name, value in state.items() if name.endswith("bias")])
    assert weights.numel() + biases.numel() == 55046
    assert float(weights.std()) == pytest.approx(0.02, rel=0.02)
    assert float(weights.mean()) == pytest.approx(0, abs=4e-4)
    assert float(((weights / 0.02) ** 4).mean()) == pytest.approx(3, rel=0.1)  # a normal distribution's kurtosis
    assert not biases.any()


def test_by_kaiming_features_and_gradients_come_through_and_the_detail_block_starts_as_the_identity() -> None:
    rainy = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for start, comes_through in (("noise", False), ("kaiming", True)):
        torch.manual_seed(0)
        network = RainOerMeNet(start=start)
        sizes: list[float] = []
        for module in (network.inc, network.block1, network.block2, network.block3):
            module.register_forward_hook(lambda _, __, out, to=sizes: to.append(float(out.detach().std())))
        rain, refined = network(rainy, layers=True)
        refined.square().mean().sqrt().backward()
        assert all(0.1 < size < 1.5 for size in sizes) == comes_through, sizes
        assert (float(refined.detach().std()) > 0.01) == comes_through
        assert (float(network.inc[0].weight.grad.abs().mean()) > 1e-5) == comes_through
        assert (float((rain - refined).detach().std() / rain.detach().std()) < 0.2) == comes_through
        assert not any(value.any() for name, value in network.state_dict().items() if name.endswith("bias"))


def test_another_start_is_refused() -> None:
    with pytest.raises(ValueError, match="start must be noise or kaiming, got 'he'"):
        RainOerMeNet(start="he")


def test_every_layer_learns_from_the_refined_layer_and_the_detail_block_only_there() -> None:
    torch.manual_seed(0)
    network = RainOerMeNet()
    rainy = torch.rand(1, 3, 12, 12)
    network(rainy, layers=True).refined.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.zero_grad()
    network(rainy).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == [f"out2.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")]


def test_the_input_is_left_as_it_was() -> None:
    rainy = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = rainy.clone()
    RainOerMeNet(channels=2)(rainy, layers=True)
    assert torch.equal(rainy, before)


@pytest.mark.parametrize("detail_layers", [0, 1, 4])
def test_another_number_of_detail_layers_is_refused(detail_layers: int) -> None:
    with pytest.raises(ValueError, match=rf"detail_layers must be 3 .* or 2 .*, got {detail_layers}"):
        RainOerMeNet(detail_layers=detail_layers)


@pytest.mark.parametrize("channels", [0, -16])
def test_a_network_without_channels_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"channels must be at least 1, got {channels}"):
        RainOerMeNet(channels=channels)
