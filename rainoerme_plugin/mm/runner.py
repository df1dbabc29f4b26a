"""mmengine's Runner, on CPUs too where several processes train, and going on from checkpoints of both engines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.runner import Runner

from ..errors import RainOerMeError, WeightsError, described
from ..files import put_in_place, sync, temporary_beside
from ..processes import gather, join_processes, rank_and_world
from ..training.checkpoints import open_checkpoint
from ..training.random_states import random_states
from .checkpoints import as_mmengine
from .hooks import model_of


class DistillationRunner(Runner):
    """mmengine's ``Runner``, with gloo where processes train on CPUs, and going on from checkpoints of both engines.

    In a config: ``runner_type = 'rainoerme_plugin.DistillationRunner'``. ``Runner`` does on one device and on GPUs.

    Processes that torchrun started join by gloo where there is no GPU, which mmengine's own way does not, and find each
    other when torchrun starts them again. ``load_from`` and ``resume`` take a ``.state`` file of BasicSR's engine.
    """

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        if self.launcher in ("pytorch", "slurm") and not is_distributed():
            asked = env_cfg.get("dist_cfg") or {}
            patience = timedelta(seconds=asked.get("timeout", 1800))
            _, _, local_rank = join_processes(self.launcher, get_device(), asked.get("port"), patience)
            if get_device() == "cuda":
                torch.cuda.set_device(local_rank)
        super().setup_env(env_cfg)

    def save_checkpoint(self, out_dir: str, filename: str, *arguments: Any, **options: Any) -> None:
        """As ``Runner``, but a file is written whole or not at all.

        Hooks call it in all processes: the first writes, and asks the others for their generators.
        """
        self.random_states = gather(random_states(next(self.model.parameters()).device))
        whole = Path(out_dir) / filename
        if not whole.parent.is_dir():  # somewhere that mmengine's file clients know
            super().save_checkpoint(out_dir, filename, *arguments, **options)
            return
        partial = temporary_beside(whole)
        super().save_checkpoint(out_dir, partial.name, *arguments, **options)
        if rank_and_world()[0] == 0:
            put_in_place(partial, whole)
            sync(whole.parent)

    def resume(self, filename: str, *arguments: Any, **options: Any) -> None:
        """Go on from a checkpoint.

        Raises:
            WeightsError: It is not whole, or another model's.
        """
        try:
            super().resume(filename, *arguments, **options)
        except RainOerMeError:
            raise
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"{filename} does not fit this model: {described(error)}") from None

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable[..., Any] = "cpu",
        strict: bool = False,
        revise_keys: list[tuple[str, str]] = [(r"^module.", "")],  # noqa: B006 - mmengine's own
    ) -> dict[str, Any]:
        strict = strict or self._resume  # who goes on with half a network begins anew without knowing it
        if not str(filename).endswith(".state"):
            found: dict[str, Any] = super().load_checkpoint(filename, map_location, strict, revise_keys)
            return found
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "converted.pth"
            torch.save(as_mmengine(open_checkpoint(Path(filename)), model_of(self)), file)
            converted: dict[str, Any] = super().load_checkpoint(str(file), map_location, strict, revise_keys)
            return converted
