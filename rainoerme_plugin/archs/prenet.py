"""PRN, PReNet and their recursive variants: "Progressive Image Deraining Networks", Ren et al., CVPR 2019.

The names of the parameters are those of the files in https://github.com/csdwren/PReNet, so that they load strictly.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BLOCKS = 5


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def conv_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """`conv3` and ReLU."""
    return nn.Sequential(conv3(in_channels, out_channels), nn.ReLU())


def residual_body(channels: int) -> nn.Sequential:
    """What one residual block adds to its input: two `conv_relu`."""
    return nn.Sequential(*conv_relu(channels, channels), *conv_relu(channels, channels))


def gate(in_channels: int, out_channels: int, activation: nn.Module) -> nn.Sequential:
    """One gate of a convolutional LSTM."""
    return nn.Sequential(conv3(in_channels, out_channels), activation)


def residual_chain(x: Tensor, bodies: Iterable[nn.Module]) -> Tensor:
    """Residual blocks in a row, each ReLU(body(x) + x)."""
    for body in bodies:
        x = torch.relu(body(x) + x)
    return x


def lstm_step(x: Tensor, cell: Tensor, gates: tuple[nn.Module, ...]) -> tuple[Tensor, Tensor]:
    """One step of a convolutional LSTM: the new hidden state and cell.

    Args:
        x: Input and hidden states in one tensor (B, C, H, W).
        cell: The cell before.
        gates: Input, forget, candidate and output gate, each a network of ``x``.
    """
    enter, forget, candidate, leave = (gate(x) for gate in gates)
    cell = forget * cell + enter * candidate
    return leave * torch.tanh(cell), cell


class ProgressiveNet(nn.Module):
    """Derain in stages: every stage sees the rainy image and the derained one of the stage before.

    Args:
        stages: Times that the network is applied to its own output.
        channels: Feature channels.
        recurrent: Whether a convolutional LSTM carries features from stage to stage (PReNet).
        recursive: Whether one residual block is used five times, instead of five blocks (the ``_r`` variants).

    Raises:
        ValueError: ``stages`` or ``channels`` is not positive.
    """

    def __init__(self, stages: int, channels: int, *, recurrent: bool, recursive: bool) -> None:
        super().__init__()
        if stages < 1 or channels < 1:
            raise ValueError(f"stages and channels must be at least 1, got {stages} and {channels}")
        self.stages, self.channels, self.recurrent = stages, channels, recurrent
        self.conv0 = conv_relu(6, channels)
        self._body_names = [f"res_conv{1 if recursive else number}" for number in range(1, BLOCKS + 1)]
        for name in dict.fromkeys(self._body_names):
            self.add_module(name, residual_body(channels))
        if recurrent:
            self.conv_i = gate(2 * channels, channels, nn.Sigmoid())
            self.conv_f = gate(2 * channels, channels, nn.Sigmoid())
            self.conv_g = gate(2 * channels, channels, nn.Tanh())
            self.conv_o = gate(2 * channels, channels, nn.Sigmoid())
        self.conv = nn.Sequential(conv3(channels, 3))

    def forward(self, rainy: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Derain ``rainy`` (B, 3, H, W), RGB in [0, 1], of any size.

        Returns:
            The derained image of the last stage, not clamped; with ``all_stages`` those of all stages, first to last.
        """
        outputs = [rainy]
        bodies = [self.get_submodule(name) for name in self._body_names]
        hidden = cell = rainy.new_zeros(rainy.shape[0], self.channels, *rainy.shape[2:])
        for stage in range(1, self.stages + 1):
            x = self.conv0(torch.cat([rainy, outputs[-1]], dim=1))
            if self.recurrent:
                gates = (self.conv_i, self.conv_f, self.conv_g, self.conv_o)
                hidden, cell = lstm_step(torch.cat([x, hidden], dim=1), cell, gates)
                x = hidden
            outputs.append(rainy + self.correction(residual_chain(x, bodies), stage))
        return outputs[1:] if all_stages else outputs[-1]

    def correction(self, features: Tensor, stage: int) -> Tensor:
        """What a stage adds to the rainy image: the rain, negative."""
        return self.conv(features)


class PRN(ProgressiveNet):
    """PRN (Ren et al., CVPR 2019): a residual network applied in stages; 95,107 parameters."""

    def __init__(self, stages: int = 6, channels: int = 32) -> None:
        super().__init__(stages, channels, recurrent=False, recursive=False)


class PReNet(ProgressiveNet):
    """PReNet (Ren et al., CVPR 2019): PRN with a convolutional LSTM; 168,963 parameters."""

    def __init__(self, stages: int = 6, channels: int = 32) -> None:
        super().__init__(stages, channels, recurrent=True, recursive=False)


class PRN_r(ProgressiveNet):  # noqa: N801 - the name in the literature
    """PRN_r (Ren et al., CVPR 2019): PRN with one residual block used five times; 21,123 parameters."""

    def __init__(self, stages: int = 6, channels: int = 32) -> None:
        super().__init__(stages, channels, recurrent=False, recursive=True)


class PReNet_r(ProgressiveNet):  # noqa: N801 - the name in the literature
    """PReNet_r (Ren et al., CVPR 2019): PReNet with one residual block used five times; 94,979 parameters."""

    def __init__(self, stages: int = 6, channels: int = 32) -> None:
        super().__init__(stages, channels, recurrent=True, recursive=True)


class VRGNetPReNet(PReNet):
    """The PReNet of VRGNet (Wang et al., CVPR 2021), whose last stage gives mean and variance; 170,697 parameters.

    The mean is the derained image; the variance serves only VRGNet's own training and is not computed. Names of
    the parameters as in https://github.com/hongwang01/VRGNet, less the prefix ``derainet.``.
    """

    def __init__(self, stages: int = 6, channels: int = 32) -> None:
        super().__init__(stages, channels)
        self.convfinal = nn.Sequential(conv3(channels, 6))

    def correction(self, features: Tensor, stage: int) -> Tensor:
        if stage < self.stages:
            return self.conv(features)
        return self.convfinal(features)[:, :3]
