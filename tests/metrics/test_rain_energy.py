"""Rain removed and structure kept: cases worked by hand, a version in SciPy, and real images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from rainoerme_plugin.data.images import decode_image
from rainoerme_plugin.distillation.filters import MedianFilter, OpeningFilter
from rainoerme_plugin.metrics.rain_energy import rain_removed, structure_kept

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

# Sums of squares of float32 gradients.
SINGLE = 1e-5


def ground(level: int = 60, size: tuple[int, int] = (60, 80)) -> Pixels:
    return np.full((*size, 3), level, np.uint8)


def lines(*columns: int, level: int = 100, width: int = 1) -> Pixels:
    """Upright streaks over the whole height of a flat ground."""
    image = ground()
    for column in columns:
        image[:, column : column + width] = level
    return image


def slanted(degrees: float) -> Pixels:
    """One smooth streak, two pixels wide, through the middle; 0 degrees is upright."""
    scale, middle, reach = 8, 480, 320
    across, down = reach * np.sin(np.radians(degrees)), reach * np.cos(np.radians(degrees))
    ends = [(round(middle + sign * across), round(middle + sign * down)) for sign in (-1, 1)]
    drawn = cv2.line(np.full((2 * middle, 2 * middle), 60, np.uint8), *ends, 160, 2 * scale)
    small = cv2.resize(drawn, (120, 120), interpolation=cv2.INTER_AREA)
    return np.repeat(small[..., None], 3, axis=2)


def scenery(seed: int = 0, size: tuple[int, int] = (70, 90)) -> tuple[Pixels, Pixels]:
    """A coloured texture with a pole and a wall, and the same with streaks of 15 degrees."""
    random = np.random.default_rng(seed)
    clean = 90 + 60 * ndimage.gaussian_filter(random.normal(0, 2, (*size, 3)), (1, 1, 0))
    clean[size[0] // 2 :] += [20, 0, 30]
    clean[:, 20:24] += 40
    layer = np.zeros(size)
    for _ in range(30):
        row, column = random.integers(0, size[0]), random.integers(0, size[1])
        cv2.line(layer, (int(column), int(row)), (int(column) + 4, int(row) + 15), 60.0, 1)
    rainy = clean + ndimage.gaussian_filter(layer, 0.6)[..., None]
    return np.clip(clean, 0, 255).astype(np.uint8), np.clip(rainy, 0, 255).astype(np.uint8)


# ----- the definition once more, in SciPy and angles


def luminance(image: Pixels) -> Array:
    return (0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]) / 255


def upright(plane: Array) -> NDArray[np.bool_]:
    down, across = (ndimage.sobel(plane, axis, mode="reflect") for axis in (0, 1))
    tensor = [ndimage.gaussian_filter(values, 2, mode="reflect") for values in (across**2, down**2, across * down)]
    matrices = np.stack([np.stack([tensor[0], tensor[2]], -1), np.stack([tensor[2], tensor[1]], -1)], -1)
    small, large = np.moveaxis(np.linalg.eigvalsh(matrices), -1, 0)
    with np.errstate(invalid="ignore"):
        coherence = (large - small) / (large + small)
    angle = np.degrees(0.5 * np.arctan2(2 * tensor[2], tensor[0] - tensor[1]))
    return (coherence >= 0.7) & (np.abs(angle) <= 30)


def energy(image: Pixels) -> float:
    plane = luminance(image)
    streaks = plane - ndimage.grey_opening(plane, (1, 9), mode="reflect")
    return float((ndimage.sobel(streaks, 1, mode="reflect")[upright(streaks)] ** 2).sum())


def kept(derained: Pixels, rainy: Pixels) -> float:
    rest = ~upright(luminance(rainy))
    before, after = (ndimage.sobel(luminance(image), 0, mode="reflect")[rest] for image in (rainy, derained))
    return float(1 - ((after - before) ** 2).sum() / (before**2).sum())


@pytest.mark.parametrize("size", [(70, 90), (33, 120), (90, 31)])
@pytest.mark.parametrize("blur", [0, 1, 3])
def test_both_are_what_scipy_makes_of_the_definition(size: tuple[int, int], blur: int) -> None:
    clean, rainy = scenery(blur, size)
    derained = cv2.GaussianBlur(clean, (0, 0), blur) if blur else clean
    removed, structure = 1 - energy(derained) / energy(rainy), kept(derained, rainy)
    assert 0.05 < removed < 0.999
    # A pixel at the bound of 30 degrees or 0.7 may fall to either side.
    assert rain_removed(derained, rainy) == pytest.approx(removed, abs=1e-4)
    assert structure_kept(derained, rainy) == pytest.approx(structure, abs=1e-4)


# ----- rain removed


@pytest.mark.parametrize(
    ("left", "expected"),
    [(60, 1.0), (80, 1 - 1 / 4), (70, 1 - 1 / 16), (90, 1 - 9 / 16), (100, 0.0), (140, 1 - 4.0), (56, 1.0)],
)
def test_a_streak_counts_by_the_square_of_what_is_left_of_it(left: int, expected: float) -> None:
    # It was 40 above the ground. One that is darker than the ground is no rain.
    assert rain_removed(lines(40, level=left), lines(40)) == pytest.approx(expected, abs=SINGLE)


def test_each_of_two_streaks_counts_alike_and_added_ones_count_against() -> None:
    assert rain_removed(lines(20), lines(20, 60)) == pytest.approx(1 / 2, abs=SINGLE)
    assert rain_removed(lines(20, 40, 60), lines(20)) == pytest.approx(-2, abs=SINGLE)


def test_green_rain_weighs_more_than_blue_rain() -> None:
    # Squares of the luminances' parts, .587 and .114.
    rainy, derained = ground(), ground()
    rainy[:, 20, 1] = rainy[:, 60, 2] = 100
    derained[:, 60, 2] = 100
    expected = 0.587**2 / (0.587**2 + 0.114**2)
    assert rain_removed(derained, rainy) == pytest.approx(expected, abs=SINGLE)


@pytest.mark.parametrize(("width", "counts"), [(1, True), (4, True), (8, True), (9, False), (12, False)])
def test_a_streak_is_narrower_than_the_window(width: int, counts: bool) -> None:
    assert rain_removed(ground(), lines(30, width=width)) == pytest.approx(float(counts), abs=1e-9)


@pytest.mark.parametrize(
    ("degrees", "counts"), [(0, True), (20, True), (-20, True), (40, False), (-40, False), (60, False), (90, False)]
)
def test_a_streak_falls_steeply(degrees: float, counts: bool) -> None:
    # Beside an upright streak on the left, which stays as it is.
    upright_one = ground(size=(120, 120))
    upright_one[:, 8] = 160
    both = np.maximum(slanted(degrees), upright_one)
    removed = rain_removed(upright_one, both)
    assert (removed > 0.25) if counts else (abs(removed) < 0.01)


@pytest.mark.parametrize("length", [8, 20, 80])
def test_a_horizontal_line_is_no_rain(length: int) -> None:
    image = ground()
    image[30, 40 - length // 2 : 40 - length // 2 + length] = 100
    both = np.maximum(image, lines(5))
    assert rain_removed(lines(5), both) == pytest.approx(0, abs=0.05)
    assert rain_removed(image, both) == pytest.approx(1, abs=0.05)


def test_a_dark_streak_is_no_rain() -> None:
    assert rain_removed(ground(), lines(40, level=20)) == 0


def test_a_texture_without_direction_is_hardly_rain() -> None:
    # A third of its gradients points less than 30 degrees off the horizontal, but their neighbours do not.
    random = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(random.normal(90, 40, (120, 160)), 1)
    rainy = texture.copy()
    rainy[:, 20::40] += 40
    clean, image = (np.repeat(plane.round().astype(np.uint8)[..., None], 3, axis=2) for plane in (texture, rainy))
    assert rain_removed(clean, image) > 0.9


def test_rain_removed_knows_no_left_and_right() -> None:
    clean, rainy = scenery(4)
    assert rain_removed(clean[:, ::-1], rainy[:, ::-1]) == pytest.approx(rain_removed(clean, rainy), abs=1e-4)


# ----- structure kept


def stripes(contrast: float = 1) -> Pixels:
    rows = 100 + contrast * 60 * np.sin(np.arange(60) / 3)
    return np.repeat(np.repeat(rows.round().astype(np.uint8)[:, None, None], 80, axis=1), 3, axis=2)


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [(1, 1.0), (0.5, 1 - 1 / 4), (0.75, 1 - 1 / 16), (0, 0.0), (-0.5, 1 - 9 / 4), (1.5, 1 - 1 / 4)],
)
def test_structure_counts_by_the_square_of_what_is_missing_or_too_much(contrast: float, expected: float) -> None:
    # Levels are whole numbers.
    assert structure_kept(stripes(contrast), stripes()) == pytest.approx(expected, abs=0.01)


def test_brightness_is_no_structure() -> None:
    image = np.clip(stripes(), 0, 200)
    assert structure_kept(image + np.uint8(40), image) == pytest.approx(1, abs=1e-9)


def test_a_horizontal_blur_keeps_stripes_and_a_vertical_one_does_not() -> None:
    assert structure_kept(cv2.blur(stripes(), (9, 1)), stripes()) == pytest.approx(1, abs=1e-9)
    assert structure_kept(cv2.blur(stripes(), (1, 9)), stripes()) < 0.85


def test_what_appears_on_flat_ground_counts_against() -> None:
    rainy, derained = stripes(), stripes()
    rainy[:30] = derained[:30] = rainy[30]
    derained[:10] = stripes()[10:20]
    assert structure_kept(derained, rainy) == pytest.approx(kept(derained, rainy), abs=1e-4)
    assert structure_kept(derained, rainy) < 0.8


def test_an_upright_streak_is_no_structure() -> None:
    rainy = np.maximum(stripes(0.25), lines(40, level=250))
    assert structure_kept(stripes(0.25), rainy) > 0.999
    assert structure_kept(np.maximum(ground(100), lines(40, level=250)), rainy) == pytest.approx(0, abs=0.01)


# ----- both


@pytest.mark.parametrize("image", [scenery(5)[1], lines(40), slanted(10)], ids=["scenery", "lines", "slanted"])
def test_the_rainy_image_has_removed_nothing_and_kept_everything(image: Pixels) -> None:
    assert rain_removed(image, image.copy()) == 0
    assert structure_kept(image, image.copy()) == 1


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_flat_image_has_removed_everything_and_kept_nothing(level: int) -> None:
    rainy = scenery(6)[1]
    flat = ground(level, (70, 90))
    assert rain_removed(flat, rainy) == 1
    assert structure_kept(flat, rainy) == 0


def test_of_a_flat_image_nothing_can_be_removed_and_all_is_kept() -> None:
    image = scenery(7)[1]
    flat = ground(90, (70, 90))
    assert rain_removed(image, flat) == 0
    assert structure_kept(image, flat) == 1


def test_half_as_bright_is_three_quarters_removed_and_three_quarters_kept() -> None:
    rainy = scenery(8)[1] & np.uint8(254)
    assert rain_removed(rainy // 2, rainy) == pytest.approx(3 / 4, abs=SINGLE)
    assert structure_kept(rainy // 2, rainy) == pytest.approx(3 / 4, abs=SINGLE)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (9, 9)])
def test_images_of_every_size_are_taken(size: tuple[int, int]) -> None:
    image, other = np.random.default_rng(9).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    for measure in (rain_removed, structure_kept):
        value = measure(other, image)
        assert type(value) is float
        assert np.isfinite(value)
        assert value <= 1


@pytest.mark.parametrize("measure", [rain_removed, structure_kept])
def test_images_of_two_sizes_are_refused_with_both(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match=r"differ in size: \(60, 80\) and \(60, 81\)"):
        measure(ground(size=(60, 81)), ground())


@pytest.mark.parametrize("measure", [rain_removed, structure_kept])
def test_images_are_left_as_they_were_and_may_be_views(measure: object) -> None:
    assert callable(measure)
    images = scenery(10)
    before = [image.copy() for image in images]
    turned = [np.ascontiguousarray(image[::-1]) for image in images]
    assert measure(*(image[::-1] for image in images)) == measure(*turned)
    for image, copy in zip(images, before, strict=True):
        assert np.array_equal(image, copy)


# ----- real images


def test_on_rain100l_the_clean_image_stands_above_filters_and_filters_above_a_blur(rainoerme_data: Path) -> None:
    folder = rainoerme_data / "Rain100L" / "test"
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in ("clean", "opening", "median", "blur")}
    for path in sorted((folder / "rain").iterdir())[::10]:
        rainy, clean = decode_image(path), decode_image(folder / "norain" / path.name)
        derained = {
            "clean": clean,
            "opening": OpeningFilter()(rainy),
            "median": MedianFilter()(rainy),
            "blur": cv2.GaussianBlur(rainy, (0, 0), 2),
        }
        for name, image in derained.items():
            results[name].append((rain_removed(image, rainy), structure_kept(image, rainy)))
    removed, structure = ({name: np.array(values)[:, column] for name, values in results.items()} for column in (0, 1))
    assert (structure["clean"] > 0.96).all()
    assert (structure["opening"] < structure["clean"] - 0.1).all()
    assert (structure["blur"] < structure["opening"]).all()
    assert (structure["blur"] < 0.6).all()
    # The opening takes out all by definition; what else is narrow, bright and upright is in the clean image too.
    assert (removed["opening"] > 0.999).all()
    assert (removed["clean"] > 0.1).all()
    # Measured once and noted in docs/benchmarks.md.
    means = {name: (removed[name].mean(), structure[name].mean()) for name in results}
    assert means["clean"] == pytest.approx((0.666, 0.986), abs=0.002)
    assert means["opening"] == pytest.approx((1.000, 0.623), abs=0.002)
    assert means["median"] == pytest.approx((0.877, 0.436), abs=0.002)
    assert means["blur"] == pytest.approx((0.927, 0.336), abs=0.002)
