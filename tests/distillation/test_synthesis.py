"""Adding rain to a clean image, worked by hand."""

from __future__ import annotations

import pytest
import torch

from rainoerme_plugin.distillation.synthesis import add_rain


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
