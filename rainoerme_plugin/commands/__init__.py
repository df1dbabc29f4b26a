"""The ``basicsr`` command: one module a command; parse, call, print."""

from __future__ import annotations

import argparse
import atexit
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .. import __version__
from ..errors import RainOerMeError, one_line
from . import benchmark, derain, export, prepare, test, train
from . import list as list_command

COMMANDS = {
    "derain": derain,
    "train": train,
    "test": test,
    "benchmark": benchmark,
    "export": export,
    "prepare": prepare,
    "list": list_command,
}
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
        part = commands.add_parser(
            name,
            help=summary.rstrip("."),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(part)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what the user can mend becomes one line on standard error and exit status 2."""
    _open_what_is_closed()
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    # argparse takes KEY=VALUE arguments only in one run; people write them on both sides of an option.
    if rest and hasattr(parsed, "settings") and all("=" in word and word[0] != "-" for word in rest):
        parsed.settings += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    _print_errors_alone()
    with _ending_like_ctrl_c():
        status = _run(parsed)
    _drop_what_cannot_be_written()
    if _joined_others():
        # PyTorch's threads may still be busy with what Python now takes down, and then abort the process. And after an
        # error others may be gone: to take leave of them could take as long as one waits for an answer.
        if not status:
            atexit._run_exitfuncs()
        os._exit(status)
    return status


def _open_what_is_closed() -> None:
    """Give the null device to standard streams that were closed before we began, as under some daemons.

    The next file that is opened would have the number of one, and what libraries print would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # as a rule that is its number
            os.dup2(null, number)  # child processes have it, too
            if null != number:
                os.close(null)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _print_errors_alone() -> None:
    """Let nobody but us talk about damaged images, and print names of files that are no Unicode."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(parsed: argparse.Namespace) -> int:
    try:
        return COMMANDS[parsed.command].run(parsed)
    except RainOerMeError as error:
        message = one_line(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            if sys.stderr is not None:
                sys.stderr.close()
            return INTERRUPTED
        message = one_line(error) if error.filename else f"a file: {one_line(error)}"
    except MemoryError as error:
        message = f"out of memory: {one_line(error)}"
    except KeyboardInterrupt:
        _say(f"basicsr {parsed.command}: interrupted")
        return INTERRUPTED
    _say(f"basicsr {parsed.command}: error: {message}")
    return USER_ERROR


def _drop_what_cannot_be_written() -> None:
    """Python would try once more as it ends, and make a failure of that the exit status."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError):
            setattr(sys, name, None)


def _say(line: str) -> None:
    from ..progress import end_all, say

    end_all()
    say(line)


@contextmanager
def _ending_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: half-written files are removed, and nothing is printed but a line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _joined_others() -> bool:
    processes = sys.modules.get("rainoerme_plugin.processes")
    return processes is not None and bool(processes.has_joined())
