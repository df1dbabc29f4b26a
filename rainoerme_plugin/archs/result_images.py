"""A folder of derained images in place of a network: the results of a method whose code or weights are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.images import decode_image, to_tensor
from ..data.pairing import RULES
from ..data.sources import FolderSource
from ..errors import DataError


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
        if image.shape != rainy.shape:
            raise DataError(
                f"{found} is {image.shape[2]}x{image.shape[1]} pixels, its rainy image {name} "
                f"{rainy.shape[2]}x{rainy.shape[1]}; a result keeps the size"
            )
        return image
