"""Every network of spandrel's that keeps an image's size, small and random, against spandrel's own call of the file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import OPTIONS, benchmark_options
from torch import Tensor, nn

from rainoerme_plugin.archs.adapt import derain, place
from rainoerme_plugin.archs.catalogue import CATALOGUE, needs_of
from rainoerme_plugin.archs.distillation_net import DistillationNet
from rainoerme_plugin.commands import main
from rainoerme_plugin.data.images import decode_image, to_image, to_tensor
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.inference.derainer import load_derainer
from rainoerme_plugin.inference.export import export_network

# Not above: this package mends torchvision, which spandrel imports, where that is broken.
spandrel: Any = importlib.import_module("spandrel")

ONE_EACH: dict[str, Any] = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 1, 4]}
WINDOWS: dict[str, Any] = {"img_size": 16, "embed_dim": 12, "window_size": 4, "upscale": 1}
MAIN, EXTRA = "spandrel.architectures", "spandrel_extra_arches.architectures"

# Those that the documentation names come first.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "NAFNet": (f"{MAIN}.NAFNet:NAFNet", {"width": 4, "enc_blk_nums": [1, 2, 1], "dec_blk_nums": [1, 1, 1]}),
    "KBNet_s": (
        f"{MAIN}.KBNet:KBNet_s",
        {"width": 4, "middle_blk_num": 1, "enc_blk_nums": [1, 2, 1], "dec_blk_nums": [1, 1, 1]},
    ),
    "KBNet_l": (f"{MAIN}.KBNet:KBNet_l", {"dim": 2, "ffn_expansion_factor": 2, **ONE_EACH}),
    "Uformer": (f"{MAIN}.Uformer:Uformer", {"embed_dim": 4, "depths": [1] * 9, "num_heads": [1] * 9}),
    "IPT": (f"{MAIN}.IPT:IPT", {"patch_size": 12, "n_feats": 4, "num_layers": 1}),
    "SCUNet": (f"{MAIN}.SCUNet:SCUNet", {"config": [1] * 7}),
    "FFTformer": (f"{MAIN}.FFTformer:FFTformer", {"dim": 4, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1}),
    "DRUNet": (f"{MAIN}.DRUNet:DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [4, 4, 4, 4], "nb": 3}),
    "Restormer": (f"{EXTRA}.Restormer:Restormer", {"dim": 8, **ONE_EACH}),
    "MPRNet": (
        f"{EXTRA}.MPRNet:MPRNet",
        {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 2},
    ),
    "MIRNet_v2": (f"{EXTRA}.MIRNet2:MIRNet2", {"n_feat": 16, "n_MRB": 1}),
    "M3SNet": (f"{EXTRA}.M3SNet:M3SNet", {"width": 4, "enc_blk_nums": [1, 1, 1, 2], "dec_blk_nums": [1] * 4}),
    "DnCNN": (f"{MAIN}.DnCNN:DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 5}),
    "FDnCNN": (
        f"{MAIN}.DnCNN:DnCNN",
        {"in_nc": 4, "out_nc": 3, "nc": 8, "nb": 8, "act_mode": "R", "mode": "FDnCNN"},
    ),
    "FBCNN": (f"{MAIN}.FBCNN:FBCNN", {"nc": [4, 4, 4, 512]}),
    "MixDehazeNet": (f"{MAIN}.MixDehazeNet:MixDehazeNet", {"embed_dims": [8, 16, 32, 16, 8], "depths": [1] * 5}),
    "RetinexFormer": (f"{MAIN}.RetinexFormer:RetinexFormer", {"n_feat": 8, "stage": 1}),
    "HVICIDNet": (f"{MAIN}.HVICIDNet:HVICIDNet", {"channels": [4, 4, 8, 16], "heads": [1, 2, 4, 8]}),
    "RestoreFormer": (
        f"{MAIN}.RestoreFormer:RestoreFormer",
        {"n_embed": 16, "embed_dim": 32, "ch": 32, "ch_mult": (1, 1, 1, 2, 2, 2), "num_res_blocks": 1}
        | {"z_channels": 32},
    ),
    "SAFMNBCIE": (f"{MAIN}.SAFMNBCIE:SAFMNBCIE", {"dim": 8, "n_blocks": 1, "num_layers": 1}),
    # For super-resolution, by a factor of 1.
    "Compact": (f"{MAIN}.Compact:Compact", {"num_feat": 8, "num_conv": 2, "upscale": 1}),
    "SwiftSRGAN": (f"{MAIN}.SwiftSRGAN:SwiftSRGAN", {"num_channels": 8, "num_blocks": 1, "upscale_factor": 1}),
    "HAT": (
        f"{MAIN}.HAT:HAT",
        {**WINDOWS, "embed_dim": 32, "depths": [1], "num_heads": [2], "compress_ratio": 2, "squeeze_factor": 4},
    ),
    "GRL": (
        f"{MAIN}.GRL:GRL",
        {**WINDOWS, "img_size": 32, "depths": [1], "stripe_size": [4, 4]}
        | {"num_heads_window": [1], "num_heads_stripe": [1]},
    ),
    "Swin2SR": (f"{MAIN}.Swin2SR:Swin2SR", {**WINDOWS, "depths": [2], "num_heads": [2]}),
    "SwinIR": (f"{MAIN}.SwinIR:SwinIR", {**WINDOWS, "depths": [2], "num_heads": [2]}),
    "OmniSR": (f"{MAIN}.OmniSR:OmniSR", {"num_feat": 8, "up_scale": 1}),
    "RGT": (
        f"{MAIN}.RGT:RGT",
        {"img_size": 16, "embed_dim": 12, "depth": [2], "num_heads": [2], "split_size": [4, 4], "upscale": 1},
    ),
    "DAT": (
        f"{MAIN}.DAT:DAT",
        {"img_size": 16, "embed_dim": 32, "depth": [2], "num_heads": [2], "split_size": [2, 4], "upscale": 1},
    ),
    "CRAFT": (f"{MAIN}.CRAFT:CRAFT", {"embed_dim": 12, "depths": [1], "num_heads": [2], "upscale": 1}),
    "DITN": (f"{MAIN}.DITN:DITN", {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 1}),
    "SPAN": (f"{MAIN}.SPAN:SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 1}),
    "SAFMN": (f"{MAIN}.SAFMN:SAFMN", {"dim": 8, "n_blocks": 1, "upscaling_factor": 1}),
    "DCTLSA": (f"{MAIN}.DCTLSA:DCTLSA", {"nf": 10, "upscale": 1}),
    "DRCT": (f"{MAIN}.DRCT:DRCT", {**WINDOWS, "depths": [1], "num_heads": [2], "gc": 4}),
    "ESRGAN": (f"{MAIN}.ESRGAN:ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 1}),
    "PLKSR": (f"{MAIN}.PLKSR:PLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 1}),
    "RealPLKSR": (f"{MAIN}.PLKSR:RealPLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 1}),
    "SeemoRe": (f"{MAIN}.SeemoRe:SeemoRe", {"scale": 1, "num_experts": 2, "num_layers": 1, "embedding_dim": 8}),
    "MoSR": (f"{MAIN}.MoSR:MoSR", {"upscale": 1, "n_block": 1, "dim": 16}),
    "MoESR": (f"{MAIN}.MoESR:MoESR", {"scale": 1, "dim": 16, "n_blocks": 1, "n_block": 1}),
    "RCAN": (
        f"{MAIN}.RCAN:RCAN",
        {"scale": 1, "unshuffle_mod": True, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16},
    ),
    "FDAT": (f"{MAIN}.FDAT:FDAT", {"scale": 1, "embed_dim": 16, "num_groups": 1, "depth_per_group": 1, "num_heads": 2}),
    "SRFormer": (f"{EXTRA}.SRFormer:SRFormer", {**WINDOWS, "depths": [2], "num_heads": [2]}),
}
NAMED = list(NETWORKS)[:12]
each = pytest.mark.parametrize("name", NETWORKS)


@lru_cache(maxsize=1)
def registry() -> Any:
    """What spandrel knows, with the further networks."""
    found = spandrel.ArchRegistry()
    found.add(*spandrel.MAIN_REGISTRY)
    if importlib.util.find_spec("spandrel_extra_arches"):
        found.add(*importlib.import_module("spandrel_extra_arches").EXTRA_REGISTRY, ignore_duplicates=True)
    return found


@pytest.fixture
def file(name: str, tmp_path: Path) -> Path:
    """A small random network of that name."""
    target, arguments = NETWORKS[name]
    module, _, kind = target.partition(":")
    pytest.importorskip(module.partition(".")[0])
    torch.manual_seed(0)
    network: nn.Module = getattr(importlib.import_module(module), kind)(**arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    torch.save(network.state_dict(), tmp_path / f"{name}.pth")
    return tmp_path / f"{name}.pth"


def by_spandrel(file: Path, rainy: Tensor) -> Tensor:
    descriptor = spandrel.ModelLoader("cpu", registry=registry()).load_from_file(file)
    with torch.no_grad():
        return descriptor.eval()(rainy.clone())


def image(*size: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))


def test_every_network_of_spandrels_in_the_catalogue_is_here() -> None:
    assert {card.name for card in CATALOGUE if card.package.startswith("spandrel")} <= set(NAMED)


@each
@pytest.mark.parametrize("size", [(64, 96), (43, 51)])
def test_a_file_gives_what_spandrel_makes_of_it(name: str, size: tuple[int, int], file: Path) -> None:
    rainy = image(*size)
    before = rainy.clone()
    derained = load_derainer(file, device="cpu")(rainy)
    torch.testing.assert_close(derained, by_spandrel(file, before), rtol=0, atol=1e-4)
    assert torch.equal(rainy, before)


@each
def test_two_images_at_once_give_what_each_gives_alone(name: str, file: Path) -> None:
    network = load_derainer(file, device="cpu").opened.network
    rainy = torch.cat([image(64, 64), 0.5 * image(64, 64)])
    with torch.no_grad():
        together = derain(network, rainy, needs_of(network))
        alone = torch.cat([derain(network, single, needs_of(network)) for single in rainy.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMED)
def test_a_network_runs_in_half_precision_and_learns_as_a_backbone(name: str, file: Path) -> None:
    derained = load_derainer(file, device="cpu", half=True)(image(40, 48))
    assert derained.isfinite().all()
    network = DistillationNet(load_derainer(file, device="cpu").opened.network).requires_grad_(True).train()
    place(network, network.needs)
    # Crops come in the memory format that most networks like best.
    layers = network(torch.cat([image(32, 32)] * 2).to(memory_format=torch.channels_last), layers=True)
    (layers.rain.square().mean() + layers.refined.square().mean()).backward()
    gradients = [parameter.grad for parameter in network.backbone.parameters() if parameter.grad is not None]
    assert len(gradients) > 0.7 * len(list(network.backbone.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ["IPT"])
def test_a_compiled_network_gives_the_same(name: str, file: Path) -> None:
    network = DistillationNet(load_derainer(file, device="cpu").opened.network)
    compiled = torch.compile(network, backend="eager", dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image(40, 48)), network(image(40, 48)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["FFTformer"])
def test_what_cannot_be_exported_says_so_in_one_line(name: str, file: Path, tmp_path: Path) -> None:
    opened = load_derainer(file, device="cpu").opened
    with pytest.raises(OptionError, match="FFTformer cannot be exported for images of all sizes"):
        export_network(opened.network, opened.needs, tmp_path / "a.onnx")


@pytest.mark.parametrize("name", ["FFTformer", "IPT", "NAFNet"])
def test_derain_test_and_benchmark_make_the_same_picture(
    name: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (43, 51, 3), dtype=np.uint8))
    for folder in ("rain", "norain"):
        (tmp_path / "val" / folder).mkdir(parents=True)
        picture.save(tmp_path / "val" / folder / "1.png")
    rainy = tmp_path / "val" / "rain" / "1.png"
    expected = to_image(by_spandrel(file, to_tensor(decode_image(rainy))[None])[0]).astype(int)

    assert main(["derain", str(rainy), "-o", "derain", "-w", str(file), "--device", "cpu"]) == 0
    options = benchmark_options(tmp_path, methods={"one": {"type": "file", "file": str(file)}}, save_images=True)
    assert main(["benchmark", "-opt", str(options), "--device", "cpu"]) == 0
    settings = ["datasets.test.dataroot=val", f"network_g.file={file}", "val.save_img=true"]
    assert main(["test", "-opt", str(OPTIONS / "test.yml"), "--device", "cpu", *settings]) == 0
    found = [path for path in tmp_path.rglob("1.png") if "val" not in path.relative_to(tmp_path).parts[:1]]
    kept = [path for path in found if "panels" not in path.parts]
    assert len(kept) == 3, kept
    for path in kept:
        assert np.abs(decode_image(path).astype(int) - expected).max() <= 1


def test_the_table_holds_arguments_that_its_networks_take() -> None:
    for target, arguments in NETWORKS.values():
        module, _, kind = target.partition(":")
        if importlib.util.find_spec(module.partition(".")[0]):
            known = inspect.signature(getattr(importlib.import_module(module), kind).__init__).parameters
            assert arguments.keys() <= known.keys()
