"""Which network earns its time? Each is trained for the same minutes, with the same rain, and scored on pairs.

    RAINOERME_DATA=FOLDER python scripts/networks.py --minutes 5 --root OUT [--only NAME ...] [KEY=VALUE ...]

A network first does some iterations to be timed; then it is trained from the start with as many as the minutes hold,
the learning rate falling over its own length. Let nothing else run, or take OMP_NUM_THREADS=1 and a core for each
process. What is done under OUT is not done again. Prints PSNR (basicsr_y) of the 20 validation pairs of Rain100L, and
at what their clean versions come back: the mean, and the least.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from rainoerme_plugin.archs.catalogue import needs_of
from rainoerme_plugin.archs.tiles import derain_tiled
from rainoerme_plugin.benchmark.cost import count_flops
from rainoerme_plugin.config import read_options
from rainoerme_plugin.data.images import to_image
from rainoerme_plugin.metrics.protocols import psnr
from rainoerme_plugin.models.opening import open_run
from rainoerme_plugin.registered.datasets import PairedRainDataset

RECIPE = Path(__file__).parent.parent / "options" / "rain100l_unpaired_cpu.yml"
UNET = "{type: DerainUNet, channels: 32, encoder: [2, 2], middle: 2, decoder: [2, 1], shrink: 2, attention: true}"
NAFNET = "{{type: NAFNet, width: {}, enc_blk_nums: [{}], middle_blk_num: {}, dec_blk_nums: [{}]}}"
BACKBONES = {
    "DerainUNet": UNET,
    "DerainUNet, channels 24, 1-2, 2, 1-1": UNET.replace("32", "24")
    .replace("2, 2]", "1, 2]")
    .replace("2, 1]", "1, 1]"),
    "DerainUNet, channels 48": UNET.replace("32", "48"),
    "DerainUNet, without attention": UNET.replace("true", "false"),
    "DerainUNet, channels 16, shrink 1": UNET.replace("32", "16").replace("shrink: 2", "shrink: 1"),
    "NAFNet, width 16, 1-1-2, 2, 1-1-1": NAFNET.format(16, "1, 1, 2", 2, "1, 1, 1"),
    "NAFNet, width 32, 2-2, 2, 2-1": NAFNET.format(32, "2, 2", 2, "2, 1"),
    "PReNet": "{type: PReNet, stages: 6}",
}
NETWORKS = {"RainOerMeNet (the paper's)": "{_delete_: true, type: RainOerMeNet, start: kaiming}"} | {
    name: f"{{_delete_: true, type: DistillationNet, backbone: {backbone}}}" for name, backbone in BACKBONES.items()
}
TIMED = 60
"""Iterations by which a network is timed."""
_TIME = re.compile(r"time \(data\): ([\d.]+)")


def train(root: Path, *overrides: str) -> str:
    """A run of the recipe; what it says."""
    common = ["val.val_freq=1000000", "logger.save_checkpoint_freq=1000000", "val.pbar=false", "val.panels=false"]
    command = [sys.executable, "-m", "rainoerme_plugin", "train", "-opt", str(RECIPE), "--root", str(root)]
    run = subprocess.run([*command, *common, *overrides], capture_output=True, text=True, check=True)
    return run.stdout + run.stderr


def figures(folder: Path) -> dict[str, float]:
    """What a trained network gives, and costs."""
    network = open_run(folder).network.eval()
    pairs = PairedRainDataset(name="val", dataroot=read_options(RECIPE)["datasets"]["val"]["dataroot"])
    found: dict[str, list[float]] = {"rainy": [], "clean": []}
    for sample in (pairs[index] for index in range(len(pairs))):
        for kind, image in (("rainy", sample["lq"]), ("clean", sample["gt"])):
            derained = derain_tiled(network, image[None], needs_of(network))
            found[kind].append(psnr(to_image(derained[0]), to_image(sample["gt"]), "basicsr_y"))
    flops, _ = count_flops(network, needs_of(network), 321, 481)
    return {
        "flops": (flops or 0.0) / 1e9,
        "psnr": float(np.mean(found["rainy"])),
        "clean": float(np.mean(found["clean"])),
        "least": float(np.min(found["clean"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    arguments = parser.parse_args()
    print(f"{'network':48s} {'GFLOPs':>7s} {'s/it':>6s} {'iterations':>10s} {'PSNR':>6s} {'clean, least':>13s}")
    for name in arguments.only:
        root = arguments.root / re.sub(r"\W+", "_", name)
        record = root / "figures.json"
        if not record.is_file():
            cache = arguments.root / "plain"
            overrides = [f"network_g={NETWORKS[name]}", f"datasets.train.rain.cache={cache}", *arguments.overrides]
            said = train(root / "timed", *overrides, f"train.total_iter={TIMED}", "logger.print_freq=20", "val=null")
            seconds = float(_TIME.findall(said)[-1])
            iterations = max(TIMED, round(60 * arguments.minutes / seconds))
            train(root, *overrides, f"train.total_iter={iterations}", "name=run")
            kept = {"seconds": seconds, "iterations": iterations, **figures(root / "experiments" / "run")}
            record.write_text(json.dumps(kept, indent=2))
        row = json.loads(record.read_text())
        cost = f"{row['flops']:7.1f} {row['seconds']:6.3f} {row['iterations']:10d}"
        print(f"{name:48s} {cost} {row['psnr']:6.2f} {row['clean']:6.1f}, {row['least']:5.1f}", flush=True)


if __name__ == "__main__":
    main()
