"""Which images training shows when: a function of the seed and the sample's number, or of the iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LATE_FROM = 0.75
"""Share of a run's iterations after which crops are of their late size, unless it is given."""


def late_start(late_from: float, total: int) -> int:
    """How many of ``total`` iterations are done before crops are of their late size."""
    return round(late_from * total)


@lru_cache(maxsize=16)
def _order(seed: int, round_: int, count: int, kind: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, round_, kind]).permutation(count)


def shuffled(seed: int, position: int, count: int, kind: int) -> int:
    """Which of ``count`` images comes at ``position`` of an endless stream that shows all of them, shuffled, and again.

    ``kind`` tells streams of one seed apart.
    """
    return int(_order(seed, position // count, count, kind)[position % count])


@dataclass(frozen=True)
class Turns:
    """Which of several folders' images come when; they lie one folder behind the other in a source.

    Without weights they come as those of one folder, each as often as any other. With weights, the folder is drawn for
    each sample, and sample k shows what is at place k of the folder's own shuffled stream.

    Args:
        counts: Images of each folder; those of a folder without any never come.
        weights: How often each folder comes, of their sum; positive; None: no weights.
    """

    counts: Sequence[int]
    weights: Sequence[float] | None = None

    def at(self, seed: int, position: int, kind: int, random: np.random.Generator) -> int:
        """Which image sample ``position`` shows; ``kind`` as of `shuffled`, ``random`` to draw the folder with."""
        if self.weights is None or len(self.counts) == 1:
            return shuffled(seed, position, sum(self.counts), kind)
        weights = np.where(np.array(self.counts) > 0, self.weights, 0.0)
        folder = int(random.choice(len(weights), p=weights / weights.sum()))
        return sum(self.counts[:folder]) + shuffled(seed, position, self.counts[folder], kind)
