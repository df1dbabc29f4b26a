"""Pictures of what a network does: rows of images side by side, for eyes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from ..distillation.step import DistillationStep
from ..errors import RainOerMeError
from .images import RGB, to_image, write_image
from .names import result_path

PANEL_ROWS = 4
"""Samples that a panel shows, and test images that get one."""
_WIDTH = 1000
_GAP = 4
_TITLE = 18


def show_rain(rain: Tensor) -> Tensor:
    """A rain layer (..., 3, H, W) as an image in [0, 1]: no rain is mid grey, added light is brighter."""
    return (0.5 + rain).clamp(0, 1)


def shrink(images: Tensor, max_width: int) -> Tensor:
    """Images (B, C, H, W), if wider than ``max_width`` made smaller by a whole factor; each pixel is a block's mean."""
    factor = -(-images.shape[-1] // max_width)
    return functional.avg_pool2d(images, factor, ceil_mode=True, count_include_pad=False) if factor > 1 else images


def panel(columns: Mapping[str, Tensor], max_rows: int = PANEL_ROWS, min_width: int = 0) -> RGB:
    """Batches of images in columns under their names, a sample a row.

    Args:
        columns: By name, (B, 3, H, W) in [0, 1], all of one shape.
        max_rows: Samples shown, from the first.
        min_width: Images less than half as wide are enlarged, each pixel to a square, as far as fits into it.

    Returns:
        One image, (H', W', 3) uint8.

    Raises:
        ValueError: There are no columns, or their shapes differ.
    """
    shapes = {tuple(batch.shape) for batch in columns.values()}
    if len(shapes) != 1:
        raise ValueError(f"a panel needs columns of one shape, got {sorted(shapes)}")
    count, _, height, width = shapes.pop()
    zoom = max(1, min_width // width)
    height, width = height * zoom, width * zoom
    rows = min(count, max_rows)
    canvas = PillowImage.new(
        "RGB", (len(columns) * (width + _GAP) - _GAP, _TITLE + rows * (height + _GAP) - _GAP), "white"
    )
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12 if width > 90 else 10)
    for column, (name, batch) in enumerate(columns.items()):
        left = column * (width + _GAP)
        draw.text((left + 2, 2), name, fill="black", font=font)
        for row in range(rows):
            image = PillowImage.fromarray(to_image(batch[row]).repeat(zoom, axis=0).repeat(zoom, axis=1))
            canvas.paste(image, (left, _TITLE + row * (height + _GAP)))
    return np.asarray(canvas)


def derained_path(folder: Path, name: str, iteration: int | str, dataset: str | None = None) -> Path:
    """Where training keeps a derained test image: in BasicSR's layout, ``NAME/NAME_ITERATION.png``.

    Args:
        folder: The run's ``visualization``.
        name: Of the image (`data.names.result_names`).
        iteration: After which it was derained.
        dataset: Where there are several, whose images may have the same names: the folder of this one.
    """
    return result_path(folder / (dataset or "") / name, PurePosixPath(name).name, f"_{iteration}.png")


def save_picture(path: Path, picture: RGB) -> None:
    """Write a PNG; its folder is made if need be.

    Raises:
        RainOerMeError: It cannot be written.
    """
    try:
        write_image(path, picture)
    except OSError as error:
        raise RainOerMeError(f"cannot save {path}: {error.strerror or error}; mend that and run again") from None


def picture_of(rainy: Tensor, derained: Tensor, clean: Tensor | None) -> RGB:
    """A rainy image (1, 3, H, W), its rain layer, the derained and the clean one side by side."""
    images = {"rainy": rainy, "rain layer": show_rain(rainy - derained), "derained": derained}
    if clean is not None:
        images["clean"] = clean
    return panel({name: shrink(batch, _WIDTH) for name, batch in images.items()})


def stages_of(step: DistillationStep) -> dict[str, Tensor]:
    """The crops of a training step in all their stages, the first `PANEL_ROWS` of the batch, by name."""
    if step.is_of_bank:
        images = {"clean + rain": step.synthetic, "rain layer": show_rain(step.rain), "derained": step.derained}
        images["clean"] = step.label
        return {name: batch[:PANEL_ROWS].detach() for name, batch in images.items()}
    images = {
        "rainy": step.rainy,
        "soft label": step.label,
        "rain layer": show_rain(step.rain),
        "clean + rain": step.synthetic,
        "derained": step.derained,
    }
    return {name: batch[:PANEL_ROWS].detach() for name, batch in images.items()}
