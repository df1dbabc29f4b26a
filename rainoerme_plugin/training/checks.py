"""What is checked of a network and a loss before they are trained with, by both engines."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from ..archs.adapt import is_out_of_memory
from ..distillation.step import Criterion
from ..errors import OptionError, RainOerMeError, described
from ..options import StepOptions
from .distiller import backbone_of


def check_trainable(network: nn.Module, kind: str, options: StepOptions, batch: int | None) -> None:
    """See whether a network can be trained with these options.

    Args:
        network: The network, bare.
        kind: Its name in option files.
        options: ``train``.
        batch: Samples a step and process, if that is known.

    Raises:
        OptionError: It gives no rain layers, has no backbone to treat as ``train.backbone`` says, or one that should
            learn from a discriminator and not be trained, or the batch cannot be split as ``train.accumulation`` says.
    """
    if "layers" not in inspect.signature(network.forward).parameters:
        raise OptionError(
            f"network_g: {kind} has no detail enhancement block; to train it, write "
            f"{{type: DistillationNet, backbone: {{type: {kind}, ...}}}}"
        )
    found = backbone_of(network, options.backbone)
    if options.distillation.adversarial.weight and found is not None and found[1].lr_factor == 0:
        raise OptionError(
            "train.distillation.adversarial: a backbone that is not trained (train.backbone.lr_factor: 0) cannot learn "
            "to fool a discriminator"
        )
    if batch is not None and batch % options.accumulation:
        raise OptionError(
            f"train.accumulation: a batch of {batch} cannot be split into {options.accumulation} equal parts"
        )


@torch.no_grad()
def check_criterion(criterion: Criterion, options: StepOptions) -> None:
    """See whether a loss of two batches of images can be trained with as these options say.

    Raises:
        OptionError: It takes no weights, which ``train.distillation.confidence`` needs, or it is not the mean of the
            losses of a batch's parts, by the sums of their weights, by which ``train.accumulation`` goes.
    """
    name, confident = type(criterion).__name__, options.distillation.confidence.enabled
    if confident and "weight" not in inspect.signature(getattr(criterion, "forward", criterion)).parameters:
        raise OptionError(f"train.distillation.confidence: {name} takes no weights; SSIMLoss and SumLoss do")
    if options.accumulation == 1:
        return
    image, target = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([0.2, 1.0]).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    for weights in (None, weight) if confident else (None,):
        shares = (0.5, 0.5) if weights is None else (0.2 / 1.2, 1.0 / 1.2)
        given: dict[str, Tensor] = {} if weights is None else {"weight": weights}
        whole = criterion(image, target, **given)
        parts = [
            share * criterion(image[n : n + 1], target[n : n + 1], **{k: v[n : n + 1] for k, v in given.items()})
            for n, share in enumerate(shares)
        ]
        if not torch.isclose(whole, torch.stack(parts).sum(), rtol=1e-4, atol=1e-6):
            raise OptionError(
                f"train.accumulation: the loss of a batch by {name} is not the mean of its parts' losses, so that the "
                "gradients would be others than the batch's; take reduction: mean, another loss, or accumulation: 1"
            )


@torch.no_grad()
def try_crop(network: nn.Module, crop_size: int) -> None:
    """See whether a network takes training crops of this size.

    Raises:
        OptionError: It does not.
    """
    training, device = network.training, next(network.parameters()).device
    network.eval()
    try:
        network(torch.zeros(1, 3, crop_size, crop_size, device=device), layers=True)
    except RainOerMeError:
        raise
    except Exception as error:  # of any package's network
        if is_out_of_memory(error):
            raise
        raise OptionError(f"network_g does not take crops of {crop_size}x{crop_size}: {described(error)}") from error
    network.train(training)
