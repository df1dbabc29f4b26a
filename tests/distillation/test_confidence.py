"""Confidence in soft labels: hand-worked, and against SciPy's grey morphology."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from rainoerme_plugin.distillation.confidence import Confidence


def test_where_only_an_upright_white_streak_was_taken_out_the_label_is_trusted() -> None:
    label = torch.full((1, 3, 24, 16), 0.3)
    rainy = label.clone()
    rainy[..., 7] += 0.4
    torch.testing.assert_close(Confidence()(rainy, label), torch.ones(1, 1, 24, 16))


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ((0.1, 0.1, 0.1), 0.1),  # a dot of white is no streak
        ((0.3, 0.0, 0.0), 0.1),  # nor is what brightens red alone
        ((-0.2, -0.2, -0.2), 0.2),  # nor what darkens
    ],
)
def test_what_else_was_taken_out_costs_trust(change: tuple[float, float, float], lost: float) -> None:
    label = torch.full((1, 3, 24, 16), 0.5)
    rainy = label.clone()
    rainy[0, :, 12, 7] += torch.tensor(change)
    weights = Confidence(tolerance=0.05, floor=0.2)(rainy, label)
    assert float(weights[0, 0, 12, 7]) == pytest.approx(0.2 + 0.8 * exp(-lost / 0.05), abs=1e-6)
    weights[0, 0, 12, 7] = 1
    torch.testing.assert_close(weights, torch.ones_like(weights))


def test_a_streak_may_stray_by_the_slack() -> None:
    label = torch.zeros(1, 3, 24, 16)
    rainy = label.clone()
    for row in range(24):
        rainy[..., row, 6 + row // 8] = 0.4
    assert float(Confidence(slack=1)(rainy, label).min()) == pytest.approx(1)
    assert float(Confidence(slack=0)(rainy, label).min()) < 0.5


@pytest.mark.parametrize(("length", "slack"), [(9, 1), (5, 2), (1, 0)])
def test_the_weights_are_those_of_grey_morphology(length: int, slack: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rainy, label = torch.rand(2, 1, 3, 20, 17, generator=generator)
    change = (rainy - label)[0].double().numpy()
    removed = np.clip(change, 0, None).min(axis=0)
    widened = ndimage.grey_dilation(removed, (1, 2 * slack + 1), mode="constant", cval=-np.inf)
    eroded = ndimage.grey_erosion(widened, (length, 1), mode="constant", cval=np.inf)
    opened = ndimage.grey_dilation(eroded, (length, 1), mode="constant", cval=-np.inf)
    lost = np.abs(change).mean(axis=0) - np.minimum(removed, opened)
    oracle = 0.1 + 0.9 * np.exp(-lost / 0.2)
    weights = Confidence(length, slack, 0.2, 0.1)(rainy, label)
    np.testing.assert_allclose(weights[0, 0].numpy(), oracle, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 8}, "length must be odd and positive, got 8"),
        ({"slack": -1}, "slack must not be negative"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
        ({"floor": 1.5}, "floor must be from 0 to 1, got 1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Confidence(**arguments)
