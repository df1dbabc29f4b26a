"""The learning rate that is constant, then falls to nothing, linearly or by a cosine."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
import torch

from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.registered.lr_scheduler import CosineLR, LinearDecayLR, build_schedule, read_schedule


def optimizer(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates(scheduler: Any, steps: int) -> list[float]:
    """The first group's rate before each of so many steps."""
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_the_rate_is_constant_up_to_start_and_nothing_at_end() -> None:
    # After k steps of the scheduler: 0.4 up to k = 3, then 0.1 less each, 0 at k = 7 and for good.
    expected = [0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0]
    assert rates(LinearDecayLR(optimizer(0.4), start=3, end=7), 10) == pytest.approx(expected, abs=1e-12)


def test_a_decay_may_start_at_once() -> None:
    assert rates(LinearDecayLR(optimizer(1.0), start=0, end=4), 5) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_a_cosine_from_the_start_is_pytorchs_annealing() -> None:
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(0.4), T_max=50)
    assert rates(CosineLR(optimizer(0.4), start=0, end=50), 50) == pytest.approx(rates(annealing, 50), abs=1e-12)


def test_a_cosine_may_start_late_and_is_nothing_at_its_end() -> None:
    # Worked by hand: (1 + cos(k pi / 6)) / 2 of the rate k iterations after the start.
    expected = [0.4] * 4 + [0.2 + 0.1 * 3**0.5, 0.3, 0.2, 0.1, 0.2 - 0.1 * 3**0.5, 0.0, 0.0, 0.0]
    assert rates(CosineLR(optimizer(0.4), start=3, end=9), 12) == pytest.approx(expected, abs=1e-12)


def test_every_group_falls_from_its_own_rate() -> None:
    both = optimizer(0.4, 8.0)
    scheduler = LinearDecayLR(both, start=2, end=4)
    for _ in range(3):
        both.step()
        scheduler.step()
    assert [group["lr"] for group in both.param_groups] == pytest.approx([0.2, 4.0])


@pytest.mark.parametrize("kind", [LinearDecayLR, CosineLR])
@pytest.mark.parametrize("stop", [2, 5, 8])
def test_a_saved_state_goes_on_where_it_stopped(stop: int, kind: Any) -> None:
    whole = rates(kind(optimizer(0.4), start=3, end=7), 10)
    first = kind(optimizer(0.4), start=3, end=7)
    rates(first, stop)
    buffer = io.BytesIO()
    torch.save([first.optimizer.state_dict(), first.state_dict()], buffer)
    buffer.seek(0)
    optimizer_state, state = torch.load(buffer, weights_only=True)  # plain types only
    again = kind(optimizer(0.4), start=3, end=7)
    again.optimizer.load_state_dict(optimizer_state)
    again.load_state_dict(state)
    assert rates(again, 10 - stop) == pytest.approx(whole[stop:], abs=1e-12)


def test_the_schedule_can_be_pickled() -> None:
    schedule = pickle.loads(pickle.dumps(LinearDecayLR(optimizer(0.4), start=3, end=7).lr_lambdas[0]))
    assert [schedule(iteration) for iteration in (0, 3, 5, 7, 9)] == [1.0, 1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5), (0, 0)])
def test_an_end_that_is_not_after_the_start_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"0 <= start < end, got start {start} and end {end}"):
        LinearDecayLR(optimizer(0.1), start=start, end=end)


# --- as option files describe it ---


@pytest.mark.parametrize(
    ("given", "total", "span"),
    [
        ({}, 1000, (500, 1000)),
        ({}, 40_000, (20_000, 40_000)),
        ({}, 7, (3, 7)),
        ({}, 1, (0, 1)),
        ({"start": 100}, 1000, (100, 1000)),
        ({"end": 600}, 1000, (300, 600)),
        ({"start": 5, "end": 6}, 1000, (5, 6)),
    ],
)
def test_start_and_end_follow_from_the_iterations_unless_they_are_given(
    given: dict[str, int], total: int, span: tuple[int, int]
) -> None:
    schedule = build_schedule(optimizer(0.4), {"type": "LinearDecayLR", **given}, total)
    assert vars(schedule.lr_lambdas[0]) == {"start": span[0], "end": span[1]}


def test_a_run_of_any_length_ends_at_next_to_nothing() -> None:
    for total in (20, 40):
        found = rates(build_schedule(optimizer(1.0), {"type": "LinearDecayLR"}, total), total)
        half = total // 2
        assert found == pytest.approx([1.0] * half + [(total - k) / half for k in range(half, total)])


@pytest.mark.parametrize(
    ("given", "total", "span"),
    [
        ({}, 1000, (0, 1000)),
        ({}, 7, (0, 7)),
        ({"start": 100}, 1000, (100, 1000)),
        ({"end": 600}, 1000, (0, 600)),
    ],
)
def test_a_cosine_follows_the_iterations_too(given: dict[str, int], total: int, span: tuple[int, int]) -> None:
    options = {"type": "CosineLR", **given}
    found = rates(build_schedule(optimizer(0.4), options, total), total)
    assert found == rates(CosineLR(optimizer(0.4), *span), total)
    assert (found[-1] < 0.4 * 2.5 * (1 / total) ** 2) == ("start" not in given)  # pi^2 / 4 of the square, at most


STEPS = {"type": "MultiStepLR", "milestones": [4, 9], "gamma": 0.5}


@pytest.mark.parametrize(
    ("options", "total", "told"),
    [
        ({"type": "LinearDecayLR"}, 1000, ""),
        ({"type": "LinearDecayLR", "start": 10, "end": 20}, 20, ""),
        ({"type": "LinearDecayLR", "start": 10_000, "end": 20_000}, 40_000, "the rate is 0 for the last 20,000 iter"),
        ({"type": "LinearDecayLR", "start": 10_000, "end": 20_000}, 1000, "the rate never falls: it would from iterat"),
        ({"type": "LinearDecayLR", "start": 3, "end": 12}, 9, "the rate only falls to 44%: end is 12"),
        ({"type": "CosineLR"}, 1000, ""),
        ({"type": "CosineLR", "start": 999}, 1000, "the rate never falls: it would from iteration 999 on"),
        ({"type": "CosineLR", "end": 20}, 30, "the rate is 0 for the last 10 iterations: end is 20"),
        ({"type": "CosineLR", "end": 24}, 9, "the rate only falls to 75%: end is 24"),
        (STEPS, 10, ""),
        ({**STEPS, "milestones": [10]}, 10, ""),  # a way to say never
        ({**STEPS, "milestones": [4, 11]}, 10, "milestones [11] come after the end"),
        (STEPS, 3, "milestones [4, 9] come after the end: the rate never falls"),
        ({**STEPS, "restarts": [0, 8], "restart_weights": [1, 0.5]}, 9, ""),
        ({**STEPS, "milestones": [4], "restarts": [0, 8], "restart_weights": [1, 0.5]}, 7, "restarts [8] come after"),
        ({"type": "CosineAnnealingRestartLR", "periods": [5, 5], "restart_weights": [1, 1]}, 10, ""),
        (
            {"type": "CosineAnnealingRestartLR", "periods": [30]},
            10,
            "periods add up to 30: the end is in the mid",
        ),
    ],
)
def test_what_does_not_fit_the_run_is_told_in_one_sentence(options: dict[str, Any], total: int, told: str) -> None:
    found = read_schedule(options).misfits(total)
    assert len(found) == bool(told)
    assert "".join(found).startswith(told)
    # What is told is so.
    used = rates(build_schedule(optimizer(1.0), options, total), min(total, 100))
    if "never falls" in told:
        assert set(used) == {1.0}
    if "75%" in told:
        assert used[-1] == pytest.approx(0.75)  # a third of the way: (1 + cos 60 degrees) / 2
    if "44%" in told:
        assert used[-1] == pytest.approx(0.444, abs=1e-3)


def test_the_iterations_at_no_rate_are_counted_right() -> None:
    options = {"type": "LinearDecayLR", "start": 2, "end": 5}
    assert rates(build_schedule(optimizer(1.0), options, 9), 9).count(0.0) == 4
    assert read_schedule(options).misfits(9) == ["the rate is 0 for the last 4 iterations: end is 5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "LinearDecayLR", "strat": 3}, r"s\.strat: unknown key; did you mean 'start'"),
        ({"type": "LinearDecayLR", "start": "x"}, r"s\.start: should be an integer, got 'x'"),
        ({"type": "LinearDecayLR", "start": 5, "end": 5}, r"s: LinearDecayLR needs 0 <= start < end"),
        ({"type": "CosineLR", "start": 5, "end": 5}, r"s: CosineLR needs 0 <= start < end"),
        ({"type": "LinearDecay"}, r"s\.type: no scheduler 'LinearDecay'; did you mean 'LinearDecayLR'"),
        ({}, r"s\.type: no scheduler None"),
        (3, "s: expected keys and values, got 3"),
        ({**STEPS, "milestones": 3}, r"s\.milestones: should be a list, got 3"),
        ({**STEPS, "milestones": ["x"]}, r"s\.milestones\.0: should be an integer, got 'x'"),
        ({**STEPS, "gamma": "x"}, r"s\.gamma: should be a number, got 'x'"),
        ({**STEPS, "gama": 0.5}, r"s\.gama: unknown key; did you mean 'gamma'"),
        ({**STEPS, "restarts": [0, 3]}, "s: expected a weight for each restart, got 2 restarts and 1 restart_weights"),
        ({"type": "MultiStepLR"}, r"s\.milestones: is missing"),
        ({"type": "CosineAnnealingRestartLR", "periods": "x"}, r"s\.periods: should be a list, got 'x'"),
        ({"type": "CosineAnnealingRestartLR", "periods": []}, r"s\.periods: should have at least 1 value, got \[\]"),
        (
            {"type": "CosineAnnealingRestartLR", "periods": [10], "restart_weights": []},
            "s: expected a weight for each period, got 1 period and 0 restart_weights",
        ),
        ({"type": "CosineAnnealingRestartLR", "periods": [10], "eta_min": []}, r"s\.eta_min: should be a number"),
        (
            {"type": "CosineAnnealingRestartLR", "periods": [10]},
            "s: periods add up to 10, after which",
        ),
    ],
    ids=str,
)
def test_what_is_no_schedule_is_refused_by_its_key(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        build_schedule(optimizer(0.1), options, 100, "s")
