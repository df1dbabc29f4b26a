"""What results.json holds: every name in it, with its meaning. docs/comparing.md shows it with an example.

The file is the whole benchmark: the tables and the report are made of it and of the derained images alone. But for what
is marked as timing (`Timing`, and ``created``) it is the same for every run of the same options on the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from typing_extensions import TypedDict

SCHEMA = "rainoerme_plugin.benchmark/1"
"""Version of this layout; raised when a name changes its meaning or goes."""

Value: TypeAlias = float | Literal["inf"] | None
"""A figure; JSON has no infinity, which is the PSNR of equal images; None: it could not be taken."""


class MeasureInfo(TypedDict):
    """One measure, a column of the tables."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    digits: int
    """After the point, when shown."""
    about: str
    needs_clean: bool
    protocol: str | None
    ranks: bool
    """Whether the best value shows the best method; a blur takes out most rain, and no method keeps most structure."""


class ImageInfo(TypedDict):
    """One image of a data set."""

    name: str
    height: int | None
    width: int | None
    """None where the file is broken."""
    scene: int
    """The number, from 0, of the first image of the data set that shows the same scene."""


class DatasetInfo(TypedDict):
    """A data set, its images in the order of `Row.values`."""

    name: str
    paired: bool
    rule: str | None
    """How pairs were found."""
    known_as: str | None
    """The public test set that it is, or is a part of."""
    every: int
    whole: int
    """How many images the public test set has; of others, how many there are without ``every`` and ``limit``."""
    images: list[ImageInfo]


class Timing(TypedDict):
    """Of one forward pass of a batch, after warm-up; differs from run to run."""

    median: float
    low: float
    """The first quartile, as all times in seconds."""
    high: float
    """The third quartile."""
    repeats: int
    images_per_second: float
    """By the median."""
    peak_memory: int | None
    """Bytes beyond what the loaded network held; None where the system does not tell."""


class Cost(TypedDict):
    """What a method costs at one size."""

    height: int
    width: int
    batch: int
    flops: float | None
    """Of one image; a multiply-add counts as one, as in mmengine and most papers. None: it has no network, or cannot be
    counted."""
    uncounted: list[str]
    """Operators that the count takes as nothing."""
    timing: Timing | None
    error: str | None


class MethodInfo(TypedDict):
    """One method."""

    name: str
    type: str
    about: str
    """The network, filter or folder, in words."""
    trained_on: str | None
    licence: str | None
    source: str | None
    rounding: Literal["round", "floor"]
    file: str | None
    sha256: str | None
    """Of the file of weights."""
    code: str
    """A digest of the code that made its results."""
    parameters: int | None
    whole_image: bool
    """Whether a pixel of its results may depend on the whole image."""
    costs: list[Cost]


class Difference(TypedDict):
    """Of a method from the baseline, over the images that both have."""

    mean: float
    low: float | None
    high: float | None
    """The bootstrap interval, 95 %; None for too few scenes (`statistics.FEWEST`)."""
    wins: float
    """The share of images on which it is better than the baseline."""
    images: int


class Figure(TypedDict):
    """One measure of one method on one data set."""

    mean: Value
    std: float | None
    """Over images; None for fewer than two."""
    low: float | None
    high: float | None
    """The bootstrap interval of the mean, 95 %, resampling scenes; None for too few scenes (`statistics.FEWEST`)."""
    images: int
    difference: Difference | None
    """None for the baseline itself."""


class PublishedFigure(TypedDict):
    """What a method's authors report."""

    protocol: str
    psnr: float | None
    ssim: float | None
    images: int
    """Of how many images they are; a row of others is no comparison."""


class Row(TypedDict):
    """One method on one data set."""

    method: str
    dataset: str
    trained_on: str | None
    images: int
    """With a result."""
    failed: int
    figures: dict[str, Figure]
    published: PublishedFigure | None
    values: dict[str, list[Value]]
    """By measure, a value for each of the data set's images."""
    outputs: list[str | None]
    """A digest of each derained image's pixels."""
    failures: dict[str, str]
    """What went wrong, by the image's name."""


class WarningInfo(TypedDict):
    """Something that would mislead a reader of the tables."""

    kind: Literal["overlap", "training", "protocol", "count", "duplicates", "failed"]
    text: str
    datasets: list[str]
    methods: list[str]


class Results(TypedDict):
    """The whole file."""

    schema: str
    name: str
    created: str
    """Timing: when the file was written, ISO 8601."""
    environment: dict[str, str | int | None]
    """Versions, device, precision, threads."""
    options: Mapping[str, Any]
    """The option file with all that it inherits."""
    baseline: str
    measures: list[MeasureInfo]
    datasets: list[DatasetInfo]
    methods: list[MethodInfo]
    rows: list[Row]
    """For each data set in turn the methods in their order."""
    code: str
    """A digest of the code that took the figures."""
    warnings: list[WarningInfo]
