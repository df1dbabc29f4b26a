"""Where a soft label can be trusted: what it took out there looks like rain.

A coarse filter takes out rain, and with it texture and edges. Rain brightens all colours alike, in streaks that are
long in the direction of their fall. What else a label changed is its own fault, and the network need not learn it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Confidence:
    """Weights for the soft loss: 1 where all that the label took out is rain-like, less the more else it took.

    With the removed light d = min over channels of max(rainy - label, 0), its rain-like part s = min(d, the opening of
    d, widened by ``slack``, with an upright line of ``length``), and what was lost besides,
    l = mean over channels of |rainy - label| - s: the weight is floor + (1 - floor) * exp(-l / tolerance).

    Args:
        length: Of a streak at least, in pixels, odd.
        slack: How far to the left and right a streak of this length may stray, in pixels: rain falls aslant.
        tolerance: Loss of a value in [0, 1] at which the weight is floor + 0.37 * (1 - floor).
        floor: The least weight.

    Raises:
        ValueError: A number is out of range.
    """

    length: int = 9
    slack: int = 1
    tolerance: float = 0.05
    floor: float = 0.2

    def __post_init__(self) -> None:
        if self.length < 1 or self.length % 2 == 0:
            raise ValueError(f"length must be odd and positive, got {self.length}")
        if self.slack < 0:
            raise ValueError(f"slack must not be negative, got {self.slack}")
        if self.tolerance <= 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must be from 0 to 1, got {self.floor}")

    def __call__(self, rainy: Tensor, label: Tensor) -> Tensor:
        """The weights (B, 1, H, W), in [floor, 1], of rainy images and their labels (B, 3, H, W) in [0, 1]."""
        with torch.no_grad():
            change = rainy.float() - label.float()
            removed = change.clamp(min=0).amin(dim=1, keepdim=True)
            lost = change.abs().mean(dim=1, keepdim=True) - self._streaks(removed)
            return self.floor + (1 - self.floor) * torch.exp(-lost.clamp(min=0) / self.tolerance)

    def _streaks(self, removed: Tensor) -> Tensor:
        """The part of (B, 1, H, W) that lasts for the length of a streak; beyond the border it may go on."""
        half = self.length // 2
        widened = F.max_pool2d(removed, (1, 2 * self.slack + 1), stride=1, padding=(0, self.slack))
        # max_pool2d pads with minus infinity, which is what both an erosion and a dilation want at the border.
        eroded = -F.max_pool2d(-widened, (self.length, 1), stride=1, padding=(half, 0))
        opened = F.max_pool2d(eroded, (self.length, 1), stride=1, padding=(half, 0))
        return torch.minimum(removed, opened)
