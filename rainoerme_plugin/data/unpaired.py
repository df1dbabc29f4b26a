"""Training data without pairs: rainy crops with their soft labels, clean crops of other scenes, and rain of a bank.

What sample number k looks like is a function of (seed, k) and the files alone, and of where late crops begin. A
training loop that numbers its samples through (k = iteration * batch size + place in the batch) gets the same data with
any number of workers, from any kind of source, and goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from .order import LATE_FROM, Turns, late_start
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
        late_crop_size: Their side late in a run, or None: the same.
        late_from: After this share of a run's iterations it is that (`plan`).
        turns: Of sources of several folders, by their names in `IMAGES`: which images come when.
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
        late_crop_size: int | None = None,
        late_from: float = LATE_FROM,
        turns: Mapping[str, Turns] | None = None,
    ) -> None:
        if crop_size < 1:
            raise DataError(f"crop_size must be at least 1, got {crop_size}")
        self.crop_size, self.late_crop_size, self.late_from = crop_size, late_crop_size, late_from
        largest = self.largest_crop
        key = "crop_size" if largest == crop_size else "late_crop_size"
        self._rainy_sizes = check_sizes(rainy, largest, track, key)
        check_label_sizes(rainy, labels)
        self._clean_sizes = check_sizes(clean, largest, track, key)
        self._rain_sizes = None if rain is None else check_sizes(rain, largest, track, key)
        self.rainy, self.labels, self.clean, self.rain = rainy, labels, clean, rain
        sources = {"rainy": rainy, "clean": clean, **({} if rain is None else {"rain": rain})}
        self._turns = {name: Turns([len(source)]) for name, source in sources.items()} | dict(turns or {})
        self._late_at: int | None = None
        """Number of the first sample with late crops."""
        self.seed = seed
        self.held: Sequence[MemorySource] | None = None
        """The sources once they are in memory, in one block, in the order of `IMAGES`."""

    @property
    def crop_sizes(self) -> tuple[int, ...]:
        """The sides of crops, the late ones' last."""
        return (self.crop_size,) if self.late_crop_size is None else (self.crop_size, self.late_crop_size)

    @property
    def largest_crop(self) -> int:
        """The largest side of a crop."""
        return max(self.crop_sizes)

    def plan(self, total: int, samples: int, done: int = 0, first: int = 0) -> None:
        """Find out where in a run crops become late ones; without this they never do.

        Args:
            total: Iterations of the run.
            samples: Of an iteration, over all processes.
            done: Iterations that are done.
            first: Number of the sample that the next one begins with.
        """
        self._late_at = first + (late_start(self.late_from, total) - done) * samples

    def side(self, position: int) -> int:
        """The side of the crops of sample ``position``, in pixels."""
        if self.late_crop_size is None or self._late_at is None or position < self._late_at:
            return self.crop_size
        return self.late_crop_size

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
        random, side = np.random.default_rng([self.seed, position]), self.side(position)
        rainy = self._turns["rainy"].at(self.seed, position, 1, random)
        clean = self._turns["clean"].at(self.seed, position, 2, random)

        def corner(size: NDArray[np.int32]) -> tuple[int, int]:
            height, width = size.tolist()
            return int(random.integers(height - side + 1)), int(random.integers(width - side + 1))

        window = corner(self._rainy_sizes[rainy])
        flips = bool(random.integers(2)), bool(random.integers(2))
        drawn = Draw(rainy, *window, *flips, clean, *corner(self._clean_sizes[clean]))
        if self._rain_sizes is None:
            return drawn
        rain = self._turns["rain"].at(self.seed, position, 3, random)
        top, left = corner(self._rain_sizes[rain])
        return drawn._replace(rain=rain, rain_top=top, rain_left=left)

    def __getitem__(self, position: int) -> UnpairedSample:
        drawn, side = self.draw(position), self.side(position)
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
