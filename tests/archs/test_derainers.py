"""PReNet's family, BRN, RESCAN and SPANet against their published files and functional versions from the papers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from rainoerme_plugin.archs.brn import BRN
from rainoerme_plugin.archs.prenet import PRN, PReNet, PReNet_r, PRN_r, VRGNetPReNet
from rainoerme_plugin.archs.rescan import RESCAN
from rainoerme_plugin.archs.spanet import Attended, SPANet, SpatialIRNN
from rainoerme_plugin.metrics.protocols import psnr
from rainoerme_plugin.weights import load_weights

Weights = Mapping[str, Tensor]
Staged = Callable[[Weights, Tensor, int], list[Tensor]]


def conv(weights: Weights, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, weights.get(f"{name}.bias"), padding=padding, dilation=dilation)


def lstm(weights: Weights, suffix: str, x: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    enter = torch.sigmoid(conv(weights, f"conv_i{suffix}.0", x))
    keep = torch.sigmoid(conv(weights, f"conv_f{suffix}.0", x))
    candidate = torch.tanh(conv(weights, f"conv_g{suffix}.0", x))
    leave = torch.sigmoid(conv(weights, f"conv_o{suffix}.0", x))
    cell = keep * cell + enter * candidate
    return leave * torch.tanh(cell), cell


def twice(weights: Weights, name: str, x: Tensor) -> Tensor:
    inside = F.relu(conv(weights, f"{name}.0", x))
    return F.relu(F.relu(conv(weights, f"{name}.2", inside)) + x)


def no_features(weights: Weights, rainy: Tensor) -> Tensor:
    batch, _, height, width = rainy.shape
    return torch.zeros(batch, weights["conv.0.weight"].shape[1], height, width, dtype=rainy.dtype)


def progressive(
    weights: Weights, rainy: Tensor, stages: int, *, recurrent: bool, blocks: tuple[int, ...], last: str = "conv"
) -> list[Tensor]:
    outputs = []
    x = rainy
    h = c = no_features(weights, rainy)
    for stage in range(stages):
        features = F.relu(conv(weights, "conv0.0", torch.cat([rainy, x], 1)))
        if recurrent:
            h, c = lstm(weights, "", torch.cat([features, h], 1), c)
            features = h
        for block in blocks:
            features = twice(weights, f"res_conv{block}", features)
        x = rainy + conv(weights, f"{last if stage == stages - 1 else 'conv'}.0", features)[:, :3]
        outputs.append(x)
    return outputs


functional_prn = partial(progressive, recurrent=False, blocks=(1, 2, 3, 4, 5))
functional_prenet = partial(progressive, recurrent=True, blocks=(1, 2, 3, 4, 5))
functional_prn_r = partial(progressive, recurrent=False, blocks=(1, 1, 1, 1, 1))
functional_prenet_r = partial(progressive, recurrent=True, blocks=(1, 1, 1, 1, 1))
functional_vrgnet = partial(progressive, recurrent=True, blocks=(1, 2, 3, 4, 5), last="convfinal")


def functional_brn(weights: Weights, rainy: Tensor, stages: int) -> list[Tensor]:
    outputs = []
    x = r = rainy
    h = c = h_r = c_r = no_features(weights, rainy)
    for _ in range(stages):
        features = F.relu(conv(weights, "conv0_r.0", torch.cat([rainy, r], 1)))
        h_r, c_r = lstm(weights, "_r", torch.cat([features, h_r, h], 1), c_r)
        features = twice(weights, "res_conv3_r", twice(weights, "res_conv2_r", twice(weights, "res_conv1_r", h_r)))
        r = conv(weights, "conv_r.0", features)
        features = F.relu(conv(weights, "conv0.0", torch.cat([rainy, x, r], 1)))
        h, c = lstm(weights, "", torch.cat([features, h, h_r], 1), c)
        features = h
        for block in (1, 2, 3, 4, 5):
            features = twice(weights, f"res_conv{block}", features)
        x = conv(weights, "conv.0", features)
        outputs.append(x)
    return outputs


def bgr(image: Tensor) -> Tensor:
    return torch.stack([image[:, 2], image[:, 1], image[:, 0]], 1)


def functional_rescan(
    weights: Weights, rainy: Tensor, stages: int, dilations: tuple[int, ...] = (1, 1, 2, 4, 8)
) -> list[Tensor]:
    def excite(name: str, x: Tensor) -> Tensor:
        mean = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
        hidden = F.relu(F.linear(mean, weights[f"{name}.fc.0.weight"], weights[f"{name}.fc.0.bias"]))
        scale = torch.sigmoid(F.linear(hidden, weights[f"{name}.fc.2.weight"], weights[f"{name}.fc.2.bias"]))
        return x * scale[:, :, None, None]

    rainy = bgr(rainy)
    states: dict[int, Tensor] = {}
    outputs = []
    x = rainy
    for _ in range(stages):
        for unit, dilation in enumerate(dilations):
            xz, xr, xn = (conv(weights, f"rnns.{unit}.conv_x{gate}", x, dilation) for gate in "zrn")
            if unit not in states:
                h = torch.sigmoid(xz) * torch.tanh(xn)
            else:
                h = states[unit]
                z = torch.sigmoid(xz + conv(weights, f"rnns.{unit}.conv_hz", h))
                r = torch.sigmoid(xr + conv(weights, f"rnns.{unit}.conv_hr", h))
                n = torch.tanh(xn + conv(weights, f"rnns.{unit}.conv_hn", r * h))
                h = (1 - z) * h + z * n
            x = states[unit] = F.leaky_relu(excite(f"rnns.{unit}.se", h), 0.2)
        rain = conv(weights, "dec.3", F.leaky_relu(excite("dec.1", conv(weights, "dec.0", x)), 0.2))
        x = rainy - rain
        outputs.append(bgr(x))
    return outputs


def functional_irnn(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Line after line from one side to the other."""

    def line(direction: str, before: Tensor, now: Tensor) -> Tensor:
        layer = f"{name}.{direction}_weight"
        return F.relu(weights[f"{layer}.weight"].reshape(-1, 1) * before + weights[f"{layer}.bias"][:, None] + now)

    height, width = x.shape[2:]
    up, right, down, left = (F.relu(x) for _ in range(4))
    for row in range(1, height):
        down[:, :, row] = line("down", down[:, :, row - 1], x[:, :, row])
    for row in reversed(range(height - 1)):
        up[:, :, row] = line("up", up[:, :, row + 1], x[:, :, row])
    for column in range(1, width):
        right[..., column] = line("right", right[..., column - 1], x[..., column])
    for column in reversed(range(width - 1)):
        left[..., column] = line("left", left[..., column + 1], x[..., column])
    return torch.cat([up, right, down, left], 1)


def functional_spanet(weights: Weights, rainy: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The derained image and the four attention maps."""

    def block(x: Tensor, number: int, weight: Tensor | float) -> Tensor:
        name = f"res_block{number}.group1"
        inside = F.relu(conv(weights, f"{name}.conv1", x))
        inside = F.relu(conv(weights, f"{name}.conv2", inside, dilation=2))
        return F.relu(conv(weights, f"{name}.conv3", inside) * weight + x)

    def attention(x: Tensor) -> Tensor:
        first = functional_irnn(weights, "SAM1.irnn1", conv(weights, "SAM1.conv_in", x))
        second = functional_irnn(weights, "SAM1.irnn2", conv(weights, "SAM1.conv2", first))
        return torch.sigmoid(conv(weights, "SAM1.conv_out", F.relu(conv(weights, "SAM1.conv3", second))))

    x = F.relu(conv(weights, "conv_in.0", bgr(rainy)))
    for number in (1, 2, 3):
        x = block(x, number, 1.0)
    maps = []
    for numbers in ((4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15)):
        maps.append(attention(x))
        for number in numbers:
            x = block(x, number, maps[-1])
    for number in (16, 17):
        x = block(x, number, 1.0)
    return bgr(conv(weights, "conv_out.0", x)), maps


def functional_spanet_in_one_stage(weights: Weights, rainy: Tensor, stages: int) -> list[Tensor]:
    assert stages == 1
    return [functional_spanet(weights, rainy)[0]]


class Published(NamedTuple):
    network: type[nn.Module]
    file: str
    prefix: str
    functional: Staged
    stages: int
    tensors: int
    parameters: int


PUBLISHED = [
    Published(PRN, "PRN6_Rain100L", "", functional_prn, 6, 24, 95107),
    Published(PReNet, "PReNet6_Rain100L", "", functional_prenet, 6, 32, 168963),
    Published(PRN_r, "PRN6_r_Rain100L", "", functional_prn_r, 6, 8, 21123),
    Published(PReNet_r, "PReNet6_r_Rain100L", "", functional_prenet_r, 6, 16, 94979),
    Published(VRGNetPReNet, "VRGNet-PReNet_SPA", "derainet.", functional_vrgnet, 6, 34, 170697),
    Published(BRN, "BRN_Rain100L", "module.", functional_brn, 8, 64, 412518),
    Published(RESCAN, "RESCAN_RainHeavy", "", functional_rescan, 4, 88, 149823),
    Published(SPANet, "SPANet_RainHeavy", "module.", functional_spanet_in_one_stage, 1, 79, 283716),
    Published(SPANet, "SPANet_SPA", "", functional_spanet_in_one_stage, 1, 79, 283716),
]

STAGED: dict[str, tuple[Callable[[int], nn.Module], Staged]] = {
    "PRN": (lambda stages: PRN(stages, channels=5), functional_prn),
    "PReNet": (lambda stages: PReNet(stages, channels=5), functional_prenet),
    "PRN_r": (lambda stages: PRN_r(stages, channels=5), functional_prn_r),
    "PReNet_r": (lambda stages: PReNet_r(stages, channels=5), functional_prenet_r),
    "VRGNetPReNet": (lambda stages: VRGNetPReNet(stages, channels=5), functional_vrgnet),
    "BRN": (lambda stages: BRN(stages, channels=5), functional_brn),
    "RESCAN": (lambda stages: RESCAN(stages, channels=5), functional_rescan),
    "RESCAN of depth 5": (
        lambda stages: RESCAN(stages, channels=5, depth=5),
        partial(functional_rescan, dilations=(1, 1, 2)),
    ),
}

# Of two stages, the fewest in which everything that is carried from stage to stage has an effect.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "PRN": lambda: PRN(2, channels=6),
    "PReNet": lambda: PReNet(2, channels=6),
    "PRN_r": lambda: PRN_r(2, channels=6),
    "PReNet_r": lambda: PReNet_r(2, channels=6),
    "VRGNetPReNet": lambda: VRGNetPReNet(2, channels=6),
    "BRN": lambda: BRN(2, channels=6),
    "RESCAN": lambda: RESCAN(2, channels=6),
    "SPANet": lambda: SPANet(channels=6),
}
small = pytest.mark.parametrize("name", SMALL)


def with_random_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """In double precision, so large that every layer leaves its trace, so small that no gate saturates."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.double().named_parameters():
        with torch.no_grad():
            if "_weight." in name:  # of a sweep, which it could blow up if larger than 1
                parameter.uniform_(-0.5, 0.8, generator=generator)
            elif parameter.dim() == 1:
                parameter.normal_(std=0.2, generator=generator)
            else:
                parameter.normal_(std=(1.5 / parameter[0].numel()) ** 0.5, generator=generator)
    return network


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def derain(network: nn.Module, rainy: Tensor) -> Tensor:
    with torch.no_grad():
        derained = network(rainy)
    assert isinstance(derained, Tensor)
    return derained


@pytest.mark.parametrize(
    ("network", "stages"), [(PRN, 6), (PReNet, 6), (PRN_r, 6), (PReNet_r, 6), (VRGNetPReNet, 6), (BRN, 8), (RESCAN, 4)]
)
def test_the_number_of_stages_is_the_papers(network: type[nn.Module], stages: int) -> None:
    with torch.no_grad():
        assert len(network()(torch.rand(1, 3, 5, 4), all_stages=True)) == stages


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.file)
def test_the_number_of_parameters_is_the_papers(published: Published) -> None:
    assert sum(parameter.numel() for parameter in published.network().parameters()) == published.parameters


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.file)
def test_published_files_load_whole_and_give_what_they_give_in_a_functional_version(
    published: Published, rainoerme_weights: Path
) -> None:
    path = rainoerme_weights / f"{published.file}.pth"
    network = published.network()
    assert load_weights(network, path, strict=True) == (published.tensors, published.tensors, ())
    stored = torch.load(path, map_location="cpu", weights_only=True)
    stored = stored.get("net", stored)
    assert all(name.startswith(published.prefix) for name in stored)
    weights = {name.removeprefix(published.prefix): value.double() for name, value in stored.items()}
    rainy = noise(1, 3, 19, 22)
    with torch.no_grad():
        expected = published.functional(weights, rainy, published.stages)[-1]
    torch.testing.assert_close(derain(network.double(), rainy), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("name", STAGED)
def test_every_stage_is_that_of_the_paper_with_any_weights(name: str, stages: int) -> None:
    make, functional = STAGED[name]
    network = with_random_weights(make(stages))
    rainy = noise(2, 3, 19, 14)
    with torch.no_grad():
        expected = functional(network.state_dict(), rainy, stages)
        outputs = network(rainy, all_stages=True)
    assert isinstance(outputs, list)
    assert len(outputs) == len(expected) == stages
    before = rainy
    for output, stage in zip(outputs, expected, strict=True):
        assert 1e-4 < (stage - before).std() < 100
        torch.testing.assert_close(output, stage, rtol=0, atol=1e-10)
        before = stage
    assert torch.equal(derain(network, rainy), outputs[-1])


@pytest.mark.parametrize(("channels", "size"), [(2, (9, 12)), (5, (19, 14)), (5, (1, 7))])
def test_spanet_and_its_attention_are_those_of_the_paper_with_any_weights(channels: int, size: tuple[int, int]) -> None:
    network = with_random_weights(SPANet(channels), seed=7)
    rainy = noise(2, 3, *size)
    with torch.no_grad():
        derained, maps = functional_spanet(network.state_dict(), rainy)
        attended = network(rainy, attention=True)
    assert isinstance(attended, Attended)
    assert attended._fields == ("derained", "attention")
    assert attended.attention.shape == (2, 1, *size)
    assert all(map_.std() > 0.01 for map_ in maps)
    assert all((one - two).abs().max() > 1e-3 for one, two in itertools.pairwise(maps))
    assert 0.01 < derained.std() < 10
    torch.testing.assert_close(attended.derained, derained, rtol=0, atol=1e-10)
    torch.testing.assert_close(attended.attention, maps[0], rtol=0, atol=1e-10)
    assert torch.equal(derain(network, rainy), attended.derained)


def test_the_sweeps_of_a_small_image_are_those_by_hand() -> None:
    sweeps = SpatialIRNN(1)
    with torch.no_grad():
        for direction, weight, bias in (("up", 2, -1), ("right", -1, 4), ("down", 0.5, 0.25), ("left", 1, 0)):
            layer = sweeps.get_submodule(f"{direction}_weight")
            for name, value in (("weight", weight), ("bias", bias)):
                layer.get_parameter(name).fill_(value)
        swept = sweeps(torch.tensor([[[[1.0, -2], [3, 1]]]]))
    up, right, down, left = [[6, 0], [3, 1]], [[1, 1], [3, 2]], [[1, 0], [3.75, 1.25]], [[1, 0], [4, 1]]
    assert swept.tolist() == [[up, right, down, left]]


def test_sweeps_start_with_a_fifth_of_the_line_before() -> None:
    state = SpatialIRNN(7).state_dict()
    assert len(state) == 8
    for direction in ("up", "right", "down", "left"):
        assert state[f"{direction}_weight.weight"].flatten().tolist() == pytest.approx([0.2] * 7)


def test_the_weights_of_spanets_directions_have_no_effect() -> None:
    network = with_random_weights(SPANet(channels=4))
    rainy = noise(1, 3, 9, 8)
    before = derain(network, rainy)
    for parameter in network.get_submodule("SAM1.attention_layer").parameters():
        torch.nn.init.constant_(parameter, 100)
    assert torch.equal(derain(network, rainy), before)


@small
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (17, 33)])
def test_any_size_keeps_its_shape(name: str, size: tuple[int, int]) -> None:
    derained = derain(SMALL[name](), torch.rand(2, 3, *size))
    assert derained.shape == (2, 3, *size)
    assert derained.isfinite().all()


@pytest.mark.parametrize(
    ("network", "arguments"),
    [(PRN, (1, 1)), (PReNet, (1, 1)), (VRGNetPReNet, (1, 1)), (BRN, (1, 1)), (RESCAN, (1, 1, 4)), (SPANet, (2,))],
)
def test_the_smallest_of_each_derains(network: Callable[..., nn.Module], arguments: tuple[int, ...]) -> None:
    assert derain(network(*arguments), torch.rand(1, 3, 6, 4)).shape == (1, 3, 6, 4)


@small
def test_an_image_does_not_see_its_neighbours_in_the_batch(name: str) -> None:
    network = with_random_weights(SMALL[name]())
    rainy = noise(3, 3, 13, 10)
    together = derain(network, rainy)
    for number in range(3):
        alone = derain(network, rainy[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=0, atol=1e-12)
    others = torch.cat([rainy[:1], 5 * noise(2, 3, 13, 10, seed=2)])
    torch.testing.assert_close(derain(network, others)[:1], together[:1], rtol=0, atol=1e-12)


# Of the largest difference from double precision, in units of the output's standard deviation.
PRECISIONS = {"float32": (torch.float32, 1e-5), "bfloat16": (torch.bfloat16, 0.1)}


@small
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_lower_precision_and_another_layout_give_nearly_the_same(
    name: str, precision: str, channels_last: bool
) -> None:
    dtype, tolerance = PRECISIONS[precision]
    network = with_random_weights(SMALL[name]())
    rainy = noise(2, 3, 17, 14)
    expected = derain(network, rainy)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    derained = derain(network, rainy.to(dtype).contiguous(memory_format=layout))
    assert derained.dtype == dtype
    assert derained.isfinite().all()
    assert (derained.double() - expected).abs().max() < tolerance * expected.std()


UNTRAINED = {
    "BRN": [f"res_conv{n}_r.{layer}.{kind}" for n in (4, 5) for layer in (0, 2) for kind in ("weight", "bias")],
    "SPANet": [f"SAM1.attention_layer.conv{n}.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")],
}


@small
def test_everything_that_has_an_effect_learns(name: str) -> None:
    network = with_random_weights(SMALL[name]())
    rainy = noise(2, 3, 11, 9).requires_grad_()
    network(rainy).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert without == UNTRAINED.get(name, [])
    for parameter_name, parameter in network.named_parameters():
        if parameter_name in without:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name
    assert rainy.grad is not None
    assert rainy.grad.isfinite().all()
    assert (rainy.grad.abs().amax(1) > 0).all()


@pytest.mark.parametrize("name", STAGED)
def test_the_gradients_are_those_of_the_functional_version(name: str) -> None:
    make, functional = STAGED[name]
    network = with_random_weights(make(3))
    weights = {name: value.clone().requires_grad_() for name, value in network.state_dict().items()}
    rainy = noise(2, 3, 7, 8).requires_grad_()
    functional(weights, rainy, 3)[-1].sin().sum().backward()
    expected = {name: value.grad for name, value in weights.items()} | {"rainy": rainy.grad}
    rainy.grad = None
    network(rainy).sin().sum().backward()
    for parameter, value in [*network.named_parameters(), ("rainy", rainy)]:
        torch.testing.assert_close(value.grad, expected[parameter], rtol=1e-9, atol=1e-12, msg=parameter)


def test_spanets_gradient_is_that_of_finite_differences() -> None:
    network = with_random_weights(SPANet(channels=6))
    rainy, direction = noise(1, 3, 6, 7).requires_grad_(), noise(1, 3, 6, 7, seed=2) - 0.5
    network(rainy).sin().sum().backward()
    assert rainy.grad is not None
    step = 1e-6 * direction
    ahead, back = (derain(network, rainy.detach() + sign * step).sin().sum() for sign in (1, -1))
    assert float((ahead - back) / 2e-6) == pytest.approx(float((rainy.grad * direction).sum()), rel=1e-6)


@small
def test_the_input_is_left_as_it_was(name: str) -> None:
    rainy = noise(1, 3, 8, 7)
    before = rainy.clone()
    network = with_random_weights(SMALL[name]())
    derain(network, rainy)
    with torch.no_grad():
        network(rainy, True)
    assert torch.equal(rainy, before)


@pytest.mark.parametrize(
    ("make", "stages", "radius"),
    [(PRN, 1, 12), (PRN_r, 2, 24), (PReNet, 1, 13), (PReNet_r, 1, 13), (VRGNetPReNet, 1, 13), (BRN, 1, 22)],
)
def test_what_lies_beyond_the_receptive_field_has_no_effect(
    make: Callable[..., nn.Module], stages: int, radius: int
) -> None:
    network = with_random_weights(make(stages, channels=4))
    rainy = noise(1, 3, 2 * radius + 5, 2 * radius + 9)
    height, width = rainy.shape[2:]
    wider = noise(1, 3, height + 6, width + 8, seed=2)
    wider[:, :, 3:-3, 4:-4] = rainy
    difference = (derain(network, wider)[:, :, 3:-3, 4:-4] - derain(network, rainy)).abs()
    assert difference[:, :, radius:-radius, radius:-radius].shape == (1, 3, 5, 9)
    assert difference[:, :, radius:-radius, radius:-radius].max() < 1e-12
    assert difference.max() > 1e-2


@pytest.mark.parametrize("turns", range(4))
def test_spanets_sweeps_fade_away_from_where_the_image_grows(turns: int) -> None:
    network = with_random_weights(SPANet(channels=3))
    for name, parameter in network.named_parameters():
        if name.endswith("_weight.weight"):
            torch.nn.init.constant_(parameter, 0.2)

    def derain_turned(rainy: Tensor) -> Tensor:
        return derain(network, rainy.rot90(turns, (2, 3))).rot90(-turns, (2, 3))

    rainy = noise(1, 3, 8, 80)
    wider = torch.cat([noise(1, 3, 8, 5, seed=2), rainy], 3)
    difference = (derain_turned(wider)[..., 5:] - derain_turned(rainy)).abs()
    assert difference.max() > 1e-2
    # 40 pixels of the convolutions, and 28 in which the sweeps fade by a factor of 0.2 each.
    assert difference[..., 68:].max() < 1e-12


def test_rescan_sees_the_whole_image() -> None:
    network = with_random_weights(RESCAN(stages=1, channels=5, depth=4))
    rainy = noise(1, 3, 40, 40)
    rainy[:, :, 20:] *= 10
    difference = (derain(network, rainy)[:, :, :20] - derain(network, rainy[:, :, :20])).abs().amax(1)
    # Its convolutions reach 3 pixels.
    assert difference[:, :17].min() > 1e-8
    assert difference[:, :17].max() > 1e-4


@pytest.mark.parametrize("network", [PRN, PReNet, PRN_r, PReNet_r, VRGNetPReNet, BRN])
@pytest.mark.parametrize(("stages", "channels"), [(0, 32), (-1, 8), (6, 0), (2, -4)])
def test_networks_without_stages_or_channels_are_refused(
    network: Callable[..., nn.Module], stages: int, channels: int
) -> None:
    with pytest.raises(ValueError, match=f"^stages and channels must be at least 1, got {stages} and {channels}$"):
        network(stages=stages, channels=channels)


@pytest.mark.parametrize(("stages", "channels", "depth"), [(0, 24, 7), (4, 0, 7), (4, 24, 2)])
def test_a_rescan_without_stages_channels_or_dilations_is_refused(stages: int, channels: int, depth: int) -> None:
    message = f"stages and channels must be at least 1 and depth at least 3, got {stages}, {channels} and {depth}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        RESCAN(stages, channels, depth)


@pytest.mark.parametrize("channels", [1, 0, -2])
def test_a_spanet_of_fewer_than_two_channels_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"^channels must be at least 2, got {channels}$"):
        SPANet(channels)


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def derained_file(network: nn.Module, path: Path) -> NDArray[np.uint8]:
    rainy = torch.from_numpy(read(path).copy()).permute(2, 0, 1)[None].float() / 255
    return (derain(network, rainy)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("network", "file"), [(PRN_r, "PRN6_r_Rain100L"), (PReNet_r, "PReNet6_r_Rain100L")])
def test_the_small_progressive_networks_take_the_rain_off_rain100l(
    network: type[nn.Module], file: str, rainoerme_data: Path, rainoerme_weights: Path
) -> None:
    derainer = network()
    load_weights(derainer, rainoerme_weights / f"{file}.pth")
    rain, norain = (rainoerme_data / "Rain100L" / "test" / kind for kind in ("rain", "norain"))
    gains = []
    for image in ("norain-1.png", "norain-2.png"):
        clean = read(norain / image)
        derained = psnr(derained_file(derainer, rain / image), clean, "matlab_y")
        gains.append(derained - psnr(read(rain / image), clean, "matlab_y"))
    assert min(gains) > 7.5
    assert np.mean(gains) > 8


def test_vrgnets_prenet_takes_real_rain_off(rainoerme_data: Path, rainoerme_weights: Path) -> None:
    derainer = VRGNetPReNet()
    load_weights(derainer, rainoerme_weights / "VRGNet-PReNet_SPA.pth")
    rainy = sorted((rainoerme_data / "SPA" / "rain").iterdir())
    clean = [rainoerme_data / "SPA" / "norain" / path.name for path in rainy]
    values = [psnr(derained_file(derainer, one), read(two), "basicsr_y") for one, two in zip(rainy, clean, strict=True)]
    assert values == pytest.approx([39.9, 35.7], abs=0.1)
