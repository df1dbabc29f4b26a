"""Which settings help? Many short trainings, some at a time, and a table of their validation figures.

    RAINOERME_DATA=FOLDER python scripts/ablation.py scripts/ablation.yml --root OUT --processes 12 --minutes 8
    python scripts/ablation.py scripts/ablation.yml --root OUT --read         # the table of what is there, once more

The grid file has ``base`` (an option file, from the grid's folder), ``common`` (KEY=VALUE overrides of all),
``variants`` (a name each, with a list of overrides), and perhaps ``seeds`` and ``iterations``. The first seed of every
variant is trained first. A run that was killed goes on when the script is started again with the same --root; one that
is done is left; when the time is up, all are stopped and keep what they have.

The table compares means over seeds at one iteration: the last one that every variant has reached in a seed at least.
Settings are chosen on validation pairs: data below a folder called test are refused. Under --root: experiments/ (the
runs), labels/ (soft labels, made once), ablation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from processes import ITERATION

from rainoerme_plugin.config import parse_override, parse_yaml, read_options
from rainoerme_plugin.errors import OptionError, RainOerMeError

_FIGURE = re.compile(r"^\s*# (\w+): (-?[\d.]+|nan)\s")
_VALIDATION = re.compile(r"INFO: Validation ")
GRACE = 20.0
"""Seconds in which a run saves its state after SIGINT."""
QUICK = (
    "val.panels=false",
    "val.pbar=false",
    "logger.use_tb_logger=false",
    "logger.keep_checkpoints=1",
)
"""What takes time and is not looked at here."""


@dataclass(frozen=True)
class Grid:
    """What is to be compared."""

    base: Path
    common: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    iterations: int


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed."""

    variant: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.variant}__{self.seed}"


Curve = dict[int, dict[str, float]]
"""Figures by iteration."""


def read_grid(file: Path, seeds: Sequence[int] | None = None, iterations: int | None = None) -> Grid:
    """The grid of a file; ``seeds`` and ``iterations`` replace its own.

    Raises:
        OptionError: It has other keys, or values that are none.
    """
    grid = parse_yaml(file.read_text("utf-8"), str(file))
    known = {"base", "common", "variants", "seeds", "iterations"}
    if not isinstance(grid, Mapping) or not {"base", "variants"} <= set(grid) <= known:
        raise OptionError(f"{file}: expected the keys base and variants, and perhaps {', '.join(sorted(known))}")
    variants = grid["variants"]
    if not isinstance(variants, Mapping) or not variants:
        raise OptionError(f"{file}: variants: expected a name and a list of KEY=VALUE each")
    for name, overrides in {**variants, "common": grid.get("common") or []}.items():
        if not isinstance(overrides or [], list) or not all(isinstance(text, str) for text in overrides or []):
            raise OptionError(f"{file}: {name}: expected a list of KEY=VALUE")
        if not re.fullmatch(r"[\w.+-]+", str(name)) or "__" in str(name):
            raise OptionError(f"{file}: variants: '{name}' cannot be the name of a folder")
    return Grid(
        base=file.parent / grid["base"],
        common=tuple(grid.get("common") or ()),
        variants={name: tuple(overrides or ()) for name, overrides in variants.items()},
        seeds=tuple(seeds or grid.get("seeds") or (0, 1, 2)),
        iterations=int(iterations or grid.get("iterations") or 4000),
    )


def runs_of(grid: Grid, root: Path, validations: int) -> list[Run]:
    """Every variant with the first seed, then with the next one ..."""
    every = max(1, grid.iterations // validations)
    length = (
        f"train.total_iter={grid.iterations}",
        f"train.scheduler.start={grid.iterations // 2}",
        f"train.scheduler.end={grid.iterations}",
        f"val.val_freq={every}",
        f"logger.print_freq={every}",  # so that the log tells the iteration before each validation's figures
        f"logger.save_checkpoint_freq={every}",
        f"datasets.train.label_cache={root / 'labels'}",
    )
    return [
        Run(
            variant, seed, (*QUICK, *length, *grid.common, *overrides, f"manual_seed={seed}", f"name={variant}__{seed}")
        )
        for seed in grid.seeds
        for variant, overrides in grid.variants.items()
    ]


def check(grid: Grid, runs: Iterable[Run]) -> None:
    """Read every variant's options, so that a misspelt one is told before any training.

    Raises:
        OptionError: One is wrong, has no pairs to validate on, or reads test data.
    """
    from rainoerme_plugin.plugin import register
    from rainoerme_plugin.schema import check_options

    register()
    for run in runs:
        if run.seed != grid.seeds[0]:
            continue
        try:
            options = read_options(grid.base, run.overrides)
            check_options(options, training=True)
        except RainOerMeError as error:
            raise OptionError(f"{run.variant}: {error}") from None
        refuse_test_data(options["datasets"], run.variant)


def refuse_test_data(datasets: Mapping[str, Any], variant: str) -> None:
    """Raises:
    OptionError: A folder is called test, or lies in one.
    """
    for phase, options in datasets.items():
        for key, value in options.items():
            roots = (value if isinstance(value, list) else [value]) if key.startswith("dataroot") and value else []
            if "test" in [part.lower() for root in roots for part in Path(root).parts]:
                raise OptionError(f"{variant}: datasets.{phase}.{key}: settings are not chosen on test data ({value})")


# --- what a run has told ---


def read_curve(folder: Path) -> Curve:
    """The validation figures in the logs of an experiment's folder; of iterations done twice, the later ones."""
    curve: Curve = {}
    for log in sorted(folder.glob("train_*.log")):
        iteration, is_told = 0, False
        for line in log.read_text("utf-8", errors="replace").splitlines():
            if match := ITERATION.search(line):
                iteration = int(match[1].replace(",", ""))
            if "INFO:" in line:
                is_told = bool(_VALIDATION.search(line)) and iteration > 0
            elif is_told and (match := _FIGURE.match(line)):
                curve.setdefault(iteration, {})[match[1]] = float(match[2])
    return curve


def table(curves: Mapping[str, Mapping[int, Curve]], status: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """A Markdown table over variants, and the same for JSON.

    Args:
        curves: By variant and seed.
        status: By the run's name, of those that did not end well.
    """
    last = [max((max(curve, default=0) for curve in seeds.values()), default=0) for seeds in curves.values()]
    at = min([iteration for iteration in last if iteration > 0], default=0)
    names = sorted({name for seeds in curves.values() for c in seeds.values() for f in c.values() for name in f})
    rows = []
    for variant, seeds in curves.items():
        here = {seed: curve[at] for seed, curve in seeds.items() if at in curve}
        figures: dict[str, Any] = {}
        for name in names:
            values = [figure[name] for figure in here.values() if name in figure]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else None
                figures[name] = {"mean": statistics.mean(values), "spread": spread, "values": values}
        bad = [status[f"{variant}__{seed}"] for seed in seeds if f"{variant}__{seed}" in status]
        rows.append({"variant": variant, "seeds": sorted(here), "of": len(seeds), "figures": figures, "not_well": bad})
    first = rows[0]["figures"] if rows else {}
    key = "psnr" if "psnr" in names else (names[0] if names else "")
    lines = [
        f"Validation figures at iteration {at}; mean ± standard deviation over seeds.",
        "",
        f"| variant | seeds | {' | '.join(names)} | {key} against the first | remarks |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for row in rows:
        cells = [_cell(row["figures"].get(name), 4 if "ssim" in name else 2) for name in names]
        change = ""
        if key in row["figures"] and key in first:
            change = f"{row['figures'][key]['mean'] - first[key]['mean']:+.2f}"
        counts = f"{len(row['seeds'])} of {row['of']}"
        lines.append(f"| {row['variant']} | {counts} | {' | '.join(cells)} | {change} | {'; '.join(row['not_well'])} |")
    return "\n".join(lines), {"iteration": at, "rows": rows, "curves": curves}


def _cell(figure: Mapping[str, Any] | None, digits: int) -> str:
    if figure is None:
        return "—"
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.{digits}f}"
    return f"{figure['mean']:.{digits}f}{spread}"


# --- running them ---


@dataclass
class Started:
    """A run that goes on now."""

    run: Run
    process: subprocess.Popen[bytes]
    output: IO[bytes]


class Pool:
    """Runs some trainings at a time, and stops them when the time is up."""

    def __init__(self, grid: Grid, root: Path, device: str, processes: int, deadline: float) -> None:
        self.grid, self.root, self.device = grid, root, device
        self.processes, self.deadline = processes, deadline
        self.status: dict[str, str] = {}
        self._going: list[Started] = []

    def work(self, runs: Sequence[Run]) -> None:
        """Train what is not done yet. Ctrl-C and SIGTERM stop all that goes on."""
        waiting = [run for run in runs if self.grid.iterations not in read_curve(self._folder(run))]
        try:
            while (waiting or self._going) and time.monotonic() < self.deadline:
                while waiting and len(self._going) < self.processes:
                    self._start(waiting.pop(0))
                time.sleep(0.2)
                self._collect()
        finally:
            self._stop()
        for run in waiting:
            self.status[run.name] = "not started"

    def _folder(self, run: Run) -> Path:
        return self.root / "experiments" / run.name

    def _start(self, run: Run) -> None:
        command = [sys.executable, "-m", "rainoerme_plugin", "train", "-opt", str(self.grid.base), *run.overrides]
        command += ["--device", self.device, "--root", str(self.root), "--auto_resume"]
        (self.root / "output").mkdir(parents=True, exist_ok=True)
        output = (self.root / "output" / f"{run.name}.txt").open("ab")
        # A session of its own: Ctrl-C is for this script, which lets its runs end one way.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
        self._going.append(Started(run, process, output))

    def _collect(self) -> None:
        for started in [each for each in self._going if each.process.poll() is not None]:
            self._going.remove(started)
            started.output.close()
            code = started.process.returncode
            if code:
                self.status[started.run.name] = f"seed {started.run.seed}: {self._why(started.run, code)}"
            say(f"{started.run.name}: {self.status.get(started.run.name, 'done')}")

    def _why(self, run: Run, code: int) -> str:
        lines = (self.root / "output" / f"{run.name}.txt").read_text("utf-8", errors="replace").splitlines()
        errors = [line for line in lines if ": error: " in line]
        if code > 0 and errors:
            text = errors[-1].partition(": error: ")[2]
            return "collapsed" if "has collapsed" in text else text[:120]
        return f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def _stop(self) -> None:
        for started in self._going:
            with suppress(ProcessLookupError):
                started.process.send_signal(signal.SIGINT)
        until = time.monotonic() + GRACE
        for started in self._going:
            with suppress(subprocess.TimeoutExpired):
                started.process.wait(max(0.1, until - time.monotonic()))
            if started.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(started.process.pid, signal.SIGKILL)
                started.process.wait()
            started.output.close()
            self.status[started.run.name] = f"seed {started.run.seed}: stopped, time was up"
        self._going.clear()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def curves_of(runs: Iterable[Run], root: Path) -> dict[str, dict[int, Curve]]:
    """What all runs have told so far, by variant and seed."""
    found: dict[str, dict[int, Curve]] = {}
    for run in runs:
        found.setdefault(run.variant, {})[run.seed] = read_curve(root / "experiments" / run.name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", type=Path, help="YAML file of what is to be compared")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="further overrides of all variants")
    parser.add_argument("--root", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", metavar="NAME,...", help="these variants alone; the first is compared with")
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the grid's")
    parser.add_argument("--iterations", type=int, help="of each run, in place of the grid's")
    parser.add_argument("--validations", type=int, default=4, help="in a run (default: 4)")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which all are stopped")
    parser.add_argument("--device", default="auto", help="as of basicsr train (default: auto)")
    parser.add_argument("--read", action="store_true", help="train nothing, tell what is there")
    arguments = parser.parse_intermixed_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    try:
        grid = read_grid(arguments.grid, arguments.seeds, arguments.iterations)
        for text in arguments.settings:
            parse_override(text)
        chosen = arguments.only.split(",") if arguments.only else list(grid.variants)
        if unknown := [name for name in chosen if name not in grid.variants]:
            raise OptionError(f"--only: no variant is called {unknown[0]}; there are {', '.join(grid.variants)}")
        grid = Grid(
            grid.base,
            (*grid.common, *arguments.settings),
            {name: grid.variants[name] for name in chosen},
            grid.seeds,
            grid.iterations,
        )
        root = arguments.root.resolve()
        runs = runs_of(grid, root, arguments.validations)
        check(grid, runs)
    except (RainOerMeError, OSError) as error:
        say(f"ablation: error: {error}")
        return 2
    pool = Pool(grid, root, arguments.device, arguments.processes, deadline)
    if not arguments.read:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            pool.work(runs)
    text, record = table(curves_of(runs, root), pool.status)
    print(text)
    root.mkdir(parents=True, exist_ok=True)
    (root / "ablation.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
