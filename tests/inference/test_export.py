"""Exported networks give PyTorch's results at every size, or there is no file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_made import Of, image, strided
from small import small
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import Needs, derain
from rainoerme_plugin.archs.brn import BRN
from rainoerme_plugin.archs.distillation_net import DistillationNet
from rainoerme_plugin.archs.onnx_net import OnnxNet
from rainoerme_plugin.archs.prenet import PReNet
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.archs.receptive_field import receptive_field
from rainoerme_plugin.archs.tiles import derain_tiled
from rainoerme_plugin.commands import export as command
from rainoerme_plugin.errors import OptionError, RainOerMeError
from rainoerme_plugin.inference import export
from rainoerme_plugin.inference.export import export_network

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)


class Several(nn.Module):
    """A network of two results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> list[Tensor]:
        return [rainy, self.conv(rainy)]


def made(name: str) -> tuple[nn.Module, Needs]:
    torch.manual_seed(0)
    return {
        "own": (RainOerMeNet(4), Needs()),
        "recurrent": (PReNet(2, 4), Needs()),
        "bilateral": (BRN(2, 4), Needs()),
        "strided": (strided(), Needs(multiple=4)),
        "minimum": (strided(), Needs(multiple=8, minimum=48, square=True)),
        "several": (Several(), Needs(output=1)),
    }[name]


@pytest.mark.parametrize("name", ["own", "recurrent", "bilateral", "strided", "minimum", "several"])
def test_values_at_every_size(tmp_path: Path, name: str) -> None:
    network, needs = made(name)
    network.eval()
    report = export_network(network, needs, tmp_path / "a.onnx")
    assert report.path.stat().st_size == report.bytes
    assert (report.format, report.opset) == ("ONNX", 18)
    assert report.parameters == sum(value.numel() for value in network.parameters())
    assert report.largest < 1e-5
    found = OnnxNet(report.path)
    for size in ((1, 1), (1, 9), (7, 2), (31, 45), (64, 64)):
        rainy = image(*size, count=2)
        with torch.no_grad():
            wanted = derain(network, rainy, needs).clamp(0, 1)
        assert torch.allclose(found(rainy), wanted, atol=1e-5), size
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


def test_metadata_are_read_back(tmp_path: Path) -> None:
    network, needs = made("own")
    export_network(network, needs, tmp_path / "a.onnx")
    found = OnnxNet(tmp_path / "a.onnx")
    assert found.receptive_field == receptive_field(network, needs) == receptive_field(found, found.needs)
    assert found.metadata["network"] == "RainOerMeNet"
    assert found.metadata["source"].startswith("https://")
    assert {"format", "version", "licence", "multiple"} <= set(found.metadata)


@pytest.mark.parametrize("name", ["own", "strided"])
def test_tiles_give_the_whole_image(tmp_path: Path, name: str) -> None:
    network, needs = made(name)
    export_network(network, needs, tmp_path / "a.onnx")
    found = OnnxNet(tmp_path / "a.onnx")
    rainy = image(150, 131)
    assert found.receptive_field is not None
    assert torch.allclose(derain_tiled(found, rainy, found.needs, tile=32), found(rainy), atol=1e-5)


def test_pytorchs_program(tmp_path: Path) -> None:
    network, needs = made("own")
    network.eval()
    report = export_network(network, needs, tmp_path / "a.pt2")
    assert (report.format, report.opset) == ("PyTorch", None)
    extra = {"metadata.json": ""}
    program = torch.export.load(report.path, extra_files=extra).module()
    with torch.no_grad():
        assert torch.allclose(program(image(21, 34)), network(image(21, 34)).clamp(0, 1), atol=1e-6)
    assert json.loads(extra["metadata.json"])["network"] == "RainOerMeNet"


@pytest.mark.parametrize("wrong", [lambda x: x + 2e-4, lambda x: x * torch.nan, lambda x: x[..., :-1]])
def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: object) -> None:
    load = export._load
    monkeypatch.setattr(export, "_load", lambda file: lambda rainy: wrong(load(file)(rainy)))  # type: ignore[operator]
    with pytest.raises(RainOerMeError, match=r"a\.onnx was not written: .* differs from PyTorch by (0\.0002|nan|inf)"):
        export_network(*made("own"), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_images_are_compared_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (23, 37, 3)).astype(np.uint16)
    report = export_network(*made("own"), tmp_path / "a.onnx", images=[pixels])
    assert report.checks[-1][:2] == (23, 37)


def test_what_cannot_be_exported_is_one_error(tmp_path: Path) -> None:
    network = Of(lambda rainy: rainy * (2 if float(rainy.mean()) > 0.5 else 1))
    with pytest.raises(OptionError, match="cannot be exported for images of all sizes") as caught:
        export_network(network, Needs(), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_of_this_machine_is_in_the_file(tmp_path: Path) -> None:
    export_network(*made("own"), tmp_path / "a.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    assert b".py" not in data
    assert str(Path(export.__file__).parent).encode() not in data


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
@pytest.mark.parametrize("name", ["NAFNet", "DerainUNet"])
def test_a_backbone_with_a_grid(tmp_path: Path, name: str, suffix: str) -> None:
    network = DistillationNet(small(name)).eval()
    report = export_network(network, Needs(), tmp_path / f"a.{suffix}")
    assert report.largest < 1e-5
    found = export._load(report.path)
    for size in ((1, 1), (8, 8), (17, 30)):
        with torch.no_grad():
            wanted = network(image(*size)).clamp(0, 1)
        assert torch.allclose(found(image(*size)), wanted, atol=1e-5), size


def test_the_network_stays_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = made("own")[0].double().train()
    export_network(network, Needs(), tmp_path / "a.onnx")
    assert network.training
    assert all(value.dtype == torch.float64 and value.requires_grad for value in network.parameters())
    assert capfd.readouterr() == ("", "")


def test_the_suffix_decides(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\.onnx or \.pt2"):
        export_network(*made("own"), tmp_path / "a.pth")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(RainOerMeNet().state_dict(), tmp_path / "a.pth")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["-w", str(tmp_path / "a.pth"), "-o", str(tmp_path / "a.onnx")]
    assert command.run(parser.parse_args(words)) == 0
    said = capsys.readouterr().out
    assert "opset 18" in said
    assert "55,046 parameters" in said
    assert "onnxruntime.InferenceSession" in said
    with pytest.raises(OptionError, match="--overwrite"):
        command.run(parser.parse_args(words))
    assert command.run(parser.parse_args([*words, "--overwrite"])) == 0
