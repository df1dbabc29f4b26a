"""The weight schedule against the paper's table, worked by hand."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from rainoerme_plugin.distillation.schedule import PRESETS, Schedule


@pytest.mark.parametrize(
    ("preset", "iteration", "soft", "hard"),
    [
        ("rain200l", 1, 0.999000999000999, 0.001),
        ("rain200l", 1000, 0.5, 1.0),
        ("rain200l", 3000, 0.25, 3.0),
        ("rain200l", 49_000, 0.02, 49.0),
        ("rain200l", 50_000, 0.0196078431372549, 50.0),
        ("rain200l", 50_001, 0.019607458676104, 50.0),
        ("rain200l", 360_000, 0.002770083102493, 50.0),
        ("rain1400", 1, 0.999000999000999, 0.001),
        ("rain1400", 1000, 0.5, 1.0),
        ("rain1400", 9_000, 0.1, 9.0),
        ("rain1400", 10_000, 0.090909090909091, 10.0),
        ("rain1400", 19_000, 0.05, 10.0),
        ("did", 1, 0.998003992015968, 0.002),
        ("did", 500, 0.5, 1.0),
        ("did", 2000, 0.2, 4.0),
        ("did", 49_500, 0.01, 99.0),
        ("did", 50_000, 0.009900990099010, 100.0),
        ("did", 99_500, 0.005, 100.0),
    ],
)
def test_a_preset_has_the_papers_weights(preset: str, iteration: int, soft: float, hard: float) -> None:
    weights = PRESETS[preset].at(iteration)
    assert weights.soft == pytest.approx(soft, rel=1e-9)
    assert weights.hard == pytest.approx(hard, rel=1e-12)


def test_there_are_the_papers_three_presets_and_none_warms_up() -> None:
    assert set(PRESETS) == {"rain200l", "rain1400", "did"}
    assert [PRESETS[name].warmup for name in PRESETS] == [0, 0, 0]
    assert Schedule() == PRESETS["rain200l"]


@pytest.mark.parametrize("preset", ["rain200l", "rain1400"])
def test_rain_keeps_its_strength_where_the_paper_keeps_it(preset: str) -> None:
    assert {PRESETS[preset].at(iteration).gain for iteration in range(1, 20_000, 7)} == {1.0}


def test_warm_up_keeps_the_hard_loss_away_and_then_starts_the_schedule_from_its_beginning() -> None:
    schedule = Schedule(soft_decay=10, hard_ramp=4, hard_max=3, warmup=100, gain_range=(5, 5), gain_start=2)
    assert [tuple(schedule.at(t)) for t in (1, 50, 100)] == [(1.0, 0.0, 1.0)] * 3
    assert tuple(schedule.at(101)) == pytest.approx((10 / 11, 0.25, 1.0))
    assert tuple(schedule.at(102)) == pytest.approx((10 / 12, 0.5, 1.0))
    assert tuple(schedule.at(103)) == pytest.approx((10 / 13, 0.75, 1.5))
    assert tuple(schedule.at(112)) == pytest.approx((10 / 22, 3.0, 1.5))
    assert tuple(schedule.at(113)) == pytest.approx((10 / 23, 3.0, 1.5))


def test_the_gain_takes_all_sixteen_values_of_the_did_recipe_alike() -> None:
    gains = Counter(round(PRESETS["did"].at(t, seed=3).gain, 9) for t in range(5001, 13_001))
    assert sorted(gains) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0]
    # 15 degrees of freedom: a uniform draw exceeds 37.7 once in a thousand times.
    assert sum((count - 500) ** 2 / 500 for count in gains.values()) < 37.7


def test_the_gain_varies_only_after_its_start() -> None:
    did = PRESETS["did"]
    assert {did.at(t).gain for t in range(1, 5001)} == {1.0}
    always = Schedule(gain_range=(3, 3), gain_start=10)
    assert [always.at(t).gain for t in (10, 11)] == [1.0, 1.3]
    assert Schedule(gain_range=(-10, -10)).at(1).gain == 0


def test_the_gain_is_a_function_of_seed_and_iteration_alone() -> None:
    did = PRESETS["did"]
    iterations = list(range(5001, 5101))
    forward = [did.at(t, seed=1).gain for t in iterations]
    backward = [did.at(t, seed=1).gain for t in reversed(iterations)]
    assert forward == backward[::-1]
    assert forward != [did.at(t, seed=2).gain for t in iterations]
    assert forward[:-1] != forward[1:]


def test_the_gain_does_not_disturb_pythons_own_chance() -> None:
    random.seed(5)
    before = random.getstate()
    PRESETS["did"].at(6000)
    assert random.getstate() == before


@pytest.mark.parametrize("name", ["soft_decay", "hard_ramp", "hard_max"])
@pytest.mark.parametrize("value", [0, -1.5])
def test_a_number_that_is_not_above_zero_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0, got {value}"):
        Schedule(**{name: value})


@pytest.mark.parametrize("name", ["warmup", "gain_start"])
def test_a_negative_start_is_refused(name: str) -> None:
    arguments: dict[str, Any] = {name: -1}
    with pytest.raises(ValueError, match=f"{name} must not be negative, got -1"):
        Schedule(**arguments)


@pytest.mark.parametrize("gain_range", [(1, 0), (-11, 0)])
def test_a_gain_range_without_integers_or_below_nothing_is_refused(gain_range: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"gain_range .* -10 <= first <= last, got \[{gain_range[0]}, 0\]"):
        Schedule(gain_range=gain_range)


@pytest.mark.parametrize("iteration", [0, -1])
@pytest.mark.parametrize("warmup", [0, 10])
def test_an_iteration_before_the_first_is_refused(iteration: int, warmup: int) -> None:
    with pytest.raises(ValueError, match=f"iterations count from 1, got {iteration}"):
        Schedule(warmup=warmup).at(iteration)


def test_the_soft_weight_stops_falling_at_its_least() -> None:
    schedule = Schedule(soft_decay=100, soft_min=0.25)
    assert [schedule.at(step).soft for step in (100, 300, 301, 10**6)] == [0.5, 0.25, 0.25, 0.25]
    with pytest.raises(ValueError, match=r"soft_min must be from 0 to 1, got 1.5"):
        Schedule(soft_min=1.5)
