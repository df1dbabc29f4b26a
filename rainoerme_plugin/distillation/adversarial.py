"""An adversarial loss: a discriminator learns to tell what the network makes of rainy photographs from true images.

The network learns to fool it. That asks for no label and no clean version: derained crops should look like clean ones
of other scenes, or rain layers like the rain of a bank. X. Mao et al., Least Squares Generative Adversarial Networks,
ICCV 2017, has the losses, P. Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017,
the discriminator of patches. Unpaired derainers that use one: CSUD (CVPR 2025), RGSUD (CVPR 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .step import AdversarialLosses, exchanging

Domain = Literal["derained", "rain"]
_SLOPE = 0.2
"""Of the discriminator's leaky ReLUs, as Isola et al. have it."""
_BETAS = (0.5, 0.999)
"""Of its Adam, likewise."""


class PatchDiscriminator(nn.Sequential):
    """Judges each patch of an image by itself: from (B, 3, H, W) to (B, 1, H', W'), 1 for true and 0 for made.

    Convolutions of 4x4, each halving the sides and doubling the channels (up to eight times the first ones), and one of
    3x3 that judges. H' and W' are H and W divided by ``2**layers``, rounded down; a judgement sees 18, 38, 78 pixels
    with 2, 3, 4 layers. There are no batch norms: a crop's judgement does not depend on the others.

    Args:
        channels: Of the first layer.
        layers: Halving ones, at least 1; images must have at least ``2**layers`` pixels a side.
    """

    def __init__(self, channels: int = 32, layers: int = 3) -> None:
        widths = [3, *(channels * min(2**layer, 8) for layer in range(layers))]
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        super().__init__(*parts, nn.Conv2d(widths[-1], 1, 3, padding=1))
        for part in self:
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, a=_SLOPE)
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]


def fooling_loss(judged: Tensor) -> Tensor:
    """What the network loses: mean((judged - 1)^2) / 2 of the judgements of its images, a scalar."""
    return (judged - 1).square().mean() / 2


def telling_loss(judged_true: Tensor, judged_made: Tensor) -> Tensor:
    """What the discriminator loses: (mean((true - 1)^2) + mean(made^2)) / 2 of its judgements, a scalar."""
    return ((judged_true - 1).square().mean() + judged_made.square().mean()) / 2


@dataclass(frozen=True)
class Adversarial:
    """The adversarial loss of a run.

    Args:
        weight: Of `fooling_loss`, beside the other losses.
        domain: ``derained``: derained crops are told from clean ones; ``rain``: the rain layers of rainy crops from the
            rain of a bank.
        start: Both sides begin after this iteration.
        channels, layers: Of `PatchDiscriminator`.
        lr: The discriminator's rate, the same all run.
    """

    weight: float
    domain: Domain = "derained"
    start: int = 0
    channels: int = 32
    layers: int = 3
    lr: float = 2e-4


class Adversary:
    """The discriminator in training: its network and its optimiser (Adam), in float32 whatever the network is in.

    Args:
        settings: Of the run.
        device: Where it computes.
        seed: Of its first weights, the same in all processes.
        average: The mean over all processes of a tensor that each has; None: there is but one.
    """

    def __init__(
        self,
        settings: Adversarial,
        device: torch.device,
        seed: int = 0,
        average: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.settings, self._average = settings, average
        with torch.random.fork_rng(devices=[]):  # whether there is one changes nothing else that is drawn
            torch.manual_seed(seed)
            self.discriminator = PatchDiscriminator(settings.channels, settings.layers).to(device)
        self._optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=settings.lr, betas=_BETAS)

    def gradients(
        self,
        network: nn.Module,
        rainy: Tensor,
        true: Tensor,
        *,
        parts: int = 1,
        precision: torch.dtype | None = None,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> AdversarialLosses:
        """The gradients of both sides: the network's are added to those it has, the discriminator's replace its own.

        Processes do not exchange the network's here, but with those of the backward pass that must come next.

        Args:
            network: ``network(rainy)`` gives the derained images.
            rainy: Rainy crops (B, 3, H, W) in [0, 1].
            true: What the results should look like, (B, 3, H, W): clean crops, or rain of a bank.
            parts: Go through the batch in so many equal parts: the same gradients in so much less memory.
            precision: What the network is computed in, as of `distillation_gradients`.
            backward: Goes backward through the network's loss; with a ``GradScaler``, through a multiple of it.

        Returns:
            Both losses, detached.
        """
        computing = nullcontext if precision is None else partial(torch.autocast, rainy.device.type, precision)
        self.discriminator.requires_grad_(False)
        made, fooling, telling = [], [], []
        for its_rainy in rainy.chunk(parts):
            with exchanging(network, False):
                with computing():
                    derained = network(its_rainy)
                image = derained if self.settings.domain == "derained" else its_rainy - derained
                loss = fooling_loss(self._judged(image))
                backward(self.settings.weight * loss / parts)
            made.append(image.detach())
            fooling.append(loss.detach())
        self.discriminator.requires_grad_(True)
        self.discriminator.zero_grad(set_to_none=True)
        for its_true, its_made in zip(true.chunk(parts), made, strict=True):
            loss = telling_loss(self._judged(its_true), self._judged(its_made))
            (loss / parts).backward()
            telling.append(loss.detach())
        if self._average is not None:
            self._average_gradients(self._average)
        return AdversarialLosses(torch.stack(fooling).mean(), torch.stack(telling).mean())

    def _judged(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            judged: Tensor = self.discriminator(images.float())
        return judged

    def _average_gradients(self, average: Callable[[Tensor], Tensor]) -> None:
        gradients = [gradient for _, gradient in self.gradients_by_name()]
        mean = average(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, mean.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gradients_by_name(self) -> list[tuple[str, Tensor]]:
        """The discriminator's gradients."""
        parameters = self.discriminator.named_parameters()
        return [(f"gradient of the discriminator's {name}", v.grad) for name, v in parameters if v.grad is not None]

    def step(self) -> None:
        """Step by the discriminator's gradients; not at all where there are none."""
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The discriminator and its optimiser, as tensors and plain types."""
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave, at the rate of this run.

        Raises:
            AttributeError, KeyError, RuntimeError, TypeError, ValueError: It is another discriminator's, or none's.
        """
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.lr
