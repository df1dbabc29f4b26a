"""How good are derained images for which there is no clean version? Means over a folder, as a line of JSON.

    python scripts/no_reference.py RAINY DERAINED

``score`` is the harmonic mean of rain_removed and structure_kept, negative values being 0: a blur has much of the one
and little of the other, a copy the reverse. NIQE (less is better) is told beside it, where an image is large enough.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from rainoerme_plugin.benchmark.measures import niqe
from rainoerme_plugin.data.labels import ready_labels
from rainoerme_plugin.data.sources import open_source
from rainoerme_plugin.metrics.rain_energy import rain_removed, structure_kept


def measure(rainy: str | Path, derained: str | Path) -> dict[str, float]:
    """The means over all images of the folder ``rainy``; those of ``derained`` have their names."""
    before = open_source(rainy)
    after = ready_labels(before, derained)
    removed, kept, niqes = [], [], []
    for index in range(len(before)):
        image, result = before.read(index), after.read(index)
        removed.append(rain_removed(result, image))
        kept.append(structure_kept(result, image))
        try:
            niqes.append(niqe(result))
        except ValueError:  # too small, or too flat
            continue
    found = {"rain_removed": statistics.mean(removed), "structure_kept": statistics.mean(kept)}
    parts = [max(0.0, value) for value in found.values()]
    score = 2 * parts[0] * parts[1] / sum(parts) if sum(parts) else 0.0
    return {"score": score, **found, **({"niqe": statistics.mean(niqes)} if niqes else {})}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rainy", type=Path)
    parser.add_argument("derained", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.rainy, arguments.derained)))
