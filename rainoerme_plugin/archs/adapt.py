"""One way to call any image-to-image network: images of any size in, one derained image of that size out."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import OptionError

_OUT_OF_MEMORY = re.compile(
    "out of memory"  # CUDA's driver, and MPS
    "|can't allocate memory|not enough memory|bad_alloc"  # CPU: Linux, Windows, C++
    "|STATUS_ALLOC_FAILED"  # cuDNN and cuBLAS
)


def checkpoint_parts(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network that a checkpoint keeps apart: the ending of each one's key, and the part.

    A network says so with a method of this name; the main part's ending is empty, and most networks are that alone.
    """
    own = getattr(network, "checkpoint_parts", None)
    return {"": network} if own is None else own()


@dataclass(frozen=True)
class Needs:
    """What a network asks of its input, and which of its results is the derained image.

    Raises:
        ValueError: A size is not positive.
    """

    multiple: int = 1
    """Height and width must be a multiple of this."""
    minimum: int = 1
    """... and at least this."""
    square: bool = False
    """... and equal."""
    output: int | None = None
    """Which result counts, of networks that return several (the stages of MPRNet); None: it returns one image."""

    def __post_init__(self) -> None:
        if self.multiple < 1 or self.minimum < 1:
            raise ValueError(f"multiple and minimum must be at least 1, got {self.multiple} and {self.minimum}")

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns an image lacks."""
        wanted = [-(-max(size, self.minimum) // self.multiple) * self.multiple for size in (height, width)]
        if self.square:
            wanted = [max(wanted)] * 2
        return wanted[0] - height, wanted[1] - width


def derain(network: nn.Module, rainy: Tensor, needs: Needs) -> Tensor:
    """Run ``network`` over ``rainy`` (B, 3, H, W) of any size: padded at the bottom and right, and cropped back.

    The padding mirrors the image. A network that looks at the whole image (`catalogue.Card.whole_image`) sees it.

    Returns:
        The derained image (B, 3, H, W), not clamped.

    Raises:
        OptionError: The network gives several results and ``needs`` does not say which, or no image of this size, or it
            does not take this size.
    """
    height, width = rainy.shape[2:]
    padded = _pad(rainy, *needs.padding(height, width))
    name = type(network).__name__
    try:
        result = network(padded)
    except RuntimeError as error:
        if not re.search("size|shape", str(error)) or is_out_of_memory(error):
            raise
        raise OptionError(
            f"{name} does not take images of {padded.shape[3]}x{padded.shape[2]} pixels ({error}); if it wants a "
            "multiple of some number, multiple: of a DistillationNet says which"
        ) from error
    if not isinstance(result, Tensor):
        results = list(result)
        if needs.output is None:
            raise OptionError(
                f"{name} returns {len(results)} results; output: says which is the derained image, from 0"
            )
        if not -len(results) <= needs.output < len(results):
            raise OptionError(f"{name} returns {len(results)} results, so there is no output {needs.output}")
        result = results[needs.output]
    if result.shape != padded.shape:
        raise OptionError(
            f"{name} makes {tuple(result.shape)} of {tuple(padded.shape)}; a derainer keeps channels and size "
            "(for super-resolution networks, an upscale of 1)"
        )
    return result[..., :height, :width]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, in one of the ways in which PyTorch says so."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def mirrored(size: int, padding: int) -> Tensor:
    """Which pixel of an axis of ``size`` stands at each place of the axis that `derain` pads by ``padding``."""
    return _pad(torch.arange(size, dtype=torch.float64).view(1, 1, size, 1), padding, 0).flatten().long()


def _pad(images: Tensor, rows: int, columns: int) -> Tensor:
    while rows or columns:
        # A mirror shows no more than the image has; what is then still missing is mirrored again.
        step_rows = min(rows, max(images.shape[2] - 1, 0))
        step_columns = min(columns, max(images.shape[3] - 1, 0))
        if step_rows or step_columns:
            images = functional.pad(images, (0, step_columns, 0, step_rows), mode="reflect")
        else:
            step_rows, step_columns = rows, columns
            images = functional.pad(images, (0, columns, 0, rows), mode="replicate")
        rows, columns = rows - step_rows, columns - step_columns
    return images
