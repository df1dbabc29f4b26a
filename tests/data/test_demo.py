"""The demo set: its files, scenes that stay apart, and rain that only lightens."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rainoerme_plugin.data import demo
from rainoerme_plugin.data.demo import demo_size, make_demo, render_rain
from rainoerme_plugin.data.images import decode_image, write_image
from rainoerme_plugin.errors import DataError

skimage = pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    written = list(make_demo(root))
    assert len(written) == len(set(written)) == demo_size()
    assert set(written) == {path for path in root.rglob("*") if path.is_file()}
    return root


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def thumbnail(path: Path) -> np.ndarray:
    """A small grey version in which rain hardly counts."""
    small = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (16, 16), interpolation=cv2.INTER_AREA)
    return (small.astype(float) - small.mean()) / small.std()


def test_every_folder_has_its_number_of_images(made: Path) -> None:
    counts = {part: len(list((made / part).glob("*.png"))) for part in ("rainy", "clean", "test/rain", "test/norain")}
    assert counts == {"rainy": 24, "clean": 6, "test/rain": 6, "test/norain": 6}
    assert demo_size() == 42


def test_images_are_rgb_and_no_side_is_above_640(made: Path) -> None:
    for path in made.rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert max(image.size) <= 640


def test_scenes_of_training_and_test_images_look_different(made: Path) -> None:
    scenes = {
        part: {path.stem.rpartition("_")[0] or path.stem: thumbnail(path) for path in sorted((made / part).glob("*"))}
        for part in ("rainy", "clean", "test/rain")
    }
    for one, other in itertools.combinations(scenes, 2):
        for first, second in itertools.product(scenes[one].values(), scenes[other].values()):
            assert (first * second).mean() < 0.8


def test_rain_only_lightens(made: Path) -> None:
    for path in (made / "test" / "rain").glob("*.png"):
        rainy, clean = pixels(path).astype(int), pixels(made / "test" / "norain" / path.name).astype(int)
        assert rainy.shape == clean.shape
        assert (rainy >= clean).all()
        assert 1 < (rainy - clean).mean() < 60


def test_clean_images_are_scikit_images_photographs(made: Path) -> None:
    photographs = Path(skimage.__file__).parent / "data"
    chelsea = np.asarray(Image.open(photographs / "chelsea.png").convert("RGB"))
    for number in (1, 2, 3):
        assert np.array_equal(pixels(made / "test" / "norain" / f"chelsea_{number}.png"), chelsea)
    coins = np.asarray(Image.open(photographs / "coins.png").convert("RGB"))
    assert np.array_equal(pixels(made / "clean" / "coins.png"), coins)


def test_renderings_of_one_photograph_differ(made: Path) -> None:
    renderings = [pixels(made / "rainy" / f"coffee_{number}.png") for number in range(1, 7)]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(renderings, 2))


def test_the_same_seed_writes_the_same_files_and_another_does_not(made: Path, tmp_path: Path) -> None:
    again = list(itertools.islice(make_demo(tmp_path / "again", seed=0), 2))
    other = list(itertools.islice(make_demo(tmp_path / "other", seed=1), 2))
    for path, different in zip(again, other, strict=True):
        first = (made / "rainy" / path.name).read_bytes()
        assert path.read_bytes() == first
        assert different.name == path.name
        assert different.read_bytes() != first


def test_an_interrupted_run_keeps_what_is_there_and_makes_the_rest(made: Path, tmp_path: Path) -> None:
    run = make_demo(tmp_path)
    first, second = itertools.islice(run, 2)
    run.close()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {first, second}
    first.write_bytes(b"kept")
    second.unlink()
    assert list(itertools.islice(make_demo(tmp_path), 3))[:2] == [first, second]
    assert first.read_bytes() == b"kept"
    for name in (second.name, "astronaut_3.png"):
        assert (tmp_path / "rainy" / name).read_bytes() == (made / "rainy" / name).read_bytes()


def test_without_scikit_image_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(DataError, match="scikit-image"):
        list(make_demo(tmp_path))


def test_a_photograph_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RAINY", ("gone.png",))
    with pytest.raises(DataError, match=r"scikit-image's gone\.png: no such file"):
        next(make_demo(tmp_path))


# --- rain alone ---


def test_rain_is_screened_onto_the_image_in_one_grey() -> None:
    image = np.empty((120, 160, 3), np.uint8)
    image[:] = (0, 100, 230)
    rainy = render_rain(image, np.random.default_rng(0)).astype(float)
    assert rainy.shape == image.shape
    dimming = (255 - rainy) / (255.0 - image)  # one factor for all channels, up to rounding
    light = dimming[..., 0]
    assert np.abs(dimming[..., 1] - light).max() <= 0.5 / 155 + 0.5 / 255 + 1e-9
    assert np.abs(dimming[..., 2] - light).max() <= 0.5 / 25 + 0.5 / 255 + 1e-9
    assert 0.02 < (light < 0.95).mean() < 0.7
    assert light.min() > 0.19  # never opaque


def test_white_stays_white() -> None:
    white = np.full((60, 80, 3), 255, np.uint8)
    assert (render_rain(white, np.random.default_rng(0)) == 255).all()


@pytest.mark.parametrize("seed", range(4))
def test_rain_falls_downwards(seed: int) -> None:
    rain = render_rain(np.zeros((160, 160, 3), np.uint8), np.random.default_rng(seed))[..., 0].astype(float)
    down, across = np.abs(np.diff(rain, axis=0)).mean(), np.abs(np.diff(rain, axis=1)).mean()
    assert down < across / 1.5


def test_the_image_itself_is_left_alone() -> None:
    image = np.full((40, 40, 3), 90, np.uint8)
    render_rain(image, np.random.default_rng(0))
    assert (image == 90).all()


def test_a_large_photograph_is_scaled_down_in_its_proportions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs = tmp_path / "skimage" / "data"
    write_image(photographs / "wide.png", np.full((400, 1280, 3), 200, np.uint8))
    monkeypatch.setattr(skimage, "__file__", str(tmp_path / "skimage" / "__init__.py"))
    monkeypatch.setattr(demo, "RAINY", ())
    monkeypatch.setattr(demo, "CLEAN", ("wide.png",))
    (path,) = itertools.islice(make_demo(tmp_path / "out"), 1)
    assert path == tmp_path / "out" / "clean" / "wide.png"
    image = decode_image(path)
    assert image.shape == (200, 640, 3)
    assert (image == 200).all()
