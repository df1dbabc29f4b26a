"""Score a network on the test sets of an option file.

Prints a table; the pictures and the log go to results/NAME.
"""

from __future__ import annotations

import argparse

from .arguments import add_run_arguments, request_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..engine.testing import test

    scores, opt = test(request_of(arguments))
    if opt["rank"] != 0:
        return 0
    metrics = list(opt["val"].get("metrics") or {})
    rows = [["data set", "images", "", *metrics]]
    for score in scores:
        for name, figures in (("rainy", score.rainy), ("derained", score.derained)):
            if figures or name == "derained":
                cells = [f"{figures[metric]:.4f}" if metric in figures else "-" for metric in metrics]
                rows.append([score.dataset, str(score.images), name, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"Pictures and log: {opt['path']['log']}")
    return 0
