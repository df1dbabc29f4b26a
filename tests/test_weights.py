"""Reading published checkpoints: where the weights are, what is refused, and that nothing runs on loading."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import checkpoint_parts
from rainoerme_plugin.archs.brn import BRN
from rainoerme_plugin.archs.prenet import PRN, PReNet, VRGNetPReNet
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.checkpoint_files import read_checkpoint
from rainoerme_plugin.errors import RainOerMeError, WeightsError
from rainoerme_plugin.weights import (
    Loaded,
    checkpoint_of,
    find_state_dict,
    load_weights,
    save_checkpoint,
)

KEYS = ["params_ema", "params", "state_dict", "net", "model", "model_state_dict"]


def tiny_network() -> nn.Sequential:
    """Two layers, four weights: ``0.weight`` (2, 3), ``0.bias`` (2,), ``1.weight`` (1, 2), ``1.bias`` (1,)."""
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def published(value: float = 0.5, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: torch.full_like(tensor, value) for name, tensor in tiny_network().state_dict().items()}


class OnePart(nn.Module):
    """A network whose names all begin with ``body.``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny_network()


class TwoParts(nn.Module):
    """A main part of four weights, and a further one of two."""

    def __init__(self) -> None:
        super().__init__()
        self.main = tiny_network()
        self.detail = nn.Linear(1, 2)

    def checkpoint_parts(self) -> dict[str, nn.Module]:
        return {"": self.main, "_detail": self.detail}


def detail(value: float = 0.25, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}weight": torch.full((2, 1), value), f"{prefix}bias": torch.full((2,), value)}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def values(network: nn.Module) -> set[float]:
    return {value for tensor in network.state_dict().values() for value in tensor.flatten().tolist()}


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def untouched(network: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("key", [None, *KEYS])
def test_weights_are_found_at_the_top_and_under_every_usual_key(key: str | None, tmp_path: Path) -> None:
    content = published() if key is None else {key: published(), "iteration": 7}
    network = tiny_network()
    assert load_weights(network, saved(tmp_path / "a.pth", content)) == Loaded(loaded=4, total=4, fresh=())
    assert values(network) == {0.5}
    state, where = find_state_dict(content, "a.pth")
    assert where == (key or "")
    assert list(state) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_averaged_weights_come_first_and_a_named_key_before_them(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.pth",
        {"model": published(1), "params": published(2), "params_ema": published(3), "mine": published(4)},
    )
    network = tiny_network()
    for key, value in [(None, 3), ("params", 2), ("mine", 4), ("model", 1)]:
        load_weights(network, path, key)
        assert values(network) == {float(value)}


def test_usual_keys_are_looked_at_in_their_order() -> None:
    checkpoint: dict[str, Any] = {key: published() for key in reversed(KEYS)}
    for key in KEYS:
        assert find_state_dict(checkpoint, "a.pth")[1] == key
        del checkpoint[key]


def test_a_usual_key_that_holds_no_weights_is_passed_over(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"params_ema": None, "net": "PReNet", "model": published(), "params": 3})
    network = tiny_network()
    assert load_weights(network, path) == (4, 4, ())
    assert values(network) == {0.5}


@pytest.mark.parametrize("prefix", ["module.", "netG.", "derainet.", "module.netG.", "module.module.", "a.b.c.d."])
def test_prefixes_of_wrappers_are_taken_off(prefix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"params": published(prefix=prefix)})
    network = tiny_network()
    assert load_weights(network, path) == (4, 4, ())
    assert values(network) == {0.5}


@pytest.mark.parametrize("prefix", ["", "module.", "body.", "module.body."])
def test_a_network_whose_own_names_share_their_first_part_keeps_it(prefix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published(prefix=f"{prefix}body."))
    network = OnePart()
    assert load_weights(network, path) == (4, 4, ())
    assert values(network) == {0.5}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_one_part_alone_lose_a_prefix_and_nothing_else(prefix: str, tmp_path: Path) -> None:
    network = nn.Linear(1, 2)
    assert load_weights(network, saved(tmp_path / "a.pth", detail(prefix=prefix))) == (2, 2, ())
    assert values(network) == {0.25}


def test_a_prefix_that_not_all_names_share_stays(tmp_path: Path) -> None:
    content = published(prefix="module.")
    content["0.weight"] = content.pop("module.0.weight")
    path = saved(tmp_path / "a.pth", content)
    with pytest.raises(WeightsError) as caught:
        load_weights(tiny_network(), path)
    assert str(caught.value) == (
        f"{path} does not fit Sequential: 1 of 4 weights match; 3 missing: 0.bias, 1.weight, 1.bias; "
        "3 unexpected: module.0.bias, module.1.weight, module.1.bias"
    )


def test_a_name_that_is_all_prefix_keeps_it_for_all(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published(prefix="module.") | {"module": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"0 of 4 weights match; .*; 5 unexpected: module\.0\.weight, "):
        load_weights(tiny_network(), path, strict=False)


def test_what_is_wrong_behind_a_prefix_is_named_without_it(tmp_path: Path) -> None:
    content = published(prefix="module.") | {"module.1.bias": torch.zeros(2)}
    path = saved(tmp_path / "a.pth", content)
    with pytest.raises(WeightsError, match=r"3 of 4 weights match; 1 of another shape: 1\.bias \(2,\) for \(1,\)$"):
        load_weights(tiny_network(), path)
    network = tiny_network()
    assert load_weights(network, path, strict=False) == (3, 4, ())
    assert set(network[0].weight.flatten().tolist()) == {0.5}


@pytest.mark.parametrize(
    "content",
    [{}, {"params": {}}, [1, 2], torch.zeros(3), {"epoch": 3, "lr": 0.1}, {"params": {"a": 1}}, {"params": [1]}],
)
def test_a_file_without_weights_is_refused_with_the_places_that_were_looked_at(content: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", content)
    expected = f"{path}: no network's weights found at the top or under the usual names; it "
    with pytest.raises(WeightsError, match=f"^{re.escape(expected)}.*; key: names another place$"):
        load_weights(tiny_network(), path)


def test_one_value_that_is_no_tensor_among_weights_is_enough_to_refuse_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"params": published() | {"epoch": 3}})
    with pytest.raises(WeightsError, match="no network's weights found"):
        load_weights(tiny_network(), path, strict=False)


def test_a_checkpoint_that_does_not_fit_is_refused_with_all_that_is_wrong(tmp_path: Path) -> None:
    content = published()
    del content["0.bias"], content["1.bias"]
    content |= {"extra": torch.zeros(1), "1.weight": torch.zeros(4, 5)}
    network = tiny_network()
    before = copied(network)
    path = saved(tmp_path / "a.pth", content)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, path)
    assert str(caught.value) == (
        f"{path} does not fit Sequential: 1 of 4 weights match; 2 missing: 0.bias, 1.bias; 1 unexpected: extra; "
        "1 of another shape: 1.weight (4, 5) for (1, 2)"
    )
    assert untouched(network, before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.weight": None}, "3 of 4 weights match; 1 missing: 0.weight$"),
        ({"2.weight": torch.zeros(1)}, "4 of 4 weights match; 1 unexpected: 2.weight$"),
        ({"1.bias": torch.zeros(2)}, r"3 of 4 weights match; 1 of another shape: 1.bias \(2,\) for \(1,\)$"),
        # As many values, but of another shape.
        ({"1.weight": torch.zeros(2, 1)}, r"1 of another shape: 1.weight \(2, 1\) for \(1, 2\)$"),
        (
            dict.fromkeys(["2", "3", "4"], torch.zeros(1)),
            "4 of 4 weights match; 3 unexpected: 2, 3, 4$",
        ),
        (
            dict.fromkeys(["2", "3", "4", "5"], torch.zeros(1)),
            r"4 of 4 weights match; 4 unexpected: 2, 3, 4 \.\.\.$",
        ),
    ],
)
def test_one_weight_too_few_too_many_or_of_another_shape_is_enough(
    change: dict[str, Tensor | None], words: str, tmp_path: Path
) -> None:
    content = {name: value for name, value in (published() | change).items() if value is not None}
    network = tiny_network()
    before = copied(network)
    with pytest.raises(WeightsError, match=words):
        load_weights(network, saved(tmp_path / "a.pth", content))
    assert untouched(network, before)


def test_what_matches_is_loaded_and_counted_without_strictness(tmp_path: Path) -> None:
    content = published()
    del content["0.bias"]
    # What is not loaded may hold anything.
    content |= {"extra": torch.full((1,), float("nan")), "1.weight": torch.full((4, 5), float("inf"))}
    network = tiny_network()
    before = copied(network)
    assert load_weights(network, saved(tmp_path / "a.pth", content), strict=False) == (2, 4, ())
    after = network.state_dict()
    assert set(after["0.weight"].flatten().tolist()) == set(after["1.bias"].tolist()) == {0.5}
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert torch.equal(after["1.weight"], before["1.weight"])


def test_nothing_that_matches_is_refused_also_without_strictness(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"extra": torch.zeros(1)})
    words = r"0 of 4 weights match; 4 missing: 0\.weight, 0\.bias, 1\.weight \.\.\.; 1 unexpected: extra$"
    with pytest.raises(WeightsError, match=words):
        load_weights(tiny_network(), path, strict=False)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_name(
    value: float, dtype: torch.dtype, strict: bool, tmp_path: Path
) -> None:
    content = {name: tensor.to(dtype) for name, tensor in published().items()}
    content["1.weight"][0, 1] = value
    path = saved(tmp_path / "a.pth", {"params": content})
    network = tiny_network()
    before = copied(network)
    expected = f"{path}: 1.weight holds NaN or infinite values; the file is of no use"
    with pytest.raises(WeightsError, match=f"^{re.escape(expected)}$"):
        load_weights(network, path, strict=strict)
    assert untouched(network, before)


def test_half_precision_and_whole_numbers_load(tmp_path: Path) -> None:
    network = nn.Sequential(nn.BatchNorm1d(2))
    content = {name: tensor.half() for name, tensor in network.state_dict().items()}
    content |= {"0.num_batches_tracked": torch.tensor(7), "0.weight": torch.tensor([0.5, 2.0], dtype=torch.float16)}
    assert load_weights(network, saved(tmp_path / "a.pth", content)) == (5, 5, ())
    assert network.state_dict()["0.num_batches_tracked"].item() == 7
    assert network.state_dict()["0.weight"].dtype is torch.float32
    assert network.state_dict()["0.weight"].tolist() == [0.5, 2.0]


def test_a_released_checkpoint_of_the_other_variant_is_refused(rainoerme_weights: Path) -> None:
    network = RainOerMeNet(detail_layers=3)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, rainoerme_weights / "RainOerMe_DID_data.pth")
    # Three convolutions against two: out2.4 is missing, and out2.2 makes 3 channels, not 16.
    assert str(caught.value).endswith(
        "does not fit RainOerMeNet (it is of RainOerMeNet, channels: 16, detail_layers: 2): "
        "40 of 44 weights match; 2 missing: out2.4.weight, out2.4.bias; "
        "2 of another shape: out2.2.weight (3, 16, 3, 3) for (16, 16, 3, 3), out2.2.bias (3,) for (16,)"
    )


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("prefix", ["", "derainet.", "module.netG."])
def test_a_file_of_another_network_of_this_package_says_of_which(prefix: str, strict: bool, tmp_path: Path) -> None:
    content = {prefix + name: value for name, value in PReNet(channels=5).state_dict().items()}
    path = saved(tmp_path / "a.pth", {"params": content})
    fits = "0 of 4 weights match; 4 missing: 0.weight, 0.bias, 1.weight ...; 32 unexpected: conv0.0.weight, "
    with pytest.raises(WeightsError) as caught:
        load_weights(tiny_network(), path, strict=strict)
    assert str(caught.value).startswith(f"{path} does not fit Sequential (it is of PReNet, channels: 5): 0 of 4 ")
    if not prefix:
        assert f"(it is of PReNet, channels: 5): {fits}" in str(caught.value)


def test_a_file_that_fits_in_part_says_of_which_network_it_is_only_where_it_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", PReNet(channels=4).state_dict())
    with pytest.raises(
        WeightsError, match=r"does not fit PRN \(it is of PReNet, channels: 4\): 24 of 24 weights match"
    ):
        load_weights(PRN(channels=4), path)
    assert load_weights(PRN(channels=4), path, strict=False) == (24, 24, ())


def test_released_checkpoints_of_other_networks_are_read_from_their_places(rainoerme_weights: Path) -> None:
    path = rainoerme_weights / "SPANet_SPA.pth"
    released = torch.load(path, map_location="cpu", weights_only=True)
    state, where = find_state_dict(read_checkpoint(path), path)
    assert (set(state), where) == (set(released["net"]), "net")


@pytest.mark.parametrize(
    ("file", "network", "first", "count"),
    [
        ("BRN_Rain100L.pth", BRN, "module.conv0.0.weight", 64),
        ("VRGNet-PReNet_SPA.pth", VRGNetPReNet, "derainet.conv0.0.weight", 34),
    ],
)
def test_released_checkpoints_with_prefixes_load_whole(
    file: str, network: type[nn.Module], first: str, count: int, rainoerme_weights: Path
) -> None:
    released = torch.load(rainoerme_weights / file, map_location="cpu", weights_only=True)
    built = network()
    assert load_weights(built, rainoerme_weights / file) == (count, count, ())
    assert torch.equal(built.state_dict()["conv0.0.weight"], released[first])


PARTS = {"params": published(), "params_detail": detail()}


@pytest.mark.parametrize(
    ("content", "key", "loaded"),
    [
        (PARTS, None, Loaded(6, 6, ())),
        ({"params_ema": published(), "params_ema_detail": detail(), "params": published(3)}, None, Loaded(6, 6, ())),
        ({"mine": published(), "mine_detail": detail(), "params_ema": published(3)}, "mine", Loaded(6, 6, ())),
        ({"params": published(prefix="module."), "params_detail": detail(prefix="module.")}, None, Loaded(6, 6, ())),
        ({"params": published()}, None, Loaded(4, 4, ("detail",))),
        (published(), None, Loaded(4, 4, ("detail",))),
        # The further part belongs to weights under another key.
        ({"params_ema": published(), "params_detail": detail()}, None, Loaded(4, 4, ("detail",))),
    ],
)
def test_a_network_of_two_parts_gets_those_that_the_file_has(
    content: dict[str, Any], key: str | None, loaded: Loaded, tmp_path: Path
) -> None:
    network = TwoParts()
    before = copied(network.detail)
    assert load_weights(network, saved(tmp_path / "a.pth", content), key) == loaded
    assert values(network.main) == {0.5}
    if loaded.fresh:
        assert untouched(network.detail, before)
    else:
        assert values(network.detail) == {0.25}


@pytest.mark.parametrize("content", [{"params_detail": detail()}, {"params": {}, "params_detail": detail()}])
def test_the_main_part_must_be_there(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no network's weights found"):
        load_weights(TwoParts(), saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"weight": torch.zeros(2, 1)}, "does not fit Linear: 1 of 2 weights match; 1 missing: bias$"),
        (detail(float("nan")), r"a\.pth: weight holds NaN or infinite values; the file is of no use$"),
        ({}, r"a\.pth: no network's weights found under params_detail$"),
    ],
)
def test_a_second_part_that_is_refused_leaves_also_the_first_untouched(
    second: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    network = TwoParts()
    before = copied(network)
    with pytest.raises(WeightsError, match=words):
        load_weights(network, saved(tmp_path / "a.pth", PARTS | {"params_detail": second}))
    assert untouched(network, before)


@pytest.mark.parametrize("second", [[1, 2], {"weight": 1}, torch.zeros(3)])
def test_a_second_part_without_weights_is_refused_in_a_sentence(second: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\.pth: no network's weights found under params_detail$"):
        load_weights(TwoParts(), saved(tmp_path / "a.pth", PARTS | {"params_detail": second}))


def test_both_parts_are_counted_without_strictness(tmp_path: Path) -> None:
    network = TwoParts()
    content = {"params": published() | {"1.bias": torch.zeros(9)}, "params_detail": {"weight": torch.ones(2, 1)}}
    assert load_weights(network, saved(tmp_path / "a.pth", content), strict=False) == (4, 6, ())
    assert values(network.main[0]) == {0.5}
    assert set(network.detail.weight.flatten().tolist()) == {1}


def test_a_saved_network_of_parts_comes_back_and_loads_as_its_bare_main_part(tmp_path: Path) -> None:
    network, path = TwoParts(), tmp_path / "models" / "net_g_8.pth"
    content = checkpoint_of(network, "params") | checkpoint_of(network, "params_ema")
    assert list(content) == ["params", "params_detail", "params_ema", "params_ema_detail"]
    assert list(content["params"]) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(content["params_detail"]) == ["weight", "bias"]
    save_checkpoint(content, path)
    back, bare = TwoParts(), tiny_network()
    assert load_weights(back, path) == (6, 6, ())
    assert load_weights(bare, path, "params") == (4, 4, ())
    assert untouched(back, network.state_dict())
    assert untouched(bare, network.main.state_dict())


def test_most_networks_are_one_part() -> None:
    network = tiny_network()
    assert checkpoint_parts(network) == {"": network}
    content = checkpoint_of(network, "params")
    assert list(content) == ["params"]
    assert untouched(network, content["params"])


def test_a_saved_checkpoint_replaces_the_old_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for value in (1.0, 2.0):
        save_checkpoint({"params": published(value)}, path)
        network = tiny_network()
        load_weights(network, path)
        assert values(network) == {value}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.pth"
    save_checkpoint({"params": published(1)}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RainOerMeError) as caught:
            save_checkpoint({"params": published(2)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == (
        f"cannot save {path}: {os.strerror(errno.EFBIG)}; mend that and run again with --auto_resume"
    )
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    path = tmp_path / "file" / "a.pth"
    with pytest.raises(RainOerMeError, match=f"^cannot save {re.escape(str(path))}: .*; mend that and run again"):
        save_checkpoint({"params": published()}, path)
    (tmp_path / "a.pth").mkdir()
    with pytest.raises(RainOerMeError, match=r"^cannot save .*a\.pth: Is a directory; mend that"):
        save_checkpoint({"params": published()}, tmp_path / "a.pth")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pth", "file"]


def test_a_missing_file_is_named_with_the_folder_it_was_looked_for_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"no such checkpoint: weights/a.pth (looked from {Path.cwd()})"
    with pytest.raises(WeightsError, match=f"^{re.escape(expected)}$"):
        read_checkpoint("weights/a.pth")
    with pytest.raises(WeightsError, match="no such checkpoint"):
        read_checkpoint(tmp_path)
    with pytest.raises(WeightsError, match=r"no such checkpoint: a\.safetensors"):
        read_checkpoint("a.safetensors")


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.pth", "a.pt"])
def test_a_torchscript_archive_is_refused_as_that(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    torch.jit.save(torch.jit.trace(tiny_network(), torch.zeros(1, 3)), path)
    expected = f"{path}: a TorchScript archive, which holds code; needed is its state_dict()"
    with pytest.raises(WeightsError, match=f"^{re.escape(expected)}$"):
        read_checkpoint(path)


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


NO_CHECKPOINTS = [
    b"hello world\n",
    b'{"a": 1}',
    b"\x89PNG\r\n\x1a\n" + bytes(50),
    bytes(100),
]


@pytest.mark.parametrize("content", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_called_that(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pth: not a PyTorch checkpoint, or damaged$"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["a.safetensors", "A.SafeTensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_safetensors_file_is_read(name: str, prefix: str, tmp_path: Path) -> None:
    path, network = tmp_path / name, tiny_network()
    safetensors.torch.save_file(published(prefix=prefix), path, metadata={"format": "pt"})
    assert load_weights(network, path) == (4, 4, ())
    assert values(network) == {0.5}


@pytest.mark.parametrize("content", [*NO_CHECKPOINTS, b"\xff" * 40, b"\x08" + bytes(7) + b"{\xff\xfe\xfd    "])
def test_a_file_that_is_no_safetensors_file_is_called_that(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.safetensors: not a safetensors file, or damaged$"):
        read_checkpoint(path)


def test_a_safetensors_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(published(), path)
    content = path.read_bytes()
    for length in [*range(0, len(content), 5), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"a\.safetensors: not a safetensors file, or damaged$"):
            read_checkpoint(path)


def test_what_is_in_a_file_says_how_it_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    assert read_checkpoint(saved(tmp_path / "a.safetensors", published())).keys() == published().keys()
    for name in ("a.pth", "a.ckpt", "a"):
        safetensors.torch.save_file(published(), tmp_path / name)
        assert read_checkpoint(tmp_path / name).keys() == published().keys()


def test_a_safetensors_file_with_values_that_are_not_finite_or_none_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(published() | {"0.bias": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(WeightsError, match=r"a\.safetensors: 0\.bias holds NaN or infinite values"):
        load_weights(tiny_network(), path)
    safetensors.torch.save_file({}, path)
    with pytest.raises(WeightsError, match=r"a\.safetensors: no network's weights found"):
        load_weights(tiny_network(), path)
