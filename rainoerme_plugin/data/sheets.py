"""A bank of rain for eyes: each of its squares as a file, and sheets of all of them beside their photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from ..distillation.plain import Patch
from ..files import named_after
from .images import RGB
from .names import result_names
from .rain import PlainRain
from .sources import ImageSource, Track, in_threads, untracked

CELLS = 99
"""Of a sheet at most: 9 columns and 11 rows fill the screen of a laptop."""
_COLUMNS = 9
_SIDE = 80
"""Of a square on a sheet, in pixels."""
_GAP, _CAPTION = 4, 13
_NAME = 26
"""Characters of a name that fit under a cell."""
_FAINTEST = 0.15
"""The brightest rain of a square is shown white, unless it is darker than that (0 to 1)."""


class Cell(NamedTuple):
    """A square of rain as a sheet shows it."""

    name: str
    """Of its file, without the suffix."""
    picture: RGB
    """(S, 2 S, 3): the photograph there, and the rain found in it, made brighter."""
    evidence: float
    """As of `distillation.plain.Patch`."""


def square_names(found: PlainRain) -> list[list[str]]:
    """The names of the files of each photograph's squares: all in one folder, no two alike.

    Raises:
        DataError: A photograph's name is not fit for a file's.
    """
    stems = result_names([name.replace("/", "_") for name in found.names])
    return [
        [named_after(stem, f"-{number:02d}.png") for number in range(1, len(patches) + 1)]
        for stem, patches in zip(stems, found.patches, strict=True)
    ]


def cells_of(found: PlainRain, rainy: ImageSource, track: Track[list[Cell]] = untracked) -> list[Cell]:
    """A cell for each square, the most evident first; each photograph is read once.

    Raises:
        DataError: A photograph cannot be read, or its name is not fit for a file's.
    """
    names = square_names(found)
    having = [place for place, patches in enumerate(found.patches) if patches]

    def cells(place: int) -> list[Cell]:
        image = rainy.read(found.indices[place])
        return [
            Cell(name.removesuffix(".png"), _picture(image, patch), patch.evidence)
            for name, patch in zip(names[place], found.patches[place], strict=True)
        ]

    made = track(in_threads(cells, having), len(having), "squares beside their photographs")
    return sorted((cell for each in made for cell in each), key=lambda cell: -cell.evidence)


def _picture(image: RGB, patch: Patch) -> RGB:
    height, width = patch.rain.shape
    seen = image[patch.top : patch.top + height, patch.left : patch.left + width]
    brightest = max(float(np.percentile(patch.rain, 99.5)), 255 * _FAINTEST)
    rain = np.clip(patch.rain * (255 / brightest), 0, 255).astype(np.uint8)
    return np.concatenate([_of_a_cell(seen), _of_a_cell(np.repeat(rain[..., None], 3, axis=2))], axis=1)


def _of_a_cell(image: NDArray[np.uint8]) -> RGB:
    way = cv2.INTER_AREA if min(image.shape[:2]) > _SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (_SIDE, _SIDE), interpolation=way), np.uint8)


def sheets_of(cells: Sequence[Cell]) -> Iterator[RGB]:
    """Sheets of `CELLS` squares, in the order given, row by row, each over the name of its file."""
    for first in range(0, len(cells), CELLS):
        yield _sheet(cells[first : first + CELLS])


def _sheet(cells: Sequence[Cell]) -> RGB:
    across, down = 2 * _SIDE + 2 * _GAP, _SIDE + _CAPTION + _GAP
    rows = -(-len(cells) // _COLUMNS)
    canvas = PillowImage.new("RGB", (min(len(cells), _COLUMNS) * across, rows * down), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=10)
    for number, cell in enumerate(cells):
        row, column = divmod(number, _COLUMNS)
        left, top = column * across + _GAP, row * down + _GAP // 2
        canvas.paste(PillowImage.fromarray(cell.picture), (left, top))
        # The end of a name tells one from another.
        name = cell.name if len(cell.name) <= _NAME else f"...{cell.name[3 - _NAME :]}"
        draw.text((left, top + _SIDE), name.encode("utf-8", "replace").decode(), fill="black", font=font)
    return np.asarray(canvas)


def sheet_paths(folder: Path, cells: int) -> list[Path]:
    """Where the sheets of so many squares go."""
    return [folder / f"sheet-{number}.png" for number in range(1, -(-cells // CELLS) + 1)]
