"""One way to call any image-to-image network: images of any size in, one derained image of that size out."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import OptionError, RainOerMeError, described

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


def name_of(network: nn.Module) -> str:
    """Its class, without what is only around it to call it or to train it."""
    return type(checkpoint_parts(network)[""]).__name__


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
    zeros: bool = False
    """Whether zeros stand where an image is too small, not its mirror: what some networks do themselves (NAFNet)."""
    channels_last: bool = False
    """Whether it is laid out with the channels of a pixel side by side in memory. Convolutions are faster so, but
    networks with weights of five axes, or that look at their features by ``view``, fail: only those that were tried."""

    def __post_init__(self) -> None:
        if self.multiple < 1 or self.minimum < 1:
            raise ValueError(f"multiple and minimum must be at least 1, got {self.multiple} and {self.minimum}")

    @property
    def memory_format(self) -> torch.memory_format:
        """Of its weights and of what it is given."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns an image lacks."""
        wanted = [-(-max(size, self.minimum) // self.multiple) * self.multiple for size in (height, width)]
        if self.square:
            wanted = [max(wanted)] * 2
        return wanted[0] - height, wanted[1] - width


def place(network: nn.Module, needs: Needs, device: torch.device | None = None) -> None:
    """Lay a network's weights out as it needs them, and move it to ``device``."""
    network.to(device=device, memory_format=needs.memory_format)  # type: ignore[call-overload]


def derain(network: nn.Module, rainy: Tensor, needs: Needs) -> Tensor:
    """Run ``network`` over ``rainy`` (B, 3, H, W) of any size: padded at the bottom and right, and cropped back.

    The padding mirrors the image, or is zeros where the network would take these itself. A network that looks at the
    whole image (`catalogue.Card.whole_image`) sees it.

    Returns:
        The derained image (B, 3, H, W), not clamped.

    Raises:
        OptionError: The network fails on this size or on whatever else it may, gives several results and ``needs`` does
            not say which, or no image of this size.
    """
    height, width = rainy.shape[2:]
    pad = _zeros if needs.zeros else _pad
    padded = pad(rainy, *needs.padding(height, width)).contiguous(memory_format=needs.memory_format)
    if padded is rainy:  # some networks compute in place: spandrel's RCAN makes 0 to 255 of what it is given
        padded = rainy.clone()
    name = name_of(network)
    try:
        result = network(padded)
    except RainOerMeError:
        raise
    except Exception as error:  # of any package's network
        if is_out_of_memory(error):
            raise
        raise OptionError(
            f"{name} does not take images of {padded.shape[3]}x{padded.shape[2]} pixels ({described(error)}); some "
            "networks take multiples of a number only (docs/networks.md)"
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


def _zeros(images: Tensor, rows: int, columns: int) -> Tensor:
    return functional.pad(images, (0, columns, 0, rows)) if rows or columns else images


def _pad(images: Tensor, rows: int, columns: int) -> Tensor:
    # A mirror shows no more than the image has; beyond that its border goes on. So does spandrel.
    down, right = min(rows, images.shape[2] - 1), min(columns, images.shape[3] - 1)
    if down or right:
        images = functional.pad(images, (0, right, 0, down), mode="reflect")
    if down < rows or right < columns:
        images = functional.pad(images, (0, columns - right, 0, rows - down), mode="replicate")
    return images
