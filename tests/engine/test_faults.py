"""Whatever fails, nothing on the disk is lost, one line tells it, and --auto_resume goes on as if nothing had been."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import faults
import numpy as np
import pytest
import torch
from faults import Child, check_one_line, same
from PIL import Image
from tiny import tiny_data, tiny_options

from rainoerme_plugin.checkpoint_files import read_checkpoint
from rainoerme_plugin.commands import main
from rainoerme_plugin.config import Request
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.engine.training import train
from rainoerme_plugin.errors import DataError, RainOerMeError, WeightsError
from rainoerme_plugin.models.distillation_model import DistillationModel
from rainoerme_plugin.training.checkpoints import last_good

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="signals, sessions and mounts as Linux has them")


def options(data: Path, **changes: Any) -> Path:
    """Six iterations, a checkpoint after every second one."""
    return tiny_options(data, **{"logger__save_checkpoint_freq": 2, "val__val_freq": 3, **changes})


def experiment(root: Path) -> Path:
    return root / "experiments" / "tiny"


def states(root: Path) -> list[int]:
    return sorted(int(path.stem) for path in (experiment(root) / "training_states").glob("*.state"))


def ending(root: Path, iteration: int = 6) -> dict[str, Any]:
    """All that a run has come to, but for the paths in its options."""
    models = experiment(root) / "models"
    state = read_checkpoint(experiment(root) / "training_states" / f"{iteration}.state")
    left_out = ("options", "networks")  # with the paths, and of files whose bytes may differ
    kept = {key: value for key, value in state.items() if key not in left_out}
    return {**kept, "network": read_checkpoint(models / f"net_g_{iteration}.pth")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run without a break has gone through."""
    root = tiny_data(tmp_path_factory.mktemp("whole"))
    train(Request(options(root), root=root))
    return root


def check_nothing_lost(root: Path, least: int) -> None:
    """Every file is whole, the last checkpoint is of that iteration or a later one, and nothing is left over."""
    good, problems = last_good(experiment(root) / "training_states")
    assert (good.iteration if good else 0) >= least
    assert not problems
    for folder in ("models", "training_states"):
        for file in (experiment(root) / folder).glob("*"):
            assert not file.name.startswith("."), file
            read_checkpoint(file)
    assert not list((root / "experiments").glob("*_archived_*"))


def check_resumes(file: Path, root: Path, whole: Path) -> None:
    train(Request(file, ("logger.save_checkpoint_freq=2",), root=root, auto_resume=True))
    assert same(ending(root), ending(whole))


# --- every call by which files are written ---


class Disk:
    """Counts the calls that write files below a folder; those whose number ``fails`` says raise an error.

    They are: to make the temporary file, write, flush, sync and close it, rename it, sync the folder.
    """

    def __init__(self, folder: Path, fails: Callable[[int], int | None]) -> None:
        self.calls: list[str] = []
        self._folder, self._fails = str(folder), fails

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def where(handle: int) -> str:
            return os.readlink(f"/proc/self/fd/{handle}")

        def counted(owner: Any, name: str, path_of: Callable[..., Any]) -> None:
            function = getattr(owner, name)

            def call(*arguments: Any, **named: Any) -> Any:
                self.count(name, str(path_of(*arguments, **named)))
                return function(*arguments, **named)

            patch.setattr(owner, name, call)

        counted(os, "open", lambda path, flags, *_, **__: path if flags & os.O_CREAT else "")
        counted(os, "fsync", where)
        counted(os, "replace", lambda source, target: target)
        fdopen = os.fdopen
        patch.setattr(os, "fdopen", lambda handle, *arguments: File(fdopen(handle, *arguments), self, where(handle)))

    def count(self, call: str, path: str) -> None:
        if not path.startswith(self._folder):
            return
        self.calls.append(f"{call} {path}")
        number = self._fails(len(self.calls))
        if number is not None:
            raise OSError(number, os.strerror(number))


class File:
    """What fails to write has written a part; what fails to close is closed."""

    def __init__(self, file: BinaryIO, disk: Disk, path: str) -> None:
        self._file, self._disk, self._path = file, disk, path
        self.fileno = file.fileno

    def write(self, data: bytes) -> None:
        self._file.write(data[: len(data) // 2])
        self._disk.count("write", self._path)
        self._file.write(data[len(data) // 2 :])

    def flush(self) -> None:
        self._disk.count("flush", self._path)
        self._file.flush()

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._disk.count("close", self._path)


@LINUX
def test_each_call_that_writes_may_fail(data: Path, whole: Path) -> None:
    """From one call on all fail, as on a full disk, or one fails alone, as on a bad one; by turns."""
    file = options(data, val__panels=False)
    four = ("train.total_iter=4",)
    train(Request(file, ("train.total_iter=2",), root=data / "two"))

    def resumed(name: str, fails: Callable[[int], int | None]) -> tuple[Path, Disk, Exception | None]:
        root = data / name
        shutil.copytree(data / "two", root)
        disk = Disk(experiment(root), fails)
        try:
            with pytest.MonkeyPatch.context() as patch:
                disk.install(patch)
                train(Request(file, four, root=root, auto_resume=True))
        except (RainOerMeError, OSError) as error:
            return root, disk, error
        return root, disk, None

    _, clean, error = resumed("unharmed", lambda call: None)
    assert error is None
    written = [call.rpartition("/")[2] for call in clean.calls if call.startswith("replace")]
    networks = [f"net_g_{name}.{kind}" for name in ("4", "latest") for kind in ("safetensors", "pth")]
    assert written == ["options.yml", *networks[:2], "4.state", *networks[2:]]
    assert len(clean.calls) == 4 + 5 * 7
    for number, call in enumerate(clean.calls, 1):
        if (number + number // 7) % 2:  # seven calls a file
            root, _, error = resumed(f"{number}", lambda call, n=number: errno.ENOSPC if call >= n else None)
            reason = "No space left on device"
        else:
            root, _, error = resumed(f"{number}", lambda call, n=number: errno.EIO if call == n else None)
            reason = "Input/output error"
        assert error is not None, call
        told = str(error)
        assert reason in told, call
        # A temporary file is told by the name that it would have been given.
        named = next(later for later in clean.calls[number - 1 :] if "/." not in later)
        assert Path(named).name in told, (call, told)
        assert "\n" not in told
        check_nothing_lost(root, least=2)
        train(Request(file, four, root=root, auto_resume=True))
        assert same(ending(root, 4), ending(whole, 4)), call
        shutil.rmtree(root)


def test_a_first_checkpoint_that_cannot_be_written_leaves_none(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = options(data)
    with monkeypatch.context() as patch:
        Disk(experiment(data) / "training_states", lambda call: errno.EDQUOT).install(patch)
        with pytest.raises(
            RainOerMeError, match=r"cannot save .*2\.state: Disk quota exceeded; mend that and run again"
        ):
            train(Request(file, root=data))
    check_nothing_lost(data, least=0)
    assert states(data) == []
    check_resumes(file, data, whole)


# --- a full disk ---


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no disk of a size of its own: only root can mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@LINUX
@pytest.mark.parametrize(("spare", "board"), [(0, False), (0, True), (70_000, True), (130_000, True)])
def test_a_disk_runs_full(data: Path, whole: Path, disk: Path, spare: int, board: bool) -> None:
    """After the second iteration's checkpoint: there is room for nothing, for networks, for most of a checkpoint."""
    file = options(data, logger__use_tb_logger=board, logger__print_freq=1, val__save_img=True)
    full = partial(faults.before_step, 3, partial(faults.fill_disk, disk, spare))
    line = check_one_line(Child(file, disk, stub=full).result())
    assert re.search(r"cannot save \S+/(\d\.state|\w+\.(png|pth|safetensors)): No space left on device", line)
    check_nothing_lost(disk, least=2)
    assert (disk / "filler").is_file()
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    status, said = Child(file, disk, "--auto_resume").result()
    assert status == 0, said
    assert same(ending(disk), ending(whole))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("call", "first"), [("flush", 1), ("write", 10), ("close", 1)], ids=["opening", "in its thread", "closing"]
)
def test_a_log_and_an_event_file_that_cannot_be_written_end_nothing(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], call: str, first: int
) -> None:
    from tensorboard.compat.tensorflow_stub.io.gfile import GFile

    from rainoerme_plugin.engine import session

    opened = session._File._open
    monkeypatch.setattr(
        session._File, "_open", lambda self: vars(self).update(baseFilename="/dev/full") or opened(self)
    )
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(GFile, call, getattr(GFile, call))
    faults.when(GFile, call, lambda count: count >= first, partial(faults.fail, full))
    train(Request(options(data, logger__use_tb_logger=True, logger__print_freq=1), root=data))
    assert same(ending(data), ending(whole))
    said = capfd.readouterr().err
    assert len(re.findall(r"/dev/full cannot be written: .*No space left", said)) == 1
    assert len(re.findall(r"TensorBoard's file cannot be written \(No space left on device\); going on", said)) == 1
    assert "Traceback" not in said


@LINUX
def test_where_nothing_can_be_said_the_exit_status_still_tells(data: Path, whole: Path) -> None:
    file = options(data)
    removed = partial(faults.at_sample, 6, partial(shutil.move, data / "clean", data / "away"))
    assert Child(file, data / "run", stub=removed, said=Path("/dev/full")).result()[0] == 2
    assert states(data / "run") == [2, 3]
    shutil.move(data / "away", data / "clean")
    check_resumes(file, data / "run", whole)


@pytest.mark.parametrize("picture", ["panels", "save_img"])
def test_a_picture_that_cannot_be_written_ends_the_run_and_its_state_is_saved(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, picture: str
) -> None:
    file = options(data, **{f"val__{name}": name == picture for name in ("panels", "save_img")})
    with monkeypatch.context() as patch:
        Disk(experiment(data) / "visualization", lambda call: errno.EACCES).install(patch)
        with pytest.raises(RainOerMeError, match=r"cannot save .*1_3\.png: Permission denied; mend that and run again"):
            train(Request(file, root=data))
    check_nothing_lost(data, least=3)
    check_resumes(file, data, whole)


# --- checkpoints that are read short ---


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["training_states/4.state", "models/net_g_4.pth"])
def test_a_checkpoint_that_is_cut_is_passed_over(
    data: Path, whole: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = options(data)
    train(Request(file, ("train.total_iter=4",), root=data))
    damaged = experiment(data) / name
    complete = damaged.read_bytes()
    for length in (0, 1, 100, len(complete) // 2, len(complete) - 1):
        damaged.write_bytes(complete[:length])
        good, problems = last_good(experiment(data) / "training_states")
        assert good is not None
        assert good.iteration == 2
        assert len(problems) == 1
        assert damaged.name in problems[0]
    before = snapshot(experiment(data))
    named = (f"path.resume_state={experiment(data) / 'training_states' / '4.state'}",)
    assert main(["train", "-opt", str(file), *named, "--root", str(data)]) == 2
    assert damaged.name in check_one_line((2, capfd.readouterr().err))
    assert snapshot(experiment(data)) == before
    check_resumes(file, data, whole)
    assert re.search(rf"WARNING: passed over: .*{damaged.name}", capfd.readouterr().err)


def test_a_file_of_which_less_is_read_than_it_holds_is_passed_over(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = options(data)
    train(Request(file, ("train.total_iter=4",), root=data))
    read = Path.read_bytes
    for end in (-1, 100):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda self, end=end: read(self)[: end if "_4" in self.name else None])
            good, problems = last_good(experiment(data) / "training_states")
        assert good is not None
        assert good.iteration == 2
        assert "net_g_4.pth is damaged" in problems[0]

    def fails(self: Path) -> bytes:
        if self.name == "net_g_4.pth":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", fails)
    good, problems = last_good(experiment(data) / "training_states")
    assert good is not None
    assert good.iteration == 2
    assert "net_g_4.pth cannot be read (Input/output error)" in problems[0]


def test_where_all_checkpoints_are_damaged_nothing_is_touched(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = options(data)
    train(Request(file, ("train.total_iter=4",), root=data))
    for state in (experiment(data) / "training_states").iterdir():
        state.write_bytes(state.read_bytes()[:-50])
    before = snapshot(experiment(data))
    capfd.readouterr()
    assert main(["train", "-opt", str(file), "--auto_resume", "--root", str(data)]) == 2
    assert "none of the 2 checkpoints in" in check_one_line((2, capfd.readouterr().err))
    assert snapshot(experiment(data)) == before
    assert [path.name for path in (data / "experiments").iterdir()] == ["tiny"]


def test_another_runs_network_of_the_same_iteration_is_noticed(data: Path, whole: Path) -> None:
    file = options(data)
    train(Request(file, ("train.total_iter=4",), root=data))
    train(Request(file, ("train.total_iter=4", "manual_seed=8"), root=data / "other"))
    shutil.copy(experiment(data / "other") / "models" / "net_g_4.pth", experiment(data) / "models")
    named = (f"path.resume_state={experiment(data) / 'training_states' / '4.state'}",)
    with pytest.raises(WeightsError, match=r"net_g_4\.pth is damaged, or was written by another run"):
        train(Request(file, named, root=data))
    check_resumes(file, data, whole)


# --- workers that die ---

DEATHS: dict[str, Callable[[], None]] = {
    "killed before the first image": partial(faults.at_sample, 0, partial(faults.kill, signal.SIGKILL)),
    "killed": partial(faults.at_sample, 8, partial(faults.kill, signal.SIGKILL)),
    "segmentation fault": partial(faults.at_sample, 9, partial(faults.kill, signal.SIGSEGV)),
    "bus error": partial(faults.at_sample, 8, partial(faults.kill, signal.SIGBUS)),
    "exit": partial(faults.at_sample, 8, partial(faults.exit_at_once, 3)),
    "killed while handing over": partial(faults.die_while_handing_over, 8),
    "killed in the middle of a message": partial(faults.die_with_half_a_message, 8),
    "cannot hand over": partial(faults.lose_handle, 8),
}


@LINUX
@pytest.mark.parametrize("death", DEATHS)
def test_a_worker_that_dies_ends_the_run_and_what_was_trained_is_kept(data: Path, whole: Path, death: str) -> None:
    file = options(
        data, datasets__train__num_worker_per_gpu=2, logger__save_checkpoint_freq=100, logger__print_freq=1
    )  # fmt: skip
    status, said = Child(file, data / "run", stub=DEATHS[death]).result(seconds=20)
    line = check_one_line((status, said))
    assert re.search(r"a process that reads images has died \(exit code (-9|-11|-7|3|1)\).*--auto_resume", line)
    # Batches are read ahead, so that it may have been noticed before the first step.
    trained = said.count("l_soft")
    assert trained <= 4
    assert states(data / "run") == [trained][:trained]
    check_nothing_lost(data / "run", least=trained)
    check_resumes(file, data / "run", whole)


@LINUX
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_where_images_are_read_saves_the_last_iteration(data: Path, whole: Path, workers: int) -> None:
    file = options(data, datasets__train__num_worker_per_gpu=workers, logger__save_checkpoint_freq=100)
    for error, last in ((DataError("some.png: damaged image"), 3), (ZeroDivisionError("a bug"), 4)):
        stub = partial(faults.at_sample, 2 * last + 1, partial(faults.fail, error))
        status, said = Child(file, data / "run", *["--auto_resume"] * (last > 3), stub=stub).result()
        if isinstance(error, DataError):
            assert check_one_line((status, said)).endswith("error: some.png: damaged image")
        else:
            assert status == 1
            assert "ZeroDivisionError: a bug" in said
        assert states(data / "run")[-1] == last
        assert f"Saved the state of iteration {last}" in said
    check_resumes(file, data / "run", whole)


# --- data that changes while it is read ---


@LINUX
@pytest.mark.parametrize("workers", [0, 2])
def test_an_lmdb_cut_in_half_before_and_during_training(data: Path, whole: Path, workers: int) -> None:
    store = data / "clean.lmdb"
    for _ in write_lmdb(
        store, ((path.name, path.read_bytes()) for path in sorted((data / "clean").iterdir())), 1 << 20
    ):
        pass
    file = options(
        data, datasets__train__dataroot_clean=str(store), datasets__train__num_worker_per_gpu=workers,
        logger__save_checkpoint_freq=100,
    )  # fmt: skip
    content = (store / "data.mdb").read_bytes()
    cut = partial(faults.at_sample, 6, partial(faults.cut, store / "data.mdb"))
    line = check_one_line(Child(file, data / "run", stub=cut).result())
    assert "clean.lmdb: data.mdb is shorter than when it was opened; make the LMDB again" in line
    # Workers read ahead: another one may have met it before.
    assert states(data / "run") == [3] if workers == 0 else states(data / "run") in ([], [1], [2], [3])
    line = check_one_line(Child(file, data / "run", "--auto_resume").result())
    assert "clean.lmdb: damaged LMDB" in line
    (store / "data.mdb").write_bytes(content)
    check_resumes(file, data / "run", whole)


def test_images_that_are_removed_or_replaced_during_training(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = options(data)
    whole_ones = snapshot(data / "clean")

    def replaced(by: bytes | None) -> None:
        for name in whole_ones:
            (data / "clean" / name).unlink()
            if by is not None:
                (data / "clean" / name).write_bytes(by)

    small = data / "small.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(small)
    for by, told in (
        (None, r"clean/\d\.png: no such file"),
        (b"text", r"clean/\d\.png: not an image this package reads"),
        (small.read_bytes(), r"clean/\d\.png: is of 8x8 pixels, less than when it was listed"),
    ):
        shutil.rmtree(data / "experiments", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(faults.UnpairedRain, "__getitem__", faults.UnpairedRain.__getitem__)
            faults.at_sample(6, partial(replaced, by))
            with pytest.raises(DataError, match=told):
                train(Request(file, root=data))
        assert states(data) == [2, 3]
        for name, content in whole_ones.items():
            (data / "clean" / name).write_bytes(content)
    check_resumes(file, data, whole)


# --- too little memory ---


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_too_little_memory_in_a_step_is_told_with_the_remedies(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    file = options(data)
    with monkeypatch.context() as patch:
        patch.setattr(DistillationModel, "optimize_parameters", DistillationModel.optimize_parameters)
        faults.before_step(4, partial(faults.fail, error))
        status = main(["train", "-opt", str(file), "--root", str(data)])
    line = check_one_line((status, capfd.readouterr().err))
    assert re.search(r"out of memory on cpu in iteration 4; lower .*batch_size.*crop_size.*accumulation.*--auto_", line)
    assert states(data) == [2]
    check_nothing_lost(data, least=2)
    check_resumes(file, data, whole)


def test_too_little_memory_in_validation_keeps_what_was_trained(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = options(data)
    with monkeypatch.context() as patch:
        patch.setattr(DistillationModel, "test", lambda self: faults.fail(MemoryError()))
        with pytest.raises(RainOerMeError, match=r"out of memory on cpu after iteration 3; give val\.tile a smaller"):
            train(Request(file, root=data))
    assert states(data) == [2, 3]
    check_resumes(file, data, whole)


def test_too_little_memory_to_save_is_told_once(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "save", lambda *arguments: faults.fail(MemoryError("no more")))
    status = main(["train", "-opt", str(options(data)), "--root", str(data)])
    assert "out of memory on cpu after iteration 2" in check_one_line((status, capfd.readouterr().err))


# --- signals ---


def in_validation(do: Callable[[], Any]) -> None:
    faults.when(DistillationModel, "test", lambda count: count == 1, do)


def in_writing(call: int, do: Callable[[], Any]) -> None:
    """When so many files have been written whole or are about to be."""
    faults.when(os, "replace", lambda count: count == call, do)


def in_starting(name: str, do: Callable[[], Any]) -> None:
    import basicsr.data
    import basicsr.models

    owner = {"build_model": basicsr.models, "build_dataset": basicsr.data}[name]
    faults.when(owner, name, lambda count: count == 1, do)


# Of each moment: what is called then, and the iteration that is the last one saved.
MOMENTS: dict[str, tuple[Callable[[Callable[[], Any]], None], int]] = {
    "making labels": (partial(in_writing, 2), 0),
    "reading data": (partial(in_starting, "build_dataset"), 0),
    "making the model": (partial(in_starting, "build_model"), 0),
    "a step": (partial(faults.before_step, 3), 3),
    "validation": (in_validation, 3),
    "writing a network": (partial(in_writing, 5), 3),
    "writing a state": (partial(in_writing, 7), 3),
}


@LINUX
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_ends_the_run_with_the_state_saved(
    data: Path, whole: Path, moment: str, number: int, group: bool
) -> None:
    at, last = MOMENTS[moment]
    file = options(data, datasets__train__num_worker_per_gpu=2)
    status, said = Child(file, data / "run", stub=partial(at, partial(faults.kill, number, group))).result()
    assert status == 130, said
    assert said.splitlines()[-1] == "basicsr train: interrupted"
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert states(data / "run")[-1:] == [last][:last]
    assert not list((data / "run").rglob(".*")), "left over"
    assert not list((data / "labels").rglob(".*"))
    if last:
        check_nothing_lost(data / "run", least=last)
    check_resumes(file, data / "run", whole)


SLOW: dict[str, tuple[Callable[[Callable[[], Any]], None], int]] = {
    "a step": (partial(faults.before_step, 3), 2),
    "writing a state": (partial(in_writing, 10), 2),
    "an image": (partial(faults.at_sample, 7), 3),
}


@LINUX
@pytest.mark.parametrize("moment", SLOW)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_signal_ends_it_at_once(data: Path, whole: Path, moment: str, workers: int) -> None:
    at, last = SLOW[moment]
    file = options(data, datasets__train__num_worker_per_gpu=workers, val__panels=False)
    child = Child(file, data / "run", stub=partial(at, partial(faults.sleep, 60)))
    child.wait_for("SLEEPING")
    if moment == "an image":  # a worker is ahead
        child.wait_for("Validation val")
        time.sleep(0.5)
    child.signal(signal.SIGTERM)
    time.sleep(0.7)
    assert child.process.is_alive()
    child.signal(signal.SIGTERM)
    start = time.monotonic()
    status, said = child.result()
    assert time.monotonic() - start < 2
    assert status == 130, said
    assert "Traceback" not in said
    assert states(data / "run")[-1] == last
    check_nothing_lost(data / "run", least=last)
    assert not list((data / "run").rglob(".*"))
    check_resumes(file, data / "run", whole)


@LINUX
def test_a_slow_validation_ends_with_the_first_signal(data: Path, whole: Path) -> None:
    file = options(data, logger__save_checkpoint_freq=100)
    child = Child(file, data / "run", stub=partial(in_validation, partial(faults.sleep, 60)))
    child.wait_for("SLEEPING")
    child.signal(signal.SIGTERM)
    start = time.monotonic()
    status, said = child.result()
    assert time.monotonic() - start < 2
    assert status == 130, said
    assert states(data / "run") == [3]
    check_resumes(file, data / "run", whole)


@LINUX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_command_is_still_being_imported(data: Path, number: int) -> None:
    command = [sys.executable, "-m", "rainoerme_plugin", "train", "-opt", str(options(data)), "--root", str(data)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "basicsr train: interrupted\n")
    assert not (data / "experiments").exists()
