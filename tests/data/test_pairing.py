"""Pairs of rainy and clean images, in every layout that data sets come in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rainoerme_plugin.data.pairing import Layout, Pair, find_pairs, match_folders
from rainoerme_plugin.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def pairs(root: Path, found: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.rainy.relative_to(root).as_posix(), pair.clean.relative_to(root).as_posix()) for pair in found]


DDN_RAINY = [f"rainy_image/{scene}_{number}.jpg" for scene in (1, 2, 10) for number in range(1, 15)]

LAYOUTS = {
    "Rain100 of PReNet": (
        ["norain-001.png", "norain-002.png", "rainy/rain-001.png", "rainy/rain-002.png", "notes.txt"],
        "rain-N to norain-N",
        [("rainy/rain-001.png", "norain-001.png"), ("rainy/rain-002.png", "norain-002.png")],
    ),
    "Rain100 in a folder rain": (
        ["norain-001.png", "rain/rain-001.png"],
        "rain-N to norain-N",
        [("rain/rain-001.png", "norain-001.png")],
    ),
    "RainTrainL": (
        [f"{kind}-{number}.png" for kind in ("rain", "norain", "rainstreak", "rainregion") for number in (1, 2, 10)],
        "rain-N to norain-N",
        [("rain-1.png", "norain-1.png"), ("rain-10.png", "norain-10.png"), ("rain-2.png", "norain-2.png")],
    ),
    "RainTrainL without hyphens": (["rain1.png", "norain1.png"], "rain-N to norain-N", [("rain1.png", "norain1.png")]),
    "Rain100 of RCDNet": (
        ["rain/norain-1.png", "rain/norain-2.png", "norain/norain-1.png", "norain/norain-2.png"],
        "same name",
        [("rain/norain-1.png", "norain/norain-1.png"), ("rain/norain-2.png", "norain/norain-2.png")],
    ),
    "Rain200, original": (
        ["rain/X2/norain-1x2.png", "rain/X2/norain-12x2.png", "norain/norain-1.png", "norain/norain-12.png"],
        "norain-Nx2 to norain-N",
        [("rain/X2/norain-12x2.png", "norain/norain-12.png"), ("rain/X2/norain-1x2.png", "norain/norain-1.png")],
    ),
    "Rain200 with rain in the names": (
        ["rain/X2/rain-1x2.png", "norain/norain-1.png"],
        "rain-Nx2 to norain-N",
        [("rain/X2/rain-1x2.png", "norain/norain-1.png")],
    ),
    "Rain13K": (
        ["input/1.png", "input/2.png", "target/1.png", "target/2.png", "target/3.png"],
        "same name",
        [("input/1.png", "target/1.png"), ("input/2.png", "target/2.png")],
    ),
    "Rain13K, targets": (["input/1.jpg", "targets/1.png"], "same name", [("input/1.jpg", "targets/1.png")]),
    "DDN": (
        [*DDN_RAINY, "ground_truth/1.jpg", "ground_truth/2.jpg", "ground_truth/10.jpg"],
        "N_1 ... N_14 to N",
        [
            (name, f"ground_truth/{scene}.jpg")
            for scene, name in sorted(
                ((name.split("/")[1].split("_")[0], name) for name in DDN_RAINY), key=lambda pair: pair[1]
            )
        ],
    ),
    "DDN with other words in the names": (
        ["rainy_image/old_town_3.jpg", "ground_truth/old_town.jpg"],
        "N_1 ... N_14 to N",
        [("rainy_image/old_town_3.jpg", "ground_truth/old_town.jpg")],
    ),
    "Outdoor-Rain": (
        [
            "in/im_0001_s80_a04.png",
            "in/im_0001_s85_a05.png",
            "in/im_0002_s80_a04.png",
            "gt/im_0001.png",
            "gt/im_0002.png",
        ],
        "N_s80_a04 to N",
        [
            ("in/im_0001_s80_a04.png", "gt/im_0001.png"),
            ("in/im_0001_s85_a05.png", "gt/im_0001.png"),
            ("in/im_0002_s80_a04.png", "gt/im_0002.png"),
        ],
    ),
    "RainDrop": (["data/0_rain.png", "gt/0_clean.png"], "N_rain to N_clean", [("data/0_rain.png", "gt/0_clean.png")]),
    "RainDrop in one folder": (["0_rain.png", "0_clean.png"], "N_rain to N_clean", [("0_rain.png", "0_clean.png")]),
    "SIRR": (
        ["input_val/input1.png", "label_val/norain1.png", "input_val/input10.png", "label_val/norain10.png"],
        "inputN to norainN",
        [("input_val/input1.png", "label_val/norain1.png"), ("input_val/input10.png", "label_val/norain10.png")],
    ),
    "SIRR in one folder": (["input1.png", "norain1.png"], "inputN to norainN", [("input1.png", "norain1.png")]),
    "Rain12": (["001_in.png", "001_GT.png"], "N_in to N_GT", [("001_in.png", "001_GT.png")]),
    "NTURain": (["a1_Rain/0.jpg", "a1_GT/0.jpg", "notes.txt"], "same name", [("a1_Rain/0.jpg", "a1_GT/0.jpg")]),
    "validation folders": (
        ["rain_val/1.png", "norain_val/1.png"],
        "same name",
        [("rain_val/1.png", "norain_val/1.png")],
    ),
    "capital letters": (["Rain/1.PNG", "NoRain/1.png"], "same name", [("Rain/1.PNG", "NoRain/1.png")]),
    "capital LQ and GT": (["LQ/a.png", "GT/a.png"], "same name", [("LQ/a.png", "GT/a.png")]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_known_layout_is_paired_by_its_rule(tmp_path: Path, name: str) -> None:
    files, rule, expected = LAYOUTS[name]
    touch(tmp_path, *files)
    found = find_pairs(str(tmp_path))
    assert found.rule == rule
    assert pairs(tmp_path, list(found.pairs)) == expected


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [
        ("rain", "norain"),
        ("rainy", "norain"),
        ("input", "target"),
        ("input", "targets"),
        ("rainy_image", "ground_truth"),
        ("lq", "gt"),
        ("data", "label"),
        ("rainysamples", "cleansamples"),
        ("rainy", "clean"),
    ],
)
def test_folders_of_known_names_are_rainy_and_clean(tmp_path: Path, rainy: str, clean: str) -> None:
    touch(tmp_path, f"{rainy}/7.png", f"{clean}/7.jpg", "other/7.png", "readme.txt")
    assert pairs(tmp_path, list(find_pairs(tmp_path).pairs)) == [(f"{rainy}/7.png", f"{clean}/7.jpg")]


@pytest.mark.parametrize(
    ("rainy", "clean", "rule", "expected"),
    [
        # Both the name itself and what a rule makes of it are there: the name itself counts.
        (["rain-1.png"], ["rain-1.png", "norain-1.png"], "same name", ["rain-1.png"]),
        (["1_1.png", "1_2.png"], ["1.png", "1_1.png", "1_2.png"], "same name", ["1_1.png", "1_2.png"]),
        (["ax2.png"], ["a.png", "ax2.png"], "same name", ["ax2.png"]),
        # One rule for all images: 'same name' would fit only the first.
        (["1_1.png", "1_2.png"], ["1.png", "1_1.png"], "N_1 ... N_14 to N", ["1.png", "1.png"]),
        # 'rain' is replaced at the start of a name and nowhere else.
        (["rain-rain-1.png"], ["norain-rain-1.png"], "rain-N to norain-N", ["norain-rain-1.png"]),
        (["a_10.png", "a_2.png"], ["a.png"], "N_1 ... N_14 to N", ["a.png", "a.png"]),
    ],
)
def test_ambiguous_names_are_read_the_plainest_way(
    tmp_path: Path, rainy: list[str], clean: list[str], rule: str, expected: list[str]
) -> None:
    touch(tmp_path, *(f"r/{name}" for name in rainy), *(f"c/{name}" for name in clean))
    found = match_folders(tmp_path / "r", str(tmp_path / "c"))
    assert found.rule == rule
    wanted = [(f"r/{name}", f"c/{other}") for name, other in zip(rainy, expected, strict=True)]
    assert pairs(tmp_path, list(found.pairs)) == wanted


def test_rainy_images_beside_the_folder_x2_come_first(tmp_path: Path) -> None:
    touch(tmp_path, "rain/1.png", "rain/X2/2x2.png", "norain/1.png", "norain/2.png")
    assert pairs(tmp_path, list(find_pairs(tmp_path).pairs)) == [("rain/1.png", "norain/1.png")]


def test_a_rainy_image_without_its_clean_one_is_named_with_the_rule_that_fits_best(tmp_path: Path) -> None:
    touch(tmp_path, "rainy/rain-1.png", "rainy/rain-2.png", "rainy/rain-3.png", "norain-1.png", "norain-3.png")
    message = (
        "rainy: 1 of 3 rainy images have no clean version by the rule 'rain-N to norain-N', which fits best; "
        "the first is rain-2.png"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        find_pairs(tmp_path)


def test_names_that_fit_no_rule_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "rain/a.png", "rain/b.png", "norain/c.png")
    with pytest.raises(DataError, match=r"rain: 2 of 2 rainy images have no clean version .* the first is a\.png"):
        find_pairs(tmp_path)


def test_an_unknown_layout_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    touch(tmp_path, "wet/1.png", "dry/1.png", "norain-1.png")
    with pytest.raises(
        DataError, match=r"no pairs found\. Known layouts: rain/\+norain/.*; a list file; layout: halves"
    ):
        find_pairs(tmp_path)


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (["input/1.png", "gt/1.png", "target/1.png"], ["input/+gt/", "input/+target/"]),
        (["rainstreak/1.png", "raindrop/1.png", "gt/1.png"], ["raindrop/+gt/", "rainstreak/+gt/"]),
        (["a1_Rain/1.png", "a1_GT/1.png", "b1_Rain/1.png", "b1_GT/1.png"], ["a1_Rain/+a1_GT/", "b1_Rain/+b1_GT/"]),
        (["input_val/1.png", "label_val/1.png", "input_train/1.png", "label_train/1.png"], ["input_val/+label_val/"]),
        (["rain-1.png", "norain-1.png", "rainy/rain-1.png"], ["norain-N beside rainy/", "rain-N and norain-N in one"]),
        (["rain1.png", "input1.png", "norain1.png"], ["rain-N and norain-N in one", "inputN and norainN in one"]),
        (["Rain/1.png", "rain/1.png", "norain/1.png"], ["Rain/+norain/", "rain/+norain/"]),
    ],
)
def test_a_folder_that_fits_two_layouts_says_so_and_how_to_choose(
    tmp_path: Path, names: list[str], seen: list[str]
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(
        DataError, match=r"fits 2 layouts: .*dataroot_lq and dataroot_gt, .*--pairs.* list file"
    ) as caught:
        find_pairs(tmp_path)
    assert all(each in str(caught.value) for each in seen)


def test_names_that_belong_together_go_before_others(tmp_path: Path) -> None:
    touch(tmp_path, "rain/1.png", "norain/1.png", "input/2.png")
    assert pairs(tmp_path, list(find_pairs(tmp_path).pairs)) == [("rain/1.png", "norain/1.png")]
    touch(tmp_path, "other/lq/1.png", "other/clean/1.png")
    assert pairs(tmp_path, list(find_pairs(tmp_path / "other").pairs)) == [("other/lq/1.png", "other/clean/1.png")]


def test_folders_of_two_affixes_are_no_pair(tmp_path: Path) -> None:
    touch(tmp_path, "input_train/1.png", "label_val/1.png")
    with pytest.raises(DataError, match=r"no pairs found.*It holds folders: input_train/, label_val/; images: 0"):
        find_pairs(tmp_path)


def test_two_rules_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "rain/rain-1x2.png", "norain/norain-1.png", "norain/norain-1x2.png")
    with pytest.raises(DataError, match=r"fits two rules, 'rain-N to norain-N' and 'rain-Nx2 to norain-N'.*list file"):
        find_pairs(tmp_path)


def test_what_a_folder_without_pairs_holds_is_told_and_the_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "wet/1.png", "dry/1.png", "a.png", "b.jpg", "c.png")
    words = r"It holds folders: dry/, wet/; images: 3 \(a\.png, b\.jpg, \.\.\.\)\. .* give both folders .*list file"
    with pytest.raises(DataError, match=words):
        find_pairs(tmp_path)
    touch(tmp_path, "rain/a.png", "norain/c.png")
    with pytest.raises(DataError, match=r"the first is a\.png\. The first clean image is c\.png; name .*list file"):
        find_pairs(tmp_path)


def test_two_clean_versions_of_one_image_are_refused_with_both_names(tmp_path: Path) -> None:
    touch(tmp_path, "rain/1.png", "norain/1.jpg", "norain/1.png")
    with pytest.raises(DataError, match=r"1\.png has two clean versions, .*norain/1\.jpg and 1\.png; remove one"):
        find_pairs(tmp_path)
    touch(tmp_path, "rainy/2_7.png", "clean/2.jpg", "clean/2.png")
    with pytest.raises(DataError, match=r"2_7\.png has two clean versions, .*clean/2\.jpg and 2\.png"):
        match_folders(tmp_path / "rainy", tmp_path / "clean")


def test_two_clean_images_that_nothing_asks_for_are_extra_ones(tmp_path: Path) -> None:
    touch(tmp_path, "rain/1.png", "norain/1.png", "norain/2.jpg", "norain/2.png")
    assert find_pairs(tmp_path).notes == (
        f"{tmp_path / 'norain'}: in no pair: 2 images, the first 2.jpg, without a rainy one",
    )


def test_what_is_in_no_pair_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "rain/1.png", "rain/photo.HEIC", "rain/notes", "norain/1.png", "norain/3.png", "norain/old/1.png")
    assert find_pairs(tmp_path).notes == (
        f"{tmp_path / 'rain'}: left alone: 2 other files (without a suffix, .heic)",
        f"{tmp_path / 'norain'}: left alone: 1 folder (old)",
        f"{tmp_path / 'norain'}: in no pair: 3.png without a rainy one",
    )
    assert find_pairs(bare_layout(tmp_path / "other")).notes == ()


def bare_layout(root: Path) -> Path:
    touch(root, "norain-1.png", "rainy/rain-1.png")
    return root


def test_maps_of_streaks_beside_the_pairs_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}-1.png" for kind in ("rain", "norain", "rainstreak", "rainregion")))
    assert find_pairs(tmp_path).notes == (
        f"{tmp_path}: left alone: 2 images, the first rainregion-1.png, of other names",
    )


def test_one_folder_is_not_both_rainy_and_clean(tmp_path: Path) -> None:
    touch(tmp_path, "r/1.png")
    with pytest.raises(DataError, match="named for the rainy and for the clean images"):
        match_folders(tmp_path / "r", tmp_path / "r" / ".." / "r")


def test_results_beside_the_halves_that_they_were_made_of_are_no_pairs(tmp_path: Path) -> None:
    for number in (1, 2):
        Image.new("RGB", (12, 4)).save(tmp_path / f"{number}.jpg")
        for made in ("rain", "derain"):
            Image.new("RGB", (6, 4)).save(tmp_path / f"{number}.jpg_{made}.png")
    found = find_pairs(tmp_path, "halves-rainy-clean")
    assert [pair.rainy.name for pair in found.pairs] == ["1.jpg", "2.jpg"]
    assert found.notes == (f"{tmp_path}: left alone: 4 images, the first 1.jpg_derain.png, named after another image",)
    with pytest.raises(DataError, match=r"no pairs found.*1\.jpg, 1\.jpg_derain\.png"):
        find_pairs(tmp_path)


def test_clean_images_alone_are_no_pairs(tmp_path: Path) -> None:
    touch(tmp_path, "norain-1.png", "rainstreak-1.png", "rainregion-1.png")
    with pytest.raises(DataError, match="no pairs found"):
        find_pairs(tmp_path)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder or list file: .*nowhere \(looked from "):
        find_pairs(tmp_path / "nowhere")


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "r/1.png", "empty/notes.txt")
    with pytest.raises(DataError, match=r"no such folder: .*gone"):
        match_folders(tmp_path / "r", tmp_path / "gone")
    with pytest.raises(DataError, match=r"no such folder: .*gone"):
        match_folders(tmp_path / "gone", tmp_path / "r")
    with pytest.raises(DataError, match=r"no images .* in .*empty"):
        match_folders(tmp_path / "r", tmp_path / "empty")
    with pytest.raises(DataError, match=r"no images .* in .*empty"):
        match_folders(tmp_path / "empty", tmp_path / "r")


# --- list files ---


def test_a_list_file_names_a_rainy_and_a_clean_path_a_line(tmp_path: Path) -> None:
    touch(tmp_path, "real/rain/2.png", "real/rain/1.png", "real/gt/x.png")
    (tmp_path / "real_test.txt").write_text(
        "/real/rain/2.png /real/gt/x.png\n\n  real/rain/1.png\treal/gt/x.png  \n   \n", encoding="utf-8"
    )
    found = find_pairs(tmp_path / "real_test.txt")
    assert found.rule == "list file"
    assert pairs(tmp_path.resolve(), list(found.pairs)) == [
        ("real/rain/2.png", "real/gt/x.png"),
        ("real/rain/1.png", "real/gt/x.png"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r.png", "expected 'rainy_path clean_path', got 'r.png'"),
        ("r.png c.png 3", "expected 'rainy_path clean_path', got 'r.png c.png 3'"),
        ("r.png ../outside.png", "../outside.png lies outside"),
        ("/../outside.png c.png", "/../outside.png lies outside"),
        ("r.png gone.png", "no such file: "),
        ("folder c.png", "no such file: "),
    ],
)
def test_a_line_that_names_no_pair_is_refused_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    root = tmp_path / "set"
    touch(root, "r.png", "c.png", "../outside.png", "folder/x.png")
    (root / "list.txt").write_text(f"r.png c.png\n\n{line}\n")
    with pytest.raises(DataError, match=rf"list\.txt, line 3: {re.escape(message)}"):
        find_pairs(root / "list.txt")


def test_a_missing_file_of_a_list_is_named_in_full(tmp_path: Path) -> None:
    touch(tmp_path, "r.png")
    (tmp_path / "list.txt").write_text("r.png sub/gone.png")
    with pytest.raises(DataError, match=re.escape(str(tmp_path.resolve() / "sub" / "gone.png"))):
        find_pairs(tmp_path / "list.txt")


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"list\.txt: lists no pairs"):
        find_pairs(tmp_path / "list.txt")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")
    with pytest.raises(DataError, match=r"image\.png: cannot be read as a list of pairs"):
        find_pairs(tmp_path / "image.png")


# --- pixels ---


def test_a_pair_reads_the_rainy_image_first(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "r.png")
    Image.new("RGB", (6, 4), (7, 8, 9)).save(tmp_path / "c.png")
    rainy, clean = Pair(tmp_path / "r.png", tmp_path / "c.png").read()
    assert rainy.shape == clean.shape == (4, 6, 3)
    assert (rainy == (1, 2, 3)).all()
    assert (clean == (7, 8, 9)).all()


def test_a_pair_of_two_sizes_is_refused_with_both(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "r.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"r\.png is 6x4 pixels, its clean version .*c\.png 4x6; a pair needs one size"):
        Pair(tmp_path / "r.png", tmp_path / "c.png").read()


@pytest.mark.parametrize("layout", ["halves-rainy-clean", "halves-clean-rainy"])
def test_halves_of_one_picture_come_in_the_order_that_is_said(tmp_path: Path, layout: Layout) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    for name in ("2.png", "1.png"):
        Image.fromarray(whole).save(tmp_path / name)
    found = find_pairs(tmp_path, layout)
    assert found.rule == layout
    assert [pair.rainy.name for pair in found.pairs] == ["1.png", "2.png"]
    rainy, clean = found.pairs[0].read()
    halves = (whole[:, :4], whole[:, 4:])
    expected = halves if layout == "halves-rainy-clean" else halves[::-1]
    assert np.array_equal(rainy, expected[0])
    assert np.array_equal(clean, expected[1])


def test_a_picture_of_odd_width_has_no_halves(tmp_path: Path) -> None:
    Image.new("RGB", (7, 4)).save(tmp_path / "odd.png")
    found = find_pairs(tmp_path, "halves-rainy-clean")
    with pytest.raises(DataError, match=r"odd\.png: 7 pixels wide, so it has no two halves of one size"):
        found.pairs[0].read()


def test_halves_of_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        find_pairs(tmp_path, "halves-clean-rainy")


# --- real data ---


@pytest.mark.parametrize(("part", "count"), [("Rain100L/test", 100), ("Rain200H/test", 20), ("SPA", 2)])
def test_real_test_sets_are_found(rainoerme_data: Path, part: str, count: int) -> None:
    found = find_pairs(rainoerme_data / part)
    assert found.rule == "same name"
    assert len(found.pairs) == count
    rainy, clean = found.pairs[0].read()
    # Rain is light: a rainy image is brighter than its own clean version, and not by much.
    difference = rainy.astype(float) - clean
    assert 0 < np.abs(difference).mean() < 60


def test_the_encoded_bytes_are_those_of_both_files_or_of_the_one_picture(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"rainy")
    (tmp_path / "b").write_bytes(b"clean")
    assert list(Pair(tmp_path / "a", tmp_path / "b").encoded()) == [b"rainy", b"clean"]
    assert list(Pair(tmp_path / "a", tmp_path / "a", "halves-rainy-clean").encoded()) == [b"rainy"]
    with pytest.raises(DataError, match="gone: no such file"):
        list(Pair(tmp_path / "a", tmp_path / "gone").encoded())
