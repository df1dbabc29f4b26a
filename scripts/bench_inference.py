"""How fast images are derained, and in how much memory: the plain way beside this package's. One JSON line a result.

    python scripts/bench_inference.py [--quick] [--device cpu|cuda] [--repeats N] [--only PART ...]

The plain way is that of the released code: contiguous tensors, without gradients, both rain layers, the whole image.
Images are Rain100L's test pairs and weights the paper's where RAINOERME_DATA and RAINOERME_WEIGHTS say where they lie,
else random ones of the same size. Peaks of memory are those of fresh processes on a CPU (Linux), beyond torch and
this script; on CUDA they are PyTorch's own. Run it with nothing beside it: threads that wait for a core that another
program has make several times as long of small tiles. About half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import emit, floor, in_turn, peak_memory, say, seconds, spread
from plain import plain_forward
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import Needs
from rainoerme_plugin.archs.prenet import PReNet
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.archs.receptive_field import receptive_field
from rainoerme_plugin.archs.tiles import derain_tiled
from rainoerme_plugin.data.images import RGB, decode_image, to_image, to_tensor
from rainoerme_plugin.devices import keep_memory
from rainoerme_plugin.weights import load_weights

WEIGHTS = {"RainOerMeNet": "RainOerMe_Rain200L.pth", "PReNet": "PReNet6_Rain100L.pth"}
CLASSES: dict[str, type[nn.Module]] = {"RainOerMeNet": RainOerMeNet, "PReNet": PReNet}
SIZES = ((512, 512), (1000, 1000), (2000, 2000), (3000, 4000), (4320, 7680))
"""Height and width: 0.25 to 33.2 megapixels."""
PARTS = ("whole", "sizes", "tiles", "batches", "large")
PLAIN_UP_TO = 12_000_000
"""Pixels; the plain way takes some 500 bytes for each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, once: to see that it works")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--repeats", type=int, default=7, help="of every timing of small images")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help=f"of {', '.join(PARTS)}")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    # Full float32 on GPUs too: TF32 is another precision.
    torch.backends.cudnn.allow_tf32 = False
    repeats = 3 if arguments.quick else arguments.repeats
    sizes = ((64, 64), (200, 300)) if arguments.quick else SIZES

    if "whole" in arguments.only:
        whole_images(device, repeats, count=1 if arguments.quick else 6)
    if "sizes" in arguments.only:
        image_sizes(device, sizes)
    if "tiles" in arguments.only:
        tile_sizes(device, (200, 300) if arguments.quick else (2000, 2000), (64, 128) if arguments.quick else TILES)
    if "batches" in arguments.only and device.type == "cuda":
        batches(device, (200, 300) if arguments.quick else (3000, 4000))
    if "large" in arguments.only:
        large_field(device, (150, 200) if arguments.quick else (3000, 4000))


TILES = (128, 192, 256, 320, 384, 450, 512, 768)


# --- the ways ---


def network(name: str, device: torch.device, channels_last: bool) -> nn.Module:
    """A network with the published weights, if they are there."""
    torch.manual_seed(0)
    made = CLASSES[name]().eval().requires_grad_(False)
    folder = os.environ.get("RAINOERME_WEIGHTS")
    if folder:
        load_weights(made, Path(folder) / WEIGHTS[name])
    return made.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-overload]


@torch.no_grad()
def plain(made: RainOerMeNet, rainy: Tensor) -> Tensor:
    """The released code's way of deraining (B, 3, H, W)."""
    rain, _ = plain_forward(made, rainy)
    return rainy - rain


@torch.inference_mode()
def ours(made: nn.Module, rainy: Any, **options: Any) -> Any:
    """This package's way, of tensors and of 8 bits."""
    return derain_tiled(made, rainy, Needs(), **options)


def derain_bytes(name: str, way: str, device: str, height: int, width: int, tile: int | None) -> RGB:
    """Derain one random image of 8 bits, all that it takes included."""
    rainy = random_image(height, width)
    if way == "plain":
        made = network(name, torch.device(device), channels_last=False)
        assert isinstance(made, RainOerMeNet)
        return to_image(plain(made, to_tensor(rainy)[None].to(device))[0])
    return ours(network(name, torch.device(device), channels_last=True), rainy, tile=tile)


def random_image(height: int, width: int) -> RGB:
    """(H, W, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def multiply_adds(made: nn.Module, pixels: int) -> float:
    """Of all convolutions that the derained image depends on, each weight once for each pixel and stage."""
    weights = sum(
        module.weight.numel()
        for name, module in made.named_modules()
        if isinstance(module, nn.Conv2d) and not name.startswith("out2")
    )
    return float(weights * pixels * getattr(made, "stages", 1))


# --- what is measured ---


def whole_images(device: torch.device, repeats: int, count: int) -> None:
    """Images of Rain100L's size, whole: tensor to tensor, on the device."""
    images = [to_tensor(image)[None].to(device) for image in _rain100l(count)]
    strided = [image.to(memory_format=torch.channels_last) for image in images]
    theirs, mine = network("RainOerMeNet", device, False), network("RainOerMeNet", device, True)
    assert isinstance(theirs, RainOerMeNet)
    difference = max(
        float((plain(theirs, a) - ours(mine, b)).abs().max()) for a, b in zip(images, strided, strict=True)
    )
    pixels = sum(image[0, 0].numel() for image in images)
    least = floor(device, multiply_adds(mine, pixels), pixels * 3 * 4 * 2)
    for keeps in (False, True):
        if keeps:
            keep_memory()  # as the commands do; there is no way back
        say(f"whole images, freed memory {'kept' if keeps else 'given back'}")
        times = in_turn(
            {
                "plain": lambda: [plain(theirs, image) for image in images],
                "ours": lambda: [ours(mine, image) for image in strided],
            },
            device,
            repeats,
        )
        for way, values in times.items():
            emit(
                "whole_images",
                device,
                way=way,
                images=count,
                real=bool(os.environ.get("RAINOERME_DATA")),
                keeps_memory=keeps,
                max_difference=difference,
                **{name: value if name == "times_as_fast" else value / count for name, value in values.items()},
                floor=least / count,
            )


def _rain100l(count: int) -> list[RGB]:
    root = os.environ.get("RAINOERME_DATA")
    if not root:
        return [random_image(321, 481) for _ in range(count)]
    found = sorted(Path(root, "Rain100L", "test").rglob("*.png"))
    rainy = [path for path in found if path.parent.name in ("rain", "rainy")]
    if len(rainy) < count:
        raise SystemExit(f"{root}/Rain100L/test: expected {count} images in rain/ or rainy/, found {len(rainy)}")
    return [decode_image(path) for path in rainy[:: len(rainy) // count][:count]]


def image_sizes(device: torch.device, sizes: tuple[tuple[int, int], ...]) -> None:
    """8 bits to 8 bits, over image sizes: ours in tiles where it cuts, and whole images as long as they fit."""
    for height, width in sizes:
        for way in ("ours", "plain"):
            if way == "plain" and height * width > PLAIN_UP_TO:
                continue
            _measure("image_sizes", device, "RainOerMeNet", way, height, width, None)


def tile_sizes(device: torch.device, size: tuple[int, int], tiles: tuple[int, ...]) -> None:
    """One image in tiles of several sizes, and not cut."""
    for tile in (*tiles, 0):
        _measure("tile_sizes", device, "RainOerMeNet", "ours", *size, tile)


def large_field(device: torch.device, size: tuple[int, int]) -> None:
    """A recurrent network with a large receptive field, which takes a kilobyte and more a pixel on whole images."""
    _measure("large_field", device, "PReNet", "ours", *size, None)


def _measure(
    benchmark: str, device: torch.device, name: str, way: str, height: int, width: int, tile: int | None
) -> None:
    say(f"{benchmark}: {name}, {way}, {width}x{height}, tile {tile}")
    made = network(name, device, channels_last=way == "ours")
    rainy, pixels = random_image(height, width), height * width
    work: Callable[[], object]
    if way == "plain":
        assert isinstance(made, RainOerMeNet)
        work = lambda: to_image(plain(made, to_tensor(rainy)[None].to(device))[0])  # noqa: E731
    else:
        receptive_field(made, Needs())  # once for each network
        work = lambda: ours(made, rainy, tile=tile)  # noqa: E731
    if pixels < 2_000_000:
        work()
    times = spread([seconds(work, device) for _ in range(max(1, min(5, 8_000_000 // pixels)))])
    emit(
        benchmark,
        device,
        network=name,
        way=way,
        height=height,
        width=width,
        megapixels=pixels / 1e6,
        tile=tile,
        radius=receptive_field(made, Needs()),
        **times,
        floor=floor(device, multiply_adds(made, pixels), pixels * 3 * 4 * 2),
        peak_memory=_peak(work, device, name, way, height, width, tile),
        picture_bytes=2 * 3 * pixels,
    )


def _peak(work: Callable[[], object], device: torch.device, *arguments: Any) -> int | None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    name, way, height, width, tile = arguments
    return peak_memory(derain_bytes, name, way, device.type, height, width, tile)


def batches(device: torch.device, size: tuple[int, int]) -> None:
    """Several tiles at a time, for GPUs."""
    made, rainy = network("RainOerMeNet", device, channels_last=True), random_image(*size)
    receptive_field(made, Needs())
    for batch in (1, 2, 4, 8, 16):
        for tile in (386, 962):
            say(f"batches: {batch} of {tile}")

            def work(batch: int = batch, tile: int = tile) -> object:
                return ours(made, rainy, tile=tile, batch=batch)

            work()
            times = spread([seconds(work, device) for _ in range(5)])
            peak = _peak(work, device)
            emit("batches", device, height=size[0], width=size[1], tile=tile, batch=batch, **times, peak_memory=peak)


if __name__ == "__main__":
    main()
