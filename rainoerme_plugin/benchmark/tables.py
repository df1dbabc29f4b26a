"""The results as tables: CSV for programs, Markdown for documents, plain text for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import counted
from .results import Cost, DatasetInfo, Figure, MeasureInfo, MethodInfo, Results, Row
from .statistics import FEWEST

MISSING = "-"


def to_csv(results: Results) -> str:
    """One line for each method and data set. Every measure has its mean, deviation, interval, count and difference.

    Costs are those at the first size.
    """
    measures = [measure["name"] for measure in results["measures"]]
    parts = ("", "_std", "_low", "_high", "_images", "_difference", "_difference_low", "_difference_high")
    fixed = ["dataset", "method", "images", "failed", "trained_on", "rounding", "parameters", "flops", "height"]
    fixed += ["width", "batch", "seconds", "seconds_low", "seconds_high", "images_per_second", "peak_memory"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*fixed, *(f"{name}{part}" for name in measures for part in parts)])
    methods = {method["name"]: method for method in results["methods"]}
    for row in results["rows"]:
        method = methods[row["method"]]
        cost: dict[str, Any] = {**(_first(method) or {})}
        timing = cost.get("timing") or {}
        values: list[Any] = [row["dataset"], row["method"], row["images"], row["failed"], row["trained_on"]]
        values += [method["rounding"], method["parameters"]]
        values += [cost.get(name) for name in ("flops", "height", "width", "batch")]
        values += [timing.get(name) for name in ("median", "low", "high", "images_per_second", "peak_memory")]
        for name in measures:
            figure: dict[str, Any] = {**row["figures"].get(name, {})}
            difference = figure.get("difference") or {}
            values += [figure.get(part) for part in ("mean", "std", "low", "high", "images")]
            values += [difference.get(part) for part in ("mean", "low", "high")]
        writer.writerow(values)
    return buffer.getvalue()


def to_markdown(results: Results) -> str:
    """A section for each data set, then costs and warnings."""
    lines = [f"# {_escaped(results['name'])}", ""]
    environment = results["environment"]
    lines += [", ".join(f"{name} {value}" for name, value in environment.items()) + ".", ""]
    if results["warnings"]:
        lines += ["## Warnings", "", *(f"- {_escaped(warning['text'])}" for warning in results["warnings"]), ""]
    for dataset in results["datasets"]:
        rows = [row for row in results["rows"] if row["dataset"] == dataset["name"]]
        measures = [m for m in results["measures"] if any(m["name"] in row["figures"] for row in rows)]
        known = f", {dataset['known_as']}" if dataset["known_as"] else ""
        content = counted(len(dataset["images"]), "pair" if dataset["paired"] else "image")
        content += "" if dataset["paired"] else " without ground truth"
        lines += [f"## {_escaped(dataset['name'])}: {content}{known}", ""]
        lines += _means(rows, measures)
        # Protocols mostly agree on these; those of the others are in the CSV file.
        measures = _of_first_protocol(measures)
        few = too_few(dataset)
        interval = "" if few else " [95 % bootstrap interval of the mean, over scenes]"
        lines += [f"Mean ± standard deviation over images{interval}{few}:", ""]
        lines += _table(["method", *_titles(measures)], _cells(rows, measures, _spread))
        compared = [row for row in rows if row["method"] != results["baseline"]]
        if compared and any(figure["difference"] for row in compared for figure in row["figures"].values()):
            interval = "" if few else " [95 % interval]"
            lines += [f"Difference from {results['baseline']}, image by image{interval}, and share of wins:", ""]
            lines += _table(["method", *_titles(measures)], _cells(compared, measures, _difference))
    costs = [(method, cost) for method in results["methods"] for cost in method["costs"]]
    if costs:
        device, precision = environment.get("device_name"), environment.get("precision")
        where = f"On {device}, {counted(int(environment.get('threads') or 0), 'thread')}, {precision}."
        lines += ["## Cost", "", f"{where} FLOPs are of one image; a multiply-add counts as one.", ""]
        header = ["method", "parameters", "size", "batch", "FLOPs", "seconds [quartiles]", "images/s", "peak memory"]
        lines += _table(header, [_cost_cells(method, cost) for method, cost in costs])
    return "\n".join(lines).rstrip() + "\n"


def too_few(dataset: DatasetInfo) -> str:
    """Why a data set has no intervals; empty if it may have."""
    scenes = len({image["scene"] for image in dataset["images"]})
    return "" if scenes >= FEWEST else f"; no intervals, which need {FEWEST} scenes (here {scenes})"


def of_others(row: Row) -> str:
    """Of how many images a row's published figures are, if not of as many as the row's own."""
    published = row["published"]
    return "" if published is None or published["images"] == row["images"] else f", on all {published['images']:,}"


def to_text(results: Results) -> str:
    """The means of all rows in short, for the terminal, and the warnings."""
    chosen = _of_first_protocol(results["measures"])
    rows = [["data set", "method", "images", *_titles(chosen), "s/image"]]
    methods = {method["name"]: method for method in results["methods"]}
    for row in results["rows"]:
        cost = _first(methods[row["method"]])
        timing = cost["timing"] if cost else None
        seconds = f"{1 / timing['images_per_second']:.3g}" if timing else MISSING
        images = str(row["images"]) + (f" ({row['failed']} failed)" if row["failed"] else "")
        cells = [_number(row["figures"].get(measure["name"]), measure) for measure in chosen]
        rows.append([row["dataset"], row["method"], images, *cells, seconds])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"Warning: {warning['text']}" for warning in results["warnings"])])


def _of_first_protocol(measures: Sequence[MeasureInfo]) -> list[MeasureInfo]:
    first = next((measure["protocol"] for measure in measures if measure["protocol"]), None)
    return [measure for measure in measures if measure["protocol"] in (None, first)]


def _first(method: MethodInfo) -> Cost | None:
    return method["costs"][0] if method["costs"] else None


def _titles(measures: Sequence[MeasureInfo]) -> list[str]:
    return [measure["title"] for measure in measures]


def _number(figure: Figure | None, measure: MeasureInfo) -> str:
    if figure is None or figure["mean"] is None:
        return MISSING
    return "inf" if figure["mean"] == "inf" else f"{figure['mean']:.{measure['digits']}f}"


def _means(rows: Sequence[Row], measures: Sequence[MeasureInfo]) -> list[str]:
    """PSNR and SSIM of a protocol in one column; the best of the rows with results for the most images is bold."""
    columns: list[list[MeasureInfo]] = []
    for measure in measures:
        if columns and measure["protocol"] and columns[-1][0]["protocol"] == measure["protocol"]:
            columns[-1].append(measure)
        else:
            columns.append([measure])
    header = [f"PSNR / SSIM {c[0]['protocol']}" if len(c) > 1 else c[0]["title"] for c in columns]
    best = {measure["name"]: _best(rows, measure) for measure in measures}
    most = max((row["images"] for row in rows), default=0)
    cells = []
    for row in rows:
        images = str(row["images"]) + (f" (**{row['failed']} failed**)" if row["failed"] else "")
        figures = []
        for column in columns:
            parts = []
            for measure in column:
                text = _number(row["figures"].get(measure["name"]), measure)
                bold = text == best[measure["name"]] and row["images"] == most and len(rows) > 1
                parts.append(f"**{text}**" if bold else text)
            figures.append(" / ".join(parts))
        published = row["published"]
        reported = MISSING
        if published is not None:
            psnr = MISSING if published["psnr"] is None else f"{published['psnr']:.2f}"
            ssim = MISSING if published["ssim"] is None else f"{published['ssim']:g}"
            reported = f"{psnr} / {ssim} {published['protocol']}{of_others(row)}"
        cells.append([row["method"], row["trained_on"] or MISSING, images, *figures, reported])
    return _table(["method", "trained on", "images", *header, "published"], cells)


def _best(rows: Sequence[Row], measure: MeasureInfo) -> str | None:
    """As it is shown, so that equals to the last digit are bold alike; of rows with a result for the most images."""
    most = max((row["images"] for row in rows), default=0)
    complete = [row for row in rows if row["images"] == most]
    known = [row["figures"][measure["name"]] for row in complete if measure["name"] in row["figures"]]
    sign = 1 if measure["better"] == "higher" else -1
    ranked = [(sign * float(figure["mean"]), figure) for figure in known if figure["mean"] is not None]
    return _number(max(ranked, key=lambda pair: pair[0])[1], measure) if ranked and measure["ranks"] else None


def _spread(figure: Figure, measure: MeasureInfo) -> str:
    digits = measure["digits"]
    text = _number(figure, measure)
    text += f" ± {figure['std']:.{digits}f}" if figure["std"] is not None else ""
    return text + _interval(figure["low"], figure["high"], f".{digits}f")


def _difference(figure: Figure, measure: MeasureInfo) -> str:
    difference = figure["difference"]
    if difference is None:
        return MISSING
    digits = f"+.{measure['digits']}f"
    text = f"{difference['mean']:{digits}}{_interval(difference['low'], difference['high'], digits)}"
    return f"{text}, {difference['wins']:.0%}"


def _interval(low: float | None, high: float | None, digits: str) -> str:
    return "" if low is None or high is None else f" [{low:{digits}}, {high:{digits}}]"


def _cells(rows: Sequence[Row], measures: Sequence[MeasureInfo], show: Any) -> Iterator[list[str]]:
    for row in rows:
        figures = [(row["figures"].get(measure["name"]), measure) for measure in measures]
        yield [row["method"], *(MISSING if figure is None else show(figure, measure) for figure, measure in figures)]


def _cost_cells(method: MethodInfo, cost: Cost) -> list[str]:
    parameters = MISSING if method["parameters"] is None else f"{method['parameters']:,}"
    size = f"{cost['width']}x{cost['height']}"
    flops = MISSING if cost["flops"] is None else f"{cost['flops'] / 1e9:.2f} G"
    timing = cost["timing"]
    if timing is None:
        return [method["name"], parameters, size, str(cost["batch"]), flops, cost["error"] or MISSING, MISSING, MISSING]
    seconds = f"{timing['median']:.4g} [{timing['low']:.4g}, {timing['high']:.4g}]"
    memory = MISSING if timing["peak_memory"] is None else f"{timing['peak_memory'] / 2**20:.3g} MiB"
    rate = f"{timing['images_per_second']:.3g}"
    return [method["name"], parameters, size, str(cost["batch"]), flops, seconds, rate, memory]


def _table(header: Sequence[str], rows: Iterator[list[str]] | Sequence[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(_escaped, header))} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return [*lines, ""]


def _escaped(text: str) -> str:
    """Text that is no Markdown table and no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
