"""A folder of derained images in place of a network: the results of a method whose code or weights are not at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.images import decode_image, to_tensor
from ..data.pairing import RULES
from ..data.sources import FolderSource
from ..errors import DataError, OptionError


class ResultImages(nn.Module):
    """A folder of derained images, looked up by the rainy images' names, as if a network had made them.

    A name is looked for as it is, then by the rules that find clean versions (`data.pairing.RULES`), in
    this order; an image may have another suffix.

    Args:
        folder: Where the derained images are.

    Raises:
        DataError: The folder is missing or empty, or two images differ only in their suffix.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        source = FolderSource(folder)
        self.folder = source.root
        self.by_stem: dict[str, Path] = {}
        for path in source.paths:
            if path.stem in self.by_stem:
                raise DataError(f"{self.folder}: {path.name} and {self.by_stem[path.stem].name} are of one name")
            self.by_stem[path.stem] = path

    def forward(self, rainy: Tensor, names: Sequence[str]) -> Tensor:
        """The derained versions of ``rainy`` (B, 3, H, W), whose files' names or paths are ``names``.

        Raises:
            DataError: One is missing, cannot be read, or has another size.
        """
        return torch.stack([self._read(image, name) for image, name in zip(rainy, names, strict=True)])

    def find(self, name: str) -> Path:
        """The file of the derained version of the rainy image of this name or path.

        Raises:
            DataError: There is none.
        """
        stem = Path(name).stem
        found = next((self.by_stem[rule(stem)] for _, rule in RULES if rule(stem) in self.by_stem), None)
        if found is None:
            raise DataError(f"{self.folder}: no derained image for {name}: none is called {stem}")
        return found

    def _read(self, rainy: Tensor, name: str) -> Tensor:
        found = self.find(name)
        image = to_tensor(decode_image(found)).to(rainy)
        check_result(found, image.shape[1:], name, rainy.shape[1:])
        return image


def check_result(found: Path, size: Sequence[int], name: str, rainy: Sequence[int]) -> None:
    """Compare the size (height, width, ...) of a derained image with that of its rainy image.

    Raises:
        DataError: It is another.
    """
    if tuple(size) != tuple(rainy):
        raise DataError(
            f"{found} is {size[1]}x{size[0]} pixels, its rainy image {name} {rainy[1]}x{rainy[0]}; "
            "a result keeps the size"
        )


def check_apart(results: Iterable[tuple[str, Path, Callable[[], bytes]]], remedy: str) -> None:
    """Refuse result images that are taken for those of two rainy images in different data sets: of one name, as a rule.

    Args:
        results: For each rainy image the name of its data set, its derained image, and what reads the rainy file; a
            data set may be there twice, whole and in part.
        remedy: What to do, for the message.

    Raises:
        OptionError: One is.
    """
    taken: dict[Path, tuple[str, Callable[[], bytes]]] = {}
    for dataset, found, read in results:
        other, read_other = taken.setdefault(found.resolve(), (dataset, read))
        try:
            is_another = other != dataset and read() != read_other()
        except DataError:
            continue  # told when it is scored
        if is_another:
            raise OptionError(
                f"{found} would be scored as the derained version of two images, one of the data set {other}, one of "
                f"{dataset}; {remedy}"
            )
