"""The best checkpoint and the early stop of BasicSR's engine, for mmengine's runners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ..options import read_section
from ..training.best import BestCheckpoint, BestRule
from .hooks import networks_of


class BestCheckpointHook(Hook):
    """Keeps the network of the best validation in ``models/net_g_best.pth``, and ends a run that gets no better.

    Args:
        rule: `BestRule`: the figure ``DATASET/METRIC`` of the evaluators (DATASET is their prefix), ``better``,
            ``patience``, ``min_delta``.
    """

    # After EMAHook has put the weights back in the place of their mean.
    priority = "VERY_LOW"

    def __init__(self, **rule: Any) -> None:
        self._rule = read_section(BestRule, rule, "BestCheckpointHook")
        self._best: BestCheckpoint

    def before_run(self, runner: Any) -> None:
        self._best = BestCheckpoint(self._rule, Path(runner.work_dir) / "models", runner.logger.info)

    def before_train(self, runner: Any) -> None:
        self._best.settle()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Judge the data set that has been gone through, if it is the one."""
        figure = (metrics or {}).get(f"{self._rule.dataset}/{self._rule.metric}")
        if figure is None:
            return
        self._best.judge(runner.iter, {self._rule.metric: figure}, networks_of(runner))
        if self._best.ends_run:
            runner.train_loop.stop_training = True

    def after_train(self, runner: Any) -> None:
        for line in self._best.told_at_end(early=runner.iter < runner.max_iters):
            runner.logger.info(line)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["best_network"] = self._best.state_dict()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if getattr(runner, "_resume", False):
            self._best.load_state_dict(checkpoint.get("best_network") or {})
