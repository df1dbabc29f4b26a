"""What the soak test calls growth."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from soak import Sample, growth, look_at, read_samples, verdict

STILL = Sample(0.0, 1, 0, 500.0, 800.0, 900.0, 600.0, 16, 34, 1, 2, 11, 3, 50.0)


def taken(leak: str = "", an_hour: float = 0.0) -> list[Sample]:
    """An hour with noise, and a leak after the warm-up; in counts in whole steps."""
    random = np.random.default_rng(0)
    samples = []
    for minutes in np.arange(0, 60, 0.25):
        own = STILL.own + random.normal() - 300 * (minutes < 4)
        sample = dataclasses.replace(STILL, minutes=float(minutes), own=own)
        if leak:
            grown = getattr(sample, leak) + an_hour * minutes / 60
            sample = dataclasses.replace(sample, **{leak: grown if leak == "own" else int(grown)})
        samples.append(sample)
    return samples


def test_a_slope_is_that_of_the_line_whatever_the_warm_up_and_outliers() -> None:
    minutes = np.arange(0.0, 60.0, 0.5)
    values = 100 + 0.05 * minutes
    values[minutes < 6] = 0
    values[50:60] += 1000
    found = growth(minutes.tolist(), values.tolist())
    assert found.an_hour == pytest.approx(3, abs=0.1)
    assert found.percent == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize(
    ("leak", "an_hour", "message"),
    [
        ("", 0, None),
        ("own", 6, None),
        ("own", 24, "own memory grows by"),
        ("files_training", 3, "files_training grows"),
        ("maps_workers", 40, "maps_workers grows"),
    ],
)
def test_the_verdict(leak: str, an_hour: float, message: str | None) -> None:
    _, faults = verdict(taken(leak, an_hour), tolerance=2.0)
    assert len(faults) == (message is not None)
    assert all(str(message) in fault for fault in faults)


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    header = ",".join(field.name for field in dataclasses.fields(Sample))
    row = ",".join(map(str, dataclasses.astuple(STILL)))
    (tmp_path / "soak.csv").write_text(f"{header}\n{row}\n")
    assert read_samples(tmp_path / "soak.csv") == [STILL]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_open_files_and_lmdb_maps_of_a_process_are_counted(tmp_path: Path) -> None:
    import lmdb

    lmdb.open(str(tmp_path / "x.lmdb")).close()
    before = look_at(os.getpid())
    environment = lmdb.open(str(tmp_path / "x.lmdb"), readonly=True, lock=False)
    now = look_at(os.getpid())
    environment.close()
    assert now.maps - before.maps == 1
    assert now.files - before.files == 1
    assert 0 < now.own <= now.pss <= 1.01 * now.rss
