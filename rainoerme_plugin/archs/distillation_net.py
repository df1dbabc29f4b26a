"""Any image-to-image network as the residual branch of "Rain O'er Me"."""

from __future__ import annotations

from torch import Tensor, nn

from .adapt import Needs, checkpoint_parts, derain
from .catalogue import needs_of
from .rainoerme import RainLayers, detail_block, initialise, start_as_identity


class DistillationNet(nn.Module):
    """A backbone with the paper's detail enhancement block, for two-stage distillation.

    The rain layer is what the backbone takes away: its input minus its output. Checkpoints hold the backbone and the
    block apart (`checkpoint_parts`), so that they load as the bare backbone.

    Args:
        backbone: Any network (B, 3, H, W) to (B, 3, H, W), RGB in [0, 1].
        detail_layers: Convolutions of the detail enhancement block, as of `RainOerMeNet`.
        detail_start: What the block does before training. ``identity`` keeps the rain layer, so that the soft loss
            teaches the backbone from the first iteration; ``noise``, the paper's N(0, 0.02), loses nearly all of it.
        needs: What the backbone asks of its input; None is what the catalogue says of it.

    Raises:
        ValueError: ``detail_layers`` or ``detail_start`` is none of these.
    """

    def __init__(
        self, backbone: nn.Module, detail_layers: int = 3, detail_start: str = "identity", needs: Needs | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone_needs = needs or needs_of(backbone)
        # What else the backbone needs, it is given by `derain` here.
        self.needs = Needs(channels_last=self.backbone_needs.channels_last)
        self.detail = detail_block(detail_layers).apply(initialise)
        if detail_start == "identity":
            start_as_identity(self.detail)
        elif detail_start != "noise":
            raise ValueError(f"detail_start must be noise or identity, got '{detail_start}'")

    def forward(self, rainy: Tensor, layers: bool = False) -> Tensor | RainLayers:
        """Derain ``rainy`` (B, 3, H, W) in [0, 1], of any size.

        Returns:
            The backbone's derained image, not clamped; with ``layers=True`` both rain layers instead.
        """
        derained = derain(self.backbone, rainy, self.backbone_needs)
        if not layers:
            return derained
        rain = rainy - derained
        return RainLayers(rain, self.detail(rain))

    def train(self, mode: bool = True) -> DistillationNet:
        """As of every module, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def checkpoint_parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds under which key's ending: the bare backbone under the key itself."""
        return {**checkpoint_parts(self.backbone), "_detail": self.detail}
