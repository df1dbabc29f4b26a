"""Training on 1 to 64 GPUs on paper: the time of a step, efficiency, hours, and what the input must bring.

    python scripts/scaling_model.py --step SECONDS [--json]
    python scripts/scaling_model.py --step SECONDS --plot docs/images/scaling.png --into docs/scaling.md

Prints Markdown tables. What is assumed is an argument each, and printed with the tables. Every GPU has the same batch,
so N of them make 1/N of the steps on as many samples; that they train as well then is not modelled.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

GPUS = (1, 8, 16, 32, 64)
PAGE = 4096
MARKS = ("<!-- model: from scripts/scaling_model.py --into, not by hand -->\n", "<!-- end of model -->\n")
RECIPE = 360_000 * 8
"""Samples of options/rain200l.yml."""
DATA_SETS = {"SPA-Data": (638_492, 256, 256), "ten million": (10_000_000, 600, 800)}
"""Images, height and width of each."""


@dataclass(frozen=True)
class Assumptions:
    """What the model is told, in seconds and bytes."""

    step: float = 0.01626
    """Of one GPU alone, with its batch: forwards, backwards, optimiser; an H200 (docs/performance.md)."""
    backward_share: float = 0.5
    """Of the step, in which gradients could be on their way beside it."""
    batch: int = 8
    """Triples of each GPU."""
    crop: int = 128
    gradient_bytes: int = 4 * 55_046
    """The paper's network in float32."""
    messages: int = 3
    """Waited for in each step: gradients; whether all are finite numbers; the collapse guard's means."""
    per_node: int = 8
    node_bandwidth: float = 200e9
    """Bytes a second of a GPU to another of its node (NVLink, less than its name says)."""
    node_latency: float = 5e-6
    """Of one of a ring's transfers within a node."""
    net_bandwidth: float = 20e9
    """Bytes a second of a GPU into the network (200 Gbit/s)."""
    net_latency: float = 15e-6
    """Of a transfer between nodes."""
    crops_per_core: float = 3_000.0
    """Triples a second that one core cuts out of decoded LMDBs, labels made with them."""
    storage: float = 5e9
    """Bytes a second that all nodes together have of the file system."""


def all_reduce(gpus: int, size: int, given: Assumptions) -> float:
    """Seconds of a ring all-reduce of ``size`` bytes: 2 (n - 1) transfers of 1/n of it, the slowest link paces all."""
    if gpus == 1:
        return 0.0
    crossing = gpus > given.per_node
    bandwidth = given.net_bandwidth if crossing else given.node_bandwidth
    latency = given.net_latency if crossing else given.node_latency
    return 2 * (gpus - 1) * (size / gpus / bandwidth + latency)


@dataclass(frozen=True)
class Row:
    """A number of GPUs; times in seconds, efficiency as the share of N times one GPU's rate."""

    gpus: int
    exchange: float
    step: float
    efficiency: float
    overlapped: float
    overlapped_efficiency: float
    triples_per_second: float
    """What the input must bring, without overlap."""
    cores_per_gpu: float
    """To cut them."""


def rows(given: Assumptions, gpus: Sequence[int] = GPUS) -> Iterator[Row]:
    for count in gpus:
        # Messages beside the gradients are a few bytes: their time is all latency.
        gradients = all_reduce(count, given.gradient_bytes, given)
        others = (given.messages - 1) * all_reduce(count, 8, given)
        step = given.step + gradients + others
        overlapped = given.step + others + max(0.0, gradients - given.backward_share * given.step)
        needed = count * given.batch / step
        yield Row(
            count,
            gradients + others,
            step,
            given.step / step,
            overlapped,
            given.step / overlapped,
            needed,
            needed / count / given.crops_per_core,
        )


def bytes_of_crop(width: int, crop: int, height: int) -> float:
    """What a random window of an uncompressed image reads from storage: the pages that its rows touch."""
    row, stride = 3 * crop, 4 * math.ceil(3 * width / 4)
    apart = crop * (1 + row / PAGE) * PAGE
    together = (crop - 1) * stride + row + PAGE
    return min(apart, together, height * stride + PAGE)


def input_of(given: Assumptions, row: Row, height: int, width: int) -> float:
    """Bytes a second from decoded LMDBs of which nothing is in memory, for all GPUs; labels are made with the crops."""
    return row.triples_per_second * 2 * bytes_of_crop(width, given.crop, height)


def hours(given: Assumptions, samples: float, row: Row) -> float:
    return samples / (given.batch * row.gpus) * row.step / 3600


def table(head: Sequence[str], lines: Iterator[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def report(given: Assumptions) -> str:
    found = list(rows(given))
    steps = table(
        ("GPUs", "exchange, ms", "step, ms", "efficiency", "overlapped, ms", "efficiency", "triples/s", "cores a GPU"),
        (
            (
                str(row.gpus),
                f"{1e3 * row.exchange:.2f}",
                f"{1e3 * row.step:.2f}",
                f"{row.efficiency:.0%}",
                f"{1e3 * row.overlapped:.2f}",
                f"{row.overlapped_efficiency:.0%}",
                f"{row.triples_per_second:,.0f}",
                f"{row.cores_per_gpu:.2f}",
            )
            for row in found
        ),
    )

    def costs(row: Row) -> Iterator[str]:
        yield str(row.gpus)
        yield f"{hours(given, RECIPE, row):.2f}"
        for count, height, width in DATA_SETS.values():
            read = input_of(given, row, height, width)
            yield f"{60 * hours(given, count, row):.1f}"
            yield f"{read / 1e9:.2f}" + " (too much)" * (read > given.storage)

    heads = [head for name in DATA_SETS for head in (f"{name}: a pass, minutes", "GB/s")]
    times = table(("GPUs", "Rain200L's recipe, h", *heads), (tuple(costs(row)) for row in found))
    assumed = ", ".join(f"`{key}` {value:g}" for key, value in asdict(given).items())
    return f"Step of one GPU: {1e3 * given.step:.2f} ms\n\n{steps}\n\n{times}\n\nAssumed: {assumed}."


def put_into(text: str, tables: str) -> str:
    """The text of a document with what is between its `MARKS` replaced."""
    begin, end = MARKS
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"expected the lines {begin.strip()!r} and {end.strip()!r} in the document")
    return f"{before}{begin}\n{tables}\n\n{end}{after}"


def plot(given: Assumptions, file: Path) -> None:
    """Efficiency and input over the number of GPUs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [1, 2, 4, 8, 16, 32, 64]
    found = list(rows(given, counts))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
    left.plot(counts, [row.efficiency for row in found], "o-", label="exchange after the step", markersize=4)
    left.plot(
        counts, [row.overlapped_efficiency for row in found], "s--", label="beside the backward pass", markersize=4
    )
    left.set_ylim(0, 1.05)
    left.set(title=f"Model: one GPU's step {1e3 * given.step:.3g} ms", xlabel="GPUs", ylabel="efficiency")
    left.axvline(given.per_node, color="#8c8c8c", linewidth=1, linestyle=":")
    left.text(given.per_node * 1.07, 0.45, "more than one node", color="#595959", ha="left", fontsize=9)
    for name, (_, height, width) in DATA_SETS.items():
        read = [input_of(given, row, height, width) / 1e9 for row in found]
        right.plot(counts, read, "o-", label=f"{width}x{height} ({name})", markersize=4)
    right.axhline(given.storage / 1e9, color="#8c8c8c", linewidth=1, linestyle=":")
    right.text(1, given.storage / 1e9 * 1.1, "file system, assumed", color="#595959", fontsize=9)
    right.set_yscale("log")
    right.yaxis.set_major_formatter("{x:g}")
    right.set(title="Read from decoded LMDBs, nothing in memory", xlabel="GPUs", ylabel="GB a second")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left" if axes is left else "lower right")
    figure.tight_layout()
    figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Assumptions()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help=f"(default: {value:g})")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it there")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the tables there, between its marks")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each number of GPUs, no tables")
    arguments = vars(parser.parse_args())
    file, document, lines = (arguments.pop(name) for name in ("plot", "into", "json"))
    given = Assumptions(**arguments)
    if lines:
        for row in rows(given):
            print(json.dumps({"benchmark": "scaling_model", **asdict(row), "assumptions": asdict(given)}))
    else:
        print(report(given))
    if document:
        document.write_text(put_into(document.read_text(), report(given)))
    if file:
        plot(given, file)


if __name__ == "__main__":
    main()
