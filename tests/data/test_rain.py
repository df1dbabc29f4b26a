"""Banks of rain: found once in a set of photographs, kept whole or made anew, drawn from as from any source."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from rendered import photograph, plain, streaks, write_photographs

from rainoerme_plugin.data import rain as module
from rainoerme_plugin.data.rain import LargeEnough, PlainRain, RainBank, find_plain_rain, spread
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.distillation.plain import Patch, PlainPlaces, find_patches
from rainoerme_plugin.errors import DataError

PLACES = PlainPlaces(roughness=0.4)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 5)
    return FolderSource(folder)


def found(source: FolderSource, cache: Path | None = None, **more: Any) -> PlainRain:
    return find_plain_rain(source, PLACES, 1000, cache, **more)


def alike(one: PlainRain, other: PlainRain) -> bool:
    flat, others = ([patch for patches in each.patches for patch in patches] for each in (one, other))
    same = all(np.array_equal(a.rain, b.rain) and a[1:] == b[1:] for a, b in zip(flat, others, strict=True))
    return same and one.zoom == other.zoom and list(one.names) == list(other.names)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The zooms by which photographs are looked at, from now on."""
    looks: list[float] = []

    def noted(image: Any, places: PlainPlaces, zoom: float) -> list[Patch]:
        looks.append(zoom)
        return find_patches(image, places, zoom)

    monkeypatch.setattr(module, "find_patches", noted)
    return looks


# --- a bank as a source of images ---


def test_squares_are_images_of_their_photographs_names(photographs: FolderSource) -> None:
    rain = found(photographs)
    bank = rain.bank()
    assert len(bank) == rain.count >= 15
    assert rain.having == 5
    first = find_patches(photographs.read(1), PLACES)
    at = list(bank.names).index("2-01.png")
    for place, patch in enumerate(first):
        image = bank.read(at + place)
        assert bank.where(at + place) == f"2-{place + 1:02d}.png"
        assert all(np.array_equal(image[..., colour], patch.rain) for colour in range(3))
        assert np.array_equal(bank.crop(at + place, 3, 5, 20, 30), image[3:23, 5:35])
        assert bank.sizes()[at + place].tolist() == [64, 64]
    decoded = cv2.imdecode(np.frombuffer(bank.encoded(at), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded, bank.read(at))


@pytest.mark.parametrize("side", [10, 64, 65, 128, 200])
def test_small_squares_go_on_mirrored(side: int) -> None:
    square = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    large = np.random.default_rng(1).integers(0, 256, (90, 90)).astype(np.uint8)
    source = LargeEnough(RainBank([square, large], ["a.png", "b.png"]), side)
    assert source.sizes().tolist() == [[max(64, side)] * 2, [max(90, side)] * 2]
    image = source.read(0)
    # Row 64 is row 63 again, row 65 row 62, and so on to row 127, which is row 0; then forwards again.
    order = [row if (row := place % 128) < 64 else 127 - row for place in range(max(64, side))]
    assert np.array_equal(image[..., 0], square[np.ix_(order, order)])
    assert np.array_equal(source.crop(1, 1, 2, 10, 10), source.read(1)[1:11, 2:12])
    assert (source.where(0), len(source), list(source.names)) == ("a.png", 2, ["a.png", "b.png"])


def test_a_set_counts_what_it_has() -> None:
    patch = Patch(np.zeros((4, 4), np.uint8), 0, 0, 0.1, 1.6, 0.01)

    def of(*counts: int) -> PlainRain:
        numbers = range(len(counts))
        return PlainRain([f"{n}.png" for n in numbers], list(numbers), [[patch] * count for count in counts], 1.0)

    assert str(of(0, 0)) == "no plain place with rain in 0 of 2 photographs"
    assert str(of(1)) == "1 plain place with rain in 1 of 1 photograph"
    assert not of(29).is_enough
    assert of(30).is_enough
    assert not of(60, 60, 60, *[0] * 97).is_enough  # as of photographs without rain
    assert of(*[10] * 5, *[0] * 95).is_enough
    assert list(of(3, 7).told()) == [
        "10 plain places with rain in 2 of 2 photographs, up to 7 of one",
        "squares of 4 pixels; zoom 1",
    ]


@pytest.mark.parametrize(
    ("count", "most", "numbers"), [(3, 10, [0, 1, 2]), (10, 3, [0, 4, 9]), (5, 1, [0]), (1, 1, [0]), (1, 24, [0])]
)
def test_some_of_many_are_spread_evenly(count: int, most: int, numbers: list[int]) -> None:
    assert spread(count, most) == numbers


def test_so_many_photographs_are_looked_at(photographs: FolderSource) -> None:
    rain = find_plain_rain(photographs, PLACES, 3)
    assert list(rain.names) == ["1.png", "3.png", "5.png"]
    assert rain.indices == [0, 2, 4]
    assert [len(patches) for patches in rain.patches] == [
        len(find_patches(photographs.read(index), PLACES)) for index in (0, 2, 4)
    ]


def test_of_a_large_set_each_photograph_gives_its_most_evident(
    photographs: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(photographs)
    monkeypatch.setattr(module, "_SQUARES", 10)
    few = found(photographs)
    assert [len(patches) for patches in few.patches] == [2] * 5
    for some, patches in zip(few.patches, whole.patches, strict=True):
        assert [patch.evidence for patch in some] == sorted((patch.evidence for patch in patches), reverse=True)[:2]


def test_large_photographs_are_looked_at_a_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 60)
    assert module._threads(np.array([[400, 600]])) == 64
    assert module._threads(np.array([[400, 600], [4000, 6000]])) == 7
    assert module._threads(np.array([[14000, 14000]])) == 1


# --- how wide the streaks are ---


@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_how_wide_streaks_are_is_found_out(times: int, tmp_path: Path) -> None:
    """Photographs of one size, of which the streaks are so many times as wide: crops of ever larger ones."""
    for number in range(4):
        size = (240, 320)
        rain = streaks(
            size, angle=10 * number, width=2.0 * times, share=0.15, length=12 if times > 2 else 25, seed=number
        )
        Image.fromarray(photograph(plain(size), rain)).save(tmp_path / f"{number}.png")
    # Squares of 16 pixels, so that a photograph of this size holds some in every version.
    places = PlainPlaces(longest=240, patch=16, window=9, sigma=5, lean=60)
    rain = find_plain_rain(FolderSource(tmp_path), places, 1000)
    assert rain.count >= 10
    scale = places.scale(240, 320, rain.zoom)
    assert scale >= times / 2.5
    assert scale <= 3 * times


def test_one_photograph_is_looked_at_as_it_is_unless_another_way_convinces(tmp_path: Path) -> None:
    Image.fromarray(photograph(plain((80, 80)), streaks((80, 80)))).save(tmp_path / "1.png")
    rain = find_plain_rain(FolderSource(tmp_path), PLACES, 1000)
    assert (rain.zoom, rain.count) == (1.0, 1)


def test_photographs_of_several_sizes_agree_on_a_zoom(tmp_path: Path) -> None:
    """Whole ones and smaller copies of the same: a version of each is looked at where streaks are alike."""
    for number, times in enumerate((1, 2, 3, 1, 2, 3)):
        size = (150 * times, 220 * times)
        rain = streaks(size, angle=8 * number, width=2.0 * times, seed=number)
        Image.fromarray(photograph(plain(size), rain)).save(tmp_path / f"{number}.png")
    rain = find_plain_rain(FolderSource(tmp_path), PlainPlaces(longest=220), 1000)
    assert rain.zoom in (0.5, 1.0)
    assert [bool(patches) for patches in rain.patches] == [True] * 6
    sides = [len(patches[0].rain) for patches in rain.patches]
    assert sides[:3] == sides[3:] == sorted(sides[:3])


# --- kept ---


def test_what_is_kept_is_not_looked_for_again(
    photographs: FolderSource, tmp_path: Path, looked_at: list[float]
) -> None:
    once = found(photographs, tmp_path)
    assert sorted(looked_at) == [1.0] * 5 + [8.0] * 5  # of photographs so small all other versions are the first
    looked_at.clear()
    again = found(photographs, tmp_path)
    assert looked_at == []
    assert alike(once, again)
    assert alike(once, found(photographs))


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def _flip_a_bit(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"\xff" * len(data),
        lambda data: data + b"0",
        _flip_a_bit,
        lambda data: (8).to_bytes(8, "little") + b"{}      ",
    ],
    ids=["empty", "half", "one byte short", "other bytes", "one byte more", "a bit", "of nothing"],
)
def test_what_is_damaged_is_made_anew(
    photographs: FolderSource, tmp_path: Path, looked_at: list[float], damage: Any
) -> None:
    once = found(photographs, tmp_path)
    path = max(files(tmp_path), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    looked_at.clear()
    assert alike(once, found(photographs, tmp_path))
    assert len(looked_at) >= 1
    assert path.read_bytes() == whole


def test_other_settings_and_other_images_are_looked_for_anew(tmp_path: Path, looked_at: list[float]) -> None:
    write_photographs(tmp_path / "rainy", 2)
    source, cache = FolderSource(tmp_path / "rainy"), tmp_path / "cache"
    found(source, cache)
    looked_at.clear()
    find_plain_rain(source, PlainPlaces(evidence=1.3), 1000, cache)
    assert looked_at
    Image.fromarray(photograph(plain((160, 200)), streaks((160, 200), seed=9))).save(tmp_path / "rainy" / "2.png")
    looked_at.clear()
    found(FolderSource(tmp_path / "rainy"), cache)
    assert 0 < len(looked_at) <= 4
    (tmp_path / "rainy" / "1.png").rename(tmp_path / "rainy" / "other.png")  # the name does not matter
    looked_at.clear()
    assert "other-01.png" in found(FolderSource(tmp_path / "rainy"), cache).bank().names
    assert looked_at == []


def test_processes_that_share_a_cache_share_the_work(
    photographs: FolderSource, tmp_path: Path, looked_at: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TRIED", 1)
    alone = found(photographs)
    looked_at.clear()
    results: dict[int, PlainRain] = {}

    def work(rank: int) -> None:
        results[rank] = found(photographs, tmp_path, rank=rank, world=3)

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(alike(results[rank], alone) for rank in range(3))
    looked_at.clear()
    assert alike(found(photographs, tmp_path, rank=2, world=3), alone)
    assert looked_at == []


def test_without_a_cache_every_process_looks_at_all(photographs: FolderSource) -> None:
    assert alike(found(photographs, rank=1, world=2), found(photographs))


def test_leftovers_of_killed_processes_go(photographs: FolderSource, tmp_path: Path) -> None:
    import os

    found(photographs, tmp_path)
    folder = files(tmp_path)[0].parent
    old, new = (folder / f".rainoerme-{digit * 32}" for digit in "ab")
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    found(photographs, tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cache_that_cannot_be_written_is_told(
    photographs: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"^cannot keep the rain of .*1\.png: .*: Not a directory"):
        found(photographs, tmp_path / "file")
    monkeypatch.setattr(module, "write_whole", full)
    with pytest.raises(DataError, match=r"^cannot keep the rain of .*\.png: .*\.safetensors: No space left on device$"):
        found(photographs, tmp_path)


def test_a_photograph_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_photographs(tmp_path, 2)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:900])
    with pytest.raises(DataError, match=r"2\.png: damaged image"):
        found(FolderSource(tmp_path))


def test_progress_is_told_in_two_parts(photographs: FolderSource) -> None:
    told = []

    def track(items: Any, total: int, title: str) -> Iterator[Any]:
        made = list(items)
        told.append((title, total, len(made)))
        return iter(made)

    found(photographs, track=track)
    assert [title for title, _, _ in told] == ["how wide are the streaks", "looking for rain in plain places"]
    assert all(total == count for _, total, count in told)
    assert told[1][1] == 5
