"""Structural similarity as the paper's losses use it (Wang et al., IEEE TIP 13, 2004, and its PyTorch port).

How this differs from the SSIM that BasicSR and most evaluation scripts report: images are RGB in [0, 1], the
Gaussian window reaches over the border with zeros (no valid region is cut out), and every pixel and channel counts
the same. It is a loss to train with; report the figures of a named protocol instead.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from .weighted import weighted_mean

LARGEST_WINDOW = 1023
"""Of a loss, in pixels: the weights of a Gaussian that is as wide take no memory worth speaking of yet."""


@lru_cache(maxsize=64)
def _blur_matrix(size: int, window: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The (size, size) band matrix whose product with a column is its zero-padded Gaussian blur.

    A blur of many small maps is two products with band matrices: both sides at matrix speed on CPU and GPU, where
    depthwise convolutions are bound by memory.
    """
    # Kept between calls, so it must not be an inference tensor; made on the CPU, because MPS has no float64.
    with torch.inference_mode(False):
        offsets = torch.arange(size, dtype=torch.float64)
        distance = (offsets[:, None] - offsets[None, :]).abs()
        half = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
        total = torch.exp(-(half**2) / (2 * sigma**2)).sum()
        band = torch.exp(-(distance**2) / (2 * sigma**2)) / total
        return torch.where(distance <= (window - 1) / 2, band, 0.0).to(device, dtype)


def ssim_map(image: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> Tensor:
    """The structural similarity of two batches of images at every pixel of every channel.

    Args:
        image: (B, C, H, W), floating point, values in [0, ``data_range``] (values outside are computed with as
            they are). Half precision is computed in float32.
        target: What to compare with, of the same shape and type.
        window: Width of the Gaussian window, odd.
        sigma: Its standard deviation in pixels.
        data_range: The largest value of the images; C1 = (0.01 range)^2, C2 = (0.03 range)^2.

    Returns:
        (B, C, H, W), at most 1; float32, or float64 where the input is.

    Raises:
        ValueError: The shapes differ or are not 4-D, or ``window`` is not odd.
        TypeError: The images are not floating point.
    """
    if image.shape != target.shape or image.dim() != 4:
        raise ValueError(
            f"image and target must have one shape (B, C, H, W), got {tuple(image.shape)} and {tuple(target.shape)}"
        )
    if not (image.is_floating_point() and target.is_floating_point()):
        raise TypeError(f"image and target must be floating point, got {image.dtype} and {target.dtype}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and positive, got {window}")
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    dtype = torch.promote_types(torch.promote_types(image.dtype, target.dtype), torch.float32)
    with torch.autocast(image.device.type, enabled=False):
        x, y = image.to(dtype).contiguous(), target.to(dtype).contiguous()
        height, width = x.shape[-2:]
        down = _blur_matrix(height, window, sigma, x.device, dtype)
        across = _blur_matrix(width, window, sigma, x.device, dtype)
        return _Similarity.apply(x, y, down, across, c1, c2)


class _Similarity(torch.autograd.Function):
    """The map and its gradient written out: a third of the operations that autograd takes, and none for the target."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, y: Tensor, down: Tensor, across: Tensor, c1: float, c2: float) -> Tensor:
        # The variances are only needed as a sum, so four maps are blurred at once, not five.
        maps = torch.stack([x, y, (x * x).addcmul_(y, y), x * y])
        mean_x, mean_y, squares, products = (down @ (maps @ across)).unbind(0)
        mean_xy = mean_x * mean_y
        mean_squares = (mean_x * mean_x).addcmul_(mean_y, mean_y)
        a, b = 2 * mean_xy + c1, (products - mean_xy).mul_(2).add_(c2)
        c, d = mean_squares + c1, (squares - mean_squares).add_(c2)
        similarity = (a * b).div_(c).div_(d)
        ctx.save_for_backward(x, y, mean_x, mean_y, a, b, c, d, similarity, down, across)
        return similarity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, mean_x, mean_y, a, b, c, d, similarity, down, across = ctx.saved_tensors
        of_product = gradient / (c * d)
        of_mean = 2 * (b - a) * of_product  # times the other image's mean
        of_product = of_product.mul_(a).mul_(2)
        of_square = (gradient * similarity).div_(d).neg_()
        of_own_mean = -2 * (of_square + gradient * similarity / c)

        def towards(own: Tensor, other: Tensor, own_mean: Tensor, other_mean: Tensor) -> Tensor:
            maps = torch.stack([of_mean * other_mean + of_own_mean * own_mean, of_square, of_product])
            mean, square, product = (down @ (maps @ across)).unbind(0)  # a symmetric blur is its own adjoint
            return mean.addcmul_(square, own, value=2).addcmul_(product, other)

        grad_x = towards(x, y, mean_x, mean_y) if ctx.needs_input_grad[0] else None
        grad_y = towards(y, x, mean_y, mean_x) if ctx.needs_input_grad[1] else None
        return grad_x, grad_y, None, None, None, None


def ssim(image: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> Tensor:
    """The mean of `ssim_map` over the whole batch, a scalar; the same arguments and errors.

    >>> image = torch.full((1, 3, 16, 16), 0.5)
    >>> round(float(ssim(image, image)), 6)
    1.0
    """
    return ssim_map(image, target, window=window, sigma=sigma, data_range=data_range).mean()


class SSIMLoss(nn.Module):
    """``loss_weight * (1 - ssim(image, target))``; the arguments are those of `ssim_map`."""

    def __init__(self, loss_weight: float = 1.0, window: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window must be odd and positive, got {window}")
        if window > LARGEST_WINDOW:
            raise ValueError(f"window must be at most {LARGEST_WINDOW}, got {window}")
        self.loss_weight = loss_weight
        self.window = window
        self.sigma = sigma
        self.data_range = data_range

    def forward(self, image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss; ``weight`` (B, 1, H, W) says how much each place counts (`weighted_mean`)."""
        similarity = ssim_map(image, target, window=self.window, sigma=self.sigma, data_range=self.data_range)
        return self.loss_weight * (1 - weighted_mean(similarity, weight))
