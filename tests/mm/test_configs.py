"""Configs in mmengine's style: they train with nothing but mmengine's own words, and say what the option files say."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
from tiny import OPTIONS, tiny_data

import rainoerme_plugin
from rainoerme_plugin.config import Request
from rainoerme_plugin.mm.translate import runner_config
from rainoerme_plugin.options import DistillationOptions, read_section
from rainoerme_plugin.training.opening import complete

CONFIGS = sorted((OPTIONS / "mmengine").glob("*.py"))
PACKAGE = Path(rainoerme_plugin.__file__).parent

TRAIN = """
import sys
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

name, data, folder, total, resume, way = sys.argv[1:]
config = Config.fromfile(name)
config.merge_from_dict({
    "work_dir": folder, "model.network.channels": 4, "model.distillation.warmup": 2,
    "train_dataloader.batch_size": 2, "train_dataloader.sampler.batch_size": 2,
    "train_dataloader.dataset.crop_size": 24, "train_dataloader.dataset.dataroot_rainy": f"{data}/rainy",
    "train_dataloader.dataset.dataroot_clean": f"{data}/clean", "val_dataloader.dataset.dataroot": f"{data}/val",
    "param_scheduler.scheduler": {"type": "LinearDecayLR", "start": 600, "end": 1200},
    "train_cfg.max_iters": int(total), "train_cfg.val_interval": 4, "default_hooks.logger.interval": 1,
    "default_hooks.checkpoint.interval": 2, "resume": resume == "resume",
    "visualizer.vis_backends": [{"type": "LocalVisBackend"}],
})
runner = Runner.from_cfg(config) if way == "runner" else RUNNERS.build(config)
runner.train()
print("THE END", type(runner).__name__, runner.iter)
"""


def fresh(*arguments: str, script: str = TRAIN) -> str:
    """What a fresh process says that only knows mmengine."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout + run.stderr


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() != other.keys() or any(not torch.equal(value, other[name]) for name, value in one.items())


def test_the_demos_config_alone_trains_checkpoints_resumes_and_validates(tmp_path: Path) -> None:
    data, demo = tiny_data(tmp_path), str(OPTIONS / "mmengine" / "demo.py")
    said = fresh(demo, str(data), str(tmp_path / "whole"), "8", "anew", "runner")
    assert "THE END Runner 8" in said
    assert "matlab_y/rainy/psnr" in said
    assert said.count("Iter(val) [2/2]") == 4  # after each of the two validations' images, and its figures
    said = fresh(demo, str(data), str(tmp_path / "parts"), "4", "anew", "registry")
    assert "THE END DistillationRunner 4" in said
    said = fresh(demo, str(data), str(tmp_path / "parts"), "8", "resume", "runner")
    assert "Iter(train) [5/8]" in said
    assert "Iter(train) [4/8]" not in said
    whole, parts = (torch.load(tmp_path / name / "iter_8.pth", weights_only=True) for name in ("whole", "parts"))
    assert not differing(whole["params_ema"], parts["params_ema"])
    assert not differing(whole["params"], parts["params"])
    # ... which is not what it began with.
    assert differing(whole["params"], torch.load(tmp_path / "whole" / "iter_2.pth", weights_only=True)["params"])
    lines = [json.loads(line) for line in next((tmp_path / "whole").glob("*/vis_data/scalars.json")).open()]
    assert {"loss", "l_soft", "l_hard", "rain_energy", "lr"} <= lines[0].keys()


def test_names_are_found_by_their_scope_alone() -> None:
    said = fresh(
        script="""
import sys
from mmengine.registry import HOOKS, METRICS, MODELS
network = MODELS.build(dict(type="rainoerme_plugin.RainOerMeNet", channels=4))
print(type(network).__module__, sum(parameter.numel() for parameter in network.parameters()))
print(type(MODELS.build(dict(type="rainoerme_plugin.SSIMLoss"))).__name__)
print(type(HOOKS.build(dict(type="rainoerme_plugin.ScheduleHook"))).__name__)
print(METRICS.build(dict(type="rainoerme_plugin.DerainingMetric", protocol="rgb")).prefix)
print("basicsr" in sys.modules)
"""
    )
    assert said.split() == ["rainoerme_plugin.archs.rainoerme", "6662", "SSIMLoss", "ScheduleHook", "rgb", "False"]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_can_be_written_out_and_read_again(file: Path, tmp_path: Path) -> None:
    config = Config.fromfile(file)
    config.dump(tmp_path / "dumped.py")
    assert Config.fromfile(tmp_path / "dumped.py").to_dict() == config.to_dict()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_part_of_a_config_can_be_built(file: Path, tmp_path: Path) -> None:
    from mmengine.registry import DATASETS, EVALUATOR, METRICS, DefaultScope

    from rainoerme_plugin.mm.model import DistillationModel

    data, config = tiny_data(tmp_path), Config.fromfile(file)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
        assert isinstance(model, DistillationModel)
        roots = {"dataroot_rainy": str(data / "rainy"), "dataroot_clean": str(data / "clean")}
        crops = DATASETS.build({**config.train_dataloader.dataset, **roots, "crop_size": 24})[0]
        assert {tuple(crops[name].shape) for name in ("rainy", "label", "clean")} == {(3, 24, 24)}
        val, hooks = config.val_dataloader.dataset, config.default_hooks.values()
        root = data / ("val" if val.type == "PairedRainDataset" else "rainy")
        assert len(DATASETS.build({**val, "dataroot": str(root)})) in (2, 3)
        # mmengine's runners take the priority.
        settings = [{key: value for key, value in hook.items() if key != "priority"} for hook in hooks]
        built = [HOOKS.build(hook) for hook in settings]
        assert {type(hook).__name__ for hook in built} >= {"ScheduleHook", "CollapseGuardHook", "SafeCheckpointHook"}
        assert [type(METRICS.build(dict(metric))).__name__ for metric in config.val_evaluator] == [
            "DerainingMetric"
        ] * 2
        assert EVALUATOR.get("Evaluator") is not None


def yaml_config(name: str, tmp_path: Path) -> dict[str, Any]:
    return runner_config(complete(Request(OPTIONS / name, root=tmp_path, device="cpu"), training=True))


ALIKE = (
    "default_scope", "custom_imports", "runner_type", "randomness.seed", "env_cfg", "log_processor", "param_scheduler",
    "train_cfg", "model.type", "model.loss.type", "model.network", "model.precision",
    "model.accumulation", "model.nonfinite_limit", "model.tile", "optim_wrapper.constructor", "visualizer",
    "optim_wrapper.optimizer.type", "optim_wrapper.optimizer.lr", "train_dataloader.batch_size",
    "train_dataloader.num_workers", "train_dataloader.sampler", "train_dataloader.collate_fn",
    *(f"train_dataloader.dataset.{key}" for key in ("type", "label", "crop_size", "source")),
    "train_dataloader.dataset.dataroot_rainy", "train_dataloader.dataset.dataroot_clean",
    "val_dataloader.sampler", "val_dataloader.collate_fn", "val_dataloader.batch_size", "val_cfg.type",
)  # fmt: skip
"""Keys that an option file's translation and a config have in common."""


def at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config.to_dict() if hasattr(config, "to_dict") else config


@pytest.mark.parametrize("name", ["distill", "distill_cpu", "distill_labels", "distill_labels_cpu", "demo"])
def test_a_config_says_what_the_option_file_says(name: str, tmp_path: Path) -> None:
    own, theirs = Config.fromfile(OPTIONS / "mmengine" / f"{name}.py"), yaml_config(f"{name}.yml", tmp_path)
    # What is a default need not be written.
    theirs["param_scheduler"] = {key: value for key, value in theirs["param_scheduler"].items() if value != -1}
    schedules = [read_section(DistillationOptions, at(config, "model.distillation"), "") for config in (own, theirs)]
    assert schedules[0].build() == schedules[1].build()
    assert schedules[0].refinements() == schedules[1].refinements()
    found, others = ({key: at(config, key) for key in ALIKE} for config in (own, theirs))
    network = others["model.network"]
    if "backbone" in network:  # of what is its default as well
        others["model.network"] = {key: network[key] for key in ("type", "backbone")}
    assert found == others
    assert own.model.get("grad_clip") == theirs["model"].get("grad_clip")
    assert (own.train_dataloader.dataset.get("rain") or None) == theirs["train_dataloader"]["dataset"].get("rain")
    assert tuple(own.optim_wrapper.optimizer.betas) == tuple(theirs["optim_wrapper"]["optimizer"]["betas"])
    hooks = {hook["type"]: hook for hook in (*theirs["default_hooks"].values(), *theirs["custom_hooks"])}
    for hook in own.default_hooks.values():
        for key, value in hook.items():
            assert hooks[hook.type][key] == value, (hook.type, key)
    assert hooks.keys() == {hook.type for hook in own.default_hooks.values()}


def test_for_several_processes_there_is_nothing_else_but_the_wrapper(tmp_path: Path) -> None:
    alone, ddp = (Config.fromfile(OPTIONS / "mmengine" / f"{name}.py").to_dict() for name in ("distill", "distill_ddp"))
    assert ddp.pop("model_wrapper_cfg")["type"] == yaml_config("distill.yml", tmp_path)["model_wrapper_cfg"]["type"]
    assert ddp == alone


# --- what needs GPUs, as far as it goes without ---


def test_fsdps_strategy_is_built_and_wraps_by_size(tmp_path: Path) -> None:
    from mmengine._strategy import FSDPStrategy
    from mmengine.registry import FUNCTIONS, STRATEGIES
    from torch.distributed.fsdp import StateDictType
    from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

    config = Config.fromfile(OPTIONS / "mmengine" / "distill_fsdp.py")
    strategy = STRATEGIES.build({**config.strategy, "work_dir": str(tmp_path), "experiment_name": "fsdp"})
    assert isinstance(strategy, FSDPStrategy)
    policy = dict(config.strategy.model_wrapper.auto_wrap_policy)
    # As MMFullyShardedDataParallel finds it.
    assert FUNCTIONS.get(policy.pop("type")) is size_based_auto_wrap_policy
    assert policy.keys() <= inspect.signature(size_based_auto_wrap_policy).parameters.keys()
    assert strategy.state_dict_type is StateDictType.FULL_STATE_DICT  # one file, which other machines read


def test_deepspeeds_keys_are_those_of_its_strategy() -> None:
    from mmengine._strategy import DeepSpeedStrategy
    from mmengine._strategy.deepspeed import DeepSpeedOptimWrapper

    config = Config.fromfile(OPTIONS / "mmengine" / "distill_deepspeed.py")
    named = inspect.signature(DeepSpeedStrategy).parameters.keys()
    strategy = {key: value for key, value in config.strategy.items() if key != "type"}
    assert config.strategy.type == "DeepSpeedStrategy"
    assert strategy.keys() <= named - {"kwargs"}
    assert strategy["train_micro_batch_size_per_gpu"] == config.train_dataloader.batch_size
    assert config.optim_wrapper.type == DeepSpeedOptimWrapper.__name__


@pytest.mark.parametrize("name", ["distill_fsdp", "distill_deepspeed"])
def test_these_use_a_schedule_and_a_runner_of_mmengines(name: str) -> None:
    from mmengine.registry import OPTIM_WRAPPERS, PARAM_SCHEDULERS, RUNNERS

    config = Config.fromfile(OPTIONS / "mmengine" / f"{name}.py")
    assert RUNNERS.get(config.runner_type).__name__ == "FlexibleRunner"
    kind = PARAM_SCHEDULERS.get(f"{config.default_scope}.{config.param_scheduler.type}")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=5e-4)
    told = {key: value for key, value in config.param_scheduler.items() if key not in ("type", "_delete_")}
    schedule = kind(optimizer, **{"end": config.train_cfg.max_iters, **told})  # which mmengine's runners tell
    rates = []
    for _ in range(20000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    # As LinearDecayLR has it.
    for iteration in (0, 9999, 10000, 12345, 15000, 19999):
        assert rates[iteration] == pytest.approx(5e-4 * min(1, (20000 - iteration) / 10000), rel=2e-3, abs=1e-7)
    if name == "distill_fsdp":
        assert OPTIM_WRAPPERS.get(config.optim_wrapper.type) is not None
    assert "EMAHook" not in {hook.type for hook in config.default_hooks.values()}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
@pytest.mark.parametrize("total", [1000, 40_000])
def test_every_schedule_follows_from_the_iterations(file: Path, total: int) -> None:
    from mmengine.optim import OptimWrapper
    from mmengine.registry import PARAM_SCHEDULERS, DefaultScope

    config = Config.fromfile(file)
    optimizer = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        # As mmengine's runners do.
        schedule = PARAM_SCHEDULERS.build(
            {"end": total, **config.param_scheduler}, default_args={"optimizer": optimizer}
        )
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.optimizer.step()
        schedule.step()
    half, warm = total // 2, max(0, config.param_scheduler.get("warmup_iter", -1))
    assert rates[warm : half + 1] == [1.0] * (half + 1 - warm)
    assert rates[:warm] == pytest.approx([(number + 1) / warm for number in range(warm)])
    assert rates[half + half // 2] == pytest.approx(0.5, abs=1e-3)
    assert 0 < rates[-1] <= 1 / half + 1e-9


def test_a_forward_pass_gives_the_losses_of_a_step() -> None:
    from rainoerme_plugin.distillation.schedule import StepWeights
    from rainoerme_plugin.distillation.step import distillation_step
    from rainoerme_plugin.losses.ssim import SSIMLoss
    from rainoerme_plugin.mm.model import DistillationModel

    torch.manual_seed(0)
    model = DistillationModel({"type": "rainoerme_plugin.RainOerMeNet", "channels": 4})
    model.weights = StepWeights(0.5, 2.0, 1.25)
    images = [torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8) for _ in range(3)]
    log = model(tuple(images), mode="loss")
    floats = [image.float() / 255 for image in images]
    step = distillation_step(model.network, *floats, model.weights, SSIMLoss())
    assert {name: float(value.detach()) for name, value in log.items()} == {
        "loss": float(step.loss), "l_soft": float(step.soft_loss), "l_hard": float(step.hard_loss),
        "rain_energy": float(step.rain_energy),
    }  # fmt: skip
    assert float(step.loss) == pytest.approx(0.5 * float(step.soft_loss) + 2 * float(step.hard_loss), rel=1e-6)
    # mmengine descends the sum of what is called a loss: of one.
    descended, _ = model.parse_losses(log)
    assert float(descended) == float(step.loss)
    descended.backward()
    assert all(parameter.grad is not None for parameter in model.network.parameters())
