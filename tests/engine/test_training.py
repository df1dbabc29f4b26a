"""The training loop, from option file to checkpoint, on a data set of a few tiny images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from tiny import SHARED, tiny_data, tiny_options, write_images

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.config import Request
from rainoerme_plugin.data.order import shuffled
from rainoerme_plugin.engine.session import begin, build
from rainoerme_plugin.engine.training import train
from rainoerme_plugin.errors import CollapseError, DataError, OptionError, RainOerMeError, WeightsError
from rainoerme_plugin.training.opening import settle_seed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def weights(root: Path, name: str = "latest", key: str = "params") -> dict[str, torch.Tensor]:
    return torch.load(root / "experiments" / "tiny" / "models" / f"net_g_{name}.pth", weights_only=True)[key]


def test_a_run_leaves_networks_states_options_log_and_panels(data: Path) -> None:
    train(Request(tiny_options(data, logger__use_tb_logger=True), root=data))
    experiment = data / "experiments" / "tiny"
    names = {path.relative_to(experiment).as_posix() for path in experiment.rglob("*.*")}
    assert {"models/net_g_3.pth", "models/net_g_6.pth", "models/net_g_latest.pth", "options.yml"} <= names
    assert {"training_states/3.state", "training_states/6.state"} <= names
    assert {"visualization/panels/training_6.png", "visualization/panels/val/1_6.png"} <= names
    log = next(experiment.glob("train_tiny_*.log")).read_text()
    for word in ("l_soft", "l_hard", "rain_energy", "lr:(", "# psnr", "# ssim"):
        assert word in log
    assert list((data / "tb_logger" / "tiny").glob("events.*"))
    assert yaml.safe_load((experiment / "options.yml").read_text())["train"]["total_iter"] == 6


def test_the_logged_learning_rate_is_constant_then_falls_to_zero(data: Path) -> None:
    train(Request(tiny_options(data, logger__print_freq=1), root=data))
    log = next((data / "experiments" / "tiny").glob("train_*.log")).read_text()
    rates = [line.split("lr:(")[1].split(",")[0] for line in log.splitlines() if "lr:(" in line]
    # Iteration k runs at the rate after k - 1 scheduler steps: 5e-4 up to step 3, then thirds of it.
    assert rates == ["5.000e-04"] * 4 + ["3.333e-04", "1.667e-04"]


def test_stopped_and_resumed_gives_the_same_weights(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny_options(data)
    train(Request(options, root=data / "whole"))
    train(Request(options, ("train.total_iter=3",), root=data / "parts"))
    elsewhere = data / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    train(Request(options, auto_resume=True, root=data / "parts"))
    for key in ("params", "params_ema"):
        whole, parts = weights(data / "whole", key=key), weights(data / "parts", key=key)
        assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_number_of_workers_changes_nothing(data: Path) -> None:
    for workers in (0, 2):
        options = tiny_options(data, datasets__train__num_worker_per_gpu=workers)
        train(Request(options, ("train.total_iter=4",), root=data / str(workers)))
    none, two = weights(data / "0"), weights(data / "2")
    assert all(torch.equal(none[name], two[name]) for name in none)


def test_an_earlier_experiment_is_set_aside_not_overwritten(data: Path) -> None:
    options = tiny_options(data)
    for _ in range(2):
        train(Request(options, ("train.total_iter=1",), root=data))
    names = sorted(path.name for path in (data / "experiments").iterdir())
    assert names[0] == "tiny"
    assert names[1].startswith("tiny_archived_")


def test_a_bad_start_leaves_the_earlier_experiment_alone(data: Path) -> None:
    options = tiny_options(data)
    train(Request(options, ("train.total_iter=1",), root=data))
    with pytest.raises(DataError, match=r"datasets\.train\.dataroot_clean: no such folder"):
        train(Request(options, ("datasets.train.dataroot_clean=nowhere",), root=data))
    torch.save({"params": RainOerMeNet(channels=5).state_dict()}, data / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth does not fit RainOerMeNet"):
        train(Request(options, (f"path.pretrain_network_g={data / 'other.pth'}",), root=data))
    assert [path.name for path in (data / "experiments").iterdir()] == ["tiny"]


def test_a_collapse_stops_training_and_says_what_to_change(data: Path) -> None:
    options = tiny_options(
        data,
        train__total_iter=50,
        train__distillation={"preset": "rain200l", "warmup": 0},
        train__optim_g={"type": "Adam", "lr": 1.0e-9},
        train__collapse_guard={"interval": 5, "patience": 2, "hard_loss": 0.9},
    )
    with pytest.raises(CollapseError, match=r"iteration 10.*train\.distillation\.warmup"):
        train(Request(options, root=data))


def test_a_broken_image_in_the_middle_keeps_what_was_trained(data: Path) -> None:
    write_images(data / "clean", 6, seed=2)
    later = shuffled(0, 5, 6, kind=2)  # the clean image of sample 5, in the third batch of two
    broken = data / "clean" / f"{later + 1}.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])  # its header is fine
    options = tiny_options(data)
    with pytest.raises(DataError, match=rf"{broken.name}: damaged image"):
        train(Request(options, root=data))
    states = (data / "experiments" / "tiny" / "training_states").glob("*.state")
    assert [path.name for path in states] == ["2.state"]
    broken.write_bytes(whole)
    train(Request(options, auto_resume=True, root=data))
    assert weights(data, "6")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_on_one_line_also_from_a_worker(data: Path, workers: int) -> None:
    image = data / "clean" / "1.png"
    image.write_bytes(image.read_bytes()[:-200])
    result = run_command(
        "train", "-opt", str(tiny_options(data, datasets__train__num_worker_per_gpu=workers)), "--root", str(data)
    )
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("basicsr train: error:")]
    assert len(errors) == 1
    assert "1.png: damaged image" in errors[0]
    assert "Traceback" not in result.stderr


def test_resuming_from_another_networks_state_is_refused(data: Path) -> None:
    options = tiny_options(data)
    train(Request(options, ("train.total_iter=3",), root=data))
    with pytest.raises(WeightsError, match="does not fit RainOerMeNet"):
        train(Request(options, ("network_g.channels=5",), auto_resume=True, root=data))


def test_a_state_without_its_network_is_refused(data: Path) -> None:
    options = tiny_options(data)
    train(Request(options, ("train.total_iter=3",), root=data))
    (data / "experiments" / "tiny" / "models" / "net_g_3.pth").unlink()
    with pytest.raises(WeightsError, match=r"cannot be resumed: .*net_g_3\.pth is missing"):
        train(Request(options, auto_resume=True, root=data))


def test_ready_made_labels_and_lmdbs_train_too(data: Path) -> None:
    for command in (
        ("prepare", "labels", "rainy", "-o", "made", "type=rank", "percent=20", "--cache", "cache"),
        ("prepare", "lmdb", "rainy", "-o", "rainy.lmdb"),
        ("prepare", "lmdb", "clean", "-o", "clean.lmdb"),
        ("prepare", "lmdb", "made", "-o", "made.lmdb"),
    ):
        run_command(*command, cwd=data, check=True)
    for number, (rainy, clean, label) in enumerate(
        (("rainy", "clean", "made"), ("rainy.lmdb", "clean.lmdb", "made.lmdb"))
    ):
        options = tiny_options(
            data,
            datasets__train__dataroot_rainy=str(data / rainy),
            datasets__train__dataroot_clean=str(data / clean),
            datasets__train__label={"_delete_": True, "type": "folder", "path": str(data / label)},
            datasets__train__num_worker_per_gpu=2 * number,
        )
        train(Request(options, ("train.total_iter=3",), root=data / str(number)))
    folder, packed = weights(data / "0"), weights(data / "1")
    assert all(torch.equal(folder[name], packed[name]) for name in folder)


def test_a_stock_option_file_trains_and_resumes(data: Path) -> None:
    write_images(data / "low", 2, (24, 24), seed=5)
    write_images(data / "high", 2, (48, 48), seed=5)
    options = {
        "name": "tiny", "model_type": "SRModel", "scale": 2, "num_gpu": 1, "manual_seed": 3,
        "datasets": {
            "train": {
                "name": "t", "type": "PairedImageDataset", "dataroot_gt": str(data / "high"),
                "dataroot_lq": str(data / "low"), "filename_tmpl": "{}", "io_backend": {"type": "disk"}, "gt_size": 32,
                "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 1, "batch_size_per_gpu": 2,
                "dataset_enlarge_ratio": 100, "prefetch_mode": "cuda", "pin_memory": True,
            },
            "val": {
                "name": "v", "type": "PairedImageDataset", "dataroot_gt": str(data / "high"),
                "dataroot_lq": str(data / "low"), "io_backend": {"type": "disk"},
            },
        },
        "network_g": {
            "type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2,
        },
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.999, "optim_g": {"type": "AdamW", "lr": 1.0e-3}, "total_iter": 4, "warmup_iter": -1,
            "scheduler": {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {"val_freq": 4.0, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
        "logger": {"print_freq": 2, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }  # fmt: skip
    file = data / "stock.yml"
    file.write_text(yaml.safe_dump(options))
    train(Request(file, device="cpu", root=data / "whole"))
    train(Request(file, ("train.total_iter=2",), device="cpu", root=data / "parts"))
    train(Request(file, device="cpu", auto_resume=True, root=data / "parts"))
    assert all(weights(data / root, "4") for root in ("whole", "parts"))


def test_distill_yml_runs_through_basicsrs_own_pipeline_unchanged(data: Path) -> None:
    """Only the amount of work is cut down; the keys and values that the file has otherwise stand as they are."""
    from tiny import OPTIONS

    options = yaml.safe_load((OPTIONS / "distill.yml").read_text())
    write_images(data / "datasets" / "rainy", 2, (140, 150), seed=1, prefix="rain")
    write_images(data / "datasets" / "clean", 2, (140, 150), seed=2)
    options["train"]["total_iter"] = 2
    options["datasets"]["train"]["num_worker_per_gpu"] = 0
    options["logger"]["print_freq"] = 1
    (data / "distill.yml").write_text(yaml.safe_dump(options))
    code = (
        "import rainoerme_plugin; rainoerme_plugin.register()\n"
        "from basicsr.train import train_pipeline\n"
        f"train_pipeline({str(data)!r})\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(data / "cache")}
    result = subprocess.run(
        [sys.executable, "-c", code, "-opt", "distill.yml"], cwd=data, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "l_soft" in result.stderr
    panels = data / "experiments" / "distill" / "visualization" / "panels"
    assert len(list(panels.rglob("val/*.png"))) == 2
    assert (data / "experiments" / "distill" / "models" / "net_g_latest.pth").is_file()


def test_ctrl_c_saves_the_last_iteration(data: Path) -> None:
    import signal
    import time

    options = tiny_options(data, train__total_iter=100_000, logger__save_checkpoint_freq=100_000, val__val_freq=100_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "rainoerme_plugin", "train", "-opt", str(options), "--root", str(data)],
        stderr=subprocess.PIPE,
        text=True,
    )
    log = data / "experiments" / "tiny"
    while process.poll() is None and not any("l_soft" in file.read_text() for file in log.glob("*.log")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "go on with --auto_resume" in errors
    assert len(list((log / "training_states").glob("*.state"))) == 1


def test_two_processes_train_like_one_with_the_double_batch(data: Path) -> None:
    options = tiny_options(data, **SHARED, train__ema_decay=0, val=None)
    train(Request(options, ("datasets.train.batch_size_per_gpu=4", "train.total_iter=3"), root=data / "one"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29611"]
    command += ["-m", "rainoerme_plugin", "train", "-opt", str(options), "train.total_iter=3", "--launcher", "pytorch"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "--root", str(data / "two")], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    one, two = weights(data / "one"), weights(data / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def run_command(*arguments: str, cwd: Path | None = None, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rainoerme_plugin", *arguments], cwd=cwd, capture_output=True, text=True, check=check
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"datasets__train__label__type": "openning"}, OptionError, "did you mean 'opening'"),
        ({"datasets__train__croop_size": 3}, OptionError, r"train\.croop_size: unknown key; did you mean 'crop_size'"),
        ({"train__total_itr": 3}, OptionError, r"train\.total_itr: unknown key; did you mean 'total_iter'"),
        ({"train__optim_g__lr": "5e-4"}, OptionError, r"train\.optim_g\.lr: '5e-4' is text to YAML; write 5\.0e-4"),
        ({"train__total_iter": "many"}, OptionError, r"train\.total_iter: .*integer.*'many'"),
        ({"network_g__type": "RainOerMenet"}, OptionError, "did you mean 'RainOerMeNet'"),
        ({"network_g__chanels": 4}, OptionError, "did you mean 'channels'"),
        ({"network_g__channels": "four"}, OptionError, r"network_g\.channels: .*'four'"),
        ({"model_type": "DestillationModel"}, OptionError, "did you mean 'DistillationModel'"),
        ({"val__metrics__psnr__test_y_channle": True}, OptionError, "did you mean 'test_y_channel'"),
        ({"val__metrics__psnr__type": "calculate_psrn"}, OptionError, "did you mean 'calculate_psnr'"),
        ({"train__optim_g__type": "Adamm"}, OptionError, "did you mean 'Adam'"),
        ({"train__scheduler__type": "LinearDecay"}, OptionError, "did you mean 'LinearDecayLR'"),
        ({"train__loss_opt__typ": "SSIMLoss"}, OptionError, r"train\.loss_opt\.typ: unknown key"),
        ({"datasets__vall": {"type": "PairedRainDataset"}}, OptionError, r"datasets\.vall|unknown phase"),
        ({"path__pretrain_netwok_g": "x"}, OptionError, "did you mean 'pretrain_network_g'"),
        ({"lager": {}}, OptionError, r"lager: unknown key"),
        ({"path__pretrain_network_g": "nowhere.pth"}, WeightsError, "no such checkpoint: nowhere.pth"),
        ({"datasets__train__crop_size": 41}, DataError, "48x40 pixels is smaller than the crop of 41x41"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_an_option_file_is_named(
    data: Path, changes: dict[str, object], error: type[RainOerMeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(Request(tiny_options(data, **changes), root=data))


def test_a_label_of_another_size_is_refused(data: Path) -> None:
    write_images(data / "labels_given", 3)
    Image.new("RGB", (40, 40)).save(data / "labels_given" / "2.png")
    label = {"_delete_": True, "type": "folder", "path": str(data / "labels_given")}
    with pytest.raises(DataError, match=r"label .*2\.png is 40x40 pixels, its image .*2\.png 48x40"):
        train(Request(tiny_options(data, datasets__train__label=label), root=data))


def test_the_first_weights_are_the_seeds(data: Path) -> None:
    from basicsr.archs import build_network
    from basicsr.utils import set_random_seed

    opt = begin(Request(tiny_options(data), root=data), training=True)
    settle_seed(opt)
    model = build(opt)
    set_random_seed(0)
    network = build_network({**opt["network_g"]})
    assert all(torch.equal(value, model.net_g.state_dict()[name]) for name, value in network.state_dict().items())
