"""What is measured of a derained image, against BasicSR, torchmetrics, formulas in SciPy and stubs of networks."""

from __future__ import annotations

import math
import sys
import urllib.error
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage, signal
from skimage.metrics import peak_signal_noise_ratio

from rainoerme_plugin.benchmark import measures
from rainoerme_plugin.benchmark.measures import EXTRAS, Extra, Measure, Measures, niqe
from rainoerme_plugin.data.images import decode_image
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.metrics.protocols import PROTOCOLS

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]


def pair(size: tuple[int, int] = (100, 200), seed: int = 0) -> tuple[Pixels, Pixels]:
    """A coloured texture and a version of it with noise and streaks."""
    random = np.random.default_rng(seed)
    base = 120 + 90 * ndimage.gaussian_filter(random.normal(0, 2, (*size, 3)), (1.5, 1.5, 0)) * [1.0, 0.5, 1.4]
    streaks = ndimage.gaussian_filter((random.random(size) < 0.02) * 400.0, (3, 0.5))[..., None]
    rainy = base + streaks + random.normal(0, 5, base.shape)
    first, second = (np.clip(values, 0, 255).astype(np.uint8) for values in (rainy, base))
    return first, second


@pytest.fixture(autouse=True)
def _no_network_of_another_test() -> Iterator[None]:
    measures._torchmetric.cache_clear()
    yield
    measures._torchmetric.cache_clear()


# ----- NIQE


def test_niqe_is_basicsrs_of_the_luminance() -> None:
    from basicsr.metrics.niqe import calculate_niqe

    image, _ = pair((200, 300))
    expected = calculate_niqe(image[..., ::-1].astype(np.float64), 0, input_order="HWC", convert_to="y")
    assert niqe(image) == pytest.approx(expected, abs=1e-9)
    # The order of the colours matters.
    assert abs(niqe(image[..., ::-1]) - expected) > 0.01
    assert EXTRAS["niqe"].compute(image, image) == niqe(image)


def test_niqe_of_real_images_is_basicsrs_and_noise_makes_it_worse(rainoerme_data: Path) -> None:
    from basicsr.metrics.niqe import calculate_niqe

    clean = decode_image(rainoerme_data / "Rain100L" / "test" / "norain" / "norain-2.png")
    noise = np.random.default_rng(1).normal(0, 40, clean.shape)
    noisy = np.clip(clean + noise, 0, 255).astype(np.uint8)
    for image in (clean, noisy):
        assert niqe(image) == pytest.approx(calculate_niqe(image[..., ::-1], 0), abs=1e-9)
    assert 1 < niqe(clean) < niqe(noisy)


def test_niqe_is_the_same_in_several_threads_and_leaves_warnings_as_they_were() -> None:
    images = [pair((96, 384), seed)[0] for seed in range(4)]
    images[0][:, :192] = 128  # NumPy warns of a block like the first
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        expected = [niqe(image) for image in images]
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(niqe, images * 5)) == expected * 5
        assert warnings.filters == before
    assert not caught


@pytest.mark.parametrize("size", [(95, 400), (400, 95), (96, 191), (191, 96), (1, 1), (191, 191)])
def test_niqe_refuses_images_of_fewer_than_two_blocks(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"NIQE needs two blocks of 96x96 pixels, got {size[1]}x{size[0]}"):
        niqe(pair(size)[0])


@pytest.mark.parametrize("size", [(96, 192), (192, 96), (193, 100)])
def test_niqe_takes_images_of_two_blocks(size: tuple[int, int]) -> None:
    assert 0 < niqe(pair(size)[0]) < 100


@pytest.mark.parametrize("level", [0, 77, 255])
def test_niqe_refuses_flat_images(level: int) -> None:
    with pytest.raises(ValueError, match="NIQE is not defined for this image: too much of it is flat"):
        niqe(np.full((200, 300, 3), level, np.uint8))


def test_niqe_takes_no_count_of_a_flat_block_as_long_as_two_are_left() -> None:
    image = pair((96, 288))[0]
    image[:, :96] = 60
    assert 0 < niqe(image) < 100


# ----- VIF


def vif_of(image: Array, reference: Array) -> float:
    """Sheikh and Bovik's pixel-domain VIF of one channel in 0 to 255: vifp_mscale.m in SciPy."""
    share = whole = 0.0
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        offsets = np.arange(side) - (side - 1) / 2
        window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (side / 5) ** 2))
        window /= window.sum()

        def mean(plane: Array, window: Array = window) -> Array:
            return signal.convolve2d(plane, window, mode="valid")

        if scale > 1:
            reference, image = mean(reference)[::2, ::2], mean(image)[::2, ::2]
        mean_r, mean_i = mean(reference), mean(image)
        variance_r = np.maximum(mean(reference**2) - mean_r**2, 0)
        variance_i = np.maximum(mean(image**2) - mean_i**2, 0)
        covariance = mean(reference * image) - mean_r * mean_i
        gain = covariance / (variance_r + 1e-10)
        noise = variance_i - gain * covariance
        noise[gain < 0] = variance_i[gain < 0]
        gain = np.maximum(gain, 0)
        noise = np.maximum(noise, 1e-10)
        share += np.log10(1 + gain**2 * variance_r / (noise + 2)).sum()
        whole += np.log10(1 + variance_r / 2).sum()
    return share / whole


@pytest.mark.parametrize("size", [(41, 41), (60, 90), (101, 77)])
def test_vif_is_its_authors_script_on_levels_from_0_to_255(size: tuple[int, int]) -> None:
    image, reference = pair(size, 2)
    channels = [vif_of(*(values[..., channel].astype(float) for values in (image, reference))) for channel in range(3)]
    found = EXTRAS["vif"].compute(image, reference)
    assert 0.05 < found < 0.95
    # torchmetrics computes in float32.
    assert found == pytest.approx(sum(channels) / 3, abs=1e-3)


def test_vif_is_torchmetrics() -> None:
    from torchmetrics.image import VisualInformationFidelity

    image, reference = pair((64, 80), 3)
    tensors = [torch.from_numpy(values).permute(2, 0, 1)[None].float() for values in (image, reference)]
    assert EXTRAS["vif"].compute(image, reference) == pytest.approx(
        float(VisualInformationFidelity()(*tensors)), abs=1e-4
    )


def test_vif_of_one_image_does_not_depend_on_those_before_and_is_1_for_equal_ones() -> None:
    first, second = pair((50, 50), 4), pair((50, 50), 5)
    compute = EXTRAS["vif"].compute
    alone = compute(*second)
    compute(*first)
    assert compute(*second) == alone
    assert compute(first[0], first[0]) == pytest.approx(1, abs=1e-5)
    # The second of the two is the reference.
    assert abs(compute(*first) - compute(*first[::-1])) > 0.01


# ----- networks


@pytest.mark.parametrize("name", ["lpips", "lpips_vgg"])
def test_lpips_gets_the_derained_and_the_clean_image_in_0_to_1_and_is_made_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, object]] = []

    class Stub:
        def __init__(self, **arguments: object) -> None:
            made.append(arguments)

        def __call__(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
            assert image.shape == reference.shape == (1, 3, 20, 30)
            assert not torch.is_grad_enabled()
            return image.max() + 10 * reference.max()

    module = ModuleType("torchmetrics.image.lpip")
    module.LearnedPerceptualImagePatchSimilarity = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    chosen = Measures([], [name])
    derained, clean = np.full((20, 30, 3), 51, np.uint8), np.full((20, 30, 3), 255, np.uint8)
    for _ in range(2):
        figures, problems = chosen(derained, derained, clean)
        assert figures == {name: pytest.approx(0.2 + 10, abs=1e-6)}
        assert problems == {}
    assert made == [{"net_type": "alex" if name == "lpips" else "vgg", "normalize": True}]


def test_dists_is_torchmetrics_with_its_network_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image import dists
    from torchvision.models.vgg import cfgs, make_layers

    read: list[object] = []
    # VGG-16's layers with any weights: the published ones are not at hand.
    torch.manual_seed(0)
    layers = make_layers(cfgs["D"], batch_norm=False)

    def vgg16(weights: object) -> SimpleNamespace:
        read.append(weights)
        return SimpleNamespace(features=layers)

    monkeypatch.setattr(dists, "vgg16", vgg16)
    images = [pair((40, 48), seed) for seed in range(2)]
    chosen = Measures([], ["dists"])
    found = [chosen(image, image, reference)[0]["dists"] for image, reference in images]
    assert len(read) == 1
    for value, both in zip(found, images, strict=True):
        tensors = [torch.from_numpy(values).permute(2, 0, 1)[None] / 255 for values in both]
        with torch.no_grad():
            expected = float(dists.deep_image_structure_and_texture_similarity(*tensors, reduction="mean"))
        assert value == pytest.approx(expected, abs=1e-6)
        assert value > 0.001
    assert chosen(images[0][0], images[0][0], images[0][0])[0]["dists"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lpips", "alexnet-owt-7be5be79.pth"),
        ("lpips_vgg", "vgg16-397923af.pth"),
        ("dists", "vgg16-397923af.pth"),
    ],
)
def test_a_network_that_cannot_be_downloaded_is_named_with_its_file_and_where_it_belongs(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(OptionError) as found:
        Measures(["rgb"], [name])
    message = str(found.value)
    assert "\n" not in message
    assert message.startswith(f"measures: the network of {name} cannot be had (<urlopen error Name or service")
    assert f"put https://download.pytorch.org/models/{file} into {tmp_path}/checkpoints" in message


@pytest.mark.parametrize("name", ["lpips", "lpips_vgg", "dists", "vif"])
def test_without_torchmetrics_its_measures_are_refused_with_what_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == "torchmetrics"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(OptionError, match=rf"^measures: {name} needs torchmetrics: pip install 'torchmetrics>=1\.7'$"):
        Measures(["rgb"], ["niqe", name])
    assert Measures(["rgb"], ["niqe", "rain_removed", "structure_kept"])


# ----- all together

FULL = [f"{kind}_{name}" for name in ("rgb", "matlab_y") for kind in ("psnr", "ssim")]


def test_the_measures_come_in_the_order_of_the_options_with_what_a_table_needs() -> None:
    chosen = Measures(["rgb", "matlab_y"], ["vif", "niqe"])
    assert [measure.name for measure in chosen.all] == [*FULL, "vif", "niqe"]
    assert [measure.name for measure in chosen.of(paired=True)] == [*FULL, "vif", "niqe"]
    assert [measure.name for measure in chosen.of(paired=False)] == ["niqe"]
    assert [measure.protocol for measure in chosen.all] == ["rgb", "rgb", "matlab_y", "matlab_y", None, None]
    assert [measure.better for measure in chosen.all] == ["higher"] * 5 + ["lower"]
    assert [measure.digits for measure in chosen.all] == [2, 4, 2, 4, 4, 3]
    assert all(PROTOCOLS["rgb"].description in measure.about for measure in chosen.all[:2])
    assert len({measure.title for measure in chosen.all}) == 6


@pytest.mark.parametrize(
    ("name", "better", "needs_clean", "package"),
    [
        ("niqe", "lower", False, None),
        ("rain_removed", "higher", False, None),
        ("structure_kept", "higher", False, None),
        ("lpips", "lower", True, "torchmetrics"),
        ("lpips_vgg", "lower", True, "torchmetrics"),
        ("dists", "lower", True, "torchmetrics"),
        ("vif", "higher", True, "torchmetrics"),
    ],
)
def test_it_is_said_which_way_a_measure_is_better_and_what_it_needs(
    name: str, better: str, needs_clean: bool, package: str | None
) -> None:
    extra = EXTRAS[name]
    assert (extra.measure.name, extra.measure.better, extra.measure.needs_clean) == (name, better, needs_clean)
    assert extra.package == package
    # Each of the two is best where nothing is gained: a blur removes rain, and the input keeps its structure.
    assert extra.measure.ranks is (name not in ("rain_removed", "structure_kept"))
    assert extra.measure.protocol is None


def test_a_pair_has_all_figures_each_of_the_right_two_images() -> None:
    rainy, clean = pair((100, 200), 6)
    derained = np.asarray((rainy.astype(int) + clean) // 2, np.uint8)
    figures, problems = Measures(["rgb", "opencv_y"], ["structure_kept", "vif", "rain_removed", "niqe"])(
        derained, rainy, clean
    )
    assert problems == {}
    assert sorted(figures) == sorted(
        [*FULL[:2], "psnr_opencv_y", "ssim_opencv_y", "structure_kept", "vif", "rain_removed", "niqe"]
    )
    assert figures["psnr_rgb"] == pytest.approx(peak_signal_noise_ratio(clean, derained), abs=1e-9)
    channels = [vif_of(*(values[..., channel].astype(float) for values in (derained, clean))) for channel in range(3)]
    assert figures["vif"] == pytest.approx(sum(channels) / 3, abs=1e-3)
    # Against the rainy image, and not against the clean one.
    assert 0.1 < figures["rain_removed"] < 1
    assert 0.1 < figures["structure_kept"] < 1
    same, _ = Measures([], ["rain_removed", "structure_kept"])(rainy, rainy, clean)
    assert same == {"rain_removed": 0, "structure_kept": 1}
    assert figures["niqe"] == pytest.approx(niqe(derained), abs=1e-12)


def test_without_ground_truth_there_are_the_figures_that_need_none() -> None:
    rainy, clean = pair((100, 200), 7)
    figures, problems = Measures(list(PROTOCOLS), ["vif", "rain_removed", "niqe"])(clean, rainy, None)
    assert list(figures) == ["rain_removed", "niqe"]
    assert problems == {}


def test_equal_images_have_an_infinite_psnr() -> None:
    _, clean = pair((20, 20))
    figures, problems = Measures(["matlab_y"], [])(clean, clean, clean)
    assert figures == {"psnr_matlab_y": math.inf, "ssim_matlab_y": pytest.approx(1, abs=1e-12)}
    assert problems == {}


def test_what_an_image_is_too_small_for_is_named_and_all_else_is_there() -> None:
    rainy, clean = pair((9, 30), 8)
    chosen = Measures(["rgb", "opencv_y"], ["niqe", "rain_removed", "vif", "structure_kept"])
    figures, problems = chosen(clean, rainy, clean)
    assert list(figures) == ["psnr_rgb", "psnr_opencv_y", "ssim_opencv_y", "rain_removed", "structure_kept"]
    assert list(problems) == ["ssim_rgb", "niqe", "vif"]
    assert problems["ssim_rgb"] == "SSIM under rgb needs at least 11 pixels each way, got 30x9"
    assert problems["niqe"] == "NIQE needs two blocks of 96x96 pixels, got 30x9"
    assert "41x41" in problems["vif"]
    assert {*figures, *problems} == {measure.name for measure in chosen.of(paired=True)}


def test_a_clean_image_of_another_size_costs_only_what_needs_it() -> None:
    rainy, clean = pair((100, 200), 9)
    figures, problems = Measures(["rgb", "matlab_y"], ["vif", "niqe", "rain_removed"])(clean, rainy, clean[:, :199])
    assert list(figures) == ["niqe", "rain_removed"]
    assert problems == dict.fromkeys([*FULL, "vif"], "the images differ in size: (100, 200) and (100, 199)")


def test_a_derained_image_of_another_size_is_refused_by_all_that_compare() -> None:
    rainy, clean = pair((100, 200), 9)
    figures, problems = Measures(["rgb"], ["niqe", "rain_removed", "structure_kept"])(clean[:, :199], rainy, clean)
    assert list(figures) == ["niqe"]
    assert list(problems) == ["psnr_rgb", "ssim_rgb", "rain_removed", "structure_kept"]


@pytest.mark.parametrize(
    "error", [ValueError("too\nbad"), RuntimeError("too\nbad"), OSError("too\nbad"), ZeroDivisionError("too\nbad")]
)
def test_whatever_a_measure_raises_is_one_line_and_costs_no_other(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Pixels) -> float:
        raise error

    broken = Extra(Measure("broken", "Broken", "higher", 2, ""), fail)
    monkeypatch.setattr(measures, "EXTRAS", {"broken": broken, **EXTRAS})
    rainy, clean = pair((30, 40))
    figures, problems = Measures(["rgb"], ["broken", "rain_removed"])(clean, rainy, clean)
    assert list(figures) == ["psnr_rgb", "ssim_rgb", "rain_removed"]
    assert list(problems) == ["broken"]
    assert "\n" not in problems["broken"]
    assert problems["broken"].startswith("too")
