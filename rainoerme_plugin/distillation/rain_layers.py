"""Rain layers made more various before they are added to clean images.

A rain layer is found at one place of one photograph. Moved to another image of the batch, flipped, turned, scaled and
summed with another it is still photographed rain. The paper does none of it, and nor do the defaults here.

All that is random of one step is a function of ``(seed, iteration)``: numbers drawn on the CPU and handed over in one
small tensor, so that a resumed run draws the same, nothing waits for the GPU, and a CUDA graph can be replayed with
the next step's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import cos, log, radians, sin

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_LAYER_NUMBERS = 8
"""Of one layer of one image: whose it is, its strength, whether mirrored and upturned, and a 2x2 matrix."""
Range = tuple[float, float]


@dataclass(frozen=True)
class RainVariation:
    """How rain layers are varied; the defaults leave them as they were found.

    Args:
        move: Each layer goes to another image of the batch: the batch is rolled by a random number of places.
        flip: Half of the layers are mirrored, left for right. Rain falls aslant to either side.
        upturn: Half of them are turned upside down.
        turn: Each is turned by an angle drawn from -turn to turn, in degrees.
        strength: Each is multiplied by a factor from this range.
        size: Streaks become so many times as large, drawn from this range on a logarithmic scale. What comes in from
            beyond the border is the layer reflected.
        two: Probability that a second layer, varied likewise, is added: that of another image of the batch than the
            first. A batch of one has no other; there it is the same layer turned by half, whose streaks lean as they
            did and lie elsewhere.
        none: Probability that an image stays without rain: a derainer must leave clean pictures as they are.
        grey: Rain layers have no colour: each is the mean over its channels.

    Raises:
        ValueError: A number is out of range.
    """

    move: bool = False
    flip: bool = False
    upturn: bool = False
    turn: float = 0.0
    strength: Range = (1.0, 1.0)
    size: Range = (1.0, 1.0)
    two: float = 0.0
    none: float = 0.0
    grey: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.turn <= 90:
            raise ValueError(f"turn must be from 0 to 90 degrees, got {self.turn}")
        if not 0 <= self.strength[0] <= self.strength[1]:
            raise ValueError(f"strength must be [least, most], 0 <= least <= most, got {list(self.strength)}")
        if not 0.1 <= self.size[0] <= self.size[1] <= 10:
            raise ValueError(f"size must be [least, most], 0.1 <= least <= most <= 10, got {list(self.size)}")
        for name in ("two", "none"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability, got {getattr(self, name)}")

    @property
    def does_nothing(self) -> bool:
        return all(getattr(self, field.name) == field.default for field in fields(self))

    @property
    def numbers(self) -> int:
        """How many an image's draw has."""
        return _LAYER_NUMBERS * (2 if self.two else 1)

    def draw(self, iteration: int, batch: int, seed: int = 0) -> Tensor:
        """What is done to the rain layers of one step: (batch, `numbers`) float32 on the CPU.

        Args:
            iteration: A function of it and the seed alone.
            batch: Images in the batch.
            seed: Of the run; give each of several processes another.
        """
        random = np.random.default_rng([seed, iteration, 0x7261696E])  # "rain": apart from other draws of the seed
        moved = _to_another(random, batch) if self.move else 0
        layers = [self._layer(random, batch, moved)]
        if self.two:
            is_there = random.random(batch) < self.two
            second = self._layer(random, batch, moved + _to_another(random, batch))
            second[:, 1] *= is_there
            if batch == 1:
                second[:, 2:4] = 1 - layers[0][:, 2:4]  # mirrored and upturned against the first: turned by half
            layers.append(second)
        if self.none:
            stays = random.random(batch) < self.none
            for layer in layers:
                layer[:, 1] *= ~stays
        return torch.from_numpy(np.concatenate(layers, axis=1))

    def _layer(self, random: np.random.Generator, batch: int, moved: int) -> NDArray[np.float32]:
        """The draw of one layer for each image: that of the image ``moved`` places before it."""
        result = np.zeros((batch, _LAYER_NUMBERS), np.float32)
        result[:, 0] = (np.arange(batch) - moved) % batch
        result[:, 1] = random.uniform(*self.strength, batch)
        result[:, 2] = (random.random(batch) < 0.5) & self.flip
        result[:, 3] = (random.random(batch) < 0.5) & self.upturn
        angles = random.uniform(-self.turn, self.turn, batch)
        sizes = np.exp(random.uniform(log(self.size[0]), log(self.size[1]), batch))
        result[:, 4:] = [
            (cos(angle) / size, -sin(angle) / size, sin(angle) / size, cos(angle) / size)
            for angle, size in zip((radians(angle) for angle in angles), sizes, strict=True)
        ]
        return result

    def __call__(self, rain: Tensor, draw: Tensor) -> Tensor:
        """Rain layers varied as drawn.

        Args:
            rain: (B, C, H, W), cut off from the gradient.
            draw: (B, `numbers`) on the layers' device, of `draw`.

        Returns:
            (B, C, H, W): a layer for each image.
        """
        layers = rain.mean(dim=1, keepdim=True) if self.grey else rain
        varied = self._one(layers, draw[:, :_LAYER_NUMBERS])
        if self.two:
            varied = varied + self._one(layers, draw[:, _LAYER_NUMBERS:])
        return varied.expand_as(rain)

    def _one(self, rain: Tensor, draw: Tensor) -> Tensor:
        if self.move or self.two:
            rain = rain.index_select(0, draw[:, 0].long())
        turned_by_half = bool(self.two) and len(rain) == 1
        # Flips are exact, which sampling between pixels is not.
        for column, axis, is_wanted in ((2, -1, self.flip), (3, -2, self.upturn)):
            if is_wanted or turned_by_half:
                rain = torch.where(draw[:, column, None, None, None] > 0, rain.flip(axis), rain)
        if self.turn or self.size != (1.0, 1.0):
            rain = _warp(rain, draw[:, 4:8].view(-1, 2, 2))
        return rain * draw[:, 1, None, None, None].to(rain.dtype)


def _to_another(random: np.random.Generator, batch: int) -> int:
    """By how many places the batch is rolled so that each image gets another's; 0 where there is no other."""
    return int(random.integers(1, batch)) if batch > 1 else 0


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Images (B, C, H, W) read at ``matrix @ (x, y)``, in pixels from the centre; beyond the border, reflected."""
    height, width = images.shape[-2:]
    # affine_grid counts both axes from -1 to 1, however long they are.
    stretch = images.new_ones(2, 2, dtype=torch.float32)
    stretch[0, 1].fill_(height / width)
    stretch[1, 0].fill_(width / height)
    with torch.autocast(images.device.type, enabled=False):
        theta = F.pad(matrices.float() * stretch, (0, 1))
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        # Bicubic: streaks are a pixel or two wide, and the mean of two neighbours would halve them.
        warped = F.grid_sample(images.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return warped.to(images.dtype)
