"""The metrics that BasicSR finds by name: BGR in, and every protocol's value of the RGB image."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import rainoerme_plugin
from rainoerme_plugin.metrics.protocols import psnr, ssim
from rainoerme_plugin.registered.metrics import derain_psnr, derain_ssim

Pixels = NDArray[np.uint8]

NAMES = ["matlab_y", "matlab_y_uint8", "basicsr_y", "opencv_y", "rgb"]
LUMINANCES = NAMES[:-1]


def rgb_pair(height: int = 48, width: int = 60) -> tuple[Pixels, Pixels]:
    """Red is bright and hardly wrong, green is middling, blue is dark and very wrong."""
    random = np.random.default_rng(0)
    reference = np.array([190.0, 110.0, 40.0]) + random.normal(0, 12, (height, width, 3))
    image = reference + np.array([2.0, 9.0, 40.0]) * random.normal(0, 1, (height, width, 3))
    first, second = (np.clip(values, 0, 255).astype(np.uint8) for values in (image, reference))
    return first, second


def bgr(image: Pixels) -> Pixels:
    return np.ascontiguousarray(image[..., ::-1])


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("size", [(48, 60), (384, 400)])
def test_bgr_images_score_as_their_rgb_images(size: tuple[int, int], protocol: str) -> None:
    image, reference = rgb_pair(*size)
    assert derain_psnr(bgr(image), bgr(reference), protocol) == psnr(image, reference, protocol)
    assert derain_ssim(bgr(image), bgr(reference), protocol) == ssim(image, reference, protocol)


@pytest.mark.parametrize("protocol", LUMINANCES)
def test_the_order_of_channels_shows_in_every_luminance(protocol: str) -> None:
    image, reference = rgb_pair()
    assert abs(derain_psnr(image, reference, protocol) - psnr(image, reference, protocol)) > 3
    assert abs(derain_ssim(image, reference, protocol) - ssim(image, reference, protocol)) > 0.1


# Blue, which comes first in BGR, weighs 24.966 of 255 in MATLAB's luminance and 29 in OpenCV's; red 65.481 and 76.
@pytest.mark.parametrize(
    ("protocol", "blue", "red"),
    [
        ("matlab_y", 20.1838243, 11.8084975),
        ("matlab_y_uint8", 20.1720034, 11.8725365),
        ("basicsr_y", 20.1838243, 11.8084975),
        ("opencv_y", 18.8828437, 10.5145318),
        ("rgb", 4.7712125, 4.7712125),
    ],
)
def test_the_first_channel_is_blue_and_the_last_is_red(protocol: str, blue: float, red: float) -> None:
    black = np.zeros((12, 12, 3), np.uint8)
    first, last = black.copy(), black.copy()
    first[..., 0], last[..., 2] = 255, 255
    assert derain_psnr(first, black, protocol) == pytest.approx(blue, abs=1e-6)
    assert derain_psnr(last, black, protocol) == pytest.approx(red, abs=1e-6)


def test_the_values_are_those_of_basicsrs_own_metrics() -> None:
    from basicsr.metrics import calculate_psnr, calculate_ssim

    image, reference = (bgr(values) for values in rgb_pair())
    options = {"crop_border": 0, "test_y_channel": True}
    assert derain_psnr(image, reference, "basicsr_y") == pytest.approx(
        calculate_psnr(image, reference, **options), abs=1e-5
    )
    assert derain_ssim(image, reference, "basicsr_y") == pytest.approx(
        calculate_ssim(image, reference, **options), abs=1e-5
    )


def test_the_protocol_is_matlab_y_unless_another_is_named() -> None:
    from basicsr.metrics import calculate_metric

    rainoerme_plugin.register()
    image, reference = rgb_pair(384, 400)
    data = {"img": bgr(image), "img2": bgr(reference)}
    assert derain_psnr(**data) == calculate_metric(data, {"type": "derain_psnr"}) == psnr(image, reference, "matlab_y")
    assert derain_ssim(**data) == calculate_metric(data, {"type": "derain_ssim"}) == ssim(image, reference, "matlab_y")
    assert ssim(image, reference, "matlab_y") != pytest.approx(ssim(image, reference, "basicsr_y"), abs=0.01)


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize(("name", "metric"), [("derain_psnr", psnr), ("derain_ssim", ssim)])
def test_basicsr_finds_the_metrics_by_name(
    name: str, metric: Callable[[Pixels, Pixels, str], float], protocol: str
) -> None:
    from basicsr.metrics import calculate_metric

    rainoerme_plugin.register()
    image, reference = rgb_pair()
    options = {"type": name, "protocol": protocol}
    # The model hands views of RGB images over, BasicSR's own models whole BGR images.
    for order in (bgr, lambda values: values[..., ::-1]):
        value = calculate_metric({"img": order(image), "img2": order(reference)}, options)
        assert type(value) is float
        assert value == metric(image, reference, protocol)
    assert options == {"type": name, "protocol": protocol}


@pytest.mark.parametrize("protocol", NAMES)
def test_images_are_left_as_they_were(protocol: str) -> None:
    images = [bgr(values) for values in rgb_pair()]
    before = [values.copy() for values in images]
    derain_psnr(images[0], images[1], protocol)
    derain_ssim(images[0], images[1], protocol)
    np.testing.assert_array_equal(images, before)


def test_equal_images_are_infinitely_good_and_wholly_similar() -> None:
    image, _ = rgb_pair()
    for protocol in NAMES:
        assert derain_psnr(image, image.copy(), protocol) == math.inf
        assert derain_ssim(image, image.copy(), protocol) == pytest.approx(1, abs=1e-12)


def test_real_rain_read_by_opencv_scores_as_basicsr_scores_it(rainoerme_data: Path) -> None:
    from basicsr.metrics import calculate_metric

    rainoerme_plugin.register()
    folder = rainoerme_data / "Rain100L" / "test"
    for name in ("norain-1.png", "norain-50.png", "norain-100.png"):
        rainy, clean = (cv2.imread(str(folder / kind / name), cv2.IMREAD_COLOR) for kind in ("rain", "norain"))
        data = {"img": rainy, "img2": clean}
        for measure in ("psnr", "ssim"):
            expected = calculate_metric(
                data, {"type": f"calculate_{measure}", "crop_border": 0, "test_y_channel": True}
            )
            for protocol in ("basicsr_y", "matlab_y"):
                value = calculate_metric(data, {"type": f"derain_{measure}", "protocol": protocol})
                assert value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", [derain_psnr, derain_ssim])
def test_unknown_protocols_and_options_are_refused(metric: Callable[..., float]) -> None:
    image, reference = rgb_pair()
    with pytest.raises(ValueError, match=r"no protocol 'y_channel'.*matlab_y.*rgb"):
        metric(image, reference, protocol="y_channel")
    with pytest.raises(TypeError, match="test_y_channel"):
        metric(image, reference, test_y_channel=True)


@pytest.mark.parametrize("metric", [derain_psnr, derain_ssim])
def test_images_that_do_not_fit_are_refused(metric: Callable[..., float]) -> None:
    image, reference = rgb_pair()
    with pytest.raises(ValueError, match=r"differ in size: \(48, 60\) and \(47, 60\)"):
        metric(image, reference[:-1])
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8, got .* float32"):
        metric(image, reference.astype(np.float32))
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8, got \(48, 60, 4\)"):
        metric(np.zeros((48, 60, 4), np.uint8), reference)
