"""Images of any size through networks that do not take any: padding, choice of the result, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import Needs, derain, is_out_of_memory, mirrored
from rainoerme_plugin.archs.prenet import PReNet
from rainoerme_plugin.errors import OptionError, WeightsError


class Spy(nn.Module):
    """Gives back its input, and keeps it."""

    def forward(self, rainy: Tensor) -> Tensor:
        self.seen = rainy
        return rainy


class Of(nn.Module):
    """Whatever a function makes of the input."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rainy: Tensor) -> Any:
        return self.function(rainy)


def image(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


# --- how much is padded ---


@pytest.mark.parametrize(
    ("needs", "size", "padding"),
    [
        (Needs(), (1, 1), (0, 0)),
        (Needs(), (33, 64), (0, 0)),
        (Needs(multiple=8), (8, 16), (0, 0)),
        (Needs(multiple=8), (1, 9), (7, 7)),
        (Needs(multiple=8), (17, 23), (7, 1)),
        (Needs(multiple=7), (20, 22), (1, 6)),
        (Needs(minimum=48), (5, 50), (43, 0)),
        (Needs(minimum=48), (47, 48), (1, 0)),
        (Needs(minimum=10, multiple=8), (3, 20), (13, 4)),
        (Needs(minimum=16, multiple=8), (3, 16), (13, 0)),
        (Needs(square=True), (7, 5), (0, 2)),
        (Needs(square=True), (5, 7), (2, 0)),
        (Needs(multiple=128, square=True), (100, 300), (284, 84)),
        (Needs(minimum=5, square=True), (2, 3), (3, 2)),
        (Needs(multiple=16, minimum=30, square=True), (10, 33), (38, 15)),
        (Needs(multiple=16, minimum=30, square=True), (10, 9), (22, 23)),
    ],
)
def test_an_image_lacks_so_many_rows_and_columns(needs: Needs, size: tuple[int, int], padding: tuple[int, int]) -> None:
    assert needs.padding(*size) == padding


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 64), (64, 33)])
@pytest.mark.parametrize(
    "needs", [Needs(), Needs(multiple=8), Needs(minimum=40), Needs(square=True), Needs(16, 48, True)]
)
def test_a_network_that_changes_nothing_gives_back_the_very_image(size: tuple[int, int], needs: Needs) -> None:
    rainy = image(*size, batch=2)
    before = rainy.clone()
    network = Spy()
    derained = derain(network, rainy, needs)
    assert torch.equal(derained, before)
    assert torch.equal(rainy, before)
    height, width = network.seen.shape[2:]
    assert height % needs.multiple == width % needs.multiple == 0
    assert min(height, width) >= needs.minimum
    assert height == width or not needs.square


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 64), (16, 47)])
def test_a_network_sees_multiples_only(size: tuple[int, int]) -> None:
    def pool(rainy: Tensor) -> Tensor:
        assert rainy.shape[2] % 16 == rainy.shape[3] % 16 == 0
        return F.interpolate(F.avg_pool2d(rainy, 16), scale_factor=16)

    assert derain(Of(pool), image(*size), Needs(multiple=16)).shape == (1, 3, *size)


def test_an_image_that_fits_reaches_the_network_untouched() -> None:
    rainy, network = image(16, 32), Spy()
    derain(network, rainy, Needs(multiple=16, minimum=16))
    assert network.seen.shape == rainy.shape
    assert torch.equal(network.seen, rainy)


# --- what is padded ---


@pytest.mark.parametrize("size", [(9, 14), (2, 13), (16, 3), (5, 5), (2, 2), (1, 4), (3, 1), (1, 1)])
def test_the_padding_is_numpys_mirror_at_the_bottom_and_right_and_then_the_border(size: tuple[int, int]) -> None:
    rainy, network = image(*size, batch=2), Spy()
    derain(network, rainy, Needs(multiple=16))
    in_mirror = [min(16 - side, side - 1) for side in size]
    mirror = [(0, 0), (0, 0), *((0, count) for count in in_mirror)]
    beyond = [(0, 0), (0, 0), *((0, 16 - side - count) for side, count in zip(size, in_mirror, strict=True))]
    expected = np.pad(np.pad(rainy.numpy(), mirror, mode="reflect"), beyond, mode="edge")
    assert np.array_equal(network.seen.numpy(), expected)


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        ([10, 20, 30, 40, 50, 60], [10, 20, 30, 40, 50, 60, 50, 40]),
        ([10, 20, 30], [10, 20, 30, 20, 10, 10, 10, 10]),
        ([10, 20], [10, 20, 10, 10, 10, 10, 10, 10]),
        ([10], [10, 10, 10, 10, 10, 10, 10, 10]),
    ],
)
@pytest.mark.parametrize("upright", [False, True])
def test_what_one_mirror_does_not_fill_is_its_last_pixel(row: list[int], seen: list[int], upright: bool) -> None:
    rainy = torch.tensor(row, dtype=torch.float32).expand(1, 3, 8, -1)
    network = Spy()
    derain(network, rainy.mT if upright else rainy, Needs(multiple=8))
    found = network.seen.mT if upright else network.seen
    assert torch.equal(found, torch.tensor(seen, dtype=torch.float32).expand(1, 3, 8, 8))


def small_prenet() -> nn.Module:
    return PReNet(stages=1, channels=4)


def small_edsr() -> nn.Module:
    import rainoerme_plugin

    rainoerme_plugin.register()
    from basicsr.archs.edsr_arch import EDSR

    return EDSR(3, 3, num_feat=4, num_block=1, upscale=1)


@pytest.mark.parametrize(("build", "reach"), [(small_prenet, 13), (small_edsr, 5)])
def test_padding_changes_nothing_further_from_the_border_than_the_network_looks(
    build: Callable[[], nn.Module], reach: int
) -> None:
    """The reach is the number of 3x3 convolutions in a row."""
    torch.manual_seed(0)
    network = build().double()
    rainy = image(40, 45).double()
    with torch.no_grad():
        padded, plain = derain(network, rainy, Needs(multiple=16)), network(rainy)
        fitting = derain(network, rainy[..., :32, :32], Needs(multiple=16))
        assert torch.equal(fitting, network(rainy[..., :32, :32]))
    inside = (..., slice(40 - reach), slice(45 - reach))
    torch.testing.assert_close(padded[inside], plain[inside], rtol=0, atol=1e-12)
    assert (plain - rainy).abs().max() > 1e-2
    differing = (padded - plain).abs() > 1e-9
    assert differing[..., -1, :].any()
    assert differing[..., :, -1].any()


def test_gradients_pass_through_padding_and_cropping() -> None:
    rainy = image(5, 7).requires_grad_()
    derain(Of(lambda padded: 3 * padded), rainy, Needs(multiple=8)).sum().backward()
    assert torch.equal(rainy.grad, torch.full((1, 3, 5, 7), 3.0))


# --- which result ---


STAGES = (0.25, 0.5, 0.75)


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(("output", "factor"), [(0, 0.25), (1, 0.5), (2, 0.75), (-1, 0.75), (-3, 0.25)])
def test_of_several_results_the_one_that_was_named_counts(
    kind: type[Sequence[Tensor]], output: int, factor: float
) -> None:
    rainy = image(7, 5)
    network = Of(lambda padded: kind([part * padded for part in STAGES]))
    assert torch.equal(derain(network, rainy, Needs(multiple=4, output=output)), factor * rainy)


def test_of_several_results_none_is_guessed() -> None:
    network = Of(lambda padded: [part * padded for part in STAGES])
    with pytest.raises(OptionError, match=r"^Of returns 3 results; output: says which is the derained image, from 0$"):
        derain(network, image(4, 4), Needs())


@pytest.mark.parametrize("output", [3, -4, 12])
def test_a_result_that_is_not_there_is_refused(output: int) -> None:
    network = Of(lambda padded: [part * padded for part in STAGES])
    with pytest.raises(OptionError, match=rf"^Of returns 3 results, so there is no output {output}$"):
        derain(network, image(4, 4), Needs(output=output))


def test_a_single_image_is_not_taken_apart() -> None:
    rainy = image(7, 5, batch=2)
    assert torch.equal(derain(Spy(), rainy, Needs(multiple=4, output=1)), rainy)


# --- what is refused ---


@pytest.mark.parametrize(
    ("network", "needs", "message"),
    [
        (nn.Upsample(scale_factor=2), Needs(), "Upsample makes (1, 3, 14, 10) of (1, 3, 7, 5); a derainer keeps"),
        (nn.Upsample(scale_factor=2), Needs(8), "Upsample makes (1, 3, 16, 16) of (1, 3, 8, 8); a derainer keeps"),
        (nn.AvgPool2d(2), Needs(8), "AvgPool2d makes (1, 3, 4, 4) of (1, 3, 8, 8); a derainer keeps channels and size"),
        (nn.Conv2d(3, 1, 1), Needs(), "Conv2d makes (1, 1, 7, 5) of (1, 3, 7, 5); a derainer keeps channels and size"),
        (nn.Conv2d(3, 3, 3), Needs(4), "Conv2d makes (1, 3, 6, 6) of (1, 3, 8, 8); a derainer keeps channels and size"),
        (nn.Flatten(), Needs(), "Flatten makes (1, 105) of (1, 3, 7, 5); a derainer keeps channels and size"),
        (Of(lambda x: [x, x[:, :1]]), Needs(output=1), "Of makes (1, 1, 7, 5) of (1, 3, 7, 5); a derainer keeps"),
    ],
)
def test_a_network_that_keeps_not_channels_and_size_is_named_with_both_shapes(
    network: nn.Module, needs: Needs, message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        derain(network, image(7, 5), needs)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("(for super-resolution networks, an upscale of 1)")


def halved_and_doubled(rainy: Tensor) -> Tensor:
    return rainy + F.interpolate(F.avg_pool2d(rainy, 2), scale_factor=2)


def test_a_size_that_a_network_does_not_take_is_named_with_the_remedy() -> None:
    with pytest.raises(OptionError, match=r"^Of does not take images of 5x7 pixels \(The size of tensor a ") as caught:
        derain(Of(halved_and_doubled), image(7, 5), Needs())
    assert "some networks take multiples of a number only" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert derain(Of(halved_and_doubled), image(7, 5), Needs(multiple=2)).shape == (1, 3, 7, 5)
    with pytest.raises(OptionError, match=r"^Of does not take images of 15x9 pixels "):
        derain(Of(halved_and_doubled), image(7, 14), Needs(multiple=3))


def failing(error: Exception) -> nn.Module:
    def fail(rainy: Tensor) -> Tensor:
        raise error

    return Of(fail)


def test_a_shape_that_a_network_cannot_make_is_named() -> None:
    error = RuntimeError("shape '[1, 3, 4, 4]' is invalid for input of 105 numbers")
    with pytest.raises(OptionError, match=r"^Of does not take images of 5x7 pixels \(shape '\[1, 3, 4, 4\]' is"):
        derain(failing(error), image(7, 5), Needs())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB, of a total size of 1 GiB"),
        MemoryError(),
        WeightsError("what this package says itself"),
    ],
)
def test_too_little_memory_and_errors_for_the_user_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        derain(failing(error), image(7, 5), Needs())
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), "CUDA error: device-side assert triggered"),
        (ValueError("too many values to unpack"), "too many values to unpack"),
        (KeyError("weight"), "KeyError: 'weight'"),
        (AssertionError(), "AssertionError"),
        (IndexError("list index out of range"), "list index out of range"),
    ],
)
def test_a_network_that_fails_for_its_own_reasons_is_one_line(error: Exception, words: str) -> None:
    with pytest.raises(OptionError, match=rf"^Of does not take images of 5x7 pixels \({re.escape(words)}\)") as caught:
        derain(failing(error), image(7, 5), Needs())
    assert caught.value.__cause__ is error


def test_a_network_that_computes_in_place_leaves_the_callers_image() -> None:
    rainy = image(5, 7)
    before = rainy.clone()
    assert torch.equal(derain(Of(lambda pixels: pixels.mul_(2)), rainy, Needs()), 2 * before)
    assert torch.equal(rainy, before)


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_go_in_as_the_network_needs_them_in_memory(channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    given: list[bool] = []

    def look(pixels: Tensor) -> Tensor:
        given.append(pixels.is_contiguous(memory_format=layout))
        return pixels

    for rainy in (image(8, 6), image(8, 6).to(memory_format=torch.channels_last), image(7, 5)):
        derain(Of(look), rainy, Needs(multiple=2, channels_last=channels_last))
    assert given == [True] * 3


@pytest.mark.parametrize(("size", "padding"), [(7, 0), (7, 3), (7, 20), (1, 4)])
def test_mirrored_says_what_stands_where(size: int, padding: int) -> None:
    # As spandrel: what the mirror does not show is its last pixel again.
    in_mirror = min(padding, size - 1)
    expected = np.pad(np.pad(np.arange(size), (0, in_mirror), mode="reflect"), (0, padding - in_mirror), mode="edge")
    assert mirrored(size, padding).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("whatever"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_has_many_names(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one


def test_a_lack_of_memory_is_none_of_the_size() -> None:
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory for a tensor of this size")
    with pytest.raises(RuntimeError) as caught:
        derain(failing(error), image(7, 5), Needs())
    assert caught.value is error
