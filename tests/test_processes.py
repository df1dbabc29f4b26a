"""Joining processes, and what they tell each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from rainoerme_plugin.errors import ElsewhereError, OptionError
from rainoerme_plugin.processes import claimed, control_group, first_decides, gather, join_processes, losses_told


def test_one_process_joins_nobody() -> None:
    assert join_processes("none", "cpu") == (0, 1, 0)


def _meet(rank: int, backend: str, folder: Path) -> None:
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    group = control_group()
    told = (dist.get_backend(group), group is dist.group.WORLD, group is control_group(), gather(f"from {rank}"))
    torch.save(told, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


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
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        OptionError, match="RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set; start with torchrun"
    ):
        join_processes("pytorch", "cpu")
    with pytest.raises(OptionError, match="SLURM_PROCID is not set; start with srun"):
        join_processes("slurm", "cpu")


def _settle(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)

    def refuse() -> None:
        raise OptionError("no")

    told: list[object] = [first_decides(lambda: f"by {rank}")]
    try:
        first_decides(refuse)
    except (OptionError, ElsewhereError) as error:
        told.append(type(error).__name__)
    with claimed(folder / "run"):
        told.append((folder / ".run.lock").exists())
        dist.barrier()
    torch.save(told, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_the_first_process_decides_for_all_and_claims_for_all(tmp_path: Path) -> None:
    processes.spawn(_settle, (tmp_path,), nprocs=2)
    assert torch.load(tmp_path / "0.pt") == ["by 0", "OptionError", True]
    assert torch.load(tmp_path / "1.pt") == ["by 0", "ElsewhereError", True]
    assert not (tmp_path / ".run.lock").exists()


def test_a_lost_connection_is_told_as_the_end_of_another_process() -> None:
    with pytest.raises(ElsewhereError, match="process 1 of 2 has lost another one"), losses_told(1, 2):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:37113")
    with pytest.raises(RuntimeError, match="of our own"), losses_told(1, 2):
        raise RuntimeError("a fault of our own")
    with pytest.raises(RuntimeError, match="closed by peer"), losses_told(0, 1):
        raise RuntimeError("Connection closed by peer")


_LEAVING = """
import argparse, atexit, os
from rainoerme_plugin import commands
from rainoerme_plugin.processes import join_processes, leave_processes

class Run:
    def run(parsed):
        if {joins}:
            join_processes("pytorch", "cpu")
            leave_processes()
        return 0

commands.COMMANDS["list"] = Run
commands.build_parser = lambda: argparse.ArgumentParser()
argparse.ArgumentParser.parse_known_args = lambda *_: (argparse.Namespace(command="list"), [])
atexit.register(lambda: print("handlers run", flush=True))
status = commands.main([])
print("Python ends", status, flush=True)
"""


@pytest.mark.parametrize(
    ("joins", "told"), [(False, ["Python ends 0", "handlers run"]), (True, ["handlers run"])], ids=["alone", "several"]
)
def test_one_of_several_ends_before_python_takes_its_threads_down(joins: bool, told: list[str]) -> None:
    meeting = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    result = subprocess.run(
        [sys.executable, "-c", _LEAVING.format(joins=joins)],
        env={**os.environ, **meeting},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout.splitlines()) == (0, told), result.stderr
