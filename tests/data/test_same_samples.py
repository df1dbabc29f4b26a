"""One sample from every kind of source, in every kind of worker: bit by bit the same.

The oracle is plain: whole files, read by Pillow, cut and flipped as the drawn numbers say, and labels filtered whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rainoerme_plugin.data.device import DeviceBatches
from rainoerme_plugin.data.images import to_tensor
from rainoerme_plugin.data.labels import SoftLabels
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.rain import LargeEnough
from rainoerme_plugin.data.sources import FolderSource, LmdbSource
from rainoerme_plugin.data.unpaired import IMAGES, UnpairedRain, collate_rain
from rainoerme_plugin.distillation.filters import OpeningFilter
from rainoerme_plugin.errors import DataError
from rainoerme_plugin.training.sampler import StreamSampler

CROP, SEED, START = 16, 9, 5
SIZES = [(16, 16), (17, 31), (24, 18), (16, 45), (33, 21), (20, 22), (19, 19)]
KINDS = ("files", "encoded LMDB", "decoded LMDB", "memory", "memory of an LMDB")
FILTER = OpeningFilter((3, 5))

Build = Callable[..., UnpairedRain]


def write(folder: Path, sizes: list[tuple[int, int]], seed: int) -> FolderSource:
    folder.mkdir()
    for number, size in enumerate(sizes):
        noise = np.random.default_rng([seed, number]).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return FolderSource(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write(root / "rainy", SIZES, 0)
    write(root / "clean", SIZES[:0:-2], 1)
    labels = root / "labels"
    labels.mkdir()
    for path in (root / "rainy").iterdir():
        Image.fromarray(FILTER(np.asarray(Image.open(path)))).save(labels / path.name)
    write(root / "rain", [(9, 9), (16, 16), (30, 14), (40, 21)], 2)
    for name in ("rainy", "labels", "clean", "rain"):
        source = FolderSource(root / name)
        for kind in ("encoded", "decoded"):
            images = ((name, source.encoded(index)) for index, name in enumerate(source.names))
            list(write_lmdb(root / kind / f"{name}.lmdb", images, 1 << 20, decoded=kind == "decoded"))
    return root


@pytest.fixture
def build(root: Path) -> Build:
    def build(kind: str, ready: bool = False, bank: bool = False) -> UnpairedRain:
        names = ("rainy", "labels", "clean", "rain")
        if "LMDB" in kind:
            folder = root / ("encoded" if kind == "encoded LMDB" else "decoded")
            rainy, labels, clean, rain = (LmdbSource(folder / f"{name}.lmdb") for name in names)
        else:
            rainy, labels, clean, rain = (FolderSource(root / name) for name in names)  # type: ignore[assignment]
        made = labels if ready else SoftLabels(rainy, FILTER)
        dataset = UnpairedRain(rainy, made, clean, CROP, SEED, rain=LargeEnough(rain, CROP) if bank else None)
        if "memory" in kind:
            dataset.load()
        return dataset

    return build


def expected(root: Path, dataset: UnpairedRain, position: int) -> dict[str, np.ndarray]:
    drawn = dataset.draw(position)

    def pixels(folder: str, index: int, top: int, left: int) -> np.ndarray:
        path = root / folder / FolderSource(root / folder).names[index]
        return np.asarray(Image.open(path))[top : top + CROP, left : left + CROP]

    crops = {name: pixels(name, drawn.rainy, drawn.top, drawn.left) for name in ("rainy", "labels")}
    for name, crop in crops.items():
        crop = crop[::-1] if drawn.upturned else crop
        crops[name] = crop[:, ::-1] if drawn.mirrored else crop
    crops["clean"] = pixels("clean", drawn.clean, drawn.clean_top, drawn.clean_left)
    return {name.removesuffix("s"): np.moveaxis(crop, 2, 0) for name, crop in crops.items()}


def alike(one: Any, other: Any) -> bool:
    assert one.keys() & set(IMAGES) == other.keys() & set(IMAGES)
    return all(torch.equal(one[key], other[key]) for key in IMAGES if key in one)


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_bank_its_rain_is_cut_out_of_mirrored_squares_and_all_else_is_as_without(
    build: Build, root: Path, kind: str
) -> None:
    dataset, without = build(kind, bank=True), build(kind)
    shown = set()
    for position in range(60):
        sample, drawn = dict(dataset[position]), dataset.draw(position)
        shown.add(drawn.rain)
        square = np.asarray(Image.open(root / "rain" / f"{drawn.rain}.png"))
        mirrored = np.concatenate([square, square[:, ::-1]], 1)
        mirrored = np.concatenate([mirrored, mirrored[::-1]], 0)
        height, width = (max(CROP, side) for side in square.shape[:2])
        assert drawn.rain_top + CROP <= height
        assert drawn.rain_left + CROP <= width
        window = mirrored[drawn.rain_top : drawn.rain_top + CROP, drawn.rain_left : drawn.rain_left + CROP]
        assert np.array_equal(sample.pop("rain").numpy(), np.moveaxis(window, 2, 0))
        assert drawn[:8] == without.draw(position)[:8]
        assert alike(sample, without[position])
    assert shown == {0, 1, 2, 3}


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_what_plain_reading_gives(build: Build, root: Path, kind: str, ready: bool) -> None:
    dataset = build(kind, ready)
    for position in range(60):
        sample = dataset[position]
        for name, image in expected(root, dataset, position).items():
            assert np.array_equal(sample[name].numpy(), image)  # type: ignore[literal-required]
        name = FolderSource(root / "rainy").names[dataset.draw(position).rainy]
        assert sample["rainy_path"].endswith(name if "encoded" not in kind and "LMDB" not in kind else name[:-4])


def test_a_sample_is_a_copy(build: Build) -> None:
    dataset = build("memory")
    before = dataset[3]
    for key in ("rainy", "label", "clean"):
        dataset[3][key].zero_()  # type: ignore[literal-required]
    assert alike(dataset[3], before)


def test_a_crop_of_one_pixel_is_a_copy_too(root: Path) -> None:
    rainy = FolderSource(root / "rainy")
    dataset = UnpairedRain(rainy, rainy, rainy, crop_size=1)
    dataset.load()
    before = dataset[0]["rainy"].clone()
    dataset[0]["rainy"].add_(1)
    assert torch.equal(dataset[0]["rainy"], before)


def test_bytes_over_255_are_the_floats_of_earlier_versions(build: Build, root: Path) -> None:
    sample = build("files")[0]
    for name, image in expected(root, build("files"), 0).items():
        floats = sample[name].float().div_(255)  # type: ignore[literal-required]
        assert torch.equal(floats, to_tensor(np.moveaxis(image, 0, 2)))
        assert torch.equal(floats, torch.from_numpy(image.astype(np.float32) / np.float32(255)))


# --- in workers ---


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_any_kind_give_the_same(build: Build, method: str) -> None:
    plain = build("files")
    reference = [plain[position] for position in range(START, START + 12)]
    for kind in ("decoded LMDB", "memory"):
        dataset = build(kind)
        assert alike(dataset[START], reference[0])  # the parent has it open, or in memory, when the workers begin
        sampler = StreamSampler(START, START + 12, batch=4)
        loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=2, multiprocessing_context=method)
        batches = list(loader)
        assert len(batches) == 3
        for number, sample in enumerate(reference):
            batch, place = batches[number // 4], number % 4
            assert alike({key: batch[key][place] for key in ("rainy", "label", "clean")}, sample)
        assert alike(dataset[START + 11], reference[11])  # and the parent goes on


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_data_sets_over_one_lmdb_in_workers_at_once(build: Build, root: Path, method: str) -> None:
    loaders = [
        DataLoader(build("encoded LMDB", ready), 1, num_workers=2, sampler=range(6), multiprocessing_context=method)
        for ready in (False, True)
    ]
    own = build("encoded LMDB")
    for position, (one, other) in enumerate(zip(*loaders, strict=True)):
        assert alike(one, other)
        assert alike({key: one[key][0] for key in ("rainy", "label", "clean")}, own[position])


@pytest.mark.parametrize("bank", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_one_block_are_those_of_the_default(build: Build, workers: int, bank: bool) -> None:
    plain = DataLoader(build("files", bank=bank), 3, sampler=range(12))
    together = DataLoader(build("files", bank=bank), 3, False, range(12), None, workers, collate_rain)
    for one, other in zip(together, plain, strict=True):
        assert alike(one, other)
        assert one["rainy"].is_contiguous()
        assert one["rainy"].untyped_storage().data_ptr() == one["clean"].untyped_storage().data_ptr()
        assert (one["rainy_path"], one["clean_path"]) == (other["rainy_path"], other["clean_path"])


# --- on the device ---


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("bank", [False, True])
def test_batches_made_on_a_device_are_those_of_a_loader(build: Build, batch: int, ready: bool, bank: bool) -> None:
    dataset, plain = build("memory", ready, bank), build("memory" if batch == 3 else "files", ready, bank)
    sampler = range(START, START + 50)
    made = DeviceBatches(dataset, sampler, batch, torch.device("cpu"))
    loaded = DataLoader(plain, batch_size=batch, sampler=sampler, drop_last=True)
    assert len(made) == len(loaded) == 50 // batch
    flips = set()
    for one, other in zip(made, loaded, strict=True):
        assert alike(one, other)
        assert one["rainy"].shape == (batch, 3, CROP, CROP)
        assert one["rainy"].dtype == torch.uint8
        assert (one["rainy_path"], one["clean_path"]) == (other["rainy_path"], other["clean_path"])
    for position in range(START, START + 50):
        flips.add((dataset.draw(position).upturned, dataset.draw(position).mirrored))
    assert len(flips) == 4


def test_batches_may_be_gone_through_again_and_left_early(build: Build) -> None:
    dataset = build("memory")
    made = DeviceBatches(dataset, StreamSampler(0, 400, batch=4), 4, torch.device("cpu"))
    first = next(iter(made))
    assert alike(next(iter(made)), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_on_a_gpu_are_those_of_the_cpu(build: Build) -> None:
    dataset = build("memory")
    sampler = StreamSampler(0, 64, batch=4)
    batches = [DeviceBatches(dataset, sampler, 4, torch.device(device)) for device in ("cuda", "cpu")]
    for one, other in zip(*batches, strict=True):
        assert one["rainy"].is_cuda
        assert alike({key: one[key].cpu() for key in ("rainy", "label", "clean")}, other)


def test_images_that_are_not_in_memory_are_refused(build: Build) -> None:
    with pytest.raises(DataError, match=r"not in memory: load\(\)"):
        DeviceBatches(build("files"), range(8), 4, torch.device("cpu"))


def test_a_full_device_names_the_option(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    dataset = build("memory")
    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(
        DataError, match=r"images take 0\.0 GB, which is not free on cuda; take source: memory, or files"
    ):
        DeviceBatches(dataset, range(8), 4, torch.device("cuda"))
