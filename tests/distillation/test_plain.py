"""Rain from plain places: found before rendered and photographed backgrounds where it is known, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image
from rendered import decibels, photograph, plain, streaks, textured
from scipy import ndimage

from rainoerme_plugin.data.images import decode_image
from rainoerme_plugin.distillation.plain import ZOOMS, Patch, PlainPlaces, find_patches, judge, plainest, separate

SIZE = (200, 260)
ANY = PlainPlaces(lean=90)
SIDE = ANY.patch


def errors(image: np.ndarray, rain: np.ndarray, places: PlainPlaces = ANY, zoom: float = 1.0) -> list[float]:
    """How near the rain of each square is to what was rendered there, in dB."""
    found = []
    for patch in find_patches(image, places, zoom):
        height, width = patch.rain.shape
        true = rain[patch.top : patch.top + height, patch.left : patch.left + width]
        found.append(decibels(patch.rain / np.float32(255), true))
    return found


# --- the parts of a photograph ---


@pytest.mark.parametrize(
    "colour", [(0.35, 0.4, 0.45), (0.12, 0.2, 0.5), (0.3, 0.5, 0.15)], ids=["sky", "blue", "green"]
)
def test_background_rain_and_what_is_bare_are_those_rendered(colour: tuple[float, float, float]) -> None:
    background, rain = plain(SIZE, colour), streaks(SIZE)
    apart = separate(photograph(background, rain), ANY)
    assert np.abs(apart.background - background).max() < 0.012
    assert decibels(apart.rain, rain) > 25
    assert not apart.bare[rain > 0.05].any()
    assert apart.bare[rain == 0].mean() > 0.98


def test_without_rain_there_is_none() -> None:
    apart = separate(photograph(plain(SIZE), np.zeros(SIZE, np.float32), noise=0.0), ANY)
    assert apart.bare.all()
    assert apart.rain.max() < 0.008  # half a level of rounding, and the slope at the border


def test_a_heavy_curtain_leaves_little_bare_and_yet_the_background() -> None:
    background, rain = plain(SIZE), streaks(SIZE, angle=25, width=5, share=0.5)
    assert (rain > 0.05).mean() > 0.4
    apart = separate(photograph(background, rain), ANY)
    assert np.median(np.abs(apart.background - background)) < 0.012
    assert decibels(apart.rain, rain) > 15


def test_what_is_judged_is_what_other_libraries_measure() -> None:
    image = photograph(textured(SIZE) * 0.2 + plain(SIZE) * 0.7, streaks(SIZE, angle=20))
    places = PlainPlaces(patch=48, window=9)
    apart = separate(image, places)
    judged = judge(image, apart, places)
    assert judged.step == 12
    assert judged.energy.shape == ((200 - 48) // 12 + 1, (260 - 48) // 12 + 1)

    values = image / 255.0
    over = values - apart.background
    rain = np.maximum(over.mean(axis=2), 0)
    columns, rows = (ndimage.sobel(rain, axis=axis, mode="reflect") for axis in (1, 0))
    disc = np.array([[abs(x) <= round(np.sqrt(16 - y * y)) for x in range(-4, 5)] for y in range(-4, 5)])
    narrowed = ndimage.grey_erosion(rain, footprint=disc, mode="constant", cval=1)
    blobs = ndimage.grey_dilation(narrowed, footprint=disc, mode="constant", cval=0)
    spread = np.abs(over - over.mean(axis=2, keepdims=True)).mean(axis=2)
    compared = 0
    for row, column in ((0, 0), (3, 5), (12, 17), (5, 2), (8, 10)):
        window = np.s_[row * 12 : row * 12 + 48, column * 12 : column * 12 + 48]
        tensor = np.cov(np.stack([columns[window].ravel(), rows[window].ravel()]), bias=True)
        tensor += np.outer(*[[columns[window].mean(), rows[window].mean()]] * 2)
        low, high = np.linalg.eigvalsh(tensor)
        energy = rain[window].mean()
        evidence = (high - low) / (high + low)
        evidence += np.log(energy / spread[window].mean()) / 7 + np.log(energy / blobs[window].mean()) / 14
        bare = apart.bare[window]
        rough = np.abs(over[window]).mean(axis=2)[bare].mean() + spread[window].mean() + blobs[window].mean()
        assert judged.energy[row, column] == pytest.approx(energy, rel=1e-4)
        assert judged.roughness[row, column] == pytest.approx(rough, rel=1e-3)
        if np.isfinite(judged.evidence[row, column]):
            assert judged.evidence[row, column] == pytest.approx(evidence, abs=5e-3)
            compared += 1
    assert compared


def evidence(image: np.ndarray, places: PlainPlaces = ANY) -> float:
    """Of half of the squares there is less, of half more."""
    return float(np.median(judge(image, separate(image, places), places).evidence))


def test_what_has_colour_or_no_direction_or_is_as_wide_as_high_has_less_evidence() -> None:
    background, rain = plain(SIZE), streaks(SIZE)
    upright = evidence(photograph(background, rain))
    assert upright > ANY.evidence
    coloured = photograph(background, np.zeros(SIZE, np.float32), noise=0) + np.rint(
        255 * rain[..., None] * np.float32([0.2, 1.0, 1.6])
    ).astype(np.uint8)
    assert evidence(coloured) < upright - 0.1
    crossed = evidence(photograph(background, np.maximum(rain, streaks(SIZE, angle=98, seed=1))))
    assert crossed < ANY.evidence
    blots = evidence(photograph(background, streaks(SIZE, width=9, length=1, share=0.1)))
    assert blots < ANY.evidence


@pytest.mark.parametrize(("angle", "is_found"), [(0, True), (50, True), (-50, True), (70, False), (-80, False)])
def test_rain_may_lean_so_far(angle: float, is_found: bool) -> None:
    image = photograph(plain(SIZE), streaks(SIZE, angle=angle))
    assert (evidence(image, PlainPlaces()) > 1.0) == is_found
    assert bool(find_patches(image, PlainPlaces())) == is_found
    assert find_patches(image, PlainPlaces(lean=90))


def test_clipped_and_faint_places_are_none() -> None:
    rain = streaks(SIZE)
    assert find_patches(photograph(plain(SIZE, (0.85, 0.85, 0.85)), rain), ANY) == []
    assert find_patches(photograph(plain(SIZE), rain * 0.02), ANY) == []


def test_the_border_of_something_bright_is_no_rain() -> None:
    """It is straight, has no colour, and is as wide as the openings are: to one side the background is too bright."""
    background = plain(SIZE, (0.3, 0.3, 0.3))
    background[:, 130:] += 0.4
    assert find_patches(photograph(background, np.zeros(SIZE, np.float32)), ANY) == []
    assert find_patches(photograph(background, streaks(SIZE)), ANY)


def test_places_are_plain_for_rain_as_strong_as_the_sets() -> None:
    def patch(energy: float, roughness: float) -> Patch:
        return Patch(np.zeros((4, 4), np.uint8), 0, 0, energy, 1.6, roughness)

    smooth, rough = patch(0.05, 0.014), patch(0.05, 0.016)
    strong, weak = patch(0.5, 0.1), patch(0.01, 0.0)
    # The median of the energies is 0.05, so that the limit is 0.015.
    assert plainest([[smooth, rough], [], [strong], [weak, smooth]], PlainPlaces()) == [
        [smooth],
        [],
        [],
        [weak, smooth],
    ]
    assert plainest([[smooth, rough]], PlainPlaces(roughness=1.0)) == [[smooth, rough]]
    assert plainest([[], []], PlainPlaces()) == [[], []]


# --- squares ---


@pytest.mark.parametrize("angle", [0, 25, -50, 80])
@pytest.mark.parametrize(
    ("width", "share", "least"), [(1, 0.05, 25), (2, 0.1, 22), (4, 0.2, 20), (5, 0.5, 10)], ids=lambda value: str(value)
)
def test_rain_of_any_direction_and_thickness_is_found_nearly_whole(
    angle: float, width: float, share: float, least: float
) -> None:
    rain = streaks(SIZE, angle, width, share)
    found = errors(photograph(plain(SIZE), rain), rain)
    assert len(found) >= 3
    assert float(np.median(found)) > least


def test_rain_is_taken_before_the_sky_and_not_before_the_trees() -> None:
    size = (200, 400)
    rain, background = streaks(size), plain(size)
    background[:, 200:] = textured((200, 200))
    image = photograph(background, rain)
    patches = find_patches(image, ANY)
    assert len(patches) >= 4
    assert all(patch.left + SIDE <= 200 + SIDE // 4 for patch in patches)
    assert min(errors(image, rain)) > 10
    assert find_patches(image[:, 200:], ANY) == []


@pytest.mark.parametrize("name", ["astronaut", "cat", "coffee", "camera", "rocket"])
def test_photographs_without_rain_have_next_to_none(name: str) -> None:
    image = np.atleast_3d(getattr(skimage.data, name)())
    grey = np.rint(image.mean(axis=2, keepdims=True)).astype(np.uint8)
    for version in (grey, image):
        assert len(find_patches(np.broadcast_to(version, (*image.shape[:2], 3)).copy(), PlainPlaces())) <= 3


def test_squares_are_in_order_apart_and_no_more_than_asked() -> None:
    size = (300, 420)
    image = photograph(plain(size), streaks(size))
    patches = find_patches(image, PlainPlaces(evidence=1.2))
    assert len(patches) > 12
    evidence = [patch.evidence for patch in patches]
    assert evidence == sorted(evidence, reverse=True)
    assert evidence[-1] >= 1.2
    corners = {(patch.top, patch.left) for patch in patches}
    apart = [max(abs(a - c), abs(b - d)) for a, b in corners for c, d in corners if (a, b) != (c, d)]
    assert min(apart) == SIDE * 3 // 4
    few = find_patches(image, PlainPlaces(evidence=1.2, most=5))
    assert [patch[1:] for patch in few] == [patch[1:] for patch in patches[:5]]
    for patch in patches:
        assert patch.rain.shape == (SIDE, SIDE)
        assert patch.rain.dtype == np.uint8
        assert patch.energy == pytest.approx(patch.rain.mean() / 255, abs=0.003)


@pytest.mark.parametrize("size", [(1, 1), (63, 400), (400, 63), (2, 3000)])
def test_a_photograph_that_is_smaller_than_a_square_has_none(size: tuple[int, int]) -> None:
    assert find_patches(photograph(plain(size), np.zeros(size, np.float32)), PlainPlaces()) == []


def test_a_photograph_of_one_square_is_one() -> None:
    rain = streaks((SIDE, SIDE), share=0.15)
    (patch,) = find_patches(photograph(plain((SIDE, SIDE)), rain), ANY)
    assert (patch.top, patch.left) == (0, 0)


# --- sizes ---


def test_versions_are_smaller_by_the_photographs_longer_side() -> None:
    places = PlainPlaces(longest=900)
    assert places.scale(600, 800) == 1
    assert places.scale(1200, 800) == 1  # not worth a version
    assert places.scale(900, 1800) == 2
    assert places.scale(4000, 6000) == pytest.approx(6.667, abs=1e-3)
    assert [places.scale(321, 481, zoom) for zoom in (1, 2, 4)] == [1, 1, pytest.approx(4 * 481 / 900)]
    assert ZOOMS[0] == 1


@pytest.mark.parametrize("times", [2, 3, 4])
def test_in_a_larger_photograph_squares_are_larger_and_hold_its_own_rain(times: int) -> None:
    size = (150 * times, 220 * times)
    background, rain = plain(size), streaks(size, width=2.0 * times)
    image = photograph(background, rain)
    places = PlainPlaces(longest=220)
    patches = find_patches(image, places)
    assert len(patches) >= 2
    assert {patch.rain.shape for patch in patches} == {(min(256, SIDE * times),) * 2}
    assert float(np.median(errors(image, rain, places))) > 15


def test_squares_of_very_large_photographs_are_cut() -> None:
    size = (960, 1280)
    image = photograph(plain(size), streaks(size, width=12.0, share=0.08))
    patches = find_patches(image, PlainPlaces(longest=200))
    assert patches
    for patch in patches:
        assert patch.rain.shape == (256, 256)
        assert 0 <= patch.top <= 960 - 256
        assert 0 <= patch.left <= 1280 - 256


# --- kinds of images ---


def test_of_16_bits_the_same_places_are_found() -> None:
    image = photograph(plain(SIZE), streaks(SIZE))
    shallow, deep = find_patches(image, ANY), find_patches(image.astype(np.uint16) * 257, ANY)
    assert [patch[1:3] for patch in deep] == [patch[1:3] for patch in shallow]
    for one, other in zip(shallow, deep, strict=True):
        assert np.abs(one.rain.astype(int) - other.rain).max() <= 1


@pytest.mark.parametrize("kind", ["grey", "16-bit grey", "RGBA", "palette", "JPEG"])
def test_files_of_every_kind_give_rain(kind: str, tmp_path: Path) -> None:
    rain = streaks(SIZE)
    image = photograph(plain(SIZE, (0.4, 0.4, 0.4)), rain)
    grey = image.mean(axis=2)
    made: dict[str, Any] = {
        "grey": lambda: Image.fromarray(np.rint(grey).astype(np.uint8)),
        "16-bit grey": lambda: Image.fromarray(np.rint(grey * 257).astype(np.uint16)),
        "RGBA": lambda: Image.fromarray(np.dstack([image, np.full(SIZE, 255, np.uint8)])),
        "palette": lambda: Image.fromarray(np.rint(grey).astype(np.uint8)).convert("P"),
        "JPEG": lambda: Image.fromarray(image),
    }
    path = tmp_path / ("image.jpg" if kind == "JPEG" else "image.png")
    made[kind]().save(path, **({"quality": 95} if kind == "JPEG" else {}))
    found = errors(decode_image(path), rain)
    assert len(found) >= 3
    assert float(np.median(found)) > 15


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 12}, "window must be odd and at least 3, got 12"),
        ({"window": 1}, "window must be odd"),
        ({"sigma": 0.0}, "sigma must be above 0 and up to 64, .* got 0 and 0.02"),
        ({"sigma": 1e9}, "sigma must be above 0 and up to 64"),
        ({"tolerance": 1.0}, "tolerance between 0 and 1, got 8 and 1"),
        ({"roughness": 0.0}, "roughness must be above 0, got 0"),
        ({"patch": 8}, "patch must be at least 16 and at most longest, got 8 and 900"),
        ({"patch": 64, "longest": 60}, "at most longest, got 64 and 60"),
        ({"evidence": -1.0}, "evidence must be from 0 to 1.8, got -1"),
        ({"evidence": 2.0}, "evidence must be from 0 to 1.8, got 2"),
        ({"lean": 0.0}, "lean must be above 0 and up to 90, most at least 1, got 0 and 60"),
        ({"lean": 91.0}, "lean must be"),
        ({"most": 0}, "most at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlainPlaces(**settings)


def test_every_setting_is_in_the_key() -> None:
    keys = {PlainPlaces().key}
    for change in (
        {"window": 15}, {"sigma": 9.0}, {"tolerance": 0.03}, {"patch": 48}, {"longest": 800}, {"evidence": 1.4},
        {"roughness": 0.5}, {"lean": 50.0}, {"most": 9},
    ):  # fmt: skip
        keys.add(PlainPlaces(**change).key)  # type: ignore[arg-type]
    assert len(keys) == 10
    assert all(key.isascii() and "/" not in key for key in keys)


# --- real data ---


@pytest.mark.parametrize(("name", "count", "least"), [("Rain100L/val", 41, 22.8), ("Rain200H/test", 36, 12.7)])
def test_the_rain_of_the_data_sets_is_what_their_pairs_say(
    rainoerme_data: Path, name: str, count: int, least: float
) -> None:
    layers, patches = [], []
    for path in sorted((rainoerme_data / name / "rain").iterdir()):
        rainy = decode_image(path)
        layers.append(
            (rainy.astype(np.float32) - decode_image(rainoerme_data / name / "norain" / path.name)).mean(axis=2)
        )
        patches.append(find_patches(rainy, PlainPlaces()))
    found, true = [], []
    for layer, chosen in zip(layers, plainest(patches, PlainPlaces()), strict=True):
        for patch in chosen:
            found.append(patch.rain.astype(np.float32))
            true.append(layer[patch.top : patch.top + SIDE, patch.left : patch.left + SIDE])
    assert abs(len(found) - count) <= 3
    assert decibels(np.stack(found), np.stack(true)) > least


def test_clean_photographs_have_next_to_none(rainoerme_data: Path) -> None:
    paths = sorted((rainoerme_data / "clean").iterdir())[::7]
    counts = [len(find_patches(decode_image(path), PlainPlaces())) for path in paths]
    assert len(counts) == 30
    assert sum(map(bool, counts)) <= 3
