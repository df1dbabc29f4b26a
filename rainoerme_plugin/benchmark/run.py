"""A whole benchmark: check everything, score, measure costs, write tables and report."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, register
from ..archs.runner import Runner
from ..archs.tiles import WHOLE
from ..config import Request, read_options
from ..data.sources import Track
from ..devices import bound_memory, device_name, pick_device
from ..errors import DataError, OptionError
from ..processes import claimed, join_processes, leave_processes, losses_told
from ..progress import track
from ..provenance import code_of
from .cautions import Training, find_cautions
from .cost import Costs, measure_costs
from .measures import Measures
from .methods import Method, check_result_images, open_method
from .options import BenchmarkOptions, FilterMethod, read_benchmark
from .records import Records, key_of, write_result
from .results import SCHEMA, Cost, DatasetInfo, Figure, MethodInfo, Results, Row
from .scoring import Scoring, Share
from .statistics import Values, summarise, value_of
from .tables import to_csv, to_markdown
from .testsets import TestSet, open_test_set, training_hashes
from .waiting import ROOM, Waiting


def benchmark(request: Request) -> tuple[Results, Path] | None:
    """Run the benchmark of an option file; what an earlier run has done is not done again.

    Returns:
        The results and the folder with all files made of them; None in processes that only share the work.

    Raises:
        RainOerMeError: What the user can mend, on one line; nothing done is lost.
    """
    raw = read_options(request.option_file, request.overrides)
    register()
    try:
        options, chosen = read_benchmark(raw)
        test_sets = [open_test_set(name, values) for name, values in options.datasets.items()]
        measures = Measures(options.protocols, options.measures)
        methods = [
            open_method(name, method, options.rounding, tuple(method.datasets or options.datasets))
            for name, method in chosen.items()
        ]
        for method in methods:
            check_result_images(method, _sets_of(method, test_sets))
    except OptionError as error:
        raise OptionError(f"{request.option_file}: {error}") from None

    rank, world, local_rank = join_processes(request.launcher, request.device, timeout=timedelta(days=7))
    device = pick_device(request.device, local_rank)
    if device.type == "cpu":
        bound_memory()  # so that an image that is too large is a failure of its own
    # Full float32 where float32 is said: TF32 is another precision.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    folder = request.root.resolve() / "results" / options.name
    show: Track[Any] = track if rank == 0 else lambda items, total, title: items
    with losses_told(rank, world), claimed(folder):
        records = Records(folder / "records", rank)
        for text in records.damaged() if rank == 0 else ():
            print(f"Warning: {text}", file=sys.stderr, flush=True)
        for test_set in test_sets:
            test_set.survey(records, show)

        waiting = Waiting(folder / ".waiting", options.report.images if options.report else 0, ROOM // world)
        run, kept = Runner(device, options.precision), waiting if options.report else None
        scoring = Scoring(records, folder / "images", measures, run, options.save_images, kept)
        for method in methods:
            for test_set in _sets_of(method, test_sets):
                scoring.score(method, test_set, Share(rank, world), show)
        leave_processes()
        if rank != 0:
            return None
        records.load()

        costs = _costs(methods, options, device, records)
        rows = _rows(methods, test_sets, scoring, options)
        training, missing = _training(methods, records)
        results: Results = {
            "schema": SCHEMA,
            "name": options.name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "environment": _environment(device, options.precision),
            "options": raw,
            "baseline": _baseline(options),
            "measures": [asdict(measure) for measure in measures.all],  # type: ignore[misc]
            "datasets": [_dataset_info(test_set) for test_set in test_sets],
            "methods": [_method_info(method, costs.get(method.name, [])) for method in methods],
            "code": measures.code,
            "rows": rows,
            "warnings": find_cautions(methods, test_sets, rows, training, missing, options.protocols),
        }
        text = json.dumps(results, indent=1, allow_nan=False, default=str) + "\n"
        for name, content in (("json", text), ("csv", to_csv(results)), ("md", to_markdown(results))):
            write_result(folder / f"results.{name}", content.encode("utf-8", "replace"))
        if options.report is not None:
            from .pictures import shown_images
            from .report import write_report

            shown = shown_images(results, methods, test_sets, scoring, options.report)
            write_report(folder / "report.html", results, shown, options.report.max_side, options.report.quality)
        waiting.clear()
        return results, folder


def _sets_of(method: Method, test_sets: Sequence[TestSet]) -> list[TestSet]:
    wanted = method.options.datasets
    return [test_set for test_set in test_sets if wanted is None or test_set.name in wanted]


def _baseline(options: BenchmarkOptions) -> str:
    return options.baseline or next(iter(options.methods))


def _environment(device: torch.device, precision: str) -> dict[str, str | int | None]:
    packages = ("torch", "torchvision", "basicsr", "mmengine", "numpy", "opencv-python", "pillow", "scipy", "spandrel")
    return {
        "rainoerme_plugin": __version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # OpenCV has several names
        return None


def _costs(
    methods: Sequence[Method], options: BenchmarkOptions, device: torch.device, records: Records
) -> dict[str, list[Cost]]:
    """What methods with a network or filter cost, measured once for each machine's kind of device."""
    if options.cost is None:
        return {}
    found: dict[str, list[Cost]] = {}
    costly = [method for method in methods if method.network is not None or isinstance(method.options, FilterMethod)]
    for method in track(costly, len(costly), "measuring costs"):
        names = (device_name(device), device_name(torch.device("cpu")))
        place = (device.type, *names, torch.get_num_threads(), options.precision)
        # Tiles change what large images cost, and no results; what is known of smaller ones stays known.
        is_cut = method.tile is not None or any(height * width > WHOLE for height, width in options.cost.sizes)
        tiles = (f"tiles {method.tile}",) if method.network is not None and is_cut else ()
        code = code_of(measure_costs.__module__, *method.modules)
        key = key_of("cost", code, method.identity, options.cost.model_dump(), place, *tiles)
        record = records.get(key, Costs)
        if record is None or any(cost["error"] for cost in record["costs"]):
            record = {"costs": measure_costs(method, options.cost, str(device), options.precision)}
            records.add(key, {"code": code, **record})
        found[method.name] = record["costs"]
    return found


def _rows(
    methods: Sequence[Method], test_sets: Sequence[TestSet], scoring: Scoring, options: BenchmarkOptions
) -> list[Row]:
    rows: list[Row] = []
    better = {measure.name: measure.better for measure in scoring.measures.all}
    for test_set in test_sets:
        scored = [method for method in methods if test_set in _sets_of(method, test_sets)]
        known = {
            method.name: [_result(scoring, method, test_set, index) for index in range(len(test_set))]
            for method in scored
        }
        names = [measure.name for measure in scoring.measures.of(test_set.paired)]
        values: dict[tuple[str, str], Values] = {
            (method, name): np.array([result.get("figures", {}).get(name, np.nan) for result in results], np.float64)
            for method, results in known.items()
            for name in names
        }
        figures = summarise(values, better, _baseline(options), test_set.scenes, options.bootstrap, options.seed)
        for method in scored:
            rows.append(_row(method, test_set, known[method.name], names, values, figures))
    return rows


def _result(scoring: Scoring, method: Method, test_set: TestSet, index: int) -> Mapping[str, Any]:
    """All that is known of one image: ``output``, ``figures`` and ``problems``, or an ``error``."""
    derained = scoring.derained(method, test_set, index) or {}
    measured = scoring.measured(test_set, index, derained["output"]) if "output" in derained else None
    return {**derained, **(measured or {})}


def _row(
    method: Method,
    test_set: TestSet,
    results: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    values: Mapping[tuple[str, str], Values],
    figures: Mapping[tuple[str, str], Figure],
) -> Row:
    failures = {}
    for image, result in zip(test_set.names, results, strict=True):
        problems = [f"{measure}: {text}" for measure, text in result.get("problems", {}).items()]
        if "output" not in result:
            problems = [result.get("error") or "not done"]
        if problems:
            failures[image] = "; ".join(problems)
    done = sum("output" in result for result in results)
    published = method.options.published.get(test_set.name)
    return {
        "method": method.name,
        "dataset": test_set.name,
        "trained_on": method.trained_on,
        "images": done,
        "failed": len(results) - done,
        "figures": {name: figures[method.name, name] for name in names if (method.name, name) in figures},
        "published": None if published is None else {**published.model_dump(), "images": test_set.whole},  # type: ignore[typeddict-item]
        "values": {name: [value_of(value) for value in values[method.name, name]] for name in names},
        "outputs": [result.get("output") for result in results],
        "failures": failures,
    }


def _training(methods: Sequence[Method], records: Records) -> tuple[Training, dict[str, str]]:
    """The training images of all methods that say where they are, and why some could not be read."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for folder in dict.fromkeys(folder for method in methods for folder in method.training_images):
        try:
            found[folder] = training_hashes(folder, records, track)
        except DataError as error:
            missing[folder] = str(error)
    return found, missing


def _dataset_info(test_set: TestSet) -> DatasetInfo:
    images = zip(test_set.names, test_set.looks, test_set.scenes, strict=True)
    return {
        "name": test_set.name,
        "paired": test_set.paired,
        "rule": test_set.rule,
        "known_as": None if test_set.known is None else test_set.known.name,
        "every": test_set.every,
        "whole": test_set.whole,
        "images": [
            {"name": name, "height": look.height, "width": look.width, "scene": scene} for name, look, scene in images
        ],
    }


def _method_info(method: Method, costs: list[Cost]) -> MethodInfo:
    return {
        "name": method.name,
        "type": method.options.type,
        "about": method.about,
        "trained_on": method.trained_on,
        "licence": method.card.licence if method.card else None,
        "source": method.card.source if method.card else None,
        "rounding": method.rounding,
        "file": method.file.name if method.file else None,
        "sha256": method.sha256,
        "code": method.code,
        "parameters": method.parameters,
        "whole_image": method.whole_image,
        "costs": costs,
    }
