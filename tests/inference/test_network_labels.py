"""Soft labels by a network: flips undone, values rounded, and the command that writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from changing import changed_code
from PIL import Image
from tiny import write_images, write_network
from torch import Tensor

from rainoerme_plugin.commands import main
from rainoerme_plugin.data.labels import SoftLabels, ready_labels
from rainoerme_plugin.data.sources import FolderSource
from rainoerme_plugin.distillation.adaptive import separation_cost
from rainoerme_plugin.distillation.filters import MedianFilter, OpeningFilter
from rainoerme_plugin.inference.derainer import load_derainer
from rainoerme_plugin.inference.labels import NetworkLabels, mean_of_flips
from rainoerme_plugin.inference.opening import open_network


def slanted(batch: Tensor) -> Tensor:
    """Darkens to the right and downwards, wherever the image is: no flip of it commutes with one."""
    height, width = batch.shape[-2:]
    return batch * (torch.linspace(1, 0.5, width) * torch.linspace(1, 0.25, height)[:, None])


def test_flips_are_undone_before_the_mean() -> None:
    rainy = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    across, down = np.linspace(1, 0.5, 7), np.linspace(1, 0.25, 5)
    ramp = np.outer((down + down[::-1]) / 2, (across + across[::-1]) / 2)
    np.testing.assert_allclose(mean_of_flips(slanted, rainy).numpy(), rainy.numpy() * ramp, atol=1e-6)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("flips", [False, True])
def test_labels_are_rounded_to_the_images_depth(depth: type[np.uint8 | np.uint16], flips: bool) -> None:
    white = np.iinfo(depth).max
    image = np.random.default_rng(0).integers(0, white, (6, 8, 3)).astype(depth)
    across, down = np.linspace(1, 0.5, 8), np.linspace(1, 0.25, 6)
    if flips:
        across, down = (across + across[::-1]) / 2, (down + down[::-1]) / 2
    label = NetworkLabels(slanted, "x", flips)(image)
    assert label.dtype == depth
    np.testing.assert_allclose(label, np.rint(image * np.outer(down, across)[..., None]), atol=1)


def test_keys_tell_weights_and_flips_apart() -> None:
    assert len({NetworkLabels(slanted, weights, flips).key for weights in "ab" for flips in (False, True)}) == 4


@pytest.mark.parametrize(
    ("module", "counts"),
    [("archs.rainoerme", True), ("archs.tiles", True), ("archs.prenet", False), ("weights", False)],
)
def test_new_code_of_a_network_is_noticed(module: str, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_network()
    before = opened.code
    with changed_code(monkeypatch, module):
        assert (opened.code != before) is counts


def test_a_crop_is_that_of_the_whole_images_label(tmp_path: Path) -> None:
    write_images(tmp_path / "rainy", 1)
    labels = SoftLabels(FolderSource(tmp_path / "rainy"), NetworkLabels(slanted, "x"))
    assert np.array_equal(labels.crop(0, 5, 9, 12, 7), labels.read(0)[5:17, 9:16])


def test_the_command_writes_labels_under_the_images_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "rainy", 2, prefix="rain")
    weights = write_network(tmp_path / "net.pth")
    arguments = ["prepare", "labels", str(tmp_path / "rainy"), "--weights", str(weights), "--device", "cpu", "-o"]
    assert main([*arguments, str(tmp_path / "once")]) == 0
    assert main([*arguments, str(tmp_path / "mean"), "--flips"]) == 0
    derainer, rainy = load_derainer(weights, device="cpu"), FolderSource(tmp_path / "rainy")
    for index in range(2):
        image = rainy.read(index)
        flipped = [derainer(image[turn].copy())[turn].astype(float) for turn in TURNS]
        once, mean = (ready_labels(rainy, tmp_path / name).read(index) for name in ("once", "mean"))
        np.testing.assert_allclose(once, flipped[0], atol=1)
        np.testing.assert_allclose(mean, np.mean(flipped, axis=0), atol=1)
    assert np.asarray(Image.open(tmp_path / "mean" / "1.png")).shape == (40, 48, 3)
    assert "2 soft labels by network-" in capsys.readouterr().out


def test_networks_may_be_among_those_of_which_the_best_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "rainy", 3, prefix="rain")
    networks = [write_network(tmp_path / f"{gain}.pth", gain=gain) for gain in (0.5, 3.0)]
    weights = [word for file in networks for word in ("--weights", str(file))]
    asked = ["type=best_of", "filters=[{type: opening, window: [1, 3]}, {type: median, window: [9, 9]}]"]
    command = ["prepare", "labels", str(tmp_path / "rainy"), *asked, "--flips", *weights, "--device", "cpu", "-o"]
    assert main([*command, str(tmp_path / "best")]) == 0
    assert "3 soft labels by best_of-" in capsys.readouterr().out
    filters = [OpeningFilter((1, 3)), MedianFilter((9, 9))]
    filters += [NetworkLabels(load_derainer(file, device="cpu"), file.name, flips=True) for file in networks]
    rainy = FolderSource(tmp_path / "rainy")
    for index in range(3):
        image, found = rainy.read(index), ready_labels(rainy, tmp_path / "best").read(index)
        assert np.array_equal(
            found, min((each(image) for each in filters), key=lambda label: separation_cost(image, label))
        )
    assert main([*command, str(tmp_path / "cost"), "measure=cost"]) == 0
    assert main([*command[:-5], "--device", "cpu", "-o", str(tmp_path / "one")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len({line.split(" in ")[0] for line in said}) == 2, "each has a key of its own"


BACK = slice(None, None, -1)
TURNS = [(slice(None), slice(None)), (slice(None), BACK), (BACK, slice(None)), (BACK, BACK)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flips"], "--flips is for labels by a network: give --weights, too"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--weights", "x.pth", "type=rank"], "--weights makes the labels, so no filter can: leave out type=rank"),
        (["--weights", "x.pth", "--weights", "y.pth"], "leave out all but one of them, or give type=best_of"),
        (["--weights", "x.pth", "type=best_of", "measure=niqe"], "label.measure: should be 'cost' or 'separation'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_images(tmp_path / "rainy", 1)
    assert main(["prepare", "labels", str(tmp_path / "rainy"), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
