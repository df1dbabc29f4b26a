"""The pictures of the report: which images it shows, and what the methods made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import DataError
from ..progress import track
from .methods import Method
from .options import ReportOptions
from .report import Shown
from .results import Results, Row
from .scoring import Scoring
from .testsets import TestSet
from .waiting import spread_images


def shown_images(
    results: Results,
    methods: Sequence[Method],
    test_sets: Sequence[TestSet],
    scoring: Scoring,
    options: ReportOptions,
) -> Iterator[Shown]:
    """The pictures of the report: images spread evenly over each data set, and every method's worst and best."""
    for test_set in test_sets:
        rows = [row for row in results["rows"] if row["dataset"] == test_set.name]
        chosen = pick_images(rows, len(test_set), results, options)
        shown = [method for method in methods if any(row["method"] == method.name for row in rows)]
        for index in track(chosen, len(chosen), f"pictures of {test_set.name}"):
            try:
                rainy, clean = test_set.read(index)
            except DataError:
                continue
            pictures = {
                method.name: picture
                for method in shown
                if method.options.type != "input" and (picture := scoring.picture(method, test_set, index)) is not None
            }
            yield Shown(test_set.name, test_set.names[index], rainy, clean, pictures)


def pick_images(rows: Sequence[Row], count: int, results: Results, options: ReportOptions) -> list[int]:
    """The numbers of the images that the report shows of a data set, in order.

    The extremes are by the first measure that the data set has.
    """
    spread = spread_images(count, options.images)
    measure = next(
        (measure for measure in results["measures"] if any(measure["name"] in row["figures"] for row in rows)), None
    )
    if measure is not None and options.extremes:
        for row in rows:
            if next(method["type"] for method in results["methods"] if method["name"] == row["method"]) == "input":
                continue
            values = [
                (np.inf if value == "inf" else float(value), index)
                for index, value in enumerate(row["values"][measure["name"]])
                if value is not None
            ]
            ordered = [index for _, index in sorted(values)]
            spread |= {*ordered[: options.extremes], *ordered[-options.extremes :]}
    return sorted(spread)
