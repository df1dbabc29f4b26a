"""Two processes through mmengine's Runner: as BasicSR's engine has them train, stopped, resumed, one that writes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from both import LEARNING, differing, folder, network, saved
from several import Ranks, Torchrun, end_all, wait_for
from tiny import tiny_data, tiny_options

LAST = 12
SWINIR = {
    "type": "SwinIR", "upscale": 1, "img_size": 24, "window_size": 4, "depths": [2], "embed_dim": 8, "num_heads": [2],
    "mlp_ratio": 2, "drop_path_rate": 0.5, "upsampler": "", "resi_connection": "1conv",
}  # fmt: skip
"""A network that draws in every forward pass, so that weights tell whether generators go on."""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def options(data: Path) -> Path:
    return tiny_options(data, **LEARNING)


@pytest.fixture(scope="module")
def whole(data: Path, options: Path) -> Path:
    """The folder of a run by BasicSR's engine that nothing disturbed."""
    statuses, said = Ranks(data / "whole", options).result()
    assert statuses == [0, 0], said
    return data / "whole"


def assert_same(root: Path, whole: Path) -> None:
    assert not differing(network(root), network(whole))
    assert not differing(saved(root, LAST), saved(whole, LAST))
    assert len(list((root / "experiments").glob("tiny*"))) == 1, "set aside"


def written_by(root: Path) -> set[str]:
    return {line.split()[0] for line in (root / "written").read_text().splitlines()}


def figures(text: str) -> list[str]:
    """Of the validations in mmengine's log."""
    return [line.partition("Iter(val) ")[2].partition("data_time")[0] for line in text.splitlines() if "/psnr:" in line]


def test_torchrun_trains_as_basicsrs_engine_and_the_first_process_alone_writes(
    data: Path, options: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = data / "torchrun"
    root.mkdir()
    monkeypatch.chdir(root)
    status, said = Torchrun(root, options, "--engine", "mmengine").result()
    assert status == 0, said
    assert_same(root, whole)
    assert written_by(root) == {"0"}
    assert said.count("Network: ") == 1
    last = figures(said)[-1]
    log = "".join(file.read_text() for file in folder(whole).glob("train_*.log"))
    psnr = [line.split()[2] for line in log.splitlines() if "# psnr" in line][-1]
    assert f"val/psnr: {float(last.split('val/psnr: ')[1].split()[0]):.4f}" == f"val/psnr: {psnr}"
    assert not (root / ".dist_test").exists(), "what mmengine's processes tell each other by files"


def test_stopped_by_sigterm_it_goes_on_to_the_same_bits_by_either_engine(
    data: Path, options: Path, whole: Path
) -> None:
    root = data / "stopped"
    for engine, name in (("mmengine", "first"), ("mmengine", "second")):
        before = last_saved(root)
        run = Torchrun(
            root, options, "--engine", engine, "--auto_resume", "logger.save_checkpoint_freq=1", pace=0.2, name=name
        )
        assert wait_for(lambda before=before: last_saved(root) > before)
        if name == "first":
            run.process.terminate()
        else:
            for pid in run.left():
                os.kill(pid, signal.SIGTERM)
        status, said = run.result(25)
        assert status != 0
        assert said.count("basicsr train: interrupted") == 2, said
        assert "stopping: saved" in said
        assert "rainoerme_plugin/" not in said, "a traceback of ours"
        assert before < last_saved(root) < LAST
    for engine in ("basicsr", "mmengine"):
        # From where it was stopped, each in a folder of its own.
        own = data / f"stopped then {engine}"
        shutil.copytree(root / "experiments", own / "experiments")
        statuses, texts = Ranks(own, options, "--engine", engine, "--auto_resume").result()
        assert statuses == [0, 0], texts
        assert_same(own, whole)
        assert written_by(own) == {"0"}


def last_saved(root: Path) -> int:
    return max((int(path.stem.removeprefix("iter_")) for path in folder(root).glob("iter_*.pth")), default=0)


def test_basicsrs_state_of_two_processes_is_gone_on_from(data: Path, options: Path, whole: Path) -> None:
    root = data / "begun by basicsr"
    statuses, said = Ranks(root, options, "train.total_iter=6").result()
    assert statuses == [0, 0], said
    statuses, said = Ranks(root, options, "--engine", "mmengine", "--auto_resume", name="2").result()
    assert statuses == [0, 0], said
    assert_same(root, whole)


def test_networks_that_draw_by_chance_are_resumed_exactly_in_every_process(data: Path) -> None:
    (data / "chance").mkdir()
    options = tiny_options(
        data / "chance",
        **{
            **{key: value for key, value in LEARNING.items() if not key.startswith("network")},
            "network_g": {"_delete_": True, "type": "DistillationNet", "backbone": SWINIR},
            "datasets__train__dataroot_rainy": str(data / "rainy"),
            "datasets__train__dataroot_clean": str(data / "clean"),
            "val": None,
        },
    )
    engine = ("--engine", "mmengine")
    runs = [("whole", ()), ("parts", ("train.total_iter=6",)), ("parts", ("--auto_resume",))]
    for number, (name, more) in enumerate(runs):
        statuses, said = Ranks(data / "chance" / name, options, *engine, *more, name=str(number)).result()
        assert statuses == [0, 0], said
    found = saved(data / "chance" / "parts", LAST), saved(data / "chance" / "whole", LAST)
    assert not differing(*found)
    # The second process draws numbers of its own.
    states = torch.load(folder(data / "chance" / "whole") / f"iter_{LAST}.pth", weights_only=True)["random"]
    assert not torch.equal(states[0]["torch"], states[1]["torch"])


def test_an_error_of_one_process_is_one_line(data: Path, options: Path) -> None:
    run = Ranks(data / "wrong", options, "--engine", "mmengine", "train.accumulation=3")
    statuses, said = run.result()
    assert statuses == [2, 2], said
    assert all("Traceback" not in text for text in said)
    assert any("train.accumulation: a batch of 2 cannot be split into 3 equal parts" in text for text in said)
