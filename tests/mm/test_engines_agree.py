"""The same option file by BasicSR's engine and by mmengine's: the same losses, rates, figures and bits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from both import LEARNING, NORMED, Record, by_basicsr, by_mmengine, differing, network, saved, with_bank
from both import normed as normed  # a fixture
from tiny import tiny_data, tiny_options, write_network

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.config import Request
from rainoerme_plugin.training.distiller import Distiller

BACKBONE = {"_delete_": True, "type": "DistillationNet", "backbone": {"type": "RainOerMeNet", "channels": 4}}
UNET = {**BACKBONE, "backbone": {"type": "DerainUNet", "channels": 4, "encoder": [1, 1], "decoder": [1, 1]}}
COSINE = {"_delete_": True, "type": "CosineLR"}
ADVERSARIAL = {"weight": 0.1, "start": 2, "channels": 4, "layers": 2}
PARTS = {"_delete_": True, "type": "DistillationNet", "backbone": {"type": "Normed"}, "detail_layers": 2}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


def by_both(data: Path, *overrides: str, **changes: Any) -> tuple[Record, Record]:
    options = tiny_options(data, **{**LEARNING, **changes})
    return (
        by_basicsr(Request(options, overrides, root=data / "basicsr")),
        by_mmengine(Request(options, overrides, root=data / "mmengine")),
    )


def assert_agreed(data: Path, one: Record, other: Record, last: int) -> None:
    assert one.losses == other.losses
    assert one.rates == other.rates
    assert one.figures == other.figures
    assert not differing(network(data / "basicsr"), network(data / "mmengine"))
    assert not differing(saved(data / "basicsr", last), saved(data / "mmengine", last))


def test_in_fifty_iterations_no_bit_differs(data: Path) -> None:
    schedule = {"start": 25, "end": 50}
    one, other = by_both(data, train__total_iter=50, train__scheduler=schedule, val__val_freq=15)
    assert len(one.losses) == len(other.losses) == 50
    apart = (torch.tensor(one.losses) - torch.tensor(other.losses)).abs().max()
    assert float(apart) <= 1e-5
    assert_agreed(data, one, other, 50)
    # It has learnt something, or much would agree by itself.
    assert one.losses[-1][2] > 10 * one.losses[0][2]
    assert sorted(one.figures) == [15, 30, 45, 50]
    assert len({figures["val/psnr"] for figures in one.figures.values()}) > 1
    assert one.figures[50]["val/psnr"] != one.figures[50]["val/rainy/psnr"]
    # Constant to step 25, then falling linearly: iteration k runs at the rate after k - 1 steps.
    assert [rates[0] for rates in other.rates] == pytest.approx([3e-3 * min(1, (51 - k) / 25) for k in range(1, 51)])


@pytest.mark.parametrize(
    "changes",
    [
        {"network_g": BACKBONE, "train__backbone": {"lr_factor": 0.1, "freeze_iter": 4}},
        {"network_g": BACKBONE, "train__backbone": {"lr_factor": 0}},
        {"network_g": BACKBONE, "train__backbone": {"lr_factor": 0.1}, "train__warmup_iter": 6},
        {"network_g": UNET, "train__backbone": {"lr_factor": 0.5}},
        {"network_g": NORMED, "train__backbone": {"lr_factor": 0.5, "freeze_iter": 4}},
        {"network_g": PARTS, "train__ema_decay": 0},
        {
            "train__scheduler": {"_delete_": True, "type": "MultiStepRestartLR", "milestones": [4, 9], "gamma": 0.5},
            "train__warmup_iter": 6,
        },
        {
            "train__scheduler": {
                "_delete_": True, "type": "CosineAnnealingRestartLR", "periods": [5, 7], "restart_weights": [1, 0.5],
            },
            "train__warmup_iter": 4,
        },
        {"train__accumulation": 2},
        {"train__precision": "bfloat16"},
        {"train__precision": "float16"},
        {"datasets__train__source": "memory"},
        {"datasets__train__source": "device"},
        {"datasets__train__num_worker_per_gpu": 2},
        {"train__distillation": {"preset": "did", "warmup": 3, "gain_start": 2, "soft_decay": 5, "hard_ramp": 4}},
        {"train__loss_opt": {"_delete_": True, "type": "L1Loss", "loss_weight": 2.0}},
        {"train__optim_g": {"_delete_": True, "type": "SGD", "lr": 0.05, "momentum": 0.9}},
        {
            "train__optim_g__type": "AdamW", "train__optim_g__weight_decay": 0.01, "train__grad_clip": 0.3,
            "train__scheduler": COSINE, "train__warmup_iter": 3,
        },
        {"datasets__train__late_crop_size": 32, "datasets__train__num_worker_per_gpu": 2},
        {"datasets__train__late_crop_size": 16, "datasets__train__source": "device"},
        {"train__optim_g__type": "RAdam", "train__scheduler": {**COSINE, "start": 4}},
        {"train__distillation__adversarial": ADVERSARIAL},
        {"train__distillation__adversarial": ADVERSARIAL, "train__precision": "float16", "train__accumulation": 2},
    ],
    ids=lambda changes: " ".join(f"{key.rpartition('__')[2]} {value}" for key, value in changes.items())[:60],
)  # fmt: skip
@pytest.mark.usefixtures("normed")
def test_so_it_is_with_other_options(data: Path, changes: dict[str, Any]) -> None:
    one, other = by_both(data, **changes)
    assert len(one.losses) == 12
    assert_agreed(data, one, other, 12)


def test_crops_are_larger_after_that_share_of_the_iterations_in_both(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[list[int]] = []
    gradients = Distiller.gradients

    def noted(self: Distiller, images: Any, *more: Any, **options: Any) -> Any:
        assert len({image.shape for image in images}) == 1
        assert len(images[0]) == 2  # as many crops as before
        sides[-1].append(images[0].shape[-1])
        return gradients(self, images, *more, **options)

    monkeypatch.setattr(Distiller, "gradients", noted)
    tried: list[int] = []
    for engine in ("mm.training", "models.distillation_model"):
        monkeypatch.setattr(f"rainoerme_plugin.{engine}.try_crop", lambda network, side: tried.append(side))
    changes = {"datasets__train__late_crop_size": 32, "datasets__train__late_from": 0.6, "val": None}
    options = tiny_options(data, **{**LEARNING, **changes})
    for train in (by_basicsr, by_mmengine):
        for total, late in ((12, 7), (5, 3)):  # 7.2 and 3 iterations
            sides.append([])
            train(Request(options, (f"train.total_iter={total}",), root=data / train.__name__))
            assert sides[-1] == [24] * late + [32] * (total - late)
    assert tried == [24, 32] * 4  # before the first iteration


def test_a_cosine_follows_total_iter_after_a_warm_up_in_both(data: Path) -> None:
    changes = {"train__optim_g__type": "NAdam", "train__scheduler": COSINE, "train__warmup_iter": 3}
    for record in by_both(data, **changes):
        # Iteration k runs at the rate after k - 1 steps; rising by thirds before.
        cosine = [(1 + math.cos(math.pi * (k - 1) / 12)) / 2 for k in range(3, 13)]
        assert [rate for (rate,) in record.rates] == pytest.approx([3e-3 * share for share in (1 / 3, 2 / 3, *cosine)])


@pytest.mark.parametrize(
    "changes",
    [
        {"bank": 1.0, "none": 0.2, "grey": True},
        {"bank": 1.0, "accumulation": 2},
        {"bank": 0.5, "source": "device"},
        {"bank": 0.5, "num_worker_per_gpu": 2},
    ],
    ids=str,
)
def test_so_it_is_with_rain_of_a_bank(data: Path, changes: dict[str, Any]) -> None:
    one, other = by_both(data, **with_bank(data, **changes))
    assert len(one.losses) == 12
    assert_agreed(data, one, other, 12)
    assert all(soft > 0 for soft, _, _ in one.losses) == (changes["bank"] < 1)


def test_a_run_begins_with_given_weights_in_both(data: Path) -> None:
    file = write_network(data / "start.pth")
    one, other = by_both(data, path={"pretrain_network_g": str(file)}, train__total_iter=2)
    assert_agreed(data, one, other, 2)
    assert one.losses[0][2] > 1e-3  # an untrained network takes out next to nothing


def test_a_discriminator_is_kept_in_checkpoints_and_in_no_network(data: Path) -> None:
    options = tiny_options(
        data, **{**LEARNING, "train__total_iter": 2}, val=None, train__distillation__adversarial=ADVERSARIAL
    )
    by_mmengine(Request(options, root=data))
    found = saved(data, 2)
    assert set(found["adversary"]) == {"discriminator", "optimizer"}
    names = RainOerMeNet(4).state_dict().keys()
    assert all(part.keys() == names for part in (*found["networks"].values(), *network(data).values()))
    whole = torch.load(data / "experiments" / "tiny" / "iter_2.pth", weights_only=True)
    assert whole["state_dict"].keys() == {f"network.{name}" for name in names}


def test_several_validation_sets_are_measured_as_alone(data: Path) -> None:
    more = {"name": "more", "type": "PairedRainDataset", "dataroot": str(data / "val"), "limit": 1}
    unscored = {"name": "unscored", "type": "SingleRainDataset", "dataroot": str(data / "rainy"), "limit": 1}
    metrics = {
        "own": {"type": "derain_psnr", "protocol": "matlab_y"},
        "rgb": {"type": "derain_ssim", "protocol": "rgb"},
    }
    one, other = by_both(
        data, datasets__val_2=more, datasets__val_3=unscored, val__metrics={"_delete_": True, **metrics}
    )
    assert_agreed(data, one, other, 12)
    assert set(other.figures[6]) == {
        f"{name}/{rainy}{metric}" for name in ("val", "more") for rainy in ("", "rainy/") for metric in metrics
    }


def test_data_sets_of_basicsr_are_validated_on_in_both(data: Path) -> None:
    theirs = {"io_backend": {"type": "disk"}, "scale": 1}
    folders = {"dataroot_lq": str(data / "val" / "rain"), "dataroot_gt": str(data / "val" / "norain")}
    pairs = {"_delete_": True, "name": "pairs", "type": "PairedImageDataset", **folders, **theirs}
    unscored = {"name": "unscored", "type": "SingleImageDataset", "dataroot_lq": str(data / "rainy"), **theirs}
    one, other = by_both(data, datasets__val=pairs, datasets__val_2=unscored)
    assert_agreed(data, one, other, 12)
    assert {name.partition("/")[0] for name in other.figures[6]} == {"pairs"}


@pytest.mark.parametrize("broken", [{2}, {2, 9}], ids=["in the warm-up", "and later"])
@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_a_step_that_is_not_finite_changes_nothing_in_either(
    data: Path, monkeypatch: pytest.MonkeyPatch, broken: set[int], ema: float
) -> None:
    from rainoerme_plugin.training.distiller import Distiller

    gradients = Distiller.gradients

    def with_nan(self: Distiller, images: Any, weights: Any, iteration: int, *more: Any, **options: Any) -> Any:
        step = gradients(self, images, weights, iteration, *more, **options)
        if iteration in broken:
            nan = step.loss * float("nan")
            return step.__class__(**{**vars(step), "loss": nan, "hard_loss": nan})
        return step

    monkeypatch.setattr(Distiller, "gradients", with_nan)
    one, other = by_both(data, train__ema_decay=ema)
    assert saved(data / "mmengine", 12)["skipped"] == len(broken)
    assert not differing(network(data / "basicsr"), network(data / "mmengine"))
    assert not differing(saved(data / "basicsr", 12), saved(data / "mmengine", 12))
    assert one.figures == other.figures


def test_overflows_of_float16_change_nothing_in_either(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, 2.0**44, enabled=enabled))
    one, other = by_both(data, train__precision="float16")
    assert saved(data / "mmengine", 12)["scaler"]["scale"] < 2.0**44
    assert_agreed(data, one, other, 12)


def test_images_in_memory_are_there_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.mm.loops import EndlessTrainLoop

    batches, held = EndlessTrainLoop._batches, list[Any]()

    def noted(self: EndlessTrainLoop) -> Any:
        held.extend([self.dataloader.dataset, self.runner._train_dataloader["dataset"]])
        return batches(self)

    monkeypatch.setattr(EndlessTrainLoop, "_batches", noted)
    by_mmengine(Request(tiny_options(data, **LEARNING, datasets__train__source="memory", val=None), root=data))
    assert held[0].rainy.pixels.data_ptr() == held[1].rainy.pixels.data_ptr()


def test_no_validation_is_none_in_both(data: Path) -> None:
    one, other = by_both(data, val=None, train__total_iter=3)
    assert_agreed(data, one, other, 3)
    assert other.figures == {}


def test_the_file_says_so_where_engines_would_differ(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is not deaf: a network that is not the same is seen."""
    one, other = by_both(data, train__total_iter=2)
    options = tiny_options(data, **{**LEARNING, "train__total_iter": 2, "train__optim_g__betas": [0.5, 0.998]})
    by_mmengine(Request(options, root=data / "other"))
    assert differing(saved(data / "basicsr", 2), saved(data / "other", 2))
    assert one.losses == other.losses
    assert RainOerMeNet(4).state_dict().keys() == network(data / "mmengine")["params"].keys()
