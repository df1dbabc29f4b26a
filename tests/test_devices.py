"""Choosing a device and joining processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from rainoerme_plugin.devices import control_group, gather, join_processes, pick_device
from rainoerme_plugin.errors import OptionError


def test_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_a_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(OptionError, match=f"--device {name}: .* use --device auto or cpu"):
        pick_device(name)
    assert pick_device("auto") == torch.device("cpu")


def test_one_process_joins_nobody() -> None:
    assert join_processes("none", "cpu") == (0, 1, 0)


def _meet(rank: int, backend: str, folder: Path) -> None:
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    group = control_group()
    told = (dist.get_backend(group), group is dist.group.WORLD, group is control_group(), gather(f"from {rank}"))
    torch.save(told, folder / f"{rank}.pt")


# The second is no plain gloo, as nccl is none, and there without a GPU.
@pytest.mark.parametrize("backend", ["gloo", "cpu:gloo"])
def test_processes_tell_each_other_by_gloo_whatever_they_have_joined_by(tmp_path: Path, backend: str) -> None:
    processes.spawn(_meet, (backend, tmp_path), nprocs=2)
    for rank, gathered in enumerate((["from 0", "from 1"], [])):
        assert torch.load(tmp_path / f"{rank}.pt") == ("gloo", backend == "gloo", True, gathered)


def test_one_process_has_nobody_to_tell() -> None:
    assert control_group() is None
    assert gather("all") == ["all"]


def test_a_launcher_without_its_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionError, match="RANK, WORLD_SIZE, LOCAL_RANK not set; start with torchrun"):
        join_processes("pytorch", "cpu")
    with pytest.raises(OptionError, match="SLURM_PROCID is not set; start with srun"):
        join_processes("slurm", "cpu")


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
