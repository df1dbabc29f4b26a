"""Tiles give what the whole image gives, in images of all kinds and where memory runs short."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hand_made import Of, conv, image, strided
from small import small
from torch import Tensor, nn

from rainoerme_plugin.archs import receptive_field as receptive_field_module
from rainoerme_plugin.archs import tiles
from rainoerme_plugin.archs.adapt import Needs, derain
from rainoerme_plugin.archs.catalogue import needs_of
from rainoerme_plugin.archs.receptive_field import receptive_field
from rainoerme_plugin.archs.tiles import NotFiniteError, TooLargeError, derain_tiled
from rainoerme_plugin.data.images import to_image, to_tensor
from rainoerme_plugin.errors import OptionError


def picture(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(network: nn.Module, rainy: Tensor, needs: Needs | None = None) -> Tensor:
    with torch.no_grad():
        return derain(network, rainy, needs or needs_of(network))


def assert_same(tiled: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(tiled, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


# --- the whole image's result ---


@pytest.mark.parametrize("name", ["RainOerMeNet", "DerainUNet", "PReNet", "BRN", "SwinIR", "EDSR"])
@pytest.mark.parametrize(("size", "tile", "batch"), [((97, 150), 40, 1), ((64, 201), 23, 3), ((163, 90), 64, 2)])
def test_tiles_give_the_whole_images_result(name: str, size: tuple[int, int], tile: int, batch: int) -> None:
    network, rainy = small(name), image(*size)
    tiled = derain_tiled(network, rainy, needs_of(network), tile=tile, batch=batch)
    assert_same(tiled, whole(network, rainy))


@pytest.mark.parametrize(("size", "tile"), [((150, 420), 64), ((420, 130), 100)])
def test_tiles_of_networks_with_large_strides(size: tuple[int, int], tile: int) -> None:
    for name in ("Uformer", "SCUNet"):  # multiples of 128, in squares, and of 64
        network, rainy = small(name), image(*size)
        assert_same(derain_tiled(network, rainy, needs_of(network), tile=tile), whole(network, rainy))


@pytest.mark.parametrize("height", [33, 64, 95, 131])
@pytest.mark.parametrize("width", [34, 99])
@pytest.mark.parametrize("tile", [1, 8, 13, 32])
def test_a_grid_of_strides_stays_where_it_is(height: int, width: int, tile: int) -> None:
    network, needs, rainy = strided(), Needs(multiple=4), image(height, width)
    assert_same(derain_tiled(network, rainy, needs, tile=tile, batch=4), whole(network, rainy, needs))


@pytest.mark.parametrize("needs", [Needs(minimum=48), Needs(square=True), Needs(multiple=8, minimum=50, square=True)])
@pytest.mark.parametrize("size", [(20, 130), (130, 20), (90, 100)])
def test_padding_is_that_of_the_whole_image(needs: Needs, size: tuple[int, int]) -> None:
    network = Of(nn.Sequential(conv(5), nn.ReLU(), conv(3, dilation=2)))
    rainy = image(*size)
    expected = whole(network, rainy, needs)
    receptive_field(network, needs)
    network.seen.clear()
    assert_same(derain_tiled(network, rainy, needs, tile=16), expected)
    assert all(needs.padding(*shape[2:]) == (0, 0) for shape in network.seen)


def test_all_tiles_have_one_size_and_borders_nothing_around_them() -> None:
    network, rainy = Of(conv(5)), image(203, 122)
    receptive_field(network, Needs())
    network.seen.clear()
    derain_tiled(network, rainy, Needs(), tile=40)
    # (203 - 4) / 40 in 5 and (122 - 4) / 40 in 3, of 40 pixels, with 2 on every side
    assert network.seen == [(1, 3, 44, 44)] * 15


def test_a_batch_of_images_is_cut_image_by_image() -> None:
    network, rainy = small("RainOerMeNet"), image(80, 90, count=3)
    assert_same(derain_tiled(network, rainy, Needs(), tile=20, batch=5), whole(network, rainy))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("tile", [None, 0, 70])
def test_what_is_not_cut_is_derained_as_ever(tile: int | None, channels_last: bool) -> None:
    network, rainy = small("PReNet"), image(61, 70, count=2)
    if channels_last:
        rainy = rainy.to(memory_format=torch.channels_last)
    derained = derain_tiled(network, rainy, Needs(), tile=tile)
    assert torch.equal(derained, whole(network, rainy))
    assert not derained.requires_grad


def test_large_images_are_cut_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WHOLE", 100 * 100)
    monkeypatch.setattr(tiles, "SEEN", 50)
    network = Of(conv(3))
    receptive_field(network, Needs())
    network.seen.clear()
    derain_tiled(network, image(100, 100), Needs())
    assert network.seen == [(1, 3, 100, 100)]
    network.seen.clear()
    derain_tiled(network, image(100, 101), Needs())
    assert max(shape[2] * shape[3] for shape in network.seen) <= 50 * 50
    network.seen.clear()
    derain_tiled(network, image(100, 101), Needs(), tile=0)
    assert network.seen == [(1, 3, 100, 101)]


def test_a_large_field_has_larger_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WHOLE", 100 * 100)
    monkeypatch.setattr(tiles, "SEEN", 50)
    network = Of(conv(25))  # 12 pixels around: what is left of 50 would be 26
    receptive_field(network, Needs())
    network.seen.clear()
    derain_tiled(network, image(400, 400), Needs())
    # Parts of 72, six times 12: (400 - 24) / 72 are 6, of 63 and 12 on either side.
    assert {shape[2:] for shape in network.seen} == {(87, 87)}


# --- images of 8 bits, and where results go ---


@pytest.mark.parametrize("rounding", ["round", "floor"])
def test_8_bits_come_and_go(rounding: Any) -> None:
    network, rainy = small("RainOerMeNet"), picture(120, 95)
    expected = to_image(whole(network, to_tensor(rainy)[None])[0], rounding)
    for tile in (0, 33):
        derained = derain_tiled(network, rainy, Needs(), tile=tile, batch=2, rounding=rounding)
        assert derained.dtype == np.uint8
        # Values that differ by rounding may fall to either side of a half.
        assert np.abs(derained.astype(int) - expected).max() <= 1
        assert np.mean(derained != expected) < 1e-3


def test_padded_8_bits() -> None:
    network, needs, rainy = strided(), Needs(multiple=4), picture(61, 51)
    expected = to_image(whole(network, to_tensor(rainy)[None], needs)[0])
    assert np.mean(derain_tiled(network, rainy, needs, tile=12, batch=8) != expected) < 1e-3


def test_maps_of_files_are_read_and_written_tile_by_tile(tmp_path: Path) -> None:
    class Watched(np.memmap):  # type: ignore[type-arg]
        taken: ClassVar[list[int]] = []

        def __getitem__(self, key: Any) -> Any:
            part = np.asarray(self).__getitem__(key)
            self.taken.append(part.shape[0] * part.shape[1])
            return part

    rainy = Watched(tmp_path / "in.raw", np.uint8, "w+", shape=(150, 130, 3))
    rainy[:] = picture(150, 130)
    Watched.taken.clear()
    out = np.memmap(tmp_path / "out.raw", np.uint8, "w+", shape=(150, 130, 3))
    network = small("PRN")
    assert derain_tiled(network, rainy, Needs(), tile=20, out=out) is out
    assert max(Watched.taken) <= (20 + 2 * 24) ** 2
    written = np.fromfile(tmp_path / "out.raw", np.uint8).reshape(150, 130, 3)
    assert np.mean(written != derain_tiled(network, picture(150, 130), Needs(), tile=0)) < 1e-3


def test_a_tensor_may_be_given_for_the_result() -> None:
    network, rainy = small("EDSR"), image(60, 50)
    for tile in (0, 20):
        out = torch.empty_like(rainy)
        assert derain_tiled(network, rainy, Needs(), tile=tile, out=out) is out
        assert_same(out, whole(network, rainy))


def test_8_bits_hold_no_nan() -> None:
    with pytest.raises(NotFiniteError, match="not finite"):
        derain_tiled(Of(lambda rainy: rainy / 0), picture(9, 9), Needs())
    assert derain_tiled(Of(lambda rainy: rainy / 0), image(9, 9), Needs()).isinf().any()


@pytest.mark.parametrize(
    ("rainy", "options", "message"),
    [
        (image(4, 4), {"tile": -1}, "tile must be at least 0"),
        (image(4, 4), {"batch": 0}, "batch at least 1"),
        (image(4, 4), {"out": image(4, 5)}, r"out must be \(1, 3, 4, 4\) torch\.float32, got \(1, 3, 4, 5\)"),
        (image(4, 4), {"out": picture(4, 4)}, "out of the same kind"),
        (picture(4, 4), {"out": picture(4, 4).astype(int)}, r"out must be \(4, 4, 3\) uint8, got .* int64"),
        (picture(4, 4)[..., 0], {}, r"must be \(H, W, 3\) uint8 or uint16, got \(4, 4\) uint8"),
        ([1, 2], {}, "expected a tensor or an array"),
    ],
)
def test_what_cannot_be_done_is_said(rainy: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        derain_tiled(conv(), rainy, Needs(), **options)


# --- networks that look at the whole image ---


def test_a_network_that_looks_at_the_whole_image_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WHOLE", 100)
    network, rainy = small("RESCAN"), image(70, 80)
    assert torch.equal(derain_tiled(network, rainy, Needs(), tell=pytest.fail), whole(network, rainy, Needs()))


def test_tiles_of_one_are_said_to_differ_once() -> None:
    network, rainy, told = small("RESCAN"), image(300, 40), []
    rainy[:, :, :100] /= 10  # some tiles are darker than the image
    for _ in range(2):
        tiled = derain_tiled(network, rainy, Needs(), tile=64, tell=told.append)
    assert told == [
        "RESCAN looks at the whole image: in tiles of 64 pixels it gives another result; "
        "with tile 0, or without that option, images stay whole"
    ]
    assert not torch.allclose(tiled, whole(network, rainy), rtol=0, atol=1e-5)
    derain_tiled(small("RESCAN"), image(64, 40), Needs(), tile=64, tell=pytest.fail)
    with pytest.warns(UserWarning, match="RESCAN looks at the whole image"):
        derain_tiled(small("RESCAN"), rainy, Needs(), tile=64)


# --- memory ---


SHORT = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB, of a total size of 1 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 23040000 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB, max allowed: 1 GB). Tried to allocate 1 GB"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


class Short(nn.Module):
    """A network for which there is not enough memory on more than so many pixels at a time."""

    def __init__(self, network: nn.Module, pixels: int, error: Exception) -> None:
        super().__init__()
        self.network, self.pixels, self.error = network, pixels, error
        self.done: list[tuple[int, ...]] = []
        self.failed: list[tuple[int, ...]] = []

    def forward(self, rainy: Tensor) -> Tensor:
        shape = (rainy.shape[0], *rainy.shape[2:])
        if np.prod(shape) > self.pixels:
            self.failed.append(shape)
            raise self.error
        self.done.append(shape)
        return self.network(rainy)


def probed(network: nn.Module, pixels: int, error: Exception, needs: Needs | None = None) -> Short:
    short = Short(network, 1 << 20, error)
    receptive_field(short, needs or Needs())
    short.done.clear()
    short.pixels = pixels
    return short


@pytest.mark.parametrize("error", SHORT, ids=lambda error: str(error)[-12:])
def test_where_memory_is_short_the_batch_is_halved_and_then_the_tiles(error: Exception) -> None:
    told: list[str] = []
    network = probed(conv(3), 2500, error)
    rainy = image(128, 128)
    derained = derain_tiled(network, rainy, Needs(), tile=64, batch=4, tell=told.append)
    assert_same(derained, whole(network.network, rainy))
    # (128 - 2) / 2 and 2 around it; then 32 and 2, but for the image's borders
    assert network.failed == [(4, 65, 65), (2, 65, 65), (1, 65, 65)]
    assert set(network.done) == {(1, 34, 34)}
    assert told == [
        "not enough memory for Short on 16,900 pixels at a time; it goes on with 2 x 65x65 "
        "(the option tile sets the size)"
    ]


def test_the_next_image_begins_with_what_fitted() -> None:
    network = probed(conv(3), 2500, MemoryError())
    derain_tiled(network, image(100, 100), Needs(), tell=lambda _: None)
    assert network.failed == [(1, 100, 100), (1, 51, 51)]
    network.failed.clear()
    rainy = image(100, 90)
    assert_same(derain_tiled(network, rainy, Needs(), tell=pytest.fail), whole(network.network, rainy))
    assert network.failed == []


def test_what_is_done_stays_done() -> None:
    network = probed(conv(3), 100_000, MemoryError())
    rainy = image(128, 128)
    run = tiles._Run(network, tiles._Floats(rainy, None), Needs(), 32, 1, lambda _: None)
    count = len(run.tiles)
    assert run._derain(run.tiles[:1]) is None
    del run.tiles[:1]
    network.pixels = 600
    assert_same(run.result(), whole(network.network, rainy))  # type: ignore[arg-type]
    assert count == 16
    # The first stays; the fifteen others in four parts.
    assert len(network.done) == 1 + 4 * 15


def test_a_batch_of_whole_images_is_halved_too() -> None:
    network = probed(conv(3), 2000, MemoryError())
    rainy = image(30, 30, count=5)
    assert_same(derain_tiled(network, rainy, Needs(), tell=lambda _: None), whole(network.network, rainy))
    assert network.failed == [(5, 30, 30)]
    assert network.done == [(2, 30, 30), (2, 30, 30), (1, 30, 30)]


def test_a_network_with_strides_and_little_memory() -> None:
    needs, rainy = Needs(multiple=4), image(99, 70)
    network = probed(strided(), 3000, MemoryError(), needs)
    assert_same(derain_tiled(network, rainy, needs, tile=48, tell=lambda _: None), whole(network.network, rainy, needs))


@pytest.mark.parametrize(
    ("function", "tile", "message"),
    [
        (conv(3), None, "Short: 90x100 pixels are too many for the memory: even 27x27 of them at a time; it needs"),
        (conv(3), 0, "the memory: with another tile than 0 the image is cut"),
        (lambda rainy: rainy.cumsum(2), None, "it looks at the whole image, so that is not cut by itself; tile 512"),
    ],
)
def test_too_little_memory_is_an_error_in_the_end(function: Any, tile: int | None, message: str) -> None:
    network = probed(Of(function), 100, RuntimeError("not enough memory: you tried\nmore"))
    with pytest.raises(TooLargeError, match=message) as caught:
        derain_tiled(network, image(100, 90), Needs(), tile=tile, tell=lambda _: None)
    assert str(caught.value).endswith("(not enough memory: you tried)")


def test_other_errors_are_not_taken_for_it() -> None:
    error = RuntimeError("CUDA error: device-side assert triggered")
    with pytest.raises(OptionError, match="does not take images of 20x20 pixels") as caught:
        derain_tiled(Short(conv(3), 10, error), image(20, 20), Needs(), tell=pytest.fail)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_caches_of_a_gpu_are_emptied(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in ("cuda", "mps"):
        monkeypatch.setattr(getattr(torch, name), "empty_cache", lambda name=name: called.append(name))
    run = tiles._Run(conv(3), tiles._Floats(image(9, 9), None), Needs(), None, None, lambda _: None)
    run._empty_caches()
    assert called == []
    run.device = torch.device(kind)
    run._empty_caches()
    assert called == [kind]


def test_a_failed_attempt_holds_no_memory() -> None:
    held: list[weakref.ref[Tensor]] = []

    def fail_at_first(rainy: Tensor) -> Tensor:
        if rainy.shape[2] > 60:
            features = rainy * 2
            held.append(weakref.ref(features))
            raise MemoryError
        assert all(tensor() is None for tensor in held)
        return rainy * 1

    network = Of(fail_at_first)
    receptive_field_module._known[network] = {Needs(): 0}
    derain_tiled(network, image(100, 50), Needs(), tell=lambda _: None)
    assert held


def test_how_much_is_done_is_told_after_each_batch_of_tiles() -> None:
    told: list[float] = []
    derain_tiled(
        Of(lambda rainy: rainy), torch.rand(1, 3, 40, 60), Needs(), tile=20, share=told.append, tell=lambda _: None
    )
    np.testing.assert_allclose(told, np.arange(1, 7) / 6)  # two by three tiles of one size, one at a time
