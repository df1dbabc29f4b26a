"""Which images training shows when: a function of the seed and the sample's number, or of the iteration."""

from __future__ import annotations

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
