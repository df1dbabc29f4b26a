"""An exported network beside PyTorch, on real images: how near, and how fast. One JSON line an image, and one for all.

    RAINOERME_DATA=DIR python scripts/bench_onnx.py --weights FILE [--images DIR] [--count N] [--repeats N]

On a CPU, with the same threads and in turn; ends with status 1 if a value differs by 1e-4 or more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from measure import emit, in_turn, say

from rainoerme_plugin.archs.adapt import derain
from rainoerme_plugin.archs.onnx_net import OnnxNet
from rainoerme_plugin.data.images import SUFFIXES, decode_image, to_tensor
from rainoerme_plugin.devices import keep_memory
from rainoerme_plugin.inference.export import TOLERANCE, export_network
from rainoerme_plugin.inference.opening import open_network


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--weights", help="as of basicsr export")
    parser.add_argument("--images", type=Path, help="folder (default: $RAINOERME_DATA/real_rain)")
    parser.add_argument("--count", type=int, default=20, help="of images, all of different sizes where there are such")
    parser.add_argument("--repeats", type=int, default=3, help="of every timing")
    arguments = parser.parse_args()
    folder = arguments.images or Path(os.environ.get("RAINOERME_DATA", "datasets")) / "real_rain"
    keep_memory()
    device = torch.device("cpu")
    opened = open_network(arguments.weights)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "derainer.onnx"
        with torch.inference_mode(False):
            export_network(opened.network, opened.needs, path)
        exported = OnnxNet(path)
    network = opened.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    differences, ratios = [], []
    for file in of_different_sizes(folder, arguments.count):
        say(file.name)
        plain = to_tensor(decode_image(file))[None]
        rainy = plain.to(memory_format=torch.channels_last)
        difference = float((derain(network, rainy, opened.needs).clamp(0, 1) - exported(plain)).abs().max())
        ways = {
            "pytorch": lambda rainy=rainy: derain(network, rainy, opened.needs).clamp(0, 1),
            "onnxruntime": lambda plain=plain: exported(plain),
        }
        times = in_turn(ways, device, arguments.repeats)
        differences.append(difference)
        ratios.append(times["onnxruntime"]["times_as_fast"])
        size = [plain.shape[3], plain.shape[2]]
        emit("onnx_image", device, image=file.name, size=size, difference=difference, times=times)
    largest, ratio = max(differences), statistics.median(ratios)
    emit("onnx", device, network=opened.name, images=len(ratios), largest_difference=largest, times_as_fast=ratio)
    sys.exit(not largest < TOLERANCE)


def of_different_sizes(folder: Path, count: int) -> list[Path]:
    """So many images of a folder: first one of each size, smallest first and evenly taken, then any."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    sizes: dict[tuple[int, ...], Path] = {}
    for file in files:
        sizes.setdefault(decode_image(file).shape, file)
    found = [sizes[size] for size in sorted(sizes)]
    if len(found) > count:
        found = [found[place * (len(found) - 1) // max(count - 1, 1)] for place in range(count)]
    return found + [file for file in files if file not in found][: count - len(found)]


if __name__ == "__main__":
    main()
