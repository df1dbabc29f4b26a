"""The methods of a benchmark: what each makes of an image, what is known of it, and what it is refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small import small
from tiny import write_images, write_network

import rainoerme_plugin
from rainoerme_plugin import weights
from rainoerme_plugin.archs.adapt import Needs
from rainoerme_plugin.archs.catalogue import needs_of
from rainoerme_plugin.archs.prenet import PReNet
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.archs.runner import Runner
from rainoerme_plugin.benchmark.methods import Method, open_method
from rainoerme_plugin.benchmark.options import METHODS
from rainoerme_plugin.benchmark.records import key_of
from rainoerme_plugin.data.images import decode_image
from rainoerme_plugin.distillation.filters import build_filter
from rainoerme_plugin.errors import DataError, OptionError, RainOerMeError, WeightsError
from rainoerme_plugin.options import read_section

RUN = Runner(torch.device("cpu"))
RAINY = np.random.default_rng(0).integers(0, 256, (33, 41, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(RAINY).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    rainoerme_plugin.register()


def opened(type: str, rounding: Any = "round", datasets: tuple[str, ...] = ("d",), **options: Any) -> Method:
    return open_method("m", read_section(METHODS[type], {"type": type, **options}, "methods.m"), rounding, datasets)


def expected(network: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return network(TENSOR)[0].clamp(0, 1).mul(255).permute(1, 2, 0).numpy()


def test_the_input_is_the_rainy_image() -> None:
    method = opened("input")
    assert method(RAINY, "d", "1.png", RUN) is RAINY
    assert (method.parameters, method.sha256, method.trained_on) == (None, None, None)


def test_a_filter_is_the_coarse_filter() -> None:
    method = opened("filter", filter={"type": "rank", "window": [1, 7], "percent": 35})
    assert np.array_equal(method(RAINY, "d", "", RUN), build_filter("rank", window=[1, 7], percent=35)(RAINY))
    assert method.about == "coarse filter rank-1x7-35"
    assert method.parameters is None


@pytest.mark.parametrize(("rounding", "down"), [("round", False), ("floor", True)])
def test_a_file_is_its_network(tmp_path: Path, rounding: str, down: bool) -> None:
    file = write_network(tmp_path / "net.pth")
    method = opened("file", rounding=rounding, file=str(file))
    network = RainOerMeNet(4)
    network.load_state_dict(torch.load(file, weights_only=True)["params"])
    values = expected(network)
    result = method(RAINY, "d", "1.png", RUN)
    assert result.dtype == np.uint8
    wanted = np.floor(values) if down else np.rint(values)
    assert np.mean(result != wanted) < 1e-3
    assert method.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert (method.about, method.file) == ("RainOerMeNet", file)
    assert method.card is not None
    assert method.card.paper.startswith("Lin et al.")


def test_a_method_may_round_in_its_own_way(tmp_path: Path) -> None:
    method = opened("file", rounding="round", file=str(write_network(tmp_path / "net.pth")))
    assert opened("file", file=str(tmp_path / "net.pth"), **{"rounding": "floor"}).rounding == "floor"
    assert method.rounding == "round"


def test_a_named_network_takes_its_arguments(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PReNet(stages=3, channels=4)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    options = {"type": "PReNet", "stages": 3, "channels": 4}
    method = opened("network", network=options, file=str(tmp_path / "net.pth"))
    assert np.abs(method(RAINY, "d", "", RUN) - np.rint(expected(network))).max() <= 1
    other = opened("network", network={**options, "stages": 2}, file=str(tmp_path / "net.pth"))
    assert other.identity != method.identity
    assert not np.array_equal(other(RAINY, "d", "", RUN), method(RAINY, "d", "", RUN))


def test_parameters_are_those_that_a_checkpoint_keeps_of_the_bare_network(tmp_path: Path) -> None:
    network = small("PReNet")
    torch.save(network.state_dict(), tmp_path / "net.pth")
    options = {"type": "DistillationNet", "backbone": {"type": "PReNet", "stages": 2, "channels": 4}}
    method = opened("network", network=options, file=str(tmp_path / "net.pth"))
    assert method.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert method.about == "PReNet"


def test_a_network_of_spandrel_is_known_by_its_card(tmp_path: Path) -> None:
    torch.save(small("NAFNet").state_dict(), tmp_path / "net.pth")
    method = opened("file", file=str(tmp_path / "net.pth"))
    assert method.about == "NAFNet"
    assert method.card is not None
    assert method.whole_image
    assert method(RAINY, "d", "", RUN).shape == RAINY.shape


@pytest.mark.parametrize("attention", [False, True])
def test_whether_a_network_sees_the_whole_image_may_follow_from_its_arguments(tmp_path: Path, attention: bool) -> None:
    torch.save(small("DerainUNet", attention=attention).state_dict(), tmp_path / "net.pth")
    method = opened("file", file=str(tmp_path / "net.pth"))
    assert method.about == "DerainUNet"
    assert method.whole_image == attention
    assert not opened("input").whole_image


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_another_precision_gives_nearly_the_same(tmp_path: Path, precision: Any) -> None:
    method = opened("file", file=str(write_network(tmp_path / "net.pth")))
    exact = method(RAINY, "d", "", RUN).astype(int)
    other = method(RAINY, "d", "", Runner(torch.device("cpu"), precision)).astype(int)
    assert 0 < np.abs(exact - other).max() < 6


def test_a_run_is_its_options_and_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PReNet(stages=2, channels=4)
    run = {
        "network_g": {
            "type": "DistillationNet",
            "backbone": {"type": "PReNet", "stages": 2, "channels": 4},
            "pretrained": "gone.pth",
        },
        "datasets": {"train": {"dataroot_rainy": "data/mine/rain", "dataroot_clean": "data/bsd"}},
    }
    folder = tmp_path / "experiments" / "mine"
    (folder / "models").mkdir(parents=True)
    (folder / "options.yml").write_text(yaml.safe_dump(run))
    torch.save({"params_ema": network.state_dict()}, folder / "models" / "net_g_latest.pth")
    method = opened("run", folder=str(folder))
    assert np.abs(method(RAINY, "d", "", RUN) - np.rint(expected(network))).max() <= 1
    assert method.training_images == ["data/mine/rain", "data/bsd"]
    assert method.trained_on == "data/mine/rain without pairs, clean images of data/bsd"
    assert method.about == "PReNet, latest of the run mine"
    run["datasets"]["train"]["dataroot_rainy"] = ["data/mine/rain", "data/yours"]  # type: ignore[index]
    (folder / "options.yml").write_text(yaml.safe_dump(run))
    method = opened("run", folder=str(folder))
    assert method.training_images == ["data/mine/rain", "data/yours", "data/bsd"]
    assert method.trained_on == "data/mine/rain, data/yours without pairs, clean images of data/bsd"
    said = opened("run", folder=str(folder), trained_on="my photographs", training_images=["x"])
    assert (said.trained_on, said.training_images) == ("my photographs", ["x"])
    with pytest.raises(WeightsError, match=r"methods\.m: no such checkpoint: .*net_g_500\.pth"):
        opened("run", folder=str(folder), iteration=500)


def test_result_images_are_looked_up_by_data_set(tmp_path: Path) -> None:
    write_images(tmp_path / "d", 1, seed=1)
    write_images(tmp_path / "e", 1, seed=2)
    rainy = np.zeros((40, 48, 3), np.uint8)
    method = opened("images", datasets=("d", "e"), folder=str(tmp_path))
    assert np.array_equal(method(rainy, "d", "1.png", RUN), decode_image(tmp_path / "d" / "1.png"))
    assert np.array_equal(method(rainy, "e", "1.jpg", RUN), decode_image(tmp_path / "e" / "1.png"))
    assert method.file_identity("d", "1.png") != method.file_identity("e", "1.png")
    named = opened("images", datasets=("d", "e"), folder={"d": str(tmp_path / "e")})
    assert np.array_equal(named(rainy, "d", "1.png", RUN), decode_image(tmp_path / "e" / "1.png"))
    with pytest.raises(DataError, match=r"methods\.m\.folder: names no folder for the data set e"):
        named(rainy, "e", "1.png", RUN)


@pytest.mark.parametrize(
    ("file", "trained_on"),
    [
        ("RainOerMe_Rain200L.pth", "Rain200L, 1,800 rainy images without their pairs"),
        ("net_latest.pth", None),  # the name of many
        ("latest.pth", None),
        ("mine.pth", None),
    ],
)
def test_what_a_published_file_was_trained_on_is_known_by_its_name(
    tmp_path: Path, file: str, trained_on: str | None
) -> None:
    assert opened("file", file=str(write_network(tmp_path / file))).trained_on == trained_on


def test_a_published_file_is_of_its_own_network_alone(tmp_path: Path) -> None:
    # RESCAN's file is called as SPANet's is; only its folders say whose it is.
    torch.manual_seed(0)
    for place in ("model/latest", "logs/RainHeavy/RESCAN/latest", "mine/latest"):
        (tmp_path / place).parent.mkdir(parents=True)
        torch.save(small("RESCAN").state_dict(), tmp_path / place)
    trained = [
        opened("file", file=str(tmp_path / place)).trained_on
        for place in ("model/latest", "logs/RainHeavy/RESCAN/latest", "mine/latest")
    ]
    assert trained[0] is trained[2] is None
    assert (trained[1] or "").startswith("RainHeavy*")


@pytest.mark.parametrize("kind", ["file", "network", "run"])
def test_weights_that_change_while_they_are_read_are_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    file = write_network(tmp_path / "models" / "net_g_latest.pth")
    (tmp_path / "options.yml").write_text("network_g: {type: RainOerMeNet, channels: 4}")
    options: dict[str, Any] = {
        "file": {"file": str(file)},
        "network": {"network": {"type": "RainOerMeNet", "channels": 4}, "file": str(file)},
        "run": {"folder": str(tmp_path)},
    }[kind]
    opened(kind, **options)
    read = weights.read_checkpoint

    def replaced(path: Path) -> Any:
        found = read(path)
        write_network(file, gain=1.5)
        return found

    monkeypatch.setattr(weights, "read_checkpoint", replaced)
    with pytest.raises(WeightsError, match=r"methods\.m: .*net_g_latest\.pth has changed while it was read; run again"):
        opened(kind, **options)


def test_an_identity_holds_all_that_a_result_depends_on(tmp_path: Path) -> None:
    file = write_network(tmp_path / "a.pth")
    first = opened("file", file=str(file))
    assert opened("file", file=str(file.rename(tmp_path / "b.pth"))).identity == first.identity
    assert opened("file", rounding="floor", file=str(tmp_path / "b.pth")).identity != first.identity
    assert opened("file", file=str(write_network(tmp_path / "b.pth", gain=2))).identity != first.identity
    assert opened("filter", filter={"type": "rank"}).identity != opened("filter", filter={"type": "median"}).identity


def test_values_that_are_not_finite_are_an_error() -> None:
    class Bad(torch.nn.Module):
        def forward(self, rainy: torch.Tensor) -> torch.Tensor:
            return rainy / 0

    for rainy in (TENSOR, RAINY):
        with pytest.raises(RuntimeError, match="not finite in float32"):
            RUN(Bad(), Needs(), rainy)


def test_large_images_go_through_the_network_in_tiles(tmp_path: Path) -> None:
    file = str(write_network(tmp_path / "net.pth"))
    cut, kept = (opened("file", file=file, tile=tile) for tile in (16, 0))
    assert (opened("file", file=file).tile, cut.tile, kept.tile) == (None, 16, 0)
    whole = opened("file", file=file)(RAINY, "d", "", RUN)
    assert np.array_equal(kept(RAINY, "d", "", RUN), whole)
    assert np.mean(cut(RAINY, "d", "", RUN) != whole) < 1e-3
    with RUN.placed(cut.network, cut.needs):
        assert cut.network is not None
        torch.testing.assert_close(
            RUN(cut.network, cut.needs, TENSOR, tile=16), RUN(cut.network, cut.needs, TENSOR), rtol=0, atol=1e-5
        )


def test_tiles_are_part_of_the_identity_where_they_change_the_result(tmp_path: Path) -> None:
    file = str(write_network(tmp_path / "net.pth"))
    assert len({key_of(opened("file", file=file, tile=tile).identity) for tile in ("auto", 0, 16)}) == 1
    torch.save(small("RESCAN").state_dict(), tmp_path / "rescan.pth")
    options: dict[str, Any] = {
        "network": {"type": "RESCAN", "stages": 2, "channels": 4, "depth": 4},
        "file": str(tmp_path / "rescan.pth"),
    }
    keys = [key_of(opened("network", **options, tile=tile).identity) for tile in ("auto", 0, 16, 17)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("tile", [-1, "whole", 2.5])
def test_a_tile_is_a_size(tile: Any) -> None:
    with pytest.raises(OptionError, match=r"methods\.m\.tile"):
        opened("file", file="x", tile=tile)


def test_a_filter_has_no_tiles() -> None:
    with pytest.raises(OptionError, match=r"methods\.m\.tile: unknown key"):
        opened("filter", filter={"type": "rank"}, tile=16)


def test_a_network_computes_in_channels_last() -> None:
    kept = RainOerMeNet(4)
    with RUN.placed(kept, needs_of(kept)):
        assert kept.inc[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("type", "options", "message"),
    [
        ("file", {"file": "nowhere.pth"}, r"methods\.m: no such checkpoint: nowhere\.pth"),
        ("filter", {"filter": {"type": "folder", "path": "x"}}, "a folder of labels is no filter"),
        ("filter", {"filter": {"type": "rank", "window": [2, 2]}}, r"methods\.m\.filter: window must be two odd"),
        ("filter", {"filter": {"type": "renk"}}, r"methods\.m\.filter\.type: no coarse filter 'renk'; did you mean"),
        ("network", {"network": {"type": "PReNett"}, "file": "x"}, r"methods\.m\.network\.type: .* did you mean"),
        ("network", {"network": {"type": "PReNet", "stage": 3}, "file": "x"}, r"methods\.m\.network\.stage"),
        ("network", {"network": {"type": "ResultImages", "folder": "."}, "file": "x"}, "images"),
        ("run", {"folder": "nowhere"}, r"methods\.m: nowhere is no folder of a training run"),
        ("images", {"folder": "nowhere"}, r"methods\.m: no such folder: nowhere"),
    ],
)
def test_what_cannot_be_made_is_one_line(type: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RainOerMeError, match=message):
        opened(type, **options)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = write_network(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"methods\.m: .*does not fit PReNet \(it is of RainOerMeNet"):
        opened("network", network={"type": "PReNet"}, file=str(file))


def test_a_run_without_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "options.yml").write_text("name: x\n")
    with pytest.raises(OptionError, match=r"options\.yml: network_g: is missing"):
        opened("run", folder=str(tmp_path))
