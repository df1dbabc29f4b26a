"""Mends what BasicSR 1.4.2's models do wrong outside of the one case they were written for (CUDA, a single run).

Applied by the plugin's own commands only: a model that runs under BasicSR's own loop is left as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import counted
from ..weights import save_checkpoint


def mend_basicsr() -> None:
    """Replace methods of BasicSR's ``BaseModel``; once is enough, more does no harm.

    - The device is the one that ``opt['device']`` names, not CUDA whenever ``num_gpu`` is not 0.
    - DDP works with gloo on the CPU.
    - Any optimiser of ``torch.optim``, not Adam alone.
    - Checkpoints are written whole or not at all, and a failure is an error, not a line in the log.
    - The log says how large a network is, and its layers only in the file.
    - Checkpoints load without running code, strictly or with a report; EMA weights fall back on the plain ones.
    """
    from basicsr.models.base_model import BaseModel

    from ..models.distillation_model import DistillationModel

    if getattr(BaseModel, "_mended", False):
        return
    stock_init = BaseModel.__init__

    def init(self: Any, opt: dict[str, Any]) -> None:
        stock_init(self, opt)
        if "device" in opt:
            self.device = torch.device(opt["device"])

    BaseModel.__init__ = init
    BaseModel.model_to_device = _model_to_device
    BaseModel.get_optimizer = _get_optimizer
    BaseModel.save_network = DistillationModel.save_network
    BaseModel.save_training_state = _save_training_state
    BaseModel.load_network = DistillationModel.load_network
    BaseModel.print_network = _print_network
    BaseModel._mended = True


def _model_to_device(self: Any, net: nn.Module) -> nn.Module:
    net = net.to(self.device)
    if not self.opt["dist"]:
        return net
    unused = self.opt.get("find_unused_parameters", False)
    devices = [self.device] if self.device.type == "cuda" else None
    return DistributedDataParallel(net, device_ids=devices, find_unused_parameters=unused)


def _get_optimizer(self: Any, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
    return getattr(torch.optim, optim_type)(params, lr=lr, **kwargs)


def _save_training_state(self: Any, epoch: int, current_iter: int) -> None:
    if current_iter == -1 or self.opt["rank"] != 0:
        return
    saved: dict[str, str] = getattr(self, "saved", {})
    state = {
        "epoch": epoch,
        "iter": current_iter,
        "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
        "networks": {name: digest for name, digest in saved.items() if name.endswith(f"_{current_iter}.pth")},
        # What the engine adds: random states, position, options.
        **(self.more_to_save() if hasattr(self, "more_to_save") else {}),
    }
    self.saved = {}
    save_checkpoint(state, Path(self.opt["path"]["training_states"]) / f"{current_iter}.state")


def _print_network(self: Any, net: nn.Module) -> None:
    from basicsr.utils import get_root_logger

    bare = self.get_bare_model(net)
    parameters = sum(parameter.numel() for parameter in bare.parameters())
    get_root_logger().info(f"Network {type(bare).__name__}, {counted(parameters, 'parameter')}")
    get_root_logger().info(str(bare), extra={"only_file": True})
