"""``basicsr prepare rain``: squares, sheets and counts; and what has no rain, or cannot be used, in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendered import photograph, plain, streaks, write_photographs
from test_commands import refused
from tiny import tiny_data, tiny_options, write_images

from rainoerme_plugin.commands import main
from rainoerme_plugin.data import rain as bank
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.sheets import CELLS, Cell, sheets_of
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.distillation.plain import PlainPlaces, find_patches


@pytest.fixture(scope="module")
def rainy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs") / "rainy"
    write_photographs(folder, 5)
    return folder


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_every_square_is_a_file_and_has_its_place_on_a_sheet(
    rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "look"
    assert main(["prepare", "rain", str(rainy), "-o", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    expected = {
        f"{name[:-4]}-{number:02d}.png": (patch, index)
        for index, name in enumerate(FolderSource(rainy).names)
        for number, patch in enumerate(find_patches(FolderSource(rainy).read(index), PlainPlaces()), 1)
    }
    most = max(int(name[2:4]) for name in expected)
    assert said[0] == f"{len(expected)} plain places with rain in 5 of 5 photographs, up to {most} of one"
    assert said[1] == "squares of 64 pixels; zoom 1"
    assert said[2].startswith(f"look at {out / 'sheet-1.png'}, the most evident come first;")
    assert sorted(path.name for path in (out / "squares").iterdir()) == sorted(expected)
    for name, (patch, _) in expected.items():
        assert np.array_equal(pixels(out / "squares" / name), patch.rain)
    # The sheet: nine cells a row, the photograph's square left and its rain right.
    sheet = pixels(out / "sheet-1.png")
    assert sheet.shape == (97 * -(-len(expected) // 9), 9 * 168, 3)
    order = sorted(expected.values(), key=lambda value: -value[0].evidence)
    for place, (patch, index) in enumerate(order):
        top, left = place // 9 * 97 + 2, place % 9 * 168 + 4
        square = FolderSource(rainy).read(index)[patch.top : patch.top + 64, patch.left : patch.left + 64]
        seen = np.asarray(Image.fromarray(square).resize((80, 80), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(sheet[top : top + 80, left : left + 80] - seen).mean() < 2
        shown = sheet[top : top + 80, left + 80 : left + 160, 0]
        small = np.asarray(Image.fromarray(shown).resize((64, 64), Image.Resampling.BOX)).astype(float)
        assert np.corrcoef(small.ravel(), patch.rain.ravel().astype(float))[0, 1] > 0.95
        assert shown.max() == 255
        assert (sheet[top + 80 : top + 93, left : left + 160] < 128).any(), "no name"


def test_squares_that_are_left_are_a_folder_of_rain(rainy: Path, tmp_path: Path) -> None:
    """What the command finds is what ``type: plain`` trains with; what a user deletes is gone."""
    from rainoerme_plugin.registered.datasets import UnpairedRainDataset

    out = tmp_path / "look"
    assert main(["prepare", "rain", str(rainy), "-o", str(out)]) == 0
    write_images(tmp_path / "clean", 2, size=(160, 160))
    common = {"dataroot_rainy": str(rainy), "dataroot_clean": str(tmp_path / "clean"), "label": {"type": "opening"}}
    plain_, folder = (
        UnpairedRainDataset(**common, crop_size=96, rain=rain)
        for rain in ({"type": "plain"}, {"type": "folder", "path": str(out / "squares")})
    )
    assert plain_.rain is not None
    assert folder.rain is not None
    assert [Path(folder.rain.where(n)).name for n in range(len(folder.rain))] == list(plain_.rain.names)
    for position in range(12):
        assert np.array_equal(plain_[position]["rain"], folder[position]["rain"])
    (out / "squares" / "1-01.png").unlink()
    fewer = UnpairedRainDataset(**common, crop_size=96, rain={"type": "folder", "path": str(out / "squares")})
    assert fewer.rain is not None
    assert len(fewer.rain) == len(folder.rain) - 1


def test_sheets_hold_so_many_and_the_last_the_rest() -> None:
    cell = Cell("a" * 60, np.zeros((80, 160, 3), np.uint8), 1.6)
    sheets = list(sheets_of([cell] * (CELLS + 2)))
    assert [sheet.shape for sheet in sheets] == [(97 * 11, 168 * 9, 3), (97, 168 * 2, 3)]
    assert list(sheets_of([])) == []


def test_what_is_kept_serves_training_and_the_next_look(
    rainy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["prepare", "rain", str(rainy), "--cache", str(tmp_path / "kept"), "-o"]
    assert main([*arguments, str(tmp_path / "one")]) == 0
    monkeypatch.setattr(bank, "find_patches", None)  # would fail
    assert main([*arguments, str(tmp_path / "two")]) == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert main([*arguments[:3], f"cache={tmp_path / 'kept'}", "-o", str(tmp_path / "three")]) == 0
    assert files(tmp_path / "one") == files(tmp_path / "three")


def test_settings_are_those_of_training(rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["patch=32", "most=2", "photographs=3", "lean=90"]
    assert main(["prepare", "rain", str(rainy), *settings, "-o", str(tmp_path / "look")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("6 plain places with rain in 3 of 3 photographs, up to 2 of one\nsquares of 32 pixels")
    assert said.err.startswith(
        "too few for a bank (30 squares are needed, from 5% of the photographs); try evidence=1.35"
    )


def test_names_of_an_lmdb_and_of_files_that_differ_in_their_kind_stay_apart(rainy: Path, tmp_path: Path) -> None:
    image = (rainy / "1.png").read_bytes()
    names = ["a/b.png", "a_b.png", "c.png"]
    list(write_lmdb(tmp_path / "rainy.lmdb", ((name, image) for name in names), 1 << 24))
    assert main(["prepare", "rain", str(tmp_path / "rainy.lmdb"), "-o", str(tmp_path / "look")]) == 0
    squares = [path.name for path in (tmp_path / "look" / "squares").iterdir()]
    each = len(find_patches(FolderSource(rainy).read(0), PlainPlaces()))
    assert len(squares) == 3 * each
    assert len({name.rpartition("-")[0] for name in squares}) == 3


# --- what has no rain ---


def test_without_plain_places_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for number in range(3):
        (tmp_path / "rainy").mkdir(exist_ok=True)
        noise = random.integers(0, 256, (120, 120, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "rainy" / f"{number}.png")
    line = refused(capsys, "prepare", "rain", tmp_path / "rainy", "-o", tmp_path / "look")
    assert "rainy: no plain place with rain in 0 of 3 photographs; try evidence=1.35" in line
    assert not (tmp_path / "look").exists()


def test_clean_images_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clean").mkdir()
    for number in range(3):
        clean = photograph(plain((150, 150)), np.zeros((150, 150), np.float32))
        Image.fromarray(clean).save(tmp_path / "clean" / f"{number}.png")
    line = refused(capsys, "prepare", "rain", tmp_path / "clean", "-o", tmp_path / "look")
    assert "no plain place with rain in 0 of 3 photographs" in line


def test_one_image_and_images_smaller_than_a_square(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "small", 2, size=(40, 60), prefix="rain")
    line = refused(capsys, "prepare", "rain", tmp_path / "small", "-o", tmp_path / "look")
    assert "no plain place with rain in 0 of 2 photographs" in line
    (tmp_path / "one").mkdir()
    Image.fromarray(photograph(plain((200, 260)), streaks((200, 260)))).save(tmp_path / "one" / "only.png")
    assert main(["prepare", "rain", str(tmp_path / "one"), "-o", str(tmp_path / "look")]) == 0
    said = capsys.readouterr()
    assert "plain places with rain in 1 of 1 photograph, up to " in said.out
    assert "too few for a bank (30 squares are needed" in said.err
    assert (tmp_path / "look" / "sheet-1.png").exists()


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["evidence=-1"], "rain: evidence must be from 0 to 1.8, got -1"),
        (["lean=0"], "rain: lean must be above 0 and up to 90"),
        (["patch=8"], "rain: patch must be at least 16 and at most longest, got 8 and 900"),
        (["patch=2000"], "rain.patch: should be less than or equal to 1024"),
        (["sigma=100.0"], "rain: sigma must be above 0 and up to 64"),
        (["window=12"], "rain: window must be odd"),
        (["tolerance=.nan"], "rain.tolerance: should be a finite number"),
        (["most=0"], "rain.most: should be greater than or equal to 1"),
        (["evidense=1"], "rain.evidense: unknown key; did you mean 'evidence'?"),
        (["evidence"], "'evidence': expected KEY=VALUE, such as evidence=1.35"),
        (["type=folder", "path=x"], "rain: 'type: folder' names rain that is found already"),
        (["type=opening"], "rain.type: should be 'plain' or 'folder'"),
        (["path=x"], "rain.path: is for 'type: folder'"),
    ],
)
def test_wrong_settings_are_one_line(
    rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    line = refused(capsys, "prepare", "rain", rainy, *settings, "-o", tmp_path / "look")
    assert message in line
    assert not (tmp_path / "look").exists()


def test_no_folder_with_something_in_it_is_written_to(
    rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(rainy)
    line = refused(capsys, "prepare", "rain", rainy, "-o", rainy)
    assert f"-o {rainy}: the folder is not empty, it holds 1.png; name a new one, or remove it" in line
    (tmp_path / "link").symlink_to(rainy)
    assert "is not empty" in refused(capsys, "prepare", "rain", rainy, "-o", tmp_path / "link")
    assert "is not empty" in refused(capsys, "prepare", "rain", rainy, "-o", rainy.parent)
    assert files(rainy) == before
    (tmp_path / "empty").mkdir()
    assert main(["prepare", "rain", str(rainy), "-o", str(tmp_path / "empty")]) == 0
    assert "is not empty" in refused(capsys, "prepare", "rain", rainy, "-o", tmp_path / "empty")  # nor twice
    (tmp_path / "file").touch()
    line = refused(capsys, "prepare", "rain", rainy, "-o", tmp_path / "file")
    assert "cannot keep the rain that was found: " in line
    assert "Not a directory" in line


def test_a_missing_folder_an_empty_one_and_a_broken_photograph_are_named(
    rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "look"
    assert "no such folder" in refused(capsys, "prepare", "rain", tmp_path / "nowhere", "-o", out)
    (tmp_path / "some").mkdir()
    assert "no images (" in refused(capsys, "prepare", "rain", tmp_path / "some", "-o", out)
    data = (rainy / "1.png").read_bytes()
    (tmp_path / "some" / "1.png").write_bytes(data)
    (tmp_path / "some" / "2.png").write_bytes(data[:2000])
    assert "2.png: damaged image" in refused(capsys, "prepare", "rain", tmp_path / "some", "-o", out)
    (tmp_path / "some" / "2.png").write_bytes(b"no image")
    assert "2.png: not an image" in refused(capsys, "prepare", "rain", tmp_path / "some", "-o", out)
    assert not out.exists()


def test_a_full_disk_is_one_line(
    rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    arguments = ["prepare", "rain", rainy, "--cache", tmp_path / "kept", "-o", tmp_path / "look"]
    with monkeypatch.context() as patch:
        patch.setattr(bank, "write_whole", full)
        line = refused(capsys, *arguments)
        assert "cannot keep the rain of " in line
        assert line.endswith("No space left on device")
    monkeypatch.setattr("rainoerme_plugin.files.write_whole", full)
    line = refused(capsys, *arguments)
    assert "cannot keep the rain that was found: " in line
    assert line.endswith("No space left on device")


# --- in training ---


def trained(root: Path, capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    """What a run of two iterations says, or the line that refuses it."""
    options = tiny_options(root, train__total_iter=2, val__val_freq=2, **changes)
    status = main(["train", "-opt", str(options), "--root", str(root), "--device", "cpu"])
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if ": error: " in line]
    assert (status, len(errors)) in ((0, 0), (2, 1))
    logs = "".join(path.read_text() for path in (root / "experiments" / "tiny").glob("*.log"))
    return errors[0] if status else logs + said


BANK = "train__distillation"
PLAIN = {"type": "plain"}


def test_too_few_places_are_told_and_training_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_data(tmp_path)  # images that are smaller than a square
    changes = {BANK: {"warmup": 1, "rain": {"bank": 1}}, "datasets__train__rain": PLAIN}
    said = trained(tmp_path, capsys, **changes)
    assert "datasets.train.rain: no plain place with rain in 0 of 3 photographs, too few for a bank (30 squares" in said
    assert "training goes on with the rain that the network itself finds" in said
    assert "l_soft: " in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {BANK: {"rain": {"bank": 0.5}}},
            "train.distillation.rain.bank: 0.5 of the clean images should get rain of a bank, but datasets.train.rain",
        ),
        ({"datasets__train__rain": PLAIN}, "datasets.train.rain: nothing uses it; say in train.distillation.rain.bank"),
        (
            {BANK: {"rain": {"bank": 1, "blend": "alpha"}}, "datasets__train__rain": PLAIN},
            "train.distillation: blend: alpha asks what lies behind the rain",
        ),
        ({BANK: {"rain": {"bank": 2}}, "datasets__train__rain": PLAIN}, "bank must be from 0 to 1, got 2"),
        (
            {BANK: {"rain": {"bank": 1}}, "datasets__train__rain": {"type": "plain", "evidence": -1}},
            "datasets.train.rain: evidence must be from 0 to 1.8, got -1",
        ),
        (
            {BANK: {"rain": {"bank": 1}}, "datasets__train__rain": {"type": "folder"}},
            "datasets.train.rain: 'type: folder' needs path: and nothing else, got nothing",
        ),
        (
            {BANK: {"rain": {"bank": 1}}, "datasets__train__rain": {"type": "folder", "path": "nowhere"}},
            "datasets.train.rain: no such folder: nowhere",
        ),
    ],
    ids=str,
)
def test_a_bank_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    assert message in trained(tiny_data(tmp_path), capsys, **changes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "datasets.train.rain: no images ("),
        ("a.txt", b"text", "datasets.train.rain: no images ("),
        ("a.png", b"text", "a.png: not an image"),
        ("a.png", b"", "a.png: not an image"),
    ],
)
def test_a_folder_of_no_rain_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str | None, content: bytes, message: str
) -> None:
    (tmp_path / "bank").mkdir()
    if name:
        (tmp_path / "bank" / name).write_bytes(content)
    rain = {"type": "folder", "path": str(tmp_path / "bank")}
    changes = {BANK: {"rain": {"bank": 1}}, "datasets__train__rain": rain}
    assert message in trained(tiny_data(tmp_path), capsys, **changes)


def test_what_is_left_alone_in_a_folder_of_rain_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "bank", 3, size=(20, 20))
    (tmp_path / "bank" / "notes.txt").touch()
    rain = {"type": "folder", "path": str(tmp_path / "bank")}
    said = trained(tiny_data(tmp_path), capsys, **{BANK: {"rain": {"bank": 1}}, "datasets__train__rain": rain})
    assert f"datasets.train.rain: {tmp_path / 'bank'}: left alone: 1 other file (.txt)" in said
