"""Training data without pairs: rainy crops with their soft labels, and clean crops of other scenes.

What sample number k looks like is a function of (seed, k) and the files alone. A training loop that numbers its
samples through (k = iteration * batch size + place in the batch) gets the same data with any number of workers, and
goes on exactly where it stopped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from .images import RGB, to_tensor
from .labels import check_label_sizes
from .sources import ImageSource, check_sizes

SAMPLES_AN_EPOCH = 1_000_000
"""About how many samples a loop that thinks in epochs sees before crops come again."""


class UnpairedSample(TypedDict):
    """Images are (3, crop, crop) float32 in [0, 1]."""

    rainy: Tensor
    label: Tensor
    clean: Tensor
    rainy_path: str
    clean_path: str


@lru_cache(maxsize=64)
def _order(seed: int, round_: int, count: int, kind: int) -> list[int]:
    return np.random.default_rng([seed, round_, kind]).permutation(count).tolist()


def shuffled(seed: int, position: int, count: int, kind: int) -> int:
    """Which of ``count`` images comes at ``position`` of an endless stream that shows all of them, shuffled, and again.

    ``kind`` tells streams of one seed apart.
    """
    return _order(seed, position // count, count, kind)[position % count]


class UnpairedRain(Dataset[UnpairedSample]):
    """Triples of a rainy crop, its soft label and an unrelated clean crop.

    Rainy image and label are cropped alike and flipped together (not, vertically, horizontally or both, as in the
    paper); clean images are only cropped.

    Args:
        rainy: The rainy images.
        labels: Their soft labels, in the same order.
        clean: Clean images of other scenes.
        crop_size: Side of the square crops in pixels.
        seed: With the sample's number, decides everything random.

    Raises:
        DataError: An image is smaller than the crop, or a label is not of its image's size.
    """

    def __init__(
        self, rainy: ImageSource, labels: ImageSource, clean: ImageSource, crop_size: int = 128, seed: int = 0
    ) -> None:
        if crop_size < 1:
            raise DataError(f"crop_size must be at least 1, got {crop_size}")
        check_label_sizes(rainy, labels, check_sizes(rainy, crop_size))
        check_sizes(clean, crop_size)
        self.rainy, self.labels, self.clean = rainy, labels, clean
        self.crop_size = crop_size
        self.seed = seed

    def __len__(self) -> int:
        """Whole passes over the rainy images, about `SAMPLES_AN_EPOCH`; any larger number is a sample as well."""
        return len(self.rainy) * max(1, round(SAMPLES_AN_EPOCH / len(self.rainy)))

    def __getitem__(self, position: int) -> UnpairedSample:
        random = np.random.default_rng([self.seed, position])
        rainy_index = shuffled(self.seed, position, len(self.rainy), kind=1)
        clean_index = shuffled(self.seed, position, len(self.clean), kind=2)
        rainy, label = self.rainy.read(rainy_index), self.labels.read(rainy_index)
        rows, columns = self._crop(rainy, random)
        flips = (slice(None, None, -1 if random.integers(2) else 1), slice(None, None, -1 if random.integers(2) else 1))
        clean = self.clean.read(clean_index)
        return {
            "rainy": to_tensor(rainy[rows, columns][flips]),
            "label": to_tensor(label[rows, columns][flips]),
            "clean": to_tensor(clean[self._crop(clean, random)]),
            "rainy_path": self.rainy.where(rainy_index),
            "clean_path": self.clean.where(clean_index),
        }

    def _crop(self, image: RGB, random: np.random.Generator) -> tuple[slice, slice]:
        top = int(random.integers(image.shape[0] - self.crop_size + 1))
        left = int(random.integers(image.shape[1] - self.crop_size + 1))
        return slice(top, top + self.crop_size), slice(left, left + self.crop_size)
