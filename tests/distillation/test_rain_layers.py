"""Rain layers varied: exact moves and flips, SciPy for turning and scaling, draws that depend on seed and iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from rainoerme_plugin.distillation.rain_layers import RainVariation


def layers(batch: int = 4, height: int = 12, width: int = 12) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def numbers(
    whose: int = 0, strength: float = 1.0, mirrored: int = 0, upturned: int = 0, angle: float = 0.0, size: float = 1.0
) -> list[float]:
    """One layer's draw, written out: the matrix turns by ``angle`` degrees and scales by ``size``."""
    cos, sin = np.cos(np.radians(angle)) / size, np.sin(np.radians(angle)) / size
    return [whose, strength, mirrored, upturned, cos, -sin, sin, cos]


EVERYTHING: dict[str, Any] = {
    "move": True,
    "flip": True,
    "upturn": True,
    "turn": 20.0,
    "strength": (0.6, 1.4),
    "size": (0.8, 1.5),
    "two": 0.5,
}


def test_by_default_nothing_is_done() -> None:
    assert RainVariation().does_nothing
    for name, value in {**EVERYTHING, "none": 0.2, "grey": True}.items():
        assert not RainVariation(**{name: value}).does_nothing, name


def test_moves_flips_and_strength_are_exact() -> None:
    rain = layers(2)
    draw = torch.tensor([numbers(1, 0.5, mirrored=1), numbers(0, 2.0, upturned=1)])
    varied = RainVariation(move=True, flip=True, upturn=True, strength=(0.5, 2.0))(rain, draw)
    oracle = np.stack([0.5 * rain[1].numpy()[:, :, ::-1], 2.0 * rain[0].numpy()[:, ::-1]])
    assert np.array_equal(varied.numpy(), oracle)


@pytest.mark.parametrize("shape", [(31, 31), (24, 40)])
@pytest.mark.parametrize(("angle", "size"), [(0.0, 1.5), (12.0, 1.0), (-25.0, 0.8), (90.0, 1.0)])
def test_turning_and_scaling_are_those_of_scipy(shape: tuple[int, int], angle: float, size: float) -> None:
    smooth = ndimage.gaussian_filter(layers(1, *shape).numpy()[0, 0].astype(np.float64), 2.0)
    rain = torch.from_numpy(smooth).float().expand(1, 3, *shape)
    varied = RainVariation(turn=90.0)(rain, torch.tensor([numbers(angle=angle, size=size)], dtype=torch.float32))
    # SciPy counts (row, column), the draw (x, y).
    x_to_x, y_to_x, x_to_y, y_to_y = numbers(angle=angle, size=size)[4:]
    matrix = np.array([[y_to_y, x_to_y], [y_to_x, x_to_x]])
    centre = (np.array(shape) - 1) / 2
    # PyTorch's cubic has a = -0.75 and no prefilter, SciPy's is a spline: alike on what is smooth.
    oracle = ndimage.affine_transform(smooth, matrix, centre - matrix @ centre, order=3, mode="reflect")
    inside = ndimage.affine_transform(np.ones(shape), matrix, centre - matrix @ centre, order=0, mode="constant") > 0
    assert inside.mean() > 0.4
    np.testing.assert_allclose(varied[0, 0].numpy(), oracle, atol=5e-3, rtol=0)
    assert smooth.std() > 0.02  # so that 5e-3 tells


def test_what_comes_in_from_beyond_the_border_is_the_layer_reflected() -> None:
    rain = layers(1, 9, 9)
    varied = RainVariation(size=(0.5, 0.5))(rain, torch.tensor([numbers(size=0.5)]))
    # At half the size the frame shows 18x18 pixels, read at every second: no zeros at the border.
    padded = np.pad(rain[0].numpy(), [(0, 0), (4, 4), (4, 4)], mode="symmetric")
    np.testing.assert_allclose(varied[0].numpy(), padded[:, ::2, ::2], atol=1e-5)


def test_streaks_of_twice_the_size_are_twice_as_wide() -> None:
    rain = torch.zeros(1, 3, 32, 32)
    rain[..., 14:18] = 1.0
    varied = RainVariation(size=(2.0, 2.0))(rain, torch.tensor([numbers(size=2.0)]))
    assert int((varied[0, 0, 16] > 0.5).sum()) == 8


def test_a_second_layer_is_added_where_it_was_drawn() -> None:
    rain = layers(2)
    draw = torch.tensor([numbers() + numbers(1, 0.5), numbers(1) + numbers(0, 0.0)])
    varied = RainVariation(two=0.5)(rain, draw)
    torch.testing.assert_close(varied[0], rain[0] + 0.5 * rain[1])
    torch.testing.assert_close(varied[1], rain[1])


# --- draws ---


def test_a_draw_is_a_function_of_seed_and_iteration() -> None:
    variation = RainVariation(**EVERYTHING)
    first = variation.draw(7, 8, seed=3)
    assert first.shape == (8, variation.numbers) == (8, 16)
    torch.rand(3)
    np.random.random(3)
    assert torch.equal(variation.draw(7, 8, seed=3), first)
    assert not torch.equal(variation.draw(8, 8, seed=3), first)
    assert not torch.equal(variation.draw(7, 8, seed=4), first)


def test_draws_stay_in_their_ranges_and_fill_them() -> None:
    variation = RainVariation(**EVERYTHING)
    drawn = torch.cat([variation.draw(iteration, 8) for iteration in range(1, 401)]).double()
    for start in (0, 8):
        strength = drawn[:, start + 1][drawn[:, start + 1] > 0]
        assert 0.6 <= strength.min() < 0.61
        assert 1.39 < strength.max() <= 1.4
        assert abs(float(drawn[:, start + 2].mean()) - 0.5) < 0.04
        assert abs(float(drawn[:, start + 3].mean()) - 0.5) < 0.04
        size = 1 / torch.hypot(drawn[:, start + 4], drawn[:, start + 6])
        assert 0.799 < size.min() < 0.81
        assert 1.48 < size.max() < 1.501
        angle = torch.rad2deg(torch.atan2(drawn[:, start + 6], drawn[:, start + 4]))
        assert -20.001 < angle.min() < -19.5
        assert 19.5 < angle.max() < 20.001
        matrices = drawn[:, start + 4 : start + 8].reshape(-1, 2, 2)
        turned = matrices @ matrices.transpose(1, 2) * size[:, None, None] ** 2  # the identity, of a turn
        torch.testing.assert_close(turned, torch.eye(2).double().expand_as(turned), atol=1e-5, rtol=0)
    assert abs(float((drawn[:, 9] > 0).double().mean()) - 0.5) < 0.04


def test_layers_move_to_another_image_of_the_batch() -> None:
    for iteration in range(1, 20):
        whose = RainVariation(move=True).draw(iteration, 8)[:, 0].long()
        assert (whose != torch.arange(8)).all()
        assert sorted(whose.tolist()) == list(range(8))


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("batch", [2, 3, 8])
def test_the_second_layer_is_another_images_than_the_first(batch: int, move: bool) -> None:
    variation, pairs = RainVariation(move=move, two=1.0), set()
    for iteration in range(1, 200):
        draw = variation.draw(iteration, batch)
        assert (draw[:, 0] != draw[:, 8]).all()
        pairs |= set(zip(draw[:, 0].tolist(), draw[:, 8].tolist(), strict=True))
    assert len(pairs) == batch * (batch - 1)  # every other one, in turn


def test_a_single_image_keeps_its_layer() -> None:
    assert RainVariation(move=True).draw(1, 1)[0, 0] == 0


@pytest.mark.parametrize("flips", [{}, {"flip": True}, {"flip": True, "upturn": True}], ids=str)
def test_the_second_layer_of_a_single_image_is_the_first_turned_by_half(flips: dict[str, bool]) -> None:
    rain, variation = layers(1), RainVariation(two=1.0, **flips)
    for iteration in range(1, 9):
        draw = variation.draw(iteration, 1)
        first = draw.clone()
        first[:, 9] = 0
        varied = variation(rain, draw)
        first_layer = variation(rain, first)
        torch.testing.assert_close(varied - first_layer, first_layer.rot90(2, (-2, -1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"turn": 91.0}, "turn must be from 0 to 90 degrees, got 91"),
        ({"strength": (1.2, 0.8)}, r"strength must be \[least, most\], 0 <= least <= most, got \[1.2, 0.8\]"),
        ({"strength": (-0.1, 0.8)}, "strength must be"),
        ({"size": (0.0, 1.0)}, "size must be"),
        ({"two": 1.1}, "two must be a probability, got 1.1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RainVariation(**arguments)


def test_grey_layers_are_the_mean_over_their_colours() -> None:
    rain = layers(2)
    varied = RainVariation(grey=True, strength=(2.0, 2.0))(rain, torch.tensor([numbers(0, 2.0), numbers(1, 2.0)]))
    oracle = np.repeat(2 * rain.numpy().mean(axis=1, keepdims=True), 3, axis=1)
    np.testing.assert_allclose(varied.numpy(), oracle, rtol=1e-6)


@pytest.mark.parametrize("two", [0.0, 0.5])
def test_so_many_images_stay_without_rain_and_the_others_are_as_they_were(two: float) -> None:
    some, all_ = (RainVariation(strength=(0.5, 2.0), two=two, none=share) for share in (0.25, 0.0))
    stay = []
    for iteration in range(1, 401):
        drawn, others = some.draw(iteration, 8), all_.draw(iteration, 8)
        strengths = drawn[:, 1::8]
        is_without = (strengths == 0).all(dim=1)
        assert torch.equal(drawn[~is_without], others[~is_without])
        assert not some(layers(8), drawn)[is_without].any()
        stay.append(is_without)
    assert float(torch.stack(stay).double().mean()) == pytest.approx(0.25, abs=0.03)


def test_none_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none must be a probability, got 1\.5"):
        RainVariation(none=1.5)
