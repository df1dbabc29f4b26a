"""Does training lose anything when it is killed? It is killed at many moments, and started again each time.

    python scripts/kill_and_resume.py [--kills 50] [--seed 0] [--workers 0,2] [--signal KILL|TERM] [--json]

A tiny network is trained on the CPU without a break, then again while it is killed: as it starts, makes labels, trains,
writes checkpoints and validates; each time it goes on with --auto_resume, with another number of workers and from
another working directory. After every kill all checkpoints must be whole and no iteration before the last checkpoint
lost; none of its processes may live on; in the end the weights must be those of the run without a break, bit for bit.

Exit status 1 if anything of this is not so. Linux only. About six minutes for 50 kills.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measure import say
from processes import ITERATION, in_session

# The data set and the option file are those of the tests.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from tiny import tiny_options, write_images  # type: ignore[import-not-found]

NAME = "tiny"
CHECKPOINT, VALIDATION = 3, 6
"""Iterations between checkpoints and validations."""
RAINY = 12
"""Images, and so labels."""
MOMENTS = ("start", "labels", "step", "step", "writing", "writing", "writing", "written", "validation")
"""What is aimed at, of every nine kills: the start, labels being made, a step, a temporary file just made, a file just
renamed, a validation."""
GRACE = 10.0
"""Seconds that workers have to notice that their parent is dead; PyTorch's look every five."""
PATIENCE = 120.0
"""Seconds without anything new after which a run is taken to hang."""


@dataclass(frozen=True)
class Kill:
    """One kill, and what was found after it."""

    number: int
    aim: str
    doing: str
    """What was being done, as far as the files and the log tell."""
    workers: int
    iteration: int
    """The last one logged."""
    saved: int
    """The iteration of the newest training state."""
    left: tuple[str, ...]
    """Temporary files that it left behind: a file was being written."""
    checked: int
    """Files that were read."""

    def __str__(self) -> str:
        left = f"; left {len(self.left)} temporary" if self.left else ""
        return (
            f"kill {self.number:3}  aim {self.aim:10}  {self.workers} workers  iteration {self.iteration:4}  "
            f"saved {self.saved:4}  {self.doing}{left}; {self.checked} files whole"
        )


@dataclass
class Report:
    """What came of it all."""

    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    refused: int = 0
    """Starts that were refused because the experiment was still in use by what the kill before had left."""
    temporary: int = 0
    """Temporary files that are there in the end."""
    identical: bool = False
    """Whether the weights are those of the run without a break, bit for bit."""
    finished: bool = False
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.finished and self.identical and not self.faults

    @property
    def hit_writing(self) -> int:
        """Kills that hit a file being written: they left its temporary file behind."""
        return sum(bool(kill.left) for kill in self.kills)

    @property
    def checked(self) -> int:
        return sum(kill.checked for kill in self.kills)

    def as_dict(self) -> dict[str, Any]:
        figures = {"ok": self.ok, "made": len(self.kills), "hit_writing": self.hit_writing, "checked": self.checked}
        return {**figures, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        doing = Counter(re.sub(r"\d+", "N", kill.doing) for kill in self.kills)
        lines = [
            f"{len(self.kills)} kills in {self.starts} starts and {self.seconds:.0f} s:",
            *(f"  {count:4} {what}" for what, count in doing.most_common()),
            f"{self.hit_writing} kills left a temporary file behind; {self.temporary} are there in the end",
            f"{self.checked} files read after kills",
            f"{self.refused} starts refused, the experiment being still in use",
            f"finished: {'yes' if self.finished else 'NO'}",
            f"weights bit-identical to those of the run without a break: {'yes' if self.identical else 'NO'}",
            *(f"FAULT: {fault}" for fault in self.faults),
            "nothing lost" if self.ok else "FAILED",
        ]
        return "\n".join(lines)


# --- what is on the disk ---


def temporary_files(experiment: Path, labels: Path) -> set[Path]:
    """Files whose name begins with a dot: those that are being written, and what is left of them."""
    folders = (experiment, experiment / "models", experiment / "training_states")
    return {path for folder in folders for path in folder.glob(".*")} | set(labels.rglob(".*"))


def saved_iteration(experiment: Path) -> int:
    """That of the newest training state; 0 if there is none."""
    states = (experiment / "training_states").glob("*.state")
    return max((int(path.stem) for path in states if path.stem.isdigit()), default=0)


def finished_files(experiment: Path, labels: Path) -> list[Path]:
    """Checkpoints and labels under their own names."""
    folders = (experiment / "models", experiment / "training_states", labels)
    return [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint or an image; None if it is whole."""
    try:
        if path.suffix == ".png":
            from PIL import Image

            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            load_file(path)
        else:
            torch.load(path, map_location="cpu", weights_only=True)
            # torch.load does not look at the checksums of an archive.
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    if (broken := archive.testzip()) is not None:
                        return f"{path.name}: {broken} in it does not match its checksum"
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        return f"{path.name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


def differences(one: Path, other: Path) -> list[str]:
    """The weights that differ between two checkpoints, in as much as a bit."""
    a, b = (torch.load(path, map_location="cpu", weights_only=True) for path in (one, other))
    found = [f"{key}: only in one of the two" for key in sorted(a.keys() ^ b.keys())]
    found += [f"{key}: missing" for key in ("params", "params_ema") if key not in a]
    for key in sorted(a.keys() & b.keys()):
        found += [f"{key}.{name}: only in one of the two" for name in sorted(a[key].keys() ^ b[key].keys())]
        for name in sorted(a[key].keys() & b[key].keys()):
            x, y = a[key][name], b[key][name]
            alike = x.dtype == y.dtype and x.shape == y.shape
            # Bytes too: 0 equals -0, and no NaN another.
            if not (alike and torch.equal(x, y) and x.numpy().tobytes() == y.numpy().tobytes()):
                found.append(f"{key}.{name}")
    return found


# --- one start ---


class Start:
    """A training process, and what its log has said so far."""

    def __init__(self, options: Path, root: Path, workers: int, log: Path, resume: bool = True) -> None:
        here = log.parent / ("here" if workers else "there")
        here.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "rainoerme_plugin", "train", "-opt", os.path.relpath(options, here)]
        command += ["--root", os.path.relpath(root, here), f"datasets.train.num_worker_per_gpu={workers}"]
        command += ["--auto_resume"] * resume
        self.workers, self.experiment = workers, root / "experiments" / NAME
        self.first = saved_iteration(self.experiment)
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=here,
                env={"OMP_NUM_THREADS": "1", **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.iteration, self.validated, self.began = self.first, self.first, 0.0
        self._read = 0
        self._new = self.started

    def look(self) -> bool:
        """Read what is new in the log; whether the process still runs."""
        running = self.process.poll() is None
        with self._log.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read += len(text)
        for line in text.decode().splitlines():
            if found := ITERATION.search(line):
                self.iteration = int(found[1].replace(",", ""))
                self.began = self.began or time.monotonic()
            elif "Validation val" in line:
                self.validated = self.iteration
        if text:
            self._new = time.monotonic()
        elif time.monotonic() - self._new > PATIENCE:
            raise TimeoutError(f"nothing new in the log for {PATIENCE:.0f} s; {self._log}")
        return running

    def until(self, reached: Callable[[], bool], pause: float = 0.0005) -> bool:
        """Wait for something; False if the process ended before."""
        while self.look():
            if reached():
                return True
            time.sleep(pause)
        return False

    def end(self, number: signal.Signals) -> None:
        """Send a signal to the process (not to its workers), and wait until it has ended."""
        self.process.send_signal(number)
        self.process.wait(GRACE if number == signal.SIGKILL else 60)
        self.look()

    def last_words(self) -> str:
        lines = [line for line in self._log.read_text().splitlines() if line.strip()]
        return lines[-1] if lines else "(nothing was printed)"

    def doing(self, left: set[Path], labels: Path) -> str:
        """What it was doing when it was killed."""
        for path in left:
            if labels in path.parents:
                return "making labels"
            return f"writing {path.name[1:].rpartition('.')[0]}"
        if not self.began:
            return "making labels" if 0 < len(list(labels.rglob("*.png"))) < RAINY else "starting"
        saved = saved_iteration(self.experiment)
        if self.iteration % CHECKPOINT == 0 and saved < self.iteration:
            model = self.experiment / "models" / f"net_g_{self.iteration}.pth"
            return "between network and state" if model.exists() else "about to save"
        if self.iteration % VALIDATION == 0 and self.validated < self.iteration:
            return "validating"
        return "training"


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds: from the start to the first iteration, and an iteration with all about it."""

    start: float
    iteration: float


def wait_for(aim: str, start: Start, pace: Pace, chance: random.Random, least: int, limit: int, labels: Path) -> bool:
    """Wait for the moment of a kill; a random one after iteration ``limit`` if what is aimed at does not come before.

    Returns:
        False: The process ended by itself.
    """
    if aim == "start":
        end = start.started + chance.uniform(0, pace.start)
        return start.until(lambda: time.monotonic() >= end or start.iteration > max(limit, start.first))
    if aim == "labels":
        found = start.until(lambda: start.began > 0 or any(labels.rglob("*.*")))
        time.sleep(chance.uniform(0, 0.02))
        return found
    if aim == "step":
        target = chance.randint(min(start.first + least, limit), limit)
        found = start.until(lambda: start.began > 0 and start.iteration >= target)
        time.sleep(chance.uniform(0, pace.iteration))
        return found
    if aim == "validation":

        def reached() -> bool:
            due = start.iteration % VALIDATION == 0 and start.iteration >= start.first + least
            return due and saved_iteration(start.experiment) == start.iteration
    else:
        before, seen = set(_names(start.experiment)), set[str]()
        kind = chance.choice((".pth", ".state"))
        wanted = chance.randint(1, 2) + least // CHECKPOINT

        def reached() -> bool:
            for name in _names(start.experiment):
                if name not in before and kind in name and (name[0] == ".") == (aim == "writing"):
                    seen.add(name)
            return len(seen) >= wanted

    found = start.until(lambda: start.began > 0 and (start.iteration > limit or reached()), pause=0)
    time.sleep(chance.choice((0, chance.uniform(0, pace.iteration if aim == "validation" else 0.002))))
    return found


def _names(experiment: Path) -> Iterator[str]:
    for folder in ("models", "training_states"):
        with contextlib.suppress(FileNotFoundError):
            yield from os.listdir(experiment / folder)


# --- all of it ---


def make_run(root: Path, iterations: int) -> Path:
    """A data set below ``root`` and the option file of a run on it."""
    write_images(root / "rainy", RAINY, (60, 72), seed=1, prefix="rain")
    write_images(root / "clean", 5, (40, 48), seed=2)
    write_images(root / "val" / "rain", 3, (60, 72), seed=3, prefix="rain")
    write_images(root / "val" / "norain", 3, (60, 72), seed=3)
    return Path(
        tiny_options(
            root,
            train__total_iter=iterations,
            train__scheduler={"start": iterations // 2, "end": iterations},
            train__collapse_guard={"enabled": False},
            val__val_freq=VALIDATION,
            logger__print_freq=1,
            logger__save_checkpoint_freq=CHECKPOINT,
        )
    )


def without_a_break(options: Path, root: Path, log: Path) -> Pace:
    """Train to the end."""
    start = Start(options, root, 0, log, resume=False)
    start.until(lambda: False, pause=0.005)
    if start.process.returncode:
        raise RuntimeError(f"the run without a break failed: {start.last_words()}")
    taken = time.monotonic() - start.began
    return Pace(start.began - start.started, taken / start.iteration)


def kill_and_resume(
    root: Path,
    kills: int = 50,
    seed: int = 0,
    workers: Sequence[int] = (0, 2),
    number: signal.Signals = signal.SIGKILL,
    moments: Sequence[str] = MOMENTS,
    tell: Callable[[str], None] = say,
) -> Report:
    """Train without a break, and again with ``kills`` kills.

    Args:
        root: An empty folder for data, option file, logs and experiments.
        kills: How many.
        seed: Of the moments.
        workers: Numbers of data loader workers, of the starts in turn.
        number: The signal that kills.
        moments: What is aimed at, in every ``len(moments)`` kills in another order.
        tell: Gets a line a kill.

    Raises:
        RuntimeError: The run without a break fails.
    """
    return _Harness(root, kills, seed, workers, number, moments, tell).run()


class _Harness:
    def __init__(
        self,
        root: Path,
        kills: int,
        seed: int,
        workers: Sequence[int],
        number: signal.Signals,
        moments: Sequence[str],
        tell: Callable[[str], None],
    ) -> None:
        self.kills, self.workers, self.number, self.moments, self.tell = kills, workers, number, moments, tell
        self.root, self.labels = root.resolve(), root.resolve() / "labels"
        self.experiment = self.root / "killed" / "experiments" / NAME
        self.logs = self.root / "logs"
        self.logs.mkdir(parents=True)
        self.chance = random.Random(seed)
        self.report = Report()
        self.iterations = 30 + 2 * CHECKPOINT * kills
        self.orphans: list[tuple[int, float]] = []
        """Sessions of killed processes, and when these were killed."""

    def run(self) -> Report:
        began = time.monotonic()
        self.options = make_run(self.root, self.iterations)
        self.tell(f"{self.iterations} iterations without a break")
        self.pace = without_a_break(self.options, self.root / "whole", self.logs / "whole.log")
        self.tell(f"{self.pace.start:.1f} s to the first iteration, {1000 * self.pace.iteration:.0f} ms an iteration")
        try:
            for aim in self._aims():
                if not self._kill(aim):
                    break
            else:
                self._finish()
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            self.report.faults.append(str(error))
        finally:
            self._check_orphans(wait=True)
        self.report.seconds = time.monotonic() - began
        return self.report

    def _aims(self) -> Iterator[str]:
        """What is aimed at, one after the other."""
        for first in range(0, self.kills, len(self.moments)):
            turn = self.chance.sample(self.moments, len(self.moments))
            yield from turn[: self.kills - first]

    def _start(self) -> Start:
        workers = self.workers[len(self.report.kills) % len(self.workers)]
        self.report.starts += 1
        start = Start(self.options, self.root / "killed", workers, self.logs / f"{self.report.starts:04}.log")
        self.orphans.append((start.process.pid, float("inf")))
        return start

    def _kill(self, aim: str) -> bool:
        """Start, kill and look; False if it cannot go on."""
        done, kills = self.report.kills, self.kills - len(self.report.kills)
        stuck = len(done) > 2 and len({kill.saved for kill in done[-3:]}) == 1
        least = 2 * CHECKPOINT if stuck else 0  # after three kills without a new checkpoint
        saved = saved_iteration(self.experiment)
        limit = min(
            self.iterations - 3 * CHECKPOINT,
            saved + max(least, VALIDATION, 2 * (self.iterations - saved) // (kills + 1)),
        )
        if limit <= saved and aim != "labels":
            aim = "start"
        if aim == "labels":
            shutil.rmtree(self.labels, ignore_errors=True)
        waited = time.monotonic()
        while True:
            before = temporary_files(self.experiment, self.labels)
            start = self._start()
            if wait_for(aim, start, self.pace, self.chance, least, limit, self.labels):
                start.end(self.number)
                if self.number != signal.SIGKILL or start.process.returncode == -signal.SIGKILL:
                    break
            if not self._refused(start, waited):
                return False
        self.orphans[-1] = (start.process.pid, time.monotonic())
        self._look(aim, start, before, saved)
        self._check_orphans()
        return True

    def _refused(self, start: Start, since: float) -> bool:
        """Whether a start that ended by itself only found the experiment in use; if not, that is a fault."""
        if start.process.returncode and "in use by" in start.last_words() and time.monotonic() - since < 3 * GRACE:
            self.report.refused += 1
            self.tell(f"refused: {start.last_words()}")
            return True
        what = "finished too early" if not start.process.returncode else f"failed ({start.process.returncode})"
        self.report.faults.append(f"start {self.report.starts} {what}: {start.last_words()}")
        return False

    def _look(self, aim: str, start: Start, before: set[Path], saved_before: int) -> None:
        """Read all files after a kill, and see whether iterations were lost."""
        left = temporary_files(self.experiment, self.labels) - before
        files = finished_files(self.experiment, self.labels)
        faults = [fault for path in files if (fault := fault_of(path)) is not None]
        saved = saved_iteration(self.experiment)
        if saved < saved_before:
            faults.append(f"the newest state is of iteration {saved}, and was of {saved_before} before")
        # What is done since the last checkpoint may go, with SIGTERM not even that.
        may_go = CHECKPOINT if self.number == signal.SIGKILL else 0
        if start.iteration - saved > may_go:
            faults.append(f"iteration {start.iteration} was reached, but only {saved} is saved")
        kill = Kill(
            len(self.report.kills) + 1,
            aim,
            start.doing(left, self.labels),
            start.workers,
            start.iteration,
            saved,
            tuple(sorted(path.name for path in left)),
            len(files),
        )
        self.report.kills.append(kill)
        self.report.faults += [f"kill {kill.number} ({kill.doing}): {fault}" for fault in faults]
        self.tell(f"{kill}{''.join(f' FAULT: {fault}' for fault in faults)}")

    def _finish(self) -> None:
        """Let it train to the end, and compare."""
        waited = time.monotonic()
        while True:
            start = self._start()
            start.until(lambda: False, pause=0.005)
            if start.process.returncode == 0:
                break
            if not self._refused(start, waited):
                return
        self.orphans[-1] = (start.process.pid, time.monotonic())
        self.report.finished = True
        self.report.faults += filter(None, map(fault_of, finished_files(self.experiment, self.labels)))
        self.report.temporary = len(temporary_files(self.experiment, self.labels))
        latest = Path("experiments") / NAME / "models" / "net_g_latest.pth"
        differ = differences(self.root / "whole" / latest, self.root / "killed" / latest)
        self.report.identical = not differ
        if differ:
            shown = ", ".join(differ[:3]) + (" ..." if len(differ) > 3 else "")
            self.report.faults.append(f"{len(differ)} weights differ: {shown}")

    def _check_orphans(self, wait: bool = False) -> None:
        """See that no process has outlived its killed parent for long, and end those that have."""
        while self.orphans:
            remaining = []
            for session, killed in self.orphans:
                processes = in_session(session)
                if processes and (time.monotonic() - killed > GRACE or (wait and killed == float("inf"))):
                    if killed != float("inf"):
                        self.report.faults.append(f"{len(processes)} processes live {GRACE:.0f} s after a kill")
                    for process in processes:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(process, signal.SIGKILL)
                elif processes:
                    remaining.append((session, killed))
            self.orphans = remaining
            if not wait:
                return
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how many (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--workers", default="0,2", metavar="N,...", help="workers of the starts in turn (0,2)")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="that kills (KILL)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work there, in a new folder, and keep it")
    arguments = parser.parse_args()
    workers = [int(count) for count in arguments.workers.split(",")]
    with TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary) / "run"
        report = kill_and_resume(
            root, arguments.kills, arguments.seed, workers, signal.Signals[f"SIG{arguments.signal}"]
        )
    print(json.dumps(report.as_dict(), indent=2) if arguments.json else report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
