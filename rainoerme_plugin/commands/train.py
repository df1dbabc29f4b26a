"""Train from an option file of BasicSR's, the plugin's or your own.

Every key of the file can be overridden: basicsr train -opt options/distill.yml train.total_iter=1000
With --engine mmengine its Runner trains, from the same file or from a config of its own (.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import Request


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What training and testing have in common."""
    parser.add_argument("-opt", "--opt", type=Path, required=True, metavar="FILE", help="YAML option file")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="override a key: train.total_iter=1000")
    devices = ("auto", "cpu", "cuda", "mps")
    parser.add_argument("--device", choices=devices, default="auto", help="where to compute (default: auto)")
    launchers = ("none", "pytorch", "slurm")
    launcher_help = "what started several processes: torchrun (pytorch) or srun (slurm)"
    parser.add_argument("--launcher", choices=launchers, default="none", help=launcher_help)
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    root_help = "where experiments/, results/ and tb_logger/ are made (default: here)"
    parser.add_argument("--root", type=Path, default=Path(), metavar="DIR", help=root_help)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--auto_resume", action="store_true", help="go on from the experiment's last saved state")
    engine_help = "whose loop trains; both read each other's checkpoints (default: basicsr)"
    parser.add_argument("--engine", choices=("basicsr", "mmengine"), default="basicsr", help=engine_help)


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
