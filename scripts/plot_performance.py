"""Draw docs/images/performance_*.png from what the benchmark scripts printed.

python scripts/plot_performance.py RESULTS.jsonl ...
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

IMAGES = Path(__file__).parent.parent / "docs" / "images"
COLOURS = {"plain": "#8c8c8c", "scipy": "#8c8c8c", "ours": "#1f77b4"}
Record = dict[str, Any]
Points = dict[str, list[tuple[float, float]]]
"""Of each line."""
Panel = tuple[Points, str, str, str]
"""Lines, title, and what the axes are."""


def series(records: Iterable[Record], name: str, x: str, y: str, by: str, **wanted: Any) -> Points:
    """The points (x, y) of the records of a benchmark, for each value of ``by``."""
    points: Points = defaultdict(list)
    for record in records:
        fits = all(record.get(key) == value for key, value in wanted.items())
        if record["benchmark"] == name and fits and record.get(y) is not None:
            points[str(record[by])].append((record[x], record[y]))
    return {key: sorted(found) for key, found in points.items()}


def draw(axes: Axes, points: Points, title: str, x: str, y: str) -> None:
    for name, found in points.items():
        axes.plot(*zip(*found, strict=True), "o-", label=name, color=COLOURS.get(name), markersize=4)
    axes.set_xscale("log")
    values = [value for found in points.values() for _, value in found]
    if max(values) > 3 * min(values):
        axes.set_yscale("log")
    else:  # what hardly grows should look so
        axes.set_ylim(0, 1.2 * max(values))
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3, which="both")
    if len(points) > 1:
        axes.legend()


def save(name: str, panels: Sequence[Panel]) -> None:
    drawn = [panel for panel in panels if panel[0]]
    if not drawn:
        return
    figure, places = pyplot.subplots(1, len(drawn), figsize=(5 * len(drawn), 3.8), squeeze=False)
    for axes, panel in zip(places[0], drawn, strict=True):
        draw(axes, *panel)
    figure.tight_layout()
    figure.savefig(IMAGES / f"performance_{name}.png", dpi=90)
    print(IMAGES / f"performance_{name}.png")


def scaled(points: Points, factor: float) -> Points:
    return {name: [(x, y * factor) for x, y in found] for name, found in points.items()}


def megapixels(records: Iterable[Record]) -> list[Record]:
    return [
        {**record, "megapixels": record["height"] * record["width"] / 1e6} for record in records if "height" in record
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    lines = [line for file in parser.parse_args().files for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in lines if line.strip()]
    save("training", training(records))
    save("data", data(records))
    save("filters", filters(megapixels(records)))
    save("inference", inference(megapixels(records)))


def training(records: list[Record]) -> list[Panel]:
    name = "training growth"
    memory = series(records, name, "batch", "peak_memory", "way", crop=128)
    return [
        (series(records, name, "batch", "median", "way", crop=128), "Step, crops of 128x128", "batch", "seconds"),
        (series(records, name, "crop", "median", "way", batch=8), "Step, batch 8", "side of the crops", "seconds"),
        (scaled(memory, 1e-6), "Memory, crops of 128x128", "batch", "MB"),
    ]


def data(records: list[Record]) -> list[Panel]:
    found = [
        {"images": record["images"], "what": what, "GB": record["memory"][key] / 1e9, "opened": record["open_seconds"]}
        for record in records
        if record["benchmark"] == "data_memory"
        for what, key in (("own", "own"), ("with the LMDB's pages", "total"))
    ]
    for record in found:
        record["benchmark"] = "memory"
    opened = series(found, "memory", "images", "opened", "what")
    return [
        (series(found, "memory", "images", "GB", "what"), "Training process and two workers", "images", "GB"),
        ({"ours": opened.get("own", [])}, "Opening two LMDBs", "images", "seconds"),
    ]


def filters(records: list[Record]) -> list[Panel]:
    found = [
        {**record, "median": record[way]["median"], "what": f"{way} {record['filter'].split('-')[1]}"}
        for record in records
        if record["benchmark"] in ("image size", "window size")
        for way in ("scipy", "ours")
        if way in record
    ]
    sides = [
        {**record, "side": int(record["filter"].split("-")[1].split("x")[1]), "way": record["what"].split()[0]}
        for record in found
        if record["benchmark"] == "window size" and "-1x" not in record["filter"]
    ]
    return [
        (
            series(found, "image size", "megapixels", "median", "what"),
            "Rank filter, one thread",
            "megapixels",
            "seconds",
        ),
        (series(sides, "window size", "side", "median", "way"), "Square windows", "side of the window", "seconds"),
    ]


def inference(records: list[Record]) -> list[Panel]:
    name = "image_sizes"
    memory = series(records, name, "megapixels", "peak_memory", "way")
    return [
        (series(records, name, "megapixels", "median", "way"), "Deraining an image", "megapixels", "seconds"),
        (scaled(memory, 1e-6), "Memory", "megapixels", "MB"),
    ]


if __name__ == "__main__":
    main()
