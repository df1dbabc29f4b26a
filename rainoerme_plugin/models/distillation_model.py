"""BasicSR's model for two-stage distillation: options in, steps of the method, figures and pictures out."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from ..archs.adapt import is_out_of_memory
from ..archs.distillation_net import DistillationNet
from ..data.panels import show_rain
from ..distillation.collapse import CollapseGuard
from ..distillation.finite import all_finite, first_nonfinite
from ..distillation.graphs import GraphedGradients, Images
from ..distillation.refinements import PAPER, OnDevice, StepRefinements
from ..distillation.schedule import StepWeights
from ..distillation.step import DistillationStep, distillation_gradients
from ..errors import OptionError, RainOerMeError, described, one_line
from ..options import BackboneOptions, DistillationTrainOptions, Section, check_refinements, read_section
from ..weights import checkpoint_of, load_weights, save_checkpoint, save_safetensors
from .lr_scheduler import LinearDecayLR
from .skips import Skips
from .validation import PANEL_ROWS, DerainingModel

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
FUSED = ("Adam", "AdamW", "SGD")
"""Optimisers that PyTorch has as one kernel, on CPU and CUDA."""


class DistillationModel(DerainingModel):
    """Two-stage data distillation: one network learns from soft labels and from its own rain on clean images."""

    TrainOptions: ClassVar[type[Section]] = DistillationTrainOptions

    # --- training ---

    def init_training_settings(self) -> None:
        self.options = options = self._train_options(self.opt)
        self.check_network(self.get_bare_model(self.net_g), self.opt)
        self.net_g.train()
        self.schedule = options.distillation.build()
        self.refinements = check_refinements(options)
        self._refined: StepRefinements = PAPER
        self._on_device = OnDevice(self.device)
        guard = options.collapse_guard
        self.guard = CollapseGuard(guard.interval, guard.patience, guard.hard_loss) if guard.enabled else None
        self.skips = Skips(options.nonfinite_limit, Path(self.opt["path"].get("experiments_root", "")) / "nonfinite")
        self.criterion = build_loss(options.loss_opt).to(self.device)
        if self.refinements.confidence and "weight" not in inspect.signature(self.criterion.forward).parameters:
            raise OptionError(
                f"train.distillation.confidence: {options.loss_opt['type']} takes no weights; SSIMLoss and SumLoss do"
            )
        self.ema_decay = options.ema_decay
        if self.ema_decay > 0:
            self.net_g_ema = deepcopy(self.get_bare_model(self.net_g))
            path = self.opt["path"].get("pretrain_network_g")
            if path is not None:
                self.load_network(self.net_g_ema, path, self.opt["path"].get("strict_load_g", True), "params_ema")
            self.net_g_ema.eval()
        self.setup_optimizers()
        self.setup_schedulers()
        self._setup_computation(options)

    def _setup_computation(self, options: DistillationTrainOptions) -> None:
        """How steps are computed; anything but the plain way is given up for it, with a message, where it fails."""
        self._precision = PRECISIONS[options.precision]
        # Small gradients are nothing in float16; they are computed of a loss times a large factor.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "float16")  # type: ignore[attr-defined]
        self._accumulation = options.accumulation
        self._network: nn.Module = self.net_g
        self._compiled = options.compile
        if options.compile:
            self._network = torch.compile(self.net_g, dynamic=False)  # type: ignore[assignment]
        self._graphs: GraphedGradients | None = None
        if options.cuda_graphs:
            hindrances = {
                "it needs a CUDA GPU": self.device.type != "cuda",
                "not for several processes": self.opt["dist"],
                "not with train.precision: float16": options.precision == "float16",
            }
            if any(hindrances.values()):
                first = next(text for text, is_there in hindrances.items() if is_there)
                get_root_logger().warning(f"train.cuda_graphs: {first}; training goes on without")
            else:
                self._graphs = GraphedGradients(self._compute, self.get_bare_model(self.net_g).parameters())

    @staticmethod
    def _train_options(opt: Mapping[str, Any]) -> DistillationTrainOptions:
        return read_section(DistillationTrainOptions, opt["train"], "train")

    @classmethod
    def check_network(cls, network: nn.Module, opt: Mapping[str, Any]) -> None:
        """See whether ``network`` can be trained with these options.

        Raises:
            OptionError: It gives no rain layers, has no backbone to treat as ``train.backbone`` says, or the batch
                cannot be split as ``train.accumulation`` says.
        """
        if "layers" not in inspect.signature(network.forward).parameters:
            kind = opt["network_g"]["type"]
            raise OptionError(
                f"network_g: {kind} has no detail enhancement block; to train it, write "
                f"{{type: DistillationNet, backbone: {{type: {kind}, ...}}}}"
            )
        cls._backbone(network, opt)
        parts = cls._train_options(opt).accumulation
        batch = (opt.get("datasets") or {}).get("train", {}).get("batch_size_per_gpu", parts)
        if batch % parts:
            raise OptionError(f"train.accumulation: a batch of {batch} cannot be split into {parts} equal parts")
        crop_size = (opt.get("datasets") or {}).get("train", {}).get("crop_size")
        if crop_size is not None:
            cls._try_crop(network, int(crop_size))

    @staticmethod
    @torch.no_grad()
    def _try_crop(network: nn.Module, crop_size: int) -> None:
        training, device = network.training, next(network.parameters()).device
        network.eval()
        try:
            network(torch.zeros(1, 3, crop_size, crop_size, device=device), layers=True)
        except RainOerMeError:
            raise
        except Exception as error:  # of any package's network
            if is_out_of_memory(error):
                raise
            raise OptionError(
                f"network_g does not take crops of {crop_size}x{crop_size}: {described(error)}"
            ) from error
        network.train(training)

    @classmethod
    def _backbone(cls, network: nn.Module, opt: Mapping[str, Any]) -> tuple[nn.Module, BackboneOptions] | None:
        """The network's backbone and how to train it, if the options say that."""
        options = cls._train_options(opt).backbone
        if options is None:
            return None
        if not isinstance(network, DistillationNet):
            raise OptionError("train.backbone: only a DistillationNet has one; network_g is none")
        return network.backbone, options

    def setup_optimizers(self) -> None:
        settings = {key: value for key, value in self.opt["train"]["optim_g"].items() if key != "type"}
        kind = self.opt["train"]["optim_g"]["type"]
        if kind in FUSED and "foreach" not in settings and self.device.type in ("cpu", "cuda"):
            settings.setdefault("fused", True)
        network = self.get_bare_model(self.net_g)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained}]
        self._frozen: tuple[nn.Module, float] | None = None
        if found := self._backbone(network, self.opt):
            backbone, options = found
            self._frozen = backbone, inf if options.lr_factor == 0 else options.freeze_iter
            theirs = {id(parameter) for parameter in backbone.parameters()}
            split = ([p for p in trained if id(p) not in theirs], [p for p in trained if id(p) in theirs])
            rates = (settings["lr"], settings["lr"] * options.lr_factor)
            groups = [{"params": part, "lr": rate} for part, rate in zip(split, rates, strict=True) if part]
        self.optimizer_g = self.get_optimizer(kind, groups, **settings)
        self.optimizers.append(self.optimizer_g)

    def setup_schedulers(self) -> None:
        scheduler = self.opt["train"]["scheduler"]
        if scheduler["type"] != "LinearDecayLR":
            super().setup_schedulers()
            return
        arguments = {key: value for key, value in scheduler.items() if key != "type"}
        self.schedulers.extend(LinearDecayLR(optimizer, **arguments) for optimizer in self.optimizers)

    def feed_data(self, data: dict[str, Any]) -> None:
        if "rainy" not in data:
            super().feed_data({**data, "lq": data["lq"].contiguous(memory_format=torch.channels_last)})
            return
        rainy, label, clean = (data[key].to(self.device, non_blocking=True) for key in ("rainy", "label", "clean"))
        self.images: Images = rainy, label, clean
        self._paths = {key: list(data.get(key, ())) for key in ("rainy_path", "clean_path")}

    def optimize_parameters(self, current_iter: int) -> None:
        frozen = self._frozen is not None and current_iter <= self._frozen[1]
        if self._frozen is not None:
            self._frozen[0].train(not frozen)
        seed = int(self.opt.get("manual_seed") or 0)
        weights = self.schedule.at(current_iter, seed=seed)
        batch, own_seed = len(self.images[0]), seed + 1_000_003 * self.opt["rank"]  # each process has its own rain
        self._refined = self._on_device(self.refinements.at(current_iter, batch, own_seed, self._accumulation))
        step = self._gradients(weights, frozen)
        if self._frozen is not None and frozen:
            # Gradients are dropped, not switched off: DDP wants the same parameters in every iteration.
            self._frozen[0].zero_grad(set_to_none=True)
        self._step = step
        self.scaler.unscale_(self.optimizer_g)
        finite_loss, finite_gradients = self._finite(step)
        if finite_loss and not finite_gradients and self.scaler.is_enabled():
            self.scaler.update()  # the factor was too large, which is how it is found; the step is done without
            return
        if not (finite_loss and finite_gradients):
            self._skip(step, current_iter)
            return
        self.scaler.step(self.optimizer_g)
        self.scaler.update()
        if self.ema_decay > 0:
            # A short memory at first, or the mean would be full of the untrained network.
            self.model_ema(min(self.ema_decay, (1 + current_iter) / (10 + current_iter)))
        if self.guard is not None and weights.hard > 0:
            self.guard.check(step, current_iter, self._average)

    def _average(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.opt["dist"]:
            dist.all_reduce(value)
            value = value / self.opt["world_size"]
        return value

    # --- numbers that go wrong ---

    def _gradients_by_name(self) -> list[tuple[str, Tensor]]:
        parameters = self.get_bare_model(self.net_g).named_parameters()
        return [(f"gradient of {name}", value.grad) for name, value in parameters if value.grad is not None]

    def _finite(self, step: DistillationStep) -> tuple[bool, bool]:
        """Whether the loss and whether the gradients are numbers, in every process."""
        gradients = [gradient for _, gradient in self._gradients_by_name()]
        finite = torch.stack([all_finite([step.loss]), all_finite(gradients or [step.loss])])
        if self.opt["dist"]:
            dist.all_reduce(finite, dist.ReduceOp.MIN)
        loss, gradient = finite.tolist()
        return bool(loss), bool(gradient)

    def _skip(self, step: DistillationStep, current_iter: int) -> None:
        """Leave everything as it was before a step whose numbers went wrong.

        Raises:
            NonFiniteError: It was one too many.
        """
        named = [("rain layer", step.layer), ("refined rain layer", step.rain)]
        named += [
            ("clean image with rain", step.synthetic),
            ("soft loss", step.soft_loss),
            ("hard loss", step.hard_loss),
        ]
        named += [("loss", step.loss)]
        own = first_nonfinite(named)
        problem = own or first_nonfinite(self._gradients_by_name()) or "the loss of another process is not finite"
        self.optimizer_g.zero_grad(set_to_none=True)
        rainy, label, clean = self.images
        batch = {"rainy": rainy, "label": label, "clean": clean, "rain": step.rain, **self._paths, "problem": problem}
        self.skips.note(current_iter, problem, batch, is_culprit=own is not None or self.opt["rank"] == 0)

    def _gradients(self, weights: StepWeights, frozen: bool) -> DistillationStep:
        if self._graphs is not None:
            try:
                return self._graphs(self.images, weights, state=(frozen, *self._refined.kernels))
            except RuntimeError as error:
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                get_root_logger().warning(
                    f"train.cuda_graphs: the step cannot be captured ({one_line(error)}); training goes on without"
                )
                self._graphs = None
        self.optimizer_g.zero_grad(set_to_none=True)
        return self._compute(self.images, weights, bool(weights.hard > 0))

    def _compute(self, images: Images, weights: StepWeights, two_stages: bool) -> DistillationStep:
        rainy, label, clean = (as_floats(image) for image in images)
        try:
            return distillation_gradients(
                self._network,
                rainy,
                label,
                clean,
                weights,
                self.criterion,
                two_stages,
                refined=self._refined,
                teacher=self.net_g_ema if self._refined.needs_teacher else None,
                parts=self._accumulation,
                precision=self._precision,
                scale=self.scaler.scale,
            )
        except Exception as error:
            if not self._compiled or not _from_compiler(error):
                raise
            get_root_logger().warning(
                f"train.compile: torch.compile fails here ({one_line(error)}); training goes on without"
            )
            self._compiled, self._network = False, self.net_g
            self.optimizer_g.zero_grad(set_to_none=True)
            return self._compute(images, weights, two_stages)

    def more_state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides networks, optimisers and schedulers."""
        guard = None if self.guard is None else self.guard.state_dict()
        return {"skipped": self.skips.count, "guard": guard, "scaler": self.scaler.state_dict()}

    def set_more_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `more_state` gave."""
        self.skips.count = int(state.get("skipped", 0))
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.guard is not None and state.get("guard") is not None:
            self.guard.load_state_dict(state["guard"])

    def get_current_log(self) -> OrderedDict[str, float]:
        """Losses of the last step (averaged over processes), and how much rain its rain layers held."""
        step = self._step
        log = OrderedDict(l_soft=step.soft_loss, l_hard=step.hard_loss, rain_energy=step.rain_energy)
        self._shown = self._training_images(step)
        self.log_dict = self.reduce_loss_dict(log)
        return self.log_dict

    def _training_images(self, step: DistillationStep) -> OrderedDict[str, Tensor]:
        images = {
            "rainy": step.rainy,
            "soft label": step.label,
            "rain layer": show_rain(step.rain),
            "clean + rain": step.synthetic,
            "derained": step.derained,
        }
        return OrderedDict((name, batch[:PANEL_ROWS].detach()) for name, batch in images.items())

    # --- what BasicSR does less well ---

    def model_to_device(self, net: nn.Module) -> nn.Module:
        # A fifth to a third faster on CPU, and what tensor cores want.
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.is_train and (found := self._backbone(net, self.opt)):
            backbone, options = found
            if options.lr_factor == 0:
                backbone.requires_grad_(False)
        return super().model_to_device(net)

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Move the running mean of the weights on; what is not trained (a frozen backbone, statistics) is copied."""
        network = self.get_bare_model(self.net_g)
        trained = [
            (mean, value)
            for mean, value in zip(self.net_g_ema.parameters(), network.parameters(), strict=True)
            if value.requires_grad
        ]
        if trained:
            means, values = map(list, zip(*trained, strict=True))
            torch._foreach_lerp_(means, values, 1 - decay)
        for mean, value in zip(self.net_g_ema.buffers(), network.buffers(), strict=True):
            mean.copy_(value)

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load a published or saved checkpoint whole, or say which weights do not fit (`load_weights`)."""
        bare = self.get_bare_model(net)
        loaded, total, fresh = load_weights(bare, load_path, param_key, strict=strict)
        anew = f"; not in the file, and starting anew: {', '.join(fresh)}" if fresh else ""
        get_root_logger().info(f"Loaded {loaded} of {total} weights of {type(bare).__name__} from {load_path}{anew}.")

    def save_network(self, net: Any, net_label: str, current_iter: int, param_key: str | list[str] = "params") -> None:
        """Save one network, or several under a key each, whole or not at all; the parts of a network apart.

        The last one, which is the running mean if there is one, is saved as safetensors, too.
        """
        if self.opt["rank"] != 0:
            return
        networks = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        saved: dict[str, Any] = {}
        for key, network in zip(keys, networks, strict=True):
            saved.update(checkpoint_of(self.get_bare_model(network), key))
        name = "latest" if current_iter == -1 else current_iter
        file = Path(self.opt["path"]["models"]) / f"{net_label}_{name}.pth"
        save_safetensors(self.get_bare_model(networks[-1]), file.with_suffix(".safetensors"))
        self.saved = {**getattr(self, "saved", {}), file.name: save_checkpoint(saved, file)}


def as_floats(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), uint8 or float, as networks take them: float32 in [0, 1], channels last."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    return images.contiguous(memory_format=torch.channels_last)


def _from_compiler(error: Exception) -> bool:
    """Whether torch.compile itself failed, and not what it compiled."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
