"""Show what is registered, a line each: the plugin's classes, and BasicSR's with --all."""

from __future__ import annotations

import argparse
import inspect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also BasicSR's own classes")


def run(arguments: argparse.Namespace) -> int:
    from ..plugin import ENTRIES, register, registries

    register()
    own = {(entry.kind, entry.name) for entry in ENTRIES}
    rows = []
    for kind, table in registries().items():
        for name, found in sorted(table):
            if arguments.all or (kind, name) in own:
                origin = "" if (kind, name) in own else "BasicSR: "
                rows.append((kind, name, origin + (inspect.getdoc(found) or "").partition("\n")[0]))
    width = max(len(name) for _, name, _ in rows)
    for kind, name, summary in rows:
        print(f"{kind:8} {name:{width}}  {summary}".rstrip())
    return 0
