"""How fast training samples come, whether the training step waits for them, and what memory they take. JSON lines.

    RAINOERME_DATA=FOLDER python scripts/bench_data.py [--quick]

Samples are triples of 128x128 crops (rainy, label, clean) in batches of 8. The reference is what BasicSR's data sets
do: whole PNGs of all three are read and decoded. Without RAINOERME_DATA the images are generated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import torch
from measure import emit, floor, say, spread
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.data.device import DeviceBatches
from rainoerme_plugin.data.images import write_image
from rainoerme_plugin.data.labels import SoftLabels
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.sources import FolderSource, ImageSource, open_source
from rainoerme_plugin.data.threads import in_threads
from rainoerme_plugin.data.unpaired import UnpairedRain, collate_rain
from rainoerme_plugin.distillation.filters import OpeningFilter

CROP, BATCH = 128, 8
FILTER = OpeningFilter((1, 9))
CPU = torch.device("cpu")
SIZES = (100, 1_000, 10_000, 100_000, 638_492)
"""The last is SPA-Data's number of training pairs."""
LIMIT = 4 << 30
PARTS = ("rate", "wait", "memory")
IMAGES = 200


class PlainCrops(Dataset[dict[str, Tensor]]):
    """The reference, as plain as can be: read three whole PNGs, crop, make floats."""

    def __init__(self, root: Path) -> None:
        self.paths = {name: sorted((root / name).iterdir()) for name in ("rainy", "labels", "clean")}

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        random = np.random.default_rng(position)
        rainy, clean = (random.integers(len(self.paths[name])) for name in ("rainy", "clean"))
        images = {name: cv2.imread(str(self.paths[name][rainy])) for name in ("rainy", "labels")}
        images["clean"] = cv2.imread(str(self.paths["clean"][clean]))
        top, left = (random.integers(side - CROP + 1) for side in images["rainy"].shape[:2])
        corners = {"rainy": (top, left), "labels": (top, left)}
        corners["clean"] = tuple(random.integers(side - CROP + 1) for side in images["clean"].shape[:2])
        sample = {}
        for name, image in images.items():
            top, left = corners[name]
            crop = cv2.cvtColor(image[top : top + CROP, left : left + CROP], cv2.COLOR_BGR2RGB)
            sample[name] = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float().div_(255)
        return sample


def make_images(root: Path, quick: bool) -> None:
    """PNGs of about 481x321 in rainy/, labels/ and clean/ below ``root``, and LMDBs of them."""
    found = os.environ.get("RAINOERME_DATA")
    for name, folder in (("rainy", "Rain100L/train/rain"), ("clean", "clean")):
        if found:
            source: ImageSource = FolderSource(Path(found) / folder)
            images: Iterable[np.ndarray] = in_threads(source.read, range(min(len(source), 40 if quick else IMAGES)))
        else:
            images = in_threads(_photograph, range(40 if quick else IMAGES))
        for number, image in enumerate(images):
            write_image(root / name / f"{number:04}.png", image)
    rainy = FolderSource(root / "rainy")
    for number, label in enumerate(in_threads(SoftLabels(rainy, FILTER).read, range(len(rainy)))):
        write_image(root / "labels" / f"{number:04}.png", label)
    for name, decoded in itertools.product(("rainy", "labels", "clean"), (False, True)):
        source = FolderSource(root / name)
        files = ((file, source.encoded(index)) for index, file in enumerate(source.names))
        for _ in write_lmdb(root / f"{name}_{decoded}.lmdb", files, len(source) * 600_000, decoded=decoded):
            pass


def _photograph(seed: int) -> np.ndarray:
    """Noise with the spectrum of photographs, about as large as one when compressed."""
    random = np.random.default_rng(seed)
    image = np.zeros((321, 481, 3), np.float32)
    for scale in (2, 4, 8, 16, 32, 64, 128):
        coarse = random.normal(size=(321 // scale + 2, 481 // scale + 2, 3)).astype(np.float32)
        image += scale**0.5 * cv2.resize(coarse, (481, 321), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 8 * image, 0, 255).astype(np.uint8)


def dataset(root: Path, way: str) -> UnpairedRain:
    """Ours, by way: ``files``, ``lmdb``, ``lmdb decoded``, ``memory``; labels are ready, or made where it says so."""
    suffix = {"lmdb": "_False.lmdb", "lmdb decoded": "_True.lmdb"}.get(way.partition(",")[0], "")
    rainy, labels, clean = (open_source(root / f"{name}{suffix}") for name in ("rainy", "labels", "clean"))
    found = UnpairedRain(rainy, SoftLabels(rainy, FILTER) if "made" in way else labels, clean, CROP)
    if way in ("memory", "device"):
        found.load()
    return found


def batches(data: Dataset[Any], workers: int) -> Iterator[Any]:
    """Batches without end, loaded as ``basicsr train`` does."""
    together = collate_rain if isinstance(data, UnpairedRain) else None
    return iter(DataLoader(data, BATCH, sampler=range(1 << 40), num_workers=workers, collate_fn=together))


WAYS = ("files", "files, labels made", "lmdb", "lmdb decoded", "lmdb decoded, labels made", "memory", "device")


def bench_rate(root: Path, workers: int, repeats: int, length: float) -> None:
    """Triples a second, the ways in turn; batches that workers have made ahead are taken out before the clock runs."""
    streams = {"reference": batches(PlainCrops(root), workers)}
    devices = [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]
    for way in WAYS:
        if way != "device":
            streams[way] = batches(dataset(root, way), workers)
        elif workers:
            held = dataset(root, way)
            for device in devices:
                streams[f"device ({device})"] = iter(DeviceBatches(held, range(1 << 40), BATCH, device))
    rates: dict[str, list[float]] = {way: [] for way in streams}
    for turn in range(repeats + 1):
        for way, stream in streams.items():
            for _ in range(2 * workers + 2):
                next(stream)
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < length:
                next(stream)
                count += 1
            if "cuda" in way:
                torch.cuda.synchronize()
            if turn:
                rates[way].append(BATCH * count / (time.perf_counter() - start))
    moved = 2 * 3 * CROP * CROP * 3
    for way, found in rates.items():
        emit(
            "data_rate",
            torch.device("cuda" if "cuda" in way else "cpu"),
            way=way,
            workers=0 if "device" in way else workers,
            triples_a_second=spread(found),
            times_as_fast=statistics.median(b / a for a, b in zip(rates["reference"], found, strict=True)),
            floor=1 / floor(CPU, 0, moved),
        )


def bench_wait(root: Path, step: float, steps: int) -> None:
    """The share of a training loop that is spent waiting for data, with steps that keep all cores busy."""
    matrix = torch.rand(512, 512)
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        f"{way}, {workers} workers": lambda way=way, workers=workers: batches(  # type: ignore[misc]
            PlainCrops(root) if way == "reference" else dataset(root, way), workers
        )
        for way in ("reference", "files, labels made", "lmdb decoded, labels made", "memory")
        for workers in (0, 2)
    }
    held = dataset(root, "device")
    ways["device (cpu)"] = lambda: iter(DeviceBatches(held, range(1 << 40), BATCH, CPU))
    for way, stream in ways.items():
        loader = stream()
        next(loader)
        waits = []
        for _ in range(steps):
            end = time.perf_counter() + step
            while time.perf_counter() < end:
                matrix @ matrix
            start = time.perf_counter()
            next(loader)
            waits.append(time.perf_counter() - start)
        shares = [wait / (wait + step) for wait in waits]
        emit("data_wait", CPU, way=way, step=step, waiting_share=spread(shares), waiting_longest=max(waits))


# --- memory ---


def name_of(number: int) -> str:
    """Like SPA-Data's."""
    return f"{number // 500:04}/spa_pair_{number:07}"


def make_lmdb(root: Path, numbers: range) -> None:
    """An LMDB in BasicSR's layout of small images of these numbers, written plainly."""
    ramp = np.add.outer(np.arange(136), np.arange(136))[..., None] // np.array([2, 3, 4])
    value = cv2.imencode(".png", ramp.astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    names = [name_of(number) for number in numbers]
    environment = lmdb.open(str(root), map_size=1 << 40, sync=False)
    with environment.begin(write=True) as transaction:
        for name in names:
            transaction.put(name.encode(), value, append=True)
    environment.sync(True)
    environment.close()
    (root / "meta_info.txt").write_text("".join(f"{name}.png (136,136,3) 1\n" for name in names))


def proportional(process: int | str) -> dict[str, int]:
    """A process's share of memory in bytes: all of it, and what is not pages of files that can be read again."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {"total": values["Pss"], "own": values["Pss_Anon"] + values["Pss_Shmem"]}


def measure_memory(root: str, count: int) -> None:
    """In a process of its own: open the LMDBs, let samples flow, and print what that takes."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    start = time.perf_counter()
    rainy, clean = open_source(Path(root) / "rainy.lmdb"), open_source(Path(root) / "clean.lmdb")
    data = UnpairedRain(rainy, SoftLabels(rainy, FILTER), clean, CROP)
    opened = time.perf_counter() - start
    stream = batches(data, workers=2)
    network = RainOerMeNet()
    optimiser = torch.optim.Adam(network.parameters())
    most = {"total": 0, "own": 0}
    for number in range(count):
        batch = next(stream)
        if number < 2:  # the memory of a real step counts too
            output = network(torch.cat([batch["rainy"], batch["clean"]]).float().div_(255))
            (output if isinstance(output, Tensor) else output[0]).mean().backward()
            optimiser.step()
        if number % 100 == 99:
            workers = [child.pid for child in multiprocessing.active_children()]
            found = [proportional(process) for process in (os.getpid(), *workers) if process]
            most = {key: max(most[key], sum(values[key] for values in found)) for key in most}
    print(json.dumps({"open_seconds": opened, "memory": most, "processes": len(found)}))


def bench_memory(root: Path, sizes: Iterable[int], count: int) -> None:
    """Memory of the training process and its workers together, and the time to open, over the number of images."""
    for size in sizes:
        folder = root / f"lmdb_{size}"
        for name in ("rainy", "clean"):
            if not (folder / f"{name}.lmdb" / "meta_info.txt").exists():
                (folder / f"{name}.lmdb").mkdir(parents=True, exist_ok=True)
                make_lmdb(folder / f"{name}.lmdb", range(size))
        command = [sys.executable, __file__, "--measure-memory", str(folder), str(count)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        emit("data_memory", CPU, images=size, batches=count, **json.loads(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images, short times: to see that it runs")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds of each timing (5)")
    parser.add_argument("--sizes", type=int, nargs="+", default=None, metavar="N", help="images in the LMDBs")
    step_help = "of a simulated training step (0.4: the paper's network on two CPU cores)"
    parser.add_argument("--step", type=float, default=0.4, metavar="SECONDS", help=step_help)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the generated data there, and use it again")
    parser.add_argument(
        "--only", choices=PARTS, nargs="+", default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--measure-memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        measure_memory(arguments.measure_memory[0], int(arguments.measure_memory[1]))
        return
    quick = arguments.quick
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        images = root / ("images_quick" if quick else "images")
        if not images.exists() and set(arguments.only) & {"rate", "wait"}:
            say("making images")
            make_images(images, quick)
        if "rate" in arguments.only:
            for workers in (2, 0):
                say(f"triples a second with {workers} workers")
                bench_rate(images, workers, 1 if quick else arguments.repeats, 0.3 if quick else 2)
        if "wait" in arguments.only:
            say("waiting for data")
            bench_wait(images, 0.1 if quick else arguments.step, 3 if quick else 8)
        if "memory" in arguments.only:
            for size in arguments.sizes or (SIZES[:2] if quick else SIZES):
                say(f"memory with {size} images")
                bench_memory(root, [size], 100 if quick else 400)


if __name__ == "__main__":
    main()
