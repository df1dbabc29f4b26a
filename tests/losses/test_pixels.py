"""Charbonnier, gradient and frequency losses against NumPy and BasicSR; gradients by finite differences; sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rainoerme_plugin.losses.pixels import (
    CharbonnierLoss,
    FrequencyLoss,
    GradientLoss,
    charbonnier,
    frequency_difference,
    gradient_difference,
)
from rainoerme_plugin.losses.ssim import SSIMLoss, ssim_map
from rainoerme_plugin.losses.total import LOSSES, SumLoss
from rainoerme_plugin.losses.weighted import weighted_mean

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}
"""Half precision is computed in float32, from values that were rounded before."""
KINDS: list[Callable[[], nn.Module]] = [
    lambda: CharbonnierLoss(eps=1e-6),
    GradientLoss,
    FrequencyLoss,
    lambda: FrequencyLoss(part="amplitude"),
    SSIMLoss,
]
KIND_NAMES = ["charbonnier", "gradient", "frequency", "amplitude", "ssim"]


def pair(dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (2, 3, 7, 10)) -> tuple[Tensor, Tensor]:
    image, target = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return image.to(dtype), target.to(dtype)


def weights(shape: tuple[int, ...] = (2, 1, 7, 10)) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def arrays(image: Tensor, target: Tensor) -> tuple[Any, Any]:
    return image.double().numpy(), target.double().numpy()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values_are_those_of_numpy(dtype: torch.dtype) -> None:
    image, target = pair(dtype)
    x, y = arrays(image, target)
    d = x - y
    spectrum = np.fft.fft2(d, norm="ortho")[..., : 10 // 2 + 1]
    oracle = {
        charbonnier: np.sqrt(d**2 + 1e-12).mean(),
        gradient_difference: (np.abs(np.diff(d, axis=-1)).mean() + np.abs(np.diff(d, axis=-2)).mean()) / 2,
        frequency_difference: (np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2,
    }
    for function, value in oracle.items():
        assert float(function(image, target)) == pytest.approx(value, abs=TOLERANCE[dtype]), function.__name__
    strength_x, strength_y = (np.abs(np.fft.fft2(z, norm="ortho"))[..., :6] for z in (x, y))
    found = float(frequency_difference(image, target, part="amplitude"))
    assert found == pytest.approx(np.abs(strength_x - strength_y).mean(), abs=TOLERANCE[dtype])


def test_amplitudes_do_not_mind_where_things_are() -> None:
    image, _ = pair()
    moved = image.roll((2, 3), dims=(-2, -1))
    assert float(frequency_difference(image, moved, part="amplitude")) == pytest.approx(0, abs=1e-12)
    assert float(frequency_difference(image, moved)) > 0.1


def test_charbonnier_is_basicsrs() -> None:
    from basicsr.losses.basic_loss import CharbonnierLoss as StockCharbonnier

    image, target = pair()
    for weight in (None, weights()):
        ours, theirs = CharbonnierLoss(0.7)(image, target, weight), StockCharbonnier(0.7)(image, target, weight)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("make", KINDS, ids=KIND_NAMES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_finite_differences(make: Callable[[], nn.Module], weighted: bool) -> None:
    image, target = pair(shape=(1, 2, 5, 6))
    weight = weights((1, 1, 5, 6)) if weighted else None
    loss = make()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight), image.requires_grad_())


# --- weights ---


@pytest.mark.parametrize("make", KINDS, ids=KIND_NAMES)
def test_weights_of_one_value_change_nothing(make: Callable[[], nn.Module]) -> None:
    image, target = pair()
    loss = make()
    weighted = loss(image, target, torch.full((2, 1, 7, 10), 0.3, dtype=torch.float64))
    torch.testing.assert_close(weighted, loss(image, target))


@pytest.mark.parametrize("make", [CharbonnierLoss, GradientLoss, FrequencyLoss])
def test_what_weighs_nothing_is_not_looked_at(make: Callable[[], nn.Module]) -> None:
    image, target = pair()
    weight = torch.ones(2, 1, 7, 10, dtype=torch.float64)
    weight[..., 5:] = 0
    changed = image.clone()
    changed[..., 6:] += 1
    torch.testing.assert_close(make()(changed, target, weight), make()(image, target, weight))
    assert float(make()(changed, target)) > float(make()(image, target)) + 0.02


def test_weighted_values_are_those_of_numpy() -> None:
    image, target = pair()
    weight = weights()
    x, y = arrays(image, target)
    w = np.broadcast_to(weight.numpy(), x.shape)
    assert float(charbonnier(image, target, weight=weight)) == pytest.approx(
        np.average(np.sqrt((x - y) ** 2 + 1e-12), weights=w)
    )
    similarity = ssim_map(image, target).numpy()
    assert float(SSIMLoss(2.0)(image, target, weight)) == pytest.approx(2 * (1 - np.average(similarity, weights=w)))
    pairs = [(w[..., 1:] + w[..., :-1]) / 2, (w[..., 1:, :] + w[..., :-1, :]) / 2]
    steps = [np.abs(np.diff(x - y, axis=axis)) for axis in (-1, -2)]
    oracle = sum((step * both).mean() / w.mean() for step, both in zip(steps, pairs, strict=True)) / 2
    assert float(gradient_difference(image, target, weight=weight)) == pytest.approx(oracle)


def test_weights_of_nothing_give_no_loss_and_another_shape_is_refused() -> None:
    values = torch.rand(2, 3, 4, 5)
    assert float(weighted_mean(values, torch.zeros(2, 1, 4, 5))) == 0
    for shape in [(2, 2, 4, 5), (2, 1, 5, 4), (4, 5)]:
        with pytest.raises(ValueError, match="weight must be"):
            weighted_mean(values, torch.ones(shape))


# --- sums ---


def test_a_sum_is_that_of_its_losses() -> None:
    image, target = pair()
    parts = [{"type": "SSIMLoss", "loss_weight": 0.5}, {"type": "FrequencyLoss", "part": "amplitude"}]
    total = SumLoss([*parts, {"type": "CharbonnierLoss", "loss_weight": 0.1, "eps": 1e-6}], loss_weight=2.0)
    for weight in (None, weights()):
        oracle = 0.5 * SSIMLoss()(image, target, weight) + FrequencyLoss(part="amplitude")(image, target, weight)
        oracle = 2 * (oracle + 0.1 * CharbonnierLoss(eps=1e-6)(image, target, weight))
        torch.testing.assert_close(total(image, target, weight), oracle)


def test_a_sum_of_ssim_alone_is_ssim() -> None:
    image, target = pair(torch.float32)
    assert torch.equal(SumLoss([{"type": "SSIMLoss"}])(image, target), SSIMLoss()(image, target))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([], "a list of at least one loss"),
        ({"type": "SSIMLoss"}, "a list of at least one loss"),
        (["SSIMLoss"], r"losses\[0\]: expected keys and values"),
        (
            [{"type": "SSIMLoss"}, {"type": "L7Loss"}],
            rf"losses\[1\].type: no loss 'L7Loss'.*; there are {', '.join(LOSSES)}",
        ),
        ([{"type": "SSIMLoss", "sigmma": 3}], r"losses\[0\]\.sigmma: unknown key; did you mean 'sigma'"),
        ([{"type": "SSIMLos"}], r"losses\[0\]\.type: no loss 'SSIMLos'; did you mean 'SSIMLoss'"),
        ([{"type": "SSIMLoss", "window": "x"}], r"losses\[0\]: SSIMLoss takes numbers of loss_weight, window, sigma"),
        ([{"type": "CharbonnierLoss", "eps": 0}], r"losses\[0\]: eps must be above 0, got 0"),
        ([{"type": "FrequencyLoss", "part": "phase"}], "part must be complex or amplitude, got 'phase'"),
    ],
)
def test_a_sum_that_cannot_be_is_refused(losses: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SumLoss(losses)


@pytest.mark.parametrize("make", KINDS, ids=KIND_NAMES)
def test_images_of_two_shapes_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        make()(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5))
