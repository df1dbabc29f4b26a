"""BasicSR's model for two-stage distillation: one step by hand, the running mean, validation, checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import RATE, model_options, tiny_data
from torch import Tensor

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.data.panels import stages_of
from rainoerme_plugin.errors import CollapseError, OptionError, WeightsError
from rainoerme_plugin.models.distillation_model import DistillationModel
from rainoerme_plugin.plugin import register
from rainoerme_plugin.registered.lr_scheduler import LinearDecayLR

PSNR = {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True}
RGB_PSNR = {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False}


@pytest.fixture(autouse=True)
def log() -> Iterator[list[str]]:
    """What BasicSR's logger is told."""
    register()
    from basicsr.utils import get_root_logger

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    logger, handler = get_root_logger(), Kept()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def options(root: Path, **changes: Any) -> dict[str, Any]:
    """What BasicSR hands to a model; ``changes`` are to the section ``train``."""
    distillation = {"warmup": 2, "soft_decay": 3, "hard_ramp": 2, "hard_max": 1.75, "gain_range": [5, 5]}
    network = {"type": "RainOerMeNet", "channels": 4}
    return model_options(root, network, {"psnr": PSNR}, **{"distillation": distillation, **changes})


def build(opt: dict[str, Any]) -> DistillationModel:
    from basicsr.models import build_model

    torch.manual_seed(0)
    model = build_model(opt)
    assert type(model) is DistillationModel
    return model


def enliven(network: torch.nn.Module, seed: int = 1) -> None:
    """Weights large enough for every layer to matter."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        scale = 0.3 if parameter.dim() > 1 else 0.05
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)


def batch(seed: int, size: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys = ("rainy", "label", "clean")
    return {key: torch.rand(2, 3, size, size, generator=generator, dtype=torch.float64) for key in keys}


# --- one step by hand ---


def blur(image: Tensor) -> Tensor:
    line = torch.exp(-((torch.arange(11, dtype=image.dtype) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(line / line.sum(), line / line.sum()).expand(3, 1, 11, 11)
    return F.conv2d(image, window, padding=5, groups=3)


def dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM, as Wang et al. write it, with zeros beyond the border."""
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
    return 1 - (likeness / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean()


def losses_by_hand(network: RainOerMeNet, data: dict[str, Tensor], gain: float) -> tuple[Tensor, Tensor, Tensor]:
    """L_soft, L_hard and the refined rain layer, as the paper writes them."""
    refined = network.refine(network.rain_layer(data["rainy"]))
    soft = dissimilarity(data["rainy"] - refined, data["label"])
    rainy_again = torch.clamp(data["clean"] + gain * refined.detach(), 0, 1)
    hard = dissimilarity(rainy_again - network.rain_layer(rainy_again), data["clean"])
    return soft, hard, refined.detach()


class AdamByHand:
    """Kingma and Ba, ICLR 2015, algorithm 1, with betas 0.5 and 0.999."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network, self.time = network, 0
        self.first = [torch.zeros_like(parameter) for parameter in network.parameters()]
        self.second = [torch.zeros_like(parameter) for parameter in network.parameters()]

    def step(self, loss: Tensor) -> None:
        self.time += 1
        gradients = torch.autograd.grad(loss, list(self.network.parameters()), allow_unused=True)
        for place, (parameter, gradient) in enumerate(zip(self.network.parameters(), gradients, strict=True)):
            assert gradient is not None
            self.first[place] = 0.5 * self.first[place] + 0.5 * gradient
            self.second[place] = 0.999 * self.second[place] + 0.001 * gradient**2
            mean = self.first[place] / (1 - 0.5**self.time)
            spread = (self.second[place] / (1 - 0.999**self.time)).sqrt()
            parameter.data -= RATE * mean / (spread + 1e-8)


def close(one: torch.nn.Module, other: torch.nn.Module, tolerance: float = 1e-9) -> bool:
    return all(
        torch.allclose(first, second, rtol=0, atol=tolerance)
        for first, second in zip(one.parameters(), other.parameters(), strict=True)
    )


# Iteration t, weights of the soft and the hard loss: s = t - 2; 3 / (s + 3) and min(s / 2, 1.75); the gain is 1.5.
WEIGHTS = {1: (1.0, 0.0), 2: (1.0, 0.0), 3: (3 / 4, 1 / 2), 4: (3 / 5, 1.0), 5: (3 / 6, 3 / 2), 6: (3 / 7, 1.75)}


def test_steps_are_adam_on_the_weighted_losses_worked_by_hand(tmp_path: Path) -> None:
    model = build(options(tmp_path))
    for network in (model.net_g, model.net_g_ema):
        network.double()
        enliven(network)
    start = deepcopy(model.net_g)
    by_hand = RainOerMeNet(channels=4).double()
    by_hand.load_state_dict(start.state_dict())
    adam = AdamByHand(by_hand)
    for iteration, (soft_weight, hard_weight) in WEIGHTS.items():
        data = batch(iteration)
        soft, hard, refined = losses_by_hand(by_hand, data, gain=1.5)
        adam.step(soft_weight * soft + hard_weight * hard)
        model.feed_data(data)
        model.optimize_parameters(iteration)
        assert close(model.net_g, by_hand), iteration
        by_hand.load_state_dict(model.net_g.state_dict())  # rounding errors would grow from step to step
        logged = model.get_current_log()
        assert list(logged) == ["l_soft", "l_hard", "rain_energy"]
        assert logged["l_soft"] == pytest.approx(soft.item(), abs=1e-9)
        assert logged["l_hard"] == pytest.approx(hard.item() if hard_weight else 0.0, abs=1e-9)
        spread = refined - refined.mean(dim=(2, 3), keepdim=True)
        assert logged["rain_energy"] == pytest.approx(spread.abs().mean().item(), abs=1e-9)
    assert not close(by_hand, start, tolerance=1e-3)


def test_without_warm_up_both_losses_count_from_the_first_step(tmp_path: Path) -> None:
    model = build(options(tmp_path, ema_decay=0, distillation={"soft_decay": 1, "hard_ramp": 1}))
    model.net_g.double()
    enliven(model.net_g)
    by_hand = RainOerMeNet(channels=4).double()
    by_hand.load_state_dict(model.net_g.state_dict())
    soft, hard, _ = losses_by_hand(by_hand, batch(0), gain=1.0)
    AdamByHand(by_hand).step(0.5 * soft + 1.0 * hard)
    model.feed_data(batch(0))
    model.optimize_parameters(1)
    assert close(model.net_g, by_hand)
    assert not hasattr(model, "net_g_ema")


def test_the_factor_of_the_loss_is_read(tmp_path: Path) -> None:
    model = build(options(tmp_path, loss_opt={"type": "SSIMLoss", "loss_weight": 3.0}))
    plain = build(options(tmp_path))
    for one in (model, plain):
        one.feed_data({key: value.float() for key, value in batch(0).items()})
        one.optimize_parameters(1)
    assert model.get_current_log()["l_soft"] == pytest.approx(3 * plain.get_current_log()["l_soft"], rel=1e-5)


# --- the running mean ---


def test_the_mean_of_the_weights_has_a_short_memory_at_first(tmp_path: Path) -> None:
    model = build(options(tmp_path))
    for network in (model.net_g, model.net_g_ema):
        network.double()
        enliven(network)
    mean = [parameter.clone() for parameter in model.net_g.parameters()]
    decays = {1: 2 / 11, 2: 3 / 12, 50: 51 / 60, 79: 80 / 89, 81: 0.9, 1000: 0.9}
    for iteration, decay in decays.items():
        model.feed_data(batch(iteration))
        model.optimize_parameters(iteration)
        mean = [decay * old + (1 - decay) * new for old, new in zip(mean, model.net_g.parameters(), strict=True)]
        for wanted, found in zip(mean, model.net_g_ema.parameters(), strict=True):
            assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    assert not close(model.net_g, model.net_g_ema, tolerance=1e-5)


def test_the_mean_starts_at_the_first_weights(tmp_path: Path) -> None:
    model = build(options(tmp_path))
    assert close(model.net_g, model.net_g_ema, tolerance=0)
    assert not model.net_g_ema.training
    assert model.net_g.training


# --- learning rate and guard ---


def test_the_learning_rate_follows_the_scheduler_of_the_options(tmp_path: Path) -> None:
    linear = build(options(tmp_path))
    assert type(linear.schedulers[0]) is LinearDecayLR
    stock = build(options(tmp_path, scheduler={"type": "MultiStepLR", "milestones": [2, 4], "gamma": 0.1}))
    rates: dict[str, list[float]] = {"linear": [], "stock": []}
    for iteration in range(1, 9):
        for name, model in (("linear", linear), ("stock", stock)):
            model.update_learning_rate(iteration, warmup_iter=-1)
            rates[name].append(model.get_current_learning_rate()[0])
            model.optimizer_g.step()
    assert rates["linear"] == pytest.approx([RATE] * 6 + [0.8 * RATE, 0.6 * RATE])
    assert rates["stock"] == pytest.approx([RATE] * 2 + [0.1 * RATE] * 2 + [0.01 * RATE] * 4)


def test_the_guard_looks_at_steps_on_both_losses_only(tmp_path: Path) -> None:
    guard = {"enabled": True, "interval": 1, "patience": 2, "hard_loss": 2.0}  # everything looks collapsed
    model = build(options(tmp_path, collapse_guard=guard))
    model.feed_data({key: value.float() for key, value in batch(0).items()})
    for iteration in (1, 2, 3):
        model.optimize_parameters(iteration)
    with pytest.raises(CollapseError, match=r"collapsed at iteration 4.*train\.distillation\.warmup"):
        model.optimize_parameters(4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_decay": 1.0}, r"^train\.ema_decay: "),
        ({"ema_decai": 0.5}, r"^train\.ema_decai: unknown key; did you mean 'ema_decay'"),
        ({"distillation": {"hard_ramp": 0}}, r"^train\.distillation: hard_ramp must be above 0"),
        ({"distillation": {"preset": "rain200"}}, r"^train\.distillation\.preset: "),
    ],
)
def test_a_bad_training_option_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(options(tmp_path, **changes))


# --- validation ---


def loader(root: Path, kind: str = "PairedRainDataset") -> Any:
    from basicsr.data import build_dataloader, build_dataset

    folder = root / "val" if kind == "PairedRainDataset" else root / "rainy"
    opt = {"name": "some pairs", "type": kind, "phase": "val", "dataroot": str(folder)}
    return build_dataloader(build_dataset(opt), opt, num_gpu=0)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def derained(network: Any, path: Path) -> np.ndarray:
    """What a network should make of a file: the rainy image less its rain layer, clamped and rounded."""
    rainy = torch.from_numpy(np.moveaxis(pixels(path) / 255.0, 2, 0).copy()).float()[None]
    with torch.no_grad():
        image = rainy - network.rain_layer(rainy)
    return np.moveaxis(np.rint(np.clip(image[0].numpy().astype(float), 0, 1) * 255), 0, 2).astype(np.uint8)


def psnr(image: np.ndarray, clean: np.ndarray, luminance: bool = True) -> float:
    error = image.astype(float) - clean
    if luminance:
        error = error @ np.array([65.481, 128.553, 24.966]) / 255
    return float(10 * np.log10(255**2 / np.mean(error**2)))


@pytest.fixture
def trained(tmp_path: Path) -> DistillationModel:
    """A model after a step, whose network and running mean differ."""
    tiny_data(tmp_path)
    opt = options(tmp_path)
    opt["val"]["metrics"] = {"psnr": PSNR, "rgb": RGB_PSNR}
    model = build(opt)
    enliven(model.net_g, 1)
    enliven(model.net_g_ema, 2)
    for network in (model.net_g, model.net_g_ema):  # a small rain layer, so that little is clamped
        network.outc[0].weight.data *= 0.03
    model.feed_data({key: value.float() for key, value in batch(0, size=24).items()})
    model.optimize_parameters(1)
    model.get_current_log()
    return model


def test_metrics_of_derained_and_rainy_images_agree_with_numpy(trained: DistillationModel, tmp_path: Path) -> None:
    trained.validation(loader(tmp_path), 7, None, False)
    rainy, clean = tmp_path / "val" / "rain", tmp_path / "val" / "norain"
    for name, luminance in (("psnr", True), ("rgb", False)):
        values = [
            (
                psnr(derained(trained.net_g_ema, rainy / file), pixels(clean / file), luminance),
                psnr(pixels(rainy / file), pixels(clean / file), luminance),
            )
            for file in ("1.png", "2.png")
        ]
        wanted, before = np.mean(values, axis=0)
        assert trained.metric_results[name] == pytest.approx(wanted, abs=0.01)
        assert trained.input_metrics["some pairs"][name] == pytest.approx(before, abs=1e-3)
        assert abs(wanted - before) > 0.1


def test_the_report_gives_the_rainy_figure_and_the_best_one(
    trained: DistillationModel, tmp_path: Path, log: list[str]
) -> None:
    pairs = loader(tmp_path)
    trained.validation(pairs, 7, None, False)
    first = dict(trained.metric_results)
    enliven(trained.net_g_ema, 5)  # another network, far worse
    trained.validation(pairs, 9, None, False)
    assert trained.metric_results["psnr"] < first["psnr"]
    report = log[-1].splitlines()
    assert report[0] == "Validation some pairs, 2 images"
    rainy = trained.input_metrics["some pairs"]["psnr"]
    words = [
        f"# psnr: {trained.metric_results['psnr']:.4f}",
        f"Rainy: {rainy:.4f}",
        f"Best: {first['psnr']:.4f} @ 7 iter",
    ]
    assert all(word in report[1] for word in words)


def test_training_goes_on_in_training_mode_after_validation(trained: DistillationModel, tmp_path: Path) -> None:
    trained.validation(loader(tmp_path), 7, None, False)
    assert trained.net_g.training
    assert not trained.net_g_ema.training
    assert not trained.output.requires_grad
    alone = build(options(tmp_path, ema_decay=0))
    alone.validation(loader(tmp_path), 7, None, False)
    assert alone.net_g.training


def test_every_derained_image_is_saved_on_request(trained: DistillationModel, tmp_path: Path) -> None:
    trained.opt["val"]["panels"] = False
    trained.validation(loader(tmp_path), 7, None, True)
    folder = tmp_path / "visualization"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert files == {"1/1_7.png", "2/2_7.png"}
    for number in (1, 2):
        wanted = derained(trained.net_g_ema, tmp_path / "val" / "rain" / f"{number}.png").astype(int)
        assert np.abs(pixels(folder / f"{number}" / f"{number}_7.png") - wanted).max() <= 1
    other = derained(trained.net_g, tmp_path / "val" / "rain" / "1.png").astype(int)
    assert np.abs(pixels(folder / "1" / "1_7.png") - other).max() > 3


def test_panels_show_training_crops_and_test_images(trained: DistillationModel, tmp_path: Path) -> None:
    data = batch(0, size=24)
    trained.validation(loader(tmp_path), 7, None, False)
    folder = tmp_path / "visualization" / "panels"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert files == {"training_7.png", "some pairs/1_7.png", "some pairs/2_7.png"}

    def level(image: Tensor) -> np.ndarray:
        return np.rint(np.moveaxis(image.clamp(0, 1).numpy(), 0, 2) * 255)

    picture = pixels(folder / "training_7.png").astype(int)
    side = 6 * 24  # small crops are enlarged
    step = (picture.shape[1] - side) // 4  # five columns: rainy, soft label, rain layer, clean + rain, derained
    columns = [picture[-side::6, number * step : number * step + side : 6] for number in range(5)]
    assert np.array_equal(columns[0], level(data["rainy"][1]))
    assert np.array_equal(columns[1], level(data["label"][1]))
    assert np.array_equal(columns[3], level(data["clean"][1]))  # still in the warm-up
    assert not np.array_equal(columns[2], columns[4])

    picture = pixels(folder / "some pairs" / "2_7.png").astype(int)
    rainy, clean = (pixels(tmp_path / "val" / part / "2.png").astype(int) for part in ("rain", "norain"))
    height, width = rainy.shape[:2]
    step = (picture.shape[1] - width) // 3  # four columns: rainy, rain layer, derained, clean
    columns = [picture[-height:, number * step : number * step + width] for number in range(4)]
    wanted = derained(trained.net_g_ema, tmp_path / "val" / "rain" / "2.png").astype(int)
    assert np.array_equal(columns[0], rainy)
    assert np.abs(columns[2] - wanted).max() <= 1
    assert np.array_equal(columns[3], clean)
    inside = (wanted > 0) & (wanted < 255)
    assert np.abs(columns[1] - (rainy - wanted + 127.5).clip(0, 255))[inside].max() <= 1.5  # mid grey is no rain


def test_the_training_panel_shows_the_rain_that_was_added(trained: DistillationModel, tmp_path: Path) -> None:
    data = {key: value.float() for key, value in batch(3, size=24).items()}
    network = deepcopy(trained.net_g)
    trained.feed_data(data)
    trained.optimize_parameters(5)  # after the warm-up; the gain is 1.5
    trained.get_current_log()
    trained.validation(loader(tmp_path), 8, None, False)
    with torch.no_grad():
        rain = network.rain_layer(data["rainy"])
        refined = network.refine(rain)
    picture = pixels(tmp_path / "visualization" / "panels" / "training_8.png").astype(float)
    side = 6 * 24  # small crops are enlarged
    step = (picture.shape[1] - side) // 4
    wanted = {2: 0.5 + refined, 3: data["clean"] + 1.5 * refined, 4: data["rainy"] - rain}
    for column, images in wanted.items():
        level = np.moveaxis(images[1].clamp(0, 1).numpy(), 0, 2) * 255
        shown = picture[-side:, column * step : column * step + side]
        assert np.abs(shown - level.repeat(6, axis=0).repeat(6, axis=1)).max() <= 0.51


class Board:
    """A TensorBoard writer that notes what it is given."""

    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}
        self.images: list[tuple[str, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars[tag] = (value, step)

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        assert image.shape[2] == 3
        self.images.append((tag, step))


def test_tensorboard_gets_the_metrics_and_the_training_panel(trained: DistillationModel, tmp_path: Path) -> None:
    board = Board()
    trained.validation(loader(tmp_path), 7, board, False)
    assert board.scalars == {
        f"metrics/some pairs/{name}": (trained.metric_results[name], 7) for name in ("psnr", "rgb")
    }
    assert board.images == [("panels/training", 7)]


def test_images_without_ground_truth_get_panels_and_no_metric(
    trained: DistillationModel, tmp_path: Path, log: list[str]
) -> None:
    trained.validation(loader(tmp_path, "SingleRainDataset"), 7, None, False)
    assert not any(line.startswith("Validation") for line in log)
    assert trained.input_metrics == {}
    files = sorted((tmp_path / "visualization" / "panels" / "some pairs").iterdir())
    assert [path.name for path in files] == ["1_7.png", "2_7.png", "3_7.png"]
    picture, rainy = pixels(files[0]), pixels(tmp_path / "rainy" / "1.png")
    height, width = rainy.shape[:2]
    assert np.array_equal(picture[-height:, :width], rainy)
    assert 3 * width < picture.shape[1] < 4 * width


@pytest.mark.parametrize(("suffix", "names"), [(None, ["1.png", "2.png"]), ("x", ["1_x.png", "2_x.png"])])
def test_a_test_run_saves_under_the_data_sets_name(tmp_path: Path, suffix: str | None, names: list[str]) -> None:
    tiny_data(tmp_path)
    opt = options(tmp_path)
    opt["is_train"] = False
    opt["val"]["suffix"] = suffix
    model = build(opt)
    model.validation(loader(tmp_path), "tiny", None, True)
    folder = tmp_path / "visualization"
    assert sorted(path.name for path in (folder / "some pairs").iterdir()) == names
    assert sorted(path.name for path in (folder / "panels" / "some pairs").iterdir()) == ["1.png", "2.png"]
    assert not (folder / "panels" / "training.png").exists()


# --- checkpoints ---


@pytest.mark.parametrize(
    ("name", "detail_layers"),
    [("RainOerMe_Rain200L", 3), ("RainOerMe_Rain1400", 3), ("RainOerMe_DID_data", 2)],
)
@pytest.mark.parametrize("training", [False, True])
def test_the_released_checkpoints_load_whole(
    rainoerme_weights: Path, tmp_path: Path, log: list[str], name: str, detail_layers: int, training: bool
) -> None:
    path = rainoerme_weights / f"{name}.pth"
    opt = options(tmp_path)
    opt["is_train"] = training
    opt["network_g"] = {"type": "RainOerMeNet", "detail_layers": detail_layers}
    opt["path"]["pretrain_network_g"] = str(path)
    model = build(opt)
    released = torch.load(path, map_location="cpu", weights_only=True)
    for network in (model.net_g, model.net_g_ema) if training else (model.net_g,):
        own = network.state_dict()
        assert len(own) == len(released)
        assert all(torch.equal(own[key], value) for key, value in released.items())
    assert f"Loaded {len(released)} of {len(released)} weights of RainOerMeNet from {path}." in log


def test_a_run_starts_from_the_mean_of_an_earlier_one(tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain, mean = RainOerMeNet(channels=4), RainOerMeNet(channels=4)
    torch.save({"params": plain.state_dict(), "params_ema": mean.state_dict()}, tmp_path / "net.pth")
    opt = options(tmp_path)
    opt["path"]["pretrain_network_g"] = str(tmp_path / "net.pth")
    model = build(opt)
    assert close(model.net_g, plain, tolerance=0)
    assert close(model.net_g_ema, mean, tolerance=0)
    opt["path"]["param_key_g"] = "params_ema"
    assert close(build(opt).net_g, mean, tolerance=0)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"params": RainOerMeNet(channels=5).state_dict()}, tmp_path / "net.pth")
    opt = options(tmp_path)
    opt["path"]["pretrain_network_g"] = str(tmp_path / "net.pth")
    with pytest.raises(
        WeightsError,
        match=r"does not fit RainOerMeNet .it is of RainOerMeNet, channels: 5.*: .* of another shape: inc\.0\.weight",
    ):
        build(opt)
    opt["path"]["strict_load_g"] = False
    build(opt)  # what fits of it: the biases of the last layers


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    opt = options(tmp_path)
    opt["path"]["pretrain_network_g"] = str(tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match=r"no such checkpoint: .*gone\.pth"):
        build(opt)


# --- how steps are computed ---


def after_steps(opt: dict[str, Any], iterations: int = 4, images: str = "float32") -> DistillationModel:
    """A model after some steps; ``images`` are what the loader hands over."""
    model = build(opt)
    enliven(model.net_g)
    for iteration in range(1, iterations + 1):
        levels = {key: (image * 255).round() for key, image in batch(iteration).items()}
        data = {
            key: level.to(torch.uint8) if images == "uint8" else level.float() / 255 for key, level in levels.items()
        }
        model.feed_data(data)
        model.optimize_parameters(iteration)
    return model


def test_bytes_and_floats_train_alike_bit_for_bit(tmp_path: Path) -> None:
    opt = options(tmp_path)
    floats, integers = after_steps(deepcopy(opt)), after_steps(deepcopy(opt), images="uint8")
    assert close(floats.net_g, integers.net_g, tolerance=0)
    shown = stages_of(integers._step)
    assert set(shown) == {"rainy", "soft label", "rain layer", "clean + rain", "derained"}
    assert all(
        float(images.min()) >= 0 and float(images.max()) <= 1.01 for images in (shown["rainy"], shown["soft label"])
    )


def test_accumulation_trains_the_same_network(tmp_path: Path) -> None:
    models = [build(options(tmp_path, ema_decay=0, accumulation=parts)) for parts in (1, 2)]
    for model in models:
        model.net_g.double()
        enliven(model.net_g)
        for iteration in range(1, 5):
            model.feed_data(batch(iteration))
            model.optimize_parameters(iteration)
    assert close(models[0].net_g, models[1].net_g)
    assert models[1].get_current_log() == pytest.approx(models[0].get_current_log(), abs=1e-9)
    assert models[1]._step.rain.shape == (2, 3, 16, 16)


def test_a_batch_that_accumulation_cannot_split_is_refused(tmp_path: Path) -> None:
    opt = options(tmp_path, accumulation=3)
    opt["datasets"] = {"train": {"batch_size_per_gpu": 8}}
    with pytest.raises(OptionError, match=r"train.accumulation: a batch of 8 cannot be split into 3 equal parts"):
        build(opt)


def test_bfloat16_is_what_the_network_computes_in_and_not_what_it_is_kept_in(tmp_path: Path) -> None:
    exact, short = after_steps(options(tmp_path), 3), after_steps(options(tmp_path, precision="bfloat16"), 3)
    assert short.get_current_log() == pytest.approx(exact.get_current_log(), rel=0.1)
    assert short.get_current_log() != exact.get_current_log()
    assert all(parameter.dtype == torch.float32 for parameter in short.net_g.parameters())


def test_cuda_graphs_without_cuda_are_left_out_with_a_message(tmp_path: Path, log: list[str]) -> None:
    plain, asked = after_steps(options(tmp_path)), after_steps(options(tmp_path, cuda_graphs=True))
    assert [line for line in log if "cuda_graphs" in line] == [
        "train.cuda_graphs: it needs a CUDA GPU; training goes on without"
    ]
    assert close(plain.net_g, asked.net_g, tolerance=0)


def test_a_step_that_cannot_be_captured_is_computed_the_plain_way(tmp_path: Path, log: list[str]) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")

    plain, model = after_steps(options(tmp_path), 1), build(options(tmp_path))
    enliven(model.net_g)
    model.distiller.graphs = fails
    model.feed_data({key: (image * 255).round().float() / 255 for key, image in batch(1).items()})
    model.optimize_parameters(1)
    assert [line for line in log if "train.cuda_graphs: the step cannot be captured (CUDA error: operation" in line]
    assert close(plain.net_g, model.net_g, tolerance=0)
    assert model.distiller.graphs is None


def test_where_the_compiler_fails_training_goes_on_without(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(graph: Any, example: Any) -> Any:
        raise RuntimeError("no working C++ compiler found")

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **how: compile_with(network, backend=no_compiler, **how))
    plain, asked = after_steps(options(tmp_path)), after_steps(options(tmp_path, compile=True))
    said = [line for line in log if "train.compile" in line]
    assert len(said) == 1
    assert "torch.compile fails here (" in said[0]
    assert "no working C++ compiler found" in said[0]
    assert "\n" not in said[0]
    assert close(plain.net_g, asked.net_g, tolerance=0)
    assert list(asked.net_g.state_dict()) == list(plain.net_g.state_dict())


def test_a_compiled_network_trains_the_same_and_is_saved_under_its_own_names(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    def backend(graph: Any, example: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **how: compile_with(network, backend=backend, **how))
    plain, asked = after_steps(options(tmp_path)), after_steps(options(tmp_path, compile=True))
    assert compiled
    assert not [line for line in log if "train.compile" in line]
    assert close(plain.net_g, asked.net_g, tolerance=1e-6)
    assert list(asked.net_g.state_dict()) == list(plain.net_g.state_dict())


def test_errors_that_are_not_the_compilers_are_not_hidden(tmp_path: Path, log: list[str]) -> None:
    model = build(options(tmp_path, compile=True))
    model.feed_data({key: image.float() for key, image in batch(1).items()})

    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("broken loss")

    model.distiller.criterion = fails
    model.distiller._computing = model.net_g
    with pytest.raises(ValueError, match="broken loss"):
        model.optimize_parameters(1)


@pytest.mark.parametrize(("changes", "fused"), [({}, True), ({"fused": False}, False), ({"foreach": True}, None)])
def test_the_optimiser_is_fused_unless_the_file_says_otherwise(
    tmp_path: Path, changes: dict[str, Any], fused: bool | None
) -> None:
    opt = options(tmp_path)
    opt["train"]["optim_g"].update(changes)
    assert build(opt).optimizer_g.defaults["fused"] is fused


def test_validation_in_tiles_gives_the_same_images(tmp_path: Path) -> None:
    opt = options(tmp_path)
    model = build(opt)
    enliven(model.net_g)
    model.net_g_ema = model.net_g
    image = batch(9, size=150)["rainy"][:1].float()
    results: dict[Any, Tensor] = {}
    calls: list[Any] = []
    for tile in ("auto", 0, 40):
        model.opt["val"]["tile"] = tile
        model.feed_data({"lq": image})
        model.test()  # the receptive field is asked for once, with calls of its own
        with model.net_g.register_forward_hook(lambda *_: calls.append(model.opt["val"]["tile"])):
            model.test()
        results[tile] = model.output.clone()
    assert [calls.count(tile) for tile in ("auto", 0, 40)] == [1, 1, 9]
    assert torch.equal(results["auto"], results[0])
    torch.testing.assert_close(results[40], results[0], rtol=0, atol=1e-5)
