"""Training and testing by two processes, as torchrun starts them: the figures and pictures of one, written by one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_data, tiny_options, write_images, write_network

WATCH = """
import os, sys

def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        if any(f"/{name}/" in arguments[0] for name in ("experiments", "results", "tb_logger")):
            os.write(log, f"{os.environ['RANK']} {arguments[0]}\\n".encode())

if "RANK" in os.environ:
    log = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sys.addaudithook(note)
"""
"""As sitecustomize.py: whatever a process of a run opens for writing in the run's folders, with its rank."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three test images for two processes."""
    tiny_data(tmp_path)
    write_images(tmp_path / "val" / "rain", 3, seed=3, prefix="rain")
    write_images(tmp_path / "val" / "norain", 3, seed=3)
    write_network(tmp_path / "net.pth")
    return tmp_path


def run(root: Path, *arguments: str, world: int = 1) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={world}", f"--master_port={port}"]
    command = [sys.executable, *(torchrun if world > 1 else []), "-m", "rainoerme_plugin", *arguments]
    command += ["--root", str(root), "--device", "cpu", *(["--launcher", "pytorch"] if world > 1 else [])]
    root.mkdir(exist_ok=True)
    (root / "sitecustomize.py").write_text(WATCH)
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "WATCHED": str(root / "written.txt"),
    }  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def files(folder: Path, suffix: str = "png") -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob(f"*.{suffix}")}


def writers(root: Path) -> set[str]:
    return {line.split()[0] for line in (root / "written.txt").read_text().splitlines()}


def table(output: str) -> list[str]:
    return [line for line in output.splitlines() if not line.startswith("Pictures")]


@pytest.mark.parametrize("network", ["trained", "a folder of images"])
def test_a_test_by_two_processes_gives_the_table_and_the_pictures_of_one(data: Path, network: str) -> None:
    changes = {"path__pretrain_network_g": str(data / "net.pth")}
    if network != "trained":
        changes = {"network_g": {"_delete_": True, "type": "ResultImages", "folder": str(data / "val" / "rain")}}
    arguments = ("test", "-opt", str(tiny_options(data, val__save_img=True, **changes)))
    one, two = run(data / "one", *arguments), run(data / "two", *arguments, world=2)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert table(two.stdout) == table(one.stdout)
    assert len(table(one.stdout)) == 3
    pictures = files(data / "one" / "results" / "tiny" / "visualization")
    assert set(pictures) == {f"{folder}val/{number}.png" for folder in ("", "panels/") for number in (1, 2, 3)}
    assert files(data / "two" / "results" / "tiny" / "visualization") == pictures
    assert writers(data / "two") == {"0"}


def test_training_by_two_processes_logs_the_figures_that_one_finds_for_its_network(data: Path) -> None:
    options = str(tiny_options(data, val__save_img=True, logger__use_tb_logger=True))
    trained = run(data / "two", "train", "-opt", options, world=2)
    assert trained.returncode == 0, trained.stderr
    experiment = data / "two" / "experiments" / "tiny"
    (log,) = experiment.glob("train_*.log")
    logged = [re.findall(rf"# {metric}: ([\d.]+)\tRainy: ([\d.]+)", log.read_text()) for metric in ("psnr", "ssim")]
    network = ("path.param_key_g=params_ema", f"path.pretrain_network_g={experiment / 'models' / 'net_g_latest.pth'}")
    tested = run(data / "one", "test", "-opt", options, *network)
    assert tested.returncode == 0, tested.stderr
    rainy, derained = (line.split()[3:] for line in table(tested.stdout)[1:])
    assert logged == [[pair] for pair in zip(derained, rainy, strict=True)]
    pictures = files(experiment / "visualization")
    for name, picture in files(data / "one" / "results" / "tiny" / "visualization" / "val").items():
        stem = name.removesuffix(".png")
        assert pictures[f"{stem}/{stem}_6.png"] == picture
    assert {f"panels/val/{number}_6.png" for number in (1, 2, 3)} | {"panels/training_6.png"} <= set(pictures)
    assert writers(data / "two") == {"0"}
    assert len(files(data / "labels")) == len([path for path in (data / "labels").rglob("*") if path.is_file()]) == 3


def test_an_image_that_only_the_second_process_reads_ends_them_all_when_it_is_broken(data: Path) -> None:
    broken = data / "val" / "rain" / "2.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    options = tiny_options(data, path__pretrain_network_g=str(data / "net.pth"))
    result = run(data / "two", "test", "-opt", str(options), world=2)
    assert result.returncode != 0
    assert "2.png: damaged image" in result.stderr
    assert not table(result.stdout)
