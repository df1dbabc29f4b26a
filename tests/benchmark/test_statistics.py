"""Means, bootstrap intervals and paired differences against SciPy, formulas and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rainoerme_plugin.benchmark.statistics import FEWEST, bootstrap_interval, summarise, value_of

BETTER = {"psnr": "higher", "niqe": "lower"}


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_intervals_of_independent_images_agree_with_scipys() -> None:
    values = np.random.default_rng(0).normal(30, 3, 60)
    found = bootstrap_interval(values[:, None], range(60), 10_000, seed=1)[:, 0]
    expected = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=2).confidence_interval
    # Two runs of 10,000 draws; the interval is 1.5 wide.
    assert found == pytest.approx([expected.low, expected.high], abs=0.03)


def test_images_of_one_scene_are_drawn_together() -> None:
    # Each of 20 scenes ten times: as wide as of 20 images, and not as of 200.
    scenes = np.random.default_rng(0).normal(30, 3, 20)
    once = bootstrap_interval(scenes[:, None], range(20), 5000, seed=0)[:, 0]
    tenfold = bootstrap_interval(np.repeat(scenes, 10)[:, None], np.repeat(np.arange(20), 10), 5000, seed=0)[:, 0]
    assert tenfold == pytest.approx(once, abs=1e-9)
    alone = bootstrap_interval(np.repeat(scenes, 10)[:, None], range(200), 5000, seed=0)[:, 0]
    assert np.ptp(alone) == pytest.approx(np.ptp(once) / np.sqrt(10), rel=0.1)


def test_a_scene_counts_by_its_number_of_images() -> None:
    # Scenes of 1 and 3 images: draws (a, a), (a, b), (b, b) have means 0, 9/4 * ... = 3, 3 images of 4 -> 9, 12.
    found = bootstrap_interval(column(0, 12, 12, 12)[:, None], [0, 1, 1, 1], 4000, seed=0)[:, 0]
    assert found == pytest.approx([0, 12])
    means = [bootstrap_interval(column(0, 12, 12, 12)[:, None], [0, 1, 1, 1], 1, seed=seed)[0, 0] for seed in range(40)]
    assert {round(mean, 9) for mean in means} == {0, 9, 12}


def test_all_columns_see_the_same_draws() -> None:
    values = np.random.default_rng(0).normal(size=(30, 1))
    found = bootstrap_interval(np.hstack([values, values + 1, -values]), range(30), 700, seed=3)
    assert found[:, 1] == pytest.approx(found[:, 0] + 1)
    assert found[::-1, 2] == pytest.approx(-found[:, 0])


def test_missing_values_are_left_out_and_the_seed_decides() -> None:
    values = column(1, 2, np.nan, 4, 5)
    known = column(1, 2, 4, 5)
    found = bootstrap_interval(values[:, None], range(5), 20_000, seed=0)[:, 0]
    expected = bootstrap_interval(known[:, None], range(4), 20_000, seed=0)[:, 0]
    assert found == pytest.approx(expected, abs=0.35)
    assert np.array_equal(found, bootstrap_interval(values[:, None], range(5), 20_000, seed=0)[:, 0])
    assert not np.array_equal(found, bootstrap_interval(values[:, None], range(5), 500, seed=1)[:, 0])


@pytest.mark.parametrize(
    ("values", "scenes"),
    [([1.0], [0]), ([1.0, 2.0], [0, 0]), ([1.0, np.nan], [0, 1]), ([1.0, 2.0, np.inf], [0, 1, 2]), ([], [])],
)
def test_fewer_than_two_scenes_or_an_infinite_value_have_no_interval(values: list[float], scenes: list[int]) -> None:
    found = bootstrap_interval(np.array(values, np.float64)[:, None], scenes, 200, seed=0)
    assert found.shape == (2, 1)
    assert np.isnan(found).all()


def test_the_draws_pass_the_size_of_a_block() -> None:
    values = np.random.default_rng(0).normal(size=(10, 1))
    for draws in (1, 511, 512, 513, 1500):
        assert np.isfinite(bootstrap_interval(values, range(10), draws, seed=0)).all()


def test_a_figure_is_mean_and_sample_deviation() -> None:
    (figure,) = summarise({("a", "psnr"): column(30, 32, 37)}, BETTER, "a", [0, 1, 2], 300, 0).values()
    assert figure["mean"] == pytest.approx(33)
    assert figure["std"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert figure["images"] == 3
    assert figure["difference"] is None
    assert figure["low"] is figure["high"] is None


def test_differences_are_image_by_image_over_what_both_have() -> None:
    values = {("base", "psnr"): column(30, 31, np.nan, 33), ("other", "psnr"): column(31, 33, 35, np.nan)}
    found = summarise(values, BETTER, "base", range(4), 300, 0)
    difference = found["other", "psnr"]["difference"]
    assert difference is not None
    assert difference["mean"] == pytest.approx(1.5)
    assert difference["images"] == 2
    assert difference["wins"] == 1
    assert found["other", "psnr"]["images"] == 3
    assert found["other", "psnr"]["mean"] == pytest.approx(33)
    assert found["base", "psnr"]["difference"] is None


def test_a_difference_is_surer_than_its_parts() -> None:
    random = np.random.default_rng(0)
    base = random.normal(30, 5, 50)
    other = base + random.normal(0.3, 0.1, 50)
    figure = summarise({("b", "psnr"): base, ("o", "psnr"): other}, BETTER, "b", range(50), 2000, 0)["o", "psnr"]
    difference = figure["difference"]
    assert difference is not None
    assert difference["low"] is not None
    assert difference["low"] > 0.2
    assert figure["low"] is not None
    assert figure["low"] < np.mean(base)


@pytest.mark.parametrize(("scenes", "covered"), [(FEWEST, 0.929), (10, 0.904), (5, 0.846)])
def test_how_often_an_interval_holds_the_true_mean(scenes: int, covered: float) -> None:
    # Student's t of as many normal values as scenes, against the narrower percentile interval.
    width = stats.norm.ppf(0.975) * np.sqrt((scenes - 1) / scenes)
    assert 2 * stats.t.cdf(width, scenes - 1) - 1 == pytest.approx(covered, abs=5e-4)
    values = np.random.default_rng(0).normal(30, 3, (scenes, 4000))
    low, high = bootstrap_interval(values, range(scenes), 1500, seed=0)
    # Four standard errors of a share of 4,000.
    assert np.mean((low <= 30) & (high >= 30)) == pytest.approx(covered, abs=0.023)


@pytest.mark.parametrize(("count", "given"), [(2, False), (FEWEST - 1, False), (FEWEST, True)])
def test_few_scenes_have_no_interval(count: int, given: bool) -> None:
    # However many images there are of each, and though the baseline has more.
    random = np.random.default_rng(0)
    base, other = random.normal(30, 3, 100), random.normal(31, 3, 100)
    other[np.arange(100) % 25 >= count] = np.nan
    scenes = np.arange(100) % 25
    found = summarise({("b", "psnr"): base, ("o", "psnr"): other}, BETTER, "b", scenes.tolist(), 300, 0)
    figure, difference = found["o", "psnr"], found["o", "psnr"]["difference"]
    assert difference is not None
    assert [figure["low"] is not None, figure["high"] is not None] == [given] * 2
    assert [difference["low"] is not None, difference["high"] is not None] == [given] * 2
    assert found["b", "psnr"]["low"] is not None
    assert figure["mean"] == pytest.approx(np.nanmean(other))
    assert difference["mean"] == pytest.approx(np.nanmean(other - base))


def test_wins_follow_what_is_better_and_draws_are_none() -> None:
    values = {("base", "niqe"): column(4, 4, 4, 4), ("other", "niqe"): column(3, 5, 4, 2)}
    difference = summarise(values, BETTER, "base", range(4), 200, 0)["other", "niqe"]["difference"]
    assert difference is not None
    assert difference["wins"] == 0.5


def test_equal_images_have_infinite_figures_that_json_can_hold() -> None:
    values = {("base", "psnr"): column(30, np.inf), ("other", "psnr"): column(31, np.inf)}
    found = summarise(values, BETTER, "base", range(2), 200, 0)
    assert found["base", "psnr"] == {
        "mean": "inf",
        "std": None,
        "low": None,
        "high": None,
        "images": 2,
        "difference": None,
    }
    difference = found["other", "psnr"]["difference"]
    assert difference is not None
    assert difference["mean"] == pytest.approx(0.5)  # infinite and infinite are equal
    assert difference["wins"] == 0.5


def test_methods_without_a_figure_and_a_missing_baseline() -> None:
    values = {("a", "psnr"): column(np.nan, np.nan), ("b", "psnr"): column(1, 2)}
    found = summarise(values, BETTER, "a", range(2), 200, 0)
    assert set(found) == {("b", "psnr")}
    assert found["b", "psnr"]["difference"] is None
    assert summarise({("b", "psnr"): column(1, 2)}, BETTER, "c", range(2), 200, 0)["b", "psnr"]["difference"] is None
    assert summarise({}, BETTER, "a", [], 200, 0) == {}


@pytest.mark.parametrize(("number", "value"), [(1.5, 1.5), (np.inf, "inf"), (np.nan, None), (-np.inf, None)])
def test_values_as_json_holds_them(number: float, value: object) -> None:
    assert value_of(number) == value
