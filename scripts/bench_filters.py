"""How fast the rank and median filters are beside SciPy's, how they grow, and how fast labels of a folder come.

    python scripts/bench_filters.py [--quick] [--repeats 3] [--image FILE]

SciPy and ours take turns; ``identical`` compares all values. JSON lines; six minutes with one repeat.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measure import emit, floor, in_turn, peak_memory, say
from numpy.typing import NDArray
from scipy import ndimage

from rainoerme_plugin.data.images import RGB, decode_image, write_image
from rainoerme_plugin.data.labels import kept_labels
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.distillation.filters import MedianFilter, RankFilter

CPU = torch.device("cpu")
PERCENT = 35.0
SIZE = (3000, 4000)
SIZES = ((500, 500), (1000, 1000), (2000, 2000), SIZE, (5000, 6600))
SIDES = (3, 5, 7, 9, 11, 15, 21, 31)
SCIPY_SECONDS = 1.5e-8
"""SciPy's time for one value of one window, about; tells which of its runs would take too long."""
LONGEST = 60.0

Local = RankFilter | MedianFilter
Picture = NDArray[Any]


def photograph(height: int, width: int, seed: int = 0) -> RGB:
    """Noise with the spectrum of photographs, and bright streaks."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 110, np.float32)
    for scale in (1, 2, 4, 8, 16, 32, 64, 128):
        shape = (height // scale + 2, width // scale + 2, 3)
        coarse = random.standard_normal(shape, np.float32)
        image += 3 * scale**0.5 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(height * width // 4000):
        top, left = int(random.integers(height)), int(random.integers(width))
        length = int(random.integers(10, 60))
        image[top : top + length, left : left + int(random.integers(1, 5))] += 40
    return np.clip(image, 0, 255).astype(np.uint8)


def deep(image: RGB) -> NDArray[np.uint16]:
    """The image with 16 bits, the lower ones random."""
    low = np.random.default_rng(0).integers(0, 256, image.shape, np.uint16)
    return image.astype(np.uint16) * 256 + low


def by_scipy(image: Picture, coarse: Local) -> Picture:
    size = (*coarse.window, 1)
    if isinstance(coarse, MedianFilter):
        return ndimage.median_filter(image, size=size)
    return ndimage.percentile_filter(image, coarse.percent, size=size)


def compare(benchmark: str, image: Picture, coarse: Local, repeats: int) -> None:
    """Time SciPy, where it takes less than `LONGEST`, and ours on one image."""
    say(f"{benchmark}: {coarse.key}, {image.shape[1]}x{image.shape[0]} {image.dtype}")
    kept: dict[str, Picture] = {}

    def keeping(name: str, work: Callable[[], Picture]) -> Callable[[], None]:
        def run() -> None:
            kept[name] = work()

        return run

    expected = image.size * coarse.window[0] * coarse.window[1] * SCIPY_SECONDS
    works = {"ours": keeping("ours", lambda: coarse(image))}
    if expected < LONGEST:
        works = {"scipy": keeping("scipy", lambda: by_scipy(image, coarse)), **works}
    works["ours"]()  # Plans its steps once; SciPy needs no warming up.
    times = in_turn(works, CPU, repeats, warmup=0)
    if "scipy" not in works:
        del times["ours"]["times_as_fast"]
    emit(
        benchmark,
        CPU,
        filter=coarse.key,
        height=image.shape[0],
        width=image.shape[1],
        dtype=str(image.dtype),
        repeats=repeats,
        identical=bool((kept["ours"] == kept["scipy"]).all()) if "scipy" in kept else None,
        floor=floor(CPU, 0, 2 * image.nbytes),
        **times,
    )


def large_images(image: RGB, repeats: int) -> None:
    """The windows that labels are made with, on a large photograph."""
    for picture in (image, deep(image)):
        for window in ((1, 7), (1, 9), (9, 9)):
            compare("large image", picture, RankFilter(window, PERCENT), repeats)
        compare("large image", picture, MedianFilter(), repeats)


def growth(sizes: tuple[tuple[int, int], ...], sides: tuple[int, ...], repeats: int) -> None:
    """Time over the image's size and over the window's, and the memory of ours."""
    for window in ((1, 7), (9, 9)):
        for size in sizes:
            compare("image size", photograph(*size), RankFilter(window, PERCENT), repeats)
            say(f"memory: {window}, {size}")
            rise = peak_memory(filter_blank, size, window)
            emit(
                "memory",
                CPU,
                window=window,
                height=size[0],
                width=size[1],
                bytes=rise,
                image_bytes=3 * np.prod(size).item(),
            )
    image = photograph(*sizes[1])
    for side in sides:
        for window in ((1, side), (side, side)):
            compare("window size", image, RankFilter(window, PERCENT), repeats)


def filter_blank(size: tuple[int, int], window: tuple[int, int]) -> None:
    RankFilter(window, PERCENT)(np.ones((*size, 3), np.uint8))


@contextmanager
def one_core() -> Iterator[None]:
    """What starts threads in here has them on one core (Linux)."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def free_cores() -> float:
    """How many times as fast threads on all cores do what needs nothing but cores; less than their number if others
    use them too."""
    cores = len(os.sched_getaffinity(0))
    data = bytes(50 << 20)

    def threads() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(hashlib.sha256, [data] * 2 * cores))

    def loop() -> None:
        for _ in range(2 * cores):
            hashlib.sha256(data)

    return in_turn({"loop": loop, "threads": threads}, CPU, 3)["threads"]["times_as_fast"]


def folder(count: int, size: tuple[int, int], repeats: int) -> None:
    """Labels of a folder, kept as PNG: plain loops with SciPy and ours, and `kept_labels` on one core and on all."""
    coarse = RankFilter()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for number in range(count):
            write_image(root / "rainy" / f"{number:03}.png", photograph(*size, seed=number))
        rainy = FolderSource(root / "rainy")

        def loop(make: Callable[[RGB], RGB]) -> None:
            with tempfile.TemporaryDirectory(dir=root) as target:
                for path in rainy.paths:
                    write_image(Path(target) / path.name, make(decode_image(path)))

        def threads() -> None:
            with tempfile.TemporaryDirectory(dir=root) as target:
                kept_labels(rainy, coarse, target)

        def threads_on_one_core() -> None:
            with one_core():
                threads()

        say(f"folder: {count} images of {size[1]}x{size[0]}")
        works = {
            "loop with scipy": lambda: loop(lambda image: by_scipy(image, coarse)),
            "loop": lambda: loop(coarse),
            "one core": threads_on_one_core,
            "all cores": threads,
        }
        times = in_turn(works, CPU, repeats, warmup=0)
        emit(
            "folder",
            CPU,
            filter=coarse.key,
            images=count,
            height=size[0],
            width=size[1],
            cores=len(os.sched_getaffinity(0)),
            free_cores=free_cores(),
            repeats=repeats,
            images_per_second={name: count / spread["median"] for name, spread in times.items()},
            **times,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small images, once, to see that it runs")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of every comparison (default: 3)")
    parser.add_argument("--image", type=Path, help="a photograph instead of the generated one of 12 megapixels")
    options = parser.parse_args()
    height, width = (150, 200) if options.quick else SIZE
    repeats = 1 if options.quick else options.repeats
    large_images(decode_image(options.image) if options.image else photograph(height, width), repeats)
    if options.quick:
        growth(((60, 80), (120, 160)), (3, 15), repeats)
        folder(4, (120, 160), repeats)
    else:
        growth(SIZES, SIDES, repeats)
        folder(24, (1000, 1000), repeats)


if __name__ == "__main__":
    main()
