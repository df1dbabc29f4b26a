"""Test data: rainy images with or without their clean versions, whole."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import NotRequired

from .images import to_tensor
from .names import names_of, result_names
from .pairing import Pairing
from .sources import ImageSource


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
