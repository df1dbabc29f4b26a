"""Receptive fields against hand counts and gradients, and what has none."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hand_made import Of, conv, image, strided
from small import CARDS, SMALL, small
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import Needs, derain
from rainoerme_plugin.archs.brn import BRN
from rainoerme_plugin.archs.catalogue import needs_of
from rainoerme_plugin.archs.prenet import PReNet
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.archs.receptive_field import receptive_field


@pytest.mark.parametrize(
    ("network", "radius"),
    [
        (lambda: nn.Identity(), 0),
        (lambda: conv(1), 0),
        (lambda: conv(5), 2),
        (lambda: conv(3, dilation=7), 7),
        (lambda: nn.Sequential(conv(3), nn.ReLU(inplace=True), conv(3, dilation=2), nn.MaxPool2d(3, 1, 1)), 4),
        # (1 + a convolution of 1 and a dilated one of 3, twice, + 1) three times, with a merge between, and the last 1
        (lambda: RainOerMeNet(4), 1 + 9 + 9 + 1 + 9 + 1 + 1),
        # six times: the first convolution, the gates, five blocks of two, the last
        (lambda: PReNet(channels=2), 6 * (1 + 1 + 10 + 1)),
        # the rain network reaches 1 + 1 + 6 + 1, and then eight times the other, 1 + 1 + 10 + 1
        (lambda: BRN(channels=2), 9 + 8 * 13),
    ],
)
def test_receptive_fields_by_hand(network: Callable[[], nn.Module], radius: int) -> None:
    assert receptive_field(network(), Needs()) == radius


def test_a_field_on_a_grid_counts_from_the_grid() -> None:
    network, needs = strided(nn.AvgPool2d(3, 1, 1)), Needs(multiple=4)
    rainy = image(64, 64).requires_grad_()
    reach = 0
    for row in range(28, 36):
        (gradient,) = torch.autograd.grad(derain(network, rainy, needs)[0, :, row].sum(), rainy)
        rows = torch.nonzero(gradient.abs().sum((0, 1, 3))).flatten()
        first, last = int(rows[0]) // 4 * 4, int(rows[-1]) // 4 * 4
        reach = max(reach, row - (first + 3), last - row)
    assert reach > 4
    assert receptive_field(network, needs) == reach


@pytest.mark.parametrize("name", ["RainOerMeNet", "PRN", "PReNet_r", "BRN", "EDSR"])
def test_receptive_fields_by_gradients(name: str) -> None:
    network = small(name).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.02 * torch.rand_like(parameter))  # no ReLU is off
    rainy = image(101, 101).double().requires_grad_()
    (gradient,) = torch.autograd.grad(derain(network, rainy, Needs())[0, :, 50, 50].sum(), rainy)
    places = torch.nonzero(gradient[0].abs().sum(0))
    assert receptive_field(network, Needs()) == int((places - 50).abs().max())


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in sorted(set(SMALL) - {"IPT"})), ("DerainUNet", {"attention": True})],
)
def test_the_catalogue_says_which_networks_look_at_the_whole_image(name: str, changes: dict[str, Any]) -> None:
    network = small(name, **changes)
    assert (receptive_field(network, needs_of(network)) is None) == CARDS[name].sees_whole_image(network)


def every_fourth_row(rainy: Tensor) -> Tensor:
    return rainy * (torch.arange(rainy.shape[2]) % 4 == 0).view(1, 1, -1, 1)


def refuses_nan(rainy: Tensor) -> Tensor:
    if bool(rainy.isnan().any()):
        raise ValueError("NaN")
    return rainy


@pytest.mark.parametrize(
    "function",
    [
        lambda rainy: rainy - rainy.mean((2, 3), keepdim=True),
        lambda rainy: rainy.cumsum(2),
        lambda rainy: rainy.flip(3),
        lambda rainy: rainy + torch.linspace(0, 1, rainy.shape[3]),
        every_fourth_row,  # a grid that nobody speaks of
        refuses_nan,
        lambda rainy: rainy * torch.nan,
        lambda rainy: conv(5)(torch.where(rainy > 0, rainy, 0)),  # hides NaN, and so how far it reaches
    ],
)
def test_what_no_part_can_tell_is_taken_whole(function: Callable[[Tensor], Tensor]) -> None:
    assert receptive_field(Of(function), Needs()) is None


def test_a_grid_that_is_known_is_respected() -> None:
    assert receptive_field(Of(every_fourth_row), Needs(multiple=4)) == 0


def test_the_search_leaves_no_trace_and_is_made_once() -> None:
    network = nn.Sequential(Of(conv(3)), nn.BatchNorm2d(3), nn.BatchNorm2d(3)).train()
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert receptive_field(network, Needs()) == 1
    assert [module.training for module in (network, *network)] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    calls = len(network[0].seen)
    assert receptive_field(network, Needs()) == 1
    assert len(network[0].seen) == calls


def test_a_lower_precision_does_not_disturb_the_search() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert receptive_field(small("RainOerMeNet"), Needs()) == 31
    # Kernels of lower precision take values in pairs, and NaN spreads a little wider with them: more than enough.
    assert 31 <= (receptive_field(small("RainOerMeNet").bfloat16(), Needs()) or 0) <= 40


def test_what_is_known_of_a_network_goes_with_it() -> None:
    network = conv(3)
    receptive_field(network, Needs())
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None
