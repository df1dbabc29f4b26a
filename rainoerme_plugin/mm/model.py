"""Two-stage distillation as a model for mmengine's runners: configs in, steps of the method, derained images out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor, BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..archs.adapt import checkpoint_parts, place
from ..archs.catalogue import needs_of
from ..archs.tiles import derain_tiled
from ..data.images import as_floats
from ..data.names import results_of
from ..data.unpaired import images_of
from ..distillation.graphs import Images
from ..distillation.refinements import OnDevice
from ..distillation.schedule import StepWeights
from ..distillation.step import DistillationStep, distillation_step
from ..errors import OptionError
from ..options import StepOptions, read_section
from ..registry import MODELS
from ..training.checks import check_criterion, check_trainable
from ..training.distiller import Distiller, backbone_of, named_losses, own_seed
from ..training.skips import Skips
from ..weights import load_weights


class DerainingPreprocessor(BaseDataPreprocessor):
    """Puts batches onto the device, whatever collated them, under the names that mmengine's models take.

    Training batches become ``inputs`` (rainy, label, clean, and the rain of a bank if there is one), each
    (B, 3, H, W); test batches ``inputs`` (B, 3, H, W) float32 in [0, 1] and ``data_samples``, one a rainy image: its
    path, a name for its result, and the clean image if there is one.
    """

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        if "inputs" in data:
            return dict(data)  # done already
        if "rainy" in data:
            images = tuple(self._on_device(image) for image in images_of(data))
            paths = {name: list(data.get(name, ())) for name in ("rainy_path", "clean_path")}
            return {"inputs": images, "data_samples": paths}
        rainy = as_floats(self._on_device(data["lq"]))
        clean = self._on_device(data["gt"]) if "gt" in data else [None] * len(rainy)
        samples = [
            BaseDataElement(metainfo={"path": path, "result": result}, clean=image)
            for path, result, image in zip(data["lq_path"], results_of(data), clean, strict=True)
        ]
        return {"inputs": rainy, "data_samples": samples}

    def _on_device(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        batch = images if isinstance(images, Tensor) else torch.stack(list(images))
        return batch.to(self.device, non_blocking=True)


class DistillationModel(BaseModel):
    """One network learns from soft labels and from its own rain on clean images, as `models.distillation_model` has it.

    `ScheduleHook` must tell it the weights of each iteration.

    Args:
        network: The network, or its config: one that gives rain layers, such as ``RainOerMeNet`` or a
            ``DistillationNet``.
        loss: The loss of two images, or its config.
        pretrained: A checkpoint that the network starts from, of either engine or published.
        param_key: Where in it the weights are; None looks in the usual places.
        strict_load: False loads what fits of it.
        tile: Side of the tiles in which large images are derained; 0: whole images; ``auto``.
        options: `StepOptions`: distillation, backbone, precision, accumulation, compile, cuda_graphs, nonfinite_limit.

    Attributes:
        weights: Of the iteration that comes.
        iteration: Its number, from 1.
        seed: Of what is drawn in it.
        last: What the last step computed.
        stepped: Whether it was one, and was not left out.

    Raises:
        OptionError: An option is not known or out of range, or the network cannot be trained so.
        WeightsError: The checkpoint is not the network's.
    """

    def __init__(
        self,
        network: dict[str, Any] | nn.Module,
        loss: dict[str, Any] | nn.Module | None = None,
        pretrained: str | None = None,
        param_key: str | None = None,
        strict_load: bool = True,
        tile: int | str = "auto",
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        init_cfg: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_preprocessor or {"type": "rainoerme_plugin.DerainingPreprocessor"}, init_cfg)
        self.options = read_section(StepOptions, options, "model")
        self.network = network if isinstance(network, nn.Module) else MODELS.build(network)
        check_trainable(self.network, type(self.network).__name__, self.options, batch=None)
        if pretrained is not None:
            load_weights(self.network, pretrained, param_key, strict=strict_load, option="param_key")
        if (found := backbone_of(self.network, self.options.backbone)) and found[1].lr_factor == 0:
            found[0].requires_grad_(False)
        place(self.network, needs_of(self.network))
        self.criterion = loss if isinstance(loss, nn.Module) else _build_loss(loss or {"type": "SSIMLoss"})
        check_criterion(self.criterion, self.options)
        self.schedule, self.refinements = self.options.distillation.build(), self.options.distillation.refinements()
        self.tile = None if tile == "auto" else int(tile)
        self.skips = Skips(self.options.nonfinite_limit, Path("nonfinite"), _warn)
        self.weights: StepWeights | None = None
        self.iteration = self.seed = 0
        self._taught_by: list[nn.Module] = []  # in a list, or it would be a part of this model
        self.last: DistillationStep | None = None
        self.stepped = True
        self._distiller: Distiller | None = None
        self._distiller_state: dict[str, Any] = {}

    def forward(
        self, inputs: Any, data_samples: Any = None, mode: str = "tensor", layers: bool = False
    ) -> Tensor | tuple[Tensor, Tensor] | dict[str, Tensor] | list[BaseDataElement]:
        """What mmengine asks of every model.

        Args:
            inputs: Of `DerainingPreprocessor`; with ``mode="tensor"`` rainy images (B, 3, H, W) in [0, 1].
            data_samples: Of `DerainingPreprocessor`.
            mode: ``tensor``: the derained images, or with ``layers`` their rain layers; ``loss``: the weighted losses,
                for wrappers that want all of a step to be one forward pass (FSDP, DeepSpeed); ``predict``: the samples
                with ``rainy`` and ``derained``, (3, H, W) each.
        """
        if mode == "predict":
            return self._predict(inputs, data_samples)
        if mode == "tensor":
            return self.network(inputs, layers=True) if layers else self.network(inputs)  # type: ignore[no-any-return]
        if self.options.grad_clip is not None:
            raise OptionError("model.grad_clip: not where all of a step is one forward pass; take the wrapper's own")
        if self.options.distillation.adversarial.weight:
            raise OptionError("model.distillation.adversarial: not where all of a step is one forward pass")
        if self.options.accumulation > 1:
            raise OptionError("model.accumulation: not where all of a step is one forward pass (FSDP, DeepSpeed)")
        layout = needs_of(self.network).memory_format
        rainy, label, clean, *bank = (as_floats(image, layout) for image in inputs)
        refined = self.refinements.at(self.iteration, len(rainy), own_seed(self.seed))
        self.last = step = distillation_step(
            self.network,
            rainy,
            label,
            clean,
            self._weights(),
            self.criterion,
            refined=OnDevice(rainy.device)(refined),
            teacher=self.teacher,
            bank=bank[0] if bank else None,
        )
        # mmengine descends what has 'loss' in its name, and logs the rest.
        return {"loss": step.loss, **named_losses(step)}

    def train_step(self, data: Mapping[str, Any], optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One step through `training.distiller`; a step whose numbers went wrong is left out.

        Returns:
            The losses, and how much rain the rain layers held.
        """
        return self.distil(self, data, optim_wrapper)

    def distil(self, through: nn.Module, data: Mapping[str, Any], optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """`train_step`, forward through the wrapper that this model is in (which calls ``forward``), or itself."""
        weights = self._weights()
        prepared = self.data_preprocessor(data, training=True)
        images: Images = prepared["inputs"]
        if self._distiller is None:
            network = self.network if through is self else through
            self._distiller = Distiller(
                network, self.network, self.criterion, self.options, self.skips, _warn, self.seed
            )
            self._distiller.load_state_dict(self._distiller_state)
        distiller, accumulates = self._distiller, optim_wrapper._accumulative_counts > 1
        if accumulates and (self.options.accumulation > 1 or distiller.scaler.is_enabled()):
            raise OptionError(
                "optim_wrapper.accumulative_counts: gathers gradients over batches, which cannot be combined with "
                "model.accumulation or precision='float16'"
            )
        # An AmpOptimWrapper scales losses itself, and leaves out what overflows.
        scales = hasattr(optim_wrapper, "loss_scaler")
        if self.options.grad_clip is not None and (scales or accumulates):
            raise OptionError("model.grad_clip: not with an AmpOptimWrapper or accumulative_counts; take its clip_grad")
        if self.options.distillation.adversarial.weight and (scales or accumulates):
            raise OptionError(
                "model.distillation.adversarial: not with an AmpOptimWrapper or accumulative_counts; take "
                "model.precision or model.accumulation"
            )
        with optim_wrapper.optim_context(through):
            step = distiller.gradients(
                images,
                weights,
                self.iteration,
                self.seed,
                self.teacher,
                keep=accumulates,
                backward=(lambda loss: optim_wrapper.backward(optim_wrapper.scale_loss(loss)))
                if accumulates or scales
                else None,
            )
        self.last = step
        paths = prepared["data_samples"]
        if scales:
            self.stepped = self._step_by(optim_wrapper, step, images, paths)
        else:
            self.stepped = distiller.may_step(step, images, self.iteration, paths, optim_wrapper)
            if self.stepped and distiller.scaler.is_enabled():
                distiller.scaler.step(optim_wrapper)
                distiller.scaler.update()
            elif self.stepped and optim_wrapper.should_update():
                optim_wrapper.step()
                if accumulates:
                    optim_wrapper.zero_grad()
        return {"loss": step.loss, **named_losses(step)}

    def _step_by(self, optim_wrapper: Any, step: DistillationStep, images: Images, paths: Mapping[str, Any]) -> bool:
        """Step by a wrapper that scales losses itself and leaves out what overflows, and count what no scale mends."""
        distiller, scale = self._distiller, optim_wrapper.loss_scaler.get_scale()
        assert distiller is not None
        finite_loss, finite_gradients = distiller.finite(step)
        if finite_loss and optim_wrapper.should_update():
            optim_wrapper.step()  # which lowers the scale where it must, if it is no fixed one
            if optim_wrapper._accumulative_counts > 1:
                optim_wrapper.zero_grad()
        searches = scale > 1 and getattr(optim_wrapper, "_scale_update_param", None) is None
        if not finite_loss or not (finite_gradients or searches):
            distiller.skip(step, images, self.iteration, paths)
        return finite_loss and finite_gradients

    @property
    def teacher(self) -> nn.Module | None:
        """The running mean of the network, for refinements of the method that need one."""
        return self._taught_by[0] if self._taught_by else None

    @teacher.setter
    def teacher(self, network: nn.Module) -> None:
        self._taught_by = [network.eval()]

    def _weights(self) -> StepWeights:
        if self.weights is None:
            raise OptionError(
                "nobody tells the model the iteration: add dict(type='ScheduleHook') to custom_hooks of the config"
            )
        return self.weights

    @torch.no_grad()
    def _predict(self, rainy: Tensor, samples: Sequence[BaseDataElement]) -> list[BaseDataElement]:
        derained = derain_tiled(self.network, rainy, needs_of(self.network), tile=self.tile, tell=_warn)
        for sample, before, after in zip(samples, rainy, derained, strict=True):
            sample.rainy, sample.derained = before, after
        return list(samples)

    def more_state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the network and the optimiser; BasicSR's model has the same."""
        own = self._distiller_state if self._distiller is None else self._distiller.state_dict()
        return {"skipped": self.skips.count, "scaler": {}, **own}

    def set_more_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `more_state` gave."""
        self.skips.count = int(state.get("skipped", 0))
        self._distiller_state = {name: state[name] for name in ("scaler", "adversary") if name in state}

    def prefixes(self) -> dict[str, str]:
        """What this model's state dict puts before the names of each part that checkpoints keep apart."""
        names = {module: name.replace("_fsdp_wrapped_module.", "") for name, module in self.named_modules()}
        return {ending: names[part] + "." for ending, part in checkpoint_parts(self.network).items()}

    def parts_of(self, state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The network's weights in a state dict of this model, by the parts that checkpoints keep apart."""
        return {
            ending: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            for ending, prefix in self.prefixes().items()
        }


class DistributedDistillation(MMDistributedDataParallel):
    """`DistillationModel` in several processes, on GPUs or CPUs: each stage goes through DDP, as with BasicSR.

    In a config: ``model_wrapper_cfg = dict(type='rainoerme_plugin.DistributedDistillation')``.
    """

    def __init__(self, module: DistillationModel, device_ids: list[int] | None = None, **options: Any) -> None:
        # mmengine numbers devices whatever they are, and DDP wants none on CPUs.
        on_gpu = next(module.parameters()).device.type == "cuda"
        super().__init__(module=module, device_ids=device_ids if on_gpu else None, **options)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        model: DistillationModel = self.module
        return model.distil(self, data, optim_wrapper)


def _build_loss(loss: dict[str, Any]) -> nn.Module:
    """Of mmengine's registries (ours, or ``SCOPE.NAME``), else of BasicSR's."""
    if "." in loss["type"] or loss["type"] in MODELS.module_dict:
        built: nn.Module = MODELS.build(loss)
        return built
    from basicsr.losses import build_loss

    from ..plugin import register

    register()
    stock: nn.Module = build_loss(dict(loss))
    return stock


def _warn(message: str) -> None:
    MMLogger.get_current_instance().warning(message)
