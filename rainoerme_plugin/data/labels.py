"""Soft labels: ready-made ones from a folder, or made by a coarse filter once and kept in a cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..distillation.filters import CoarseFilter
from ..errors import DataError
from .images import Header, decode_image, encode_png, write_whole
from .lmdb_store import key_of
from .sources import FileSource, ImageSource, LmdbSource, Picked, Track, in_threads, open_source, untracked


def default_cache() -> Path:
    """Where labels are kept if no option says otherwise: in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rainoerme_plugin" / "labels"


def label_path(cache: Path, coarse_filter: CoarseFilter, encoded: bytes) -> Path:
    """Where the label of the image with these bytes is kept: another image or another filter, another path."""
    digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
    return cache / coarse_filter.key / digest[:2] / f"{digest}.png"


def filtered_labels(
    rainy: ImageSource,
    coarse_filter: CoarseFilter,
    cache: str | Path | None = None,
    track: Track[Path] = untracked,
) -> FileSource:
    """The soft labels of all rainy images by a coarse filter, in their order; the missing ones are made.

    Every label is written whole under a name of its own, so that an interrupted run goes on where it stopped and
    several may share one cache.

    Args:
        rainy: The rainy images.
        coarse_filter: What makes the labels.
        cache: Folder to keep them in; `default_cache` if None.
        track: Shows the progress.

    Raises:
        DataError: An image cannot be read or the cache cannot be written.
    """
    root = Path(cache).expanduser() if cache else default_cache()

    def ensure(index: int) -> Path:
        encoded = rainy.encoded(index)
        path = label_path(root, coarse_filter, encoded)
        if not path.exists():
            label = coarse_filter(decode_image(encoded, rainy.where(index)))
            try:
                write_whole(path, encode_png(label))
            except OSError as error:
                raise DataError(f"cannot keep the label of {rainy.where(index)}: {error}") from None
        return path

    paths = in_threads(ensure, range(len(rainy)))
    return FileSource(list(track(paths, len(rainy), f"soft labels ({coarse_filter.key})")), rainy.names)


def ready_labels(rainy: ImageSource, root: str | Path) -> Picked:
    """Ready-made soft labels from a folder or LMDB, found by the rainy images' names (the file type may differ).

    Raises:
        DataError: One is missing.
    """
    source = open_source(root)
    # Files may have dots before their suffix; an LMDB's keys have not.
    keyed = any(isinstance(images, LmdbSource) for images in (rainy, source))
    stem = key_of if keyed else _stem
    numbers = {stem(name): index for index, name in enumerate(source.names)}
    missing = [name for name in rainy.names if stem(name) not in numbers]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(rainy)} rainy images have no label of their name there; "
            f"the first is {missing[0]}"
        )
    return Picked(source, [numbers[stem(name)] for name in rainy.names])


def check_label_sizes(rainy: ImageSource, labels: ImageSource, sizes: Sequence[Header]) -> None:
    """Compare the labels' sizes with those of the rainy images.

    Raises:
        DataError: A label is not an image or of another size.
    """
    for index, (size, label) in enumerate(zip(sizes, in_threads(labels.header, range(len(labels))), strict=True)):
        if (size.height, size.width) != (label.height, label.width):
            raise DataError(
                f"label {labels.where(index)} is {label.width}x{label.height} pixels, its image {rainy.where(index)} "
                f"{size.width}x{size.height}; make the label again"
            )


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
