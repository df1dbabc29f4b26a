"""The SSIM loss against a plain double loop, scikit-image, SciPy and hand-worked cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor

from rainoerme_plugin.losses.ssim import SSIMLoss, ssim, ssim_map

Array = NDArray[np.float64]

# Half precision is computed in float32, from values that were rounded before.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
MEAN_TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image and a noisy version of it, with flat places and with texture."""
    random = np.random.default_rng(seed)
    image = random.random(shape) * np.linspace(0, 1, shape[-1])
    target = np.clip(image + random.normal(0, 0.1, shape), 0, 1)
    return torch.from_numpy(image).to(dtype), torch.from_numpy(target).to(dtype)


def looped(image: Tensor, target: Tensor, window: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> Array:
    """SSIM pixel by pixel: a 2-D Gaussian window of unit sum, zeros beyond the border, in float64."""
    x, y = image.double().numpy(), target.double().numpy()
    half = window // 2
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
    gaussian = np.exp(-(rows**2 + columns**2) / (2 * sigma**2))
    gaussian /= gaussian.sum()
    padding = [(0, 0), (0, 0), (half, half), (half, half)]
    x_padded, y_padded = np.pad(x, padding), np.pad(y, padding)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    result = np.empty_like(x)
    for batch, channel, row, column in np.ndindex(*x.shape):
        a = x_padded[batch, channel, row : row + window, column : column + window]
        b = y_padded[batch, channel, row : row + window, column : column + window]
        mean_a, mean_b = (gaussian * a).sum(), (gaussian * b).sum()
        variance_a = (gaussian * a * a).sum() - mean_a**2
        variance_b = (gaussian * b * b).sum() - mean_b**2
        covariance = (gaussian * a * b).sum() - mean_a * mean_b
        result[batch, channel, row, column] = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
            (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
        )
    return result


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 13, 20), (1, 1, 20, 12), (2, 3, 5, 7), (1, 2, 1, 24)])
def test_the_map_is_that_of_a_double_loop(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    image, target = pair(shape, dtype)
    oracle = looped(image, target)
    result = ssim_map(image, target)
    assert result.shape == image.shape
    np.testing.assert_allclose(result.double().numpy(), oracle, atol=TOLERANCE[dtype], rtol=0)
    assert float(ssim(image, target)) == pytest.approx(oracle.mean(), abs=MEAN_TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("window", "sigma", "data_range"), [(3, 1.5, 1.0), (7, 0.8, 1.0), (11, 3.0, 1.0), (1, 1.5, 1.0), (5, 1.0, 255.0)]
)
def test_other_windows_and_ranges_are_those_of_a_double_loop(window: int, sigma: float, data_range: float) -> None:
    image, target = (data_range * values for values in pair((1, 3, 9, 14), seed=1))
    oracle = looped(image, target, window, sigma, data_range)
    options = {"sigma": sigma, "data_range": data_range}
    result = ssim_map(image, target, window=window, **options)
    np.testing.assert_allclose(result.numpy(), oracle, atol=TOLERANCE[torch.float64], rtol=0)
    assert float(ssim(image, target, window=window, **options)) == pytest.approx(
        oracle.mean(), abs=MEAN_TOLERANCE[torch.float64]
    )
    assert float(SSIMLoss(window=window, **options)(image, target)) == pytest.approx(
        1 - oracle.mean(), abs=MEAN_TOLERANCE[torch.float64]
    )


def test_the_interior_is_that_of_scikit_image() -> None:
    image, target = pair((1, 3, 24, 31), seed=2)
    _, oracle = structural_similarity(
        image[0].numpy(),
        target[0].numpy(),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    result = ssim_map(image, target)[0].numpy()
    np.testing.assert_allclose(result[:, 5:-5, 5:-5], oracle[:, 5:-5, 5:-5], atol=TOLERANCE[torch.float64], rtol=0)


def test_the_whole_map_is_that_of_scipys_gaussian_with_zeros_beyond_the_border() -> None:
    image, target = pair((2, 3, 18, 15), seed=3)

    def blur(values: Array) -> Array:
        return ndimage.gaussian_filter(values, 1.5, mode="constant", radius=5, axes=(-2, -1))

    x, y = image.numpy(), target.numpy()
    mean_x, mean_y = blur(x), blur(y)
    contrast = (2 * (blur(x * y) - mean_x * mean_y) + 9e-4) / (blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2 + 9e-4)
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    np.testing.assert_allclose(
        ssim_map(image, target).numpy(), luminance * contrast, atol=TOLERANCE[torch.float64], rtol=0
    )


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 4, 30)])
def test_identical_images_are_wholly_similar(shape: tuple[int, ...]) -> None:
    image, _ = pair(shape, torch.float32)
    np.testing.assert_allclose(ssim_map(image, image.clone()).numpy(), 1, atol=TOLERANCE[torch.float32], rtol=0)
    assert float(SSIMLoss()(image, image.clone())) == pytest.approx(0, abs=1e-6)


def test_constant_images_have_a_closed_form_inside_and_in_the_corner() -> None:
    a, b, c1, c2 = 0.3, 0.8, 0.01**2, 0.03**2
    result = ssim_map(torch.full((1, 1, 32, 32), a).double(), torch.full((1, 1, 32, 32), b).double())
    # Inside, both variances and the covariance are 0.
    assert float(result[0, 0, 16, 16]) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-7)
    # In the corner the window holds a share m of its mass, the rest lies on zeros.
    gaussian = [math.exp(-(k**2) / 4.5) for k in range(-5, 6)]
    m = (sum(gaussian[5:]) / sum(gaussian)) ** 2
    corner = ((2 * m * m * a * b + c1) * (2 * (m - m * m) * a * b + c2)) / (
        (m * m * (a * a + b * b) + c1) * ((m - m * m) * (a * a + b * b) + c2)
    )
    assert float(result[0, 0, 0, 0]) == pytest.approx(corner, abs=1e-7)


def test_a_pair_that_runs_against_each_other_is_below_zero() -> None:
    image = torch.linspace(0, 1, 24).repeat(24, 1)[None, None]
    assert float(ssim_map(image, 1 - image)[0, 0, 12, 12]) < 0


def test_the_order_of_the_images_does_not_matter() -> None:
    image, target = pair((2, 3, 12, 17))
    torch.testing.assert_close(ssim_map(image, target), ssim_map(target, image), rtol=0, atol=TOLERANCE[torch.float64])


def test_every_pixel_of_every_image_and_channel_counts_the_same() -> None:
    image, target = pair((2, 3, 8, 8))
    each = [ssim(image[b : b + 1, c : c + 1], target[b : b + 1, c : c + 1]) for b in range(2) for c in range(3)]
    assert float(ssim(image, target)) == pytest.approx(float(sum(each)) / 6, abs=MEAN_TOLERANCE[torch.float64])


@pytest.mark.parametrize("window", [11, 3])
@pytest.mark.parametrize("shape", [(1, 2, 4, 6), (2, 1, 3, 3)])
def test_the_gradient_of_ssim_is_the_numerical_one(shape: tuple[int, ...], window: int) -> None:
    image, target = (values.requires_grad_() for values in pair(shape, seed=4))
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, window=window), (image, target))


def test_the_gradient_of_the_loss_is_the_numerical_one() -> None:
    image, target = (values.requires_grad_() for values in pair((1, 2, 5, 4), seed=5))
    assert torch.autograd.gradcheck(SSIMLoss(loss_weight=2.5, window=5), (image, target))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_the_result_is_at_least_float32(dtype: torch.dtype, expected: torch.dtype) -> None:
    image, target = pair((1, 3, 12, 12), dtype)
    assert ssim_map(image, target).dtype == expected
    assert ssim(image, target).dtype == expected


def test_images_of_two_precisions_are_compared_in_the_higher() -> None:
    image, target = pair((1, 3, 12, 12))
    image = image.half()
    assert ssim(image, target).dtype == torch.float64
    assert float(ssim(image, target)) == pytest.approx(looped(image, target).mean(), abs=MEAN_TOLERANCE[torch.float64])


def test_autocast_does_not_lower_the_precision() -> None:
    image, target = pair((1, 3, 16, 16), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = ssim_map(image, target)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.double().numpy(), looped(image, target), atol=TOLERANCE[torch.float32], rtol=0)


def test_the_loss_is_weighted() -> None:
    image, target = pair((1, 3, 12, 12))
    oracle = 1 - looped(image, target).mean()
    assert float(SSIMLoss()(image, target)) == pytest.approx(oracle, abs=MEAN_TOLERANCE[torch.float64])
    assert float(SSIMLoss(loss_weight=0.25)(image, target)) == pytest.approx(
        0.25 * oracle, abs=MEAN_TOLERANCE[torch.float64]
    )


def test_descending_the_loss_brings_an_image_to_its_target() -> None:
    image, target = pair((1, 1, 8, 8), seed=6)
    image.requires_grad_()
    start = float(SSIMLoss()(image, target).detach())
    for _ in range(20):
        (gradient,) = torch.autograd.grad(SSIMLoss()(image, target), image)
        with torch.no_grad():
            image -= 0.5 * gradient
    assert 1 - looped(image.detach(), target).mean() < 0.5 * start


def test_a_gradient_can_be_had_after_the_same_size_was_seen_in_inference_mode() -> None:
    image, target = pair((1, 1, 5, 6))
    with torch.inference_mode():
        ssim(image, target, sigma=1.37)
    assert torch.autograd.gradcheck(lambda x: ssim(x, target, sigma=1.37), (image.requires_grad_(),))


@pytest.mark.parametrize(
    ("image", "target"),
    [
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9)),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)),
        (torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)),
    ],
)
def test_images_of_other_shapes_are_refused(image: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"one shape \(B, C, H, W\), got \(.*8\) and \(.*\)"):
        ssim_map(image, target)
    with pytest.raises(ValueError, match="one shape"):
        SSIMLoss()(image, target)


def test_images_of_whole_numbers_are_refused() -> None:
    floating, whole = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    for image, target in [(whole, whole), (floating, whole), (whole, floating)]:
        with pytest.raises(TypeError, match=r"floating point, got .*torch\.uint8"):
            ssim(image, target)


@pytest.mark.parametrize("window", [10, 0, -3])
def test_a_window_that_is_not_odd_is_refused(window: int) -> None:
    image = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ValueError, match=f"window must be odd and positive, got {window}"):
        ssim_map(image, image, window=window)
    with pytest.raises(ValueError, match=f"window must be odd and positive, got {window}"):
        SSIMLoss(window=window)
