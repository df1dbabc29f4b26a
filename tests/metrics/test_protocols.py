"""PSNR and SSIM of every protocol against scikit-image, BasicSR, MATLAB's scripts in NumPy and hand-worked cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import signal
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rainoerme_plugin.metrics.protocols import PROTOCOLS, psnr, scores, ssim

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

NAMES = ["matlab_y", "matlab_y_uint8", "basicsr_y", "opencv_y", "rgb"]
EXACT = 1e-9
# BasicSR computes its luminance in float32.
SINGLE = 1e-5


def pair(height: int, width: int, seed: int = 0) -> tuple[Pixels, Pixels]:
    """A coloured image with flat, dark and textured places, and a version of it with coloured streaks."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    base = np.stack([columns * 200 / width, rows * 240 / height, 90 + 80 * np.sin(columns / 9)], -1)
    reference = base + random.normal(0, 1, base.shape) * 30 * (columns / width)[..., None]
    streaks = np.array([50.0, 30.0, 70.0]) * (random.random((height, width, 1)) < 0.1)
    image = reference + streaks + random.normal(0, 4, base.shape)
    first, second = (off_the_half(np.clip(values, 0, 255).astype(np.uint8)) for values in (image, reference))
    return first, second


def off_the_half(image: Pixels) -> Pixels:
    """Floating point decides how the luminance of 194 colours, n + 0.5, is rounded: their blue is changed by one."""
    image[..., 2] ^= (image.astype(np.int64) @ [65481, 128553, 24966] % 255000 == 127500).astype(np.uint8)
    return image


def constant(*colour: int, size: tuple[int, int] = (12, 14)) -> Pixels:
    return np.full((*size, 3), colour, np.uint8)


def matlab_y(image: Pixels) -> Array:
    """MATLAB's rgb2ycbcr for RGB in 0 to 255, not rounded."""
    red, green, blue = np.moveaxis(image.astype(np.float64), 2, 0)
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def matlab_y_uint8(image: Pixels) -> Array:
    """The same rounded half away from zero, in whole numbers."""
    red, green, blue = np.moveaxis(image.astype(np.int64), 2, 0)
    return (16 + (65481 * red + 128553 * green + 24966 * blue + 127500) // 255000).astype(np.float64)


def opencv_y(image: Pixels) -> Array:
    """OpenCV's luminance of an image in the order that OpenCV reads."""
    return cv2.cvtColor(np.ascontiguousarray(image[..., ::-1]), cv2.COLOR_BGR2YCrCb)[..., 0].astype(np.float64)


def planes(image: Pixels, protocol: str) -> list[Array]:
    """What a protocol compares of an image."""
    if protocol == "rgb":
        return [image[..., channel].astype(np.float64) for channel in range(3)]
    luminance: dict[str, Callable[[Pixels], Array]] = {"matlab_y_uint8": matlab_y_uint8, "opencv_y": opencv_y}
    return [luminance.get(protocol, matlab_y)(image)]


def wang_2003(x: Array, y: Array) -> float:
    """scikit-image with the settings of Wang et al., and the mean where the 11x11 window fits."""
    _, values = structural_similarity(
        x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return float(values[5:-5, 5:-5].mean())


def box_and_subsample(plane: Array, factor: int) -> Array:
    """imfilter(plane, ones(f) / f^2, 'symmetric', 'same') and (1:f:end, 1:f:end), in MATLAB's words."""
    centre = (factor + 1) // 2  # counted from 1
    padded = np.pad(plane, (centre - 1, factor - centre), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (factor, factor))
    assert windows.shape[:2] == plane.shape
    return windows[::factor, ::factor].mean((2, 3))


def wang_2009(x: Array, y: Array, factor: int) -> float:
    return wang_2003(box_and_subsample(x, factor), box_and_subsample(y, factor))


def expected_ssim(image: Pixels, reference: Pixels, protocol: str, factor: int = 1) -> float:
    """SSIM under a protocol, where the subsampling factor of ``matlab_y`` is known."""
    values = []
    for x, y in zip(planes(image, protocol), planes(reference, protocol), strict=True):
        if protocol == "matlab_y":
            values.append(wang_2009(x, y, factor))
        elif protocol == "opencv_y":
            values.append(float(structural_similarity(x.astype(np.uint8), y.astype(np.uint8))))
        else:
            values.append(wang_2003(x, y))
    return sum(values) / len(values)


def expected_psnr(image: Pixels, reference: Pixels, protocol: str) -> float:
    x, y = np.stack(planes(image, protocol)), np.stack(planes(reference, protocol))
    return float(peak_signal_noise_ratio(y, x, data_range=255))


def test_the_protocols_are_these_five_and_cannot_be_changed() -> None:
    assert list(PROTOCOLS) == NAMES
    assert all(protocol.description for protocol in PROTOCOLS.values())
    with pytest.raises(TypeError):
        PROTOCOLS["rgb"] = PROTOCOLS["matlab_y"]  # type: ignore[index]


def test_the_protocol_is_matlab_y_unless_another_is_named() -> None:
    image, reference = pair(384, 390)
    assert psnr(image, reference) == psnr(image, reference, "matlab_y")
    assert ssim(image, reference) == ssim(image, reference, "matlab_y")


# ----- PSNR


# Luminances of grey 100 and 110: 16 + 219 * g / 255 is 101.882 and 110.471.
@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("matlab_y", 29.4527249),  # 20 log10(255 / 8.588235)
        ("matlab_y_uint8", 30.0690039),  # 102 and 110: 20 log10(255 / 8)
        ("basicsr_y", 29.4527249),
        ("opencv_y", 28.1308036),  # 20 log10(255 / 10)
        ("rgb", 28.1308036),
    ],
)
def test_two_greys_have_a_psnr_worked_by_hand(protocol: str, expected: float) -> None:
    assert psnr(constant(100, 100, 100), constant(110, 110, 110), protocol) == pytest.approx(expected, abs=1e-6)


# Against black, whose luminance is 16 or 0: a colour weighs 65.481, 128.553, 24.966, or .299, .587, .114 of 255.
@pytest.mark.parametrize(
    ("protocol", "red", "green", "blue"),
    [
        ("matlab_y", 11.8084975, 5.9491593, 20.1838243),
        ("matlab_y_uint8", 11.8725365, 5.9190094, 20.1720034),  # 65, 129 and 25 above black
        ("basicsr_y", 11.8084975, 5.9491593, 20.1838243),
        ("opencv_y", 10.5145318, 4.6089784, 18.8828437),  # 76, 150 and 29
        ("rgb", 4.7712125, 4.7712125, 4.7712125),  # 10 log10(3)
    ],
)
def test_red_green_and_blue_weigh_as_they_should(protocol: str, red: float, green: float, blue: float) -> None:
    black = constant(0, 0, 0)
    found = [psnr(constant(*colour), black, protocol) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    assert found == pytest.approx([red, green, blue], abs=1e-6)


def test_the_two_luminances_of_grey_images_lie_1_32_db_apart() -> None:
    grey, other = (np.repeat(image[..., :1], 3, axis=2) for image in pair(40, 50))
    apart = psnr(grey, other, "matlab_y") - psnr(grey, other, "opencv_y")
    assert apart == pytest.approx(1.3219213, abs=1e-6)  # 20 log10(255 / 219)


def test_one_wrong_pixel_is_averaged_over_the_whole_image() -> None:
    # One of 20 x 10 pixels: 200 times less error than everywhere, 23.0103 dB. It is in the corner: nothing is cropped.
    image, reference = constant(90, 90, 90, size=(20, 10)), constant(90, 90, 90, size=(20, 10))
    image[0, 0] = 100
    assert psnr(image, reference, "rgb") == pytest.approx(28.1308036 + 23.0103000, abs=1e-6)
    assert psnr(image, reference, "matlab_y") == pytest.approx(29.4527249 + 23.0103000, abs=1e-6)


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("size", [(41, 56), (64, 33), (1, 1)])
def test_psnr_is_scikit_images_on_the_protocols_planes(size: tuple[int, int], protocol: str) -> None:
    image, reference = pair(*size)
    assert psnr(image, reference, protocol) == pytest.approx(expected_psnr(image, reference, protocol), abs=EXACT)


def test_psnr_is_basicsrs() -> None:
    from basicsr.metrics import calculate_psnr

    image, reference = pair(64, 81, seed=1)
    bgr = image[..., ::-1], reference[..., ::-1]
    luminance = calculate_psnr(*bgr, crop_border=0, test_y_channel=True)
    assert psnr(image, reference, "basicsr_y") == pytest.approx(luminance, abs=SINGLE)
    assert psnr(image, reference, "matlab_y") == pytest.approx(luminance, abs=SINGLE)
    assert psnr(image, reference, "rgb") == pytest.approx(calculate_psnr(*bgr, crop_border=0), abs=EXACT)


def test_the_rounded_luminance_goes_up_at_a_half_and_not_to_the_even_number() -> None:
    # Luminance 52.5 of each; in floating point some of them lie below it by one part in 10^16.
    colours = [(5, 65, 25), (6, 34, 182), (10, 24, 223), (13, 45, 107), (17, 35, 148), (2, 44, 141), (9, 55, 66)]
    above_black = [
        255 / 10 ** (psnr(constant(*colour), constant(0, 0, 0), "matlab_y_uint8") / 20) for colour in colours
    ]
    assert [round(level, 6) in (36, 37) for level in above_black] == [True] * 7
    assert 37 in [round(level, 6) for level in above_black]


# ----- SSIM


# Two constants have (2ab + C1) / (a^2 + b^2 + C1), C1 = 6.5025; 101.882353 and 110.470588 where luminance is MATLAB's.
@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("matlab_y", 0.9967349751),
        ("matlab_y_uint8", 0.9971568827),  # 102 and 110
        ("basicsr_y", 0.9967349751),
        ("opencv_y", 0.9954764441),  # 22006.5025 / 22106.5025
        ("rgb", 0.9954764441),
    ],
)
def test_two_greys_have_an_ssim_worked_by_hand(protocol: str, expected: float) -> None:
    assert ssim(constant(100, 100, 100), constant(110, 110, 110), protocol) == pytest.approx(expected, abs=1e-9)


def test_black_and_white_are_as_different_as_the_first_constant_allows() -> None:
    # 6.5025 / (255^2 + 6.5025)
    black, white = constant(0, 0, 0), constant(255, 255, 255)
    assert ssim(white, black, "rgb") == pytest.approx(9.999000099990002e-05, abs=1e-12)
    assert ssim(white, black, "opencv_y") == pytest.approx(9.999000099990002e-05, abs=1e-12)


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("size", [(321, 481), (40, 57), (58, 33), (11, 11), (11, 30), (19, 11)])
def test_ssim_is_scikit_images_on_the_protocols_planes(size: tuple[int, int], protocol: str) -> None:
    image, reference = pair(*size, seed=2)
    expected = expected_ssim(image, reference, protocol)
    assert expected < 0.95
    assert ssim(image, reference, protocol) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("size", [(7, 7), (7, 20), (9, 8)])
def test_the_small_window_of_opencv_y_takes_small_images(size: tuple[int, int]) -> None:
    image, reference = pair(*size, seed=3)
    expected = expected_ssim(image, reference, "opencv_y")
    assert ssim(image, reference, "opencv_y") == pytest.approx(expected, abs=EXACT)


def test_ssim_is_basicsrs() -> None:
    from basicsr.metrics import calculate_ssim

    image, reference = pair(64, 81, seed=4)
    bgr = image[..., ::-1], reference[..., ::-1]
    luminance = calculate_ssim(*bgr, crop_border=0, test_y_channel=True)
    assert ssim(image, reference, "basicsr_y") == pytest.approx(luminance, abs=SINGLE)
    assert ssim(image, reference, "matlab_y") == pytest.approx(luminance, abs=SINGLE)
    assert ssim(image, reference, "rgb") == pytest.approx(calculate_ssim(*bgr, crop_border=0), abs=EXACT)


# The smaller side over 256, a half going up: 384 is 1.5, 640 is 2.5 and 896 is 3.5.
@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((321, 481), 1),
        ((383, 390), 1),
        ((390, 383), 1),
        ((384, 391), 2),
        ((391, 384), 2),
        ((512, 512), 2),
        ((385, 640), 2),
        ((639, 641), 2),
        ((640, 650), 3),
        ((650, 640), 3),
        ((895, 897), 3),
        ((896, 898), 4),
        ((900, 901), 4),
    ],
)
def test_matlab_y_subsamples_as_the_2009_script(size: tuple[int, int], factor: int) -> None:
    image, reference = pair(*size, seed=5)
    expected = wang_2009(matlab_y(image), matlab_y(reference), factor)
    assert ssim(image, reference, "matlab_y") == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("protocol", ["matlab_y_uint8", "basicsr_y", "opencv_y", "rgb"])
def test_no_other_protocol_subsamples(protocol: str) -> None:
    image, reference = pair(400, 512, seed=6)
    expected = expected_ssim(image, reference, protocol)
    assert ssim(image, reference, protocol) == pytest.approx(expected, abs=EXACT)
    assert abs(ssim(image, reference, protocol) - ssim(image, reference, "matlab_y")) > 0.01


def test_stripes_of_one_pixel_vanish_where_images_are_subsampled_by_two() -> None:
    # Each second column, from the first on, is averaged with the one to its right: both images become plain grey.
    stripes = np.zeros((384, 384, 3), np.uint8)
    stripes[:, ::2] = 255
    assert ssim(stripes, 255 - stripes, "matlab_y") == pytest.approx(1, abs=1e-12)
    assert ssim(stripes[:383], 255 - stripes[:383], "matlab_y") < -0.9
    assert ssim(stripes, 255 - stripes, "basicsr_y") < -0.9
    turned = np.ascontiguousarray(stripes.transpose(1, 0, 2))
    assert ssim(turned, 255 - turned, "matlab_y") == pytest.approx(1, abs=1e-12)


def test_opposite_textures_have_a_negative_ssim() -> None:
    texture = np.random.default_rng(7).integers(0, 256, (30, 40, 1)).astype(np.uint8).repeat(3, axis=2)
    for protocol in NAMES:
        assert ssim(texture, 255 - texture, protocol) < -0.5


# ----- both


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("size", [(24, 31), (400, 390)])
def test_identical_images_are_infinitely_good_and_wholly_similar(size: tuple[int, int], protocol: str) -> None:
    image, _ = pair(*size)
    assert psnr(image, image.copy(), protocol) == math.inf
    assert ssim(image, image.copy(), protocol) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("size", [(24, 31), (400, 390)])
def test_image_and_reference_may_be_exchanged(size: tuple[int, int], protocol: str) -> None:
    image, reference = pair(*size)
    assert psnr(image, reference, protocol) == pytest.approx(psnr(reference, image, protocol), abs=1e-12)
    assert ssim(image, reference, protocol) == pytest.approx(ssim(reference, image, protocol), abs=1e-12)


@pytest.mark.parametrize("protocol", NAMES)
def test_values_are_plain_floats(protocol: str) -> None:
    image, reference = pair(20, 20)
    assert type(psnr(image, reference, protocol)) is float
    assert type(psnr(image, image, protocol)) is float
    assert type(ssim(image, reference, protocol)) is float


@pytest.mark.parametrize("protocol", NAMES)
def test_the_images_are_left_as_they_were_and_may_be_read_only(protocol: str) -> None:
    image, reference = pair(390, 400)
    before = image.copy(), reference.copy()
    values = psnr(image, reference, protocol), ssim(image, reference, protocol)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(reference, before[1])
    image.setflags(write=False)
    reference.setflags(write=False)
    assert (psnr(image, reference, protocol), ssim(image, reference, protocol)) == values


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize(
    "view",
    [
        lambda image: image[::-1],
        lambda image: image[:, ::-1],
        lambda image: image[..., ::-1],
        lambda image: image[::2, 1::2],
        lambda image: image.transpose(1, 0, 2),
        np.asfortranarray,
    ],
    ids=["upside down", "mirrored", "other channel order", "every second pixel", "turned", "Fortran order"],
)
def test_views_are_compared_like_copies(view: Callable[[Pixels], Pixels], protocol: str) -> None:
    image, reference = (view(values) for values in pair(40, 46))
    copies = np.array(image, order="C"), np.array(reference, order="C")
    assert not image.flags.c_contiguous
    assert psnr(image, reference, protocol) == pytest.approx(psnr(*copies, protocol), abs=1e-12)
    assert psnr(image, reference, protocol) == pytest.approx(expected_psnr(*copies, protocol), abs=EXACT)
    assert ssim(image, reference, protocol) == pytest.approx(ssim(*copies, protocol), abs=1e-12)


# ----- several protocols at once


@pytest.mark.parametrize(("size", "factor"), [((41, 56), 1), ((384, 391), 2)])
def test_the_scores_are_scikit_images_under_every_protocol_in_their_order(size: tuple[int, int], factor: int) -> None:
    image, reference = pair(*size, seed=8)
    found = scores(image, reference)
    assert list(found) == [f"{kind}_{name}" for name in NAMES for kind in ("psnr", "ssim")]
    assert all(type(value) is float for value in found.values())
    for name in NAMES:
        assert found[f"psnr_{name}"] == pytest.approx(expected_psnr(image, reference, name), abs=EXACT)
        assert found[f"ssim_{name}"] == pytest.approx(expected_ssim(image, reference, name, factor), abs=EXACT)


@pytest.mark.parametrize(
    "names",
    [[], ["rgb"], ["rgb", "matlab_y"], ["basicsr_y", "opencv_y", "matlab_y"], ("matlab_y_uint8",), NAMES[::-1]],
)
def test_scores_of_some_protocols_come_in_the_order_asked_for(names: list[str]) -> None:
    image, reference = pair(386, 390, seed=9)
    expected = {}
    for name in names:
        expected[f"psnr_{name}"] = psnr(image, reference, name)
        expected[f"ssim_{name}"] = ssim(image, reference, name)
    assert list(scores(image, reference, names).items()) == list(expected.items())


def test_scores_of_identical_images_are_the_best_there_are() -> None:
    image, _ = pair(24, 31)
    found = scores(image, image.copy())
    assert [found[f"psnr_{name}"] for name in NAMES] == [math.inf] * 5
    assert [found[f"ssim_{name}"] for name in NAMES] == pytest.approx([1] * 5, abs=1e-12)


def test_scores_are_refused_as_single_values_are() -> None:
    image, reference = pair(20, 30)
    with pytest.raises(ValueError, match="no protocol 'y'; there are matlab_y, "):
        scores(image, reference, ["rgb", "y"])
    with pytest.raises(ValueError, match=r"differ in size: \(20, 30\) and \(20, 29\)"):
        scores(image, reference[:, :29])
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8, got \(20, 30\) uint8"):
        scores(image, reference[..., 0])
    with pytest.raises(ValueError, match="SSIM under matlab_y needs at least 11 pixels each way, got 30x10"):
        scores(image[:10], reference[:10])
    assert list(scores(image[:10], reference[:10], ["opencv_y"])) == ["psnr_opencv_y", "ssim_opencv_y"]


# ----- real images


def real_pair(folder: Path, name: str) -> tuple[Pixels, Pixels]:
    rainy, clean = (np.asarray(Image.open(folder / kind / name).convert("RGB")) for kind in ("rain", "norain"))
    return rainy, clean


def test_the_rainy_images_of_rain100l_score_as_basicsr_scored_them(rainoerme_data: Path) -> None:
    folder = rainoerme_data / "Rain100L" / "test"
    pairs = [real_pair(folder, path.name) for path in sorted((folder / "rain").iterdir())]
    assert len(pairs) == 100
    # BasicSR's calculate_psnr and calculate_ssim, averaged; known as 26.90 and .8384.
    assert np.mean([psnr(*images, "basicsr_y") for images in pairs]) == pytest.approx(26.900731, abs=2e-6)
    assert np.mean([ssim(*images, "basicsr_y") for images in pairs]) == pytest.approx(0.8383722, abs=2e-7)


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize(
    ("kind", "name", "factor"), [("Rain100L/test", "norain-2.png", 1), ("SPA", "norain-438.png", 2)]
)
def test_real_rain_scores_as_the_independent_versions_say(
    kind: str, name: str, factor: int, protocol: str, rainoerme_data: Path
) -> None:
    rainy, clean = (off_the_half(values.copy()) for values in real_pair(rainoerme_data / kind, name))
    assert psnr(rainy, clean, protocol) == pytest.approx(expected_psnr(rainy, clean, protocol), abs=EXACT)
    assert ssim(rainy, clean, protocol) == pytest.approx(expected_ssim(rainy, clean, protocol, factor), abs=EXACT)


def test_the_square_images_of_spa_score_as_matlabs_scripts_in_scipy_say(rainoerme_data: Path) -> None:
    rainy, clean = real_pair(rainoerme_data / "SPA", "norain-438.png")
    assert rainy.shape == (512, 512, 3)
    x, y = matlab_y(rainy), matlab_y(clean)
    # imfilter with ones(2) / 4, 'symmetric', and every second pixel: four neighbours from the odd rows and columns on.
    half_x, half_y = (plane.reshape(256, 2, 256, 2).mean((1, 3)) for plane in (x, y))
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def filtered(plane: Array) -> Array:
        return signal.convolve2d(plane, window, mode="valid")

    mean_x, mean_y = filtered(half_x), filtered(half_y)
    variances = filtered(half_x**2) - mean_x**2 + filtered(half_y**2) - mean_y**2
    covariance = filtered(half_x * half_y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    found = scores(rainy, clean, ["matlab_y"])
    assert found["psnr_matlab_y"] == pytest.approx(10 * math.log10(255**2 / ((x - y) ** 2).mean()), abs=EXACT)
    assert found["ssim_matlab_y"] == pytest.approx(values.mean(), abs=EXACT)


# ----- refusals

METRICS = [pytest.param(psnr, id="psnr"), pytest.param(ssim, id="ssim")]
Metric = Callable[[Pixels, Pixels, str], float]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize(
    ("other", "named"),
    [
        (np.zeros((20, 20, 3), np.float32), r"\(20, 20, 3\) float32"),
        (np.zeros((20, 20, 3), np.uint16), r"\(20, 20, 3\) uint16"),
        (np.zeros((20, 20, 3), np.int8), r"\(20, 20, 3\) int8"),
        (np.zeros((20, 20), np.uint8), r"\(20, 20\) uint8"),
        (np.zeros((20, 20, 1), np.uint8), r"\(20, 20, 1\) uint8"),
        (np.zeros((20, 20, 4), np.uint8), r"\(20, 20, 4\) uint8"),
        (np.zeros((3, 20, 20), np.uint8), r"\(3, 20, 20\) uint8"),
        (np.zeros((1, 20, 20, 3), np.uint8), r"\(1, 20, 20, 3\) uint8"),
    ],
)
def test_what_is_no_8_bit_colour_image_is_refused(other: Pixels, named: str, protocol: str, metric: Metric) -> None:
    image = constant(1, 2, 3, size=(20, 20))
    for images in [(image, other), (other, image), (other, other)]:
        with pytest.raises(ValueError, match=rf"expected \(H, W, 3\) uint8, got {named}"):
            metric(*images, protocol)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize("size", [(20, 31), (21, 30), (30, 20), (1, 30), (20, 1)])
def test_images_of_two_sizes_are_refused(size: tuple[int, int], protocol: str, metric: Metric) -> None:
    image, other = constant(1, 2, 3, size=(20, 30)), constant(1, 2, 3, size=size)
    with pytest.raises(ValueError, match=rf"differ in size: \(20, 30\) and \({size[0]}, {size[1]}\)"):
        metric(image, other, protocol)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", ["y", "RGB", ""])
def test_an_unknown_protocol_is_refused_with_the_known_ones_named(name: str, metric: Metric) -> None:
    image, reference = pair(20, 20)
    with pytest.raises(ValueError, match=f"no protocol '{name}'") as caught:
        metric(image, reference, name)
    assert all(known in str(caught.value) for known in NAMES)


@pytest.mark.parametrize(
    ("protocol", "smallest"),
    [("matlab_y", 11), ("matlab_y_uint8", 11), ("basicsr_y", 11), ("opencv_y", 7), ("rgb", 11)],
)
def test_ssim_refuses_images_smaller_than_its_window_and_psnr_takes_them(protocol: str, smallest: int) -> None:
    for size in [(smallest - 1, 40), (40, smallest - 1), (1, 1)]:
        image, reference = pair(*size)
        with pytest.raises(ValueError, match=f"SSIM under {protocol} needs at least {smallest} pixels each way, got"):
            ssim(image, reference, protocol)
        assert psnr(image, reference, protocol) == pytest.approx(expected_psnr(image, reference, protocol), abs=EXACT)
    image, _ = pair(smallest, smallest)
    assert ssim(image, image.copy(), protocol) == pytest.approx(1, abs=1e-12)
