"""An option file of BasicSR's as a config of mmengine's: one file describes a run for both engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.panels import PANEL_ROWS
from ..errors import OptionError
from ..options import DistillationTrainOptions, StepOptions, check_refinements, read_section
from ..registry import SCOPE


def runner_config(opt: Mapping[str, Any], went_back: int = 0) -> dict[str, Any]:
    """The config of a run.

    Args:
        opt: Completed options (`training.opening.complete`).
        went_back: How often the run has gone back from a collapse.

    Raises:
        OptionError: They are for another model than ``DistillationModel``.
    """
    if opt["model_type"] != "DistillationModel":
        raise OptionError(
            f"model_type: --engine mmengine trains a DistillationModel, not {opt['model_type']}; leave --engine out"
        )
    train, path, logger = opt["train"], opt["path"], opt["logger"]
    options = read_section(DistillationTrainOptions, train, "train")
    check_refinements(options)
    return {
        "default_scope": SCOPE,
        "custom_imports": {"imports": [f"{SCOPE}.mm"]},
        "runner_type": f"{SCOPE}.DistillationRunner",
        "work_dir": path["log"],
        "experiment_name": opt["name"],
        "launcher": "pytorch" if opt["dist"] else "none",
        "env_cfg": {"cudnn_benchmark": True},
        "randomness": {"seed": (opt["manual_seed"] or 0) % 2**32, "diff_rank_seed": True},
        "model": {
            "type": "DistillationModel",
            "network": opt["network_g"],
            "loss": options.loss_opt,
            "pretrained": path.get("pretrain_network_g"),
            "param_key": path.get("param_key_g", "params"),
            "strict_load": path.get("strict_load_g", True),
            "tile": (opt.get("val") or {}).get("tile", "auto"),
            **{key: value for key, value in train.items() if key in StepOptions.model_fields},
        },
        "model_wrapper_cfg": {
            "type": f"{SCOPE}.DistributedDistillation",
            "find_unused_parameters": opt.get("find_unused_parameters", options.distillation.spares_detail),
        },
        "optim_wrapper": {"optimizer": options.optim_g, "constructor": "OptionOptimWrapper"},
        "param_scheduler": {
            "type": "OptionSchedule",
            "scheduler": options.scheduler,
            "warmup_iter": options.warmup_iter,
            "by_epoch": False,
        },
        "train_cfg": {
            "type": "EndlessTrainLoop",
            "max_iters": options.total_iter,
            "val_interval": (opt.get("val") or {}).get("val_freq") or options.total_iter,
        },
        "default_hooks": {
            "param_scheduler": {"type": "ParamSchedulerHook", "priority": "LOWEST"},
            "logger": {"type": "LoggerHook", "interval": logger["print_freq"], "log_metric_by_epoch": False},
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": logger["save_checkpoint_freq"],
                "by_epoch": False,
                "max_keep_ckpts": logger.get("keep_checkpoints") or -1,
            },
        },
        "custom_hooks": _hooks(opt, options, went_back),
        "log_processor": {"by_epoch": False, "num_digits": 6},
        "visualizer": {"type": "Visualizer", "vis_backends": _backends(logger)},
        **_data(opt),
    }


def _hooks(opt: Mapping[str, Any], options: DistillationTrainOptions, went_back: int) -> list[dict[str, Any]]:
    val = opt.get("val") or {}
    hooks: list[dict[str, Any]] = [{"type": "ScheduleHook", "seed": opt["manual_seed"], "tell": False}]
    if options.ema_decay > 0:
        hooks.append({"type": "EMAHook", "ema_type": "RampedEMA", "decay": options.ema_decay})
    hooks.append({"type": "CollapseGuardHook", **options.collapse_guard.model_dump()})
    hooks.append(
        {
            "type": "PanelHook",
            "rows": PANEL_ROWS if val.get("panels", True) else 0,
            "save_images": val.get("save_img", False),
            "rounding": val.get("rounding", "round"),
        }
    )
    saved = {"options": opt["asked"], "went_back": went_back}
    hooks.append({"type": "SafeCheckpointHook", **saved, "warmup": options.distillation.warmup if went_back else None})
    return hooks


def _backends(logger: Mapping[str, Any]) -> list[dict[str, Any]]:
    backends: list[dict[str, Any]] = [{"type": "LocalVisBackend"}]
    if logger.get("use_tb_logger"):
        backends.append({"type": "TensorboardVisBackend"})
    if (logger.get("wandb") or {}).get("project"):
        backends.append({"type": "WandbVisBackend", "init_kwargs": {"project": logger["wandb"]["project"]}})
    return backends


def _data(opt: Mapping[str, Any]) -> dict[str, Any]:
    """The loaders of the training set and of the validation sets, with what is measured on these."""
    val = opt.get("val")
    found: dict[str, Any] = {}
    sets: list[dict[str, Any]] = []
    for dataset in opt["datasets"].values():
        if dataset["phase"] == "train":
            batch = int(dataset.get("batch_size_per_gpu", 1))
            found["train_dataloader"] = {
                "batch_size": batch,
                "num_workers": int(dataset.get("num_worker_per_gpu", 0)),
                "pin_memory": bool(dataset.get("pin_memory")) and opt["num_gpu"] > 0,
                "drop_last": True,
                "sampler": {"type": "EndlessSampler", "batch_size": batch},
                "collate_fn": {"type": f"{SCOPE}.collate_rain"},
                "dataset": dict(dataset),
            }
        elif dataset["phase"] == "val" and val is not None:
            loader = {
                "batch_size": 1,
                "num_workers": 0,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
                "collate_fn": {"type": "default_collate"},
                "dataset": dict(dataset),
            }
            metrics = {
                "type": "OptionMetrics",
                "metrics": val.get("metrics") or {},
                "rounding": val.get("rounding", "round"),
                "prefix": dataset["name"],
            }
            sets.append({"name": dataset["name"], "dataloader": loader, "evaluator": [metrics]})
    if sets:
        first, *others = sets
        found.update(
            val_dataloader=first["dataloader"],
            val_evaluator=first["evaluator"],
            val_cfg={"type": "SeveralValLoop", "name": first["name"], "others": others},
        )
    return found
