"""The adversarial loss, worked by hand and by plain autograd; its discriminator; what is kept of it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rainoerme_plugin.distillation.adversarial import (
    Adversarial,
    Adversary,
    Domain,
    PatchDiscriminator,
    fooling_loss,
    telling_loss,
)

CPU = torch.device("cpu")


class Veil(nn.Module):
    """The rain is the same everywhere."""

    def __init__(self, rain: float = 0.1) -> None:
        super().__init__()
        self.rain = nn.Parameter(torch.tensor(rain))

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy - self.rain


def adversary(domain: Domain = "derained", **changes: Any) -> Adversary:
    average = changes.pop("average", None)
    settings = Adversarial(**{"weight": 0.5, "channels": 4, "layers": 2, **changes}, domain=domain)
    return Adversary(settings, CPU, seed=3, average=average)


def crops(seed: int = 0, count: int = 4) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_the_losses_are_halves_of_squares() -> None:
    judged = torch.tensor([[0.0, 1.0], [3.0, 0.5]])
    assert float(fooling_loss(judged)) == pytest.approx((1 + 0 + 4 + 0.25) / 4 / 2)
    assert float(telling_loss(judged, torch.tensor([2.0, 0.0]))) == pytest.approx((5.25 / 4 + 4 / 2) / 2)
    assert float(telling_loss(torch.ones(3), torch.zeros(2))) == float(fooling_loss(torch.ones(5))) == 0


@pytest.mark.parametrize(("layers", "sees"), [(2, 18), (3, 38), (4, 78)])
def test_a_judgement_sees_so_many_pixels_of_one_image(layers: int, sees: int) -> None:
    images = torch.rand(2, 3, 96, 96, requires_grad=True)
    judged = PatchDiscriminator(4, layers)(images)
    side = 96 // 2**layers
    assert judged.shape == (2, 1, side, side)
    judged[0, 0, side // 2, side // 2].backward()
    assert images.grad is not None
    assert not images.grad[1].any()
    columns = images.grad[0].abs().sum(dim=(0, 1)).nonzero()
    assert int(columns.max() - columns.min()) + 1 == sees


def test_the_smallest_image_is_judged_and_channels_double_eightfold() -> None:
    discriminator = PatchDiscriminator(2, 5)
    assert discriminator(torch.rand(1, 3, 32, 32)).shape == (1, 1, 1, 1)
    convolutions = [part for part in discriminator if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [2, 4, 8, 16, 16, 1]


@pytest.mark.parametrize("domain", ["derained", "rain"])
def test_both_sides_have_the_gradients_of_their_loss(domain: Domain) -> None:
    network, opponent = Veil(), adversary(domain)
    network.rain.grad = torch.tensor(2.0)  # of other losses
    losses = opponent.gradients(network, crops(), crops(1))
    oracle, discriminator = Veil(), deepcopy(opponent.discriminator)
    made = oracle(crops()) if domain == "derained" else crops() - oracle(crops())
    fooling = (discriminator(made) - 1).pow(2).mean() / 2
    (slope,) = torch.autograd.grad(fooling, oracle.rain, retain_graph=True)
    assert network.rain.grad is not None
    assert float(network.rain.grad) == pytest.approx(2 + 0.5 * float(slope), abs=1e-6)
    telling = ((discriminator(crops(1)) - 1).pow(2).mean() + discriminator(made.detach()).pow(2).mean()) / 2
    wanted = torch.autograd.grad(telling, list(discriminator.parameters()))
    found = [gradient for _, gradient in opponent.gradients_by_name()]
    torch.testing.assert_close(found, list(wanted))
    torch.testing.assert_close(list(losses), [fooling.detach(), telling.detach()])
    assert not losses.fooling.requires_grad


def test_a_batch_in_parts_has_the_gradients_of_the_whole() -> None:
    found = []
    for parts in (1, 4):
        network, opponent = Veil(), adversary()
        losses = opponent.gradients(network, crops(), crops(1), parts=parts)
        assert network.rain.grad is not None
        found.append([network.rain.grad, *losses, *(gradient for _, gradient in opponent.gradients_by_name())])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_the_networks_loss_goes_backward_by_the_callers_way_and_in_its_precision() -> None:
    seen = []

    class Noting(Veil):
        def forward(self, rainy: Tensor) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(rainy)

    plain, scaled, opponent = Veil(), Noting(), adversary()
    opponent.gradients(plain, crops(), crops(1))
    alone = [gradient.clone() for _, gradient in opponent.gradients_by_name()]
    opponent.gradients(
        scaled, crops(), crops(1), precision=torch.bfloat16, backward=lambda loss: (1024 * loss).backward()
    )
    assert seen == [True]
    assert plain.rain.grad is not None
    assert scaled.rain.grad is not None
    assert float(scaled.rain.grad) == pytest.approx(1024 * float(plain.rain.grad), rel=1e-4)
    # The discriminator's are never scaled, and in place of those before.
    torch.testing.assert_close([gradient for _, gradient in opponent.gradients_by_name()], alone)
    assert {gradient.dtype for gradient in alone} == {torch.float32}


def test_processes_average_the_discriminators_gradients() -> None:
    alone, several = adversary(), adversary(average=lambda value: value / 4)
    for opponent in (alone, several):
        opponent.gradients(Veil(), crops(), crops(1))
    for (name, one), (_, other) in zip(alone.gradients_by_name(), several.gradients_by_name(), strict=True):
        torch.testing.assert_close(other, one / 4, msg=name)


def test_first_weights_are_the_seeds_and_nothing_else_is_drawn() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = adversary()
    assert torch.equal(torch.rand(3), expected)
    other, third = adversary(), Adversary(one.settings, CPU, seed=4)
    first = [each.discriminator[0].weight for each in (one, other, third)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_training_moves_what_is_made_to_what_is_true() -> None:
    """Rainy crops are 0.3 brighter than true ones, and nothing but the discriminator says so."""
    network, opponent, found = Veil(0.0), adversary(weight=1.0, lr=1e-2), []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    for seed in range(200):
        optimizer.zero_grad()
        opponent.gradients(network, 0.3 + 0.5 * crops(seed), 0.5 * crops(1000 + seed))
        optimizer.step()
        opponent.step()
        found.append(float(network.rain.detach()))
    assert sum(found[100:]) / 100 == pytest.approx(0.3, abs=0.07)  # the two go round each other


def test_what_is_saved_goes_on_to_the_bit_at_the_rate_of_the_new_run() -> None:
    whole, first = adversary(), adversary()

    def steps(opponent: Adversary, seeds: range) -> None:
        for seed in seeds:
            opponent.gradients(Veil(), crops(seed), crops(100 + seed))
            opponent.step()

    steps(whole, range(6))
    steps(first, range(3))
    later = Adversary(first.settings, CPU, seed=9)
    later.load_state_dict(deepcopy(first.state_dict()))
    steps(later, range(3, 6))
    for one, other in zip(whole.discriminator.parameters(), later.discriminator.parameters(), strict=True):
        assert torch.equal(one, other)
    slower = adversary(lr=1e-5)
    slower.load_state_dict(first.state_dict())
    assert slower.state_dict()["optimizer"]["param_groups"][0]["lr"] == 1e-5
    with pytest.raises(RuntimeError):
        adversary(channels=8).load_state_dict(first.state_dict())


def test_without_gradients_there_is_no_step() -> None:
    opponent = adversary()
    before = deepcopy(opponent.discriminator.state_dict())
    opponent.step()
    assert all(torch.equal(value, before[name]) for name, value in opponent.discriminator.state_dict().items())
