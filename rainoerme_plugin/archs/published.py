"""The files of weights that authors published, and what each was trained on.

A file is known by its checksum, taken of the file as it lies in its authors' repository. Else, as after it was saved
anew, the end of its path and the network that it holds have to be those of the published one: many are ``latest``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_RECDERAIN = "https://github.com/csdwren/RecDerain"
_RAINHEAVY = "RainHeavy*, which holds scenes of Rain100"
_RAIN13K = "Rain13K, which holds Rain100's training sets"


@dataclass(frozen=True)
class Published:
    """A file of weights."""

    file: str
    """Its name here, or where it lies in the source; the end of a path, which may hold ``*``."""
    trained_on: str
    sha256: str | None = None
    source: str | None = None
    """The repository that it lies in, if that is not the network's own."""


_TRAINED_ON = {
    "Rain100L": "RainTrainL, 200 pairs",
    "Rain100H": "RainTrainH without the test scenes, 1,254 pairs",
    "Rain1400": "Rain12600, 12,600 pairs",
}


def _of_prenet(folder: str, *sha256: str) -> tuple[Published, ...]:
    """The files of one of PReNet's networks, in the order of `_TRAINED_ON`."""
    sets = zip(_TRAINED_ON.items(), sha256, strict=True)
    return tuple(Published(f"logs/{test}/{folder}/net_latest.pth", data, digest) for (test, data), digest in sets)


PUBLISHED: Mapping[str, tuple[Published, ...]] = MappingProxyType(
    {
        "RainOerMeNet": (
            # In its source latest_net_G.pth, below code_for_Rain200L, code_for_Rain1400 and code_for_DID_data.
            Published(
                "RainOerMe_Rain200L.pth",
                "Rain200L, 1,800 rainy images without their pairs",
                "838b45ca8e5adcaf8c214d3a5542f1abdf72ded82445abf6a0d0094f5a9bb2e9",
            ),
            Published(
                "RainOerMe_Rain1400.pth",
                "Rain1400, 12,600 rainy images without their pairs",
                "7859923451765d9b87b891f73728c58bf1767598bda92accad8774ffc971f29c",
            ),
            Published(
                "RainOerMe_DID_data.pth",
                "DID-data, 12,000 rainy images without their pairs",
                "1c228b0c5cd5e9e02441b1e00fd31efbd55c0844e8f730ecf602036495197390",
            ),
            Published(
                "default_network.safetensors",
                "scikit-image's photographs without pairs: rain rendered on astronaut, coffee, brick and camera; clean "
                "rocket, gravel, grass, coins, retina and hubble_deep_field",
                "b6ba392ab4716863bb5cd0a88c7ede3f3e71502f51eafc644cbc33f40920ef5b",
                source="this package",
            ),
        ),
        "PRN": _of_prenet(
            "PRN6",
            "ed4be5b78f76dcec5c781e1655dee48c2a90b56993de555945d72e31848aea99",
            "f1d56a7df0851eb087652663781d3f34c4c37a4c7ddd9a3f0802abbede1a06c2",
            "c6620860a51b54afec0c1eebe412f0f1ca00128100f5b23c13758605206a0bf2",
        ),
        "PReNet": _of_prenet(
            "PReNet6",
            "cb9b743bb33cf6e5c56ba45f8ade93add46266dea9fa582e1934dc5eed942333",
            "127c0098787c5272f1f8583f6c5202e7ef674f750cd145a1691912a6d9e96210",
            "d5744dc2e35d73187a3f34936b3413884d293277073ffb78b961a78e65337879",
        ),
        "PRN_r": _of_prenet(
            "PRN6_r",
            "87ee3b1c027b33e7e532a4881c3b077d100cf40c65dd2843690600e3023acee0",
            "99242ce096c9c617bd529a5e189797e8955a4b8611d355974c7c1c64a18b9074",
            "c0f7f18f3d33e26f50af8c693494a03c2776c627140a1d8e0514edd53e9398fb",
        ),
        "PReNet_r": _of_prenet(
            "PReNet6_r",
            "31dd4419cdb0f4da623d974747113d60e2c22803598c39dcf03d789f86a7f62b",
            "ece8127c651cf49026d998fa36857cb9d462c92cf535b640a377fc025f765b5f",
            "c639c19b342d6ae977b7ff8a4b2fbeb24179510a6e57b8bf5ef32d6b071fc8d5",
        ),
        "VRGNetPReNet": (
            Published(
                "for_spa/spamodels/DerainNet_state_800.pt",
                "SPA-Data, real pairs",
                "d571fdafb796cc90e9f9a18e380c449d1e66f537e066e498ba63f83e6079594c",
            ),
            Published(
                "for_syn/syn100lmodels/DerainNet_state_700.pt",
                "RainTrainL",
                "767bf9c96a755a0eb1a6bea4713ba3555134e8e0ee8f4681d80f89f870286837",
            ),
            Published(
                "for_syn/syn100hmodels/DerainNet_state_700.pt",
                "RainTrainH",
                "444da542538a6667f2a3f834ba9d91e1de8e1a1e47e0ec98657270ba0dff6a9a",
            ),
            Published(
                "for_syn/syn1400models/DerainNet_state_700.pt",
                "Rain1400",
                "0e6235c59e8afa1996e9dd1858a1a8995af8e36754e3d42a712ced01201ea5b8",
            ),
        ),
        "BRN": (
            Published(
                "logs/Rain100L/BRN/net_latest.pth",
                "RainTrainL",
                "de9b4bb3e2c076386f8298357e28f5a1d694797a61aadbbafc04f3b7ca93f885",
            ),
            Published(
                "logs/Rain100H/BRN/net_latest.pth",
                "RainTrainH without the test scenes",
                "46db6bbda038b49bc6c4e00d4af473939f586a6505384682769f8b4d98eda567",
            ),
            Published(
                "logs/Rain1400/BRN/net_latest.pth",
                "Rain1400",
                "11b4d2d77a75f081196f2ed77447b1b1b401bedd92543272217391f7ec56c3a2",
            ),
            Published(
                "logs/RainHeavy/BRN/net_latest.pth",
                _RAINHEAVY,
                "8663ddfb16af5065016f707863af12f45a006ff0f2c88639e85ebc05ff7c75fd",
            ),
        ),
        "RESCAN": (
            Published(
                "logs/RainHeavy/RESCAN/latest",
                f"{_RAINHEAVY}; by BRN's authors",
                "237e29616891f599334c236def92ce216ef9662ca1f77437643ac4b1987c58a3",
                source=_RECDERAIN,
            ),
        ),
        "SPANet": (
            Published(
                "model/latest",
                "SPA-Data, real pairs",
                "3b5d58d0f4569004a0d2dc6f4373463bd60991fc8a04c061361357cf012e5eb0",
            ),
            Published(
                "logs/RainHeavy/SPANet/step_40000",
                f"{_RAINHEAVY}; by BRN's authors",
                "53c8c823c7138a7bb3c73db1be38a92bdc78e20bd206bbc202b6dfaa7d8e2189",
                source=_RECDERAIN,
            ),
        ),
        "NAFNet": (Published("NAFNet-GoPro-*, -SIDD-*, -REDS-*", "blur, noise, JPEG; none for rain by its authors"),),
        "KBNet_s": (Published("denoising models in its README", "SIDD, SenseNoise; none for rain"),),
        "KBNet_l": (Published("derain.pth", _RAIN13K),),
        "Uformer": (Published("Uformer_B", "SIDD, GoPro: noise, blur; none for rain"),),
        "SCUNet": (Published("scunet_color_real_psnr.pth", "noise; none for rain"),),
        "IPT": (Published("deraining model in its README", "ImageNet with rain drawn in; tested on Rain100L"),),
        "Restormer": (Published("deraining.pth", _RAIN13K),),
        "MPRNet": (Published("model_deraining.pth", _RAIN13K),),
        "MIRNet_v2": (Published("models in its README", "noise, low light, super-resolution; none for rain"),),
        "M3SNet": (Published("Derain's model_best.pth", _RAIN13K),),
        "SwinIR": (Published("005_colorDN_*.pth", "noise, with upscale: 1; none for rain"),),
    }
)
"""By the network's name in the catalogue, first those of this package, then larger ones."""


def published_file(path: Path, sha256: str, network: str | None) -> Published | None:
    """Which of the published files a file of weights is; None: none that is known.

    Args:
        path: Where it is.
        sha256: Its checksum.
        network: The name in the catalogue of the network that it holds.
    """
    for files in PUBLISHED.values():
        for published in files:
            if published.sha256 == sha256:
                return published
    return next((published for published in PUBLISHED.get(network or "", ()) if path.match(published.file)), None)
