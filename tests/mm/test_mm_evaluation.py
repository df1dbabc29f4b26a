"""mmengine's metrics: the package's protocols, means over images, whoever measured them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several import spawn
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rainoerme_plugin.errors import DataError
from rainoerme_plugin.metrics.protocols import psnr, ssim
from rainoerme_plugin.mm.evaluation import DerainingMetric, OptionMetrics

PROTOCOLS = ["matlab_y", "matlab_y_uint8", "basicsr_y", "opencv_y", "rgb"]
SIZES = [(24, 30), (40, 17), (21, 21)]


def images(seed: int, spread: int = 30) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    clean = [np.random.default_rng(5).integers(40, 200, (*size, 3)) for size in SIZES]
    return [np.uint8(image + random.integers(-spread, spread, image.shape)) for image in clean]


CLEAN, RAINY, DERAINED = images(1, 1), images(2), images(3, 9)


def tensor(image: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def samples(first: int = 0, step: int = 1) -> list[dict[str, Any]]:
    names = {"clean": CLEAN, "rainy": RAINY, "derained": DERAINED}
    return [{name: tensor(of[index]) for name, of in names.items()} for index in range(first, len(CLEAN), step)]


def means(measure: Any, of: list[np.ndarray[Any, Any]]) -> float:
    return float(np.mean([measure(image, clean) for image, clean in zip(of, CLEAN, strict=True)]))


def measured(metric: Any, found: list[dict[str, Any]], size: int | None = None) -> dict[str, float]:
    for sample in found:
        metric.process(None, [sample])
    result: dict[str, float] = metric.evaluate(len(found) if size is None else size)
    return result


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_figures_are_the_means_of_the_protocols(protocol: str) -> None:
    found = measured(DerainingMetric(protocol), samples())
    wanted = {
        f"{protocol}/{prefix}{name}": means(lambda *both, measure=measure: measure(*both, protocol), of)
        for prefix, of in (("", DERAINED), ("rainy/", RAINY))
        for name, measure in (("psnr", psnr), ("ssim", ssim))
    }
    assert found == pytest.approx(wanted, rel=1e-12)


def test_rgb_is_scikit_images() -> None:
    found = measured(DerainingMetric("rgb"), samples())
    assert found["rgb/psnr"] == pytest.approx(means(lambda a, b: peak_signal_noise_ratio(b, a), DERAINED), abs=1e-9)
    assert found["rgb/rainy/psnr"] == pytest.approx(means(lambda a, b: peak_signal_noise_ratio(b, a), RAINY), abs=1e-9)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}

    def measure(image: Any, clean: Any) -> float:
        channels = [structural_similarity(image[..., c], clean[..., c], full=True, **options)[1] for c in range(3)]
        return float(np.mean([part[5:-5, 5:-5] for part in channels]))

    assert found["rgb/ssim"] == pytest.approx(means(measure, DERAINED), abs=1e-6)


def test_option_files_metrics_are_basicsrs() -> None:
    from basicsr.metrics.psnr_ssim import calculate_psnr

    metrics = {"luminance": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True}}
    found = measured(OptionMetrics(metrics, prefix="set"), samples())

    def measure(image: Any, clean: Any) -> float:
        return float(calculate_psnr(image[..., ::-1], clean[..., ::-1], crop_border=2, test_y_channel=True))

    wanted = {"set/luminance": means(measure, DERAINED), "set/rainy/luminance": means(measure, RAINY)}
    assert found == pytest.approx(wanted, rel=1e-12)


def test_images_are_rounded_as_is_asked() -> None:
    shape = (3, 16, 16)
    sample = {"clean": torch.zeros(shape), "rainy": torch.ones(shape), "derained": torch.full(shape, 0.7 / 255)}
    assert measured(DerainingMetric("rgb"), [sample])["rgb/psnr"] == pytest.approx(20 * np.log10(255))
    assert measured(DerainingMetric("rgb", rounding="floor"), [sample])["rgb/psnr"] > 90


def test_without_clean_images_there_are_no_figures() -> None:
    found = [{**sample, "clean": None} for sample in samples()]
    metric = DerainingMetric()
    assert measured(metric, found) == {}
    assert measured(metric, samples())["matlab_y/psnr"] > 10


def test_rainy_figures_stay_and_derained_ones_are_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.mm import evaluation

    calls: list[str] = []
    monkeypatch.setattr(evaluation, "psnr", lambda *given: calls.append("") or psnr(*given))
    metric = DerainingMetric("rgb")
    first = measured(metric, samples())
    better = [{**sample, "derained": sample["clean"]} for sample in samples()]
    second = measured(metric, better)
    assert first["rgb/rainy/psnr"] == second["rgb/rainy/psnr"]
    assert second["rgb/psnr"] > first["rgb/psnr"] + 10
    assert len(calls) == 2 * 3 + 3  # those of rainy images, which do not change, once


def half(rank: int, folder: str, port: int) -> None:
    """What one of two processes measures of three images: the first of them twice, for both have as many."""
    import torch.distributed as dist

    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    metric, own = DerainingMetric("basicsr_y"), samples(rank, 2)
    if rank == 1:
        own += samples()[:1]
    found = [measured(metric, own, len(CLEAN)) for _ in range(2)]
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_find_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from several import free_port

    monkeypatch.chdir(tmp_path)
    alone = measured(DerainingMetric("basicsr_y"), samples())
    spawn(half, str(tmp_path), free_port())
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [alone, alone]  # to the last bit: sums run in the same order
    assert {path.name for path in tmp_path.iterdir()} == {"0.pt", "1.pt"}


def test_an_image_that_is_too_small_for_a_metric_is_named() -> None:
    metric = OptionMetrics({"niqe": {"type": "calculate_niqe", "crop_border": 0}})
    (small, *_) = samples()
    with pytest.raises(DataError, match=r"^val/3\.png: val\.metrics\.niqe: cannot be taken of an image of 30x24"):
        metric.process(None, [{**small, "path": "val/3.png"}])
    with pytest.raises(DataError, match=r"^val\.metrics\.niqe: "):
        metric.process(None, [small])
