"""The Python interface: one call for every kind of image."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made import Of, conv
from torch import Tensor, nn

import rainoerme_plugin
from rainoerme_plugin.archs.adapt import Needs
from rainoerme_plugin.errors import DataError, OptionError, WeightsError
from rainoerme_plugin.inference.derainer import Derainer, load_derainer
from rainoerme_plugin.inference.opening import Opened

CPU = torch.device("cpu")


def of(network: nn.Module | Callable[[Tensor], Tensor], **arguments: Any) -> Derainer:
    network = network if isinstance(network, nn.Module) else Of(network)
    return Derainer(Opened(network.eval(), Needs(), "Of", Path("of.pth"), "0" * 64), CPU, **arguments)


def darker(rainy: Tensor) -> Tensor:
    return rainy * torch.tensor([0.5, 0.25, 1.0]).view(3, 1, 1)


def random(shape: tuple[int, ...], dtype: Any) -> Any:
    values = np.random.default_rng(len(shape)).random(shape)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_stay_whole_numbers_of_their_depth(dtype: Any) -> None:
    image = random((5, 7, 3), dtype)
    derained = of(darker)(image)
    assert derained.dtype == dtype
    np.testing.assert_array_equal(derained, np.rint(image * np.array([0.5, 0.25, 1.0])))


def test_every_level_comes_back_from_a_network_that_changes_nothing() -> None:
    for dtype in (np.uint8, np.uint16):
        levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1, 1).repeat(3, axis=2)
        np.testing.assert_array_equal(of(lambda rainy: rainy)(levels), levels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_stays_grey_by_the_mean_of_what_the_network_makes(dtype: Any, shape: tuple[int, ...]) -> None:
    image = random(shape, dtype)
    derained = of(darker)(image)
    assert (derained.shape, derained.dtype) == (shape, dtype)
    wanted = image * (1.75 / 3)
    np.testing.assert_allclose(derained, wanted, atol=1e-6 if np.dtype(dtype).kind == "f" else 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_alpha_stays_as_it_is(dtype: Any) -> None:
    image = random((5, 7, 4), dtype)
    derained = of(darker)(image)
    np.testing.assert_array_equal(derained[..., 3], image[..., 3])
    np.testing.assert_array_equal(derained[..., :3], of(darker)(image[..., :3].copy()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_lie_in_0_to_1_and_keep_their_dtype(dtype: Any) -> None:
    image = random((5, 7, 3), dtype)
    derained = of(lambda rainy: darker(rainy) * 2 - 0.1)(image)
    assert derained.dtype == dtype
    wanted = np.clip(image * np.array([1.0, 0.5, 2.0]) - 0.1, 0, 1)
    np.testing.assert_allclose(derained, wanted, atol=2e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_of_one_image_or_a_batch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    image = torch.rand(shape).to(dtype).requires_grad_()
    derained = of(darker)(image)
    assert (derained.shape, derained.dtype, derained.requires_grad) == (image.shape, dtype, False)
    torch.testing.assert_close(derained.double(), darker(image.double().detach()), rtol=0, atol=1e-2)


def test_tensors_of_whole_numbers() -> None:
    image = torch.arange(256, dtype=torch.uint8).repeat(3, 2, 1)
    torch.testing.assert_close(of(lambda rainy: rainy)(image), image, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ([[1, 2]], TypeError, "a numpy array or a PyTorch tensor, got list"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"\(H, W, 3\) or \(H, W, 4\), got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), TypeError, r"uint8, uint16 or floating point in \[0, 1\], got int64"),
        (np.full((4, 4, 3), 255.0), ValueError, r"must lie in \[0, 1\], got 255 to 255; whole numbers are uint8"),
        (np.full((4, 4, 3), np.nan), ValueError, r"must lie in \[0, 1\], got nan to nan"),
        (torch.zeros(4, 4, 3), ValueError, r"\(3, H, W\) or \(B, 3, H, W\), got \(4, 4, 3\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), TypeError, "got torch.int32"),
        (torch.full((3, 4, 4), -0.1), ValueError, r"got -0.1 to -0.1"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        of(darker)(image)


def test_images_of_one_size_go_through_together() -> None:
    network = Of(lambda rainy: darker(rainy))
    derainer = of(network, batch=3)
    images = [random((6, 8, 3), np.uint16) for _ in range(3)]
    together = derainer.many(images)
    assert network.seen == [(3, 3, 6, 8)]
    for image, derained in zip(images, together, strict=True):
        np.testing.assert_array_equal(derained, derainer(image))
    network.seen.clear()
    mixed = [*images[:1], random((4, 8, 3), np.uint8)]
    assert [each.shape for each in derainer.many(mixed)] == [(6, 8, 3), (4, 8, 3)]
    assert network.seen == [(1, 3, 6, 8), (1, 3, 4, 8)]
    assert derainer.many([]) == []


def test_tiles_give_the_same() -> None:
    image = random((90, 70, 3), np.uint8)
    np.testing.assert_array_equal(of(conv(5), tile=32)(image), of(conv(5))(image))


def test_threads_take_turns() -> None:
    inside, most = 0, 0

    def slow(rainy: Tensor) -> Tensor:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1
        return darker(rainy)

    derainer = of(slow)
    images = [random((4, 4, 3), np.uint8) + number for number in range(16)]
    results: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=number: results.update({n: derainer(images[n])})) for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    for number, image in enumerate(images):
        np.testing.assert_array_equal(results[number], of(darker)(image))


def test_values_that_no_image_has_are_an_error() -> None:
    def broken(rainy: Tensor) -> Tensor:
        return rainy / 0

    for image in (random((4, 4, 3), np.uint8), torch.rand(3, 4, 4)):
        with pytest.raises(DataError, match=r"not finite in float32$"):
            of(broken)(image)
    with pytest.raises(DataError, match="not finite in bfloat16; try it without half precision"):
        of(broken, precision="bfloat16")(random((4, 4, 3), np.uint8))


def test_wrong_arguments() -> None:
    with pytest.raises(OptionError, match="got -1 and None"):
        of(darker, tile=-1)
    with pytest.raises(OptionError, match="got None and 0"):
        of(darker, batch=0)
    with pytest.raises(OptionError, match="--device gpu: no such device"):
        load_derainer(device="gpu")
    with pytest.raises(WeightsError, match="no such checkpoint: nowhere"):
        load_derainer("nowhere.pth")


def test_three_lines_derain_with_the_network_of_the_package() -> None:
    derainer = rainoerme_plugin.load_derainer()
    image = random((40, 50, 3), np.uint8)
    derained = derainer(image)
    assert derained.shape == image.shape
    half = load_derainer(half=True)(image)
    assert 0 < np.abs(half.astype(int) - derained).max() < 12
    assert derainer.identity != load_derainer(half=True).identity
    assert "default network" in derainer.opened.about
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rainoerme_plugin.nothing
