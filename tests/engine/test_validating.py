"""Metrics that a data set does not allow, and validation that fails: told in a line, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_data, tiny_options, write_images, write_network

from rainoerme_plugin.commands import main
from rainoerme_plugin.config import Request
from rainoerme_plugin.engine.testing import test as run_test
from rainoerme_plugin.engine.training import train
from rainoerme_plugin.errors import DataError, RainOerMeError
from rainoerme_plugin.plugin import register
from rainoerme_plugin.training.checkpoints import open_checkpoint

PSNR = {"type": "calculate_psnr", "crop_border": 0}
NIQE = {"type": "calculate_niqe", "crop_border": 0}


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of another plugin: ``brightness``, which needs no ground truth, and ``moody``, which fails when it is told to."""
    from basicsr.utils.registry import METRIC_REGISTRY

    state: dict[str, Any] = {"fails": False}

    def brightness(img: np.ndarray, **_: Any) -> float:
        return float(img.mean())

    def moody(img: np.ndarray, img2: np.ndarray) -> float:
        if state["fails"]:
            raise LookupError("not in the mood")
        return 1.0

    register()
    for function in (brightness, moody):
        monkeypatch.setitem(METRIC_REGISTRY._obj_map, function.__name__, function)
    return state


def stock_test(root: Path, **val: Any) -> Path:
    """A test file of BasicSR's: a network that keeps the image's size, on pairs and on images alone."""
    torch.manual_seed(0)
    from basicsr.archs import build_network

    network = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1}
    torch.save({"params": build_network(dict(network)).state_dict()}, root / "net.pth")
    disk = {"io_backend": {"type": "disk"}}
    pairs = {"dataroot_lq": str(root / "val" / "rain"), "dataroot_gt": str(root / "val" / "norain")}
    return tiny_options(
        root,
        _base_=[],
        model_type="SRModel",
        scale=1,
        datasets={
            "test_1": {"name": "pairs", "type": "PairedImageDataset", **pairs, **disk},
            "test_2": {"name": "alone", "type": "SingleImageDataset", "dataroot_lq": str(root / "rainy"), **disk},
        },
        network_g=network,
        train=None,
        path={"pretrain_network_g": str(root / "net.pth"), "strict_load_g": True},
        val={"save_img": True, "suffix": None, **val},
    )


def test_images_without_ground_truth_have_the_metrics_that_need_none(
    tmp_path: Path, metrics: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = stock_test(tiny_data(tmp_path), metrics={"psnr": PSNR, "bright": {"type": "brightness"}})
    assert main(["test", "-opt", str(options), "--root", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "alone has no ground truth: psnr cannot be taken of it" in captured.err
    rows = {row[0]: row for row in map(str.split, captured.out.splitlines())}
    saved = (tmp_path / "results" / "tiny" / "visualization" / "alone").glob("*.png")
    expected = np.mean([np.asarray(Image.open(path), float).mean() for path in saved])
    assert rows["alone"][3] == "-"
    assert float(rows["alone"][4]) == pytest.approx(expected, abs=1e-3)
    assert float(rows["pairs"][3]) > 5


def test_so_have_those_of_the_plugins_own_model(tmp_path: Path, metrics: dict[str, Any]) -> None:
    write_network(tiny_data(tmp_path) / "net.pth")
    options = tiny_options(
        tmp_path,
        datasets={
            "_delete_": True,
            "test": {"name": "real", "type": "SingleRainDataset", "dataroot": str(tmp_path / "rainy")},
        },
        path__pretrain_network_g=str(tmp_path / "net.pth"),
        val={"_delete_": True, "metrics": {"psnr": PSNR, "bright": {"type": "brightness"}}, "save_img": True},
    )
    (score,), opt = run_test(Request(options, root=tmp_path))
    inputs = [np.asarray(Image.open(path), float).mean() for path in (tmp_path / "rainy").glob("*.png")]
    assert list(score.derained) == ["bright"]
    assert score.rainy["bright"] == pytest.approx(np.mean(inputs))
    saved = Path(opt["path"]["visualization"], "real").glob("*.png")
    assert score.derained["bright"] == pytest.approx(np.mean([np.asarray(Image.open(path)).mean() for path in saved]))


@pytest.mark.parametrize("engine", ["basicsr", "mmengine"])
def test_images_that_are_too_small_for_a_metric_are_told_before_any_network_runs(
    tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tiny_options(tiny_data(tmp_path), val={"val_freq": 3, "metrics": {"_delete_": True, "niqe": NIQE}})
    arguments = ["train", "-opt", str(options), "--root", str(tmp_path), "--device", "cpu", "--engine", engine]
    assert main(arguments) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert "val: val.metrics.niqe: cannot be taken of an image of 48x40 pixels" in line
    assert "at least two blocks of 96x96" in line
    assert not (tmp_path / "experiments" / "tiny").exists()


def test_a_later_image_that_is_too_small_is_named(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    for folder in ("rain", "norain"):
        write_images(data / "val" / folder, 1, size=(100, 200))
    write_network(data / "net.pth")
    options = tiny_options(
        data,
        path__pretrain_network_g=str(data / "net.pth"),
        val={"metrics": {"_delete_": True, "niqe": NIQE}},
    )
    with pytest.raises(DataError, match=r"rain.2\.png: val\.metrics\.niqe: cannot be taken of an image of 48x40"):
        run_test(Request(options, root=data))


@pytest.mark.parametrize("engine", ["basicsr", "mmengine"])
def test_a_validation_that_fails_does_not_lose_the_training(
    tmp_path: Path, engine: str, metrics: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"val": {"val_freq": 4, "metrics": {"_delete_": True, "moody": {"type": "moody"}}}}
    options = tiny_options(tiny_data(tmp_path), **own, logger__save_checkpoint_freq=100)
    command = ["train", "-opt", str(options), "--root", str(tmp_path), "--device", "cpu"]
    assert main([*command, "name=straight"]) == 0
    metrics["fails"] = True
    capsys.readouterr()
    assert main([*command, "name=broken", "--engine", engine]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    assert "not in the mood" in lines[-1]
    metrics["fails"] = False
    assert main([*command, "name=broken", "--auto_resume"]) == 0  # by BasicSR's engine, which reads both checkpoints
    straight, broken = (
        torch.load(tmp_path / "experiments" / name / "models" / "net_g_latest.pth") for name in ("straight", "broken")
    )
    for key in ("params", "params_ema"):
        assert all(torch.equal(straight[key][name], broken[key][name]) for name in straight[key])
    resumed = 4 if engine == "basicsr" else 5  # whose checkpoints are whole within an iteration alone
    assert f"Resuming after iteration {resumed}, " in capsys.readouterr().err


def test_a_step_that_fails_in_the_code_of_others_is_a_line_and_the_log_has_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rainoerme_plugin.models.distillation_model import DistillationModel

    def fails(*_: object) -> None:
        raise LookupError("a table of others")

    options = tiny_options(tiny_data(tmp_path))
    monkeypatch.setattr(DistillationModel, "optimize_parameters", fails)
    with pytest.raises(RainOerMeError, match=r"^iteration 1: a table of others; the log file says where") as raised:
        train(Request(options, device="cpu", root=tmp_path))
    assert isinstance(raised.value.__cause__, LookupError)
    (log,) = (tmp_path / "experiments" / "tiny").glob("train_*.log")
    assert "Traceback" in log.read_text()


def test_a_run_of_basicsrs_models_goes_on_from_its_last_checkpoint_also_with_another_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_data(tmp_path)
    pairs = {"dataroot_lq": str(data / "val" / "rain"), "dataroot_gt": str(data / "val" / "norain")}
    disk = {"io_backend": {"type": "disk"}, "gt_size": 16, "use_hflip": False, "use_rot": False}
    options = tiny_options(
        data,
        _base_=[],
        model_type="SRModel",
        scale=1,
        datasets={
            "train": {"name": "a", "type": "PairedImageDataset", **pairs, **disk},
            "val": {"name": "b", "type": "PairedImageDataset", **pairs, **disk},
        },
        network_g={"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1},
        train={
            "total_iter": 2,
            "optim_g": {"type": "Adam", "lr": 1e-4},
            "scheduler": {"type": "MultiStepLR", "milestones": [9]},
            "pixel_opt": {"type": "L1Loss"},
        },
        val={"val_freq": 2, "save_img": False, "metrics": {"psnr": PSNR}},
        logger={"print_freq": 1, "save_checkpoint_freq": 2},
    )
    train(Request(options, device="cpu", root=tmp_path))
    more = ("val.metrics.ssim={type: calculate_ssim, crop_border: 0}",)
    for last in (4, 6):
        capsys.readouterr()
        train(Request(options, (*more, f"train.total_iter={last}"), device="cpu", root=tmp_path, auto_resume=True))
        told = capsys.readouterr().err
        assert f"Resuming after iteration {last - 2}, " in told
        assert "passed over" not in told
    best = open_checkpoint(tmp_path / "experiments" / "tiny" / "training_states" / "6.state").state["best"]["b"]
    assert set(best) == {"psnr", "ssim"}
    assert best["ssim"]["iter"] in (2, 4)
