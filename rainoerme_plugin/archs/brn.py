"""BRN: "Single Image Deraining Using Bilateral Recurrent Network", Ren et al., IEEE TIP 2020.

The names of the parameters are those of the files in https://github.com/csdwren/RecDerain.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .prenet import BLOCKS, conv3, conv_relu, gate, lstm_step, residual_body, residual_chain

RAIN_BLOCKS = 3


class BRN(nn.Module):
    """BRN (Ren et al., TIP 2020): two recurrent networks, for rain and background, that see each other.

    412,518 parameters, 36,992 of them without effect: the published files hold two residual blocks of the
    rain network that its authors' code does not use. They are here so that the files load, and are not trained.

    Args:
        stages: Times that both networks are applied; the published files were made with 8.
        channels: Feature channels.

    Raises:
        ValueError: ``stages`` or ``channels`` is not positive.
    """

    def __init__(self, stages: int = 8, channels: int = 32) -> None:
        super().__init__()
        if stages < 1 or channels < 1:
            raise ValueError(f"stages and channels must be at least 1, got {stages} and {channels}")
        self.stages, self.channels = stages, channels
        for suffix, in_channels in (("", 9), ("_r", 6)):
            self.add_module(f"conv0{suffix}", conv_relu(in_channels, channels))
            for number in range(1, BLOCKS + 1):
                self.add_module(f"res_conv{number}{suffix}", residual_body(channels))
            for name in "ifgo":
                activation = nn.Tanh() if name == "g" else nn.Sigmoid()
                self.add_module(f"conv_{name}{suffix}", gate(3 * channels, channels, activation))
            self.add_module(f"conv{suffix}", nn.Sequential(conv3(channels, 3)))
        for number in range(RAIN_BLOCKS + 1, BLOCKS + 1):
            self.get_submodule(f"res_conv{number}_r").requires_grad_(False)

    def forward(self, rainy: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Derain ``rainy`` (B, 3, H, W), RGB in [0, 1], of any size.

        Returns:
            The derained image of the last stage, not clamped; with ``all_stages`` those of all stages, first to last.
        """
        clean = rain = rainy
        zeros = rainy.new_zeros(rainy.shape[0], self.channels, *rainy.shape[2:])
        hidden = cell = rain_hidden = rain_cell = zeros
        outputs = []
        for _ in range(self.stages):
            x = self.get_submodule("conv0_r")(torch.cat([rainy, rain], dim=1))
            x = torch.cat([x, rain_hidden, hidden], dim=1)
            rain_hidden, rain_cell = lstm_step(x, rain_cell, self._gates("_r"))
            rain = self.get_submodule("conv_r")(residual_chain(rain_hidden, self._bodies(RAIN_BLOCKS, "_r")))

            x = self.get_submodule("conv0")(torch.cat([rainy, clean, rain], dim=1))
            x = torch.cat([x, hidden, rain_hidden], dim=1)
            hidden, cell = lstm_step(x, cell, self._gates(""))
            clean = self.get_submodule("conv")(residual_chain(hidden, self._bodies(BLOCKS, "")))
            outputs.append(clean)
        return outputs if all_stages else clean

    def _gates(self, suffix: str) -> tuple[nn.Module, ...]:
        return tuple(self.get_submodule(f"conv_{name}{suffix}") for name in "ifgo")

    def _bodies(self, count: int, suffix: str) -> list[nn.Module]:
        return [self.get_submodule(f"res_conv{number}{suffix}") for number in range(1, count + 1)]
