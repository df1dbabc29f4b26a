"""What every network of the catalogue must do, in a small version with random weights."""

from __future__ import annotations

import pytest
import torch
from small import small
from torch import Tensor

from rainoerme_plugin.archs.adapt import derain
from rainoerme_plugin.archs.catalogue import CATALOGUE, needs_of

each = pytest.mark.parametrize("name", [card.name for card in CATALOGUE if not card.from_file_only])


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@each
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (37, 66)])
def test_images_of_any_size_keep_it(name: str, size: tuple[int, int]) -> None:
    network = small(name).eval()
    rainy = images(1, 3, *size)
    with torch.no_grad():
        derained = derain(network, rainy, needs_of(network))
    assert derained.shape == rainy.shape
    assert bool(derained.isfinite().all())


@each
def test_an_image_is_derained_alike_whatever_stands_beside_it(name: str) -> None:
    network = small(name).double().eval()
    first, second, third = images(3, 3, 20, 24).double().split(1)
    with torch.no_grad():
        alone = derain(network, first, needs_of(network))
        beside = [derain(network, torch.cat([first, other]), needs_of(network))[:1] for other in (second, third)]
    for derained in beside:
        torch.testing.assert_close(derained, alone, rtol=0, atol=1e-11 * float(alone.abs().max()))


@each
def test_channels_last_gives_the_same(name: str) -> None:
    network = small(name).double().eval()
    rainy = images(1, 3, 20, 24).double()
    with torch.no_grad():
        plain = derain(network, rainy, needs_of(network))
        last = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        strided = derain(last, rainy.to(memory_format=torch.channels_last), needs_of(network))
    torch.testing.assert_close(strided, plain, rtol=0, atol=1e-11 * float(plain.abs().max()))


@each
def test_bfloat16_gives_nearly_what_float32_does(name: str) -> None:
    network = small(name).eval()
    rainy = images(1, 3, 20, 24)
    with torch.no_grad():
        plain = derain(network, rainy, needs_of(network))
        if name == "SwinIR":  # BasicSR keeps its attention masks in float32
            with torch.autocast("cpu", torch.bfloat16):
                short = derain(network, rainy, needs_of(network)).bfloat16()
        else:
            short = derain(network.bfloat16(), rainy.bfloat16(), needs_of(network))
    assert short.dtype == torch.bfloat16
    # Eight bits of precision through some tens of layers.
    assert float((short.float() - plain).abs().max()) < 0.1 * max(1.0, float(plain.abs().max()))


@each
def test_gradients_are_finite_and_reach_the_input(name: str) -> None:
    network = small(name).train()
    rainy = images(2, 3, 20, 24).requires_grad_()
    derain(network, rainy, needs_of(network)).square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert rainy.grad is not None
    assert bool(rainy.grad.isfinite().all())
    assert bool(rainy.grad.any())
