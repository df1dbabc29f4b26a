"""What docs/scaling.md rests on, measured here: one process against two, shards against one LMDB, bytes a pixel.

    RAINOERME_DATA=FOLDER python scripts/bench_scaling.py [--quick] [--only PART ...]

Every process has one core and one thread. JSON lines; `memory` makes LMDBs of 638,492 small images and takes minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from bench_data import BATCH, CPU, CROP, FILTER, LIMIT, SIZES, batches, make_images, make_lmdb, name_of
from bench_filters import photograph
from measure import emit, say, spread

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.data import lmdb_store
from rainoerme_plugin.data.images import RGB, write_image
from rainoerme_plugin.data.labels import SoftLabels
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.shards import RECORD, Part, whole_of, write_shard
from rainoerme_plugin.data.sources import FolderSource, open_source
from rainoerme_plugin.data.unpaired import UnpairedRain

OPTIONS = Path(__file__).parent.parent / "options"
PARTS = ("labels", "training", "exchange", "shards", "cold", "storage", "memory")
SIDES = {"rain": "Rain100L/train/rain", "clean": "clean", "real rain": "real_rain", "SPA": "SPA/rain"}


def own_core(rank: int) -> None:
    """Let this process have one core, another for each rank."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def together(work: Callable[..., None], world: int, *arguments: Any) -> float:
    """Seconds from when all processes of ``work(rank, world, *arguments)`` have started to when all have ended it."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(world + 1)
    processes = [
        context.Process(target=_gated, args=(gate, work, rank, world, arguments), daemon=True) for rank in range(world)
    ]
    for process in processes:
        process.start()
    gate.wait(300)
    start = time.perf_counter()
    gate.wait(600)
    taken = time.perf_counter() - start
    for process in processes:
        process.join()
    return taken


def _gated(gate: Any, work: Callable[..., None], rank: int, world: int, arguments: tuple[Any, ...]) -> None:
    own_core(rank)
    gate.wait(300)
    work(rank, world, *arguments)
    gate.wait(600)


# --- labels ---


def prepare_labels(rank: int, world: int, folder: Path, name: str) -> None:
    from rainoerme_plugin.commands import main

    out = folder / f"{name}_{world}"
    command = ["prepare", "labels", str(folder / "images"), "type=opening", "-o", str(out)]
    command += ["--part", f"{rank + 1}/{world}"]
    with redirect_stdout(io.StringIO()):
        assert main(command) == 0


def bench_labels(root: Path, count: int, repeats: int) -> None:
    """Images of one megapixel a second, read, filtered and written as PNG by ``basicsr prepare labels --part``."""
    picture = photograph(1000, 1000)
    for number in range(count):
        write_image(root / "images" / f"{number}.png", np.roll(picture, 37 * number, axis=1))
    taken: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(repeats):
        for world, times in taken.items():
            times.append(together(prepare_labels, world, root, f"labels{turn}"))
    ratios = [one / two for one, two in zip(taken[1], taken[2], strict=True)]
    for world, times in taken.items():
        emit(
            "scaling_labels",
            CPU,
            processes=world,
            images=count,
            images_per_second=spread([count / seconds for seconds in times]),
            times_as_fast=spread(ratios) if world == 2 else None,
        )


# --- training ---


def bench_training(root: Path, iterations: int, repeats: int) -> None:
    """Iterations a second of ``torchrun ... basicsr train`` on the paper's network; each process has a whole batch."""
    for kind in ("rain", "clean"):
        for number in range(8):
            write_image(root / kind / f"{number}.png", photograph(200, 300, number))
    times: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(repeats):
        for world, found in times.items():
            found.append(_train(root, f"run{turn}_{world}", world, iterations))
    for world, found in times.items():
        emit(
            "scaling_training",
            CPU,
            processes=world,
            batch_of_each=BATCH,
            crop=CROP,
            iterations=iterations,
            iterations_per_second=spread([1 / seconds for seconds in found]),
            efficiency=statistics.median(one / two for one, two in zip(times[1], times[2], strict=True)),
        )


def _train(root: Path, name: str, world: int, iterations: int) -> float:
    """Seconds an iteration, by the run's log, without its first third."""
    settings = [
        f"name={name}",
        f"datasets.train.dataroot_rainy={root}/rain",
        f"datasets.train.dataroot_clean={root}/clean",
        "datasets.train.source=memory",
        "datasets.train.num_worker_per_gpu=0",
        f"datasets.train.batch_size_per_gpu={BATCH}",
        f"datasets.train.crop_size={CROP}",
        f"datasets.val.dataroot={root}/clean",
        "datasets.val.limit=1",
        "logger.use_tb_logger=false",
        "logger.print_freq=1",
        f"train.total_iter={iterations}",
        "train.distillation.warmup=0",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    command = [*launch, "-m", "rainoerme_plugin", "train", "-opt", str(OPTIONS / "distill.yml"), *settings]
    command += ["--launcher", "pytorch", "--device", "cpu", "--root", str(root)]
    run = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stdout + run.stderr)
    log = next((root / "experiments" / name).glob("train_*.log")).read_text()
    found = [float(seconds) for seconds in re.findall(r"\[?time(?: \(data\))?: ([\d.]+)", log)]
    return statistics.median(found[len(found) // 3 :])


# --- gradients ---


def exchange(rank: int, world: int, store: Path, repeats: int) -> None:
    dist.init_process_group("gloo", f"file://{store}", timedelta(seconds=60), world, rank)
    size = sum(parameter.numel() for parameter in RainOerMeNet().parameters() if parameter.requires_grad)
    for what, count in (("gradients", size), ("flags", 2)):
        values, times = torch.ones(count), []
        for _ in range(repeats):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(values)
            times.append(time.perf_counter() - start)
        if rank == 0:
            emit("scaling_exchange", CPU, what=what, processes=world, bytes=4 * count, seconds=spread(times[5:]))
    dist.destroy_process_group()


# --- shards ---


def bench_shards(root: Path, repeats: int, length: float, quick: bool) -> None:
    """Triples a second, labels made with the crops, from one LMDB, shards, and more shards than are held open."""
    make_images(root, quick)
    ways = (
        {"one LMDB": 0, "8 shards": 8, "all open": 30} if quick else {"one LMDB": 0, "8 shards": 8, "160 shards": 160}
    )
    streams: dict[str, Iterator[Any]] = {}
    for way, parts in ways.items():
        sources = []
        for kind in ("rainy", "clean"):
            store = root / f"{kind}_{parts}.lmdb"
            write_as(FolderSource(root / kind), store, parts)
            sources.append(open_source(store))
        streams[way] = batches(UnpairedRain(sources[0], SoftLabels(sources[0], FILTER), sources[1], CROP), 0)
    rates: dict[str, list[float]] = {way: [] for way in streams}
    for turn in range(repeats + 1):
        for way, stream in streams.items():
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < length:
                next(stream)
                count += 1
            if turn:
                rates[way].append(BATCH * count / (time.perf_counter() - start))
    for way, found in rates.items():
        ratios = [b / a for a, b in zip(rates["one LMDB"], found, strict=True)]
        emit("scaling_shards", CPU, way=way, triples_a_second=spread(found), times_as_fast=statistics.median(ratios))


def write_as(source: FolderSource, store: Path, parts: int) -> None:
    """Decoded: as one LMDB, or in shards."""
    whole = whole_of(source.names, "images, decoded")
    for part in [Part(number, parts) for number in range(1, parts + 1)] or [None]:
        numbers = part.of(len(source)) if part else range(len(source))
        files = ((source.names[index], source.encoded(index)) for index in numbers)
        capacity = len(numbers) * 600_000
        written = (
            write_shard(store, part, whole, files, capacity, True)
            if part
            else write_lmdb(store, files, capacity, decoded=True)
        )
        for _ in written:
            pass


def bench_cold(root: Path, count: int) -> None:
    """Milliseconds that a crop takes from a decoded LMDB of which nothing is in memory, and from one that is."""
    for height, width in ((256, 256), (600, 800)):
        store = root / f"{width}.lmdb"
        images = [photograph(height, width, seed) for seed in range(10)]
        files = ((f"{number}.png", images[number % 10]) for number in range(100))
        for _ in write_lmdb(store, files, 100 * (3 * width + 3) * height + 2_000_000, decoded=True):
            pass
        source, random = open_source(store), np.random.default_rng(0)
        handle = os.open(store / "data.mdb", os.O_RDONLY)
        os.fsync(handle)
        times: dict[str, list[float]] = {"cold": [], "warm": []}
        for _ in range(count):
            index, top, left = (int(random.integers(most)) for most in (100, height - CROP + 1, width - CROP + 1))
            lmdb_store._close_all()  # what is mapped stays in memory
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            for found in times.values():
                start = time.perf_counter()
                source.crop(index, top, left, CROP, CROP).sum()
                found.append(1e3 * (time.perf_counter() - start))
        os.close(handle)
        emit(
            "scaling_cold",
            CPU,
            width=width,
            height=height,
            **{f"{name}_ms": spread(found) for name, found in times.items()},
        )


# --- bytes a pixel ---


def bench_storage(data: Path, root: Path, most: int) -> None:
    """Bytes a pixel of the images of RAINOERME_DATA as PNG, JPEG and decoded LMDB; SPA's as patches of 256x256."""
    for name, side in SIDES.items():
        source = FolderSource(data / side)
        images = [source.read(index) for index in range(min(len(source), most))]
        if name == "SPA":
            images = [
                image[top : top + 256, left : left + 256] for image in images for top in (0, 256) for left in (0, 256)
            ]
        pixels = sum(image.shape[0] * image.shape[1] for image in images)
        store = root / f"{side.replace('/', '_')}.lmdb"
        capacity = sum(image.nbytes + 3 * image.shape[0] + 8192 for image in images)
        for _ in write_lmdb(
            store, ((f"{number}.png", image) for number, image in enumerate(images)), capacity, decoded=True
        ):
            pass
        emit(
            "scaling_storage",
            CPU,
            images=name,
            count=len(images),
            pixels_each=pixels / len(images),
            as_they_are=source.names[0].rpartition(".")[2],
            bytes_as_they_are=None
            if name == "SPA"
            else sum(len(source.encoded(index)) for index in range(len(images))) / pixels,
            bytes_png=total(images, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 6]) / pixels,
            bytes_jpeg_95=total(images, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]) / pixels,
            bytes_decoded=(store / "data.mdb").stat().st_size / pixels,
        )


def total(images: list[RGB], ending: str, how: list[int]) -> int:
    return sum(cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), how)[1].size for image in images)


# --- many images ---


def bench_memory(root: Path, size: int, shard_counts: list[int], count: int) -> None:
    """As `bench_data`'s: memory and opening time of a training process with two workers, over the number of shards."""
    whole = whole_of([f"{name_of(number)}.png" for number in range(size)], "images")
    for shards in shard_counts:
        folder = root / f"{size}_{shards}"
        start = time.perf_counter()
        for kind in ("rainy", "clean"):
            store = folder / f"{kind}.lmdb"
            if shards == 1:
                store.mkdir(parents=True)
                make_lmdb(store, range(size))
                continue
            for part in (Part(number, shards) for number in range(1, shards + 1)):
                (store / part.name).mkdir(parents=True)
                make_lmdb(store / part.name, part.of(size))
                (store / part.name / RECORD).write_bytes(whole.encoded())
        written = time.perf_counter() - start
        script = Path(__file__).with_name("bench_data.py")
        command = [sys.executable, str(script), "--measure-memory", str(folder), str(count)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        values = json.loads(found)
        emit(
            "scaling_memory",
            CPU,
            images=size,
            shards=shards,
            batches=count,
            limit=LIMIT,
            write_seconds=written,
            **values,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, short times: to see that it runs")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds of each timing (3)")
    parser.add_argument(
        "--only", choices=PARTS, nargs="+", default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--images", type=int, default=SIZES[-1], metavar="N", help="of the LMDBs of `memory`")
    parser.add_argument(
        "--shards", type=int, nargs="+", default=[1, 16, 512], metavar="N", help="and in how many shards"
    )
    arguments = parser.parse_args()
    quick, repeats = arguments.quick, 1 if arguments.quick else arguments.repeats
    data = os.environ.get("RAINOERME_DATA")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for part in arguments.only:
            say(part)
            (root / part).mkdir()
            if part == "labels":
                bench_labels(root / part, 4 if quick else 16, repeats)
            elif part == "training":
                bench_training(root / part, 3 if quick else 15, repeats)
            elif part == "exchange":
                together(exchange, 2, root / part / "store", 10 if quick else 300)
            elif part == "shards":
                bench_shards(root / part, repeats, 0.3 if quick else 2, quick)
            elif part == "cold":
                bench_cold(root / part, 10 if quick else 200)
            elif part == "storage" and data:
                bench_storage(Path(data), root / part, 5 if quick else 200)
            elif part == "memory":
                size = 2_000 if quick else arguments.images
                bench_memory(
                    root / part, size, arguments.shards[:2] if quick else arguments.shards, 100 if quick else 400
                )


if __name__ == "__main__":
    main()
