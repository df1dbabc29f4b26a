"""Sections of option files that the plugin declares: every key with its type, all others refused.

These are also what the code reads its options through, so that a key is written down once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .data.order import LATE_FROM
from .distillation.adaptive import Measure
from .distillation.adversarial import Adversarial, Domain
from .distillation.coarse import CoarseFilter
from .distillation.confidence import Confidence
from .distillation.filters import FILTERS, StreaksFilter, build_filter
from .distillation.plain import PlainPlaces
from .distillation.rain_layers import RainVariation
from .distillation.refinements import Refinements, Teacher
from .distillation.schedule import PRESETS, Schedule
from .distillation.synthesis import Blend
from .errors import OptionError, brief, counted, nearest


def check_number(value: Any) -> Any:
    """Refuse numbers that YAML reads as text: ``1e-3`` has no dot."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return value
        raise ValueError(f"'{value}' is text to YAML; write {_with_dot(value)}")
    return value


def _with_dot(text: str) -> str:
    mantissa, e, exponent = text.lower().partition("e")
    return text if not e or "." in mantissa else f"{mantissa}.0e{exponent}"


def _whole(value: Any) -> Any:
    """Accept 5.0e3 for 5000, as BasicSR's option files write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _truth(value: Any) -> Any:
    """Accept 0 and 1, which code takes as well."""
    return bool(value) if isinstance(value, int) and value in (0, 1) else value


def _file_name(text: str, forbidden: str = '/\\:*?"<>|', longest: int = 100) -> str:
    """Accept what can be the name of a file or folder, with what is put before and after it, on any system."""
    if not text or text[0] == "." or not text.isprintable() or set(text) & set(forbidden):
        raise ValueError(f"expected the name of a file or folder, without its path and no dot first, got {brief(text)}")
    if len(text.encode()) > longest:
        raise ValueError(f"expected a name of at most {longest} bytes, got {brief(text)}")
    return text


def _run_name(text: str) -> str:
    """Accept what BasicSR can call a run on this system."""
    return _file_name(text, '/\\:*?"<>|' if os.name == "nt" else "/", 200)


LARGEST = 10**12
"""Of whole numbers: more than a run can count, and few enough that products of two of them fit 64 bits."""

Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(check_number)]
Integer = Annotated[int, BeforeValidator(_whole), BeforeValidator(check_number)]
Whole = Annotated[Integer, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[Integer, Field(ge=0, le=LARGEST)]
Positive = Annotated[Integer, Field(ge=1, le=LARGEST)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
Place = Annotated[str, Field(min_length=1)]
"""Of a file or folder: no text at all would be the current folder."""


def _listed(value: Any) -> Any:
    """Accept one path for a list of one."""
    if not isinstance(value, str | list) or value == "":
        raise ValueError(f"expected a path, or a list of paths, got {brief(value)}")
    return [value] if isinstance(value, str) else value


Places = Annotated[list[Place], Field(min_length=1, max_length=1000), BeforeValidator(_listed)]
"""Of one or several; always a list once it is read."""
Weights = Annotated[list[Annotated[Number, Field(gt=0, le=1e9)]], Field(max_length=1000)]
FileName = Annotated[str, AfterValidator(_file_name)]
RunName = Annotated[str, AfterValidator(_run_name)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Width = Annotated[Integer, Field(ge=1, le=255)]
"""Of a filter's window, in pixels: no streak of rain is wider, and a rank filter takes hours over larger ones."""


class Section(BaseModel):
    """A part of an option file; every key it may have is a field."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


S = TypeVar("S", bound=Section)


def read_section(section: type[S], values: Any, key: str) -> S:
    """Check ``values``, the part of an option file under the dotted ``key``, and make a section of it.

    Raises:
        OptionError: A key is unknown, missing or of the wrong type; the message names the first and the nearest name.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{key}: expected keys and values, got {brief(values)}")
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise OptionError(_describe(error, section, key)) from None


def _describe(error: ValidationError, section: type[Section], key: str) -> str:
    problems = error.errors(include_url=False)
    # An unknown key explains the missing one that it was meant to be, so it goes first.
    problem = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    # Of a value that may be of several types, pydantic says which one it tried: literal['auto'], function-after[...].
    place = ".".join(str(part) for part in (key, *problem["loc"]) if part != "" and "[" not in str(part))
    if problem["type"] == "extra_forbidden":
        names = _fields_at(section, problem["loc"][:-1])
        message = f"unknown key{nearest(str(problem['loc'][-1]), names)}"
        message += "" if "did you mean" in message else f"; known are {', '.join(names)}" if names else ""
    elif problem["type"] == "missing":
        message = "is missing"
    elif problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
    elif problem["type"] in ("too_short", "too_long"):
        which, bound = ("least", "min_length") if problem["type"] == "too_short" else ("most", "max_length")
        message = f"should have at {which} {counted(problem['ctx'][bound], 'value')}, got {brief(problem['input'])}"
    else:
        wanted = problem["msg"].removeprefix("Input ").replace("a valid integer", "an integer").replace("valid ", "")
        wanted = wanted.partition(" or instance of ")[0]  # no class of ours can stand in a file
        message = f"{wanted}, got {brief(problem['input'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {message}{more}"


def _fields_at(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None:
            continue
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                section = candidate
    return [field.alias or name for name, field in section.model_fields.items()]


DEFAULT_LABEL = {"type": StreaksFilter.name}
"""The filter of options/distill.yml, by which labels to look at are made, too; its arguments are its defaults."""


def _check_folder(arguments: Mapping[str, Any], key: str) -> None:
    """Whether what is ready-made in a folder is told by its path alone."""
    if set(arguments) != {"path"}:
        given = ", ".join(arguments) or "nothing"
        raise OptionError(f"{key}: 'type: folder' needs path: and nothing else, got {given}")


class LabelOptions(Section):
    """``datasets.train.label``: a coarse filter with its arguments, or ``type: folder`` with a path."""

    type: str
    path: Places | None = None
    window: list[Width] | None = None
    length: Width | None = None
    lean: Number | None = None
    percent: Number | None = None
    radius: Width | None = None
    eps: Number | None = None
    diameter: Width | None = None
    sigma_color: Number | None = None
    sigma_space: Number | None = None
    shortest: Width | None = None
    longest: Width | None = None
    share: Number | None = None
    wider: Annotated[Count, Field(le=255)] | None = None
    filters: Annotated[list[LabelOptions], Field(max_length=32)] | None = None
    lost_weight: Number | None = None
    measure: Measure | None = None

    def build(self, key: str = "label") -> CoarseFilter | None:
        """The filter, or None for a folder of ready-made labels.

        Raises:
            OptionError: There is no such filter, or it does not take these arguments.
        """
        arguments = self.model_dump(exclude={"type"}, exclude_none=True)
        if self.type == "folder":
            _check_folder(arguments, key)
            return None
        if self.type not in FILTERS:
            known = [*FILTERS, "folder"]
            raise OptionError(
                f"{key}.type: no coarse filter '{self.type}'{nearest(self.type, known)}; there are {', '.join(known)}"
            )
        try:
            return build_filter(self.type, **arguments)
        except ValueError as error:
            raise OptionError(f"{key}: {error}") from None


class RainBankOptions(Section):
    """``datasets.train.rain``: a bank of rain for clean images; the defaults of `PlainPlaces`."""

    type: Literal["plain", "folder"]
    path: Place | None = None
    evidence: Number | None = None
    roughness: Number | None = None
    window: Width | None = None
    sigma: Number | None = None
    tolerance: Number | None = None
    patch: Annotated[Positive, Field(le=1024)] | None = None
    longest: Annotated[Positive, Field(le=100_000)] | None = None
    lean: Number | None = None
    most: Positive | None = None
    photographs: Positive | None = None
    cache: Place | None = None

    def build(self, key: str = "rain") -> PlainPlaces | None:
        """What to look for, or None for a folder of rain.

        Raises:
            OptionError: A number is out of range, or a key is of the other type.
        """
        given = self.model_dump(exclude={"type"}, exclude_none=True)
        if self.type == "folder":
            _check_folder(given, key)
            return None
        if self.path is not None:
            raise OptionError(f"{key}.path: is for 'type: folder'; 'type: plain' looks into the rainy photographs")
        try:
            return PlainPlaces(**{name: value for name, value in given.items() if name not in ("photographs", "cache")})
        except ValueError as error:
            raise OptionError(f"{key}: {error}") from None


class LoaderOptions(Section):
    """Keys that BasicSR's loader reads of every data set."""

    name: FileName
    type: str
    phase: str | None = None
    scale: Number | None = None
    num_worker_per_gpu: Annotated[Count, Field(le=256)] = 0  # processes: more than cores are of no use
    batch_size_per_gpu: Positive = 1
    dataset_enlarge_ratio: Annotated[Number, Field(gt=0)] = 1
    prefetch_mode: Literal["cpu", "cuda"] | None = None
    num_prefetch_queue: Positive = 1
    pin_memory: Truth = False
    persistent_workers: Truth = False


MOST_PIXELS = 2**30
"""In a batch: a hundred 4K pictures, whose features alone take 64 GB in a layer of 16 channels."""


class UnpairedRainOptions(LoaderOptions):
    """``UnpairedRainDataset``."""

    dataroot_rainy: Places
    dataroot_clean: Places
    weights_rainy: Weights | None = None
    weights_clean: Weights | None = None
    label: LabelOptions
    label_cache: Place | None = None
    rain: RainBankOptions | None = None
    crop_size: Positive = 128
    late_crop_size: Positive | None = None
    late_from: Annotated[Number, Field(ge=0, le=1)] = LATE_FROM
    source: Literal["files", "memory", "device"] = "files"
    seed: Seed | None = None

    @model_validator(mode="after")
    def _match(self) -> UnpairedRainOptions:
        folders = {"dataroot_rainy": len(self.dataroot_rainy), "dataroot_clean": len(self.dataroot_clean)}
        for key, root, given, what in (
            ("weights_rainy", "dataroot_rainy", self.weights_rainy, "a number"),
            ("weights_clean", "dataroot_clean", self.weights_clean, "a number"),
            ("label.path", "dataroot_rainy", self.label.path, "a folder of labels"),
        ):
            if given is not None and len(given) != folders[root]:
                raise ValueError(
                    f"{key} should have {what} for each of the {counted(folders[root], 'path')} in {root}, in their "
                    f"order, got {len(given)}"
                )
        return self

    @model_validator(mode="after")
    def _fits(self) -> UnpairedRainOptions:
        side = max(self.crop_size, self.late_crop_size or 0)
        if self.batch_size_per_gpu * side**2 > MOST_PIXELS:
            key = "crop_size" if side == self.crop_size else "late_crop_size"
            raise ValueError(
                f"a batch of {counted(self.batch_size_per_gpu, 'crop')} of {side}x{side} pixels is "
                f"more than any machine can train on at once; lower batch_size_per_gpu or {key}"
            )
        kind = FILTERS.get(self.label.type)
        if kind is not None and kind.whole_image and self.source == "files" and self.label_cache is None:
            raise ValueError(
                f"a label of type {self.label.type} is made from the whole image, which is too slow for every crop: "
                "name a folder in label_cache, or take source: memory"
            )
        return self


class PairedRainOptions(LoaderOptions):
    """``PairedRainDataset``: ``dataroot``, or both ``dataroot_lq`` and ``dataroot_gt``."""

    dataroot: Place | None = None
    dataroot_lq: Place | None = None
    dataroot_gt: Place | None = None
    layout: Literal["auto", "halves-rainy-clean", "halves-clean-rainy"] = "auto"
    allow_outside: bool = False
    limit: Positive | None = None


class SingleRainOptions(LoaderOptions):
    """``SingleRainDataset``."""

    dataroot: Place
    limit: Positive | None = None


class MadePairsOptions(LoaderOptions):
    """``MadePairsDataset``."""

    dataroot_rainy: Places
    dataroot_clean: Places
    rain: RainBankOptions = RainBankOptions(type="plain")
    pairs: Positive = 40
    crop_size: Positive = 128
    seed: Seed = 0


Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]


class RainOptions(Section):
    """``train.distillation.rain``: how rain layers are varied and put before clean images."""

    blend: Blend = "add"
    move: bool = False
    flip: bool = False
    upturn: bool = False
    turn: Number = 0.0
    strength: Pair = [1.0, 1.0]
    size: Pair = [1.0, 1.0]
    two: Number = 0.0
    none: Number = 0.0
    grey: bool = False
    bank: Number = 0.0

    def build(self) -> RainVariation:
        """The variation."""
        values: dict[str, Any] = self.model_dump(exclude={"blend", "bank"})
        pairs = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return RainVariation(**{**values, **pairs})


class TeacherOptions(Section):
    """``train.distillation.teacher``: what the running mean of the weights teaches."""

    rain: Literal["student", "ema"] = "student"
    start: Count = 0
    label_weight: Number = 0.0
    label_start: Count = 0
    label_ramp: Positive = 1000

    def build(self) -> Teacher:
        """The teacher."""
        return Teacher(**{**self.model_dump(), "rain": self.rain == "ema"})


class ConfidenceOptions(Section):
    """``train.distillation.confidence``; the defaults of `Confidence`."""

    enabled: bool = False
    length: Annotated[Positive, Field(le=255)] = 9
    slack: Annotated[Count, Field(le=15)] = 1
    tolerance: Number = 0.05
    floor: Number = 0.2

    def build(self) -> Confidence | None:
        """The weights, or None if labels are trusted everywhere."""
        confidence = Confidence(**self.model_dump(exclude={"enabled"}))
        return confidence if self.enabled else None


class AdversarialOptions(Section):
    """``train.distillation.adversarial``; the defaults of `Adversarial`."""

    weight: Annotated[Number, Field(ge=0)] = 0.0
    domain: Domain = "derained"
    start: Count = 0
    channels: Annotated[Positive, Field(le=512)] = 32
    layers: Annotated[Positive, Field(le=6)] = 3
    lr: Annotated[Number, Field(gt=0)] = 2e-4

    def build(self) -> Adversarial | None:
        """The loss, or None if it weighs nothing."""
        return Adversarial(**self.model_dump()) if self.weight else None


REFINEMENTS = {"rain", "teacher", "confidence", "rain_share", "adversarial"}
"""Keys of ``train.distillation`` that say what is done beyond the paper; the others are the schedule's."""


class DistillationOptions(Section):
    """``train.distillation``: a preset of the paper, and what differs from it."""

    preset: Literal["rain200l", "rain1400", "did"] = "rain200l"
    warmup: Count | None = None
    soft_decay: Number | None = None
    hard_ramp: Number | None = None
    hard_max: Number | None = None
    gain_range: Annotated[list[Whole], Field(min_length=2, max_length=2)] | None = None
    gain_start: Count | None = None
    soft_min: Number | None = None
    rain: RainOptions = RainOptions()
    teacher: TeacherOptions = TeacherOptions()
    confidence: ConfidenceOptions = ConfidenceOptions()
    adversarial: AdversarialOptions = AdversarialOptions()
    rain_share: Number = 0.0

    @property
    def spares_detail(self) -> bool:
        """Whether nothing goes through the detail enhancement block, since all rain is of a bank."""
        return self.rain.bank == 1

    def refinements(self) -> Refinements:
        """What is done beyond the paper.

        Raises:
            OptionError: A number is out of range.
        """
        parts: dict[str, Any] = {"variation": self.rain, "teacher": self.teacher, "confidence": self.confidence}
        key = ""
        try:
            for name, section in parts.items():
                key = ".rain" if section is self.rain else f".{name}"
                parts[name] = section.build()
            key = ""
            return Refinements(blend=self.rain.blend, bank=self.rain.bank, rain_share=self.rain_share, **parts)
        except ValueError as error:
            raise OptionError(f"train.distillation{key}: {error}") from None

    def build(self) -> Schedule:
        """The schedule.

        Raises:
            OptionError: A number is out of range.
        """
        preset = PRESETS[self.preset]
        changes = {
            name: value
            for name, value in self.model_dump(exclude={"preset", *REFINEMENTS}).items()
            if value is not None
        }
        if "gain_range" in changes:
            changes["gain_range"] = tuple(changes["gain_range"])
        try:
            return Schedule(**{**preset.__dict__, **changes})
        except ValueError as error:
            raise OptionError(f"train.distillation: {error}") from None


class GuardOptions(Section):
    """``train.collapse_guard``; the defaults of `CollapseGuard`."""

    enabled: bool = True
    interval: Positive = 100
    patience: Positive = 3
    hard_loss: Annotated[Number, Field(gt=0)] = 1e-3
    policy: Literal["stop", "go_back"] = "stop"
    times: Positive = 3
    longer_warmup: Positive = 400


class BackboneOptions(Section):
    """``train.backbone``: how the backbone of a ``DistillationNet`` is trained."""

    lr_factor: Annotated[Number, Field(ge=0)] = 1.0
    freeze_iter: Count = 0


class StepOptions(Section):
    """What one step of distillation is computed by."""

    distillation: DistillationOptions = DistillationOptions()
    backbone: BackboneOptions | None = None
    grad_clip: Annotated[Number, Field(gt=0)] | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulation: Positive = 1
    compile: bool = False
    cuda_graphs: bool = False
    nonfinite_limit: Count = 10


class DistillationTrainOptions(StepOptions):
    """``train`` of a ``DistillationModel``; what has a type of its own is checked where that type is known."""

    total_iter: Positive
    optim_g: dict[str, Any]
    scheduler: dict[str, Any]
    warmup_iter: Whole = -1
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    loss_opt: dict[str, Any] = {"type": "SSIMLoss"}
    collapse_guard: GuardOptions = GuardOptions()


def check_refinements(train: DistillationTrainOptions) -> Refinements:
    """What a run does beyond the paper, of all its options.

    Raises:
        OptionError: A number is out of range, or what is asked for needs another option.
    """
    refinements = train.distillation.refinements()
    if refinements.teacher.is_needed and train.ema_decay == 0:
        raise OptionError(
            "train.distillation.teacher: the teacher is the running mean, which train.ema_decay: 0 is without"
        )
    return refinements
