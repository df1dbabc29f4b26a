"""Arguments that several commands have, and those of BasicSR's own scripts that have another form here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config import Request


def add_weights(parser: argparse._ActionsContainer, weights_help: str, of: str = "", several: bool = False) -> None:
    """``--weights`` and what says which of a file's or folder's are meant: ``--key``, ``--iteration``.

    With ``several`` it is a list, or None.
    """
    parser.add_argument("-w", "--weights", action="append" if several else "store", metavar="FILE", help=weights_help)
    key_help = f"{of}where in a checkpoint the weights are, where that is not plain (docs/networks.md)"
    parser.add_argument("--key", metavar="NAME", help=key_help)
    iteration_help = f"{of}of a training run: latest (the default), best (of val.best), or a checkpoint's number"
    parser.add_argument("--iteration", type=_iteration, default="latest", metavar="N", help=iteration_help)


def _iteration(text: str) -> int | str:
    if text in ("latest", "best"):
        return text
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"expected latest, best or a number, got {text!r}")
    return int(text)


def add_device(parser: argparse._ActionsContainer, of: str = "") -> None:
    """``--device``, by the names that `devices.pick_device` knows."""
    device_help = f"{of}auto (the default: CUDA, else MPS, else the CPU), cpu, cuda, cuda:1 ... or mps"
    parser.add_argument("--device", default="auto", metavar="D", help=device_help)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What commands have in common that take an option file."""
    parser.add_argument("-opt", "--opt", type=Path, required=True, metavar="FILE", help="YAML option file")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="override a key: train.total_iter=1000")
    add_device(parser, "where to compute: ")
    launchers = ("none", "pytorch", "slurm")
    launcher_help = "what started several processes: torchrun (pytorch) or srun (slurm)"
    parser.add_argument("--launcher", choices=launchers, default="none", help=launcher_help)
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    root_help = "where experiments/, results/ and tb_logger/ are made (default: here)"
    parser.add_argument("--root", type=Path, default=Path(), metavar="DIR", help=root_help)
    parser.add_argument("--force_yml", nargs="*", action=_ForceYml, help=argparse.SUPPRESS)
    parser.add_argument("--debug", nargs=0, action=_Debug, help=argparse.SUPPRESS)


def request_of(arguments: argparse.Namespace) -> Request:
    """What the arguments of `add_run_arguments` ask for."""
    from ..config import Request

    return Request(
        option_file=arguments.opt,
        overrides=arguments.settings,
        device=arguments.device,
        launcher=arguments.launcher,
        auto_resume=getattr(arguments, "auto_resume", False),
        root=arguments.root,
    )


class _ForceYml(argparse.Action):
    """BasicSR's way to override keys, which runs its values as code."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: str | Sequence[Any] | None, *_: Any
    ) -> None:
        given = [str(value) for value in values or ("train:total_iter=1000",)]
        keys = (text.partition("=") for text in given)
        here = " ".join(f"{key.replace(':', '.')}{equals}{value}" for key, equals, value in keys)
        parser.error(f"--force_yml: keys are overridden without it, with dots between their parts: {here}")


class _Debug(argparse.Action):
    """BasicSR's way to have a run log, validate and save every few iterations."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(
            "--debug: override what it would change: name=debug val.val_freq=8 logger.print_freq=1 "
            "logger.save_checkpoint_freq=8"
        )
