"""Which images show one scene: on the real sets, whose scenes are known, and on hashes made up."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from rainoerme_plugin.benchmark import scenes
from rainoerme_plugin.benchmark.scenes import BITS, NEAR, group_scenes, mirrored, near, scene_hash, stack
from rainoerme_plugin.data.images import decode_image

Pixels = NDArray[np.uint8]
Hashes = NDArray[np.bool_]


def random_hashes(count: int, seed: int = 0) -> Hashes:
    """Hashes with half of their bits set, as those of photographs."""
    random = np.random.default_rng(seed)
    order = np.argsort(random.random((count, BITS)), axis=1)
    return np.asarray(order < BITS // 2)


def changed(bits: Hashes, count: int, seed: int = 0) -> Hashes:
    """With ``count`` bits changed, as many in each direction as can be."""
    random = np.random.default_rng(seed)
    found = bits.copy()
    places = [random.permutation(np.flatnonzero(bits == value)) for value in (True, False)]
    for index in range(count):
        found[places[index % 2][index // 2]] ^= True
    return found


def texture(seed: int, size: tuple[int, int] = (96, 128)) -> Pixels:
    """Something like a photograph: noise with more of low frequencies."""
    random = np.random.default_rng(seed)
    small = [random.integers(0, 256, (side, side, 3)).astype(np.uint8) for side in (4, 12, 40)]
    layers = [np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC), float) for image in small]
    return np.asarray(np.average(layers, axis=0, weights=[4, 2, 1])).clip(0, 255).astype(np.uint8)


def differ(first: Hashes, second: Hashes) -> float:
    return float(np.mean(first != second))


# ----- hashes


def test_a_hash_is_the_signs_of_the_low_frequencies() -> None:
    # phash: 64x64 grey, DCT, the lowest 16x16, above their median.
    image = texture(0)
    small = np.asarray(Image.fromarray(image).convert("L").resize((64, 64), Image.Resampling.LANCZOS), float)
    low = fft.dctn(small)[:16, :16]
    found = scene_hash(image)
    assert found.shape == (BITS,)
    assert found.dtype == np.bool_
    assert np.array_equal(found, (low > np.median(low)).ravel())


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((60, 40)),
        lambda image: image.resize((300, 250)),
        lambda image: image.point(lambda level: level * 0.6 + 40),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: jpeg(image, 20),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((100, 90)), 30),
    ],
    ids=["smaller", "larger", "paler", "grey", "JPEG", "mirrored", "all of it"],
)
def test_a_changed_copy_shows_the_same_scene(change: Callable[[Image.Image], Image.Image]) -> None:
    images = [texture(seed) for seed in range(6)]
    copies = [np.asarray(change(Image.fromarray(image))) for image in images]
    hashes, others = (stack(scene_hash(image) for image in group) for group in (images, copies))
    assert list(near(hashes, others)) == [(index, index) for index in range(6)]
    assert group_scenes(np.concatenate([hashes, others])) == [*range(6), *range(6)]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "turn", [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180]
)
def test_an_image_upside_down_or_turned_is_another_scene(turn: Image.Transpose) -> None:
    images = [texture(seed) for seed in range(4)]
    turned = [np.asarray(Image.fromarray(image).transpose(turn)) for image in images]
    assert not list(near(*(stack(scene_hash(image) for image in group) for group in (images, turned))))


def test_the_hash_of_a_mirrored_image_is_the_mirrored_hash() -> None:
    for seed in range(6):
        image = texture(seed)
        expected = scene_hash(np.ascontiguousarray(image[:, ::-1]))
        # What lies about the median may change.
        assert differ(mirrored(scene_hash(image)[None])[0], expected) <= 0.05


def test_mirrored_twice_is_as_it_was_and_hashes_are_left_alone() -> None:
    hashes = random_hashes(5)
    before = hashes.copy()
    assert np.array_equal(mirrored(mirrored(hashes)), before)
    assert np.array_equal(hashes, before)
    assert not np.array_equal(mirrored(hashes), before)


# ----- images that tell nothing

BLANK = {
    "black": np.zeros((40, 60, 3), np.uint8),
    "grey": np.full((40, 60, 3), 128, np.uint8),
    "white": np.full((50, 50, 3), 255, np.uint8),
    "one pixel": np.full((1, 1, 3), 90, np.uint8),
    "from left to right": np.tile(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], (60, 1, 3)),
    "from above to below": np.tile(np.linspace(0, 255, 90).astype(np.uint8)[:, None, None], (1, 60, 3)),
}


@pytest.mark.parametrize("first", BLANK)
@pytest.mark.parametrize("second", BLANK)
def test_images_without_content_are_near_none_and_not_all_one_scene(first: str, second: str) -> None:
    hashes = stack([scene_hash(BLANK[first]), scene_hash(BLANK[second]), scene_hash(texture(0))])
    assert list(near(hashes, hashes)) == [(2, 2)]
    assert group_scenes(hashes) == [0, 1, 2]


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_a_flat_image_of_any_level_is_near_none(level: int) -> None:
    hashes = scene_hash(np.full((33, 47, 3), level, np.uint8))[None]
    assert not list(near(hashes, hashes))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (8, 8), (15, 200)])
def test_tiny_and_narrow_images_have_a_hash(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert scene_hash(image).shape == (BITS,)


def test_a_small_image_is_known_again() -> None:
    hashes = stack(scene_hash(texture(seed, (8, 8))) for seed in range(5))
    assert list(near(hashes, hashes)) == [(index, index) for index in range(5)]


# ----- near and groups


@pytest.mark.parametrize(("count", "expected"), [(0, True), (40, True), (76, True), (77, False), (128, False)])
def test_near_is_three_tenths_of_the_bits_and_less(count: int, expected: bool) -> None:
    # 0.30 * 256 is 76.8.
    hashes = random_hashes(1)
    other = changed(hashes[0], count)[None]
    assert differ(hashes[0], other[0]) == count / BITS
    assert (count / BITS <= NEAR) is expected
    for found in (
        near(hashes, other),
        near(other, hashes),
        near(hashes, mirrored(other)),
        near(mirrored(hashes), other),
    ):
        assert list(found) == ([(0, 0)] if expected else [])


@pytest.mark.parametrize("block", [1, 3, 7, 512])
@pytest.mark.parametrize("counts", [(20, 13), (7, 7), (1, 30), (14, 21)])
def test_near_in_blocks_finds_what_comparing_each_with_each_finds(
    block: int, counts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "_BLOCK", block)
    first, second = random_hashes(counts[0], 1), random_hashes(counts[1], 2)
    for row, column, bits in [(0, 0, 5), (0, -1, 60), (-1, 0, 76), (counts[0] // 2, counts[1] // 2, 90)]:
        second[column] = changed(first[row], bits, seed=bits)
    second[counts[1] // 3] = mirrored(first[-1][None])[0]
    expected = [
        (row, column)
        for row, one in enumerate(first)
        for column, other in enumerate(second)
        if min(np.mean(one != other), np.mean(one != mirrored(other[None])[0])) <= 0.30
    ]
    assert expected
    found = list(near(first, second))
    assert sorted(found) == expected
    assert all(type(index) is int for pair in found for index in pair)


def test_each_image_is_grouped_with_the_first_that_shows_its_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = random_hashes(3, 3)
    hashes = np.stack([a, b, changed(a, 20), mirrored(b[None])[0], c, changed(a, 30, 1), changed(b, 10, 2), a])
    for block in (1, 2, 3, 512):
        monkeypatch.setattr(scenes, "_BLOCK", block)
        assert group_scenes(hashes) == [0, 1, 0, 1, 4, 0, 1, 0]


def test_an_image_near_one_of_a_group_belongs_to_it() -> None:
    first = random_hashes(1, 4)[0]
    second = changed(first, 60, 1)
    third = changed(second, 60, 2)
    assert differ(first, third) > NEAR
    assert group_scenes(np.stack([first, second, third])) == [0, 0, 0]


def test_an_image_near_two_groups_belongs_to_the_first() -> None:
    first, second = random_hashes(2, 5)
    between = first.copy()
    apart = np.flatnonzero(first != second)
    between[apart[: len(apart) // 2]] ^= True
    assert max(differ(first, between), differ(second, between)) <= NEAR < differ(first, second)
    assert group_scenes(np.stack([first, second, between])) == [0, 1, 0]


def test_nothing_is_near_nothing() -> None:
    empty, some = stack([]), random_hashes(3)
    assert empty.shape == (0, BITS)
    assert empty.dtype == np.bool_
    for pair in [(empty, some), (some, empty), (empty, empty)]:
        assert list(near(*pair)) == []
    assert group_scenes(empty) == []
    assert np.array_equal(stack(iter(some)), some)


# ----- real images


@pytest.fixture(scope="module")
def hashes_of(rainoerme_data: Path) -> Callable[[str], Hashes]:
    """The hashes of a folder of the real data, in the order of the names."""
    known: dict[str, Hashes] = {}

    def find(folder: str) -> Hashes:
        if folder not in known:
            known[folder] = stack(
                scene_hash(decode_image(path)) for path in sorted((rainoerme_data / folder).iterdir())
            )
        return known[folder]

    return find


@pytest.mark.parametrize("kind", ["rain", "norain"])
def test_rain100l_shows_91_scenes(hashes_of: Callable[[str], Hashes], kind: str) -> None:
    groups = group_scenes(hashes_of(f"Rain100L/test/{kind}"))
    assert len(groups) == 100
    assert len(set(groups)) == 91
    assert all(groups[group] == group <= index for index, group in enumerate(groups))


@pytest.mark.parametrize(
    ("part", "count", "pairs"),
    [("Rain100L/test", 100, 118), ("Rain100L/val", 20, 20), ("Rain200H/test", 20, 20), ("SPA", 2, 2)],
)
def test_every_rainy_image_is_near_its_clean_version(
    hashes_of: Callable[[str], Hashes], part: str, count: int, pairs: int
) -> None:
    found = set(near(hashes_of(f"{part}/rain"), hashes_of(f"{part}/norain")))
    assert {(index, index) for index in range(count)} <= found
    # Nine scenes of Rain100L occur twice.
    assert len(found) == pairs


@pytest.mark.parametrize(
    "other", ["clean", "Rain100L/train/rain", "Rain100L/val/norain", "Rain200H/test/norain", "real_rain"]
)
@pytest.mark.parametrize("kind", ["rain", "norain"])
def test_rain100ls_test_shares_no_scene_with_other_folders(
    hashes_of: Callable[[str], Hashes], kind: str, other: str
) -> None:
    assert not list(near(hashes_of(f"Rain100L/test/{kind}"), hashes_of(other)))


def test_rain200hs_test_shows_scenes_of_raintrainl(hashes_of: Callable[[str], Hashes]) -> None:
    # RainTrainL is in two parts here; `known` says so of the whole sets.
    parts = [hashes_of("Rain100L/train/rain"), hashes_of("Rain100L/val/norain")]
    found = [test for part in parts for test, _ in near(hashes_of("Rain200H/test/norain"), part)]
    assert sorted(found) == list(range(20))


def test_45_of_the_photographs_of_real_rain_occur_before(hashes_of: Callable[[str], Hashes]) -> None:
    # 43 pairs and a triple.
    groups = group_scenes(hashes_of("real_rain"))
    assert len(groups) == 147
    assert len(set(groups)) == 102
