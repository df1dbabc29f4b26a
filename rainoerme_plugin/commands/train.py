"""Train from an option file of BasicSR's, the plugin's or your own.

Every key of the file can be overridden: basicsr train -opt options/distill.yml train.total_iter=1000
With --engine mmengine its Runner trains, from the same file or from a config of its own (.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import add_run_arguments, request_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--auto_resume", action="store_true", help="go on from the experiment's last saved state")
    engine_help = "whose loop trains; both read each other's checkpoints (default: basicsr)"
    parser.add_argument("--engine", choices=("basicsr", "mmengine"), default="basicsr", help=engine_help)


def run(arguments: argparse.Namespace) -> int:
    request = request_of(arguments)
    if arguments.engine == "mmengine":
        from ..mm.training import train as train_by_mmengine

        network = train_by_mmengine(request)
    else:
        from ..engine.training import train

        opt = train(request)
        network = Path(opt["path"]["models"]) / "net_g_latest.pth" if opt["rank"] == 0 else None
    if network is not None:
        print(f"Network: {network}")
    return 0
