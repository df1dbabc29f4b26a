"""Scoring: the released checkpoint reaches its measured figures, and the command prints them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import OPTIONS, tiny_data, tiny_options

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.commands import main
from rainoerme_plugin.config import Request
from rainoerme_plugin.engine.testing import test as run_test
from rainoerme_plugin.errors import OptionError, WeightsError


def test_the_released_rain200l_checkpoint_scores_as_measured(
    rainoerme_data: Path, rainoerme_weights: Path, tmp_path: Path
) -> None:
    """35.12 dB / 0.9629 on the 100 Rain100L test pairs, from 26.90 / 0.8384, whole images, basicsr_y."""
    checkpoint = rainoerme_weights / "RainOerMe_Rain200L.pth"
    request = Request(OPTIONS / "test_rain100l.yml", (f"network_g.file={checkpoint}",), root=tmp_path)
    (score,), _ = run_test(request)
    assert score.images == 100
    assert score.derained["psnr"] == pytest.approx(35.12, abs=0.02)
    assert score.derained["ssim"] == pytest.approx(0.9629, abs=0.0005)
    assert score.rainy["psnr"] == pytest.approx(26.90, abs=0.005)
    assert score.rainy["ssim"] == pytest.approx(0.8384, abs=0.00005)


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Path, Path]:
    """An option file that scores an untrained network on the tiny pairs."""
    data = tiny_data(tmp_path)
    torch.manual_seed(0)
    torch.save({"params": RainOerMeNet(channels=4).state_dict()}, tmp_path / "net.pth")
    changes = {"path__pretrain_network_g": str(tmp_path / "net.pth"), "val__save_img": True}
    return data, tiny_options(data, **changes)


def test_the_table_and_the_images_agree_with_an_independent_psnr(
    scored: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, options = scored
    assert main(["test", "-opt", str(options), "--root", str(data)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["data", "set", "images", "psnr", "ssim"]
    assert [row[:3] for row in rows[1:3]] == [["val", "2", "rainy"], ["val", "2", "derained"]]

    def luminance(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path), float) @ (np.array([65.481, 128.553, 24.966]) / 255)

    def psnr(folder: Path) -> float:
        errors = [luminance(folder / f"{n}.png") - luminance(data / "val" / "norain" / f"{n}.png") for n in (1, 2)]
        return float(np.mean([10 * np.log10(255**2 / np.mean(error**2)) for error in errors]))

    assert float(rows[1][3]) == pytest.approx(psnr(data / "val" / "rain"), abs=1e-3)
    saved = data / "results" / "tiny" / "visualization" / "val"
    assert float(rows[2][3]) == pytest.approx(psnr(saved), abs=1e-3)


def test_images_without_ground_truth_are_derained_and_not_scored(
    scored: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = scored
    options = tiny_options(
        data,
        datasets={
            "_delete_": True,
            "test": {"name": "real", "type": "SingleRainDataset", "dataroot": str(data / "rainy")},
        },
        path__pretrain_network_g=str(data / "net.pth"),
        val__save_img=True,
    )
    assert main(["test", "-opt", str(options), "--root", str(data)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["real", "3", "derained", "-", "-"]
    (score,), opt = run_test(Request(options, root=data))
    assert score.images == 3
    assert score.rainy == score.derained == {}
    assert len(list(Path(opt["path"]["visualization"], "real").glob("*.png"))) == 3


def test_a_checkpoint_that_does_not_fit_leaves_earlier_results_alone(scored: tuple[Path, Path]) -> None:
    data, options = scored
    run_test(Request(options, root=data))
    with pytest.raises(WeightsError, match=r"net\.pth does not fit RainOerMeNet"):
        run_test(Request(options, ("network_g.channels=5",), root=data))
    assert [path.name for path in (data / "results").iterdir()] == ["tiny"]


def test_a_network_without_a_checkpoint_is_not_scored(scored: tuple[Path, Path]) -> None:
    data, options = scored
    with pytest.raises(OptionError, match=r"path\.pretrain_network_g: is missing"):
        run_test(Request(options, ("path.pretrain_network_g=~",), root=data))


def test_an_option_file_without_a_test_set_is_refused(scored: tuple[Path, Path]) -> None:
    data, options = scored
    with pytest.raises(OptionError, match="val: is missing"):
        run_test(Request(options, ("val=~",), root=data))
