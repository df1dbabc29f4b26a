"""BasicSR's own option files: those that it runs pass the check, and the others are refused for the reason they have.

``RAINOERME_BASICSR`` names a checkout of BasicSR 1.4.2: its package on the index comes without ``options/``.
"""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from rainoerme_plugin.config import read_options
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.plugin import register
from rainoerme_plugin.schema import check_options

SPYNET = "experiments/pretrained_models/flownet/spynet_sintel_final-3d2a1287.pth"
EDVR = "experiments/pretrained_models/{}.pth"
IN_ITSELF = "network_g.ema_decay: unknown key"
REFUSED = {
    "test/BasicVSR/test_BasicVSR_REDS.yml": SPYNET,
    "test/BasicVSR/test_BasicVSR_Vimeo90K_BDx4.yml": SPYNET,
    "test/BasicVSR/test_BasicVSR_Vimeo90K_BIx4.yml": SPYNET,
    "test/BasicVSR/test_IconVSR_REDS.yml": EDVR.format("BasicVSR/EDVR_REDS_pretrained_for_IconVSR-f62a2f1e"),
    "test/BasicVSR/test_IconVSR_Vimeo90K_BDx4.yml": EDVR.format(
        "BasicVSR/EDVR_Vimeo90K_pretrained_for_IconVSR-ee48ee92"
    ),
    "test/BasicVSR/test_IconVSR_Vimeo90K_BIx4.yml": EDVR.format(
        "BasicVSR/EDVR_Vimeo90K_pretrained_for_IconVSR-ee48ee92"
    ),
    "train/BasicVSR/train_BasicVSR_REDS.yml": SPYNET,
    "train/BasicVSR/train_BasicVSR_Vimeo90K_BDx4.yml": SPYNET,
    "train/BasicVSR/train_BasicVSR_Vimeo90K_BIx4.yml": SPYNET,
    "train/BasicVSR/train_IconVSR_REDS.yml": EDVR.format("edvr_reds_pretrained_new"),
    "train/BasicVSR/train_IconVSR_Vimeo90K_BDx4.yml": EDVR.format("edvr_vimeo90k_pretrained"),
    "train/BasicVSR/train_IconVSR_Vimeo90K_BIx4.yml": EDVR.format("edvr_vimeo90k_pretrained"),
    "train/BasicVSRPP/train_BasicVSRPP_REDS.yml": SPYNET,
    "train/VideoRecurrentGAN/train_VideoRecurrentGANModel_REDS.yml": SPYNET,
    # Keys that the network does not take, and a loss that is not there any more.
    "train/EDVR/train_EDVR_L_x4_SR_REDS.yml": IN_ITSELF,
    "train/EDVR/train_EDVR_L_x4_SR_REDS_woTSA.yml": IN_ITSELF,
    "train/HiFaceGAN/train_hifacegan.yml": "train.feature_matching_opt.type: no loss is called 'GANFeatLoss'",
}
"""Of the 70 files, those that BasicSR cannot run either without a file that is not here, or at all."""

PASS = [
    "test/DUF/test_DUF_official.yml",
    "test/EDSR/test_EDSR_Lx2.yml",
    "test/EDSR/test_EDSR_Lx3.yml",
    "test/EDSR/test_EDSR_Lx4.yml",
    "test/EDSR/test_EDSR_Mx2.yml",
    "test/EDSR/test_EDSR_Mx3.yml",
    "test/EDSR/test_EDSR_Mx4.yml",
    "test/EDVR/test_EDVR_L_deblur_REDS.yml",
    "test/EDVR/test_EDVR_L_deblurcomp_REDS.yml",
    "test/EDVR/test_EDVR_L_x4_SR_REDS.yml",
    "test/EDVR/test_EDVR_L_x4_SR_Vid4.yml",
    "test/EDVR/test_EDVR_L_x4_SR_Vimeo90K.yml",
    "test/EDVR/test_EDVR_L_x4_SRblur_REDS.yml",
    "test/EDVR/test_EDVR_M_x4_SR_REDS.yml",
    "test/ESRGAN/test_ESRGAN_x4.yml",
    "test/ESRGAN/test_ESRGAN_x4_woGT.yml",
    "test/ESRGAN/test_RRDBNet_PSNR_x4.yml",
    "test/HiFaceGAN/test_hifacegan.yml",
    "test/HiFaceGAN/test_hifacegan_woGT.yml",
    "test/RCAN/test_RCAN.yml",
    "test/SRResNet_SRGAN/test_MSRGAN_x4.yml",
    "test/SRResNet_SRGAN/test_MSRResNet_x2.yml",
    "test/SRResNet_SRGAN/test_MSRResNet_x3.yml",
    "test/SRResNet_SRGAN/test_MSRResNet_x4.yml",
    "test/SRResNet_SRGAN/test_MSRResNet_x4_woGT.yml",
    "test/TOF/test_TOF_official.yml",
    "train/ECBSR/train_ECBSR_x2_m4c16_prelu.yml",
    "train/ECBSR/train_ECBSR_x4_m4c16_prelu.yml",
    "train/ECBSR/train_ECBSR_x4_m4c16_prelu_RGB.yml",
    "train/EDSR/train_EDSR_Lx2.yml",
    "train/EDSR/train_EDSR_Lx3.yml",
    "train/EDSR/train_EDSR_Lx4.yml",
    "train/EDSR/train_EDSR_Mx2.yml",
    "train/EDSR/train_EDSR_Mx3.yml",
    "train/EDSR/train_EDSR_Mx4.yml",
    "train/EDVR/train_EDVRM_woTSA_GAN_TODO.yml",
    "train/EDVR/train_EDVR_M_x4_SR_REDS.yml",
    "train/EDVR/train_EDVR_M_x4_SR_REDS_woTSA.yml",
    "train/ESRGAN/train_ESRGAN_x4.yml",
    "train/ESRGAN/train_RRDBNet_PSNR_x4.yml",
    "train/LDL/train_LDL_Real_x4.yml",
    "train/RCAN/train_RCAN_x2.yml",
    "train/RealESRGAN/train_realesrgan_x2plus.yml",
    "train/RealESRGAN/train_realesrgan_x4plus.yml",
    "train/RealESRGAN/train_realesrnet_x2plus.yml",
    "train/RealESRGAN/train_realesrnet_x4plus.yml",
    "train/SRResNet_SRGAN/train_MSRGAN_x4.yml",
    "train/SRResNet_SRGAN/train_MSRResNet_x2.yml",
    "train/SRResNet_SRGAN/train_MSRResNet_x3.yml",
    "train/SRResNet_SRGAN/train_MSRResNet_x4.yml",
    "train/StyleGAN/train_StyleGAN2_256_Cmul2_FFHQ.yml",
    "train/SwinIR/train_SwinIR_SRx2_scratch.yml",
    "train/SwinIR/train_SwinIR_SRx4_scratch.yml",
]


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder() -> Path:
    checkout = os.environ.get("RAINOERME_BASICSR")
    if not checkout:
        pytest.skip("RAINOERME_BASICSR is not set: it names a checkout of BasicSR 1.4.2")
    return Path(checkout) / "options"


def test_all_files_are_listed(folder: Path) -> None:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.yml")}
    assert found == {*PASS, *REFUSED}
    assert (len(PASS), len(REFUSED)) == (53, 17)


@pytest.mark.parametrize("file", PASS)
def test_what_basicsr_runs_passes(folder: Path, file: str) -> None:
    check_options(read_options(folder / file), training=file.startswith("train"))


@pytest.mark.parametrize("file", REFUSED)
def test_what_basicsr_cannot_run_is_refused_for_its_reason(folder: Path, file: str) -> None:
    options = read_options(folder / file)
    with pytest.raises(OptionError) as refused:
        check_options(options, training=file.startswith("train"))
    assert REFUSED[file] in str(refused.value)
    assert ("No such file or directory" in str(refused.value)) == REFUSED[file].endswith(".pth")
    assert built_by_basicsr(options) is not None


def built_by_basicsr(options: dict[str, Any]) -> Exception | None:
    """What BasicSR itself raises over networks and losses of an option file."""
    from basicsr.archs import build_network
    from basicsr.losses import build_loss

    try:
        for key, value in deepcopy(options).items():
            if key.startswith("network_"):
                build_network(value)
        for key, value in deepcopy(options.get("train") or {}).items():
            if key.endswith("_opt") and value.get("type") != "PerceptualLoss":  # which downloads its network
                build_loss(value)
    except Exception as error:
        return error
    return None


# --- the same kinds, without the files ---


def stock(**changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": "stock",
        "model_type": "SRModel",
        "datasets": {
            "train": {
                "name": "a",
                "type": "PairedImageDataset",
                "dataroot_gt": "x",
                "dataroot_lq": "y",
                "io_backend": {"type": "disk"},
                "gt_size": 96,
                "use_hflip": True,
                "use_rot": True,
            }
        },
        "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1},
        "train": {
            "optim_g": {"type": "Adam", "lr": 1e-4},
            "scheduler": {"type": "MultiStepLR", "milestones": [200_000]},
            "total_iter": 300_000,
            "pixel_opt": {"type": "L1Loss"},
        },
        "logger": {"print_freq": 10, "save_checkpoint_freq": 10},
    }
    for key, value in changes.items():
        *way, last = key.split("__")
        place = options
        for name in way:
            place = place.setdefault(name, {})
        place[last] = value
    return options


def test_a_network_that_computes_with_what_it_makes_passes() -> None:
    ecbsr = {"type": "ECBSR", "num_in_ch": 3, "num_out_ch": 3, "num_block": 1, "num_channel": 8}
    ecbsr.update(with_idt=False, act_type="prelu", scale=2)
    assert check_options(stock(network_g=ecbsr), training=True) == []
    with pytest.raises(OptionError, match="network_g: "):
        check_options(stock(network_g={**ecbsr, "act_type": "none such"}), training=True)


@pytest.mark.parametrize("border", [0, 4, 60, 300])
def test_a_metric_passes_that_wants_more_than_its_border(border: int) -> None:
    metrics = {"niqe": {"type": "calculate_niqe", "crop_border": border, "better": "lower"}}
    metrics["psnr"] = {"type": "calculate_psnr", "crop_border": border}
    assert check_options(stock(val__metrics=metrics), training=True) == []


def test_a_key_that_a_metric_of_basicsrs_takes_to_ignore_it_warns() -> None:
    metrics = {"niqe": {"type": "calculate_niqe", "crop_border": 0, "test_y_channel": True}}
    told = ["val.metrics.niqe.test_y_channel: nothing seems to read this key"]
    assert check_options(stock(val__metrics=metrics), training=True) == told
    with pytest.raises(OptionError, match="did you mean 'convert_to'"):
        check_options(stock(val__metrics__niqe={**metrics["niqe"], "convert_too": "y"}), training=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "EDSR (x2), lr=1e-4: [first]"},
        {"name": "x" * 150},
        {"scale": 1.5},
        {"datasets__train__dataset_enlarge_ratio": 0.5},
        {"datasets__train__pin_memory": 1},
        {"val__metrics__psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": 1}},
        {"network_g__img_range": 100_000},
        {"train__optim_g__fused": True},
        {"train__optim_g__capturable": True},
        {"dist_params": {"backend": "nccl", "init_method": "env://"}},
        {"logger__wandb": {"project": None, "entity": "us"}},
        {"path__flow_network": None},
    ],
    ids=str,
)
def test_what_basicsr_takes_is_not_refused(changes: dict[str, Any]) -> None:
    check_options(stock(**changes), training=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train__pixel_opt__loss_weight": "1e-2"},
            "train.pixel_opt.loss_weight: '1e-2' is text to YAML; write 1.0e-2",
        ),
        (
            {"val__metrics__psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": "ture"}},
            "val.metrics.psnr.test_y_channel: expected true or false, got 'ture'; did you mean 'true'?",
        ),
        ({"network_g__num_feat": "many"}, "network_g.num_feat: "),
        ({"train__optim_g__lr": -1}, "train.optim_g: Invalid learning rate"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_basicsr_fails_on_or_reads_wrongly_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as refused:
        check_options(stock(**changes), training=True)
    assert message in str(refused.value)


@pytest.fixture
def of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another plugin has registered, which works in ways of its own."""
    from basicsr.models.sr_model import SRModel
    from basicsr.utils import registry

    class SceneLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()

        def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert image.shape[1] == 7, "seven channels"
            return (image - target).mean()

    class OtherModel(SRModel):
        def setup_optimizers(self) -> None:
            self.optimizers = []

        def setup_schedulers(self) -> None:
            self.schedulers = []

    def faces(img: Any, img2: Any) -> float:
        raise ValueError("no face in this image")

    tables = (
        (registry.LOSS_REGISTRY, SceneLoss),
        (registry.MODEL_REGISTRY, OtherModel),
        (registry.METRIC_REGISTRY, faces),
    )
    for table, found in tables:
        monkeypatch.setitem(table._obj_map, found.__name__, found)


def test_of_other_plugins_a_trial_decides_nothing(of_others: None) -> None:
    told = check_options(
        stock(train__pixel_opt={"type": "SceneLoss"}, val__metrics={"faces": {"type": "faces"}}), training=True
    )
    assert len(told) == 2
    assert "train.pixel_opt: seven channels" in told[1]
    assert "val.metrics.faces: no face in this image" in told[0]
    with pytest.raises(OptionError, match=r"train\.pixel_opt\.weight: unknown key"):
        check_options(stock(train__pixel_opt={"type": "SceneLoss", "weight": 1}), training=True)


def test_a_model_of_others_may_make_its_optimisers_and_losses_its_own_way(of_others: None) -> None:
    options = stock(model_type="OtherModel", train__optim_g={"type": "Lion", "lr": 1}, train__ema_opt={"decay": 0.9})
    options["train"]["scheduler"] = {"type": "OneCycle"}
    check_options(options, training=True)
    with pytest.raises(OptionError, match=r"optim_g\.type: no optimiser 'Lion'"):
        check_options(stock(train__optim_g={"type": "Lion", "lr": 1}), training=True)
