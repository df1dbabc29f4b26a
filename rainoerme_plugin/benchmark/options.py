"""The option file of a benchmark: methods, data sets, what to measure. options/benchmark.yml explains every key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from ..archs.runner import Precision
from ..data.images import Rounding
from ..errors import OptionError, brief, nearest
from ..metrics.protocols import PROTOCOLS
from ..options import Count, FileName, LabelOptions, Number, Place, Positive, Section, Seed, read_section

Name = Annotated[FileName, Field(pattern=r"^[\w.+()-][\w.+() -]*$")]
"""Of a method or data set: also the name of a folder."""


class PublishedOptions(Section):
    """``methods.NAME.published.DATASET``: what its authors report, to stand beside what is measured."""

    protocol: str
    psnr: Number | None = None
    ssim: Number | None = None


class MethodOptions(Section):
    """What every method may say."""

    type: str
    trained_on: str | None = None
    training_images: list[Place] = Field(default=[])
    rounding: Rounding | None = None
    datasets: list[str] | None = None
    published: dict[str, PublishedOptions] = Field(default={})


class InputMethod(MethodOptions):
    """The rainy image itself."""


class FilterMethod(MethodOptions):
    """A coarse filter."""

    filter: LabelOptions


class WithNetwork(MethodOptions):
    """What every method with a network may say beside that."""

    tile: Count | Literal["auto"] = "auto"


class FileMethod(WithNetwork):
    """A checkpoint whose network is recognised: of this package, a published one, or one that spandrel knows."""

    file: Place
    key: str | None = None


class NetworkMethod(WithNetwork):
    """A registered network with its arguments, and a checkpoint for it."""

    network: dict[str, Any]
    file: Place
    key: str | None = None


class RunMethod(WithNetwork):
    """What a training run has made: its folder below experiments/."""

    folder: Place
    iteration: Count | Literal["latest", "best"] = "latest"


class ImagesMethod(MethodOptions):
    """A folder of derained images, or one for each data set by its name."""

    folder: Place | dict[str, Place]


METHODS: dict[str, type[MethodOptions]] = {
    "input": InputMethod,
    "filter": FilterMethod,
    "file": FileMethod,
    "network": NetworkMethod,
    "run": RunMethod,
    "images": ImagesMethod,
}


Side = Annotated[Positive, Field(le=65_535)]
"""Of an image, in pixels: a JPEG has no more."""


class CostOptions(Section):
    """``cost``: at which sizes (height, width) methods are timed, and how often."""

    sizes: list[Annotated[list[Side], Field(min_length=2, max_length=2)]] = Field(default=[[321, 481]], min_length=1)
    batch: Annotated[Positive, Field(le=1024)] = 1
    warmup: Annotated[Positive, Field(le=10_000)] = 2
    repeats: Annotated[Positive, Field(ge=3, le=10_000)] = 7


class ReportOptions(Section):
    """``report``: which pictures report.html holds, for each data set."""

    images: Count = 8
    extremes: Count = 1
    max_side: Annotated[Positive, Field(ge=64)] = 960
    quality: Annotated[Positive, Field(le=100)] = 90


class BenchmarkOptions(Section):
    """A whole option file of a benchmark; methods and data sets are read further by `read_benchmark`."""

    name: Annotated[FileName, Field(pattern=r"^[\w.+-][\w.+ -]*$")]
    methods: dict[Name, dict[str, Any]] = Field(min_length=1)
    datasets: dict[Name, dict[str, Any]] = Field(min_length=1)
    protocols: list[str] = Field(default=list(PROTOCOLS))
    measures: list[str] = Field(default=["niqe", "rain_removed", "structure_kept"])
    baseline: str | None = None
    precision: Precision = "float32"
    rounding: Rounding = "round"
    seed: Seed = 0
    bootstrap: Annotated[Positive, Field(ge=100, le=100_000)] = 10_000  # of all images at once, in memory
    save_images: bool = False
    cost: CostOptions | None = CostOptions()
    report: ReportOptions | None = ReportOptions()


class DatasetOptions(Section):
    """What a benchmark asks of a data set beside the keys of its class."""

    every: Positive = 1
    known_as: str | None = None


def read_benchmark(raw: Mapping[str, Any]) -> tuple[BenchmarkOptions, dict[str, MethodOptions]]:
    """Check a whole option file but for what its data sets' and networks' own classes check.

    Raises:
        OptionError: The first thing wrong.
    """
    from .measures import EXTRAS

    options = read_section(BenchmarkOptions, raw, "")
    for name, values in options.datasets.items():
        if not isinstance(values.get("type", ""), str):
            raise OptionError(f"datasets.{name}.type: should be a text, got {brief(values['type'])}")
    _known(options.protocols, PROTOCOLS, "protocols", "protocol")
    _known(options.measures, EXTRAS, "measures", "measure")
    if not options.protocols and not options.measures:
        raise OptionError("protocols, measures: both are empty; there is nothing to measure")
    methods = {name: _read_method(value, f"methods.{name}") for name, value in options.methods.items()}
    if options.baseline is not None:
        _known([options.baseline], methods, "baseline", "method")
    for name, method in methods.items():
        _known(method.datasets or [], options.datasets, f"methods.{name}.datasets", "data set")
        _known(method.published, options.datasets, f"methods.{name}.published", "data set")
        for dataset, figures in method.published.items():
            _known([figures.protocol], PROTOCOLS, f"methods.{name}.published.{dataset}.protocol", "protocol")
        if isinstance(method, ImagesMethod) and isinstance(method.folder, dict):
            _known(method.folder, options.datasets, f"methods.{name}.folder", "data set")
    return options, methods


def _read_method(values: Mapping[str, Any], key: str) -> MethodOptions:
    kind = values.get("type")
    if kind is None:
        raise OptionError(f"{key}.type: is missing; there are {', '.join(METHODS)}")
    if kind not in list(METHODS):
        near = nearest(str(kind), METHODS)
        raise OptionError(
            f"{key}.type: no kind of method is called {brief(kind)}{near}; there are {', '.join(METHODS)}"
        )
    return read_section(METHODS[kind], values, key)


def _known(names: Any, known: Any, key: str, what: str) -> None:
    for name in names:
        if name not in known:
            near = nearest(str(name), known)
            raise OptionError(f"{key}: no {what} is called '{name}'{near}; there are {', '.join(known)}")
    if isinstance(names, list) and len(set(names)) < len(names):
        raise OptionError(f"{key}: names one twice")
