"""Does the figure on made pairs choose as ground truth does? Scores a run's checkpoints on both.

    python scripts/made_pairs.py experiments/RUN [RUN ...] --rainy RAINY --clean CLEAN --pairs PAIRS

RAINY and CLEAN are what the runs were trained on; PAIRS is a data set with ground truth of the same kind of rain (any
layout of docs/data.md). Prints PSNR (basicsr_y) of every checkpoint on the pairs of `MadePairsDataset` and on PAIRS,
the rank correlation of both, and what is lost where the made pairs choose.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rainoerme_plugin.archs.catalogue import needs_of
from rainoerme_plugin.archs.tiles import derain_tiled
from rainoerme_plugin.data.images import to_image
from rainoerme_plugin.metrics.protocols import psnr
from rainoerme_plugin.models.opening import open_run
from rainoerme_plugin.registered.datasets import MadePairsDataset, PairedRainDataset


def psnr_on(network: torch.nn.Module, dataset: Any) -> float:
    """The mean PSNR of derained images, whole and rounded to 8 bits."""
    values = []
    for sample in (dataset[index] for index in range(len(dataset))):
        derained = derain_tiled(network, sample["lq"][None], needs_of(network))
        values.append(psnr(to_image(derained[0]), to_image(sample["gt"]), "basicsr_y"))
    return float(np.mean(values))


def ranks(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--rainy", required=True, metavar="FOLDER")
    parser.add_argument("--clean", required=True, metavar="FOLDER")
    parser.add_argument("--pairs", required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    made = MadePairsDataset(name="made", dataroot_rainy=arguments.rainy, dataroot_clean=arguments.clean)
    true = PairedRainDataset(name="pairs", dataroot=arguments.pairs)
    files = [(run, file) for run in arguments.runs for file in run.glob("models/net_g_*.pth")]
    found = sorted((run, int(match[1])) for run, file in files if (match := re.fullmatch(r"net_g_(\d+)", file.stem)))
    own: list[float] = []
    truth: list[float] = []
    print(f"{'run':30s} {'iteration':>9s} {'made pairs':>11s} {'ground truth':>13s}")
    for run, iteration in found:
        network = open_run(run, iteration).network.eval()
        own.append(psnr_on(network, made))
        truth.append(psnr_on(network, true))
        print(f"{run.name:30s} {iteration:9d} {own[-1]:11.2f} {truth[-1]:13.2f}", flush=True)
    print(f"rank correlation {np.corrcoef(ranks(own), ranks(truth))[0, 1]:.3f}")
    chosen = int(np.argmax(own))
    print(f"chosen by made pairs: {found[chosen][1]}, {max(truth) - truth[chosen]:.2f} dB below the best")


if __name__ == "__main__":
    main()
