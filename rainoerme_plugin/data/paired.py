"""Test data: rainy images with or without their clean versions, and pairs made of clean images and a bank's rain."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import NotRequired

from .images import to_tensor
from .names import names_of, result_names
from .order import shuffled
from .pairing import Pairing
from .sources import ImageSource, check_sizes


class TestSample(TypedDict):
    """Images are (3, H, W) float32 in [0, 1], under BasicSR's names: ``lq`` is rainy, ``gt`` clean."""

    lq: Tensor
    lq_path: str
    result: str
    """A name for what is made of it, unlike those of the other images (`data.names.result_names`)."""
    gt: NotRequired[Tensor]
    gt_path: NotRequired[str]


class PairedRain(Dataset[TestSample]):
    """Rainy images and their clean versions.

    Raises:
        DataError: The name of an image is not fit for a result's.
    """

    def __init__(self, pairing: Pairing) -> None:
        self.pairing = pairing
        rainy = [pair.rainy for pair in pairing.pairs]
        self.results = result_names(names_of(rainy), rainy.__getitem__)

    def __len__(self) -> int:
        return len(self.pairing.pairs)

    def __getitem__(self, index: int) -> TestSample:
        pair = self.pairing.pairs[index]
        rainy, clean = pair.read()
        return {
            "lq": to_tensor(rainy),
            "gt": to_tensor(clean),
            "lq_path": str(pair.rainy),
            "gt_path": str(pair.clean),
            "result": self.results[index],
        }


class SingleRain(Dataset[TestSample]):
    """Rainy images without ground truth.

    Raises:
        DataError: The name of an image is not fit for a result's.
    """

    def __init__(self, rainy: ImageSource) -> None:
        self.rainy = rainy
        self.results = result_names(rainy.names, rainy.where)

    def __len__(self) -> int:
        return len(self.rainy)

    def __getitem__(self, index: int) -> TestSample:
        return {
            "lq": to_tensor(self.rainy.read(index)),
            "lq_path": self.rainy.where(index),
            "result": self.results[index],
        }


class MadePairs(Dataset[TestSample]):
    """Clean crops, and the same with the rain of a bank: pairs where no photograph has a clean version.

    A network that is better at these is better at the photographs that the rain is from (docs/benchmarks.md), so that
    checkpoints can be chosen by them. They are the same whenever they are made of the same images.

    Args:
        clean: Clean images.
        rain: A bank of rain (`data.rain`), grey images on black.
        pairs: How many.
        crop_size: Side of the square crops, in pixels.
        seed: Of what is drawn.

    Raises:
        DataError: An image is smaller than a crop.
    """

    def __init__(self, clean: ImageSource, rain: ImageSource, pairs: int, crop_size: int, seed: int = 0) -> None:
        self._sources = clean, rain
        self._sizes = [check_sizes(source, crop_size) for source in self._sources]
        self._crop_size, self._seed = crop_size, seed
        self.results = [f"pair-{number:03d}" for number in range(1, pairs + 1)]

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> TestSample:
        if index >= len(self):
            raise IndexError(index)
        random = np.random.default_rng([self._seed, index])
        crops, places = [], []
        for kind, (source, sizes) in enumerate(zip(self._sources, self._sizes, strict=True)):
            which = shuffled(self._seed, index, len(source), kind)
            top, left = (int(random.integers(length - self._crop_size + 1)) for length in sizes[which].tolist())
            crops.append(source.crop(which, top, left, self._crop_size, self._crop_size))
            places.append(source.where(which))
        clean, rain = crops
        rainy = np.minimum(clean.astype(np.uint16) + rain, 255).astype(np.uint8)
        return {
            "lq": to_tensor(rainy),
            "gt": to_tensor(clean),
            "lq_path": f"{places[0]} with the rain of {places[1]}",
            "gt_path": places[0],
            "result": self.results[index],
        }
