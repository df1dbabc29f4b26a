"""Choosing a device, and the bound on its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import benchmark_options, tiny_data, tiny_options, write_network

from rainoerme_plugin.commands import main
from rainoerme_plugin.devices import pick_device
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.processes import join_processes


def test_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two CUDA GPUs, as far as anybody is told; those that were taken."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return taken


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


NO_DEVICES = [
    "xla",
    "hpu",
    "meta",
    "xpu",
    "gpu",
    "CPU",
    "cpu:0",
    "cuda:-1",
    "cuda:x",
    "cuda:",
    "",
    "\x1b[31m",
    "x" * 300,
]


@pytest.mark.parametrize("name", [*NO_DEVICES, "cuda", "cuda:0", "cuda:9", "mps"])
def test_a_device_that_is_not_there_is_refused_with_what_there_is(name: str, no_gpus: None) -> None:
    with pytest.raises(OptionError, match=r"^--device .*; there are auto, cpu$"):
        pick_device(name)
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", [*NO_DEVICES, "cuda:2", "cuda:9", "mps"])
def test_gpus_are_listed_by_their_numbers(name: str, gpus: list[torch.device]) -> None:
    with pytest.raises(OptionError, match=r"; there are auto, cpu, cuda:0, cuda:1, cuda$"):
        pick_device(name)
    assert gpus == []


@pytest.mark.parametrize(
    ("name", "local_rank", "index"), [("auto", 0, 0), ("cuda", 1, 1), ("cuda", 3, 1), ("cuda:1", 0, 1)]
)
def test_a_gpu_is_taken(name: str, local_rank: int, index: int, gpus: list[torch.device]) -> None:
    assert pick_device(name, local_rank) == torch.device("cuda", index)
    assert gpus == [torch.device("cuda", index)]


def test_a_device_of_pytorchs_is_taken_too(gpus: list[torch.device]) -> None:
    assert pick_device(torch.device("cuda:1")) == torch.device("cuda", 1)


def test_several_processes_do_not_share_one_gpu(gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"--device cuda:1: one GPU for 2 processes; with --device cuda each takes"):
        join_processes("pytorch", "cuda:1")


@pytest.mark.parametrize("command", ["train", "train by mmengine", "test", "benchmark", "derain", "prepare"])
def test_every_command_takes_the_same_names(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_gpus: None
) -> None:
    write_network(tiny_data(tmp_path) / "net.pth")
    options = tiny_options(tmp_path, path__pretrain_network_g=str(tmp_path / "net.pth"))
    arguments: dict[str, list[object]] = {
        "train": ["train", "-opt", options],
        "train by mmengine": ["train", "-opt", options, "--engine", "mmengine"],
        "test": ["test", "-opt", options],
        "benchmark": ["benchmark", "-opt", benchmark_options(tmp_path)],
        "derain": ["derain", tmp_path / "rainy", "-o", tmp_path / "out"],
        "prepare": ["prepare", "labels", tmp_path / "rainy", "-w", tmp_path / "net.pth", "-o", tmp_path / "out"],
    }
    monkeypatch.chdir(tmp_path)
    for name in ("hpu", "cuda:1"):
        assert main([*map(str, arguments[command]), "--device", name]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert [line.partition("; ")[2] for line in lines] == ["there are auto, cpu"]


def test_an_allocation_beyond_free_memory_fails_and_the_process_lives() -> None:
    program = (
        "import sys, torch\n"
        "from rainoerme_plugin.devices import bound_memory\n"
        "bound = bound_memory()\n"
        "print('no bound' if bound is None else 'bound')\n"
        "if bound is not None:\n"
        "    torch.zeros(2**20)\n"
        "    try:\n"
        "        torch.empty(bound, dtype=torch.uint8)\n"
        "    except RuntimeError as error:\n"
        "        print('memory' in str(error))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    if run.stdout == "no bound\n":
        pytest.skip("this system does not tell how much memory is free")
    assert (run.returncode, run.stdout) == (0, "bound\nTrue\n"), run.stderr
