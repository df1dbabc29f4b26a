"""Filters that look at the photograph first: rendered streaks of known slant and width, and a hand-made choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from rainoerme_plugin.distillation.adaptive import AdaptiveFilter, BestFilter, Streaks, find_streaks, label_cost
from rainoerme_plugin.distillation.filters import CANDIDATES, FILTERS, MedianFilter, OpeningFilter, build_filter
from rainoerme_plugin.distillation.lines import across

Image = NDArray[np.uint8]


def background(seed: int = 0) -> Image:
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.random((120, 160, 3)), (12, 12, 0))
    return np.uint8(60 + 80 * (smooth - smooth.min()) / np.ptp(smooth))


def rained_on(image: Image, slant: float, width: int, seed: int = 1, strength: int = 70) -> Image:
    """Streaks ``width`` columns wide, 40 rows long, leaning by ``slant`` degrees, to the left if above 0."""
    random = np.random.default_rng(seed)
    rain = np.zeros(image.shape[:2], bool)
    for top, left in zip(random.integers(-20, 110, 25), random.integers(0, 160, 25), strict=True):
        for row in range(max(0, top), min(120, top + 40)):
            start = round(left - (row - top) * np.tan(np.radians(slant)))
            rain[row, max(0, start) : max(0, start + width)] = True
    return np.where(rain[..., None], np.minimum(image.astype(int) + strength, 255), image).astype(np.uint8)


@pytest.mark.parametrize("slant", [-30, -12, 0, 7, 25])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_slant_and_width_of_rendered_streaks_are_found(slant: int, width: int) -> None:
    found = find_streaks(rained_on(background(), slant, width))
    assert abs(found.slant - slant) <= 4  # streaks a pixel wide are stairs
    # The opening must be wider than a streak to take it out; streaks that touch are wider.
    assert max(3, width) <= found.width <= width + 4


def test_a_mirrored_photograph_has_mirrored_streaks() -> None:
    image = rained_on(background(), 20, 3)
    assert find_streaks(image[:, ::-1].copy()).slant == pytest.approx(-find_streaks(image).slant, abs=1)


def test_an_image_of_one_colour_has_the_least_streaks() -> None:
    assert find_streaks(np.full((40, 50, 3), 90, np.uint8)) == Streaks(0.0, 3)


@pytest.mark.parametrize(
    ("slant", "width", "rows"), [(0.0, 5, [0, 0, 0, 0, 0]), (45.0, 3, [-1, 0, 1]), (-27.0, 5, [1, 1, 0, -1, -1])]
)
def test_a_window_is_a_line_across(slant: float, width: int, rows: list[int]) -> None:
    window = across(slant, width)
    high = max(map(abs, rows))
    expected = np.zeros((2 * high + 1, width), np.uint8)
    for column, row in enumerate(rows):
        expected[row + high, column] = 1
    assert np.array_equal(window, expected)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_the_label_is_the_grey_opening_of_scipy_by_that_line(depth: Any) -> None:
    image = rained_on(background(), 20, 3).astype(depth) * (1 if depth == np.uint8 else 257)
    found = find_streaks(image)
    window = across(found.slant, found.width)
    assert window.shape[0] > 1  # it is turned
    oracle = np.stack([ndimage.grey_opening(image[..., c], footprint=window, mode="reflect") for c in range(3)], axis=2)
    label = AdaptiveFilter()(image)
    assert label.dtype == depth
    assert np.array_equal(label, oracle)


def test_the_label_is_free_of_streaks_of_any_slant() -> None:
    clean = background()
    for slant in (-30, 0, 25):
        rainy = rained_on(clean, slant, 3)
        before, after = (np.abs(image.astype(int) - clean).mean() for image in (rainy, AdaptiveFilter()(rainy)))
        assert after < before / 3


def test_bounds_and_extra_width_are_kept() -> None:
    rainy = rained_on(background(), 0, 3)
    width = find_streaks(rainy).width
    assert np.array_equal(AdaptiveFilter(shortest=11)(rainy), OpeningFilter((1, 11))(rainy))
    assert np.array_equal(AdaptiveFilter(longest=3)(rainy), OpeningFilter((1, 3))(rainy))
    assert np.array_equal(AdaptiveFilter(wider=2)(rainy), OpeningFilter((1, width + 2))(rainy))


# --- the best of several ---


def test_the_cost_is_rain_left_and_what_else_was_lost() -> None:
    clean = np.full((60, 60, 3), 100, np.uint8)
    rainy = clean.copy()
    rainy[:, 30] = 151  # a streak of 0.2, a sixtieth of the image
    assert label_cost(rainy, clean, 0.0, 1.0) == pytest.approx(0, abs=1e-6)
    assert label_cost(rainy, rainy, 0.0, 1.0) == pytest.approx(0.2 / 60, abs=1e-6)
    dark = clean - 51
    # Besides the streak it lost 0.2 everywhere; of the change only what is not lasting light counts.
    assert label_cost(clean, clean + 51, 0.0, 0.5) == pytest.approx(0.1, abs=1e-6)
    assert label_cost(clean, dark, 0.0, 0.5) == pytest.approx(0, abs=1e-6)


def test_the_cheapest_label_is_taken() -> None:
    rainy = rained_on(background(), 0, 3)
    filters = OpeningFilter((1, 1)), OpeningFilter((1, 5)), MedianFilter((15, 15))
    costs = [label_cost(rainy, each(rainy), find_streaks(rainy).slant, 1.0) for each in filters]
    assert int(np.argmin(costs)) == 1
    for order in (filters, filters[::-1]):
        assert np.array_equal(BestFilter(order)(rainy), filters[1](rainy))
    # The blur takes out all rain; where it costs nothing, it is the best.
    assert np.array_equal(BestFilter(filters, lost_weight=0.0)(rainy), filters[2](rainy))


def test_wider_rain_gets_a_wider_filter() -> None:
    best = BestFilter((OpeningFilter((1, 3)), OpeningFilter((1, 9))))
    for width, window in ((1, 3), (5, 9)):
        rainy = rained_on(background(), 0, width)
        assert np.array_equal(best(rainy), OpeningFilter((1, window))(rainy))


def test_filters_are_built_from_options() -> None:
    built = build_filter("best_of", filters=[{"type": "opening", "window": [1, 5]}, {"type": "adaptive", "share": 0.7}])
    assert built == BestFilter((OpeningFilter((1, 5)), AdaptiveFilter(share=0.7)))
    assert build_filter("best_of") == BestFilter(CANDIDATES)
    with pytest.raises(ValueError, match="no coarse filter is called 'folder'"):
        build_filter("best_of", filters=[{"type": "folder"}])


def test_keys_tell_filters_apart() -> None:
    keys = {
        BestFilter(CANDIDATES).key,
        BestFilter(CANDIDATES[:2]).key,
        BestFilter(CANDIDATES[1::-1]).key,
        BestFilter(CANDIDATES, 2.0).key,
        AdaptiveFilter().key,
        AdaptiveFilter(share=0.6).key,
    }
    assert len(keys) == 6
    assert all(len(key) < 100 for key in keys)


@pytest.mark.parametrize("name", ["adaptive", "best_of"])
def test_of_a_crop_all_of_the_image_is_needed(name: str) -> None:
    coarse = build_filter(name)
    assert FILTERS[name].whole_image
    assert min(coarse.reach) > 10**6


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("adaptive", {"shortest": 4}, "shortest and longest must be odd"),
        ("adaptive", {"shortest": 9, "longest": 7}, "shortest <= longest, got 9 and 7"),
        ("adaptive", {"share": 0.0}, "share must be above 0 and at most 1, got 0"),
        ("adaptive", {"wider": 1}, "wider must be even"),
        ("best_of", {"filters": []}, "a list of at least one filter"),
        ("best_of", {"lost_weight": -1.0}, "lost_weight must not be negative"),
    ],
)
def test_arguments_out_of_range_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_filter(name, **arguments)
