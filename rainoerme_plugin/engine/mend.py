"""Mends what BasicSR 1.4.2's models do wrong outside of the one case they were written for (CUDA, a single run).

Applied by the plugin's own commands only: a model that runs under BasicSR's own loop is left as it is.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data.images import write_whole
from ..errors import RainOerMeError


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
    BaseModel.save_network = _save_network
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


def _save_network(
    self: Any, net: Any, net_label: str, current_iter: int, param_key: str | list[str] = "params"
) -> None:
    if self.opt["rank"] != 0:
        return
    networks = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    saved = {
        key: {name: value.cpu() for name, value in self.get_bare_model(network).state_dict().items()}
        for key, network in zip(keys, networks, strict=True)
    }
    name = "latest" if current_iter == -1 else current_iter
    save_whole(saved, Path(self.opt["path"]["models"]) / f"{net_label}_{name}.pth")


def _save_training_state(self: Any, epoch: int, current_iter: int) -> None:
    if current_iter == -1 or self.opt["rank"] != 0:
        return
    state = {
        "epoch": epoch,
        "iter": current_iter,
        "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
    }
    save_whole(state, Path(self.opt["path"]["training_states"]) / f"{current_iter}.state")


def _print_network(self: Any, net: nn.Module) -> None:
    from basicsr.utils import get_root_logger

    bare = self.get_bare_model(net)
    parameters = sum(parameter.numel() for parameter in bare.parameters())
    get_root_logger().info(f"Network {type(bare).__name__}, {parameters:,} parameters")
    get_root_logger().info(str(bare), extra={"only_file": True})


def save_whole(value: Any, path: Path) -> None:
    """``torch.save`` that leaves the old file or the new one, never a part.

    Raises:
        RainOerMeError: The file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise RainOerMeError(
            f"cannot save {path}: {os.strerror(error.errno or 0)}; mend that and run again with --auto_resume"
        ) from None
