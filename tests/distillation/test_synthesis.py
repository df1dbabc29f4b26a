"""Adding rain to a clean image, worked by hand."""

from __future__ import annotations

import pytest
import torch

from rainoerme_plugin.distillation.synthesis import add_rain, opacity, screen_rain


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (1.0, [0.3, 0.7, 1.0, 0.0, 0.5]),
        (0.5, [0.25, 0.6, 1.0, 0.0, 0.5]),
        (2.0, [0.4, 0.9, 1.0, 0.0, 0.5]),
        (0.0, [0.2, 0.5, 0.9, 0.1, 0.5]),
    ],
)
def test_rain_is_added_with_its_gain_and_the_sum_stays_an_image(gain: float, expected: list[float]) -> None:
    clean = torch.tensor([0.2, 0.5, 0.9, 0.1, 0.5]).reshape(1, 1, 1, 5).repeat(2, 3, 1, 1)
    rain = torch.tensor([0.1, 0.2, 0.4, -0.3, 0.0]).reshape(1, 1, 1, 5).repeat(2, 3, 1, 1)
    rainy = add_rain(clean, rain, gain)
    torch.testing.assert_close(rainy, torch.tensor(expected).expand(2, 3, 1, 5), rtol=0, atol=1e-6)
    assert clean[0, 0, 0].tolist() == pytest.approx([0.2, 0.5, 0.9, 0.1, 0.5])


def test_rain_is_added_as_it_was_found_without_a_gain() -> None:
    clean, rain = torch.full((1, 3, 2, 2), 0.25), torch.full((1, 3, 2, 2), 0.5)
    assert torch.equal(add_rain(clean, rain), torch.full((1, 3, 2, 2), 0.75))


def test_gradients_flow_into_the_clean_image_but_not_into_the_rain() -> None:
    clean = torch.full((1, 3, 2, 2), 0.25, requires_grad=True)
    rain = torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    add_rain(clean, rain, 1.5).sum().backward()
    assert rain.grad is None
    assert torch.equal(clean.grad, torch.ones_like(clean))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 3, 4, 4), (1, 1, 4, 4)])
def test_rain_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clean images \(1, 3, 4, 4\) and rain layers \(.*\) differ in shape"):
        add_rain(torch.zeros(1, 3, 4, 4), torch.zeros(shape))


def test_the_screen_is_that_of_image_editors() -> None:
    clean, rain = torch.rand(2, 2, 3, 5, 5, generator=torch.Generator().manual_seed(4))
    oracle = 1 - (1 - clean.double()) * (1 - 0.7 * rain.double())
    torch.testing.assert_close(screen_rain(clean, rain, 0.7).double(), oracle, atol=1e-6, rtol=0)


def test_opacity_as_rain_gives_the_photograph_back() -> None:
    background = 0.8 * torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(5))
    alpha = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(6))
    rainy = (1 - alpha) * background + alpha  # white rain, so opaque
    found = opacity(rainy - background, background)
    torch.testing.assert_close(found, alpha.expand_as(rainy), atol=1e-5, rtol=0)
    torch.testing.assert_close(screen_rain(background, found), rainy, atol=1e-5, rtol=0)


def test_opacity_stays_a_share_on_white_and_for_dark_layers() -> None:
    white = torch.ones(1, 3, 2, 2)
    assert float(opacity(0.05 * white, white).max()) == pytest.approx(0.5)
    assert float(opacity(-0.1 * white, white).max()) == 0


def test_no_blend_lets_a_gradient_into_the_rain() -> None:
    rain = torch.rand(1, 3, 2, 2, requires_grad=True)
    assert not screen_rain(torch.rand(1, 3, 2, 2), rain).requires_grad
    assert not opacity(rain, rain).requires_grad
