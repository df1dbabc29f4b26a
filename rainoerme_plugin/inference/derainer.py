"""Deraining in three lines, for whatever holds an image.

from rainoerme_plugin import load_derainer
derainer = load_derainer("experiments/distill")
derained = derainer(image)
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..archs.adapt import place
from ..archs.onnx_net import OnnxNet
from ..archs.runner import Precision, Runner
from ..archs.tiles import NotFiniteError
from ..checkpoint_files import Iteration
from ..data.channels import mean_grey
from ..data.images import Pixels, to_pixels, to_tensor
from ..data.threads import Share, untold
from ..devices import device_name, pick_device
from ..errors import DataError, OptionError
from .opening import Opened, open_network

Image = TypeVar("Image", bound=NDArray[Any] | Tensor)


class Derainer:
    """A network that takes the rain out of images; call it with one.

    It may be called from several threads: they take turns.

    Args:
        opened: The network.
        device: Where it computes.
        precision: In which it computes; whole images are float32 before and after.
        tile: The most pixels that a part of an image has on a side; 0 cuts nothing, None cuts large images if the
            result is the same (`archs.tiles.derain_tiled`).
        batch: Images or tiles that go through the network at a time; None: as many as suit the device.
    """

    def __init__(
        self,
        opened: Opened,
        device: torch.device,
        precision: Precision = "float32",
        tile: int | None = None,
        batch: int | None = None,
    ) -> None:
        if (tile or 0) < 0 or (batch is not None and batch < 1):
            raise OptionError(f"tile must be at least 0 and batch at least 1, got {tile} and {batch}")
        self.opened, self.tile, self.batch = opened, tile, batch
        self._run = Runner(device, precision)
        self._turn = threading.Lock()
        place(opened.network, opened.needs, device)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self._run.device

    @property
    def identity(self) -> str:
        """What results depend on, to the bit, beside the image.

        The weights, the code, precision, tiles and how many go through at a time, PyTorch, and the device: which one,
        and the threads among which a CPU shares sums.
        """
        network = f"{self.opened.identity} {self.opened.code} {self._run.precision} {self.tile} {self.batch}"
        where = f"{self.device.type} {device_name(self.device)} {torch.get_num_threads()}"
        return f"{network} {torch.__version__} {where}"

    def __call__(self, image: Image) -> Image:
        """The derained version of an image, of its kind, shape and dtype.

        Args:
            image: An array (H, W, 3) RGB, (H, W) or (H, W, 1) grey, or (H, W, 4) with alpha, which stays as it is;
                uint8, uint16, or floating point in [0, 1]. Or a tensor (3, H, W) or (B, 3, H, W), uint8 or floating
                point in [0, 1], on any device.

        Raises:
            TypeError: It is something else, or of another dtype.
            ValueError: Its shape is another, or it has values beyond [0, 1].
            RainOerMeError: There is not enough memory, or the network fails on it.
        """
        if isinstance(image, Tensor):
            return self._tensor(image)  # type: ignore[return-value]
        if isinstance(image, np.ndarray):
            return self._array(image)  # type: ignore[return-value]
        raise TypeError(f"an image is a numpy array or a PyTorch tensor, got {type(image).__name__}")

    def many(self, images: Sequence[Pixels], share: Share = untold) -> list[Pixels]:
        """The derained versions of images (H, W, 3), uint8 or uint16; those of one size go through together.

        Args:
            images: The images.
            share: Is told how much is done, 0 to 1, of images that take a while.

        Raises:
            RainOerMeError: There is not enough memory, or the network fails.
        """
        if len(images) < 2 or len({(image.shape, image.dtype) for image in images}) > 1:
            count = len(images)
            return [
                self._derain(image, lambda done, number=number: share((number + done) / count))  # type: ignore[misc]
                for number, image in enumerate(images)
            ]
        derained = self._derain(torch.stack([to_tensor(image) for image in images]), share)
        return [to_pixels(each, images[0].dtype) for each in derained]

    def _array(self, image: NDArray[Any]) -> NDArray[Any]:
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or 0 in image.shape:
            raise ValueError(f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {image.shape}")
        channels = 1 if image.ndim == 2 else image.shape[2]
        colours = image.reshape(*image.shape[:2], channels)[..., :3]
        if channels == 1:
            colours = np.repeat(colours, 3, axis=2)
        if image.dtype in (np.uint8, np.uint16):
            derained = self._derain(colours)
        elif np.issubdtype(image.dtype, np.floating):
            values = torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1), np.float32))
            derained = self._tensor(values).numpy().transpose(1, 2, 0).astype(image.dtype)
        else:
            raise TypeError(f"an array must be uint8, uint16 or floating point in [0, 1], got {image.dtype}")
        if channels == 1:
            is_whole = image.dtype.kind == "u"
            derained = mean_grey(derained) if is_whole else derained.mean(axis=2).astype(image.dtype)
        if channels == 4:
            derained = np.concatenate([derained, image[..., 3:]], axis=2)
        return np.ascontiguousarray(derained.reshape(image.shape))

    def _tensor(self, image: Tensor) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
            raise ValueError(f"a tensor must be (3, H, W) or (B, 3, H, W), got {tuple(image.shape)}")
        if image.dtype == torch.uint8:
            return self._tensor(image.float() / 255).mul(255).round().to(torch.uint8)
        if not image.is_floating_point():
            raise TypeError(f"a tensor must be uint8 or floating point in [0, 1], got {image.dtype}")
        least, most = (float(value) for value in torch.aminmax(image.detach()))
        if not (least >= 0 and most <= 1):  # NaN is neither
            raise ValueError(
                f"values must lie in [0, 1], got {least:.4g} to {most:.4g}; whole numbers are uint8 or uint16"
            )
        batch = image.detach().float().reshape(-1, *image.shape[-3:])
        return self._derain(batch).clamp(0, 1).reshape(image.shape).to(image.device, image.dtype)

    def _derain(self, rainy: Any, share: Share = untold) -> Any:
        """As the runner does, one after another."""
        try:
            with self._turn:
                opened = self.opened
                return self._run(opened.network, opened.needs, rainy, self.tile, batch=self.batch, share=share)
        except NotFiniteError as error:
            remedy = "" if self._run.precision == "float32" else "; try it without half precision"
            raise DataError(f"{error}{remedy}") from None


def load_derainer(
    weights: str | Path | None = None,
    *,
    key: str | None = None,
    iteration: Iteration = "latest",
    device: str = "auto",
    tile: int | None = None,
    batch: int | None = None,
    half: bool = False,
) -> Derainer:
    """The network of a file or folder, ready to take the rain out of images.

    Args:
        weights: The folder of a training run, a checkpoint of this package or of any network that it or spandrel
            recognises, or an ONNX file. None is the network that comes with the package.
        key: Where in a checkpoint the weights are, where that is not one of the usual places.
        iteration: Which checkpoint of a training run: its number, ``latest``, or ``best``, as ``val.best`` found it.
        device: ``auto`` (CUDA, else MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` ...
        tile, batch: As of `Derainer`.
        half: Compute in half precision: float16, and on a CPU bfloat16.

    Raises:
        RainOerMeError: The weights cannot be used, or this machine has no such device.
    """
    opened = open_network(weights, key, iteration)
    where = pick_device(device)
    if isinstance(opened.network, OnnxNet):
        if half:
            raise OptionError(f"{opened.file}: an ONNX file computes in the precision that it was exported in")
        opened.network.place(where)
    precision: Precision = "float32" if not half else "bfloat16" if where.type == "cpu" else "float16"
    return Derainer(opened, where, precision, tile, batch)
