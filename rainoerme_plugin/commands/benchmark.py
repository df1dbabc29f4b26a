"""Compare derainers: from methods and data sets to tables and a report.

Everything goes to results/NAME: results.json, results.csv, results.md and report.html. A run that was stopped goes on
where it was; to measure anew, delete that folder.
"""

from __future__ import annotations

import argparse

from .arguments import add_run_arguments, request_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..benchmark.run import benchmark
    from ..benchmark.tables import to_text

    found = benchmark(request_of(arguments))
    if found is None:
        return 0
    results, folder = found
    print(to_text(results))
    for name in ("results.json", "results.csv", "results.md", "report.html"):
        if (folder / name).exists():
            print(folder / name)
    return 0
