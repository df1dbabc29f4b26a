"""The ``basicsr`` command: one module a command; parse, call, print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import RainOerMeError, one_line
from . import benchmark, prepare, test, train
from . import list as list_command

COMMANDS = {"train": train, "test": test, "benchmark": benchmark, "prepare": prepare, "list": list_command}
USER_ERROR = 2
INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The command line, with every command's own part."""
    parser = argparse.ArgumentParser(
        prog="basicsr", description="Train and compare image derainers without paired data, with BasicSR."
    )
    parser.add_argument("--version", action="version", version=f"rainoerme_plugin {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        part = commands.add_parser(name, help=summary.rstrip("."), description=module.__doc__)
        module.add_arguments(part)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what the user can mend becomes one line on standard error and exit status 2."""
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    # argparse takes KEY=VALUE arguments only in one run; people write them on both sides of an option.
    if rest and hasattr(parsed, "settings") and all("=" in word and word[0] != "-" for word in rest):
        parsed.settings += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return COMMANDS[parsed.command].run(parsed)
    except RainOerMeError as error:
        print(f"basicsr {parsed.command}: error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"basicsr {parsed.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return INTERRUPTED
