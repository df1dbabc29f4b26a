"""The learning rate that is constant, then falls linearly to nothing."""

from __future__ import annotations

import io
import pickle

import pytest
import torch

from rainoerme_plugin.registered.lr_scheduler import LinearDecayLR


def optimizer(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates(scheduler: LinearDecayLR, steps: int) -> list[float]:
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


def test_every_group_falls_from_its_own_rate() -> None:
    both = optimizer(0.4, 8.0)
    scheduler = LinearDecayLR(both, start=2, end=4)
    for _ in range(3):
        both.step()
        scheduler.step()
    assert [group["lr"] for group in both.param_groups] == pytest.approx([0.2, 4.0])


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_a_saved_state_goes_on_where_it_stopped(stop: int) -> None:
    whole = rates(LinearDecayLR(optimizer(0.4), start=3, end=7), 10)
    first = LinearDecayLR(optimizer(0.4), start=3, end=7)
    rates(first, stop)
    buffer = io.BytesIO()
    torch.save([first.optimizer.state_dict(), first.state_dict()], buffer)
    buffer.seek(0)
    optimizer_state, state = torch.load(buffer, weights_only=True)  # plain types only
    again = LinearDecayLR(optimizer(0.4), start=3, end=7)
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
