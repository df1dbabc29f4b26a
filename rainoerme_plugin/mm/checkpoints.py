"""mmengine's checkpoints, made such that they load safely, here and with BasicSR's engine, and derain as they are.

Beside what mmengine saves, one holds the network as BasicSR's checkpoints do (``params``, ``params_ema`` and further
parts; the tensors are the same, and are stored once), the number of skipped steps, what else decides about digits
(`training.environment`), and the states of the random generators of all processes (of the first one, where mmengine's
own runners save). Only tensors and plain types are in it: PyTorch loads it with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from torch import Tensor

from ..checkpoint_files import read_checkpoint
from ..processes import first_decides, rank_and_world
from ..training.checkpoints import Checkpoint
from ..training.environment import changed_environment, environment
from ..training.random_states import random_states, set_random_states
from ..weights import checkpoint_of, find_state_dict, save_checkpoint
from .hooks import model_of
from .model import DistillationModel

EMA = "module."
"""What mmengine's averaged models put before names."""


class SafeCheckpointHook(Hook):
    """Makes checkpoints that load safely, resume with BasicSR's engine too, and derain as they are.

    Args:
        options: Of the option file that the run was begun with, if it was.
        went_back: How often it has gone back from a collapse.
        warmup: How long the warm-up is since then.
        network_every: Save the network alone every so many iterations and at the end, too, as ``network_N.pth``: where
            checkpoints are folders that only DeepSpeed reads. 0: never.
    """

    # After EMAHook has put the running mean in the place of the weights.
    priority = "VERY_LOW"

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        went_back: int = 0,
        warmup: int | None = None,
        network_every: int = 0,
    ) -> None:
        self._options, self._network_every = options, network_every
        self._went_back, self._warmup = went_back, warmup

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save the network alone, and what a run that was asked to end has come to."""
        every = self._network_every
        if every and (self.every_n_train_iters(runner, every) or self.is_last_train_iter(runner)):
            self._save_network(runner)
        if not getattr(runner.train_loop, "stopping", False):
            return
        name = f"iter_{runner.iter + 1}.pth"
        runner.save_checkpoint(runner.work_dir, name, by_epoch=False)
        if rank_and_world()[0] == 0:
            file = Path(runner.work_dir) / name
            (file.parent / "last_checkpoint").write_text(str(file))  # where mmengine looks for it
            runner.logger.info(f"stopping: saved {file}; resume goes on from there")
        # As soon as one has ended, torchrun stops the others: all wait until the first has saved.
        first_decides(lambda: None)

    @staticmethod
    def _save_network(runner: Any) -> None:
        network = model_of(runner).network
        shared_out = any(hasattr(parameter, "ds_id") for parameter in network.parameters())  # ZeRO's third stage
        if rank_and_world()[0] == 0 and not shared_out:
            save_checkpoint(checkpoint_of(network, "params"), Path(runner.work_dir) / f"network_{runner.iter + 1}.pth")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        hub = checkpoint["message_hub"]
        # (NumPy's float64 is a float to isinstance.)
        plain = {name: value for name, value in hub["runtime_info"].items() if type(value) in (int, float, str, bool)}
        # Its buffers of past losses are objects, which nothing safe loads; the log has the losses.
        checkpoint["message_hub"] = {
            "log_scalars": {},
            "runtime_info": plain,
            "resumed_keys": {name: True for name in plain if hub["resumed_keys"].get(name)},
        }
        model = model_of(runner)
        checkpoint["distillation"] = model.more_state()
        # mmengine's own runners save in the first process, and ask no other.
        checkpoint["random"] = getattr(runner, "random_states", None) or [
            random_states(next(model.parameters()).device)
        ]
        checkpoint["environment"] = environment(next(model.parameters()).device)
        checkpoint.update(went_back=self._went_back, warmup=self._warmup)
        if self._options is not None:
            checkpoint["options"] = dict(self._options)
        averaged = checkpoint.get("ema_state_dict")
        states = {"params": checkpoint["state_dict"]}
        if averaged is not None:
            # EMAHook has exchanged them.
            plain_state = {name.removeprefix(EMA): value for name, value in averaged.items() if name.startswith(EMA)}
            states = {"params": plain_state, "params_ema": checkpoint["state_dict"]}
        for key, state in states.items():
            for ending, part in model.parts_of(state).items():
                checkpoint[key + ending] = part

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if not getattr(runner, "_resume", False):
            return
        if not any(isinstance(hook, EMAHook) for hook in runner.hooks):
            # Nobody goes on with the running mean, so nobody puts the weights back in its place.
            for name, value in checkpoint.get("ema_state_dict", {}).items():
                if name.startswith(EMA):
                    checkpoint["state_dict"][name.removeprefix(EMA)] = value
        model = model_of(runner)
        model.set_more_state(checkpoint.get("distillation") or {})
        now = environment(next(model.parameters()).device)
        if told := changed_environment(checkpoint.get("environment") or {}, now):
            runner.logger.warning(told)
        states = checkpoint.get("random") or []
        if len(states) == rank_and_world()[1]:
            set_random_states(states[rank_and_world()[0]], next(model.parameters()).device)


def as_mmengine(checkpoint: Checkpoint, model: DistillationModel) -> dict[str, Any]:
    """A checkpoint of BasicSR's engine as mmengine's runners resume it.

    Raises:
        WeightsError: It holds no weights of this network.
    """
    state, file = checkpoint.state, checkpoint.network("net_g")
    saved = read_checkpoint(file)

    def whole(key: str) -> dict[str, Tensor]:
        main, where = find_state_dict(saved, file, key)
        parts = {"": main, **{ending: saved.get(where + ending) or {} for ending in model.prefixes() if ending}}
        before = model.prefixes()
        return {before[ending] + name: value for ending, part in parts.items() for name, value in part.items()}

    own = dict(state.get("model") or {})
    found: dict[str, Any] = {
        "meta": {"epoch": 0, "iter": checkpoint.iteration},
        "message_hub": {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}},
        "state_dict": whole("params"),
        "optimizer": state["optimizers"][0],
        "param_schedulers": state["schedulers"],
        "distillation": own,
        "collapse_guard": own.pop("guard", None),
        "random": state.get("random") or [],
        "environment": state.get("environment") or {},
        "best_network": state.get("best_network") or {},
    }
    if "params_ema" in saved:
        averaged = {EMA + name: value for name, value in found["state_dict"].items()}
        found["ema_state_dict"] = {"steps": torch.tensor(checkpoint.iteration), **averaged}
        found["state_dict"] = whole("params_ema")
    return found
