"""Check images, make soft labels, find rain in plain places, pack LMDBs, make the demo data set.

All of it may be interrupted and run again: what is done stays done. Labels and LMDBs may be made in parts, by processes
on many machines that know nothing of each other (docs/scaling.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, OptionError, counted, one_line
from .arguments import add_device, add_weights

if TYPE_CHECKING:
    from ..data.images import RGB
    from ..data.shards import Part
    from ..data.sources import FileSource, ImageSource, LmdbSource, Sizes
    from ..data.survey import Survey
    from ..distillation.coarse import CoarseFilter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")

    check = parts.add_parser("check", help="read every image; report sizes, broken files, pairs")
    check.add_argument("paths", nargs="+", metavar="PATH", help="folder, LMDB, data set with pairs, or list file")
    layouts = ("auto", "halves-rainy-clean", "halves-clean-rainy")
    check.add_argument("--layout", choices=layouts, default="auto", help="for pictures with both images side by side")
    outside_help = "read also what a list file names outside its own folder"
    check.add_argument("--allow-outside", action="store_true", help=outside_help)
    pairs_help = "two PATHs are one data set with pairs: the folder of the rainy images, that of their clean versions"
    check.add_argument("--pairs", action="store_true", help=pairs_help)
    check.set_defaults(part_run=_check)

    labels = parts.add_parser("labels", help="make the soft labels of a folder of rainy images")
    labels.add_argument("rainy", type=Path, metavar="RAINY", help="folder or LMDB of rainy images")
    filter_help = (
        "the filter, by the keys of datasets.train.label: type=rank percent=20 (default: that of options/distill.yml, "
        "type=streaks window=[1,9])"
    )
    labels.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=filter_help)
    output_help = "folder for the labels, or NAME.lmdb, under the images' names: for 'type: folder'"
    labels.add_argument("-o", "--output", type=Path, metavar="OUT", help=output_help)
    cache_help = "folder to keep them in under names of their own: for label_cache"
    labels.add_argument("--cache", type=Path, metavar="DIR", help=cache_help)
    weights_help = (
        "a network in place of a filter: a training run's folder, or a checkpoint; its output is the label. With "
        "type=best_of one more of its filters, and may be given several times"
    )
    add_weights(labels, weights_help, "with --weights: ", several=True)
    labels.add_argument("--flips", action="store_true", help="with --weights: the mean over four flips of each image")
    add_device(labels, "with --weights: ")
    labels.set_defaults(part_run=_labels)

    rain = parts.add_parser("rain", help="find rain in plain places of rainy photographs, and show it on sheets")
    rain.add_argument("rainy", type=Path, metavar="RAINY", help="folder or LMDB of rainy photographs")
    keys_help = "what to look for, by the keys of datasets.train.rain: evidence=1.35 lean=90 (options/distill.yml)"
    rain.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=keys_help)
    look_help = "a new folder: sheet-1.png ... to look at, and squares/ for 'rain: {type: folder, path: OUT/squares}'"
    rain.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=look_help)
    kept_help = "folder to keep what is found in, for a next time and for training: datasets.train.rain.cache"
    rain.add_argument("--cache", metavar="DIR", help=kept_help)
    rain.set_defaults(part_run=_rain)

    pack = parts.add_parser("lmdb", help="pack a folder of images into an LMDB in BasicSR's layout")
    pack.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images")
    pack.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.lmdb", help="the LMDB; must not exist")
    pack.set_defaults(part_run=_lmdb)

    decoded_help = "in an LMDB, uncompressed: some times the size, and crops are read without decoding an image"
    for part in (labels, pack):
        part.add_argument("--decoded", action="store_true", help=decoded_help)
    part_help = "only the K-th of N parts of the images, K from 1; NAME.lmdb is then a folder of N shards"
    for part in (labels, pack):
        part.add_argument("--part", dest="of_parts", metavar="K/N", help=part_help)

    demo = parts.add_parser("demo", help="make the demo data set: scikit-image's photographs, with rendered rain")
    place = Path("datasets/demo")
    demo.add_argument("-o", "--output", type=Path, default=place, metavar="DIR", help=f"where (default: {place})")
    demo.add_argument("--renderings", type=int, default=6, metavar="N", help="of each rainy photograph (default: 6)")
    scale_help = "rainy photographs to train on have streaks up to so many times as large (default: 1)"
    demo.add_argument("--scale", type=float, default=1.0, metavar="S", help=scale_help)
    demo.set_defaults(part_run=_demo)


def run(arguments: argparse.Namespace) -> int:
    return int(arguments.part_run(arguments))


def _check(arguments: argparse.Namespace) -> int:
    from ..data.survey import survey, survey_pairs
    from ..progress import track

    if arguments.pairs:
        if len(arguments.paths) != 2 or arguments.layout != "auto":
            raise OptionError("--pairs takes two folders and no --layout: prepare check --pairs RAINY CLEAN")
        rainy, clean = arguments.paths
        surveys: Iterable[Survey] = [survey_pairs(rainy, clean, track)]
    else:
        surveys = (
            survey(path, arguments.layout, track, allow_outside=arguments.allow_outside) for path in arguments.paths
        )
    broken = 0
    for found in surveys:
        rule = f" by the rule '{found.rule}'" if found.rule else ""
        print(f"{found.where}: {counted(found.count, 'pair' if found.rule else 'image')}{rule}")
        if found.sizes:
            widths, heights = zip(*found.sizes, strict=True)
            common = [f"{width}x{height} ({count})" for (width, height), count in found.sizes.most_common(5)]
            more = ", ..." if len(found.sizes) > len(common) else ""
            print(f"  width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}", end=": ")
            print(", ".join(common) + more)
        others = [f"{count} {mode}" for mode, count in found.modes.items() if mode != "RGB"]
        if others:
            print(f"  not plain RGB, converted when read: {', '.join(others)}")
        for note in found.notes:
            print(f"  {note}")
        for message in found.broken:
            print(f"  broken: {message}")
        broken += len(found.broken)
    if broken:
        raise DataError(f"{broken} of what was read cannot be used; see above")
    return 0


def _labels(arguments: argparse.Namespace) -> int:
    from ..data.labels import SoftLabels, kept_labels, label_names
    from ..data.sources import FileSource, in_threads, is_lmdb, open_source
    from ..devices import pick_device
    from ..progress import track

    pick_device(arguments.device)  # filters take none, yet a name that is none is no name for them either
    coarse_filter = _coarse_filter(arguments)
    opened = open_source(arguments.rainy)
    _note(opened.notes)
    rainy: FileSource | LmdbSource = opened
    if not (arguments.output or arguments.cache):
        raise OptionError(
            "give -o OUT or --cache DIR: where the labels go. Training needs neither, it makes them as it goes"
        )
    packed = arguments.output is not None and is_lmdb(arguments.output)
    if arguments.decoded and not packed:
        raise OptionError("--decoded is for an LMDB: -o NAME.lmdb")
    part = _part(arguments)
    names = label_names(rainy) if arguments.output else rainy.names
    numbers = part.of(len(rainy)) if part else range(len(rainy))
    if arguments.output and not packed and isinstance(rainy, FileSource):
        _spare(rainy, arguments.output, names)
    if part:
        rainy = rainy.pick(numbers)
    labels: ImageSource = SoftLabels(rainy, coarse_filter)
    if arguments.cache:
        labels = kept_labels(rainy, coarse_filter, arguments.cache, track)
    content = f"soft labels ({coarse_filter.key})"
    if packed:
        made = in_threads(lambda index: (names[numbers[index]], labels.read(index)), range(len(labels)), ahead=16)
        capacity = _decoded_size(labels.sizes(track))
        _pack(made, len(labels), arguments.output, capacity, arguments.decoded, content, names, part)
    elif arguments.output:
        _write_labels(labels, names[numbers.start : numbers.stop], arguments.output, content)
    place = f"{arguments.output or arguments.cache}{_of(part)}"
    print(f"{counted(len(labels), 'soft label')} by {coarse_filter.key} in {place}")
    return 0


def _spare(rainy: FileSource, output: Path, names: Sequence[str]) -> None:
    """Refuse to write a label over a rainy image."""
    from ..files import inode

    images = {inode(path): path for path in rainy.paths}
    for name in names:
        which = inode(output / name)
        if which is not None and which in images:
            raise OptionError(f"{output / name} is a rainy image itself ({images[which]}); -o must name another folder")


def _coarse_filter(arguments: argparse.Namespace) -> CoarseFilter:
    """A filter, or a network in place of one, or for each photograph the best of filters and networks."""
    from ..distillation.adaptive import BestFilter

    weights = arguments.weights or []
    if len(weights) == 1 and not arguments.settings:
        return _network(arguments, weights[0])
    found = _filter(arguments)
    if not (weights and isinstance(found, BestFilter)):
        return found
    return replace(found, filters=(*found.filters, *(_network(arguments, each) for each in weights)))


def _filter(arguments: argparse.Namespace) -> CoarseFilter:
    from ..distillation.adaptive import BestFilter
    from ..options import DEFAULT_LABEL, LabelOptions, read_section

    if arguments.flips and not arguments.weights:
        raise OptionError("--flips is for labels by a network: give --weights, too")
    settings = {**DEFAULT_LABEL, **_settings(arguments.settings, "window=[1,9]")}
    if arguments.weights:
        if settings["type"] != BestFilter.name:
            given = arguments.settings[0] if arguments.settings else "all but one of them"
            raise OptionError(
                f"--weights makes the labels, so no filter can: leave out {given}, or give type=best_of, which takes "
                "for each photograph the best label of filters and networks"
            )
        settings.setdefault("measure", "separation")  # the other one is for filters
    coarse_filter = read_section(LabelOptions, settings, "label").build()
    if coarse_filter is None:
        raise OptionError("label: 'type: folder' names labels that are made already")
    return coarse_filter


def _settings(texts: Iterable[str], example: str) -> dict[str, object]:
    """What KEY=VALUE arguments say."""
    from ..config import parse_yaml

    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"'{text}': expected KEY=VALUE, such as {example}")
        settings[key] = parse_yaml(value, f"'{text}'")
    return settings


def _network(arguments: argparse.Namespace, weights: str) -> CoarseFilter:
    from ..inference.derainer import load_derainer
    from ..inference.labels import NetworkLabels

    derainer = load_derainer(weights, key=arguments.key, iteration=arguments.iteration, device=arguments.device)
    opened = derainer.opened
    return NetworkLabels(derainer, f"{opened.identity[:16]}-{opened.code[:8]}", arguments.flips)


def _rain(arguments: argparse.Namespace) -> int:
    from ..data.images import encode_png
    from ..data.rain import ADVICE, NEEDED, PHOTOGRAPHS, find_plain_rain
    from ..data.sheets import cells_of, sheet_paths, sheets_of, square_names
    from ..data.sources import open_source
    from ..files import write_whole
    from ..options import RainBankOptions, read_section
    from ..progress import track

    settings = {"type": "plain", **_settings(arguments.settings, "evidence=1.35")}
    if arguments.cache is not None:
        settings["cache"] = arguments.cache
    options = read_section(RainBankOptions, settings, "rain")
    places = options.build()
    if places is None:
        raise OptionError("rain: 'type: folder' names rain that is found already")
    rainy = open_source(arguments.rainy)
    _note(rainy.notes)
    output = arguments.output
    _is_new(output)
    found = find_plain_rain(rainy, places, options.photographs or PHOTOGRAPHS, options.cache, track)
    if not found.count:
        raise DataError(f"{arguments.rainy}: {found}; {ADVICE}")
    cells = cells_of(found, rainy, track)
    try:
        for names, patches in zip(square_names(found), found.patches, strict=True):
            for name, patch in zip(names, patches, strict=True):
                write_whole(output / "squares" / name, encode_png(patch.rain))
        sheets = sheet_paths(output, len(cells))
        for path, sheet in zip(sheets, sheets_of(cells), strict=True):
            write_whole(path, encode_png(sheet))
    except OSError as error:
        raise DataError(f"cannot keep the rain that was found: {one_line(error)}") from None
    for line in found.told():
        print(line)
    last = f" to {sheets[-1].name}" if len(sheets) > 1 else ""
    print(f"look at {sheets[0]}{last}, the most evident come first; each square is a file in {output / 'squares'}")
    if not found.is_enough:
        print(f"too few for a bank ({NEEDED}); {ADVICE}", file=sys.stderr)
    return 0


def _is_new(output: Path) -> None:
    """Refuse to mix squares of two runs, or to put sheets among other images."""
    import os

    try:
        there = sorted(os.listdir(output)) if os.path.isdir(output) else []
    except OSError as error:
        raise DataError(f"-o {output}: {one_line(error)}") from None
    if there:
        raise OptionError(f"-o {output}: the folder is not empty, it holds {there[0]}; name a new one, or remove it")


def _lmdb(arguments: argparse.Namespace) -> int:
    from ..data.sources import FolderSource, in_threads
    from ..progress import track

    part, output = _part(arguments), arguments.output
    if part and output.suffix != ".lmdb":
        raise OptionError(f"--part {part}: the shards' folder must be called NAME.lmdb, got -o {output}")
    folder = FolderSource(arguments.folder)
    _note(folder.notes)
    source: FileSource = folder
    names = source.names
    if part:
        source = source.pick(part.of(len(source)))
    files = in_threads(lambda index: (source.names[index], source.encoded(index)), range(len(source)), ahead=16)
    if arguments.decoded:
        capacity = _decoded_size(source.sizes(track))
    else:
        capacity = sum(path.stat().st_size + 8192 for path in source.paths)
    _pack(files, len(source), output, capacity, arguments.decoded, "images", names, part)
    print(f"{counted(len(source), 'image')} in {output}{_of(part)}")
    return 0


def _note(notes: Iterable[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)


def _part(arguments: argparse.Namespace) -> Part | None:
    from ..data.shards import parse_part

    return None if arguments.of_parts is None else parse_part(arguments.of_parts)


def _of(part: Part | None) -> str:
    return f", part {part}" if part else ""


def _write_labels(labels: ImageSource, names: Sequence[str], output: Path, title: str) -> None:
    """Write labels as PNGs of these names into a folder."""
    from ..data.images import write_image
    from ..data.sources import in_threads
    from ..progress import track

    def write(index: int) -> None:
        try:
            write_image(output / names[index], labels.read(index))
        except OSError as error:
            raise DataError(f"cannot write the label {output / names[index]}: {error.strerror}") from None

    for _ in track(in_threads(write, range(len(labels))), len(labels), title):
        pass


def _pack(
    images: Iterable[tuple[str, bytes | RGB]],
    count: int,
    output: Path,
    capacity: int,
    decoded: bool,
    content: str,
    names: Sequence[str],
    part: Part | None,
) -> None:
    """Write ``count`` images into an LMDB, or into the shard of a part; ``names`` are those of all parts."""
    from ..data.lmdb_store import write_lmdb
    from ..data.shards import whole_of, write_shard
    from ..progress import track
    from ..provenance import code_of

    if part is None:
        written = write_lmdb(output, images, capacity, decoded=decoded)
    else:
        if decoded:  # what shards of one LMDB are made of must be decoded alike
            content += f", decoded by {code_of('rainoerme_plugin.data.images')[:8]}"
        whole = whole_of(names, content)
        written = write_shard(output, part, whole, images, capacity, decoded)
    for _ in track(written, count, f"{content} into {output}"):
        pass


def _decoded_size(sizes: Sizes) -> int:
    """Upper bound on the bytes that images of these sizes take without compression."""
    height, width = sizes.astype(int).T
    return int((height * (3 * width + 3) + 8192).sum())


def _demo(arguments: argparse.Namespace) -> int:
    from ..data.demo import CLEAN, RAINY, TEST, demo_size, make_demo
    from ..progress import track

    renderings, scale = arguments.renderings, arguments.scale
    if renderings < 1 or not 1 <= scale <= 10:
        raise OptionError(f"--renderings must be at least 1 and --scale 1 to 10, got {renderings} and {scale}")
    files = make_demo(arguments.output, renderings=renderings, scale=scale)
    count = sum(1 for _ in track(files, demo_size(renderings), "demo data set"))
    print(
        f"{counted(count, 'image')} in {arguments.output}: {len(RAINY)} photographs with rendered rain, "
        f"{len(CLEAN)} clean ones, {len(TEST)} others to test on"
    )
    return 0
