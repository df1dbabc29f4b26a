"""Which samples a run reads, in which order, on which process."""

from __future__ import annotations

import numpy as np

from rainoerme_plugin.data.unpaired import UnpairedRain
from rainoerme_plugin.engine.sampler import StreamSampler


class Fixed:
    """A data set of five items."""

    def __len__(self) -> int:
        return 5


class Numbered(UnpairedRain):
    """Only its type counts here."""

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return 5


def test_numbered_samples_come_in_order_and_beyond_the_length() -> None:
    assert list(StreamSampler(Numbered(), 4, 12, batch=2)) == list(range(4, 12))


def test_processes_share_each_step_batch_by_batch() -> None:
    ranks = [list(StreamSampler(Numbered(), 0, 12, batch=2, rank=rank, world=3)) for rank in range(3)]
    assert ranks == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


def test_other_data_sets_show_every_item_once_a_pass_in_changing_order() -> None:
    order = np.reshape(list(StreamSampler(Fixed(), 0, 50, batch=5, seed=1)), (10, 5))
    assert (np.sort(order, axis=1) == np.arange(5)).all()
    assert len({tuple(row) for row in order}) > 1


def test_starting_in_the_middle_goes_on_with_the_same_order() -> None:
    whole = list(StreamSampler(Fixed(), 0, 20, batch=2, seed=7))
    assert list(StreamSampler(Fixed(), 12, 20, batch=2, seed=7)) == whole[12:]
