"""Filters that look at the photograph first: rendered streaks of known slant and width, and a hand-made choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from rainoerme_plugin.data.sources import open_source
from rainoerme_plugin.distillation.adaptive import (
    AdaptiveFilter,
    BestFilter,
    Streaks,
    exclusion,
    find_streaks,
    label_cost,
    separation_cost,
)
from rainoerme_plugin.distillation.filters import (
    CANDIDATES,
    FILTERS,
    MedianFilter,
    OpeningFilter,
    StreaksFilter,
    build_filter,
)
from rainoerme_plugin.distillation.lines import across
from rainoerme_plugin.inference.derainer import load_derainer
from rainoerme_plugin.inference.labels import NetworkLabels
from rainoerme_plugin.metrics.protocols import psnr

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


# --- edges that what was taken and what was left have in common ---


def test_exclusion_is_the_mean_of_three_correlations() -> None:
    rainy, label = rained_on(background(), 20, 3), rained_on(background(3), 0, 3)
    left = label.mean(axis=2, dtype=np.float64) / 255
    taken = rainy.mean(axis=2, dtype=np.float64) / 255 - left
    wanted = []
    for _ in range(3):
        steep = [
            np.hypot(ndimage.sobel(plane, axis=1, mode="reflect"), ndimage.sobel(plane, axis=0, mode="reflect"))
            for plane in (taken, left)
        ]
        wanted.append(abs(np.corrcoef(steep[0].ravel(), steep[1].ravel())[0, 1]))
        taken, left = (plane.reshape(plane.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) for plane in (taken, left))
    assert exclusion(rainy, label) == pytest.approx(np.mean(wanted), abs=1e-4)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_what_takes_nothing_or_leaves_nothing_is_the_worst(depth: Any) -> None:
    rainy = rained_on(background(), 0, 3).astype(depth)
    assert exclusion(rainy, rainy) == 1
    assert exclusion(rainy, np.full_like(rainy, 90)) == 1
    assert exclusion(rainy[:1, :1], rainy[:1, :1]) == 1


@pytest.mark.parametrize("slant", [-30, 0, 40])
def test_the_true_background_beats_rain_that_is_left_and_texture_that_is_lost(slant: float) -> None:
    random = np.random.default_rng(5)
    clean = np.clip(background().astype(int) + random.integers(-12, 13, (120, 160, 1)), 0, 255).astype(np.uint8)
    rainy = rained_on(clean, slant, 5)
    half = np.uint8((rainy.astype(int) + clean) // 2)
    mostly = np.where(ndimage.uniform_filter(random.random((120, 160)), 15)[..., None] > 0.5, clean, rainy)
    for worse in (rainy, half, mostly, MedianFilter((9, 9))(rainy)):
        assert separation_cost(rainy, clean) < separation_cost(rainy, worse)
    assert exclusion(rainy, clean) < exclusion(rainy, OpeningFilter((1, 9))(rainy))


def test_light_that_is_left_costs_a_quarter_of_its_share() -> None:
    rainy, label = rained_on(background(), 0, 3), rained_on(background(), 0, 3, strength=35)
    narrow = [
        grey - ndimage.grey_opening(grey, size=(1, 15), mode="reflect")
        for grey in (image.mean(axis=2, dtype=np.float64) for image in (rainy, label))
    ]
    share = narrow[1].mean() / narrow[0].mean()
    assert 0.3 < share < 0.9
    assert separation_cost(rainy, label) == pytest.approx(exclusion(rainy, label) + share / 4, abs=1e-4)
    flat = np.full((20, 20, 3), 90, np.uint8)
    assert separation_cost(flat, flat) == 1


def test_the_best_is_taken_by_the_measure_that_is_named() -> None:
    rainy, filters = rained_on(background(), 0, 3), (OpeningFilter((1, 5)), MedianFilter((15, 15)))
    for order in (filters, filters[::-1]):
        found = BestFilter(order, measure="separation")(rainy)
        wanted = min((each(rainy) for each in order), key=lambda label: separation_cost(rainy, label))
        assert np.array_equal(found, wanted)


def test_on_true_pairs_the_better_of_a_filters_and_a_networks_label_is_found(
    rainoerme_data: Path, rainoerme_weights: Path
) -> None:
    labels = StreaksFilter((1, 7)), NetworkLabels(load_derainer(rainoerme_weights / "RainOerMe_Rain1400.pth"), "x")
    rainy, clean = (open_source(rainoerme_data / "Rain100L" / "val" / name) for name in ("rain", "norain"))
    quality: dict[str, list[float]] = {"each": [], "best": [], "chosen": []}
    for index in range(0, 20, 4):
        image, truth = rainy.read(index), clean.read(index)
        found = [each(image) for each in labels]
        figures = [psnr(label, truth) for label in found]
        quality["each"].append(figures[0])
        quality["best"].append(max(figures))
        quality["chosen"].append(figures[int(np.argmin([separation_cost(image, label) for label in found]))])
    means = {name: float(np.mean(values)) for name, values in quality.items()}
    assert means["best"] - means["chosen"] < 0.3
    assert means["chosen"] > means["each"] + 0.3


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
        BestFilter(CANDIDATES, measure="separation").key,
        AdaptiveFilter().key,
        AdaptiveFilter(share=0.6).key,
    }
    assert len(keys) == 7
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
        ("best_of", {"measure": "niqe"}, "measure must be cost or separation, got 'niqe'"),
    ],
)
def test_arguments_out_of_range_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_filter(name, **arguments)
