"""Compare derainers: from methods and data sets to tables and a report.

Everything goes to results/NAME: results.json, results.csv, results.md and report.html. A run that was stopped goes on
where it was; to measure anew, delete that folder.
"""

from __future__ import annotations

import argparse

from .train import add_run_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..benchmark.run import Request, benchmark
    from ..benchmark.tables import to_text

    found = benchmark(
        Request(
            option_file=arguments.opt,
            overrides=arguments.settings,
            device=arguments.device,
            launcher=arguments.launcher,
            root=arguments.root,
        )
    )
    if found is None:
        return 0
    results, folder = found
    print(to_text(results))
    for name in ("results.json", "results.csv", "results.md", "report.html"):
        if (folder / name).exists():
            print(folder / name)
    return 0
