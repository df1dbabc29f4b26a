"""Training data without pairs: rainy crops with their soft labels, clean crops of other scenes, and rain of a bank.

What sample number k looks like is a function of (seed, k) and the files alone. A training loop that numbers its
samples through (k = iteration * batch size + place in the batch) gets the same data with any number of workers, from
any kind of source, and goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import NotRequired

from ..errors import DataError
from .images import planes
from .labels import SoftLabels, check_label_sizes
from .memory import MemorySource, into_memory
from .sources import ImageSource, Track, check_sizes, untracked

SAMPLES_AN_EPOCH = 1_000_000
"""About how many samples a loop that thinks in epochs sees before crops come again."""


IMAGES = ("rainy", "label", "clean", "rain")
"""The images of a sample, by their names in it; the last one only where there is a bank of rain."""


class UnpairedSample(TypedDict):
    """Images are (3, crop, crop) uint8, 0-255: a quarter of what workers would have to hand over as floats."""

    rainy: Tensor
    label: Tensor
    clean: Tensor
    rain: NotRequired[Tensor]
    rainy_path: str
    clean_path: str


class UnpairedBatch(TypedDict):
    """Images are (B, 3, crop, crop) uint8."""

    rainy: Tensor
    label: Tensor
    clean: Tensor
    rain: NotRequired[Tensor]
    rainy_path: list[str]
    clean_path: list[str]


def images_of(batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """What a step is computed of (`distillation.graphs.Images`): three batches of images, with a bank's rain four."""
    return tuple(batch[name] for name in IMAGES if name in batch)


def batch_of(images: Sequence[Tensor], rainy_path: list[str], clean_path: list[str]) -> UnpairedBatch:
    """A batch of its images in the order of `IMAGES`."""
    rainy, label, clean, *rain = images
    batch: UnpairedBatch = {
        "rainy": rainy,
        "label": label,
        "clean": clean,
        "rainy_path": rainy_path,
        "clean_path": clean_path,
    }
    if rain:
        batch["rain"] = rain[0]
    return batch


def collate_rain(samples: Sequence[UnpairedSample]) -> UnpairedBatch:
    """What ``default_collate`` gives, in one block of memory: workers hand over blocks, and each takes a while."""
    kinds = len(images_of(samples[0]))
    images = torch.empty(kinds, len(samples), *samples[0]["rainy"].shape, dtype=torch.uint8)
    for place, sample in enumerate(samples):
        for kind, image in enumerate(images_of(sample)):
            images[kind, place] = image
    paths = ([sample[key] for sample in samples] for key in ("rainy_path", "clean_path"))
    return batch_of(list(images), *paths)


class Draw(NamedTuple):
    """What a sample is made of: its images' numbers, its windows' first rows and columns, the rainy one's flips.

    Those of the bank's rain are 0 where there is no bank.
    """

    rainy: int
    top: int
    left: int
    upturned: bool
    mirrored: bool
    clean: int
    clean_top: int
    clean_left: int
    rain: int = 0
    rain_top: int = 0
    rain_left: int = 0


@lru_cache(maxsize=4)
def _order(seed: int, round_: int, count: int, kind: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, round_, kind]).permutation(count)


def shuffled(seed: int, position: int, count: int, kind: int) -> int:
    """Which of ``count`` images comes at ``position`` of an endless stream that shows all of them, shuffled, and again.

    ``kind`` tells streams of one seed apart.
    """
    return int(_order(seed, position // count, count, kind)[position % count])


class UnpairedRain(Dataset[UnpairedSample]):
    """Triples of a rainy crop, its soft label and an unrelated clean crop.

    Rainy image and label are cropped alike and flipped together (not, vertically, horizontally or both, as in the
    paper); clean images are only cropped.

    Args:
        rainy: The rainy images.
        labels: Their soft labels, in the same order.
        clean: Clean images of other scenes.
        rain: A bank of rain (`data.rain`), or None.
        crop_size: Side of the square crops in pixels.
        seed: With the sample's number, decides everything random.
        track: Shows the progress of checking the images' sizes.

    Raises:
        DataError: An image is smaller than the crop, or a label is not of its image's size.
    """

    def __init__(
        self,
        rainy: ImageSource,
        labels: ImageSource,
        clean: ImageSource,
        crop_size: int = 128,
        seed: int = 0,
        track: Track[tuple[int, int]] = untracked,
        rain: ImageSource | None = None,
    ) -> None:
        if crop_size < 1:
            raise DataError(f"crop_size must be at least 1, got {crop_size}")
        self._rainy_sizes = check_sizes(rainy, crop_size, track)
        check_label_sizes(rainy, labels)
        self._clean_sizes = check_sizes(clean, crop_size, track)
        self._rain_sizes = None if rain is None else check_sizes(rain, crop_size, track)
        self.rainy, self.labels, self.clean, self.rain = rainy, labels, clean, rain
        self.crop_size = crop_size
        self.seed = seed
        self.held: Sequence[MemorySource] | None = None
        """The sources once they are in memory, in one block, in the order of `IMAGES`."""

    def load(self, track: Track[None] = untracked) -> None:
        """Decode all images now, into one block of memory: rainy ones, labels, clean ones, rain.

        Raises:
            DataError: An image cannot be read, or they do not fit into the memory that is free.
        """
        self.held = into_memory(self.rainy, self.labels, self.clean, track, self.rain)
        self.rainy, self.labels, self.clean, *more = self.held
        self.rain = more[0] if more else None

    def __len__(self) -> int:
        """Whole passes over the rainy images, about `SAMPLES_AN_EPOCH`; any larger number is a sample as well."""
        return len(self.rainy) * max(1, round(SAMPLES_AN_EPOCH / len(self.rainy)))

    def draw(self, position: int) -> Draw:
        """What sample ``position`` is made of; no image is read."""
        random = np.random.default_rng([self.seed, position])
        rainy = shuffled(self.seed, position, len(self._rainy_sizes), kind=1)
        clean = shuffled(self.seed, position, len(self._clean_sizes), kind=2)

        def corner(size: NDArray[np.int32]) -> tuple[int, int]:
            height, width = size.tolist()
            return int(random.integers(height - self.crop_size + 1)), int(random.integers(width - self.crop_size + 1))

        window = corner(self._rainy_sizes[rainy])
        flips = bool(random.integers(2)), bool(random.integers(2))
        drawn = Draw(rainy, *window, *flips, clean, *corner(self._clean_sizes[clean]))
        if self._rain_sizes is None:
            return drawn
        rain = shuffled(self.seed, position, len(self._rain_sizes), kind=3)
        top, left = corner(self._rain_sizes[rain])
        return drawn._replace(rain=rain, rain_top=top, rain_left=left)

    def __getitem__(self, position: int) -> UnpairedSample:
        drawn, side = self.draw(position), self.crop_size
        place = (drawn.rainy, drawn.top, drawn.left, side, side)
        if isinstance(self.labels, SoftLabels):
            rainy, label = self.labels.crop_both(*place)
        else:
            rainy, label = self.rainy.crop(*place), self.labels.crop(*place)
        flips = (slice(None, None, -1 if drawn.upturned else 1), slice(None, None, -1 if drawn.mirrored else 1))
        sample: UnpairedSample = {
            "rainy": planes(rainy[flips]),
            "label": planes(label[flips]),
            "clean": planes(self.clean.crop(drawn.clean, drawn.clean_top, drawn.clean_left, side, side)),
            "rainy_path": self.rainy.where(drawn.rainy),
            "clean_path": self.clean.where(drawn.clean),
        }
        if self.rain is not None:
            sample["rain"] = planes(self.rain.crop(drawn.rain, drawn.rain_top, drawn.rain_left, side, side))
        return sample
