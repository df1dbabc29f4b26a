"""What a user can mend is one line and exit status 2 with mmengine's engine, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from both import LEARNING, forget
from tiny import OPTIONS, tiny_data, tiny_options

from rainoerme_plugin.commands import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


@pytest.fixture
def config(data: Path) -> Path:
    """A config of mmengine's that trains in a second."""
    file = data / "own.py"
    file.write_text(
        f"""
_base_ = "{OPTIONS / "mmengine" / "demo.py"}"
work_dir = "{data / "work"}"
model = dict(network=dict(channels=4), distillation=dict(warmup=2))
train_dataloader = dict(
    batch_size=2, sampler=dict(batch_size=2),
    dataset=dict(dataroot_rainy="{data / "rainy"}", dataroot_clean="{data / "clean"}", crop_size=24))
val_dataloader = dict(dataset=dict(dataroot="{data / "val"}"))
train_cfg = dict(max_iters=4, val_interval=2)
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
"""
    )
    return file


def line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that is said of an error."""
    capsys.readouterr()
    try:
        status = main(["train", "--engine", "mmengine", "--device", "cpu", *arguments])
    finally:
        forget()
    said = capsys.readouterr().err
    assert status == 2, said
    assert "Traceback" not in said
    found = [each for each in said.splitlines() if each.startswith("basicsr train: error:")]
    assert len(found) == 1, said
    return found[0]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("train.total_itr=3", "total_itr: unknown key; did you mean 'total_iter'"),
        ("train.distillation.warm_up=3", "train.distillation.warm_up: unknown key"),
        ("network_g.type=NoNet", "NoNet"),
        ("network_g.chanels=3", "chanels"),
        ("datasets.train.dataroot_rainy=nowhere", "datasets.train.dataroot_rainy: "),
        ("datasets.val.dataroot=nowhere", "datasets.val.dataroot: "),
        ("path.pretrain_network_g=nowhere.pth", "nowhere.pth"),
        ("path.resume_state=nowhere.state", "nowhere.state"),
        ("train.scheduler.type=NoSchedule", "NoSchedule"),
        ("train.optim_g.type=NoOptimiser", "NoOptimiser"),
        ("train.precision=float8", "train.precision"),
    ],
)
def test_of_an_option_file(data: Path, capsys: pytest.CaptureFixture[str], setting: str, told: str) -> None:
    options = tiny_options(data, **LEARNING)
    assert told in line(capsys, "-opt", str(options), "--root", str(data), setting)
    assert not (data / "experiments" / "tiny").exists()


def test_another_model_is_for_the_other_engine(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"dataroot_gt": str(data / "clean"), "dataroot_lq": str(data / "clean"), "io_backend": {"type": "disk"}}
    options = tiny_options(
        data, model_type="SRModel", scale=1, val=None,
        datasets={"train": {"name": "t", "type": "PairedImageDataset", **files, "gt_size": 16}, "val": None},
        train={
            "_delete_": True, "optim_g": {"type": "Adam", "lr": 1.0e-3}, "total_iter": 3,
            "scheduler": {"type": "MultiStepLR", "milestones": [4]}, "pixel_opt": {"type": "L1Loss"},
        },
    )  # fmt: skip
    text = options.read_text().replace("  val: null\n", "").replace("  train:\n", "  _delete_: true\n  train:\n", 1)
    options.write_text(text)
    told = line(capsys, "-opt", str(options), "--root", str(data))
    assert "model_type: --engine mmengine trains a DistillationModel, not SRModel; leave --engine out" in told


@pytest.mark.parametrize("file", ["nowhere.yml", "nowhere.py"])
def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    assert file in line(capsys, "-opt", str(tmp_path / file))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.type=NoModel", "NoModel"),
        ("model.nonfinite_limits=3", "nonfinite_limits"),
        ("model.network.type=NoNet", "NoNet"),
        ("model.network.chanels=3", "chanels"),
        ("model.loss.type=NoLoss", "NoLoss"),
        ("model.distillation.warm_up=3", "warm_up"),
        ("model.pretrained=nowhere.pth", "nowhere.pth"),
        ("train_dataloader.dataset.type=NoDataset", "NoDataset"),
        ("train_dataloader.dataset.dataroot_rainy=nowhere", "nowhere"),
        ("train_dataloader.dataset.crop=3", "crop"),
        ("train_dataloader.sampler.type=NoSampler", "NoSampler"),
        ("train_dataloader.sampler.size=3", "size"),
        ("val_dataloader.dataset.dataroot=nowhere", "nowhere"),
        ("optim_wrapper.optimizer.type=NoOptimiser", "NoOptimiser"),
        ("optim_wrapper.constructor=NoConstructor", "NoConstructor"),
        ("param_scheduler.type=NoSchedule", "NoSchedule"),
        ("param_scheduler.scheduler.type=NoSchedule", "NoSchedule"),
        ("param_scheduler.scheduler.start=4", "start < end"),
        ("param_scheduler.scheduler.strat=1", "param_scheduler.scheduler.strat: unknown key; did you mean 'start'"),
        ("default_hooks.schedule.type=NoHook", "NoHook"),
        ("default_hooks.ema.decay=2", "decay"),
        ("default_hooks.collapse_guard.intervall=2", "intervall"),
        ("train_cfg.type=NoLoop", "NoLoop"),
        ("runner_type=NoRunner", "NoRunner"),
        ("resume=true load_from=nowhere.pth", "nowhere.pth"),
        ("no override", "an override is KEY=VALUE"),
    ],
)
def test_of_a_config(config: Path, capsys: pytest.CaptureFixture[str], setting: str, told: str) -> None:
    words = setting.split() if "=" in setting else [setting.replace(" ", "-") + "="]
    if words[0] == "no-override=":
        words, told = ["a b=3"], "an override is KEY=VALUE"
    assert told in line(capsys, "-opt", str(config), *words)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("_base_ = 'nowhere.py'", "nowhere.py"),
        ("model = dict(", "never closed"),
        ("raise RuntimeError('no')", "no"),
        ("custom_imports = dict(imports=['no_such_module'])", "no_such_module"),
        ("model = dict(type='rainoerme_plugin.DistillationModel')\nwork_dir = 'w'", "network"),
    ],
)
def test_of_a_config_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(text)
    assert told in line(capsys, "-opt", "own.py")


def test_overrides_of_a_config_count(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["train_cfg.max_iters=2", "default_hooks.checkpoint.interval=1", "model.network.detail_layers=2"]
    assert main(["train", "--engine", "mmengine", "--device", "cpu", "-opt", str(config), *settings]) == 0
    forget()
    files = {path.name for path in (config.parent / "work").glob("*.pth")}
    assert files == {"iter_1.pth", "iter_2.pth"}
    assert f"Network: {config.parent / 'work' / 'iter_2.pth'}" in capsys.readouterr().out


def test_a_damaged_checkpoint_of_a_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--engine", "mmengine", "--device", "cpu", "-opt", str(config)]
    assert main([*command, "train_cfg.max_iters=2", "default_hooks.checkpoint.interval=1"]) == 0
    forget()
    file = config.parent / "work" / "iter_2.pth"
    file.write_bytes(file.read_bytes()[:-3000])
    assert "iter_2.pth" in line(capsys, "-opt", str(config), "--auto_resume")
