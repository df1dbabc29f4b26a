"""The step of distillation that both engines take: from a batch to gradients that are numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..archs.catalogue import needs_of
from ..archs.distillation_net import DistillationNet
from ..data.images import as_floats
from ..data.unpaired import IMAGES
from ..distillation.adversarial import Adversary
from ..distillation.finite import all_finite, first_nonfinite
from ..distillation.graphs import GraphedGradients, Images
from ..distillation.refinements import PAPER, OnDevice, StepRefinements
from ..distillation.schedule import StepWeights
from ..distillation.step import AdversarialLosses, Criterion, DistillationStep, distillation_gradients
from ..errors import OptionError, WeightsError, one_line
from ..options import BackboneOptions, StepOptions
from ..processes import mean_of_processes, rank_and_world
from .skips import Skips

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Distiller:
    """Computes steps; anything but the plain way is given up for it, with a message, where it fails.

    Args:
        network: What is trained, or its wrapper that lets processes exchange gradients.
        bare: The network itself.
        criterion: The loss of two batches of images.
        options: How; keys of ``train`` in option files.
        skips: Counts the steps that are left out.
        warn: Is told what is given up.
        seed: Of a discriminator's first weights.

    Raises:
        OptionError: ``train.backbone`` is given, and the network has none.
    """

    def __init__(
        self,
        network: nn.Module,
        bare: nn.Module,
        criterion: Criterion,
        options: StepOptions,
        skips: Skips,
        warn: Callable[[str], None],
        seed: int = 0,
    ) -> None:
        self.network, self.bare, self.criterion, self.skips, self.warn = network, bare, criterion, skips, warn
        self._clip = options.grad_clip
        self._precision = PRECISIONS[options.precision]
        self._accumulation = options.accumulation
        found = backbone_of(bare, options.backbone)
        self._backbone = found and found[0]
        self._frozen_until = 0.0 if found is None else inf if found[1].lr_factor == 0 else found[1].freeze_iter
        self._layout = needs_of(bare).memory_format
        device = next(bare.parameters()).device
        self._refinements = options.distillation.refinements()
        if options.accumulation > 1 and any(isinstance(part, _BatchNorm) for part in bare.modules()):
            warn(
                "train.accumulation: network_g has batch norms, which see one part of a batch at a time: the gradients "
                "are not those of the batch"
            )
        self._on_device = OnDevice(device)
        self._refined: StepRefinements = PAPER
        self._teacher: nn.Module | None = None
        adversarial = options.distillation.adversarial.build()
        several = rank_and_world()[1] > 1
        average = mean_of_processes if several else None
        self._adversary = None if adversarial is None else Adversary(adversarial, device, seed, average)
        self._has_begun = False
        """Whether the adversary has, in this iteration."""
        # Small gradients are nothing in float16; they are computed of a loss times a large factor.
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "float16")  # type: ignore[attr-defined]
        self._computing: nn.Module = network
        self._compiled = options.compile
        if options.compile:
            self._computing = torch.compile(network, dynamic=False)  # type: ignore[assignment]
        self.graphs: GraphedGradients | None = None
        if options.cuda_graphs:
            hindrances = {
                "it needs a CUDA GPU": device.type != "cuda",
                "not for several processes": several,
                "not with train.distillation.adversarial": self._adversary is not None,
                "not with train.precision: float16": options.precision == "float16",
            }
            if any(hindrances.values()):
                first = next(text for text, is_there in hindrances.items() if is_there)
                warn(f"train.cuda_graphs: {first}; training goes on without")
            else:
                self.graphs = GraphedGradients(self._compute, bare.parameters())

    def gradients(
        self,
        images: Images,
        weights: StepWeights,
        iteration: int,
        seed: int = 0,
        teacher: nn.Module | None = None,
        *,
        keep: bool = False,
        backward: Callable[[Tensor], None] | None = None,
    ) -> DistillationStep:
        """The gradients of a batch, in place of those before, for an optimiser to step by if `finite` says so.

        Args:
            images: Rainy crops, soft labels and clean crops, and where there is a bank its rain, (B, 3, H, W), uint8
                or floats in [0, 1].
            weights: Of this iteration.
            iteration: Its number, from 1.
            seed: Of what refinements draw; each process draws its own.
            teacher: The running mean of the network, for refinements that need one.
            keep: Add to the gradients that are there.
            backward: Goes backward through the loss; by default through what ``scaler`` makes of it.
        """
        frozen = iteration <= self._frozen_until
        if self._backbone is not None:
            self._backbone.train(not frozen)
        refined = self._refinements.at(iteration, len(images[0]), own_seed(seed))
        self._refined, self._teacher = self._on_device(refined), teacher
        self._has_begun = self._adversary is not None and iteration > self._adversary.settings.start
        step = None
        if self.graphs is not None and not keep and backward is None:
            step = self._replayed(images, weights, frozen)
        if step is None:
            if not keep:
                self.bare.zero_grad(set_to_none=True)
            step = self._compute(images, weights, bool(weights.hard > 0), backward)
        if self._backbone is not None and frozen:
            # Gradients are dropped, not switched off: DDP wants the same parameters in every iteration.
            self._backbone.zero_grad(set_to_none=True)
        return step

    def _replayed(self, images: Images, weights: StepWeights, frozen: bool) -> DistillationStep | None:
        assert self.graphs is not None
        try:
            return self.graphs(images, weights, state=(frozen, *self._refined.kernels))
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            self.warn(f"train.cuda_graphs: the step cannot be captured ({one_line(error)}); training goes on without")
            self.graphs = None
            return None

    def _compute(
        self,
        images: Images,
        weights: StepWeights,
        two_stages: bool,
        backward: Callable[[Tensor], None] | None = None,
    ) -> DistillationStep:
        rainy, label, clean, *bank = (as_floats(image, self._layout) for image in images)
        try:
            adversarial = self._adversarial_gradients(rainy, clean, *bank, backward=backward)
            step = distillation_gradients(
                self._computing,
                rainy,
                label,
                clean,
                weights,
                self.criterion,
                two_stages,
                refined=self._refined,
                teacher=self._teacher if self._refined.needs_teacher else None,
                bank=bank[0] if bank else None,
                parts=self._accumulation,
                precision=self._precision,
                backward=backward or self._backward,
            )
        except Exception as error:
            if not self._compiled or not _from_compiler(error):
                raise
            self.warn(f"train.compile: torch.compile fails here ({one_line(error)}); training goes on without")
            self._compiled, self._computing = False, self.network
            self.bare.zero_grad(set_to_none=True)
            return self._compute(images, weights, two_stages, backward)
        if adversarial is None or self._adversary is None:
            return step
        loss = step.loss + self._adversary.settings.weight * adversarial.fooling
        return replace(step, loss=loss, adversarial=adversarial)

    def _adversarial_gradients(
        self, rainy: Tensor, clean: Tensor, bank: Tensor | None = None, *, backward: Callable[[Tensor], None] | None
    ) -> AdversarialLosses | None:
        """Those of the adversarial loss, before the others: processes exchange all at once."""
        if self._adversary is None or not self._has_begun:
            return None
        true = clean if self._adversary.settings.domain == "derained" else bank
        if true is None:
            self.warn(
                "train.distillation.adversarial.domain: there is no bank of rain to tell the network's rain from; "
                "training goes on without an adversarial loss"
            )
            self._adversary = None
            return None
        return self._adversary.gradients(
            self._computing,
            rainy,
            true,
            parts=self._accumulation,
            precision=self._precision,
            backward=backward or self._backward,
        )

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    # --- numbers that go wrong ---

    def _gradients_by_name(self) -> list[tuple[str, Tensor]]:
        parameters = self.bare.named_parameters()
        return [(f"gradient of {name}", value.grad) for name, value in parameters if value.grad is not None]

    def _of_discriminator(self, step: DistillationStep) -> list[tuple[str, Tensor]]:
        """The discriminator's loss and gradients, if it had a part in a step."""
        if step.adversarial is None or self._adversary is None:
            return []
        return [("discriminator's loss", step.adversarial.telling), *self._adversary.gradients_by_name()]

    def finite(self, step: DistillationStep) -> tuple[bool, bool]:
        """Whether the loss and whether the gradients are numbers, in every process."""
        gradients = [gradient for _, gradient in self._gradients_by_name()]
        # No scale of float16 mends the discriminator's numbers, so they count as the loss's.
        theirs = [value for _, value in self._of_discriminator(step)]
        finite = torch.stack([all_finite([step.loss, *theirs]), all_finite(gradients or [step.loss])])
        if rank_and_world()[1] > 1:
            dist.all_reduce(finite, dist.ReduceOp.MIN)
        loss, gradient = finite.tolist()
        return bool(loss), bool(gradient)

    def may_step(
        self, step: DistillationStep, images: Images, iteration: int, paths: Mapping[str, Any], optimizer: Any
    ) -> bool:
        """Whether an optimiser may step by the gradients, which are no longer multiples of the loss's then.

        The discriminator of an adversarial loss has made its own step then.
        Where it may not, everything is left as it was before. Too large a scale of float16 makes gradients of a finite
        loss overflow, which is how it is found: such a step lowers it, and is not counted while it is above 1.

        Args:
            step, images, iteration: What was computed of what, when.
            paths: Where the images are from.
            optimizer: The one that is to step, or its wrapper.

        Raises:
            NonFiniteError: It was one skipped step too many.
        """
        self.scaler.unscale_(optimizer)
        finite_loss, finite_gradients = self.finite(step)
        if finite_loss and finite_gradients:
            if self._clip is not None:
                nn.utils.clip_grad_norm_(self.bare.parameters(), self._clip)
            if self._adversary is not None:
                self._adversary.step()
            return True
        scale = self.scaler.get_scale()
        # What the loss itself does not bring forth is no reason to change the scale.
        self.scaler.update(None if finite_loss else scale)
        if finite_loss and self.scaler.is_enabled() and scale > 1:
            self.bare.zero_grad(set_to_none=True)
            return False
        self.skip(step, images, iteration, paths)
        return False

    def skip(self, step: DistillationStep, images: Images, iteration: int, paths: Mapping[str, Any]) -> None:
        """Leave out a step whose numbers went wrong.

        Raises:
            NonFiniteError: It was one too many.
        """
        named = [("rain layer", step.layer), ("refined rain layer", step.rain)]
        named += [
            ("clean image with rain", step.synthetic),
            ("soft loss", step.soft_loss),
            ("hard loss", step.hard_loss),
        ]
        if step.adversarial is not None:
            named += [("adversarial loss", step.adversarial.fooling)]
        named += [("loss", step.loss), *self._of_discriminator(step)]
        own = first_nonfinite(named)
        problem = own or first_nonfinite(self._gradients_by_name()) or "the loss of another process is not finite"
        self.bare.zero_grad(set_to_none=True)
        named_images = dict(zip(IMAGES, images, strict=False))
        batch = {**named_images, "layer": step.rain, **paths, "problem": problem}
        self.skips.note(iteration, problem, batch, is_culprit=own is not None or rank_and_world()[0] == 0)

    # --- checkpoints ---

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of it; the adversary, which all processes have alike, in the first one's."""
        state: dict[str, Any] = {"scaler": self.scaler.state_dict()}
        if self._adversary is not None and rank_and_world()[0] == 0:
            state["adversary"] = self._adversary.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; what is not in it begins anew.

        Raises:
            WeightsError: The discriminator in it is not this run's.
        """
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self._adversary is not None and "adversary" in state:
            try:
                self._adversary.load_state_dict(state["adversary"])
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise WeightsError(
                    "the checkpoint's discriminator is not that of train.distillation.adversarial "
                    f"({one_line(error)}); go on with the channels and layers that the run was begun with"
                ) from None


def own_seed(seed: int) -> int:
    """Of what this process draws by itself: each has its own rain."""
    return seed + 1_000_003 * rank_and_world()[0]


def named_losses(step: DistillationStep) -> dict[str, Tensor]:
    """What the log has of a step, by the names in it."""
    found = {"l_hard": step.hard_loss, "rain_energy": step.rain_energy}
    if not step.is_of_bank:
        found = {"l_soft": step.soft_loss, **found}
    if step.adversarial is not None:
        found.update(l_adversarial=step.adversarial.fooling, l_discriminator=step.adversarial.telling)
    return found


def _from_compiler(error: Exception) -> bool:
    """Whether torch.compile itself failed, and not what it compiled."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def backbone_of(network: nn.Module, options: BackboneOptions | None) -> tuple[nn.Module, BackboneOptions] | None:
    """The network's backbone and how to train it, if ``train.backbone`` says that.

    Raises:
        OptionError: It has none.
    """
    if options is None:
        return None
    if not isinstance(network, DistillationNet):
        raise OptionError("train.backbone: only a DistillationNet has one; network_g is none")
    return network.backbone, options
