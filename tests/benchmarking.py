"""Tiny benchmarks, run whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import benchmark_options

from rainoerme_plugin.archs.runner import Runner
from rainoerme_plugin.benchmark.run import benchmark
from rainoerme_plugin.config import Request


def run(root: Path, **changes: Any) -> dict[str, Any]:
    """Run a tiny benchmark; what its results.json holds."""
    found = benchmark(Request(benchmark_options(root, **changes), device="cpu", root=root))
    assert found is not None
    results = json.loads((found[1] / "results.json").read_text())
    assert results == json.loads(json.dumps(found[0]))
    return results


def untimed(results: dict[str, Any]) -> dict[str, Any]:
    """The results without what differs from run to run."""
    stripped = json.loads(json.dumps(results))
    del stripped["created"]
    for method in stripped["methods"]:
        for cost in method["costs"]:
            del cost["timing"]
    return stripped


def row_of(results: dict[str, Any], method: str, dataset: str = "pairs") -> dict[str, Any]:
    """The one row of a method on a data set."""
    (row,) = [row for row in results["rows"] if (row["method"], row["dataset"]) == (method, dataset)]
    return row


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every call of a network."""
    calls: list[int] = []
    original = Runner.__call__

    def count(*given: Any) -> Any:
        calls.append(1)
        return original(*given)

    monkeypatch.setattr(Runner, "__call__", count)
    return calls
