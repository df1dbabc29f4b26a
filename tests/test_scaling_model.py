"""The model of docs/scaling.md, by hand-worked cases, and the files that its measured figures come from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scaling_model import MARKS, Assumptions, all_reduce, bytes_of_crop, hours, input_of, put_into, report, rows

SCRIPT = Path(__file__).parent.parent / "scripts" / "scaling_model.py"
ROUND = Assumptions(
    step=0.1, backward_share=0.5, gradient_bytes=1_000_000, messages=1, node_bandwidth=1e8, node_latency=0,
    net_bandwidth=1e7, net_latency=0, per_node=4,
)  # fmt: skip


def test_a_ring_moves_all_but_a_part_twice() -> None:
    # Two GPUs: each sends half a megabyte twice, at 100 MB a second; four: a quarter, six times.
    assert [all_reduce(count, 1_000_000, ROUND) for count in (1, 2, 4)] == pytest.approx([0, 0.01, 0.015])
    assert all_reduce(8, 1_000_000, ROUND) == pytest.approx(0.175)  # the network's 10 MB a second, seven eighths twice
    delayed = Assumptions(node_latency=1e-3, net_latency=1e-2, node_bandwidth=1e30, net_bandwidth=1e30, per_node=4)
    assert [all_reduce(count, 8, delayed) for count in (2, 4, 5)] == pytest.approx([2e-3, 6e-3, 8e-2])


def test_what_is_beside_the_backward_pass_costs_nothing() -> None:
    alone, two, eight = rows(ROUND, (1, 2, 8))
    assert (alone.step, alone.efficiency, alone.overlapped_efficiency, alone.exchange) == (0.1, 1, 1, 0)
    assert (two.step, two.overlapped) == pytest.approx((0.11, 0.1))
    assert two.efficiency == pytest.approx(1 / 1.1)
    assert eight.step == pytest.approx(0.275)
    assert eight.overlapped == pytest.approx(0.1 + 0.175 - 0.05)
    # Each further message is waited for, overlap or not.
    more = Assumptions(**{**vars(ROUND), "messages": 3, "node_latency": 1e-3})
    (pair,) = rows(more, (2,))
    assert pair.step == pytest.approx(0.1 + 0.01 + 3 * 2e-3, rel=1e-5)
    assert pair.overlapped == pytest.approx(0.1 + 2 * 2e-3, rel=1e-5)


def test_hours_and_triples() -> None:
    (four,) = rows(ROUND, (4,))
    assert four.triples_per_second == pytest.approx(4 * 8 / 0.115)
    assert four.cores_per_gpu == pytest.approx(8 / 0.115 / 3000)
    assert hours(ROUND, 360_000 * 8, four) == pytest.approx(90_000 * 0.115 / 3600)


def test_a_crop_reads_the_pages_of_its_rows() -> None:
    # 128 rows of 768 bytes lie together; those of 12,000 bytes are in pages of their own, one row in eleven in two.
    assert bytes_of_crop(256, 128, 256) == 127 * 768 + 384 + 4096
    assert bytes_of_crop(4000, 128, 3000) == pytest.approx(128 * 4096 * (1 + 384 / 4096))
    assert bytes_of_crop(128, 128, 128) == 128 * 384 + 4096
    (one,) = rows(ROUND, (1,))
    assert input_of(ROUND, one, 256, 256) == pytest.approx(80 * 2 * (127 * 768 + 384 + 4096))


def test_the_tables_say_what_they_were_told_and_what_is_too_much() -> None:
    measured = report(Assumptions(step=0.02, storage=1e6))
    assert "Step of one GPU: 20.00 ms" in measured
    assert measured.count("(too much)") == 10
    assert "`storage` 1e+06" in measured
    rules = [line for line in measured.splitlines() if line.startswith("| ---")]
    heads = [line for line in measured.splitlines() if line.startswith("| GPUs")]
    assert [line.count("|") for line in rules] == [line.count("|") for line in heads] == [9, 7]


def test_every_assumption_is_an_argument(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--json", "--step", "0.1", "--plot", str(tmp_path / "x.png")]
    run = subprocess.run([*command, "--per-node", "4"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["gpus"] for line in lines] == [1, 8, 16, 32, 64]
    assert lines[0]["step"] == lines[0]["assumptions"]["step"] == 0.1
    assert lines[1]["assumptions"]["per_node"] == 4
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_the_tables_of_a_document_are_replaced() -> None:
    begin, end = MARKS
    assert put_into(f"a\n{begin}old\n{end}b\n", "new") == f"a\n{begin}\nnew\n\n{end}b\n"
    with pytest.raises(SystemExit, match="expected the lines"):
        put_into(f"a\n{begin}b\n", "new")
    docs = SCRIPT.parent.parent / "docs" / "scaling.md"
    assert put_into(docs.read_text(), "new").count("| ---") < docs.read_text().count("| ---")
