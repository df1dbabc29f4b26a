"""RESCAN: "Recurrent Squeeze-and-Excitation Context Aggregation Net", Li et al., ECCV 2018, with its GRU.

The names of the parameters are those of https://github.com/XiaLiPKU/RESCAN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

REDUCED = 6
SLOPE = 0.2


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what all channels hold on average over the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, REDUCED), nn.ReLU(inplace=True), nn.Linear(REDUCED, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class ConvGRU(nn.Module):
    """A convolutional GRU of dilated convolutions, its new state weighed by squeeze-and-excitation."""

    def __init__(self, in_channels: int, channels: int, dilation: int) -> None:
        super().__init__()

        def of_input() -> nn.Conv2d:
            return nn.Conv2d(in_channels, channels, 3, padding=dilation, dilation=dilation)

        def of_state() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1)

        self.conv_xz, self.conv_xr, self.conv_xn = of_input(), of_input(), of_input()
        self.conv_hz, self.conv_hr, self.conv_hn = of_state(), of_state(), of_state()
        self.se = SqueezeExcitation(channels)

    def forward(self, x: Tensor, state: Tensor | None) -> Tensor:
        if state is None:
            # Not what a state of zeros would give: that has the biases of the state's convolutions.
            state = torch.sigmoid(self.conv_xz(x)) * torch.tanh(self.conv_xn(x))
        else:
            update = torch.sigmoid(self.conv_xz(x) + self.conv_hz(state))
            reset = torch.sigmoid(self.conv_xr(x) + self.conv_hr(state))
            candidate = torch.tanh(self.conv_xn(x) + self.conv_hn(reset * state))
            state = (1 - update) * state + update * candidate
        return nn.functional.leaky_relu(self.se(state), SLOPE)


class RESCAN(nn.Module):
    """RESCAN (Li et al., ECCV 2018): dilated recurrent units in stages that remove rain by and by; 149,823 parameters.

    Squeeze-and-excitation takes means over the whole image, so a crop does not give the same as the image.

    Args:
        stages: Times that the network is applied to what it has left.
        channels: Feature channels.
        depth: Layers; the dilation doubles from layer to layer.

    Raises:
        ValueError: ``stages`` or ``channels`` is not positive, or ``depth`` is below 3.
    """

    def __init__(self, stages: int = 4, channels: int = 24, depth: int = 7) -> None:
        super().__init__()
        if stages < 1 or channels < 1 or depth < 3:
            raise ValueError(
                f"stages and channels must be at least 1 and depth at least 3, got {stages}, {channels} and {depth}"
            )
        self.stages = stages
        units = [ConvGRU(3, channels, 1)]
        units += [ConvGRU(channels, channels, 2**layer) for layer in range(depth - 3)]
        self.rnns = nn.ModuleList(units)
        self.dec = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            SqueezeExcitation(channels),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, 3, 1),
        )

    def forward(self, rainy: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Derain ``rainy`` (B, 3, H, W), RGB in [0, 1], of any size.

        Returns:
            The derained image of the last stage, not clamped; with ``all_stages`` those of all stages, first to last.
        """
        rainy = rainy.flip(1)  # its authors trained on BGR
        outputs = [rainy]
        states: list[Tensor | None] = [None] * len(self.rnns)
        for _ in range(self.stages):
            x = outputs[-1]
            for layer, unit in enumerate(self.rnns):
                x = unit(x, states[layer])
                states[layer] = x
            outputs.append(rainy - self.dec(x))
        derained = [output.flip(1) for output in outputs[1:]]
        return derained if all_stages else derained[-1]
