"""ONNX files as networks: this package's and others', and whatever else such a file may hold."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made import image

from rainoerme_plugin.archs.adapt import Needs, derain
from rainoerme_plugin.archs.onnx_net import PREFIX, OnnxNet
from rainoerme_plugin.archs.receptive_field import receptive_field
from rainoerme_plugin.errors import OptionError, WeightsError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FREE = ("n", 3, "h", "w")
KERNEL = np.random.default_rng(0).random((3, 3, 3, 3), np.float32)


def model(
    shape: tuple[Any, ...] = FREE,
    kind: int = TensorProto.FLOAT,
    inputs: int = 1,
    outputs: int = 1,
    operator: str = "Conv",
    domain: str = "",
) -> Any:
    """A convolution from elsewhere, or what is not quite that."""
    takes = [helper.make_tensor_value_info(f"x{number}", kind, shape) for number in range(inputs)]
    gives = [helper.make_tensor_value_info(f"y{number}", kind, None) for number in range(outputs)]
    nodes = [helper.make_node("Identity", ["x0"], [f"y{number}"]) for number in range(1, outputs)]
    pads = {"pads": [1] * 4} if operator == "Conv" else {}
    nodes.append(helper.make_node(operator, ["x0", "w"], ["y0"], domain=domain, **pads))
    kernel = KERNEL if kind == TensorProto.FLOAT else KERNEL.astype(np.float64)
    graph = helper.make_graph(nodes, "foreign", takes, gives, [numpy_helper.from_array(kernel, "w")])
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def saved(path: Path, made: Any, **metadata: str) -> Path:
    helper.set_model_props(made, {PREFIX + key: text for key, text in metadata.items()})
    path.write_bytes(made.SerializeToString())
    return path


def test_a_foreign_file_gives_its_values(tmp_path: Path) -> None:
    network = OnnxNet(saved(tmp_path / "a.onnx", model()))
    rainy = image(13, 8, count=2)
    wanted = torch.nn.functional.conv2d(rainy, torch.from_numpy(KERNEL), padding=1)
    assert torch.allclose(derain(network, rainy, network.needs), wanted, atol=1e-5)
    assert torch.equal(network(rainy.to(memory_format=torch.channels_last)), network(rainy))
    assert network(rainy.double()).dtype == torch.float32
    assert (network.needs, network.metadata) == (Needs(), {})
    assert receptive_field(network, network.needs) is None  # nobody knows


def test_one_image_at_a_time_is_enough(tmp_path: Path) -> None:
    free, one = (OnnxNet(saved(tmp_path / f"{n}.onnx", model((n, 3, "h", "w")))) for n in ("n", 1))
    assert torch.allclose(one(image(6, 7, count=3)), free(image(6, 7, count=3)), atol=1e-6)


def test_what_the_file_says_counts(tmp_path: Path) -> None:
    network = OnnxNet(saved(tmp_path / "a.onnx", model(), format="1", multiple="4", receptive_field="1", network="N"))
    assert (network.needs, network.receptive_field, network.metadata["network"]) == (Needs(multiple=4), 1, "N")
    assert receptive_field(network, network.needs) == 1


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (model((1, 3, 8, 8)), "dynamic axes"),
        (model((4, 3, "h", "w")), "N free or 1"),
        (model(("n", 3, "h"), operator="MatMul"), "needed is (N, 3, H, W)"),
        (model(("n", 1, "h", "w"), operator="Add"), "needed is (N, 3, H, W)"),
        (model(inputs=2), "2 inputs"),
        (model(outputs=2), "2 outputs"),
        (model(kind=TensorProto.DOUBLE, operator="Add"), "float32"),
        (model(operator="Derain", domain="of.someone"), "of.someone"),
        (model(operator="NoSuchThing"), "NoSuchThing"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, made: Any, words: str) -> None:
    path = saved(tmp_path / "a.onnx", made)
    with pytest.raises(WeightsError) as caught:
        OnnxNet(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_outside_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(model(), path, save_as_external_data=True, size_threshold=0, location="a.data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"a\.onnx.*other files"):
        OnnxNet(path)


@pytest.mark.parametrize(
    "metadata",
    [{"format": "2"}, {"multiple": "0"}, {"multiple": "x"}, {"multiple": "9" * 30}, {"receptive_field": "-1"}],
)
def test_damaged_metadata_are_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match="metadata"):
        OnnxNet(saved(tmp_path / "a.onnx", model(), **metadata))


def test_damaged_files_are_refused_or_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = saved(tmp_path / "a.onnx", model(), format="1", multiple="4").read_bytes()
    chance = random.Random(0)
    variants = [b"", b"\0" * 100, b"abc", whole[:-1], whole + whole]
    variants += [whole[: chance.randrange(len(whole))] for _ in range(30)]
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        variants.append(bytes(damaged))
    refused = 0
    for data in variants:
        (tmp_path / "b.onnx").write_bytes(data)
        said = "b.onnx"
        try:
            network = OnnxNet(tmp_path / "b.onnx")
        except WeightsError as error:
            refused, said = refused + 1, str(error)
        else:  # the damage may be in a weight, or in the way in which it is used
            with contextlib.suppress(OptionError):
                network(image(4, 4))
        assert "b.onnx" in said
    assert refused > 50
    assert capfd.readouterr() == ("", "")


def test_a_size_that_the_network_does_not_take_is_named(tmp_path: Path) -> None:
    made = model()
    made.graph.node[0].attribute.append(helper.make_attribute("strides", [50, 50]))
    made.graph.node[0].attribute[0].ints[:] = [0] * 4
    with pytest.raises(OptionError, match=r"a\.onnx.*2x2"):
        OnnxNet(saved(tmp_path / "a.onnx", made))(image(2, 2))


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_devices_that_are_not_there(tmp_path: Path, device: str) -> None:
    import onnxruntime

    if device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is there")
    network = OnnxNet(saved(tmp_path / "a.onnx", model()))
    network.place(torch.device("cpu"))
    with pytest.raises(OptionError, match=r"a\.onnx.*--device cpu"):
        network.place(torch.device(device))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.onnx", model())
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(OptionError, match=r"pip install 'rainoerme_plugin\[onnx\]'"):
        OnnxNet(path)
    with pytest.raises((WeightsError, OptionError)):
        OnnxNet(tmp_path / "missing.onnx")
