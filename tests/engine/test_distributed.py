"""Training by two processes: as one would train, resumed exactly, and whatever becomes of one, none is left waiting."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from both import differing, with_bank
from several import DEADLINE, Ranks, Torchrun, end_all, errors, free_port, spawn, wait_for
from tiny import SHARED, model_options, tiny_data, tiny_options, write_images

from rainoerme_plugin.data.order import shuffled
from rainoerme_plugin.engine import session
from rainoerme_plugin.processes import leave_processes

TOTAL = 12
SWINIR = {
    "type": "SwinIR", "upscale": 1, "img_size": 24, "window_size": 4, "depths": [2], "embed_dim": 8, "num_heads": [2],
    "mlp_ratio": 2, "drop_path_rate": 0.5, "upsampler": "", "resi_connection": "1conv",
}  # fmt: skip
"""A network that draws in every forward pass (stochastic depth), so that weights tell whether generators go on."""
ADVERSARIAL = {"weight": 0.1, "channels": 4, "layers": 2}
PACE = 0.1
"""Seconds an image takes where a run is to be hit in its midst: two of them an iteration."""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def chancy(data: Path) -> Path:
    folder = data / "chancy"
    folder.mkdir()
    return tiny_options(
        folder,
        datasets__train__dataroot_rainy=str(data / "rainy"),
        datasets__train__dataroot_clean=str(data / "clean"),
        datasets__val__dataroot=str(data / "val"),
        network_g={"_delete_": True, "type": "DistillationNet", "backbone": SWINIR},
        train__total_iter=TOTAL,
        train__distillation__adversarial=ADVERSARIAL,
        train__scheduler={"start": 4, "end": 2 * TOTAL},
        val__val_freq=6,
    )


@pytest.fixture(scope="module")
def whole(data: Path, chancy: Path) -> Path:
    """The folder of a run that nothing disturbed."""
    statuses, said = Ranks(data / "whole", chancy).result()
    assert statuses == [0, 0], said
    return data / "whole"


def models(root: Path, name: str | int = "latest") -> dict[str, dict[str, Any]]:
    return torch.load(root / "experiments" / "tiny" / "models" / f"net_g_{name}.pth", weights_only=True)


def state(root: Path, iteration: int) -> dict[str, Any]:
    file = root / "experiments" / "tiny" / "training_states" / f"{iteration}.state"
    return {**torch.load(file, weights_only=True), "networks": None, "options": None}


def assert_undisturbed(root: Path, whole: Path) -> None:
    """A run has come to what it would have come to without a stop: weights, means, optimisers, generators, figures."""
    assert not differing(models(root), models(whole))
    assert not differing(state(root, TOTAL), state(whole, TOTAL))
    assert len(list((root / "experiments").glob("tiny*"))) == 1, "set aside"


def has_saved(run: Torchrun | Ranks, iteration: int) -> bool:
    file = run.root / "experiments" / "tiny" / "training_states" / f"{iteration}.state"
    return wait_for(file.exists)


def last_saved(root: Path) -> int:
    return max(int(path.stem) for path in (root / "experiments" / "tiny" / "training_states").glob("*.state"))


def log(root: Path) -> str:
    return "".join(file.read_text() for file in sorted((root / "experiments" / "tiny").glob("train_*.log")))


def written_by(root: Path) -> set[str]:
    return {line.split()[0] for line in (root / "written").read_text().splitlines()}


# --- as one ---


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-6),
        ({"train__accumulation": 2}, 1e-6),
        ({"train__distillation__adversarial": ADVERSARIAL}, 1e-6),
        # Gradients of half a batch are rounded to 8 bits before they are added. (Weights move by 1e-3 in the meantime.)
        ({"train__precision": "bfloat16"}, 2e-4),
    ],
    ids=lambda value: "-".join(map(str, value.values())) or "plain" if isinstance(value, dict) else "",
)
def test_two_processes_train_like_one_with_the_double_batch(
    data: Path, tmp_path: Path, changes: dict[str, Any], tolerance: float
) -> None:
    options = tiny_options(data, **SHARED, **changes)
    both = [
        Ranks(tmp_path / "one", options, "datasets.train.batch_size_per_gpu=4", world=1),
        Ranks(tmp_path / "two", options),
    ]
    for run in both:
        statuses, said = run.result()
        assert set(statuses) == {0}, said
    one, two = (models(run.root) for run in both)
    assert one.keys() == two.keys() == {"params", "params_ema"}
    for key, weights in one.items():
        apart = max(float((two[key][name] - value).abs().max()) for name, value in weights.items())
        assert apart <= tolerance, key
    assert state(tmp_path / "two", 6)["samples"] == state(tmp_path / "one", 6)["samples"] == 24


def test_so_they_do_with_rain_of_a_bank_in_both_engines(tmp_path: Path) -> None:
    """Nothing goes through the detail enhancement block then, which processes must not wait for."""
    tiny_data(tmp_path)
    changes = {**SHARED, **with_bank(tmp_path, grad_clip=0.3), "train__total_iter": 3, "val__val_freq": 3}
    changes["train__distillation"] = {"rain": {**SHARED["train__distillation__rain"], "bank": 1}}
    options = tiny_options(tmp_path, **changes)
    runs = [
        Ranks(tmp_path / "one", options, "datasets.train.batch_size_per_gpu=4", world=1),
        Ranks(tmp_path / "two", options),
        Ranks(tmp_path / "mmengine", options, "--engine", "mmengine"),
    ]
    for run in runs:
        statuses, said = run.result()
        assert set(statuses) == {0}, said
    one, two, other = (models(run.root)["params"] for run in runs)
    assert "plain places with rain in 5 of 5 photographs" in log(tmp_path / "two")
    assert max(float((two[name] - value).abs().max()) for name, value in one.items()) <= 1e-6
    assert not differing(two, other)


def test_two_processes_give_the_same_again_and_only_the_first_writes(data: Path, chancy: Path, whole: Path) -> None:
    statuses, said = Ranks(data / "again", chancy).result()
    assert statuses == [0, 0], said
    assert_undisturbed(data / "again", whole)
    assert written_by(whole) == {"0"}
    assert "# psnr" in log(whole)
    # The second process has drawn numbers of its own.
    first, second = state(whole, TOTAL)["random"]
    assert not torch.equal(first["torch"], second["torch"])


# --- stopped ---


def stop_torchrun(run: Torchrun) -> None:
    run.process.terminate()


def press_ctrl_c(run: Torchrun) -> None:
    for pid in (run.process.pid, run.rank(0), run.rank(1)):
        os.kill(pid, signal.SIGINT)


def stop_all(run: Torchrun) -> None:
    """As systemd and SLURM do."""
    for pid in run.left():
        os.kill(pid, signal.SIGTERM)


def test_stopped_again_and_again_a_run_is_resumed_exactly(data: Path, chancy: Path, whole: Path) -> None:
    root = data / "stopped"
    for workers, stop in ((0, stop_torchrun), (2, press_ctrl_c), (2, stop_all)):
        before = last_saved(root) if root.exists() else 0
        run = Torchrun(
            root, chancy, f"datasets.train.num_worker_per_gpu={workers}", "logger.save_checkpoint_freq=1",
            "--auto_resume", pace=PACE * 2, name=stop.__name__,
        )  # fmt: skip
        assert has_saved(run, before + 1)
        stop(run)
        status, said = run.result(25)  # torchrun's patience is 30 seconds
        assert status != 0
        assert said.count("basicsr train: interrupted") == 2, said
        assert "Saved the state of iteration" in said
        assert "rainoerme_plugin/" not in said, "a traceback of ours"
        assert before < last_saved(root) < TOTAL
    statuses, texts = Ranks(root, chancy, "--auto_resume").result()
    assert statuses == [0, 0], texts
    assert_undisturbed(root, whole)
    assert written_by(root) == {"0"}


def test_none_ends_before_the_first_has_saved(data: Path, tmp_path: Path) -> None:
    settings = ("logger.save_checkpoint_freq=1000", "train.total_iter=1000", "val.val_freq=1000")
    run = Ranks(tmp_path, tiny_options(data), *settings, pace=PACE, saving=1)
    assert wait_for(lambda: (tmp_path / "experiments" / "tiny").exists() and "iter:" in log(tmp_path))
    second = run.processes[1]
    os.kill(second.pid or 0, signal.SIGTERM)
    second.join(20)
    saved = list((tmp_path / "experiments" / "tiny" / "training_states").glob("*.state"))
    statuses, said = run.result(20)
    assert statuses == [130, 130], said
    assert saved


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_of_one_process_is_resumed_exactly_too(data: Path, chancy: Path, workers: int) -> None:
    settings = f"datasets.train.num_worker_per_gpu={workers}"
    alone, root = Ranks(data / f"alone {workers}", chancy, world=1), data / f"alone, stopped {workers}"
    run = Ranks(root, chancy, settings, world=1, pace=PACE)
    assert has_saved(run, 3)
    os.kill(run.processes[0].pid or 0, signal.SIGTERM)
    statuses, said = run.result()
    assert statuses == [130], said
    assert last_saved(root) < TOTAL
    statuses, said = Ranks(root, chancy, settings, "--auto_resume", world=1).result()
    assert statuses == [0], said
    assert alone.result()[0] == [0]
    assert_undisturbed(root, alone.root)


# --- lost ---


def test_a_process_that_is_killed_ends_the_others_and_the_run_is_resumed_exactly(
    data: Path, chancy: Path, whole: Path
) -> None:
    root = data / "killed"
    for rank, saved, workers in ((1, 3, 2), (0, 6, 0)):
        run = Torchrun(
            root, chancy, f"datasets.train.num_worker_per_gpu={workers}", "--auto_resume", pace=PACE, name=str(rank)
        )
        assert has_saved(run, saved)
        os.kill(run.rank(rank), signal.SIGKILL)
        status, said = run.result(30)
        assert status != 0
        (line,) = errors(said)
        assert f"process {1 - rank} of 2 has lost another one" in line
        assert "rainoerme_plugin/" not in said, "a traceback of ours"
    statuses, texts = Ranks(root, chancy, "--auto_resume").result()
    assert statuses == [0, 0], texts
    assert_undisturbed(root, whole)


def test_an_image_that_only_the_second_process_reads_ends_them_all_when_it_is_broken(tmp_path: Path) -> None:
    tiny_data(tmp_path)
    write_images(tmp_path / "clean", 8, seed=2)
    broken = tmp_path / "clean" / f"{shuffled(0, 6, 8, kind=2) + 1}.png"  # of sample 6, in its second batch
    broken.write_bytes(broken.read_bytes()[:-200])
    run = Torchrun(tmp_path / "two", tiny_options(tmp_path))
    status, said = run.result(60)
    assert status != 0
    own = [line for line in errors(said) if f"{broken.name}: damaged image" in line]
    assert len(own) == 1, said
    # The first one has lost it, or was stopped by torchrun before it could notice.
    assert len(errors(said)) + said.count("basicsr train: interrupted") <= 2
    assert "rainoerme_plugin/" not in said, "a traceback of ours"


def test_torchrun_starts_a_run_again_and_it_goes_on_from_the_last_checkpoint(
    data: Path, chancy: Path, whole: Path
) -> None:
    launch = ("--max-restarts=2", "--nproc_per_node=2")
    run = Torchrun(data / "elastic", chancy, launch=launch, pace=PACE)
    assert has_saved(run, 3)
    killed = run.rank(1)
    os.kill(killed, signal.SIGKILL)
    status, said = run.result()
    assert status == 0, said
    assert run.rank(1) != killed
    assert re.search(r"Resuming after iteration \d+", log(run.root))
    assert_undisturbed(run.root, whole)


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
@pytest.mark.parametrize(("count", "is_restart"), [(None, False), ("0", False), ("1", True), ("none", False)])
def test_a_run_that_was_started_again_by_its_launcher_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: str | None, is_restart: bool
) -> None:
    from rainoerme_plugin.config import Request

    if count is not None:
        monkeypatch.setenv(name, count)
    options = tiny_options(tiny_data(tmp_path))
    assert session.begin(Request(options, root=tmp_path), training=True)["auto_resume"] is is_restart


def test_a_process_that_hangs_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    options = tiny_options(tiny_data(tmp_path), dist_params__timeout=5, train__total_iter=1000)
    run = Ranks(tmp_path / "two", options, pace=PACE)
    assert has_saved(run, 3)
    first, second = run.processes
    os.kill(second.pid or 0, signal.SIGSTOP)
    try:
        first.join(30)
        assert not first.is_alive()
    finally:
        second.kill()
    statuses, said = run.result()
    assert statuses == [2, -signal.SIGKILL]
    (line,) = errors(said[0])
    assert "process 0 of 2 has lost another one" in line
    assert "Traceback" not in said[0]


# --- started ---


def test_a_second_run_of_the_same_name_is_refused_and_disturbs_nobody(data: Path, chancy: Path, whole: Path) -> None:
    first = Ranks(data / "shared", chancy, pace=PACE)
    assert has_saved(first, 3)
    statuses, said = Ranks(data / "shared", chancy, name="second").result(30)
    assert statuses == [2, 2]
    assert f"is in use by process {first.processes[0].pid} on " in errors(said[0])[0]
    assert "process 0 has ended with an error" in errors(said[1])[0]
    statuses, said = first.result()
    assert statuses == [0, 0], said
    assert_undisturbed(data / "shared", whole)


def slurm(root: Path, rank: int) -> Mapping[str, str]:
    return {
        "SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_LOCALID": str(rank), "SLURM_NODELIST": "node[1-2]",
        "PATH": f"{root}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip


def test_srun_starts_processes_too(data: Path, chancy: Path, whole: Path, tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && printf "127.0.0.1\\nelsewhere\\n"\n')
    scontrol.chmod(0o755)
    run = Ranks(data / "slurm", chancy, launcher="slurm", variables=lambda rank: slurm(tmp_path, rank))
    statuses, said = run.result()
    assert statuses == [0, 0], said
    assert_undisturbed(data / "slurm", whole)


@pytest.mark.parametrize(
    ("launcher", "variables", "message"),
    [
        ("slurm", {}, "SLURM_PROCID is not set; start with srun"),
        ("slurm", slurm(Path("nowhere"), 0) | {"PATH": "nowhere"}, "scontrol, which tells the nodes' names, fails"),
        ("pytorch", {}, "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR not set; start with torchrun"),
        ("pytorch", {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_ADDR not set; start with torchrun"),
        (
            "pytorch",
            {"RANK": "zero", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"},
            "RANK, WORLD_SIZE, LOCAL_RANK must be numbers",
        ),
    ],
)
def test_what_a_launcher_has_not_set_is_told_on_one_line(
    data: Path, chancy: Path, tmp_path: Path, launcher: str, variables: dict[str, str], message: str
) -> None:
    # A world of two, of which one is started: what it lacks shows before it looks for the other.
    run = Ranks(tmp_path, chancy, launcher=launcher, variables=lambda rank: variables)
    statuses, said = run.result(30)
    assert statuses == [2, 2]
    for text in said:
        (line,) = errors(text)
        assert message in line
        assert "Traceback" not in text


def test_one_that_waits_for_the_others_in_vain_says_so_on_one_line(chancy: Path, tmp_path: Path) -> None:
    def apart(rank: int) -> Mapping[str, str]:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", **place}

    statuses, said = Ranks(tmp_path, chancy, "dist_params.timeout=2", variables=apart).result(30)
    assert statuses == [2, 2], said
    for rank, text in enumerate(said):
        (line,) = errors(text)
        assert f"process {rank} of 2 does not find the others at 127.0.0.1:" in line
        assert "Traceback" not in text


def test_two_nodes_train_as_one_and_both_start_again_where_one_has_lost_its_process(
    data: Path, chancy: Path, whole: Path
) -> None:
    launch = ("--nnodes=2", "--master_addr=127.0.0.1", f"--master_port={free_port()}", "--nproc_per_node=1")
    nodes = [
        Torchrun(
            data / "nodes",
            chancy,
            launch=(*launch, f"--node_rank={node}", "--max-restarts=1"),
            pace=PACE,
            name=str(node),
        )
        for node in (0, 1)
    ]
    assert has_saved(nodes[0], 3)
    os.kill(nodes[0].rank(1), signal.SIGKILL)
    for node in nodes:
        status, said = node.ended(2 * DEADLINE)
        assert status == 0, said
    for node in nodes:
        node.result()
    assert_undisturbed(data / "nodes", whole)


# --- of one mind ---


def _steps(rank: int, root: Path, kind: str) -> None:
    """What a process does: three steps, whose second goes wrong in process 1 alone; what became of them, to a file."""
    import torch.distributed as dist
    from basicsr.models import build_model

    from rainoerme_plugin.engine.mend import mend_basicsr
    from rainoerme_plugin.engine.session import _take_over_logger
    from rainoerme_plugin.plugin import register

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=2)
    register()
    mend_basicsr()
    messages: list[str] = []
    _take_over_logger().warning = messages.append  # type: ignore[method-assign, assignment]
    guard = {"enabled": kind == "collapse", "interval": 1, "patience": 2, "hard_loss": 0.5}
    network = {"type": "RainOerMeNet", "channels": 4, "start": "kaiming"}  # finds something from the first step on
    opt = model_options(root, network, {}, collapse_guard=guard)
    opt["train"]["distillation"]["warmup"] = 0
    opt.update(dist=True, rank=rank, world_size=2, device="cpu")
    model = build_model(opt)
    weights, verdict = [], None
    for iteration in (1, 2, 3):
        torch.manual_seed(2 * iteration + rank)
        images = [torch.rand(2, 3, 24, 24) for _ in range(3)]
        if kind == "images" and iteration == 2 and rank == 1:
            images[1][0, 0, 0, 0] = float("nan")
        model.feed_data(dict(zip(("rainy", "label", "clean"), images, strict=True)))
        model.criterion.forward = _made_up(model.criterion, kind, rank, iteration)
        try:
            model.optimize_parameters(iteration)
        except Exception as error:
            verdict = f"{type(error).__name__} at {iteration}: {error}"
            break
        weights.append({name: value.clone() for name, value in model.get_bare_model(model.net_g).state_dict().items()})
    found = {"messages": messages, "skipped": model.skips.count, "weights": weights, "verdict": verdict}
    torch.save(found, root / f"{rank}.pt")
    leave_processes()


def _made_up(criterion: torch.nn.Module, kind: str, rank: int, iteration: int) -> Any:
    """A loss that is NaN in process 1 at iteration 2, or hardly anything there, and the same everywhere otherwise."""

    def loss(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        value = (one - other).square().mean()
        if kind == "loss" and rank == 1 and iteration == 2:
            return value + float("nan")  # its gradient is one of numbers: nobody else would know
        if kind == "collapse":
            # Process 0 would never see a collapse, process 1 always; their mean is above at 1 and below from 2 on.
            return value * 0 + (0.6 if rank == 0 else 0.45 if iteration == 1 else 0.1)
        return value

    return loss


def both(root: Path, kind: str) -> list[dict[str, Any]]:
    spawn(_steps, root, kind)
    return [torch.load(root / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("kind", ["loss", "images"])
def test_what_is_no_number_in_one_process_is_skipped_by_all(tmp_path: Path, kind: str) -> None:
    first, second = both(tmp_path, kind)
    for found in (first, second):
        assert found["verdict"] is None
        assert found["skipped"] == 1
        (message,) = found["messages"]
        assert message.startswith("iteration 2: the ")
        assert "the step is skipped (1 so far" in message
        before, skipped, after = found["weights"]
        assert not differing(before, skipped)
        assert differing(skipped, after)
    assert not differing(first["weights"], second["weights"])
    assert "loss is NaN" in second["messages"][0]
    if kind == "loss":
        assert "the loss of another process is not finite" in first["messages"][0]


def test_a_collapse_is_the_verdict_of_all(tmp_path: Path) -> None:
    first, second = both(tmp_path, "collapse")
    assert first["verdict"] == second["verdict"]
    assert first["verdict"].startswith(
        "CollapseError at 3: training has collapsed at iteration 3: the hard loss is 3.5"
    )
