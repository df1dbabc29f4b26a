"""Refinements of the distillation as the model's options name them: from the option file to a step's images."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import OPTIONS, model_options
from torch import Tensor

from rainoerme_plugin.config import read_options
from rainoerme_plugin.distillation.confidence import Confidence
from rainoerme_plugin.distillation.rain_layers import RainVariation
from rainoerme_plugin.distillation.refinements import Refinements, Teacher
from rainoerme_plugin.distillation.schedule import PRESETS
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.models.distillation_model import DistillationModel
from rainoerme_plugin.options import DistillationOptions, LabelOptions, UnpairedRainOptions, read_section
from rainoerme_plugin.plugin import register
from rainoerme_plugin.schema import check_options

EVERYTHING: dict[str, Any] = {
    "rain": {"blend": "screen", "move": True, "flip": True, "turn": 5, "strength": [0.5, 1.5], "two": 0.5},
    "teacher": {"rain": "ema", "start": 1, "label_weight": 0.5, "label_start": 1, "label_ramp": 2},
    "confidence": {"enabled": True, "floor": 0.5},
    "rain_share": 1.0,
    "soft_min": 0.4,
    "adversarial": {"weight": 0.5, "start": 1, "channels": 4, "layers": 2},
}


def build(root: Path, distillation: dict[str, Any], scale: float = 0.2, **changes: Any) -> DistillationModel:
    register()
    from basicsr.models import build_model

    torch.manual_seed(0)
    network = {"type": "RainOerMeNet", "channels": 4}
    model = build_model(model_options(root, network, {}, distillation=distillation, **changes))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.net_g.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model


def feed(model: DistillationModel, iteration: int) -> None:
    generator = torch.Generator().manual_seed(iteration)
    model.feed_data({key: torch.rand(4, 3, 16, 16, generator=generator) for key in ("rainy", "label", "clean")})
    model.optimize_parameters(iteration)


def weights_of(model: DistillationModel) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.net_g.parameters()]


def test_options_become_refinements() -> None:
    options = read_section(DistillationOptions, EVERYTHING, "train.distillation")
    assert options.refinements() == Refinements(
        blend="screen",
        variation=RainVariation(move=True, flip=True, turn=5.0, strength=(0.5, 1.5), two=0.5),
        teacher=Teacher(rain=True, start=1, label_weight=0.5, label_start=1, label_ramp=2),
        confidence=Confidence(floor=0.5),
        rain_share=1.0,
    )
    assert options.build().soft_min == 0.4


def test_the_papers_way_is_the_default() -> None:
    assert DistillationOptions().refinements() == Refinements()
    assert DistillationOptions().build().soft_min == 0


def test_the_recipes_of_the_paper_refine_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rain200l", "rain1400", "did"):
        distillation = read_options(OPTIONS / f"{name}.yml")["train"]["distillation"]
        assert read_section(DistillationOptions, distillation, "x").refinements() == Refinements(), name


def test_the_rain_on_clean_images_is_the_running_means(tmp_path: Path) -> None:
    model = build(tmp_path, {"teacher": {"rain": "ema", "start": 1}})
    feed(model, 1)
    for iteration, whose in ((1, model.net_g), (2, model.net_g_ema)):
        before = deepcopy(whose)
        feed(model, iteration)
        step = model._step
        oracle = (model.images[2] + before(model.images[0], layers=True).refined).clamp(0, 1)
        torch.testing.assert_close(step.synthetic, oracle.detach(), atol=1e-5, rtol=0)


def test_a_run_that_goes_on_draws_the_same(tmp_path: Path) -> None:
    whole, first = build(tmp_path, EVERYTHING), build(tmp_path, EVERYTHING)
    for iteration in range(1, 7):
        feed(whole, iteration)
        if iteration <= 3:
            feed(first, iteration)
    later = build(tmp_path, EVERYTHING)
    for name in ("net_g", "net_g_ema", "optimizer_g", "distiller"):
        getattr(later, name).load_state_dict(getattr(first, name).state_dict())
    torch.rand(5)
    for iteration in range(4, 7):
        feed(later, iteration)
    assert all(torch.equal(one, other) for one, other in zip(weights_of(whole), weights_of(later), strict=True))


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_refinement_changes_what_is_learnt(tmp_path: Path, name: str) -> None:
    found = []
    for distillation in ({}, {name: EVERYTHING[name]}):
        model = build(tmp_path, {"soft_decay": 1, "hard_ramp": 1, **distillation}, scale=0.1)
        for iteration in range(1, 5):
            feed(model, iteration)
        found.append(weights_of(model))
    assert not all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("distillation", "message"),
    [
        ({"rain": {"trun": 3}}, r"train\.distillation\.rain\.trun: unknown key; did you mean 'turn'"),
        ({"rain": {"turn": 100}}, r"train\.distillation\.rain: turn must be from 0 to 90"),
        ({"rain": {"strength": [1]}}, r"train\.distillation\.rain\.strength: .*at least 2"),
        ({"rain": {"blend": "multiply"}}, r"train\.distillation\.rain\.blend: should be 'add', 'screen' or 'alpha'"),
        ({"teacher": {"label_weight": 2}}, r"train\.distillation\.teacher: label_weight must be from 0 to 1"),
        ({"confidence": {"length": 4}}, r"train\.distillation\.confidence: length must be odd"),
        ({"rain_share": 3}, r"train\.distillation: rain_share must be from 0 to 1"),
        ({"soft_min": -1}, r"train\.distillation: soft_min must be from 0 to 1"),
        ({"adversarial": {"weight": -1}}, r"train\.distillation\.adversarial\.weight: .*greater than or equal to 0"),
        ({"adversarial": {"domain": "clean"}}, r"adversarial\.domain: should be 'derained' or 'rain', got 'clean'"),
    ],
)
def test_wrong_options_are_named_before_a_run(distillation: dict[str, Any], message: str) -> None:
    register()
    options = read_options(OPTIONS / "distill.yml")
    for key, value in distillation.items():
        old = options["train"]["distillation"].get(key)
        options["train"]["distillation"][key] = {**old, **value} if isinstance(old, dict) else value
    with pytest.raises(OptionError, match=message):
        check_options(options, training=True)


def test_a_discriminator_takes_the_banks_rain_and_crops_that_are_large_enough() -> None:
    register()
    options = read_options(OPTIONS / "distill_labels.yml")
    options["train"]["distillation"]["adversarial"] = asked = {"weight": 1, "domain": "rain", "layers": 4}
    with pytest.raises(OptionError, match=r"adversarial\.domain: .* datasets\.train\.rain names none"):
        check_options(options, training=True)
    options["datasets"]["train"].update(rain={"type": "plain"}, crop_size=15)
    with pytest.raises(OptionError, match=r"adversarial\.layers: 4 need crops of at least 16 pixels, .* have 15"):
        check_options(options, training=True)
    options["datasets"]["train"]["crop_size"] = 16
    told = "datasets.train.rain: nothing uses it"
    assert not any(line.startswith(told) for line in check_options(options, training=True))
    asked["weight"] = 0
    assert any(line.startswith(told) for line in check_options(options, training=True))


@pytest.mark.parametrize("recipe", ["rain200l", "rain1400", "did"])
def test_the_papers_recipes_do_nothing_beyond_the_paper(recipe: str) -> None:
    options = read_options(OPTIONS / f"{recipe}.yml")
    train = options["train"]
    distillation = read_section(DistillationOptions, train["distillation"], "train.distillation")
    assert distillation.refinements() == Refinements()
    assert distillation.build() == PRESETS[recipe]
    assert train["loss_opt"] == {"type": "SSIMLoss"}
    assert (train["ema_decay"], train["warmup_iter"]) == (0, -1)
    assert train["optim_g"] == {"type": "Adam", "lr": 2e-4, "weight_decay": 0, "betas": [0.5, 0.999]}
    assert options["network_g"]["start"] == "noise"
    assert options["datasets"]["train"]["label"]["type"] == "folder"  # the authors'


@pytest.mark.parametrize("teacher", [{"rain": "ema"}, {"label_weight": 0.5}])
def test_a_teacher_needs_the_running_mean(tmp_path: Path, teacher: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"train\.distillation\.teacher: .*train\.ema_decay: 0"):
        build(tmp_path, {"teacher": teacher}, ema_decay=0)


def test_confidence_needs_a_loss_that_takes_weights(tmp_path: Path) -> None:
    confidence = {"confidence": {"enabled": True}}
    build(tmp_path, confidence, loss_opt={"type": "SumLoss", "losses": [{"type": "SSIMLoss"}]})
    build(tmp_path, confidence, loss_opt={"type": "L1Loss"})  # BasicSR's
    with pytest.raises(OptionError, match=r"train\.distillation\.confidence: GANLoss takes no weights"):
        build(tmp_path, confidence, loss_opt={"type": "GANLoss", "gan_type": "lsgan"})


# --- labels ---


@pytest.mark.parametrize("kind", ["adaptive", "best_of"])
def test_labels_of_whole_images_need_to_be_kept(kind: str) -> None:
    values = {"name": "x", "type": "UnpairedRainDataset", "dataroot_rainy": "r", "dataroot_clean": "c"}
    with pytest.raises(OptionError, match=rf"label of type {kind} .*name a folder in label_cache, or take source: mem"):
        read_section(UnpairedRainOptions, {**values, "label": {"type": kind}}, "datasets.train")
    for kept in ({"label_cache": "kept"}, {"source": "memory"}, {"source": "device"}):
        read_section(UnpairedRainOptions, {**values, "label": {"type": kind}, **kept}, "datasets.train")


def test_the_filters_of_best_of_are_checked_like_others() -> None:
    def built(*filters: dict[str, Any]) -> Any:
        return read_section(LabelOptions, {"type": "best_of", "filters": list(filters)}, "label").build()

    assert built({"type": "opening", "window": [1, 5]}, {"type": "adaptive"}).filters[0].window == (1, 5)
    with pytest.raises(OptionError, match=r"label\.filters\.0\.windw: unknown key; did you mean 'window'"):
        built({"type": "opening", "windw": [1, 5]})
    with pytest.raises(OptionError, match="label: no coarse filter is called 'folder'"):
        built({"type": "folder", "path": "x"})
    with pytest.raises(OptionError, match="label: the opening filter has no argument 'percent'"):
        built({"type": "opening", "percent": 3})
