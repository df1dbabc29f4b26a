"""report.html: a benchmark's tables, plots and pictures in one file, which opens offline and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ..data.images import RGB, jpeg_uri
from ..errors import counted
from .records import write_result
from .results import Cost, DatasetInfo, Figure, MeasureInfo, PublishedFigure, Results, Row, Value
from .statistics import FEWEST
from .tables import of_others, too_few

MISSING = "–"
_LISTED = 3  # of the worst and of the best images of each method
_LABEL = 26  # letters of a name in a plot
_STYLE: Any = {"svg.fonttype": "none", "text.parse_math": False, "font.sans-serif": ["DejaVu Sans"], "font.size": 9}
_Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class Shown:
    """One image of a data set with what the methods made of it, all (H, W, 3) uint8 of one size."""

    dataset: str
    name: str
    rainy: RGB
    clean: RGB | None
    derained: Mapping[str, RGB]
    """By method; without those that failed on it, and without the rainy input itself."""


def write_report(path: Path, results: Results, shown: Iterable[Shown], max_side: int = 960, quality: int = 90) -> None:
    """Write the report of a benchmark.

    Args:
        path: The file; its folder is made if need be, and it is replaced whole.
        results: What results.json holds.
        shown: The images to look at, taken one by one; only their JPEGs are kept.
        max_side: The longer side of an embedded picture in pixels; larger images are shrunk.
        quality: Of the JPEGs, 1 to 100; their colours are not subsampled.

    Raises:
        ValueError: The results do not know an image's data set, name or method, or its pictures differ in size.
        RainOerMeError: The file cannot be written.
    """
    views = {dataset["name"]: _View(results, dataset) for dataset in results["datasets"]}
    for image in shown:
        if image.dataset not in views:
            raise ValueError(f"the results have no data set '{image.dataset}'; they have {', '.join(views)}")
        views[image.dataset].add(image, max_side, quality)
    templates = files(__package__) / "templates"
    style, script = ((templates / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    pages = jinja2.Environment(loader=jinja2.PackageLoader(__package__), autoescape=True, trim_blocks=True)
    pages.filters.update(number=_number, counted=counted, si=_si, memory=_memory)
    page = pages.get_template("report.html").render(
        results=results,
        views=list(views.values()),
        too_few=too_few,
        fewest=FEWEST,
        protocols=list(dict.fromkeys(m["protocol"] for m in results["measures"] if m["protocol"] is not None)),
        sizes=_sizes(results),
        style=Markup(style),  # noqa: S704 files of this package
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data={
            "measures": results["measures"],
            "methods": [method["name"] for method in results["methods"]],
            "datasets": [view.pictures for view in views.values()],
        },
    )
    write_result(path, page.encode("utf-8", "replace"))  # a file's name may hold what UTF-8 cannot


@dataclass(frozen=True)
class _Cell:
    text: str = MISSING
    key: float | str | None = None
    """What it is sorted by; None: missing."""
    best: bool = False
    figure: Figure | None = None
    published: PublishedFigure | None = None
    of: str = ""
    """Of how many images the published figure is, if not of those of the row."""


@dataclass(frozen=True)
class _Column:
    title: str
    cells: list[_Cell]
    kind: Literal["text", "number"] = "number"
    first: str = "descending"
    """How it is sorted at first."""
    measure: MeasureInfo | None = None
    size: int | None = None


class _View:
    """One data set as the page shows it."""

    def __init__(self, results: Results, dataset: DatasetInfo) -> None:
        self.results, self.dataset = results, dataset
        self.images = {image["name"]: index for index, image in enumerate(dataset["images"])}
        self.numbers = {method["name"]: number for number, method in enumerate(results["methods"])}
        self.rows = [row for row in results["rows"] if row["dataset"] == dataset["name"]]
        self.methods = [results["methods"][self.numbers[row["method"]]] for row in self.rows]
        names = {name for row in self.rows for name in row["figures"]}
        self.measures = [measure for measure in results["measures"] if measure["name"] in names]
        self.costs = {
            size: [next((cost for cost in method["costs"] if _size(cost) == size), None) for method in self.methods]
            for size in _sizes(results)
        }
        self.pictures: list[dict[str, Any]] = []
        self.shown: dict[str, int] = {}
        self.ranking = {row["method"]: ranked for row in self.rows if names and (ranked := self._rank(row))}

    def side(self, method: str) -> str:
        """What the viewer calls a method: its number, or "rainy" if it is the input itself."""
        number = self.numbers[method]
        return "rainy" if self.results["methods"][number]["type"] == "input" else str(number)

    # Pictures

    def add(self, image: Shown, max_side: int, quality: int) -> None:
        """Encode an image's pictures."""
        if image.name not in self.images:
            raise ValueError(f"the results have no image '{image.name}' in data set '{image.dataset}'")
        sides = {"rainy": image.rainy}
        for name, derained in image.derained.items():
            if name not in self.numbers:
                raise ValueError(f"the results have no method '{name}'; they have {', '.join(self.numbers)}")
            sides[self.side(name)] = derained
        if image.clean is not None:
            sides["clean"] = image.clean
        if len({picture.shape for picture in sides.values()}) > 1:
            raise ValueError(f"the pictures of '{image.name}' differ in size: {[p.shape for p in sides.values()]}")
        height, width = image.rainy.shape[:2]
        shrink = min(1.0, max_side / max(height, width))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        index = self.images[image.name]
        self.shown[image.name] = len(self.pictures)
        taken = {
            self.side(row["method"]): [row["values"].get(measure["name"]) for measure in self.results["measures"]]
            for row in self.rows
        }
        self.pictures.append(
            {
                "name": image.name,
                "size": size,
                "original": (width, height),
                "badges": self._badges(index),
                "values": {side: [column and column[index] for column in columns] for side, columns in taken.items()},
                "failed": [self.side(row["method"]) for row in self.rows if image.name in row["failures"]],
                "pictures": {side: _jpeg(picture, size, quality) for side, picture in sides.items()},
            }
        )

    def _rank(self, row: Row) -> list[int]:
        """A method's images, from the worst to the best by the data set's first measure."""
        values = [_float(value) for value in row["values"].get(self.measures[0]["name"], [])]
        known = [(value, index) for index, value in enumerate(values) if value is not None]
        return [index for _, index in sorted(known, reverse=self.measures[0]["better"] == "lower")]

    def _badges(self, index: int) -> list[str]:
        found = []
        for word, place in (("worst", 0), ("best", -1)):
            methods = [name for name, ranked in self.ranking.items() if len(ranked) > 1 and ranked[place] == index]
            if methods:
                everyone = 1 < len(methods) == len(self.ranking)
                found.append(f"{word} of {'all methods' if everyone else ', '.join(methods)}")
        return found

    def extremes(self) -> Iterator[tuple[str, list[tuple[str, Value]], list[tuple[str, Value]]]]:
        """Each method with its worst and its best images and their values, the most extreme first."""
        for row in self.rows:
            ranked = self.ranking.get(row["method"], [])
            if ranked:
                values = row["values"][self.measures[0]["name"]]
                named = [(self.dataset["images"][index]["name"], values[index]) for index in ranked]
                few = max(1, min(_LISTED, len(named) // 2))
                yield row["method"], named[:few], named[: -few - 1 : -1]

    # The table

    def columns(self) -> list[_Column]:
        """All but the method's name; each has a cell for every row."""
        trained = [_Cell(row["trained_on"], row["trained_on"]) if row["trained_on"] else _Cell() for row in self.rows]
        found = [_Column("Trained on", trained, "text", "ascending"), *map(self._measured, self.measures)]
        found.append(_Column("Images", [_Cell(str(row["images"]), row["images"]) for row in self.rows]))
        found.append(_Column("Failed", [_Cell(str(row["failed"]), row["failed"]) for row in self.rows]))
        if any(row["published"] for row in self.rows):
            published = [(row["published"], of_others(row)) for row in self.rows]
            cells = [_Cell(key=fig["psnr"], published=fig, of=of) if fig else _Cell() for fig, of in published]
            found.append(_Column("Published", cells))
        found.append(_cost("Parameters", [method["parameters"] for method in self.methods], _si))
        for at, costs in enumerate(self.costs.values()):
            found.append(_cost("FLOPs", [cost and cost["flops"] for cost in costs], _si, at))
            found.append(_cost("Time per image", [_time(cost) for cost in costs], partial(_si, unit="s"), at))
            memory = [cost and cost["timing"] and cost["timing"]["peak_memory"] for cost in costs]
            found.append(_cost("Peak memory", memory, _memory, at))
        return found

    def _measured(self, measure: MeasureInfo) -> _Column:
        figures = [row["figures"].get(measure["name"]) for row in self.rows]
        # A mean over fewer images, perhaps without the hardest, is not comparable; of some measures none is the best.
        most = max(figure["images"] for figure in figures if figure is not None) if measure["ranks"] else -1
        means = [_float(figure["mean"]) for figure in figures if figure is not None and figure["images"] == most]
        known = [mean for mean in means if mean is not None]
        higher = measure["better"] == "higher"
        best = _number((max if higher else min)(known, default=None), measure["digits"])
        cells = []
        for figure in figures:
            if figure is None or figure["mean"] is None:
                cells.append(_Cell())
            else:
                text = _number(figure["mean"], measure["digits"])
                cells.append(_Cell(text, _float(figure["mean"]), text == best and figure["images"] == most, figure))
        return _Column(measure["title"], cells, first="descending" if higher else "ascending", measure=measure)

    # Plots

    def axes(self) -> dict[str, tuple[str, str, list[float | None]]]:
        """The costs that some method has at the first size, for each row; with their title and unit."""
        costs = next(iter(self.costs.values()), [None] * len(self.rows))
        axes: dict[str, tuple[str, str, list[float | None]]] = {
            "seconds": ("Time per image", "s", [_time(cost) for cost in costs]),
            "flops": ("FLOPs per image", "", [cost and cost["flops"] for cost in costs]),
            "parameters": ("Parameters", "", [method["parameters"] for method in self.methods]),
        }
        return {name: axis for name, axis in axes.items() if any(axis[2])}

    def plots(self) -> Iterator[tuple[MeasureInfo, str, Markup]]:
        """Each measure against each cost, as SVG."""
        for measure in self.measures:
            figures = [row["figures"].get(measure["name"]) for row in self.rows]
            for name, (title, unit, costs) in self.axes().items():
                points = [
                    _Point(row["method"], cost or None, float(figure["mean"]), figure["low"], figure["high"])
                    for row, figure, cost in zip(self.rows, figures, costs, strict=True)
                    if figure is not None and figure["mean"] not in (None, "inf")
                ]
                if points:
                    salt = f"{self.dataset['name']}/{measure['name']}/{name}"
                    yield measure, name, _plot(points, measure, title, unit, salt)


def _cost(title: str, values: list[Any], show: Callable[[Any], str], size: int | None = None) -> _Column:
    lowest = min((value for value in values if value is not None), default=None)
    cells = [_Cell() if value is None else _Cell(show(value), value, value == lowest) for value in values]
    return _Column(title, cells, first="ascending", size=size)


def _size(cost: Cost) -> tuple[int, int, int]:
    return cost["width"], cost["height"], cost["batch"]


def _sizes(results: Results) -> list[tuple[int, int, int]]:
    return list(dict.fromkeys(_size(cost) for method in results["methods"] for cost in method["costs"]))


def _time(cost: Cost | None) -> float | None:
    return None if cost is None or cost["timing"] is None else cost["timing"]["median"] / cost["batch"]


def _float(value: Value) -> float | None:
    return None if value is None else float(value)


def _number(value: Value, digits: int) -> str:
    if value is None:
        return MISSING
    return "∞" if float(value) == math.inf else f"{float(value):.{digits}f}".replace("-", "−")


def _si(value: float, unit: str = "") -> str:
    return EngFormatter(unit)(float(f"{value:.3g}"))


def _memory(value: int) -> str:
    return f"{value / 2**20:,.0f} MiB" if value >= 2**20 else f"{value / 2**10:,.0f} KiB"


def _jpeg(image: RGB, size: tuple[int, int], quality: int) -> str:
    picture = PillowImage.fromarray(image)
    if picture.size != size:
        picture = picture.resize(size, PillowImage.Resampling.LANCZOS)
    return jpeg_uri(np.asarray(picture), quality)


class _Point(NamedTuple):
    name: str
    x: float | None
    """None: it has no such cost, and is a line."""
    y: float
    low: float | None
    high: float | None


def _plot(points: Sequence[_Point], measure: MeasureInfo, title: str, unit: str, salt: str) -> Markup:
    """One measure against one cost, as an SVG element for a page."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its fonts lack: the browser's have them
        canvas = Canvas(figsize=(5.2, 3.6), dpi=72)
        axes = canvas.add_axes((0.15, 0.13, 0.83, 0.85))
        costs = [point.x for point in points if point.x] or [1.0]
        ends = [end for point in points for end in (point.y, point.low, point.high) if end is not None]
        margin = 0.12 * (max(ends) - min(ends)) or 0.1
        axes.set(xscale="log", xlim=(min(costs) / 1.5, max(costs) * 1.5), ylim=(min(ends) - margin, max(ends) + margin))
        hint = f" ({measure['better']} is better)" if measure["ranks"] else ""
        axes.set(xlabel=title, ylabel=measure["title"] + hint, axisbelow=True)
        wide = max(costs) > 30 * min(costs)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(EngFormatter(unit))
        axes.xaxis.set_minor_locator(LogLocator(subs="all") if wide else NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(color="#e4e4e4", linewidth=0.6)
        for point in points:
            if point.x is None:
                axes.axhline(point.y, color="#777777", linewidth=1, linestyle=(0, (4, 3)))
                continue
            if point.low is not None and point.high is not None:
                axes.vlines(point.x, point.low, point.high, color="#7fa3cf", linewidth=1.5)
            axes.plot(point.x, point.y, "o", color="#1f5fa8", markersize=5)
        _label(axes, points)
        canvas.savefig(buffer, format="svg", metadata={"Date": None})
    at = (f"{p.name} {_number(p.y, measure['digits'])}" + (f" at {_si(p.x, unit)}" if p.x else "") for p in points)
    return _inline(buffer.getvalue(), f"{measure['title']} against {title.lower()}: {'; '.join(at)}")


def _label(axes: Axes, points: Sequence[_Point]) -> None:
    """Write each method's name beside its point, or on its line, where least is in the way."""
    left, bottom, right, top = axes.bbox.extents
    taken = [(-right, bottom, left, top), (right, bottom, 2 * right, top)]
    places = []
    for point in points:
        ends = [point.y if end is None else end for end in (point.y, point.low, point.high)]
        (x, y), (_, low), (_, high) = axes.transData.transform([(point.x or 1, end) for end in ends])
        places.append((x, y))
        taken += [(x - 4, y - 4, x + 4, y + 4), (x - 1, low, x + 1, high)] if point.x else [(left, y - 1, right, y + 1)]
    for point, (x, y) in zip(points, places, strict=True):
        text = "".join(sign if sign.isprintable() else " " for sign in point.name)
        text = text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
        spots = [("left", x + over, y + up) for over, up in ((6, 0), (4, 11), (4, -11))]
        spots += [("right", x - over, y + up) for over, up in ((6, 0), (4, 11), (4, -11))]
        spots += [("center", x, y + 12), ("center", x, y - 12)]
        if not point.x:
            spots = [(side, at, y + up) for side, at in (("right", right - 4), ("left", left + 4)) for up in (7, -8)]
        boxes = [_box(*spot, 5.4 * len(text)) for spot in spots]
        covered = [_covered(box, np.array(taken)) for box in boxes]
        best = covered.index(min(covered))
        taken.append(boxes[best])
        side, *at = spots[best]
        across, up = axes.transData.inverted().transform(at)
        axes.text(across, up, text, verticalalignment="center", horizontalalignment=side, color="#222222")


def _box(side: str, x: float, y: float, width: float) -> _Box:
    start = x - {"left": 0.0, "center": 0.5, "right": 1.0}[side] * width
    return start, y - 5, start + width, y + 5


def _covered(box: _Box, by: NDArray[np.float64]) -> float:
    """How much of a box lies under others (N, 4)."""
    shared = np.minimum(box[2:], by[:, 2:]) - np.maximum(box[:2], by[:, :2])
    return float(np.maximum(shared, 0).prod(axis=1).sum())


def _inline(svg: bytes, label: str) -> Markup:
    """matplotlib's SVG file as an element of a page: no namespaces, metadata or style, and no ids but those used."""
    root = ElementTree.fromstring(svg)  # noqa: S314 matplotlib wrote it
    text = svg.decode()
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
        element.tag, element.tail = element.tag.rpartition("}")[2], None
        element.text = element.text if element.tag == "text" else None
        kept = ((name, value) for name, value in element.attrib.items() if name != "id" or f"#{value}" in text)
        element.attrib = {name.rpartition("}")[2]: value for name, value in kept}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 it escapes
