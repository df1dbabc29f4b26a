"""Files of weights as other packages write them: found, read without running anything, or said what they are."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rainoerme_plugin.archs.prenet import PRN, PReNet_r
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.checkpoint_files import is_onnx, read_checkpoint
from rainoerme_plugin.commands import main
from rainoerme_plugin.errors import OptionError, WeightsError
from rainoerme_plugin.inference.derainer import load_derainer
from rainoerme_plugin.inference.opening import open_network
from rainoerme_plugin.pickles import as_protocol_2, check_pickle
from rainoerme_plugin.registered.networks import PretrainedNet
from rainoerme_plugin.weights import AVERAGED_KEYS, NETWORK_KEYS, PARAMETER_KEYS, load_weights

State = Mapping[str, Tensor]


def state(value: float = 0.5) -> dict[str, Tensor]:
    """Of a small network."""
    return {name: torch.full_like(tensor, value) for name, tensor in PRN(channels=4).state_dict().items()}


def other(value: float = 0.25) -> dict[str, Tensor]:
    """Of another."""
    return {name: torch.full_like(tensor, value) for name, tensor in PReNet_r(channels=4).state_dict().items()}


def below(prefix: str, weights: State) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in weights.items()}


def saved(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def value_of(network: nn.Module) -> float:
    return float(next(iter(network.state_dict().values())).flatten()[0])


COUNTER = {"step_counter": torch.tensor(7)}
DISCRIMINATOR = below("discriminator", {"conv.weight": torch.ones(3, 3)})

FOUND: dict[str, tuple[Any, float]] = {
    "mmagic": ({"meta": {"iter": 3}, "state_dict": below("generator", state()) | COUNTER}, 0.5),
    "mmagic, with a running mean": (
        {"state_dict": below("generator", state()) | below("generator_ema", state(2)) | COUNTER},
        2,
    ),
    "mmagic, all of it": (
        {
            "state_dict": below("generator", state())
            | DISCRIMINATOR
            | below("data_preprocessor", {"mean": torch.zeros(3, 1, 1)})
            | below("perceptual_loss.vgg", {"0.weight": torch.ones(2, 2)})
        },
        0.5,
    ),
    "Lightning": ({"epoch": 3, "state_dict": below("model", state()), "optimizer_states": [{"state": {}}]}, 0.5),
    "Lightning, with a loss": (
        {"state_dict": below("net_g", state()) | below("loss_fn.vgg", {"0.weight": torch.ones(2, 2)})},
        0.5,
    ),
    "DataParallel and torch.compile": ({"state_dict": below("module._orig_mod", state())}, 0.5),
    "AveragedModel": (AveragedModel(PRN(channels=4)).state_dict() | below("module", state(3)), 3),
    "two folds": ({"model": {"generator": state(), "discriminator": {"a.weight": torch.ones(2)}}}, 0.5),
    "a name of its own": ({"derainer": state(), "optimizer": {"state": {}, "param_groups": []}}, 0.5),
    "a discriminator beside": ({"mine": state(), "netD": {"a.weight": torch.ones(2)}}, 0.5),
    "a mean and the weights": ({"model": state(), "ema": below("module", state(4))}, 4),
    "a mean of something else": ({"model": state(), "ema": other()}, 0.5),
}


@pytest.mark.parametrize("kind", FOUND)
def test_weights_are_found_where_there_is_one_sensible_choice(kind: str, tmp_path: Path) -> None:
    content, value = FOUND[kind]
    path = saved(tmp_path / "a.pth", content)
    network = PretrainedNet(str(path))
    assert isinstance(network, PRN)
    assert value_of(network) == value
    by_name = PRN(channels=4)
    assert load_weights(by_name, path)[:2] == (24, 24)
    assert value_of(by_name) == value


@pytest.mark.parametrize("key", [*AVERAGED_KEYS, *PARAMETER_KEYS, *NETWORK_KEYS])
def test_every_usual_key_is_looked_under(key: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"epoch": 3, key: state(), "optimizer": {"state": {}}})
    assert value_of(PretrainedNet(str(path))) == 0.5


def test_of_several_networks_the_message_names_them_and_how_to_choose(tmp_path: Path) -> None:
    for content in ({"one": state(), "two": other()}, {"generator": state(), "netG": other()}):
        path = saved(tmp_path / "a.pth", content)
        first, second = content
        with pytest.raises(WeightsError, match=rf"several networks; which one, key: says: {first}, {second}$"):
            PretrainedNet(str(path))
        assert isinstance(PretrainedNet(str(path), key=first), PRN)
        assert isinstance(PretrainedNet(str(path), key=second), PReNet_r)
        network = PRN(channels=4)
        with pytest.raises(WeightsError, match=r"param_key: says"):
            load_weights(network, path, option="param_key:")
    nested = saved(tmp_path / "b.pth", {"nets": {"one": state(), "two": other()}})
    assert isinstance(PretrainedNet(str(nested), key="nets.two"), PReNet_r)
    flat = saved(tmp_path / "c.pth", {"state_dict": below("one", state()) | below("two", other())})
    assert isinstance(PretrainedNet(str(flat), key="two"), PReNet_r)
    assert isinstance(PretrainedNet(str(flat), key="state_dict.one"), PRN)


def test_a_key_that_is_not_there_is_said_and_nothing_else_taken(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": state(), "epoch": 3})
    with pytest.raises(WeightsError, match=r"nothing under mine, which key: names; it holds model, epoch$"):
        PretrainedNet(str(path), key="mine")
    # BasicSR asks for these unless it is told otherwise.
    for key in ("params", "params_ema"):
        assert load_weights(PRN(channels=4), path, key)[:2] == (24, 24)


def test_weights_of_others_beside_are_dropped_only_where_they_are_known_to_be_others(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", below("model", state()) | below("refine", other()))
    with pytest.raises(WeightsError, match=r"if it holds several networks, key: says which: model, refine$"):
        PretrainedNet(str(path))
    assert isinstance(PretrainedNet(str(path), key="refine"), PReNet_r)


# --- protocols of pickle ---


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("archived", [True, False])
def test_files_of_every_protocol_are_read(archived: bool, protocol: int, tmp_path: Path) -> None:
    content = {
        "params": OrderedDict(state()),
        "words": {"a": [1, 2.5, None, True, 10**30, -5, b"\xff\0", "é"], "params": ("a", "a")},
        "names": {f"{number}.weight": f"{number % 7}" * (number % 300) for number in range(400)},
        "milestones": Counter([3, 3]),
    }
    path = saved(tmp_path / "a.pth", content, pickle_protocol=protocol, _use_new_zipfile_serialization=archived)
    back = read_checkpoint(path)
    assert {key: back[key] for key in ("words", "names", "milestones")} == {
        key: content[key] for key in ("words", "names", "milestones")
    }
    assert all(torch.equal(back["params"][name], value) for name, value in content["params"].items())
    assert value_of(PretrainedNet(str(path))) == 0.5


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_what_a_pickle_says_is_said_in_protocol_2(protocol: int) -> None:
    shared = ["twice", "state"]
    for value in (
        {"state": shared, "again": shared, "text": "x" * 100_000, "bytes": b"y" * 100_000, "empty": ({}, [], ())},
        [f"{number % 13}" for number in range(3000)],
        OrderedDict(x=1, y={"x": "y"}),
    ):
        data = io.BytesIO(b"before" + pickle.dumps(value, protocol) + b"after")
        data.seek(6)
        written = as_protocol_2(data)
        assert data.read() == b"after"
        assert pickle.loads(written) == value
        check_pickle(io.BytesIO(written))


@pytest.mark.parametrize("archived", [True, False])
def test_what_is_not_read_of_a_protocol_is_named_with_a_remedy(archived: bool, tmp_path: Path) -> None:
    content = {"params": state(), "seen": {1, 2, 3}}
    path = saved(tmp_path / "a.pth", content, pickle_protocol=4, _use_new_zipfile_serialization=archived)
    with pytest.raises(WeightsError, match=r"protocol 4 or 5 with a step .* \(\w+\); .* save its state_dict\(\) anew$"):
        read_checkpoint(path)


# --- files of other kinds ---


class Scripted(nn.Module):
    def forward(self, rainy: Tensor) -> Tensor:
        return rainy


def zipped(path: Path, **files: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"), io.BytesIO())


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: path.touch(), "an empty file; fetch or make it again"),
    "page": (lambda path: path.write_text("\n<!DOCTYPE html><html></html>"), "a web page, not what it links to"),
    "page without a type": (lambda path: path.write_text("<html><body>"), "a web page, not what it links to"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a pointer to them by"),
    "script": (lambda path: torch.jit.script(Scripted()).save(path), "a TorchScript archive, which holds code"),
    "arrays": (lambda path: np.savez(path.open("wb"), a=np.zeros(2)), r"arrays of NumPy \(.npz\); torch.save"),
    "packed arrays": (lambda path: np.savez_compressed(path.open("wb"), a=np.zeros(2)), r"arrays of NumPy \(.npz\)"),
    "zip": (lambda path: zipped(path, model__pth=b""), "a ZIP archive with 'model.pth' in it; unpack it"),
    "tar": (tarred, "a tar archive; unpack it"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"a")), "compressed by gzip; unpack it"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "an HDF5 file, as of Keras"),
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "a pickle that torch.save has not written"),
    "onnx": (lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x3a\x02\x0a\x00"), "a network in ONNX; basicsr"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_of_another_kind_is_called_what_it_is_whatever_its_name(kind: str, tmp_path: Path) -> None:
    make, words = OTHERS[kind]
    for name in ("a.pth", "a.ckpt", "a"):
        path = tmp_path / name
        make(path)
        with pytest.raises(WeightsError, match=words) as caught:
            PretrainedNet(str(path))
        assert "damaged" not in str(caught.value)


def test_an_exported_program_is_told_by_its_content(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Scripted(), (torch.zeros(1, 3, 4, 4),)), tmp_path / "a.pt2")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pt2").read_bytes())
    for name in ("a.pt2", "a.pth"):
        with pytest.raises(WeightsError, match="an exported program, which could run code"):
            open_network(tmp_path / name)


def test_a_network_in_onnx_is_told_by_its_content(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    shape = ["n", 3, "h", "w"]
    image = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("a", "b")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "g", image[:1], image[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "a.pth").write_bytes(made.SerializeToString())
    assert is_onnx(tmp_path / "a.pth")
    rainy = torch.rand(1, 3, 5, 7)
    assert torch.equal(load_derainer(tmp_path / "a.pth", device="cpu")(rainy), rainy)
    for content in (state(), {"params": state()}):
        assert not is_onnx(saved(tmp_path / "b.pth", content))
    safetensors.torch.save_file(state(), tmp_path / "c.pth")
    assert not is_onnx(tmp_path / "c.pth")


# --- what the commands say ---


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(tmp_path / "rainy.png")
    return tmp_path / "rainy.png"


def said(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    assert main([*map(str, command)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    return errors


def test_the_command_line_chooses_by_key(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.pth", {"one": state(0), "two": RainOerMeNet(4).state_dict()})
    derain = ["derain", picture, "--device", "cpu", "-w", path, "-o"]
    for command in ([*derain, tmp_path / "out"], ["export", "-w", path, "-o", tmp_path / "a.pt2"]):
        assert "on the command line --key: says: one, two" in said(capsys, *command)
    labels = ["prepare", "labels", tmp_path, "-o", tmp_path / "labels", "-w", path, "--device", "cpu"]
    assert "on the command line --key: says: one, two" in said(capsys, *labels)
    for key in ("one", "two"):
        assert main([*map(str, derain), str(tmp_path / key), "--key", key]) == 0
    identities = {load_derainer(path, key=key, device="cpu").identity for key in ("one", "two")}
    assert len(identities) == 2
    with pytest.raises(OptionError, match="a training run has no keys"):
        load_derainer(tmp_path, key="one")


def test_derain_and_export_advise_nothing_that_they_do_not_have(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "a.pth", {"first.weight": torch.zeros(2)})
    for command in (
        ["derain", picture, "-o", tmp_path / "out", "-w", path],
        ["export", "-w", path, "-o", tmp_path / "a.pt2"],
    ):
        message = said(capsys, *command)
        assert "basicsr test and basicsr benchmark run it by its name (docs/networks.md)" in message
        assert "type:" not in message
    with pytest.raises(WeightsError, match="if you know which, name it with type:"):
        PretrainedNet(str(path))
