"""Which samples a run reads, in which order, on which process."""

from __future__ import annotations

import random

import numpy as np
import torch

from rainoerme_plugin.training.sampler import Numbered, StreamSampler


class Items:
    """A data set of five items, each with what it draws from the global generators."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, item: int) -> tuple[int, float, float, float]:
        return item, random.random(), float(np.random.rand()), float(torch.rand(()))


def test_processes_share_each_step_batch_by_batch() -> None:
    ranks = [list(StreamSampler(0, 12, batch=2, rank=rank, world=3)) for rank in range(3)]
    assert ranks == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert list(StreamSampler(4, 12, batch=2)) == list(range(4, 12))


def test_every_item_is_shown_once_a_pass_in_changing_order() -> None:
    samples = Numbered(Items(), seed=1)
    order = np.reshape([samples[number][0] for number in range(50)], (10, 5))
    assert (np.sort(order, axis=1) == np.arange(5)).all()
    assert len({tuple(row) for row in order}) > 1


def test_a_sample_is_a_function_of_seed_and_number_alone() -> None:
    forward = [Numbered(Items(), seed=7)[number] for number in range(12)]
    backward = Numbered(Items(), seed=7)
    assert [backward[number] for number in reversed(range(12))] == forward[::-1]
    drawn = {value for sample in forward for value in sample[1:]}
    assert len(drawn) == 36  # no two samples and no two generators draw alike
    assert Numbered(Items(), seed=8)[0][1:] != forward[0][1:]


def test_reading_a_sample_leaves_the_global_generators_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seed() -> None:
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)

    seed()
    undisturbed = draw()
    seed()
    Numbered(Items(), seed=7)[4]
    assert draw() == undisturbed
