"""The harness that kills trainings: a few kills, and that it sees what would be a loss."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from kill_and_resume import differences, fault_of, kill_and_resume


def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    moments = ("writing", "step", "start")
    report = kill_and_resume(tmp_path / "run", kills=3, seed=1, moments=moments, tell=lines.append)
    assert not report.faults, report
    assert report.finished
    assert report.identical
    assert report.ok
    assert sorted(kill.aim for kill in report.kills) == sorted(moments)
    assert {kill.workers for kill in report.kills} == {0, 2}
    assert report.starts - report.refused == 4
    assert report.checked >= 3 * 12  # the labels at least
    assert sum(line.startswith("kill ") for line in lines) == 3


def checkpoint(**changes: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    plain = {"weight": torch.ones(3, 3), "bias": torch.zeros(3), **changes}
    return {"params": plain, "params_ema": {"weight": torch.ones(3, 3)}}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, 0),
        ({"weight": torch.ones(3, 3).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(1 + 2**-23))}, 1),
        ({"bias": -torch.zeros(3)}, 1),
        ({"bias": torch.zeros(3, dtype=torch.float64)}, 1),
        ({"more": torch.zeros(3)}, 1),
    ],
)
def test_a_bit_of_difference_is_seen(tmp_path: Path, changes: dict[str, torch.Tensor], found: int) -> None:
    torch.save(checkpoint(), tmp_path / "one.pth")
    torch.save(checkpoint(**changes), tmp_path / "other.pth")
    assert len(differences(tmp_path / "one.pth", tmp_path / "other.pth")) == found


def test_a_checkpoint_without_mean_weights_is_seen(tmp_path: Path) -> None:
    torch.save({"params": checkpoint()["params"]}, tmp_path / "one.pth")
    assert differences(tmp_path / "one.pth", tmp_path / "one.pth") == ["params_ema: missing"]


def test_files_that_are_not_whole_are_seen(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoint(weight=torch.full((8, 8), 7.0)), buffer)
    whole = buffer.getvalue()
    place = whole.index(torch.full((8, 8), 7.0).numpy().tobytes())
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    cases = {"whole": whole, "cut": whole[:-100], "empty": b"", "flipped": flipped}
    for name, data in cases.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
    assert fault_of(tmp_path / "whole.pth") is None
    assert "does not match its checksum" in str(fault_of(tmp_path / "flipped.pth"))
    assert all(fault_of(tmp_path / f"{name}.pth") for name in ("cut", "empty"))
