"""Show what is registered, a line each; 'basicsr list archs' shows what is known of every network."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..archs.published import Published

KINDS = {"archs": "arch", "datasets": "dataset", "losses": "loss", "metrics": "metric", "models": "model"}
MMENGINE = "mmengine"
"""What is registered with mmengine alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        nargs="?",
        choices=[*KINDS, MMENGINE],
        help="only these; of archs, also licence, source, what they take, and published files",
    )
    parser.add_argument("--all", action="store_true", help="also BasicSR's own classes")


def run(arguments: argparse.Namespace) -> int:
    if arguments.kind == "archs":
        _show_networks()
    _show_registered(arguments.kind, arguments.all)
    return 0


def _show_registered(kind: str | None, stock: bool) -> None:
    from ..archs.catalogue import CATALOGUE
    from ..plugin import ENTRIES, first_sentence, register, registries

    register()
    own = {(entry.kind, entry.name): entry for entry in ENTRIES}
    shown = {("arch", card.name) for card in CATALOGUE} if kind == "archs" else set()
    rows = []
    for found_kind, table in registries().items():
        if kind is not None and found_kind != KINDS.get(kind):
            continue
        for name, found in sorted(table):
            entry = own.get((found_kind, name))
            if (found_kind, name) in shown or (entry is None and not stock):
                continue
            name = name.removesuffix("_basicsr")  # which BasicSR adds, and option files leave out
            rows.append((found_kind, name, f"BasicSR: {first_sentence(found)}" if entry is None else entry.summary))
    if kind in (None, MMENGINE):
        rows += [(entry.kind, entry.name, entry.summary) for entry in ENTRIES if entry.kind.startswith("mm_")]
    width = max((len(name) for _, name, _ in rows), default=0)
    for found_kind, name, summary in rows:
        _show(f"{found_kind:12} {name:{width}}  ", summary)


def _show_networks() -> None:
    from ..archs.catalogue import CATALOGUE, INSTALL_EXTRA, OWN

    for card in CATALOGUE:
        origin = {OWN: "this package", "basicsr": "BasicSR"}.get(card.package, card.package)
        if not card.installed:
            origin += f", not installed: {INSTALL_EXTRA}"
        if card.from_file_only:
            origin += "; only from a file, with type: PretrainedNet"
        size = "any size" if card.multiple == 1 else f"sizes padded to multiples of {_multiple(card.multiple)}"
        size += ", square" if card.square else ""
        size += f", at least {card.minimum}" if card.minimum > 1 else ""
        lines = [
            ("paper", card.paper),
            ("source", card.source),
            ("licence", card.licence),
            ("code", origin),
            ("input", f"{card.takes}, {size}{_whole(card.whole_image)}"),
        ]
        lines += [("weights", _weights(published)) for published in card.published]
        print(card.name)
        for title, text in lines:
            _show(f"    {title:8} ", text)
        print()


def _weights(published: Published) -> str:
    place = f", in {published.source}" if published.source else ""
    return f"{published.file}{place}: {published.trained_on}"


def _show(head: str, text: str) -> None:
    """A line, in several where a terminal is too narrow for it: what another program reads keeps to one."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    wide = room - len(head)
    lines = textwrap.wrap(text, wide, break_long_words=False, break_on_hyphens=False) if wide > 20 else [text]
    print(head + f"\n{' ' * len(head)}".join(lines) if text else head.rstrip())


def _whole(whole_image: bool | str) -> str:
    if not whole_image:
        return ""
    return "; sees the whole image at once" + (f" with {whole_image}" if isinstance(whole_image, str) else "")


def _multiple(multiple: int | str) -> str:
    return str(multiple) if isinstance(multiple, int) else f"its {multiple.rpartition('.')[2]}"
