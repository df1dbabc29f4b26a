"""How fast a training step is: the plain way and ours in turn, on this machine.

    python scripts/bench_training.py                     # the paper's network, batch 8, crops of 128x128
    python scripts/bench_training.py --device cuda
    python scripts/bench_training.py --quick             # does it run at all?

The plain step is the released code's way: contiguous layout, SSIM from 11x11 windows, the detail enhancement block in
both stages, Adam as PyTorch has it by default. Prints a line of JSON a result.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from measure import apart, emit, floor, in_turn, peak_memory, rates, say, seconds, work_of
from plain import plain_forward, plain_ssim, plain_window
from torch import Tensor

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.config import Request
from rainoerme_plugin.data.images import write_image
from rainoerme_plugin.devices import keep_memory
from rainoerme_plugin.distillation.graphs import GraphedGradients, Images
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.distillation.step import DistillationStep, distillation_gradients
from rainoerme_plugin.engine.training import train
from rainoerme_plugin.losses.ssim import SSIMLoss

OPTIONS = Path(__file__).parent.parent / "options"
PARTS = ("step", "growth", "accumulation")
WEIGHTS = StepWeights(0.5, 1.5, 1.0)
LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)


def network_and_images(device: str, batch: int, crop: int) -> tuple[RainOerMeNet, Images]:
    """The same for every way. The weights are larger than at the start of training, so that gradients are not tiny."""
    torch.manual_seed(0)
    network = RainOerMeNet()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    rainy, label, clean = (torch.rand(batch, 3, crop, crop) for _ in range(3))
    return network.to(device), (rainy.to(device), label.to(device), clean.to(device))


# --- the plain step ---


def plain_gradients(network: RainOerMeNet, images: Images, window: Tensor) -> None:
    rainy, label, clean = images
    _, refined = plain_forward(network, rainy)
    soft = 1 - plain_ssim(rainy - refined, label, window)
    synthetic = torch.clamp(clean + WEIGHTS.gain * refined.detach(), 0, 1)
    rain, _ = plain_forward(network, synthetic)
    hard = 1 - plain_ssim(synthetic - rain, clean, window)
    (WEIGHTS.soft * soft + WEIGHTS.hard * hard).backward()


def plain_step(device: str, batch: int, crop: int) -> Callable[[], object]:
    network, images = network_and_images(device, batch, crop)
    window = plain_window(torch.device(device))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, BETAS)

    def step() -> None:
        optimizer.zero_grad()
        plain_gradients(network, images, window)
        optimizer.step()

    return step


# --- ours ---


def our_step(device: str, batch: int, crop: int, changes: frozenset[str] = frozenset()) -> Callable[[], object]:
    """The step of ``basicsr train``; ``changes`` leaves a part of it out, or adds an option."""
    parts = next((int(change.split()[1]) for change in changes if change.startswith("parts")), 1)
    if device == "cpu" and "memory given back" not in changes:
        keep_memory()
    torch.backends.cudnn.benchmark = True
    network, images = network_and_images(device, batch, crop)
    layout = torch.contiguous_format if "contiguous" in changes else torch.channels_last
    network = network.to(memory_format=layout)  # type: ignore[call-overload]
    rainy, label, clean = (image.contiguous(memory_format=layout) for image in images)
    images = rainy, label, clean
    called: Any = torch.compile(network, dynamic=False) if "compile" in changes else network
    precision = torch.bfloat16 if "bfloat16" in changes else None
    criterion = SSIMLoss()
    fused = {"foreach": False} if "optimizer not fused" in changes else {"fused": True}
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, BETAS, **fused)

    def gradients(images: Images, weights: StepWeights, two_stages: bool) -> DistillationStep:
        return distillation_gradients(
            called,
            *images,
            weights,
            criterion,
            two_stages,
            parts=parts,
            precision=precision,
        )

    graphs = GraphedGradients(gradients, network.parameters()) if "cuda_graphs" in changes else None

    def step() -> None:
        if graphs is not None:
            graphs(images, WEIGHTS)
        else:
            optimizer.zero_grad(set_to_none=True)
            gradients(images, WEIGHTS, True)
        optimizer.step()

    return step


def flat_gradients(network: RainOerMeNet) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])


def gradient_difference(device: str, batch: int, crop: int) -> float:
    """The largest difference between the gradients of both ways, over the largest gradient."""
    network, images = network_and_images(device, batch, crop)
    plain_gradients(network, images, plain_window(torch.device(device)))
    plain = flat_gradients(network)
    network.zero_grad()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    distillation_gradients(network, *images, WEIGHTS, SSIMLoss())
    ours = flat_gradients(network)
    return float((ours - plain).abs().max() / plain.abs().max())


def some_steps(device: str, batch: int, crop: int, way: str, parts: int = 1) -> None:
    """For the peak of memory."""
    step = plain_step(device, batch, crop) if way == "plain" else our_step(device, batch, crop, parts_of(parts))
    for _ in range(3):
        step()


def parts_of(parts: int) -> frozenset[str]:
    return frozenset({f"parts {parts}"})


def peak(device: torch.device, batch: int, crop: int, way: str, parts: int = 1) -> int:
    """Bytes above the process with torch loaded on a CPU, allocated by PyTorch on CUDA."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        some_steps(str(device), batch, crop, way, parts)
        return torch.cuda.max_memory_allocated(device)
    return peak_memory(some_steps, str(device), batch, crop, way, parts)


# --- the whole loop ---


def loop(device: str, iterations: int, file: str, changes: list[str]) -> float:
    """Seconds an iteration of ``basicsr train`` on generated images: what twice as many take longer, over how many."""
    with TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for kind in ("rain", "clean", "blurred_label"):
            for number in range(32):
                blocks = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                image = np.kron(blocks, np.ones((16, 16, 1), np.uint8))
                write_image(Path(folder) / kind / f"{number}.png", image)
        settings = [
            f"datasets.train.dataroot_rainy={folder}/rain",
            f"datasets.train.dataroot_clean={folder}/clean",
            f"datasets.train.label.path={folder}/blurred_label",
            f"datasets.val.dataroot_lq={folder}/rain",
            f"datasets.val.dataroot_gt={folder}/clean",
            "datasets.val.dataroot=null",
            "datasets.val.limit=1",
            "logger.use_tb_logger=false",
            *changes,
        ]
        taken = []
        for count in (iterations, 2 * iterations):
            request = Request(OPTIONS / file, [*settings, f"train.total_iter={count}"], device, root=Path(folder))
            start = time.perf_counter()
            train(request)
            taken.append(time.perf_counter() - start)
    return (taken[1] - taken[0]) / iterations


def measure_loop(device: torch.device, iterations: int) -> None:
    files = {"rain200l.yml": ["datasets.train.num_worker_per_gpu=2"], "rain200l_fast.yml": []}
    for file, changes in files.items():
        if device.type == "cpu" and file == "rain200l_fast.yml":
            changes = ["train.precision=float32", "train.compile=false", "train.cuda_graphs=false"]
        taken = loop(str(device), iterations, file, changes)
        emit(
            "training loop",
            device,
            options=file,
            changes=changes,
            iterations=iterations,
            iterations_per_second=1 / taken,
            hours_of_360000=taken * 100,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile on a CPU too: it takes a minute")
    parser.add_argument("--quick", action="store_true", help="two repeats of tiny steps")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument("--loop", type=int, default=0, metavar="N", help="and N iterations of the paper's recipe")
    arguments = parser.parse_args()
    batch, crop, repeats = arguments.batch, arguments.crop, arguments.repeats
    if arguments.quick:
        batch, crop, repeats = 4, 32, 2
    device = torch.device(arguments.device)
    name = str(device)

    say(f"training step, batch {batch}, {crop}x{crop}")
    difference = gradient_difference(name, batch, crop)
    operations, moved = work_of(our_step(name, batch, crop))
    variants = ["ours", "contiguous", "optimizer not fused"]
    if device.type == "cpu":
        variants += ["memory given back", "parts 2", "parts 4", "bfloat16"]
    else:
        variants += ["bfloat16", "compile", "cuda_graphs", "cuda_graphs bfloat16", "cuda_graphs bfloat16 compile"]
    if arguments.compile:
        variants += ["compile"]
    for variant in variants if "step" in arguments.only else ():
        say(variant)
        changes = frozenset({variant} if " " in variant and "cuda" not in variant else variant.split())
        # Only two processes at a time: the caches are theirs.
        with apart(plain_step, name, batch, crop) as plain, apart(our_step, name, batch, crop, changes) as changed:
            results = in_turn({"plain": plain, variant: changed}, device, repeats, warmup=3)
        for way, result in results.items():
            if way == "plain" and variant != "ours":
                continue
            emit(
                "training step",
                device,
                way=way,
                batch=batch,
                crop=crop,
                precision="bfloat16" if "bfloat16" in way else "float32",
                **result,
                iterations_per_second=1 / result["median"],
                gradient_difference=difference if way == "ours" else None,
                multiply_adds=operations,
                bytes=moved,
                floor=floor(device, operations, moved),
                rates=rates(device),
            )

    sizes = [(1, 128), (2, 128), (4, 128), (8, 128), (16, 128), (32, 128), (8, 64), (8, 96), (8, 192), (8, 256)]
    sizes = sizes[:2] if arguments.quick else sizes
    for batch, crop in sizes if "growth" in arguments.only else ():
        say(f"growth: batch {batch}, {crop}x{crop}")
        plain, ours = plain_step(name, batch, crop), our_step(name, batch, crop)
        for way, result in in_turn({"plain": plain, "ours": ours}, device, 2 if arguments.quick else 5).items():
            emit(
                "training growth",
                device,
                way=way,
                batch=batch,
                crop=crop,
                precision="float32",
                **result,
                peak_memory=peak(device, batch, crop, way),
            )
    if arguments.loop:
        say(f"{arguments.loop} iterations of basicsr train")
        measure_loop(device, arguments.loop)
    batch = 2 if arguments.quick else 32
    splits = (1, 2) if arguments.quick else (1, 2, 4, 8)
    for parts in splits if "accumulation" in arguments.only else ():
        say(f"accumulation: {parts} parts")
        step = our_step(name, batch, crop := 128, parts_of(parts))
        step()
        taken = [seconds(step, device) for _ in range(3)]
        emit(
            "accumulation",
            device,
            parts=parts,
            batch=batch,
            crop=crop,
            precision="float32",
            median=sorted(taken)[1],
            low=min(taken),
            high=max(taken),
            peak_memory=peak(device, batch, crop, "ours", parts),
        )


if __name__ == "__main__":
    main()
