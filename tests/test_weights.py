"""Reading published checkpoints: where the weights are, what is refused, and that nothing runs on loading."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.errors import WeightsError
from rainoerme_plugin.weights import find_state_dict, load_weights, read_checkpoint


def tiny_network() -> nn.Sequential:
    """Two layers, four weights: ``0.weight`` (2, 3), ``0.bias`` (2,), ``1.weight`` (1, 2), ``1.bias`` (1,)."""
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def published(value: float = 0.5) -> dict[str, Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in tiny_network().state_dict().items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def values(network: nn.Module) -> set[float]:
    return {value for tensor in network.state_dict().values() for value in tensor.flatten().tolist()}


@pytest.mark.parametrize("key", [None, "params_ema", "params", "state_dict", "net", "model"])
def test_weights_are_found_at_the_top_and_under_every_usual_key(key: str | None, tmp_path: Path) -> None:
    content = published() if key is None else {key: published(), "iteration": 7}
    network = tiny_network()
    assert load_weights(network, saved(tmp_path / "a.pth", content)) == (4, 4)
    assert values(network) == {0.5}


def test_averaged_weights_come_first_and_a_named_key_before_them(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.pth",
        {"model": published(1), "params": published(2), "params_ema": published(3), "mine": published(4)},
    )
    network = tiny_network()
    for key, value in [(None, 3), ("params", 2), ("mine", 4), ("model", 1), ("absent", 3)]:
        load_weights(network, path, key)
        assert values(network) == {float(value)}


def test_the_prefix_of_data_parallel_is_taken_off_once(tmp_path: Path) -> None:
    content = {f"module.{name}": tensor for name, tensor in published().items()}
    network = tiny_network()
    assert load_weights(network, saved(tmp_path / "a.pth", {"params": content})) == (4, 4)
    assert values(network) == {0.5}
    found = find_state_dict({"module.module.a": torch.zeros(1), "a.module.b": torch.zeros(1)}, "a.pth")
    assert set(found) == {"module.a", "a.module.b"}


@pytest.mark.parametrize(
    "content",
    [{}, {"params": {}}, [1, 2], torch.zeros(3), {"epoch": 3, "lr": 0.1}, {"params": {"a": 1}}, {"params": [1]}],
)
def test_a_file_without_weights_is_refused_with_the_places_that_were_looked_at(content: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", content)
    expected = f"{path}: no network's weights found at the top or under params_ema, params, state_dict, net, model"
    with pytest.raises(WeightsError, match=f"^{re.escape(expected)}$"):
        load_weights(tiny_network(), path)


def test_a_checkpoint_that_does_not_fit_is_refused_with_all_that_is_wrong(tmp_path: Path) -> None:
    content = published()
    del content["0.bias"], content["1.bias"]
    content |= {"extra": torch.zeros(1), "1.weight": torch.zeros(4, 5)}
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path = saved(tmp_path / "a.pth", content)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, path)
    assert str(caught.value) == (
        f"{path} does not fit Sequential: 1 of 4 weights match; 2 missing, first 0.bias; 1 unexpected, first extra; "
        "1 of another shape, first 1.weight (4, 5) for (1, 2)"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.weight": None}, "3 of 4 weights match; 1 missing, first 0.weight$"),
        ({"2.weight": torch.zeros(1)}, "4 of 4 weights match; 1 unexpected, first 2.weight$"),
        ({"1.bias": torch.zeros(2)}, r"3 of 4 weights match; 1 of another shape, first 1.bias \(2,\) for \(1,\)$"),
    ],
)
def test_one_weight_too_few_too_many_or_of_another_shape_is_enough(
    change: dict[str, Tensor | None], words: str, tmp_path: Path
) -> None:
    content = {name: value for name, value in (published() | change).items() if value is not None}
    with pytest.raises(WeightsError, match=words):
        load_weights(tiny_network(), saved(tmp_path / "a.pth", content))


def test_what_matches_is_loaded_and_counted_without_strictness(tmp_path: Path) -> None:
    content = published()
    del content["0.bias"]
    content |= {"extra": torch.zeros(1), "1.weight": torch.zeros(4, 5)}
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert load_weights(network, saved(tmp_path / "a.pth", content), strict=False) == (2, 4)
    after = network.state_dict()
    assert set(after["0.weight"].flatten().tolist()) == set(after["1.bias"].tolist()) == {0.5}
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert torch.equal(after["1.weight"], before["1.weight"])


def test_nothing_that_matches_is_refused_also_without_strictness(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"extra": torch.zeros(1)})
    with pytest.raises(
        WeightsError, match=r"0 of 4 weights match; 4 missing, first 0.weight; 1 unexpected, first extra"
    ):
        load_weights(tiny_network(), path, strict=False)


def test_a_released_checkpoint_of_the_other_variant_is_refused(rainoerme_weights: Path) -> None:
    network = RainOerMeNet(detail_layers=3)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, rainoerme_weights / "RainOerMe_DID_data.pth")
    # Three convolutions against two: out2.4 is missing, and out2.2 makes 3 channels, not 16.
    assert "does not fit RainOerMeNet: 40 of 44 weights match; 2 missing, first out2.4.weight" in str(caught.value)
    assert "2 of another shape, first out2.2.weight (3, 16, 3, 3) for (16, 16, 3, 3)" in str(caught.value)


def test_released_checkpoints_of_other_networks_are_read_from_their_places(rainoerme_weights: Path) -> None:
    path = rainoerme_weights / "SPANet_SPA.pth"
    released = torch.load(path, map_location="cpu", weights_only=True)
    assert set(find_state_dict(read_checkpoint(path), path)) == set(released["net"])
    path = rainoerme_weights / "BRN_Rain100L.pth"
    names = set(find_state_dict(read_checkpoint(path), path))
    assert "conv0.0.weight" in names
    assert not any(name.startswith("module.") for name in names)


def test_a_missing_file_is_named_with_the_folder_it_was_looked_for_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"no such checkpoint: weights/a.pth (looked from {Path.cwd()})"
    with pytest.raises(WeightsError, match=f"^{re.escape(expected)}$"):
        read_checkpoint("weights/a.pth")
    with pytest.raises(WeightsError, match="no such checkpoint"):
        read_checkpoint(tmp_path)


def test_a_path_below_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "a.pth", {"iteration": 7})
    assert read_checkpoint("~/a.pth") == {"iteration": 7}


class RunsCode:
    """Makes the folder ``ran`` when it is unpickled without care."""

    def __init__(self, ran: Path) -> None:
        self.ran = str(ran)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.ran,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(kind: str, tmp_path: Path) -> None:
    path, ran = tmp_path / "a.pth", tmp_path / "ran"
    content = {"params": published(), "note": RunsCode(ran)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content["note"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(
        WeightsError, match=r"a\.pth: holds more than tensors .* could run code .* state_dict\(\) alone"
    ):
        load_weights(tiny_network(), path)
    assert not ran.exists()
    # The file is one that would have: nothing else kept the code from running.
    if kind != "pickle":
        torch.load(path, weights_only=False)
        assert ran.is_dir()


def test_a_whole_network_instead_of_its_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds more than tensors .* Save its state_dict\(\) alone"):
        read_checkpoint(saved(tmp_path / "a.pth", tiny_network()))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_called_damaged(share: float, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"params": published()})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"a\.pth: not a PyTorch checkpoint, or damaged$"):
        read_checkpoint(path)


def test_a_legacy_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"params": published()}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"<!DOCTYPE html><html></html>",
        b'{"a": 1}',
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        bytes(100),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_that(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pth: not a PyTorch checkpoint, or damaged$"):
        read_checkpoint(path)
