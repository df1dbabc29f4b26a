"""Does a long training leak? Memory, open files and LMDB readers of `basicsr train` and its workers over time.

    python scripts/soak.py [--opt options/distill_cpu.yml] [--minutes 60] [--output soak.csv] [--plot soak.png] \\
        datasets.train.dataroot_rainy=RAINY datasets.train.dataroot_clean=CLEAN datasets.val.dataroot=RAINY ...
    python scripts/soak.py --read soak.csv --plot soak.png       # an earlier soak

Trains without end, validates every hundred iterations, and is stopped with SIGTERM when the time is up. Slopes are
Theil and Sen's (the median of those of all pairs of samples), after the first tenth of the time. Judged is the
processes' own memory: their proportional share of all that is not pages of files; those of an LMDB count as resident
when they have been read, and can be dropped at any time. LMDBs are opened without lock files, so that readers are
counted as maps of their ``data.mdb``.

Exit status 1 if own memory grows by more than --tolerance an hour, the numbers of files, maps, threads or processes
grow at all, or the training ended without a state to go on from. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from measure import say
from processes import ITERATION, in_session
from scipy.stats import theilslopes

OPTIONS = Path(__file__).parent.parent / "options" / "distill_cpu.yml"
NAME = "soak"
ENDLESS = ("train.total_iter=10000000", "train.scheduler.end=10000000", "val.val_freq=100", "logger.print_freq=20")
WARM_UP = 0.1
"""The share of the time that is not judged."""
SHORT = 30
"""Minutes below which slopes mean little."""
GRACE = 120.0
"""Seconds to end in after SIGTERM, and 10 more for workers."""
LINES = {
    "rss_training": ("training process, resident", "#1f77b4"),
    "rss_workers": ("workers, resident", "#ff7f0e"),
    "own": ("all but pages of files", "#2ca02c"),
    "files_training": ("training process", "#1f77b4"),
    "files_workers": ("workers", "#ff7f0e"),
    "maps_training": ("training process", "#1f77b4"),
    "maps_workers": ("workers", "#ff7f0e"),
}


@dataclass(frozen=True)
class Sample:
    """One look at the training; memory in MB, the workers' figures summed up."""

    minutes: float
    iteration: int
    validations: int
    rss_training: float
    rss_workers: float
    pss: float
    """The proportional share of all processes, with pages of files."""
    own: float
    """The same without pages of files."""
    files_training: int
    files_workers: int
    maps_training: int
    maps_workers: int
    threads: int
    processes: int
    free_gb: float
    """On the disk that is written to."""


class _Process(NamedTuple):
    """One process: memory in MB, open files, maps of LMDBs, threads."""

    rss: float
    pss: float
    own: float
    files: int
    maps: int
    threads: int


def _values(file: Path) -> dict[str, int]:
    """The numbers of a file of lines such as ``VmRSS:  123 kB``."""
    parts = (line.split() for line in file.read_text().splitlines())
    return {part[0].rstrip(":"): int(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()}


def look_at(process: int) -> _Process:
    """What a process holds.

    Raises:
        OSError: It has ended.
    """
    folder = Path("/proc") / str(process)
    status, shares = _values(folder / "status"), _values(folder / "smaps_rollup")
    maps = sum(line.endswith("/data.mdb") for line in (folder / "maps").read_text().splitlines())
    own = shares["Pss_Anon"] + shares["Pss_Shmem"]
    files = len(os.listdir(folder / "fd"))
    return _Process(
        status["VmRSS"] * 1.024e-3, shares["Pss"] * 1.024e-3, own * 1.024e-3, files, maps, status["Threads"]
    )


# --- the training ---


class Training:
    """``basicsr train`` as a child process, with its log beside the output."""

    def __init__(self, options: Path, settings: Sequence[str], root: Path, log: Path) -> None:
        self.root, self.log = root, log
        self.experiment = root / "experiments" / NAME
        command = [sys.executable, "-m", "rainoerme_plugin", "train", "-opt", str(options), "--root", str(root)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *ENDLESS, *settings, f"name={NAME}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.iteration = self.validations = 0

    def sample(self) -> Sample | None:
        """Look at all its processes; None before the first iteration is logged, or while processes come and go."""
        text = self.log.read_text(errors="replace")
        found = ITERATION.findall(text)
        self.iteration = int(found[-1].replace(",", "")) if found else 0
        panels = self.experiment / "visualization" / "panels"
        self.validations = len(list(panels.glob("training_*")))
        if not found:
            return None
        workers = [process for process in in_session(self.process.pid) if process != self.process.pid]
        try:
            own, others = look_at(self.process.pid), [look_at(process) for process in workers]
        except (OSError, KeyError):
            return None
        return Sample(
            round((time.monotonic() - self.started) / 60, 4),
            self.iteration,
            self.validations,
            round(own.rss, 1),
            round(sum(each.rss for each in others), 1),
            round(sum(each.pss for each in (own, *others)), 1),
            round(sum(each.own for each in (own, *others)), 1),
            own.files,
            sum(each.files for each in others),
            own.maps,
            sum(each.maps for each in others),
            sum(each.threads for each in (own, *others)),
            1 + len(others),
            round(shutil.disk_usage(self.root).free / 1e9, 2),
        )

    def stop(self) -> list[str]:
        """End it with SIGTERM; what was not as it should be."""
        if self.process.poll() is not None:
            return [f"the training ended by itself ({self.process.returncode}): {self._last_words()}"]
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return [f"the training still ran {GRACE:.0f} s after SIGTERM"]
        faults = []
        logged = ITERATION.findall(self.log.read_text(errors="replace"))
        reached = int(logged[-1].replace(",", "")) if logged else 0
        states = list((self.experiment / "training_states").glob("*.state"))
        newest = max((int(state.stem) for state in states if state.stem.isdigit()), default=0)
        if newest < max(reached, 1):
            faults.append(f"iteration {reached} was reached, the newest state is of {newest}: {self._last_words()}")
        else:
            state = self.experiment / "training_states" / f"{newest}.state"
            for path in (state, self.experiment / "models" / f"net_g_{newest}.pth"):
                torch.load(path, map_location="cpu", weights_only=True)
            say(f"stopped; the state of iteration {newest} is saved")
        end = time.monotonic() + 10
        while (left := in_session(self.process.pid)) and time.monotonic() < end:
            time.sleep(0.2)
        if left:
            faults.append(f"{len(left)} processes live on")
        return faults

    def end(self) -> None:
        """Leave no process behind."""
        for process in in_session(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "(nothing was printed)"


def samples(training: Training, minutes: float, every: float) -> Iterator[Sample]:
    """Look at the training every so many seconds, until the time is up or it has ended."""
    end = training.started + 60 * minutes
    while time.monotonic() < end and training.process.poll() is None:
        if (found := training.sample()) is not None:
            yield found
        time.sleep(every)


def soak(
    options: Path, settings: Sequence[str], root: Path, output: Path, minutes: float, every: float
) -> tuple[list[Sample], list[str]]:
    """Train for some minutes, writing a line of CSV a sample.

    Returns:
        The samples, and what was wrong with the end of the training.
    """
    training = Training(options, settings, root, output.with_suffix(".log"))
    taken: list[Sample] = []
    try:
        with output.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(Sample))
            with suppress(KeyboardInterrupt):  # Ctrl-C: that was enough
                for sample in samples(training, minutes, every):
                    taken.append(sample)
                    writer.writerow(astuple(sample))
                    file.flush()
                    if len(taken) % max(1, round(60 / every)) == 1:
                        say(
                            f"{sample.minutes:6.1f} min  iteration {sample.iteration}  own memory {sample.own:.0f} MB  "
                            f"files {sample.files_training} + {sample.files_workers}  "
                            f"LMDB maps {sample.maps_training} + {sample.maps_workers}  free {sample.free_gb:.1f} GB"
                        )
        return taken, training.stop()
    finally:
        training.end()


def read_samples(file: Path) -> list[Sample]:
    """The samples of an earlier soak."""
    kinds: list[Callable[[str], Any]] = [float if field.type == "float" else int for field in fields(Sample)]
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    return [Sample(*(kind(value) for kind, value in zip(kinds, row, strict=True))) for row in rows[1:]]


# --- the verdict ---


class Growth(NamedTuple):
    """How a series grows after the warm-up."""

    level: float
    """Its median."""
    an_hour: float
    """Theil and Sen's slope, in its unit an hour."""
    rise: float
    """The median of its last quarter less that of its first: a few steps up show here, not in the slope."""

    @property
    def percent(self) -> float:
        """The slope in per cent of the level, an hour."""
        return 100 * self.an_hour / self.level if self.level else 0.0


def growth(minutes: Sequence[float], values: Sequence[float], warm_up: float = WARM_UP) -> Growth:
    """How a series grows after the first ``warm_up`` of the time."""
    first = warm_up * minutes[-1]
    pairs = [(minute / 60, value) for minute, value in zip(minutes, values, strict=True) if minute >= first]
    if len(pairs) < 8:
        raise ValueError(f"{len(pairs)} samples after the warm-up are too few to judge by")
    hours, judged = zip(*pairs, strict=True)
    quarter = len(judged) // 4
    rise = statistics.median(judged[-quarter:]) - statistics.median(judged[:quarter])
    return Growth(statistics.median(judged), float(theilslopes(judged, hours)[0]), rise)


COUNTS = ("files_training", "files_workers", "maps_training", "maps_workers", "threads", "processes")


def verdict(taken: Sequence[Sample], tolerance: float) -> tuple[dict[str, Growth], list[str]]:
    """How every series grows, and those that grow too much.

    Args:
        taken: The samples.
        tolerance: Per cent an hour that own memory may grow by; counts may not at all.
    """
    minutes = [sample.minutes for sample in taken]
    names = ("own", "pss", "rss_training", "rss_workers", *COUNTS, "free_gb")
    found = {name: growth(minutes, [getattr(sample, name) for sample in taken]) for name in names}
    faults = []
    if found["own"].percent > tolerance:
        faults.append(f"own memory grows by {found['own'].percent:.2f} % an hour, more than {tolerance:g} %")
    for name in COUNTS:
        if found[name].an_hour > 0 or found[name].rise > 0:
            faults.append(f"{name} grows by {found[name].an_hour:.2f} an hour, in all by {found[name].rise:g}")
    return found, faults


def table(found: dict[str, Growth]) -> str:
    """The growth of every series, a line each."""
    lines = [f"{'':16}{'median':>10}{'an hour':>12}{'% an hour':>12}{'last - first quarter':>22}"]
    for name, grown in found.items():
        lines.append(f"{name:16}{grown.level:10.1f}{grown.an_hour:+12.2f}{grown.percent:+12.2f}{grown.rise:+22.1f}")
    return "\n".join(lines)


# --- the plot ---


def draw(taken: Sequence[Sample], found: dict[str, Growth], file: Path) -> None:
    """Memory, open files and LMDB maps over time, one below the other."""
    panels = (
        ("memory (MB)", ("rss_training", "rss_workers", "own")),
        ("open files", ("files_training", "files_workers")),
        ("LMDB maps", ("maps_training", "maps_workers")),
    )
    minutes = [sample.minutes for sample in taken]
    pyplot.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, places = pyplot.subplots(3, 1, figsize=(9, 8.2), sharex=True, height_ratios=(2, 1, 1))
    for axes, (what, names) in zip(places, panels, strict=True):
        for name in names:
            label, colour = LINES[name]
            values = [getattr(sample, name) for sample in taken]
            if any(values):
                grown = f"{found[name].percent:+.1f} %" if "MB" in what else f"{found[name].an_hour:+.1f}"
                axes.plot(minutes, values, color=colour, linewidth=1.6, label=f"{label}: {grown}/h")
        _finish_panel(axes, what, minutes[-1])
    places[0].text(0.006, 0.97, "warm-up", transform=places[0].transAxes, fontsize=9, color="#595959", va="top")
    last = taken[-1]
    figure.suptitle(
        f"{last.minutes:.3g} minutes of training: {last.iteration:,} iterations, {last.validations} validations, "
        f"{last.processes - 1} workers",
        x=0.02,
        ha="left",
        fontsize=12,
    )
    places[-1].set_xlabel("minutes")
    figure.align_ylabels(places)
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    pyplot.close(figure)
    say(str(file))


def _finish_panel(axes: Axes, what: str, minutes: float) -> None:
    top = float(max((np.max(line.get_ydata()) for line in axes.lines), default=1))
    axes.axvspan(0, WARM_UP * minutes, color="#8c8c8c", alpha=0.18, linewidth=0)
    axes.set(ylabel=what, xlim=(0, minutes), ylim=(0, 1.2 * top))  # from 0: what hardly grows should look so
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.01),
            borderaxespad=0,
            ncols=3,
            fontsize=9.5,
            frameon=False,
            handlelength=1.2,
            columnspacing=1.2,
        )
    else:
        axes.text(0.5 * minutes, 0.7 * top, "none", ha="center", color="#595959")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="override keys of the option file")
    parser.add_argument("--opt", type=Path, default=OPTIONS, metavar="FILE", help="option file (distill_cpu.yml)")
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument("--every", type=float, default=5, metavar="SECONDS", help="between samples (5)")
    parser.add_argument("--output", type=Path, default=Path("soak.csv"), metavar="CSV", help="samples (soak.csv)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw them")
    tolerance_help = "that memory may grow by an hour (2)"
    parser.add_argument("--tolerance", type=float, default=2.0, metavar="PERCENT", help=tolerance_help)
    root_help = "where experiments/ is made (a temporary folder)"
    parser.add_argument("--root", type=Path, metavar="DIR", help=root_help)
    parser.add_argument("--read", type=Path, metavar="CSV", help="judge and draw an earlier soak; train nothing")
    arguments = parser.parse_args()
    faults: list[str] = []
    if arguments.read:
        taken = read_samples(arguments.read)
    else:
        with TemporaryDirectory() as temporary:
            root = arguments.root or Path(temporary)
            root.mkdir(parents=True, exist_ok=True)
            taken, faults = soak(
                arguments.opt, arguments.settings, root, arguments.output, arguments.minutes, arguments.every
            )
    try:
        found, grown = verdict(taken, arguments.tolerance)
    except (IndexError, ValueError) as error:
        faults.append(f"cannot be judged: {error}" if taken else "no samples were taken")
    else:
        faults += grown
        if taken[-1].minutes < SHORT:
            say(f"{taken[-1].minutes:.1f} minutes are few: one step up looks like a steep slope; take {SHORT} or more")
        print(table(found))
        if arguments.plot:
            draw(taken, found, arguments.plot)
    print("\n".join(f"FAULT: {fault}" for fault in faults) if faults else "no growth")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
