"""Before and after: both in one picture, and a page to look through many photographs, which opens offline."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from ..data.images import RGB, jpeg_uri
from ..files import writing_whole

SCREEN = 16 / 9
"""Width by height of the screen that `side_by_side` is made for."""
THUMBNAIL = 240
"""The longer side of a thumbnail in pixels: shown smaller, so that it is sharp on fine screens."""


_GENERATOR = "rainoerme_plugin, before and after"
"""What a page says of who has made it, in its first lines."""


@dataclass(frozen=True)
class Pair:
    """One photograph, rainy and derained, both (H, W, 3) uint8 of one size."""

    name: str
    """What it is called on the page: its path below the folder that was derained, say. It may hold any characters."""
    rainy: RGB
    derained: RGB


def side_by_side(rainy: RGB, derained: RGB) -> RGB:
    """Both in one picture at full size, the rainy one left or above, with a thin white gap.

    They are beside each other, and one above the other if the photograph is wider than a screen (16:9): either way as
    large as two can be on one.

    Args:
        rainy: (H, W, 3) uint8.
        derained: Of the same shape.

    Returns:
        (H, 2 W + gap, 3) or (2 H + gap, W, 3) uint8; the gap is a 200th of the longer side, and at least 4 pixels.

    Raises:
        ValueError: They differ in shape.
    """
    _check_shapes(rainy, derained)
    height, width = rainy.shape[:2]
    axis = 0 if width > SCREEN * height else 1
    shape = list(rainy.shape)
    shape[axis] = max(4, round(max(height, width) / 200))
    return np.concatenate([rainy, np.full(shape, 255, np.uint8), derained], axis)


def write_page(
    path: Path, pairs: Iterable[Pair], *, title: str = "Before and after", max_side: int = 1280, quality: int = 88
) -> int:
    """Write one page with all photographs in it, before and after.

    It needs no other file, and fetches nothing. A browser without JavaScript shows the pictures beside each other.

    Args:
        path: The file; its folder is made if need be, and it is replaced whole.
        pairs: The photographs, taken one by one and written as they come: memory does not grow with their number.
        title: Of the page.
        max_side: The longer side of an embedded picture in pixels; larger photographs are shrunk.
        quality: Of the JPEGs, 1 to 100; their colours are not subsampled.

    Returns:
        The number of photographs.

    Raises:
        ValueError: The pictures of a photograph differ in shape.
        OSError: The file cannot be written; an old one is as it was.
    """
    import jinja2  # only where a page is wanted
    from markupsafe import Markup

    count = 0

    def photographs() -> Iterator[_Photograph]:
        nonlocal count
        for count, pair in enumerate(pairs, start=1):  # noqa: B007 it is returned
            yield _photograph(pair, max_side, quality)

    templates = files(__package__) / "templates"
    style, script = ((templates / f"compare.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    pages = jinja2.Environment(loader=jinja2.PackageLoader(__package__), autoescape=True, trim_blocks=True)
    parts = pages.get_template("compare.html").generate(
        title=title,
        generator=_GENERATOR,
        photographs=photographs(),
        style=Markup(style),  # noqa: S704 files of this package
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    with writing_whole(path) as file:
        for part in parts:
            file.write(part.encode("utf-8", "replace"))  # a file's name may hold what UTF-8 cannot
    return count


def is_page(path: Path) -> bool:
    """Whether a file is a page that `write_page` has written.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _GENERATOR.encode() in file.read(1024)


@dataclass(frozen=True)
class _Photograph:
    """As the page shows it; sizes are width and height."""

    name: str
    original: tuple[int, int]
    size: tuple[int, int]
    rainy: str
    derained: str
    thumbnail: str
    """Half of it rainy, half derained."""


def _photograph(pair: Pair, max_side: int, quality: int) -> _Photograph:
    _check_shapes(pair.rainy, pair.derained, f" of '{pair.name}'")
    height, width = pair.rainy.shape[:2]
    size, small = _fit(width, height, max_side), _fit(width, height, THUMBNAIL)
    rainy, derained = (_resize(PillowImage.fromarray(picture), size) for picture in (pair.rainy, pair.derained))
    thumbnail, right = _resize(rainy, small), _resize(derained, small)
    half = small[0] // 2
    thumbnail.paste(right.crop((half, 0, *small)), (half, 0))
    return _Photograph(
        pair.name,
        (width, height),
        size,
        *(jpeg_uri(np.asarray(each), quality) for each in (rainy, derained, thumbnail)),
    )


def _fit(width: int, height: int, max_side: int) -> tuple[int, int]:
    shrink = min(1.0, max_side / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _resize(picture: PillowImage.Image, size: tuple[int, int]) -> PillowImage.Image:
    # A copy also where nothing changes: pictures may be views of arrays.
    return picture.copy() if picture.size == size else picture.resize(size, PillowImage.Resampling.LANCZOS)


def _check_shapes(rainy: RGB, derained: RGB, of: str = "") -> None:
    if rainy.shape != derained.shape:
        raise ValueError(f"the rainy and the derained picture{of} differ in shape: {rainy.shape}, {derained.shape}")
