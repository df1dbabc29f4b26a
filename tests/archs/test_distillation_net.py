"""A network as the residual branch: its rain layer, the detail enhancement block by hand, and how both start."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import Needs
from rainoerme_plugin.archs.distillation_net import DistillationNet
from rainoerme_plugin.archs.prenet import PReNet
from rainoerme_plugin.archs.rainoerme import RainLayers, detail_block, start_as_identity


class Dimmer(nn.Module):
    """A backbone of one number: its rain layer is a tenth of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.9))

    def forward(self, rainy: Tensor) -> Tensor:
        return self.factor * rainy


class Chancy(nn.Module):
    """A backbone that behaves otherwise in training: batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy - self.dropout(self.norm(self.conv(rainy)))


class Brighter(nn.Module):
    """A backbone whose rain layer is negative for dark pixels, and that takes multiples of 4."""

    needs = Needs(multiple=4)

    def forward(self, rainy: Tensor) -> Tensor:
        assert rainy.shape[2] % 4 == rainy.shape[3] % 4 == 0
        return 0.5 * rainy + 0.25


class Pair(nn.Module):
    """Of its two results, the second is the derained image; it takes multiples of 8."""

    def forward(self, rainy: Tensor) -> list[Tensor]:
        assert rainy.shape[2] % 8 == rainy.shape[3] % 8 == 0
        return [torch.zeros_like(rainy), 0.75 * rainy]


def image(height: int = 9, width: int = 14, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(
        batch, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).float()


def enliven(module: nn.Module, seed: int = 1) -> None:
    """Weights and biases large enough for every layer to matter."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def refined_by_hand(detail: nn.Module, rain: Tensor) -> Tensor:
    weights = detail.state_dict()
    refined = rain
    last = max(weights).partition(".")[0]
    for number in ("0", "2", "4"):
        if f"{number}.weight" not in weights:
            continue
        refined = F.conv2d(refined, weights[f"{number}.weight"], weights[f"{number}.bias"], padding=1)
        if number != last or last == "2":  # the DID variant ends with a ReLU
            refined = refined.clamp(min=0)
    return refined


# --- both layers ---


@pytest.mark.parametrize("detail_layers", [3, 2])
def test_the_rain_layer_is_what_the_backbone_takes_away_and_the_block_refines_it(detail_layers: int) -> None:
    torch.manual_seed(0)
    backbone = PReNet(stages=2, channels=4)
    network = DistillationNet(backbone, detail_layers)
    enliven(network.detail)
    rainy = image()
    before = rainy.clone()
    with torch.no_grad():
        layers, derained, bare = network(rainy, layers=True), network(rainy), backbone(rainy)
    assert isinstance(layers, RainLayers)
    assert torch.equal(derained, bare)
    assert torch.equal(layers.rain, rainy - bare)
    torch.testing.assert_close(layers.refined, refined_by_hand(network.detail, rainy - bare), rtol=0, atol=1e-6)
    assert layers.refined.std() > 0.01
    assert (layers.refined.min() < 0) == (detail_layers == 3)
    assert torch.equal(rainy, before)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 31)])
def test_any_size_keeps_its_shape_whatever_the_backbone_takes(size: tuple[int, int]) -> None:
    rainy = image(*size)
    network = DistillationNet(Brighter())
    enliven(network.detail)
    layers = network(rainy, True)
    torch.testing.assert_close(layers.rain, 0.5 * rainy - 0.25, rtol=0, atol=1e-6)
    torch.testing.assert_close(layers.refined, refined_by_hand(network.detail, layers.rain), rtol=0, atol=1e-6)
    torch.testing.assert_close(network(rainy), 0.5 * rainy + 0.25, rtol=0, atol=1e-6)


def test_needs_that_are_given_go_before_those_that_are_known() -> None:
    assert DistillationNet(Brighter()).backbone_needs == Needs(multiple=4)
    assert DistillationNet(Dimmer()).backbone_needs == Needs()
    needs = Needs(multiple=8, minimum=24)
    assert DistillationNet(Brighter(), needs=needs).backbone_needs is needs
    network, rainy = DistillationNet(Pair(), needs=Needs(multiple=8, output=1)), image()
    assert torch.equal(network(rainy), 0.75 * rainy)
    assert torch.equal(network(rainy, layers=True).rain, rainy - 0.75 * rainy)


def test_the_backbone_learns_from_the_refined_layer_and_the_block_only_there() -> None:
    torch.manual_seed(0)
    network = DistillationNet(PReNet(stages=2, channels=4))
    network(image(), layers=True).refined.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(bool(parameter.grad.any()) for parameter in network.backbone.conv.parameters())
    network.zero_grad()
    network(image()).square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in network.backbone.conv.parameters())
    assert all(parameter.grad is None for parameter in network.detail.parameters())


# --- the start ---


def test_with_noise_the_block_starts_as_the_papers_and_loses_the_layer() -> None:
    torch.manual_seed(0)
    network = DistillationNet(Dimmer(), detail_start="noise")
    weights = [value.flatten() for name, value in network.detail.state_dict().items() if name.endswith("weight")]
    biases = [value for name, value in network.detail.state_dict().items() if name.endswith("bias")]
    together = torch.cat(weights)
    assert together.numel() == 16 * 3 * 9 + 16 * 16 * 9 + 3 * 16 * 9
    assert float(together.std()) == pytest.approx(0.02, rel=0.05)
    assert float(together.mean()) == pytest.approx(0, abs=1e-3)
    assert not any(bool(bias.any()) for bias in biases)
    assert network.backbone.factor.item() == pytest.approx(0.9)  # the backbone keeps its own start
    rainy = image()
    rain, refined = network(rainy, layers=True)
    assert refined.std() < 0.05 * rain.std()


MIDDLE = {("2", copy, copy): 1.0 for copy in range(6)}
FIRST = {("0", copy, copy % 3): 1.0 if copy < 3 else -1.0 for copy in range(6)}


def last_of(layer: str) -> dict[tuple[str, int, int], float]:
    return {(layer, copy % 3, copy): 1.0 if copy < 3 else -1.0 for copy in range(6)}


@pytest.mark.parametrize(
    ("detail_layers", "added"), [(3, {**FIRST, **MIDDLE, **last_of("4")}), (2, {**FIRST, **last_of("2")})]
)
def test_an_identity_start_adds_ones_at_the_centre_of_few_windows(
    detail_layers: int, added: dict[tuple[str, int, int], float]
) -> None:
    blocks = []
    for start in ("noise", "identity"):
        torch.manual_seed(0)
        blocks.append(DistillationNet(Dimmer(), detail_layers, start).detail.state_dict())
    noise, identity = blocks
    found = {}
    for name, value in noise.items():
        difference = identity[name] - value
        for place in difference.nonzero().tolist():
            assert place[2:] == [1, 1]
            found[(name.partition(".")[0], place[0], place[1])] = round(difference[tuple(place)].item(), 5)
    assert found == added


@pytest.mark.parametrize("detail_layers", [3, 2])
def test_an_identity_start_gives_the_layer_back_but_for_the_noise(detail_layers: int) -> None:
    rain = 0.2 * torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    wanted = rain if detail_layers == 3 else rain.clamp(min=0)
    torch.manual_seed(0)
    start = DistillationNet(Dimmer(), detail_layers, "identity").detail
    with torch.no_grad():
        difference = start(rain) - wanted
    assert 0.01 < float(difference.std() / wanted.std()) < 0.3
    torch.manual_seed(0)
    assert all(map(torch.equal, DistillationNet(Dimmer(), detail_layers).detail.parameters(), start.parameters()))
    exact = detail_block(detail_layers)
    for parameter in exact.parameters():
        nn.init.zeros_(parameter)
    start_as_identity(exact)
    with torch.no_grad():
        assert torch.equal(exact(rain), wanted)
    assert rain.min() < -0.5
    assert rain.max() > 0.5


def test_an_identity_start_can_still_be_trained() -> None:
    network = DistillationNet(Dimmer(), detail_start="identity")
    network(image(), layers=True).refined.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("start", ["Identity", "", "zero", "noisy"])
def test_another_start_is_refused(start: str) -> None:
    with pytest.raises(ValueError, match=rf"^detail_start must be noise or identity, got '{start}'$"):
        DistillationNet(Dimmer(), detail_start=start)


@pytest.mark.parametrize("detail_layers", [0, 1, 4])
def test_another_number_of_detail_layers_is_refused(detail_layers: int) -> None:
    with pytest.raises(ValueError, match=rf"detail_layers must be 3 .* or 2 .*, got {detail_layers}"):
        DistillationNet(Dimmer(), detail_layers)


# --- freezing, and the parts of a checkpoint ---


def modes(network: DistillationNet) -> tuple[bool, set[bool], set[bool]]:
    """The mode of the whole, and those within the backbone and the block."""
    backbone = {module.training for module in network.backbone.modules()}
    return network.training, backbone, {module.training for module in network.detail.modules()}


def test_a_frozen_backbone_stays_in_evaluation_mode() -> None:
    network = DistillationNet(Chancy())
    network.eval()
    assert network.train() is network
    assert modes(network) == (True, {True}, {True})
    network.backbone.requires_grad_(False)
    assert network.train() is network
    assert modes(network) == (True, {False}, {True})
    assert network.eval() is network
    assert modes(network) == (False, {False}, {False})
    network.backbone.norm.bias.requires_grad_(True)
    network.train()
    assert modes(network) == (True, {True}, {True})
    network.train(False)
    assert modes(network) == (False, {False}, {False})


def test_a_frozen_backbone_gives_the_same_each_time_and_keeps_its_statistics() -> None:
    network, rainy = DistillationNet(Chancy()), image()
    network.backbone.requires_grad_(False)
    network.train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    assert torch.equal(network(rainy), network(rainy))
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
    network.backbone.requires_grad_(True)
    network.train()
    assert not torch.equal(network(rainy), network(rainy))
    assert not torch.equal(network.backbone.norm.running_mean, before["norm.running_mean"])


def test_a_checkpoint_holds_the_bare_backbone_and_the_block_beside_it() -> None:
    backbone = PReNet(stages=2, channels=4)
    network = DistillationNet(backbone)
    parts = network.checkpoint_parts()
    assert list(parts) == ["", "_detail"]
    assert parts[""] is backbone
    assert list(parts["_detail"].state_dict()) == [
        f"{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")
    ]
    together = sum(parameter.numel() for part in parts.values() for parameter in part.parameters())
    assert together == sum(parameter.numel() for parameter in network.parameters())
