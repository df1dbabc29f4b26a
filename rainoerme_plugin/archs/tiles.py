"""`adapt.derain` for images of any size in bounded memory: tile by tile, with the whole image's result.

What a network computes for a pixel depends on no more than its receptive field. A tile that is cut with that much
around it gives the whole image's values there, to rounding. How much that is, the network itself is asked
(`receptive_field`); one that looks at the whole image is given it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.images import Pixels, Rounding, to_pixels, to_tensor
from ..data.threads import Share, untold
from ..errors import OptionError, RainOerMeError
from .adapt import Needs, derain, is_out_of_memory, mirrored, name_of
from .receptive_field import align, device_of, receptive_field

WHOLE = 1 << 20
"""Pixels of the largest image that is not cut by itself: larger than those of the usual test sets."""
SEEN = 448
"""Side in pixels of what a network sees of an image that is cut, where its receptive field leaves enough of that."""
SMALLEST = 32
"""Side in pixels below which a tile is not halved when memory is short."""
APART = 64
"""Pixels around a tile of a network that looks at the whole image: they soften seams, and no number would be enough."""

Image = TypeVar("Image", Tensor, NDArray[np.uint8], NDArray[np.uint16])
Span = tuple[int, int]
"""From this pixel to before that one, along an axis."""


class TooLargeError(RainOerMeError):
    """An image for which the memory does not suffice, or not even for a small tile of it."""


class NotFiniteError(RuntimeError):
    """A network gives values that no image has."""


@dataclass
class _Known:
    """What has come out about a network."""

    too_much: dict[torch.device, int] = field(default_factory=dict)
    """Pixels at a time for which there was not enough memory."""
    said: set[str] = field(default_factory=set)

    def say(self, kind: str, message: str, tell: Callable[[str], object]) -> None:
        if kind not in self.said:
            self.said.add(kind)
            tell(message)


_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


class _Tile(NamedTuple):
    """A part of one image of the batch that is derained at once; the tiles of an image do not overlap."""

    image: int
    rows: Span
    columns: Span


@torch.no_grad()
def derain_tiled(
    network: nn.Module,
    rainy: Image,
    needs: Needs,
    *,
    tile: int | None = None,
    batch: int | None = None,
    rounding: Rounding = "round",
    out: Image | None = None,
    tell: Callable[[str], object] = warnings.warn,
    share: Share = untold,
) -> Image:
    """Derain an image that may be too large for ``network`` and the memory; no gradients are kept.

    Beside the image and the result, memory holds one batch of tiles. Where that is too much, the batch is halved and
    then the tiles, down to `SMALLEST`; what is done stays done, and the network's next image begins with what fitted.

    Args:
        network: In evaluation mode.
        rainy: (B, 3, H, W) in [0, 1]; or one image (H, W, 3) uint8 or uint16, which may be a memory map: it is read
            tile by tile. Either is moved to the network's device a batch at a time.
        needs: What the network asks of its input.
        tile: The most pixels that a tile has on a side, without what is cut around it; 0 cuts nothing. None cuts
            images of more than `WHOLE` pixels, unless the network looks at the whole image.
        batch: Tiles at a time; None is one on a CPU, and elsewhere as many as have `WHOLE` pixels.
        rounding: How values become 8 or 16 bits.
        out: Where the result goes, of the shape and dtype of ``rainy``.
        tell: Is told, once for each network, that memory was short, or that tiles give something else than the image.
        share: Is told how much is done, 0 to 1, after each batch of tiles.

    Returns:
        The derained image, of the kind, shape and dtype of ``rainy``; tensors are not clamped. A result in one piece is
        that of `derain`, to the bit.

    Raises:
        OptionError: As of `derain`; ``tile`` or ``batch`` is negative; or ``out`` is of another shape or dtype.
        TooLargeError: There is not enough memory.
        NotFiniteError: A value of an image of whole numbers would not be finite.
    """
    if (tile or 0) < 0 or (batch is not None and batch < 1):
        raise OptionError(f"tile must be at least 0 and batch at least 1, got {tile} and {batch}")
    pixels = _pixels_of(rainy, out, rounding)
    return _Run(network, pixels, needs, tile, batch, tell).result(share)  # type: ignore[return-value]


# --- tiles ---


class _Run:
    """One image, or one batch of them, being derained."""

    def __init__(
        self,
        network: nn.Module,
        pixels: _Floats | _Whole,
        needs: Needs,
        tile: int | None,
        batch: int | None,
        tell: Callable[[str], object],
    ) -> None:
        self.network, self.pixels, self.needs, self.tile, self.tell = network, pixels, needs, tile, tell
        self.known = _known.setdefault(network, _Known())
        self.name = name_of(network)
        self.device = device_of(network, pixels.device)
        self.padded = tuple(a + b for a, b in zip(pixels.size, needs.padding(*pixels.size), strict=True))
        self.sources = [mirrored(size, padded - size) for size, padded in zip(pixels.size, self.padded, strict=True)]
        self.margin: int | None = None
        self._begin(self._cut())
        if len(self.tiles) == pixels.count:  # not cut: as it comes, all images of the batch at once
            self.batch = pixels.count
        elif batch is not None:
            self.batch = batch
        else:
            self.batch = 1 if self.device.type == "cpu" else max(1, WHOLE // (self.window[0] * self.window[1]))

    def result(self, share: Share = untold) -> Tensor | Pixels:
        while self._asks_too_much() and self._shrink():
            pass
        everything = self._pixels_left()
        while self.tiles:
            problem = self._derain(self.tiles[: self.batch])
            if problem is None:
                del self.tiles[: self.batch]
                share(1 - self._pixels_left() / everything)
                continue
            self._empty_caches()
            self.known.too_much[self.device] = self._at_once()
            if not self._shrink():
                raise self._too_large(problem)
            self._say_that_memory_is_short()
        return self.pixels.result()

    def _pixels_left(self) -> int:
        return sum((bottom - top) * (right - left) for _, (top, bottom), (left, right) in self.tiles)

    def _derain(self, tiles: list[_Tile]) -> str | None:
        """Derain some tiles; what is returned is the problem, if there was too little memory."""
        try:
            if self.window == self.padded and len(tiles) == self.pixels.count:
                inputs = self.pixels.everything().to(self.device)
            else:
                inputs = torch.stack([self._read(tile) for tile in tiles])
                inputs = inputs.to(self.device)
            results = derain(self.network, inputs, self.needs)
            for tile, result in zip(tiles, results, strict=True):
                (top, _), (left, _) = self._window_of(tile)
                (y, bottom), (x, right) = tile.rows, tile.columns
                self.pixels.write(tile, result[:, y - top : bottom - top, x - left : right - left])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return str(error).partition("\n")[0] or type(error).__name__
        # No second try in here: while the error is handled, its traceback keeps all that the network has allocated.
        return None

    # --- where tiles lie ---

    def _cut(self) -> list[_Tile]:
        """The tiles to begin with."""
        (height, width), tile = self.pixels.size, self.tile
        if tile is None:
            is_small = height * width <= WHOLE
        else:
            is_small = tile == 0 or max(height, width) <= tile
        if is_small or not self._may_cut():
            return self._tiles([(0, height)], [(0, width)])
        assert self.margin is not None
        core = align(tile or max(SEEN - 2 * self.margin, 6 * self.margin), self.needs.multiple)
        return self._tiles(self._parts(0, core), self._parts(1, core))

    def _may_cut(self) -> bool:
        """Whether to cut images at all, and how much tiles then need around them."""
        if self.margin is None and self.tile != 0:
            found = receptive_field(self.network, self.needs)
            if found is None and self.tile is None:
                return False
            if found is None:
                self._say_that_tiles_differ()
            # In steps of the multiple: a network with strides must see the grid that it sees in the whole image.
            self.margin = align(APART if found is None else found, self.needs.multiple)
        return self.margin is not None

    def _parts(self, axis: int, core: int) -> list[Span]:
        """An axis in parts of about one length, at most ``core``.

        The first and the last may be longer: there is nothing around them at the image's border, and what the network
        sees has one size.
        """
        assert self.margin is not None
        size = self.pixels.size[axis]
        inner = min(self.padded[axis], align(size + self.margin, self.needs.multiple)) - 2 * self.margin
        if inner <= core:
            return [(0, size)]
        core = align(-(-inner // -(-inner // core)), self.needs.multiple)
        return list(pairwise([0, *range(self.margin + core, self.margin + inner, core), size]))

    def _tiles(self, rows: Sequence[Span], columns: Sequence[Span]) -> list[_Tile]:
        return [_Tile(image, y, x) for image in range(self.pixels.count) for y in rows for x in columns]

    def _begin(self, tiles: list[_Tile]) -> None:
        """Go on with these tiles; of what the network sees for each, height and width are the same."""
        self.tiles = tiles
        least = align(self.needs.minimum, self.needs.multiple)
        spans = ({tile.rows for tile in tiles}, {tile.columns for tile in tiles})
        reaches = [[self._reach(axis, span) for span in spans[axis]] for axis in (0, 1)]
        height, width = (max(least, *(stop - start for start, stop in reach)) for reach in reaches)
        self.window = (max(height, width),) * 2 if self.needs.square else (height, width)

    def _reach(self, axis: int, span: Span) -> Span:
        margin = self.margin or 0
        return max(span[0] - margin, 0), min(align(span[1], self.needs.multiple) + margin, self.padded[axis])

    def _window_of(self, tile: _Tile) -> tuple[Span, Span]:
        """What the network sees for a tile: at the image's far borders it is shifted inwards."""
        top, left = (
            min(self._reach(axis, span)[0], self.padded[axis] - self.window[axis]) for axis, span in enumerate(tile[1:])
        )
        return (top, top + self.window[0]), (left, left + self.window[1])

    def _read(self, tile: _Tile) -> Tensor:
        rows, columns = (self.sources[axis][start:stop] for axis, (start, stop) in enumerate(self._window_of(tile)))
        return self.pixels.read(tile.image, rows, columns)

    # --- when memory is short ---

    def _at_once(self) -> int:
        """Pixels that the network sees at a time."""
        return self.window[0] * self.window[1] * min(self.batch, len(self.tiles))

    def _asks_too_much(self) -> bool:
        limit = self.known.too_much.get(self.device)
        return limit is not None and self._at_once() >= limit

    def _shrink(self) -> bool:
        """Halve the batch, or else the tiles that are left; False: they are as small as they may be."""
        if (count := min(self.batch, len(self.tiles))) > 1:
            self.batch = count // 2
            return True
        longest = max(stop - start for tile in self.tiles for start, stop in tile[1:])
        if longest <= max(SMALLEST, self.needs.multiple) or not self._may_cut():
            return False
        half = align(-(-longest // 2), self.needs.multiple)
        self._begin(
            [
                _Tile(tile.image, rows, columns)
                for tile in self.tiles
                for rows in _halves(tile.rows, half)
                for columns in _halves(tile.columns, half)
            ]
        )
        return True

    def _empty_caches(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    # --- what is said ---

    def _say_that_memory_is_short(self) -> None:
        height, width = self.window
        self.known.say(
            "short",
            f"not enough memory for {self.name} on {self.known.too_much[self.device]:,} pixels at a time; it goes on "
            f"with {self.batch} x {width}x{height} (the option tile sets the size)",
            self.tell,
        )

    def _say_that_tiles_differ(self) -> None:
        self.known.say(
            "differs",
            f"{self.name} looks at the whole image: in tiles of {self.tile} pixels it gives another result; "
            "with tile 0, or without that option, images stay whole",
            self.tell,
        )

    def _too_large(self, problem: str) -> TooLargeError:
        (height, width), seen = self.pixels.size, self.window
        if seen != self.padded:
            remedy = f"even {seen[1]}x{seen[0]} of them at a time; it needs a machine with more"
        elif self.tile == 0:
            remedy = "with another tile than 0 the image is cut"
        else:
            remedy = "it looks at the whole image, so that is not cut by itself; tile 512 does, with another result"
        where = "the memory" if self.device.type == "cpu" else f"the memory of {self.device}"
        return TooLargeError(f"{self.name}: {width}x{height} pixels are too many for {where}: {remedy} ({problem})")


def _halves(span: Span, length: int) -> list[Span]:
    start, stop = span
    return [(at, min(at + length, stop)) for at in range(start, stop, length)]


# --- pixels in and out ---


class _Floats:
    """Images (B, 3, H, W)."""

    def __init__(self, rainy: Tensor, out: Tensor | None) -> None:
        if out is not None and (out.shape, out.dtype) != (rainy.shape, rainy.dtype):
            raise OptionError(f"out must be {tuple(rainy.shape)} {rainy.dtype}, got {tuple(out.shape)} {out.dtype}")
        self.rainy, self.out = rainy, out
        self.device = rainy.device
        self.count = rainy.shape[0]
        self.size = (rainy.shape[2], rainy.shape[3])

    def everything(self) -> Tensor:
        return self.rainy

    def read(self, image: int, rows: Tensor, columns: Tensor) -> Tensor:
        (top, bottom), (left, right) = _bounds(rows), _bounds(columns)
        part = self.rainy[image, :, top:bottom, left:right]
        if part.shape[1:] != (len(rows), len(columns)):  # at a border that is padded
            part = part[:, (rows - top).to(self.device)][:, :, (columns - left).to(self.device)]
        return part

    def write(self, tile: _Tile, derained: Tensor) -> None:
        if self.out is None:
            self.out = torch.empty_like(self.rainy)
        self.out[tile.image, :, slice(*tile.rows), slice(*tile.columns)] = derained

    def result(self) -> Tensor:
        return torch.empty_like(self.rainy) if self.out is None else self.out


class _Whole:
    """One image of 8 or 16 bits."""

    device = torch.device("cpu")
    count = 1

    def __init__(self, rainy: Pixels, out: Pixels | None, rounding: Rounding) -> None:
        if rainy.dtype not in (np.uint8, np.uint16) or rainy.ndim != 3 or rainy.shape[2] != 3:
            raise OptionError(f"an image must be (H, W, 3) uint8 or uint16, got {rainy.shape} {rainy.dtype}")
        if out is not None and (out.shape, out.dtype) != (rainy.shape, rainy.dtype):
            raise OptionError(f"out must be {rainy.shape} {rainy.dtype}, got {out.shape} {out.dtype}")
        self.rainy, self.rounding = rainy, rounding
        self.out: Pixels = np.empty_like(rainy, subok=False) if out is None else out
        self.size = (rainy.shape[0], rainy.shape[1])

    def everything(self) -> Tensor:
        return to_tensor(self.rainy)[None]

    def read(self, image: int, rows: Tensor, columns: Tensor) -> Tensor:
        (top, bottom), (left, right) = _bounds(rows), _bounds(columns)
        part = self.rainy[top:bottom, left:right]
        if part.shape[:2] != (len(rows), len(columns)):
            part = part[(rows - top).numpy()][:, (columns - left).numpy()]
        return to_tensor(part)

    def write(self, tile: _Tile, derained: Tensor) -> None:
        if not bool(torch.isfinite(derained).all()):
            raise NotFiniteError("the network gives values that are not finite")
        self.out[slice(*tile.rows), slice(*tile.columns)] = to_pixels(derained, self.out.dtype, self.rounding)

    def result(self) -> Pixels:
        return self.out


def _pixels_of(rainy: Tensor | Pixels, out: Tensor | Pixels | None, rounding: Rounding) -> _Floats | _Whole:
    if isinstance(rainy, Tensor) and (out is None or isinstance(out, Tensor)):
        return _Floats(rainy, out)
    if isinstance(rainy, np.ndarray) and (out is None or isinstance(out, np.ndarray)):
        return _Whole(rainy, out, rounding)
    raise OptionError(f"expected a tensor or an array, and out of the same kind, got {type(rainy)} and {type(out)}")


def _bounds(indices: Tensor) -> Span:
    return int(indices.min()), int(indices.max()) + 1
