"""Every option file of the project is right, and says every key it may have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import OPTIONS

from rainoerme_plugin.config import read_options
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.options import DistillationOptions, LabelOptions, UnpairedRainOptions
from rainoerme_plugin.plugin import register
from rainoerme_plugin.schema import check_options


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setenv("RAINOERME_DATA", "data")


# Those of benchmarks are of another kind: tests/benchmark/test_options.py.
RUNS = sorted(set(OPTIONS.glob("*.yml")) - set(OPTIONS.glob("benchmark*.yml")))


@pytest.mark.parametrize("file", RUNS, ids=lambda path: path.name)
def test_the_projects_option_files_pass_without_a_warning(file: Path) -> None:
    options = read_options(file)
    if options["network_g"]["type"] == "PretrainedNet":  # the file is for the user to name
        options["network_g"]["file"] = "FILE"
    assert check_options(options, training="train" in options["datasets"]) == []


def test_distill_yml_names_every_key_and_comments_each() -> None:
    lines = (OPTIONS / "distill.yml").read_text().splitlines()
    written = {match[1] for line in lines if (match := re.match(r"\s*(?:# )?(\w+):", line))}
    for section in (UnpairedRainOptions, LabelOptions, DistillationOptions):
        loop_keys = {"phase", "scale", "dataset_enlarge_ratio", "num_prefetch_queue", "persistent_workers"}
        assert set(section.model_fields) - loop_keys <= written
    uncommented = [
        line
        for line in lines
        if re.match(r"\s*\w+: \S", line)
        and "#" not in line
        and not re.match(r"\s*(name|type|weight_decay|betas)", line)
    ]
    explained_above = ("start", "end", "crop_border", "test_y_channel")
    assert [line for line in uncommented if not line.strip().startswith(explained_above)] == []


def stock_options() -> dict[str, Any]:
    return yaml.safe_load(
        """
        name: stock
        model_type: SRModel
        scale: 2
        num_gpu: 1
        datasets:
          train: {name: a, type: PairedImageDataset, dataroot_gt: x, dataroot_lq: y, filename_tmpl: '{}',
                  io_backend: {type: disk}, gt_size: 96, use_hflip: true, use_rot: true, num_worker_per_gpu: 6,
                  batch_size_per_gpu: 16, dataset_enlarge_ratio: 100, prefetch_mode: ~}
        network_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 16, upscale: 2, res_scale: 1,
                    img_range: 255., rgb_mean: [0.4488, 0.4371, 0.4040]}
        path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
        train:
          ema_decay: 0.999
          optim_g: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
          scheduler: {type: MultiStepLR, milestones: [200000], gamma: 0.5}
          total_iter: 300000
          warmup_iter: -1
          pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
        val: {val_freq: !!float 5e3, save_img: false, metrics: {psnr: {type: calculate_psnr, crop_border: 2}}}
        logger: {print_freq: 100, save_checkpoint_freq: !!float 5e3, use_tb_logger: true, wandb: {project: ~}}
        dist_params: {backend: nccl, port: 29500}
        """
    )


def test_a_stock_option_file_passes() -> None:
    assert check_options(stock_options(), training=True) == []


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "ema_decy", 0.9, "did you mean 'ema_decay'"),
        ("datasets.train", "use_hfip", True, "did you mean 'use_hflip'"),
        ("datasets.train", "gt_sise", 3, "did you mean 'gt_size'"),
        ("network_g", "num_feet", 3, "did you mean 'num_feat'"),
        ("network_g", "num_feat", "many", r"network_g\.num_feat: .*'many'"),
        ("train.pixel_opt", "reductoin", "mean", "did you mean 'reduction'"),
        ("val", "val_frq", 3, "did you mean 'val_freq'"),
        ("logger", "print_freq", "often", r"logger\.print_freq: .*'often'"),
        ("train.scheduler", "milestone", [3], "did you mean 'milestones'"),
    ],
)
def test_a_misspelt_key_of_a_stock_file_is_refused(section: str, key: str, value: object, message: str) -> None:
    options = stock_options()
    place = options
    for part in section.split("."):
        place = place[part]
    place[key] = value
    with pytest.raises(OptionError, match=message):
        check_options(options, training=True)


@pytest.mark.parametrize("value", ["text", 3, {"rain": 1}])
def test_what_a_stock_model_does_not_read_may_be_anything(value: object) -> None:
    options = stock_options()
    options["train"]["distillation"] = value
    assert check_options(options, training=True) == ["train.distillation: nothing seems to read this key"]


def test_a_key_that_is_like_nothing_only_warns_in_a_stock_file() -> None:
    options = stock_options()
    options["remark"] = "left over"
    assert check_options(options, training=True) == ["remark: nothing seems to read this key"]


@pytest.mark.parametrize("missing", ["name", "model_type", "datasets"])
def test_a_missing_key_is_named(missing: str) -> None:
    options = stock_options()
    del options[missing]
    with pytest.raises(OptionError, match=f"{missing}: is missing"):
        check_options(options, training=True)


@pytest.mark.parametrize(
    ("value", "problem"),
    [(-5, "should be greater than or equal to 0, got -5"), ("big", "should be an integer, got 'big'")],
)
def test_a_value_of_several_types_is_named_by_its_key_alone(value: object, problem: str) -> None:
    register()
    options = read_options(OPTIONS / "distill.yml")
    options["val"]["tile"] = value
    with pytest.raises(OptionError, match=f"^val.tile: {re.escape(problem)}"):
        check_options(options, training=True)


PYTHONS = re.compile(
    r"__init__|unsupported operand|object is not|not supported between|NoneType|no attribute|positional|has no len"
    r"|keyword argument|invalid literal|could not convert|unpack|index out|indices must|must be real number"
    r"|bad operand|interpreted as|argument 'size'|[A-Z]\w+Error|int\(\) argument"
)
"""Words of Python's own, which tell nothing of options."""
WRONG = ["x", [1], {}, None, True, -1, 1.5, [], [None], {"a": 1}, "", [0.5, 0.5]]


@lru_cache
def _base() -> dict[str, Any]:
    options = read_options(OPTIONS / "distill.yml", ("train.total_iter=400", "val=null"))
    del options["datasets"]["val"]
    return options


def variant(section: str, value: dict[str, Any]) -> dict[str, Any]:
    options = deepcopy(_base())
    *way, last = section.split(".")
    place = options
    for part in way:
        place = place[part]
    place[last] = value
    return options


SECTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Adam": ("train.optim_g", {"type": "Adam", "lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8, "amsgrad": False}),
    "Rprop": ("train.optim_g", {"type": "Rprop", "lr": 0.1, "etas": [0.5, 1.2], "step_sizes": [1e-6, 50.0]}),
    "sum": (
        "train.loss_opt",
        {
            "type": "SumLoss",
            "losses": [
                {"type": "SSIMLoss", "window": 11, "data_range": 1.0},
                {"type": "CharbonnierLoss", "eps": 1e-9, "loss_weight": 1.0},
                {"type": "FrequencyLoss", "part": "complex"},
            ],
        },
    ),
    "loss": ("train.loss_opt", {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}),
    "cosine": (
        "train.scheduler",
        {"type": "CosineAnnealingRestartLR", "periods": [400], "restart_weights": [1], "eta_min": 0},
    ),
    "steps": ("train.scheduler", {"type": "MultiStepLR", "milestones": [300], "gamma": 0.5}),
    "network": (
        "network_g",
        {
            "type": "DistillationNet",
            "backbone": {"type": "NAFNet", "width": 8, "enc_blk_nums": [1], "dec_blk_nums": [1], "middle_blk_num": 1},
        },
    ),
    "metric": (
        "val",
        {"val_freq": 100, "metrics": {"a": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True}}},
    ),
    "label": ("datasets.train.label", {"type": "streaks", "window": [1, 9], "length": 7, "lean": 34}),
    "rain": ("train.distillation.rain", {"blend": "add", "turn": 5, "size": [0.5, 1.5], "two": 0.5}),
}


def leaves(options: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where everything is that can be replaced; types stay."""
    items = options.items() if isinstance(options, dict) else enumerate(options) if isinstance(options, list) else ()
    for key, item in items:
        if key != "type":
            yield (*way, key)
            yield from leaves(item, (*way, key))


@pytest.mark.parametrize("name", SECTIONS)
def test_no_wrong_kind_is_told_in_pythons_own_words(name: str) -> None:
    section, value = SECTIONS[name]
    assert not [line for line in check_options(variant(section, value), training=True) if "nothing seems" in line]
    refused = 0
    for *way, last in leaves(value):
        for wrong in WRONG:
            changed = deepcopy(value)
            place: Any = changed
            for part in way:
                place = place[part]
            place[last] = deepcopy(wrong)
            try:
                check_options(variant(section, changed), training=True)
            except OptionError as error:
                refused += 1
                text = str(error).partition(", got ")[0]  # what came is told as it came
                assert text.startswith(section), text
                assert not PYTHONS.search(text), text
    assert refused > 10


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        (
            "train.loss_opt",
            {"type": "SSIMLoss", "windw": 3},
            "train.loss_opt.windw: unknown key; did you mean",
        ),
        (
            "train.loss_opt",
            {"type": "SumLoss", "losses": [{"type": "SSIMLoss", "data_rang": 1.0}]},
            "train.loss_opt.losses.0.data_rang: unknown key; did you mean 'data_range'",
        ),
        (
            "train.loss_opt",
            {"type": "SumLoss", "losses": [{"type": "SSIMLos"}]},
            "train.loss_opt.losses.0.type: no loss is called 'SSIMLos'; did you mean 'SSIMLoss'",
        ),
        (
            "train.loss_opt",
            {"type": "SumLoss", "losses": [{"type": "L1Loss"}]},
            "train.loss_opt.losses.0.type: no loss is called 'L1Loss'; there are SSIMLoss, CharbonnierLoss, ",
        ),
        (
            "train.loss_opt",
            {"type": "L7"},
            "train.loss_opt.type: no loss is called 'L7' ('basicsr list --all' shows all)",
        ),
        (
            "train.distillation",
            {"rain": [1]},
            "train.distillation.rain: should be a dictionary, got [1]",
        ),
        (
            "train.distillation",
            {"rain": {"size": [0.8]}},
            "train.distillation.rain.size: should have at least 2 values, got [0.8]",
        ),
        (
            "train.distillation",
            {"rain": {"size": [0.8, 1, 2]}},
            "train.distillation.rain.size: should have at most 2 values, got [0.8, 1, 2]",
        ),
        (
            "train.optim_g",
            {"type": "Rprop", "lr": 0.1, "step_sizes": 3},
            "train.optim_g.step_sizes: expected a list such as [1e-06, 50], got 3",
        ),
        (
            "network_g",
            {"type": "DistillationNet", "backbone": {"type": "NAFNet", "enc_blk_nums": 3}},
            "network_g.backbone.enc_blk_nums: expected a list",
        ),
    ],
)
def test_key_expectation_and_what_came_are_named(section: str, value: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        check_options(variant(section, value), training=True)
