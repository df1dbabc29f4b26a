"""What would mislead a reader of the tables: said beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..errors import counted, ordinal
from .known import photographs_in, seen_by_training
from .methods import Method
from .results import Row, WarningInfo
from .scenes import Hashes, near
from .statistics import FEWEST
from .testsets import TestSet

Training = Mapping[str, tuple[list[str], Hashes]]
"""The names and scene hashes of the images in a training folder, by its path."""


def find_cautions(
    methods: Sequence[Method],
    test_sets: Sequence[TestSet],
    rows: Sequence[Row],
    training: Training,
    missing: Mapping[str, str],
    protocols: Sequence[str],
) -> list[WarningInfo]:
    """All that is to be said, the gravest first.

    Args:
        methods: All methods.
        test_sets: All data sets, surveyed.
        rows: The results.
        training: The training images that were read.
        missing: The training folders that could not be read, and why.
        protocols: The protocols that were measured.
    """
    pairs = [(method, test_set) for method in methods for test_set in test_sets if _scored(method, test_set)]
    found = [
        *(caution for pair in pairs for caution in _overlaps(*pair, training)),
        *_failures(rows),
        *_training_data(methods, missing),
        *_protocols(methods, pairs, protocols),
        *(caution for test_set in test_sets for caution in _counts(test_set)),
        *(caution for test_set in test_sets for caution in _duplicates(test_set)),
    ]
    return found


def _scored(method: Method, test_set: TestSet) -> bool:
    return method.options.datasets is None or test_set.name in method.options.datasets


def _overlaps(method: Method, test_set: TestSet, training: Training) -> list[WarningInfo]:
    """By the training images where they are at hand, and by what is known of public data sets."""
    found: list[WarningInfo] = []
    readable = [index for index, look in enumerate(test_set.looks) if look.scene is not None]
    # What the option file says does not undo what is known of the file.
    known = method.published.trained_on if method.published else None
    told = [text for text in dict.fromkeys((method.trained_on, known)) if text]
    seen = [(folder, *training[folder]) for folder in method.training_images if folder in training]
    seen += [("scikit-image's photographs", *photographs_in(text)) for text in told]
    for folder, names, hashes in seen:
        shared = {readable[test]: names[train] for test, train in near(test_set.hashes, hashes)}
        if shared:
            first = min(shared)
            text = (
                f"{method.name} was trained on scenes of {test_set.name}: {len(shared)} of its "
                f"{counted(len(test_set), 'image')} show one that is in {folder}; {test_set.names[first]} is "
                f"{shared[first]} there"
            )
            found.append(_caution("overlap", text, test_set, method))
    for training_set in told:
        reason = test_set.known and seen_by_training(training_set, test_set.known.name)
        if reason and not found:
            text = f"{method.name} was trained on {training_set} and has seen scenes of {test_set.name}: {reason}"
            found.append(_caution("overlap", text, test_set, method))
    return found


def _failures(rows: Sequence[Row]) -> list[WarningInfo]:
    found: list[WarningInfo] = []
    for row in rows:
        if row["failed"]:
            total = row["failed"] + row["images"]
            text = f"{row['method']} failed on {row['failed']} of {counted(total, 'image')} of {row['dataset']}"
            text += f"; its means are of the other {row['images']}" if row["images"] else ""
            found.append({"kind": "failed", "text": text, "datasets": [row["dataset"]], "methods": [row["method"]]})
    return found


def _training_data(methods: Sequence[Method], missing: Mapping[str, str]) -> list[WarningInfo]:
    found: list[WarningInfo] = []
    trained = [method for method in methods if method.network is not None]
    silent = [method.name for method in trained if method.trained_on is None]
    if silent:
        text = f"What {_list(silent)} {_were(silent)} trained on is not said (trained_on)"
        found.append({"kind": "training", "text": text, "datasets": [], "methods": silent})
    if len({method.trained_on for method in trained if method.trained_on}) > 1:
        text = "The methods were trained on different data, so the order of their rows ranks no method by itself"
        names = [method.name for method in trained if method.trained_on]
        found.append({"kind": "training", "text": text, "datasets": [], "methods": names})
    for folder, reason in missing.items():
        names = [method.name for method in methods if folder in method.training_images]
        text = f"Whether {_list(names)} {_were(names)} trained on test scenes is not checked: {reason}"
        found.append({"kind": "training", "text": text, "datasets": [], "methods": names})
    return found


def _protocols(
    methods: Sequence[Method], pairs: Sequence[tuple[Method, TestSet]], protocols: Sequence[str]
) -> list[WarningInfo]:
    found: list[WarningInfo] = []
    roundings = Counter(method.rounding for method in methods if method.options.type not in ("input", "images"))
    if len(roundings) > 1:
        odd = roundings.most_common()[-1][0]
        names = [method.name for method in methods if method.rounding == odd]
        text = f"Results are not rounded alike: those of {_list(names)} by {odd}, which alone makes up to 0.2 dB"
        found.append({"kind": "protocol", "text": text, "datasets": [], "methods": names})
    used: dict[str, dict[str, list[str]]] = {}
    for method, test_set in pairs:
        published = method.options.published.get(test_set.name)
        if published is None:
            continue
        used.setdefault(test_set.name, {}).setdefault(published.protocol, []).append(method.name)
        if published.protocol not in protocols:
            text = (
                f"The published figures of {method.name} on {test_set.name} are under {published.protocol}, which is "
                "not measured here: they are no comparison"
            )
            found.append(_caution("protocol", text, test_set, method))
    for dataset, by_protocol in used.items():
        if len(by_protocol) > 1:
            parts = [f"{protocol} ({_list(names)})" for protocol, names in by_protocol.items()]
            text = f"The published figures on {dataset} are under several protocols: {_list(parts)}"
            names = [name for group in by_protocol.values() for name in group]
            found.append({"kind": "protocol", "text": text, "datasets": [dataset], "methods": names})
    return found


def _counts(test_set: TestSet) -> list[WarningInfo]:
    known = test_set.known
    if known is None or not test_set.paired or known.pairs == len(test_set):
        return []
    part = f", every {ordinal(test_set.every)} image" if test_set.every > 1 else ""
    text = f"{test_set.name} has {counted(len(test_set), 'pair')}{part}; {known.name} has {known.pairs}"
    return [_caution("count", text, test_set)]


def _duplicates(test_set: TestSet) -> list[WarningInfo]:
    found = []
    count, scenes = len(test_set), len(set(test_set.scenes))
    if scenes < count:
        note = f" ({test_set.known.note})" if test_set.known and test_set.known.note else ""
        intervals = "; intervals are over scenes" if scenes >= FEWEST else ""
        text = f"The {count} images of {test_set.name} show {counted(scenes, 'scene')}{note}{intervals}"
        found.append(_caution("duplicates", text, test_set))
    return found


def _caution(kind: str, text: str, test_set: TestSet, method: Method | None = None) -> WarningInfo:
    methods = [] if method is None else [method.name]
    return {"kind": kind, "text": text, "datasets": [test_set.name], "methods": methods}  # type: ignore[typeddict-item]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"
