"""BasicSR's model for two-stage distillation: options in, steps of the method, figures and pictures out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from torch import nn

from ..archs.adapt import place
from ..archs.catalogue import needs_of
from ..data.panels import stages_of
from ..data.unpaired import images_of
from ..distillation.collapse import CollapseGuard
from ..distillation.ema import move_mean, ramped_decay
from ..distillation.graphs import Images
from ..options import DistillationTrainOptions, Section, check_refinements, read_section
from ..processes import mean_of_processes
from ..registered.lr_scheduler import build_schedule
from ..training.checks import check_criterion, check_trainable, try_crop
from ..training.distiller import Distiller, backbone_of, named_losses
from ..training.optimisers import optimiser_settings, parameter_groups
from ..training.skips import Skips
from ..weights import checkpoint_of, load_weights, save_networks
from .validation import DerainingModel


class DistillationModel(DerainingModel):
    """Two-stage data distillation: one network learns from soft labels and from its own rain on clean images."""

    TrainOptions: ClassVar[type[Section]] = DistillationTrainOptions

    # --- training ---

    def init_training_settings(self) -> None:
        self.options = options = self._train_options(self.opt)
        bare = self.get_bare_model(self.net_g)
        self.check_network(bare, self.opt)
        self.net_g.train()
        self.schedule = options.distillation.build()
        check_refinements(options)
        guard = options.collapse_guard
        self.guard = CollapseGuard(guard.interval, guard.patience, guard.hard_loss) if guard.enabled else None
        warn = get_root_logger().warning
        self.skips = Skips(
            options.nonfinite_limit, Path(self.opt["path"].get("experiments_root", "")) / "nonfinite", warn
        )
        if (self.opt.get("datasets") or {}).get("train", {}).get("late_crop_size") and "asked" not in self.opt:
            warn("datasets.train.late_crop_size: needs basicsr train; in BasicSR's own loop all crops are of crop_size")
        criterion = build_loss(options.loss_opt)
        check_criterion(criterion, options)
        self.criterion = criterion.to(self.device)
        self.ema_decay = options.ema_decay
        if self.ema_decay > 0:
            self.net_g_ema = deepcopy(bare)
            path = self.opt["path"].get("pretrain_network_g")
            if path is not None:
                self.load_network(self.net_g_ema, path, self.opt["path"].get("strict_load_g", True), "params_ema")
            self.net_g_ema.eval()
        self.setup_optimizers()
        self.setup_schedulers()
        seed = int(self.opt.get("manual_seed") or 0)
        self.distiller = Distiller(self.net_g, bare, self.criterion, options, self.skips, warn, seed)

    @staticmethod
    def _train_options(opt: Mapping[str, Any]) -> DistillationTrainOptions:
        return read_section(DistillationTrainOptions, opt["train"], "train")

    @classmethod
    def check_network(cls, network: nn.Module, opt: Mapping[str, Any]) -> None:
        """See whether ``network`` can be trained with these options, on crops of their size.

        Raises:
            OptionError: It cannot.
        """
        data = (opt.get("datasets") or {}).get("train", {})
        check_trainable(network, opt["network_g"]["type"], cls._train_options(opt), data.get("batch_size_per_gpu"))
        for key in ("crop_size", "late_crop_size"):
            if data.get(key) is not None:
                try_crop(network, int(data[key]))

    def setup_optimizers(self) -> None:
        options, network = self.opt["train"]["optim_g"], self.get_bare_model(self.net_g)
        settings = optimiser_settings(options, self.device.type)
        groups = parameter_groups(network, settings["lr"], self.options.backbone)
        self.optimizer_g = self.get_optimizer(options["type"], groups, **settings)
        self.optimizers.append(self.optimizer_g)

    def setup_schedulers(self) -> None:
        train = self.options
        self.schedulers.extend(build_schedule(each, train.scheduler, train.total_iter) for each in self.optimizers)

    def feed_data(self, data: dict[str, Any]) -> None:
        if "rainy" not in data:
            super().feed_data(data)
            return
        self.images: Images = tuple(image.to(self.device, non_blocking=True) for image in images_of(data))
        self._paths = {key: list(data.get(key, ())) for key in ("rainy_path", "clean_path")}

    def optimize_parameters(self, current_iter: int) -> None:
        seed = int(self.opt.get("manual_seed") or 0)
        weights = self.schedule.at(current_iter, seed=seed)
        distiller, scaler = self.distiller, self.distiller.scaler
        teacher = getattr(self, "net_g_ema", None)
        self._step = step = distiller.gradients(self.images, weights, current_iter, seed, teacher)
        if not distiller.may_step(step, self.images, current_iter, self._paths, self.optimizer_g):
            return
        scaler.step(self.optimizer_g)
        scaler.update()
        if self.ema_decay > 0:
            self.model_ema(ramped_decay(self.ema_decay, current_iter))
        if self.guard is not None and weights.hard > 0:
            self.guard.check(step, current_iter, mean_of_processes)

    def more_state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides networks, optimisers and schedulers."""
        guard = None if self.guard is None else self.guard.state_dict()
        return {"skipped": self.skips.count, "guard": guard, **self.distiller.state_dict()}

    def set_more_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `more_state` gave."""
        self.skips.count = int(state.get("skipped", 0))
        self.distiller.load_state_dict(state)
        if self.guard is not None and state.get("guard") is not None:
            self.guard.load_state_dict(state["guard"])

    def get_current_log(self) -> OrderedDict[str, float]:
        """Losses of the last step (averaged over processes), and how much rain its rain layers held."""
        self._shown = stages_of(self._step)
        self.log_dict = self.reduce_loss_dict(OrderedDict(named_losses(self._step)))
        return self.log_dict

    # --- what BasicSR does less well ---

    def model_to_device(self, net: nn.Module) -> nn.Module:
        place(net, needs_of(net))
        if self.is_train:
            options = self._train_options(self.opt)
            if (found := backbone_of(net, options.backbone)) and found[1].lr_factor == 0:
                found[0].requires_grad_(False)
            self.opt.setdefault("find_unused_parameters", options.distillation.spares_detail)
        return super().model_to_device(net)

    def model_ema(self, decay: float = 0.999) -> None:
        """`move_mean` of the weights."""
        move_mean(self.net_g_ema, self.get_bare_model(self.net_g), decay)

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load a published or saved checkpoint whole, or say which weights do not fit (`load_weights`)."""
        bare = self.get_bare_model(net)
        loaded, total, fresh = load_weights(bare, load_path, param_key, strict=strict, option="path.param_key_g:")
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
        self.saved = {**getattr(self, "saved", {}), file.name: save_networks(saved, file, main=keys[-1])}
