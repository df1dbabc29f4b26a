"""The coarse filters against double loops, NumPy and SciPy, and what they do to a streak."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from changing import changed_code
from numpy.typing import NDArray
from scipy import ndimage

from rainoerme_plugin.distillation.adaptive import AdaptiveFilter
from rainoerme_plugin.distillation.coarse import CoarseFilter
from rainoerme_plugin.distillation.filters import (
    FILTERS,
    BilateralFilter,
    GuidedFilter,
    MedianFilter,
    OpeningFilter,
    RankFilter,
    StreaksFilter,
    build_filter,
)

Image = NDArray[np.uint8]


def picture(height: int = 12, width: int = 15, seed: int = 0) -> Image:
    """Smooth colours with noise and some streaks: edges as well as flat places."""
    random = np.random.default_rng(seed)
    image = np.linspace(30, 180, height * width * 3).reshape(height, width, 3) + random.normal(
        0, 12, (height, width, 3)
    )
    image[:, random.integers(0, width, 2)] += 60
    return np.clip(image, 0, 255).astype(np.uint8)


def deep(image: Image) -> NDArray[np.uint16]:
    """The image with 16 bits, the lower ones too."""
    low = np.random.default_rng(0).integers(0, 256, image.shape, np.uint16)
    return image.astype(np.uint16) * 256 + low


def depths(image: Image) -> list[NDArray[Any]]:
    return [image, deep(image)]


def windowed(image: NDArray[Any], window: tuple[int, int], value: Callable[[NDArray[Any]], Any]) -> NDArray[Any]:
    """``value`` of the window around every pixel and channel; the image goes on mirrored, its edge pixel twice."""
    height, width, channels = image.shape
    up, left = window[0] // 2, window[1] // 2
    padded = np.pad(image, [(up, up), (left, left), (0, 0)], mode="symmetric")
    result = np.empty_like(image)
    for row, column, channel in np.ndindex(height, width, channels):
        result[row, column, channel] = value(padded[row : row + window[0], column : column + window[1], channel])
    return result


WINDOWS = [(1, 7), (3, 3), (5, 1), (3, 9), (1, 1)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("percent", [0, 20, 35, 50, 62.5, 90, 100])
def test_the_rank_filter_takes_the_rank_of_a_double_loop(window: tuple[int, int], percent: float) -> None:
    image = picture()
    rank = min(int(window[0] * window[1] * percent / 100), window[0] * window[1] - 1)
    oracle = windowed(image, window, lambda values: np.sort(values, axis=None)[rank])
    np.testing.assert_array_equal(RankFilter(window, percent)(image), oracle)


@pytest.mark.parametrize(("window", "percent"), [((1, 7), 35), ((1, 9), 20), ((3, 3), 0), ((3, 5), 100)])
def test_the_rank_filter_takes_the_percentile_of_numpy(window: tuple[int, int], percent: float) -> None:
    image = picture(seed=1)
    oracle = windowed(image, window, lambda values: np.percentile(values, percent, method="lower"))
    np.testing.assert_array_equal(RankFilter(window, percent)(image), oracle)


@pytest.mark.parametrize("window", [(1, 7), (9, 9), (5, 3), (3, 1), (1, 1), (1, 31), (15, 15)])
@pytest.mark.parametrize("percent", [0, 0.0, 1e-9, 12.5, 35, 100 / 3, 49.999, 50.0, 66.6, 99.9, 100, 100.0])
def test_the_rank_filter_is_that_of_scipy(window: tuple[int, int], percent: float) -> None:
    image = picture(17, 23, seed=10)
    for values in depths(image):
        result = RankFilter(window, percent)(values)
        assert result.dtype == values.dtype
        np.testing.assert_array_equal(result, ndimage.percentile_filter(values, percent, size=(*window, 1)))


@pytest.mark.parametrize("window", [(1, 7), (3, 3), (1, 15), (3, 9), (7, 7)])
def test_the_rank_of_a_percentage_beside_a_border_is_that_of_scipy(window: tuple[int, int]) -> None:
    pixels = window[0] * window[1]
    image = np.arange(pixels, dtype=np.uint8).reshape(*window, 1).repeat(3, axis=2)
    for rank in range(1, pixels):
        border = 100 * rank / pixels
        for percent in (np.nextafter(border, 0).item(), border, np.nextafter(border, 100).item()):
            oracle = ndimage.percentile_filter(image, percent, size=(*window, 1))
            np.testing.assert_array_equal(RankFilter(window, percent)(image), oracle)


def test_the_rank_filter_without_arguments_is_the_third_smallest_of_seven_in_a_row() -> None:
    image = picture(seed=2)
    np.testing.assert_array_equal(RankFilter()(image), windowed(image, (1, 7), lambda values: np.sort(values[0])[2]))


@pytest.mark.parametrize("window", [*WINDOWS, (5, 5)])
def test_the_median_filter_takes_the_median_of_a_double_loop(window: tuple[int, int]) -> None:
    image = picture(seed=3)
    np.testing.assert_array_equal(MedianFilter(window)(image), windowed(image, window, np.median))


@pytest.mark.parametrize("window", [(1, 7), (9, 9), (3, 5), (1, 1), (31, 3)])
def test_the_median_filter_is_that_of_scipy(window: tuple[int, int]) -> None:
    image = picture(17, 23, seed=11)
    for values in depths(image):
        oracle = ndimage.median_filter(values, size=(*window, 1))
        np.testing.assert_array_equal(MedianFilter(window)(values), oracle)


def test_the_median_filter_without_arguments_has_a_window_of_five_by_five() -> None:
    image = picture(seed=3)
    np.testing.assert_array_equal(MedianFilter()(image), windowed(image, (5, 5), np.median))


@pytest.mark.parametrize("window", WINDOWS)
def test_the_opening_is_the_minimum_and_then_the_maximum_of_a_double_loop(window: tuple[int, int]) -> None:
    image = picture(seed=4)
    for values in depths(image):
        oracle = windowed(windowed(values, window, np.min), window, np.max)
        np.testing.assert_array_equal(OpeningFilter(window)(values), oracle)


def test_the_opening_without_arguments_has_a_window_of_nine_in_a_row() -> None:
    image = picture(seed=4)
    oracle = windowed(windowed(image, (1, 9), np.min), (1, 9), np.max)
    np.testing.assert_array_equal(OpeningFilter()(image), oracle)


@pytest.mark.parametrize("k", [3, 5, 7])
def test_the_opening_removes_a_streak_narrower_than_its_window_and_keeps_a_wider_shape(k: int) -> None:
    ground = np.full((10, 40, 3), 60, np.uint8)
    narrow, wide = ground.copy(), ground.copy()
    narrow[:, 15 : 15 + k - 1] = 220
    wide[2:8, 15 : 15 + k] = (200, 210, 220)
    opening = OpeningFilter((1, k))
    np.testing.assert_array_equal(opening(narrow), ground)
    np.testing.assert_array_equal(opening(wide), wide)


def test_the_opening_in_a_row_keeps_a_horizontal_line() -> None:
    image = np.full((10, 20, 3), 60, np.uint8)
    image[5] = 220
    np.testing.assert_array_equal(OpeningFilter((1, 7))(image), image)
    assert (OpeningFilter((3, 1))(image) == 60).all()


# The columns, row by row, of the lines that lean by nothing and by one, two, ... columns at their ends.
LEANING = {
    5: {0: [0, 0, 0, 0, 0], 1: [1, 0, 0, 0, -1], 2: [2, 1, 0, -1, -2]},
    7: {0: [0] * 7, 1: [1, 1, 0, 0, 0, -1, -1], 2: [2, 1, 1, 0, -1, -1, -2]},
}


@pytest.mark.parametrize(("length", "lean", "aside"), [(5, 0, 0), (5, 30, 1), (5, 45, 2), (7, 34, 2)])
def test_streaks_are_what_scipys_openings_leave_of_what_is_bright_in_all_colours(
    length: int, lean: float, aside: int
) -> None:
    for image in depths(picture(40, 30, seed=4)):
        opened = np.stack([ndimage.grey_opening(image[..., c], (1, 7), mode="reflect") for c in range(3)], axis=2)
        narrow = (image - opened).min(axis=2)
        openings = []
        for end in range(-aside, aside + 1):
            line = np.zeros((length, 2 * aside + 1), bool)
            line[range(length), aside + np.sign(end) * np.array(LEANING[length][abs(end)])] = True
            # Beyond the border, what decides nothing.
            eroded = ndimage.grey_erosion(narrow, footprint=line, mode="constant", cval=np.iinfo(image.dtype).max)
            openings.append(ndimage.grey_dilation(eroded, footprint=line, mode="constant", cval=0))
        expected = image - np.max(openings, axis=0)[..., None]
        assert (expected != image).any()
        np.testing.assert_array_equal(StreaksFilter((1, 7), length, lean)(image), expected)


def test_streaks_are_taken_out_and_what_is_short_coloured_or_wide_is_kept() -> None:
    image = np.full((40, 60, 3), 80, np.uint8)
    image[:4, :4] += 60  # a block as high as a streak is not
    image[10:30, 30, 0] += 60  # a red line
    image[5:35, 40:50] += 60  # a wide one
    rainy = image.copy()
    for row in range(5, 25):
        rainy[row, 20 - row // 4 :][:3] += 60
    np.testing.assert_array_equal(StreaksFilter((1, 7))(rainy), image)
    assert (OpeningFilter((1, 7))(rainy) != image).any()
    assert (StreaksFilter((1, 7), lean=0)(rainy) != image).any()  # more inclined than it looks for


def test_an_inclined_streak_is_taken_out_up_to_the_border() -> None:
    image = np.full((30, 30, 3), 80, np.uint8)
    for row in range(30):
        image[row, 25 - row // 2 :][:2] += 60
    assert (StreaksFilter()(image) == 80).all()


def test_streaks_without_arguments_are_seven_long_in_a_window_of_nine() -> None:
    assert StreaksFilter() == StreaksFilter((1, 9), 7, 34.0)


@pytest.mark.parametrize(("radius", "eps"), [(8, 0.01), (2, 0.01), (3, 1e-4), (1, 0.5)])
def test_the_guided_filter_is_that_of_box_means_in_float64(radius: int, eps: float) -> None:
    image = picture(24, 20, seed=5)
    for values, white, tolerance in zip(depths(image), (255, 65535), (0.51, 1.0), strict=True):
        result = GuidedFilter(radius, eps)(values)
        assert result.dtype == values.dtype
        oracle = box_means(values / white, radius, eps) * white
        np.testing.assert_allclose(result, oracle, atol=tolerance, rtol=0)


def box_means(guide: NDArray[np.float64], radius: int, eps: float) -> NDArray[np.float64]:
    side = (2 * radius + 1, 2 * radius + 1, 1)
    mean = ndimage.uniform_filter(guide, side, mode="reflect")
    variance = ndimage.uniform_filter(guide**2, side, mode="reflect") - mean**2
    a = variance / (variance + eps)
    b = mean - a * mean
    return ndimage.uniform_filter(a, side, mode="reflect") * guide + ndimage.uniform_filter(b, side, mode="reflect")


def test_the_guided_filter_without_arguments_has_radius_8_and_eps_a_hundredth() -> None:
    assert GuidedFilter() == GuidedFilter(radius=8, eps=0.01)


def test_the_guided_filter_keeps_an_edge_and_smooths_noise() -> None:
    random = np.random.default_rng(6)
    clean = np.full((24, 24, 3), 40.0)
    clean[:, 12:] = 220
    result = GuidedFilter(4, 0.01)(np.clip(clean + random.normal(0, 8, clean.shape), 0, 255).astype(np.uint8))
    assert abs(result[:, :12] - clean[:, :12]).mean() < 5
    assert abs(result[:, 12:] - clean[:, 12:]).mean() < 5
    assert result[:, 2:8].std() < 4


@pytest.mark.parametrize(
    ("diameter", "sigma_color", "sigma_space"), [(9, 75.0, 5.0), (5, 20.0, 2.0), (3, 150.0, 0.8), (7, 75.0, 20.0)]
)
def test_the_bilateral_filter_is_that_of_a_double_loop(diameter: int, sigma_color: float, sigma_space: float) -> None:
    image = picture(seed=7)
    radius = diameter // 2
    padded = np.pad(image.astype(float), [(radius, radius), (radius, radius), (0, 0)], mode="symmetric")
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    near = np.exp(-(rows**2 + columns**2) / (2 * sigma_space**2)) * (rows**2 + columns**2 <= radius**2)
    oracle = np.empty(image.shape)
    for row, column in np.ndindex(image.shape[:2]):
        values = padded[row : row + diameter, column : column + diameter]
        # OpenCV weighs a colour by the sum of its channels' differences.
        difference = abs(values - image[row, column]).sum(axis=2)
        weights = near * np.exp(-(difference**2) / (2 * sigma_color**2))
        oracle[row, column] = (weights[..., None] * values).sum(axis=(0, 1)) / weights.sum()
    np.testing.assert_allclose(BilateralFilter(diameter, sigma_color, sigma_space)(image), oracle, atol=1, rtol=0)


def test_the_bilateral_filter_without_arguments_is_nine_wide_with_sigmas_75_and_5() -> None:
    assert BilateralFilter() == BilateralFilter(diameter=9, sigma_color=75.0, sigma_space=5.0)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [(12, 15), (40, 9)])
def test_every_filter_keeps_size_and_type_and_leaves_its_input_alone(name: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    before = image.copy()
    label = build_filter(name)(image)
    assert label.shape == image.shape
    assert label.dtype == np.uint8
    assert (label != image).any()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_treats_rgb_and_bgr_alike(name: str) -> None:
    image = picture(seed=8)
    coarse = build_filter(name)
    np.testing.assert_array_equal(coarse(image[..., ::-1]), coarse(image)[..., ::-1])


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_keeps_an_image_of_one_colour(name: str) -> None:
    image = np.full((20, 20, 3), (17, 128, 250), np.uint8)
    np.testing.assert_array_equal(build_filter(name)(image), image)


@pytest.mark.parametrize("name", ["rank", "opening", "median", "guided"])
def test_no_filter_but_the_bilateral_mixes_channels(name: str) -> None:
    image = picture(seed=9)
    grey = image.copy()
    grey[..., 1:] = 0
    coarse = build_filter(name)
    np.testing.assert_array_equal(coarse(grey)[..., 0], coarse(image)[..., 0])
    assert not coarse(grey)[..., 1:].any()


@pytest.mark.parametrize(
    ("coarse", "key"),
    [
        (RankFilter(), "rank-1x7-35"),
        (MedianFilter((3, 5)), "median-3x5"),
        (OpeningFilter((1, 5)), "opening-1x5"),
        (GuidedFilter(4, 1e-3), "guided-4-0.001"),
        (BilateralFilter(5, 12.5, 3.0), "bilateral-5-12.5-3"),
        (StreaksFilter((1, 9), 11, 30), "streaks-1x9-11-30"),
        (AdaptiveFilter(3, 9, 0.8, 2), "adaptive-3-9-0.8-2"),
    ],
)
def test_a_key_names_filter_arguments_and_code(coarse: CoarseFilter, key: str) -> None:
    assert re.fullmatch(rf"{re.escape(key)}-[0-9a-f]{{8}}", coarse.key)


def test_every_argument_and_every_filter_has_a_key_of_its_own() -> None:
    variants = [
        *(RankFilter(window, percent) for window in WINDOWS for percent in (35.0, 35.5, 20.0)),
        *(MedianFilter(window) for window in WINDOWS),
        *(OpeningFilter(window) for window in [*WINDOWS, (7, 1)]),
        *(StreaksFilter((1, 7), length, lean) for length in (7, 9) for lean in (0, 0.5, 37)),
        *(GuidedFilter(radius, eps) for radius in (2, 8) for eps in (0.01, 0.011, 1e-6)),
        *(BilateralFilter(d, color, space) for d in (5, 9) for color in (5.0, 75.0) for space in (5.0, 75.0)),
    ]
    assert len({coarse.key for coarse in variants}) == len(variants)


@pytest.mark.parametrize("module", ["distillation.rank", "distillation.filters"])
def test_new_code_of_a_filter_has_a_new_key(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = RankFilter().key
    with changed_code(monkeypatch, module):
        assert RankFilter().key != before
    with changed_code(monkeypatch, "benchmark.report"):
        assert RankFilter().key == before


def test_filters_are_built_by_name_and_lists_become_windows() -> None:
    assert build_filter("rank", window=[3, 5], percent=10) == RankFilter((3, 5), 10)
    assert build_filter("opening", window=(1, 5)) == OpeningFilter((1, 5))
    assert build_filter("median") == MedianFilter()
    assert build_filter("guided", eps=0.1) == GuidedFilter(8, 0.1)
    assert build_filter("bilateral", diameter=5) == BilateralFilter(5)


def test_an_unknown_filter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no coarse filter is called 'blur'; there are rank, opening, streaks, median"):
        build_filter("blur")


def test_an_unknown_argument_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"the rank filter has no argument 'percentile'; it has window, percent$"):
        build_filter("rank", percentile=35)


@pytest.mark.parametrize("name", ["rank", "median", "opening", "streaks"])
@pytest.mark.parametrize("window", [[2, 7], [1, 0], [-3, 3], [7], [1, 3, 3], [1.0, 7]])
def test_a_window_that_is_not_two_odd_numbers_is_refused(name: str, window: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"window must be two odd numbers \[height, width\], got \["):
        build_filter(name, window=window)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 8}, "length must be odd and at least 3, got 8"),
        ({"length": 1}, "length must be odd and at least 3, got 1"),
        ({"lean": -1}, "lean must be from 0 to 60 degrees, got -1"),
        ({"lean": 61}, "lean must be from 0 to 60 degrees, got 61"),
    ],
)
def test_a_streak_without_length_or_too_inclined_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_filter("streaks", **arguments)


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_a_percentage_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match=f"percent must be from 0 to 100, got {percent}"):
        RankFilter(percent=percent)


@pytest.mark.parametrize(("radius", "eps"), [(0, 0.01), (8, 0.0), (8, -1.0)])
def test_a_guided_filter_without_radius_or_eps_is_refused(radius: int, eps: float) -> None:
    with pytest.raises(ValueError, match=f"radius must be at least 1 and eps above 0, got {radius} and {eps}"):
        GuidedFilter(radius, eps)


@pytest.mark.parametrize("arguments", [{"diameter": 0}, {"sigma_color": 0.0}, {"sigma_space": -1.0}])
def test_a_bilateral_filter_without_reach_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"diameter, sigma_color and sigma_space .* must be positive"):
        build_filter("bilateral", **arguments)


def test_the_bilateral_filter_refuses_sixteen_bits() -> None:
    with pytest.raises(ValueError, match=r"the bilateral filter takes images of 8 bits \(uint8\), got uint16"):
        BilateralFilter()(deep(picture()))


LOCAL = [
    RankFilter(),
    RankFilter((5, 3), 80),
    MedianFilter(),
    MedianFilter((1, 9)),
    OpeningFilter(),
    OpeningFilter((5, 3)),
    StreaksFilter(),
    StreaksFilter((3, 5), 3, 45),
    GuidedFilter(),
    GuidedFilter(2, 1e-4),
    BilateralFilter(),
    BilateralFilter(4, 40.0, 2.0),
    BilateralFilter(1),
]


def test_every_filter_is_tried_on_crops() -> None:
    assert {type(coarse) for coarse in LOCAL} == {kind for kind in FILTERS.values() if not kind.whole_image}


@pytest.mark.parametrize("coarse", LOCAL, ids=lambda coarse: coarse.key)
@pytest.mark.parametrize("size", [(61, 83), (9, 70), (5, 4)])
def test_a_crop_with_the_reach_around_it_has_the_values_of_the_whole_image(
    coarse: CoarseFilter, size: tuple[int, int]
) -> None:
    height, width = size
    down, right = coarse.reach
    random = np.random.default_rng(12)
    crops = [(top, left, 4, 4) for top in (0, height // 2, height - 4) for left in (0, width // 2, width - 4)]
    for _ in range(30):
        top, left = int(random.integers(height)), int(random.integers(width))
        crops.append((top, left, int(random.integers(height - top)) + 1, int(random.integers(width - left)) + 1))
    image = picture(height, width, seed=13)
    for values in [image] if isinstance(coarse, BilateralFilter) else depths(image):
        whole = coarse(values)
        for top, left, rows, columns in crops:
            above, before = max(0, top - down), max(0, left - right)
            part = coarse(values[above : top + rows + down, before : left + columns + right])
            crop = part[top - above :, left - before :][:rows, :columns]
            oracle = whole[top : top + rows, left : left + columns]
            # Guided: running sums round by where they began.
            np.testing.assert_allclose(crop, oracle, atol=isinstance(coarse, GuidedFilter), rtol=0)


@pytest.mark.parametrize("coarse", LOCAL, ids=lambda coarse: coarse.key)
def test_the_reach_is_not_larger_than_what_a_label_depends_on(coarse: CoarseFilter) -> None:
    down, right = coarse.reach
    changed = np.zeros((61, 61), bool)
    for seed in range(40):
        image = np.random.default_rng(seed).integers(60, 190, (61, 61, 3), np.uint8)
        touched = image.copy()
        touched[30, 30] = (0, 255)[seed % 2]
        changed |= (coarse(image) != coarse(touched)).any(axis=2)
    rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
    assert abs(rows - 30).max() <= down
    assert abs(columns - 30).max() <= right
    # What is farthest weighs too little in the guided filter's means of means to change 8 bits, and is seldom what
    # decides about a streak.
    if not isinstance(coarse, GuidedFilter | StreaksFilter):
        assert (abs(rows - 30).max(), abs(columns - 30).max()) == (down, right)


def test_a_coarse_filter_without_a_computation_is_none() -> None:
    with pytest.raises(NotImplementedError):
        CoarseFilter()(picture())
    with pytest.raises(NotImplementedError):
        _ = CoarseFilter().reach
