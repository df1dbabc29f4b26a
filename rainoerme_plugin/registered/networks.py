"""Networks made of networks, as option files describe them: options in, plain PyTorch inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from torch import nn

from ..archs.catalogue import needs_of
from ..archs.distillation_net import DistillationNet as _DistillationNet
from ..files import user_path
from ..weights import load_weights, recognised


def PretrainedNet(file: str, key: str | None = None) -> nn.Module:  # noqa: N802 - a name in option files
    """The network that a file of weights belongs to, recognised from the file, with its weights.

    Args:
        file: The checkpoint: of a network of this package, or of any that spandrel recognises.
        key: Where in the file the weights are; None looks in the usual places.
    """
    return recognised(user_path(file), key)


class DistillationNet(_DistillationNet):
    """Any network as a backbone for two-stage distillation, with the paper's detail enhancement block.

    Args:
        backbone: ``type`` and arguments of a registered network: BasicSR's, this package's, ``PretrainedNet``, or by
            ``SCOPE.NAME`` one of mmengine's registries.
        pretrained: A checkpoint that the backbone starts from.
        param_key: Where in it the weights are; None looks in the usual places.
        strict_load: False loads what fits of it.
        detail_layers: Convolutions of the detail enhancement block, 3 or 2.
        detail_start: What the block does before training: ``identity`` or ``noise`` (the paper's).
        multiple: Height and width that the backbone takes must be a multiple of this; None: as the catalogue says.
        output: Which of a backbone's results is the derained image, from 0; None: as the catalogue says.
        channels: The backbone's own ``channels``, if that is to be another number than ``backbone`` has: the same key
            for a smaller network here and in ``RainOerMeNet``.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        pretrained: str | None = None,
        param_key: str | None = None,
        strict_load: bool = True,
        detail_layers: int = 3,
        detail_start: Literal["identity", "noise"] = "identity",
        multiple: int | None = None,
        output: int | None = None,
        channels: int | None = None,
    ) -> None:
        network = _build(backbone if channels is None else {**backbone, "channels": channels})
        if pretrained is not None:
            load_weights(network, pretrained, param_key, strict=strict_load, option="param_key:")
        told: dict[str, Any] = {"multiple": multiple, "output": output}
        told = {name: value for name, value in told.items() if value is not None}
        super().__init__(network, detail_layers, detail_start, replace(needs_of(network), **told))


def _build(options: dict[str, Any]) -> nn.Module:
    network: nn.Module
    if "." in options["type"]:
        from mmengine.registry import MODELS

        network = MODELS.build(dict(options))
        return network
    from basicsr.archs import build_network

    from ..plugin import register

    register()
    network = build_network(dict(options))
    return network
