"""How far a network looks: what decides how much of an image a tile needs around it."""

from __future__ import annotations

from math import sqrt
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import OptionError
from .adapt import Needs, derain, is_out_of_memory

_LONGEST = 2048
_MOST = 1 << 20
"""The largest probes for a receptive field: side, and pixels."""

_known: WeakKeyDictionary[nn.Module, dict[Needs, int | None]] = WeakKeyDictionary()


@torch.no_grad()
def receptive_field(network: nn.Module, needs: Needs) -> int | None:
    """How many pixels a tile needs around it; None: a pixel depends on the whole image, or on its place in it.

    Found by trial, once for each network: a row of NaN in a random image shows how far away results depend on it, and a
    strip of the image must then give what the whole image does. For networks with a ``multiple``, in whose grid
    tiles are cut, the pixels are counted from the border of the ``multiple`` rows that the row is one of.

    A network that has an attribute ``receptive_field``, a number or None, is believed.
    """
    own = getattr(network, "receptive_field", False)
    if own is None or type(own) is int:
        return own
    known = _known.setdefault(network, {})
    if needs not in known:
        modes = [(module, module.training) for module in network.modules()]
        network.eval()  # batch normalisation would remember the NaN
        try:
            known[needs] = _find_field(network, needs)
        finally:
            for module, mode in modes:
                module.training = mode
    return known[needs]


def _find_field(network: nn.Module, needs: Needs) -> int | None:
    widest = 0
    device = device_of(network, torch.device("cpu"))
    # Autocast and TF32 would blur the comparison.
    with torch.autocast(device.type, enabled=False), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for axis in (2, 3):
            found = _spread_of_nan(network, needs, axis)
            if found is None:
                return None
            widest = max(widest, found)
        agrees = all(_part_agrees(network, needs, axis, widest) for axis in ((2,) if needs.square else (2, 3)))
    return widest if agrees else None


def _spread_of_nan(network: nn.Module, needs: Needs, axis: int) -> int | None:
    """How far from a band of NaN across a strip, ``multiple`` wide, results are NaN too."""
    band = needs.multiple
    length = align(max(64, 3 * band, needs.minimum), band)
    while length <= _LONGEST:
        strip = _random_strip(network, needs, axis, length)
        if strip[0, 0].numel() > _MOST:
            return None
        start = length // band // 2 * band
        strip.narrow(axis, start, band).fill_(torch.nan)
        try:
            results = derain(network, strip, needs)
        except (RuntimeError, ValueError, OptionError) as error:
            if is_out_of_memory(error):
                raise
            return None  # it takes no strips, or no NaN
        spoilt = torch.nonzero(results[0].isnan().any(0).any(3 - axis)).flatten().tolist()
        if spoilt and spoilt[0] > 0 and spoilt[-1] < length - 1:
            return max(0, start - spoilt[0], spoilt[-1] - (start + band - 1))
        length *= 2
    return None


def _part_agrees(network: nn.Module, needs: Needs, axis: int, widest: int) -> bool:
    """Whether a part of a random strip gives the strip's result, but for ``widest`` pixels at its ends."""
    band = needs.multiple
    margin = align(widest, band)
    length = align(max(64, needs.minimum), band) + 2 * margin
    strip = _random_strip(network, needs, axis, length + 3 * band)
    axes = (2, 3) if needs.square else (axis,)

    def between(pixels: Tensor, start: int, count: int) -> Tensor:
        for each in axes:
            pixels = pixels.narrow(each, start, count)
        return pixels

    # One step in, and two at the other end: a grid that is coarser than the network says has another phase there, and a
    # mirror shows.
    wanted = between(derain(network, strip, needs), band + margin, length - 2 * margin)
    found = between(derain(network, between(strip, band, length), needs), margin, length - 2 * margin)
    allowed = 3 * sqrt(torch.finfo(wanted.dtype).eps) * max(1.0, float(wanted.abs().max()))
    return float((wanted - found).abs().max()) <= allowed


def _random_strip(network: nn.Module, needs: Needs, axis: int, length: int) -> Tensor:
    """Random pixels, ``length`` along ``axis`` and across as few as the network takes."""
    across = length if needs.square else align(max(16, needs.minimum), needs.multiple)
    size = (length, across) if axis == 2 else (across, length)
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    dtype = next((value.dtype for value in network.parameters() if value.is_floating_point()), torch.float32)
    return pixels.to(device_of(network, torch.device("cpu")), dtype)


def align(length: int, multiple: int) -> int:
    """The least multiple that is no less than ``length``."""
    return -(-length // multiple) * multiple


def device_of(network: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a network's weights are, if it has any."""
    tensors = (tensor for found in (network.parameters(), network.buffers()) for tensor in found)
    return next((tensor.device for tensor in tensors), otherwise)
