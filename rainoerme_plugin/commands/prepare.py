"""Check images, make soft labels, pack LMDBs, make the demo data set.

All of it may be interrupted and run again: what is done stays done.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import DataError, OptionError

DEFAULT_LABEL = {"type": "opening"}
"""The filter of options/distill.yml."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")

    check = parts.add_parser("check", help="read every image; report sizes, broken files, pairs")
    check.add_argument("paths", nargs="+", metavar="PATH", help="folder, LMDB, data set with pairs, or list file")
    layouts = ("auto", "halves-rainy-clean", "halves-clean-rainy")
    check.add_argument("--layout", choices=layouts, default="auto", help="for pictures with both images side by side")
    check.set_defaults(part_run=_check)

    labels = parts.add_parser("labels", help="make the soft labels of a folder of rainy images")
    labels.add_argument("rainy", type=Path, metavar="RAINY", help="folder or LMDB of rainy images")
    filter_help = (
        "the filter, by the keys of datasets.train.label: type=rank percent=20 (default: type=opening window=[1,9])"
    )
    labels.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=filter_help)
    output_help = "folder for the labels, under the images' names (default: the label cache, where training looks)"
    labels.add_argument("-o", "--output", type=Path, metavar="DIR", help=output_help)
    labels.add_argument("--cache", type=Path, metavar="DIR", help="another label cache than the default")
    labels.set_defaults(part_run=_labels)

    pack = parts.add_parser("lmdb", help="pack a folder of images into an LMDB in BasicSR's layout")
    pack.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images")
    pack.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.lmdb", help="the LMDB; must not exist")
    pack.set_defaults(part_run=_lmdb)

    demo = parts.add_parser("demo", help="make the demo data set: scikit-image's photographs, with rendered rain")
    place = Path("datasets/demo")
    demo.add_argument("-o", "--output", type=Path, default=place, metavar="DIR", help=f"where (default: {place})")
    demo.set_defaults(part_run=_demo)


def run(arguments: argparse.Namespace) -> int:
    return int(arguments.part_run(arguments))


def _check(arguments: argparse.Namespace) -> int:
    from ..data.survey import survey
    from ..progress import track

    broken = 0
    for path in arguments.paths:
        found = survey(path, arguments.layout, track)
        kind = f"pairs by the rule '{found.rule}'" if found.rule else "images"
        print(f"{found.where}: {found.count} {kind}")
        if found.sizes:
            widths, heights = zip(*found.sizes, strict=True)
            common = [f"{width}x{height} ({count})" for (width, height), count in found.sizes.most_common(5)]
            more = ", ..." if len(found.sizes) > len(common) else ""
            print(f"  width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}", end=": ")
            print(", ".join(common) + more)
        others = [f"{count} {mode}" for mode, count in found.modes.items() if mode != "RGB"]
        if others:
            print(f"  not plain RGB, converted when read: {', '.join(others)}")
        for message in found.broken:
            print(f"  broken: {message}")
        broken += len(found.broken)
    if broken:
        raise DataError(f"{broken} of what was read cannot be used; see above")
    return 0


def _labels(arguments: argparse.Namespace) -> int:
    import yaml

    from ..data.images import write_whole
    from ..data.labels import filtered_labels
    from ..data.sources import open_source
    from ..options import LabelOptions, read_section
    from ..progress import track

    settings: dict[str, object] = {}
    for text in arguments.settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"'{text}': expected KEY=VALUE, such as window=[1,9]")
        settings[key] = yaml.safe_load(value)
    coarse_filter = read_section(LabelOptions, settings or DEFAULT_LABEL, "label").build()
    if coarse_filter is None:
        raise OptionError("label: 'type: folder' names labels that are made already")
    rainy = open_source(arguments.rainy)
    labels = filtered_labels(rainy, coarse_filter, arguments.cache, track)
    where = labels.paths[0].parent.parent
    if arguments.output:
        where = arguments.output
        for index in track(range(len(labels)), len(labels), f"copying to {where}"):
            write_whole((where / rainy.names[index]).with_suffix(".png"), labels.encoded(index))
    print(f"{len(labels)} soft labels by {coarse_filter.key} in {where}")
    return 0


def _lmdb(arguments: argparse.Namespace) -> int:
    from ..data.lmdb_store import write_lmdb
    from ..data.sources import FolderSource
    from ..progress import track

    source = FolderSource(arguments.folder)
    images = ((name, source.encoded(index)) for index, name in enumerate(source.names))
    capacity = sum(path.stat().st_size + 8192 for path in source.paths)
    written = write_lmdb(arguments.output, images, capacity)
    count = sum(1 for _ in track(written, len(source), f"packing {arguments.output}"))
    print(f"{count} images in {arguments.output}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from ..data.demo import CLEAN, RAINY, TEST, demo_size, make_demo
    from ..progress import track

    count = sum(1 for _ in track(make_demo(arguments.output), demo_size(), "demo data set"))
    print(
        f"{count} images in {arguments.output}: {len(RAINY)} photographs with rendered rain, {len(CLEAN)} clean ones, "
        f"{len(TEST)} others to test on"
    )
    return 0
