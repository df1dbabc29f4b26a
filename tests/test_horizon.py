"""What a run is too short for is told, and what it is long enough for is not."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import OPTIONS

from rainoerme_plugin.config import read_options
from rainoerme_plugin.plugin import register
from rainoerme_plugin.schema import check_options

SPANS = {
    "default_network.yml": (7000, 3500, 7000),
    "demo.yml": (1200, 600, 1200),
    "did.yml": (1500000, 750000, 1500000),
    "distill.yml": (20000, 10000, 20000),
    "distill_cpu.yml": (20000, 10000, 20000),
    "distill_nafnet.yml": (20000, 10000, 20000),
    "distill_prenet.yml": (20000, 10000, 20000),
    "distill_labels.yml": (20000, 10000, 20000),
    "distill_labels_cpu.yml": (7000, 3500, 7000),
    "rain100l_paper.yml": (36000, 18000, 36000),
    "rain100l_paper_cpu.yml": (7000, 3500, 7000),
    "rain100l_prenet.yml": (60000, 30000, 60000),
    "rain100l_prenet_cpu.yml": (1300, 650, 1300),
    "rain100l_labels.yml": (60000, 30000, 60000),
    "rain100l_labels_cpu.yml": (7000, 3500, 7000),
    "rain100l_unpaired.yml": (60000, 30000, 60000),
    "rain100l_unpaired_cpu.yml": (20000, 10000, 20000),
    "rain1400.yml": (2520000, 1260000, 2520000),
    "rain200l.yml": (360000, 180000, 360000),
    "rain200l_fast.yml": (360000, 180000, 360000),
    "rain200h_unpaired_cpu.yml": (20000, 10000, 20000),
    "real_rain_cpu.yml": (20000, 10000, 20000),
    "real_rain_labels_cpu.yml": (4000, 2000, 4000),
}
"""Iterations, and the schedule's start and end, by which the published figures were trained."""


@pytest.mark.parametrize("name", SPANS)
def test_every_recipe_trains_as_when_it_was_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.registered.lr_scheduler import LinearDecayOptions, read_schedule

    monkeypatch.setenv("RAINOERME_DATA", "data")
    train = read_options(OPTIONS / name)["train"]
    schedule = read_schedule(train["scheduler"])
    assert isinstance(schedule, LinearDecayOptions)
    assert (train["total_iter"], *schedule.span(train["total_iter"])) == SPANS[name]


def told(*overrides: str, file: str = "distill_labels.yml") -> list[str]:
    register()
    return check_options(read_options(OPTIONS / file, overrides), training=True)


@pytest.mark.parametrize("total", [1000, 40_000])
def test_the_overrides_of_readme_and_docs_train_to_the_end(total: int) -> None:
    assert told(f"train.total_iter={total}") == []


MULTI_STEP = "train.scheduler={_delete_: true, type: MultiStepLR, milestones: [500]}"
CASES: dict[str, tuple[list[str], str]] = {
    "warm-up of the rate": (["train.warmup_iter=401"], "train.warmup_iter: the full learning rate is not reached"),
    "second stage": (["train.distillation.warmup=400"], "train.distillation.warmup: the second stage never begins"),
    "gain": (
        ["train.distillation.preset=did", "train.distillation.gain_start=300"],
        "train.distillation.gain_start: the gain never varies",
    ),
    "soft weight": (["train.distillation.soft_min=0.7"], "train.distillation.soft_min: the soft weight does not fall"),
    "teacher's rain": (
        ["train.distillation.teacher.rain=ema", "train.distillation.teacher.start=400"],
        "train.distillation.teacher.start: the rain is the student's",
    ),
    "teacher's label": (
        ["train.distillation.teacher.label_weight=0.5", "train.distillation.teacher.label_start=400"],
        "train.distillation.teacher.label_start: the teacher has no share",
    ),
    "discriminator": (
        ["train.distillation.adversarial.weight=0.1", "train.distillation.adversarial.start=400"],
        "train.distillation.adversarial.start: there is no adversarial loss",
    ),
    "guard": (["train.collapse_guard.interval=101"], "train.collapse_guard: notices nothing"),
    "backbone": (["train.backbone.freeze_iter=400"], "train.backbone.freeze_iter: the backbone is frozen"),
    "late crops": (
        ["datasets.train.late_crop_size=160", "datasets.train.late_from=0.999"],
        "datasets.train.late_from: crops never become those of late_crop_size",
    ),
    "late crops only": (
        ["datasets.train.late_crop_size=160", "datasets.train.late_from=0.001"],
        "datasets.train.late_from: crop_size is not used: all crops are of late_crop_size",
    ),
    "validation": (["val.val_freq=401"], "val.val_freq: 401 is more than the run has"),
    "checkpoints": (["logger.save_checkpoint_freq=401"], "logger.save_checkpoint_freq: 401 is more than the run has"),
    "log": (["logger.print_freq=401"], "logger.print_freq: 401 is more than the run has: no losses are logged"),
    "patience": (
        ["val.val_freq=100", "val.best.metric=psnr", "val.best.patience=3"],
        "val.best.patience: never ends the run early: that takes 4 times 100 iterations at least",
    ),
    "schedule": ([MULTI_STEP], "train.scheduler: milestones [500] come after the end: the rate never falls"),
    "start": (["train.scheduler.start=399"], "train.scheduler: the rate never falls"),
    "end": (["train.scheduler.end=300"], "train.scheduler: the rate is 0 for the last 100 iterations"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_says_what_it_makes_nothing_of(name: str) -> None:
    overrides, wanted = CASES[name]
    file = "distill_prenet.yml" if name == "backbone" else "distill_labels.yml"
    long_enough = ("train.total_iter=400", "val.val_freq=400", "logger.save_checkpoint_freq=400")
    assert told(*long_enough, file=file) == []
    lines = told(*long_enough, *overrides, file=file)
    assert len(lines) == 1, lines
    assert lines[0].startswith(wanted)
    assert lines[0].endswith("(train.total_iter: 400)")


def test_stock_models_are_told_too() -> None:
    from test_schema import stock_options

    register()
    options: dict[str, Any] = stock_options()
    options["train"].update(total_iter=1000, warmup_iter=2000)
    wanted = [
        "train.scheduler: milestones [200000] come after the end: the rate never falls (train.total_iter: 1000)",
        "train.warmup_iter: the full learning rate is not reached in 2000 iterations (train.total_iter: 1000)",
        "val.val_freq: 5000 is more than the run has: it is validated once, at the end (train.total_iter: 1000)",
        "logger.save_checkpoint_freq: 5000 is more than the run has: the only checkpoint is the last one, and a run "
        "that is killed begins anew (train.total_iter: 1000)",
    ]
    assert check_options(options, training=True) == wanted
