"""The derainer of "Rain O'er Me" (IEEE TIP 29, 2020), in the layout of its released checkpoints."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class RainLayers(NamedTuple):
    """The two rain layers of one forward pass, each (B, 3, H, W): ``rainy - layer`` is a derained image."""

    rain: Tensor
    """What the residual branch takes out: the layer that counts at test time."""
    refined: Tensor
    """The same after the detail enhancement block: compared with the soft label, and added to clean images."""


def _conv(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)


def _conv_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(in_channels, out_channels), nn.ReLU(inplace=True))


class HighPass(nn.Module):
    """Smooth the features, filter what the smoothing took away with a dilated convolution, add both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv_relu(channels, channels)
        self.dilated_conv = _conv(channels, channels, dilation=3)

    def forward(self, x: Tensor) -> Tensor:
        smooth = self.conv1(x)
        return self.dilated_conv(x - smooth).add_(smooth).relu_()


class Aggregation(nn.Module):
    """Two high-pass modules in a row, both outputs merged by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = HighPass(channels)
        self.conv2 = HighPass(channels)
        self.merge = _conv_relu(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        return _merge(self.merge, first, self.conv2(first))


def _merge(conv_relu: nn.Sequential, first: Tensor, second: Tensor) -> Tensor:
    """``conv_relu(torch.cat([first, second], dim=1))`` without the copy, which takes longer than the sum."""
    conv, channels = conv_relu[0], first.shape[1]
    assert isinstance(conv, nn.Conv2d)
    merged = functional.conv2d(first, conv.weight[:, :channels], conv.bias, padding=1)
    return merged.add_(functional.conv2d(second, conv.weight[:, channels:], padding=1)).relu_()


def detail_block(layers: int) -> nn.Sequential:
    """The detail enhancement block: a rain layer (B, 3, H, W) to its refined version.

    Raises:
        ValueError: ``layers`` is neither 3 nor 2, the paper's variants.
    """
    if layers not in (2, 3):
        raise ValueError(f"detail_layers must be 3 (Rain200L, Rain1400) or 2 (DID), got {layers}")
    if layers == 3:
        return nn.Sequential(*_conv_relu(3, 16), *_conv_relu(16, 16), _conv(16, 3))
    return nn.Sequential(*_conv_relu(3, 16), *_conv_relu(16, 3))


@torch.no_grad()
def start_as_identity(block: nn.Sequential) -> None:
    """Let a detail enhancement block give back its input, but for what its N(0, 0.02) weights add.

    The rain layer goes through as its positive and its negative part, for a ReLU lets only the one through. (After the
    last ReLU of the DID variant only the positive part is left: rain is bright.)
    """
    first, *middle, last = (layer for layer in block if isinstance(layer, nn.Conv2d))
    for channel in range(3):
        first.weight[channel, channel, 1, 1] += 1
        first.weight[channel + 3, channel, 1, 1] -= 1
        for layer in middle:
            for copy in (channel, channel + 3):
                layer.weight[copy, copy, 1, 1] += 1
        last.weight[channel, channel, 1, 1] += 1
        last.weight[channel, channel + 3, 1, 1] -= 1


class RainOerMeNet(nn.Module):
    """The paper's residual derainer with its detail enhancement block.

    The names of the parameters are those of the released checkpoints, so that they load strictly.

    Args:
        channels: Feature channels; the paper's 16 make 55,046 parameters.
        detail_layers: Convolutions of the detail enhancement block: 3, or 2 for the paper's DID variant
            (52,726 parameters), whose last convolution is followed by a ReLU.
        start: Weights before training. ``noise``, the authors': N(0, 0.02), of which hardly any signal or gradient
            comes through, so that training may find no rain at all. ``kaiming`` keeps the features' size from
            convolution to convolution (He et al., ICCV 2015), and the detail enhancement block starts as the
            identity. Biases start as 0.

    Raises:
        ValueError: ``detail_layers`` is neither 2 nor 3, ``channels`` is not positive, or ``start`` is none of these.
    """

    def __init__(self, channels: int = 16, detail_layers: int = 3, start: str = "noise") -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.inc = _conv_relu(3, channels)
        self.block1 = Aggregation(channels)
        self.block2 = Aggregation(channels)
        self.block3 = Aggregation(channels)
        self.merge11 = _conv_relu(2 * channels, channels)
        self.merge12 = _conv_relu(2 * channels, channels)
        self.outc = nn.Sequential(_conv(channels, 3), nn.Tanh())
        self.out2 = detail_block(detail_layers)
        self.apply(initialise)
        if start == "kaiming":
            self._start_by_kaiming()
        elif start != "noise":
            raise ValueError(f"start must be noise or kaiming, got '{start}'")

    def _start_by_kaiming(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("out"):
                # A high-pass module adds the signals of these two: each may have half of the variance.
                is_added = name.endswith(("conv1.0", "dilated_conv"))
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if is_added else "relu")
        # The first rain layer is noise. Where it is loud, training may silence the features for good to be rid of it.
        last = self.outc[0]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=0.01)
        start_as_identity(self.out2)

    def rain_layer(self, rainy: Tensor) -> Tensor:
        """The rain layer of ``rainy`` (B, 3, H, W) in [0, 1]: same shape, within (-1, 1)."""
        first = self.block1(self.inc(rainy))
        middle = _merge(self.merge11, first, self.block2(first))
        last = _merge(self.merge12, middle, self.block3(middle))
        return self.outc(last)

    def refine(self, rain: Tensor) -> Tensor:
        """The detail enhancement block, applied to a rain layer (B, 3, H, W)."""
        return self.out2(rain)

    def forward(self, rainy: Tensor, layers: bool = False) -> Tensor | RainLayers:
        """Derain ``rainy`` (B, 3, H, W) in [0, 1], of any size.

        Returns:
            The derained image, not clamped; with ``layers=True`` both rain layers instead. Everything passes
            through this one method, so that wrappers around the module (DDP, compile) see it.
        """
        rain = self.rain_layer(rainy)
        return RainLayers(rain, self.refine(rain)) if layers else rainy - rain


def initialise(module: nn.Module) -> None:
    """Let a convolution start as the authors' do: weights N(0, 0.02), bias 0. For `nn.Module.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
