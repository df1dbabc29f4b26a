"""Write a network to one file that other programs run: ONNX (.onnx), or PyTorch's exported program (.pt2).

basicsr export -w experiments/distill -o derainer.onnx

The file takes images of any size. It is there only if it gives what PyTorch gives.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_weights

if TYPE_CHECKING:
    from ..inference.export import ExportReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    weights_help = (
        "a training run's folder, or a checkpoint of this package or of a network that it or spandrel knows (default: "
        "the network that comes with the package)"
    )
    add_weights(parser, weights_help)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="derainer.onnx, derainer.pt2")
    check_help = "also compare the results on these pictures with PyTorch's (default: on one that is made up)"
    parser.add_argument("--check", nargs="+", type=Path, default=[], metavar="IMAGE", help=check_help)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")


def run(arguments: argparse.Namespace) -> int:
    from ..data.images import decode_image
    from ..errors import OptionError
    from ..files import user_path
    from ..inference.export import check_suffix, export_network
    from ..inference.opening import open_network

    path = user_path(arguments.output)
    check_suffix(path)
    if path.exists() and not arguments.overwrite:
        raise OptionError(f"{path} is there already; --overwrite replaces it")
    images = [decode_image(user_path(image)) for image in arguments.check]
    opened = open_network(arguments.weights, arguments.key, arguments.iteration)
    print(opened.about)
    _show(export_network(opened.network, opened.needs, path, images=images))
    return 0


def _show(report: ExportReport) -> None:
    from ..errors import counted
    from ..inference.export import INPUT, OUTPUT

    opset = "" if report.opset is None else f", opset {report.opset}"
    sizes = f"{counted(report.parameters, 'parameter')}, {counted(report.bytes, 'byte')}"
    print(f"{report.path}: {report.format}{opset}, {sizes}")
    print(f"{INPUT} (batch, 3, height, width), float32 RGB in [0, 1], any size -> {OUTPUT}, the same")
    print(f"largest difference from PyTorch: {report.largest:.2g}, in {counted(len(report.checks), 'check')}")
    if report.opset is None:
        print(
            "    import torch\n"
            f"    network = torch.export.load({str(report.path)!r}).module()\n"
            f"    {OUTPUT} = network({INPUT})"
        )
    else:
        print(
            "    import onnxruntime\n"
            f"    session = onnxruntime.InferenceSession({str(report.path)!r})\n"
            f"    ({OUTPUT},) = session.run(None, {{{INPUT!r}: {INPUT}}})"
        )
