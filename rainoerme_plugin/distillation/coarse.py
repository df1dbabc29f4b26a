"""What a coarse filter is: from a rainy photograph to its soft label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..provenance import code_of, modules_of

Depth = TypeVar("Depth", np.uint8, np.uint16)
"""Images are (H, W, 3) and use their type's whole range: 0-255 or 0-65535."""

WHOLE_IMAGE = 1 << 24
"""A reach beyond any image."""


@dataclass(frozen=True)
class CoarseFilter:
    """A filter from a rainy image to its soft label; the subclasses hold their arguments."""

    name: ClassVar[str] = ""
    """In option files."""
    whole_image: ClassVar[bool] = False
    """Whether it first looks at the whole image: too slow for every crop anew, so labels are made once and kept."""

    def __call__(self, image: NDArray[Depth]) -> NDArray[Depth]:
        """The soft label of ``image``, both (H, W, 3) of one size and type."""
        raise NotImplementedError

    @property
    def reach(self) -> tuple[int, int]:
        """How many rows and columns around a pixel its label depends on, at most.

        A crop's part of the whole image's label is had from the crop with this margin, as far as the image goes.
        """
        if self.whole_image:
            return WHOLE_IMAGE, WHOLE_IMAGE
        raise NotImplementedError

    @property
    def key(self) -> str:
        """A short text that names the filter with its arguments and its code; part of a label's cache key."""
        arguments = "-".join(_text(value) for value in asdict(self).values())
        return f"{self.name}-{arguments}-{self.code}"

    @property
    def code(self) -> str:
        """A digest of what computes the labels (`provenance`), so that those of other code are made anew."""
        return code_of(*modules_of([self]))[:8]


def _text(value: Any) -> str:
    return "x".join(map(_text, value)) if isinstance(value, (tuple, list)) else f"{value:g}"
