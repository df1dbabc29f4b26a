"""Panels: every image at its place, under its title."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rainoerme_plugin.data.panels import panel, show_rain, shrink, stages_of
from rainoerme_plugin.distillation.step import DistillationStep

HEIGHT, WIDTH = 24, 60


def flat(*levels: int) -> torch.Tensor:
    """A batch of images of one grey level each."""
    return torch.stack([torch.full((3, HEIGHT, WIDTH), level / 255) for level in levels])


def box(picture: np.ndarray, level: int) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the rectangle that this grey level fills."""
    where = (picture == level).all(axis=2)
    rows, columns = np.nonzero(where.sum(axis=1) >= WIDTH)[0], np.nonzero(where.sum(axis=0) >= HEIGHT)[0]
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    assert where[top:bottom, left:right].all()
    return top, left, bottom, right


def test_columns_stand_side_by_side_and_samples_below_each_other() -> None:
    picture = panel({"a": flat(40, 50), "b": flat(60, 70), "c": flat(80, 90)})
    assert picture.dtype == np.uint8
    boxes = {level: box(picture, level) for level in (40, 50, 60, 70, 80, 90)}
    assert all((bottom - top, right - left) == (HEIGHT, WIDTH) for top, left, bottom, right in boxes.values())
    for first, second, third in ((40, 60, 80), (50, 70, 90)):
        assert boxes[first][0] == boxes[second][0] == boxes[third][0]
        assert boxes[first][3] < boxes[second][1]
        assert boxes[second][3] < boxes[third][1]
    for upper, lower in ((40, 50), (60, 70), (80, 90)):
        assert boxes[upper][1] == boxes[lower][1]
        assert boxes[upper][2] < boxes[lower][0]
    assert boxes[40][1] == 0
    assert picture.shape == (boxes[90][2], boxes[90][3], 3)
    assert (picture[:, boxes[40][3] : boxes[60][1]] == 255).all()
    assert (picture[boxes[40][2] : boxes[50][0]] == 255).all()


def test_the_pixels_are_those_of_the_images() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    batch = torch.from_numpy(np.moveaxis(image, 2, 0) / 255)[None]
    picture = panel({"noise": batch})
    assert np.array_equal(picture[-HEIGHT:], image)
    assert picture.shape[1] == WIDTH


@pytest.mark.parametrize(("min_width", "zoom"), [(119, 1), (120, 2), (179, 2), (180, 3)])
def test_small_images_are_enlarged_to_fit_a_width(min_width: int, zoom: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    batch = torch.from_numpy(np.moveaxis(image, 2, 0) / 255)[None]
    picture = panel({"noise": batch}, min_width=min_width)
    assert picture.shape[1] == zoom * WIDTH
    assert np.array_equal(picture[-zoom * HEIGHT :], np.kron(image, np.ones((zoom, zoom, 1), np.uint8)))


def test_values_outside_the_range_are_clamped() -> None:
    picture = panel({"": torch.cat([flat(0) - 0.5, flat(255) + 0.5])})
    assert (picture[-HEIGHT:] == 255).all()
    assert box(picture, 0)[2] - box(picture, 0)[0] == HEIGHT


def test_each_title_stands_above_its_own_column() -> None:
    def ink(*titles: str) -> list[int]:
        picture = panel({title: flat(255) for title in titles})
        top = picture.shape[0] - HEIGHT
        step = (picture.shape[1] - WIDTH) // (len(titles) - 1)
        return [
            int((picture[:top, number * step : number * step + WIDTH] < 128).sum()) for number in range(len(titles))
        ]

    titled = ink("rainy", "", "rain")
    assert titled[1] == 0
    assert titled[0] > titled[2] > 0
    assert ink("", "rainy", " ")[1] == titled[0]


def test_at_most_so_many_rows_are_shown() -> None:
    batch = flat(10, 20, 30, 40, 50, 60)
    picture = panel({"a": batch})
    assert box(picture, 40)[2] == picture.shape[0]
    assert not (picture == 50).all(axis=2).any()
    assert box(panel({"a": batch}, max_rows=1), 10)[2] == panel({"a": batch}, max_rows=1).shape[0]
    assert box(panel({"a": batch}, max_rows=9), 60)[2] == panel({"a": batch}, max_rows=9).shape[0]


def test_columns_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns of one shape, got .*\(1, 3, 24, 60\).*\(2, 3, 24, 60\)"):
        panel({"a": flat(1), "b": flat(1, 2)})


def test_a_panel_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a panel needs columns of one shape"):
        panel({})


def test_a_rain_layer_is_shown_around_mid_grey() -> None:
    rain = torch.tensor([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.9])
    assert show_rain(rain).tolist() == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_wide_images_shrink_by_whole_factors_to_block_means() -> None:
    image = torch.arange(2 * 3 * 4 * 7, dtype=torch.float64).reshape(2, 3, 4, 7)
    assert shrink(image, 7) is image
    half = shrink(image, 6)
    assert half.shape == (2, 3, 2, 4)
    assert half[1, 2, 1, 0] == image[1, 2, 2:4, 0:2].mean()
    assert half[1, 2, 1, 3] == image[1, 2, 2:4, 6:7].mean()  # the last block is what is left
    assert shrink(image, 3).shape == (2, 3, 2, 3)


def test_where_all_rain_is_of_a_bank_the_stages_are_four() -> None:
    clean, rain = flat(100, 50) / 1.0, torch.full((2, 3, HEIGHT, WIDTH), 0.25)
    synthetic = clean + rain
    zero = torch.zeros(())
    step = DistillationStep(zero, zero, zero, synthetic, clean, rain, rain, synthetic)
    stages = stages_of(step)
    assert list(stages) == ["clean + rain", "rain layer", "derained", "clean"]
    for name, image in (("clean + rain", synthetic), ("rain layer", rain + 0.5), ("derained", clean), ("clean", clean)):
        torch.testing.assert_close(stages[name], image)
