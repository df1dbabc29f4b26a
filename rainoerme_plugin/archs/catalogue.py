"""The networks that are known by name: where each comes from, and what it needs; `published` has their files.

Networks of our own stand in this folder. Larger ones come from spandrel; those whose licences restrict their use from
spandrel_extra_arches, which is installed on purpose (``pip install 'spandrel_extra_arches<0.3'``). BasicSR's own
networks are all usable; those listed here are the ones whose needs are known.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from .adapt import Needs
from .published import PUBLISHED, Published

OWN = "rainoerme_plugin"
EXTRA = "spandrel_extra_arches"
INSTALL_EXTRA = "pip install 'spandrel_extra_arches<0.3'"
NOT_STATED = "none stated by its authors; the code here is this package's, Apache-2.0"
ACADEMIC = "Academic Public License: no commercial use"


@dataclass(frozen=True)
class Card:
    """What is known of one network."""

    name: str
    """In option files, under ``type``."""
    target: str
    """``module:class``."""
    paper: str
    source: str
    licence: str
    """Of its authors' code and weights."""
    multiple: int | str = 1
    """`Needs.multiple`; a name is that of the attribute of the network, or of a layer in it, that says it."""
    minimum: int = 1
    square: bool = False
    output: int | None = None
    zeros: bool = False
    channels_last: bool = False
    """`Needs.channels_last`: only for networks that it was measured to make a fifth faster (docs/performance.md)."""
    takes: str = "RGB in [0, 1]"
    """The images that its weights were trained on. All networks here take RGB in [0, 1] and convert by themselves."""
    whole_image: bool | str = False
    """Whether a pixel may depend on the whole image, by statistics or sweeps: a crop or a tile gives something else.
    A name is that of the network's attribute that says it."""
    from_file_only: bool = False
    """Whether ``PretrainedNet`` alone makes it, from a file: it is called in a way of its own."""
    arguments: Callable[[Mapping[str, Tensor]], dict[str, Any]] | None = None
    """The constructor's arguments as far as a state dict tells them; None: files of it are recognised by spandrel."""

    @property
    def published(self) -> tuple[Published, ...]:
        """The files that its authors published."""
        return PUBLISHED.get(self.name, ())

    @property
    def package(self) -> str:
        """The package it comes from."""
        return self.target.partition(".")[0]

    @property
    def registered(self) -> bool:
        """Whether this package adds it to BasicSR's registry, under its name."""
        return self.package != "basicsr" and not self.from_file_only and self.installed

    @property
    def installed(self) -> bool:
        """Whether that package is there."""
        return importlib.util.find_spec(self.package) is not None

    def load(self) -> type[nn.Module]:
        """Import the class."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)

    def needs(self, network: nn.Module) -> Needs:
        """What ``network``, one of this class, asks of its input."""
        multiple = attrgetter(self.multiple)(network) if isinstance(self.multiple, str) else self.multiple
        return Needs(int(multiple), self.minimum, self.square, self.output, self.zeros, self.channels_last)

    def sees_whole_image(self, network: nn.Module) -> bool:
        """`whole_image` of ``network``, one of this class."""
        if isinstance(self.whole_image, str):
            return bool(attrgetter(self.whole_image)(network))
        return self.whole_image


def _channels_of(weight: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """The number of feature channels is the first size of this weight."""
    return lambda state: {"channels": state[weight].shape[0]}


def _of_rainoerme(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"channels": state["inc.0.weight"].shape[0], "detail_layers": 3 if "out2.4.weight" in state else 2}


def _of_derain_unet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    def numbers(start: str) -> list[int]:
        """The different numbers that come after ``start`` in names, in their order."""
        found = (re.match(rf"{re.escape(start)}\.(\d+)\.", name) for name in state)
        return sorted({int(match[1]) for match in found if match})

    def blocks(part: str) -> tuple[int, ...]:
        return tuple(len(numbers(f"{part}.{level}")) for level in numbers(part))

    intro = state["intro.weight"]
    return {
        "channels": intro.shape[0],
        "encoder": blocks("encoder"),
        "middle": len(numbers("middle")),
        "decoder": blocks("decoder"),
        "shrink": math.isqrt(intro.shape[1] // 3),
        "attention": "middle.0.attention.weight" in state,
    }


def _of_rescan(state: Mapping[str, Tensor]) -> dict[str, Any]:
    units = {name.split(".")[1] for name in state if name.startswith("rnns.")}
    return {"channels": state["dec.0.weight"].shape[0], "depth": len(units) + 2}


def _prenet(name: str) -> Card:
    return Card(
        name,
        f"{OWN}.archs.prenet:{name}",
        paper="Ren et al., Progressive Image Deraining Networks, CVPR 2019",
        source="https://github.com/csdwren/PReNet",
        licence=NOT_STATED,
        arguments=_channels_of("conv0.0.weight"),
        channels_last=True,
    )


CATALOGUE: tuple[Card, ...] = (
    Card(
        "RainOerMeNet",
        f"{OWN}.archs.rainoerme:RainOerMeNet",
        paper="Lin et al., Rain O'er Me, IEEE TIP 2020",
        source="https://github.com/HuangxingLin123/Rain-Over-Me",
        licence=NOT_STATED,
        arguments=_of_rainoerme,
        channels_last=True,
    ),
    Card(
        "DerainUNet",
        f"{OWN}.archs.derain_unet:DerainUNet",
        paper="this package's own, of the blocks of Chen et al., Simple Baselines for Image Restoration, ECCV 2022",
        source="https://github.com/megvii-research/NAFNet",
        licence="this package's, Apache-2.0",
        multiple="stride",
        whole_image="attention",
        arguments=_of_derain_unet,
        channels_last=True,
    ),
    _prenet("PRN"),
    _prenet("PReNet"),
    _prenet("PRN_r"),
    _prenet("PReNet_r"),
    Card(
        "VRGNetPReNet",
        f"{OWN}.archs.prenet:VRGNetPReNet",
        paper="Wang et al., From Rain Generation to Rain Removal, CVPR 2021",
        source="https://github.com/hongwang01/VRGNet",
        licence=NOT_STATED,
        arguments=_channels_of("conv0.0.weight"),
        channels_last=True,
    ),
    Card(
        "BRN",
        f"{OWN}.archs.brn:BRN",
        paper="Ren et al., Single Image Deraining Using Bilateral Recurrent Network, IEEE TIP 2020",
        source="https://github.com/csdwren/RecDerain",
        licence=NOT_STATED,
        arguments=_channels_of("conv0.0.weight"),
        channels_last=True,
    ),
    Card(
        "RESCAN",
        f"{OWN}.archs.rescan:RESCAN",
        paper="Li et al., Recurrent Squeeze-and-Excitation Context Aggregation Net, ECCV 2018",
        source="https://github.com/XiaLiPKU/RESCAN",
        licence="MIT",
        takes="BGR in [0, 1]",
        whole_image=True,
        arguments=_of_rescan,
        channels_last=True,
    ),
    Card(
        "SPANet",
        f"{OWN}.archs.spanet:SPANet",
        paper="Wang et al., Spatial Attentive Single-Image Deraining, CVPR 2019",
        source="https://github.com/stevewongv/SPANet",
        licence="BSD-3-Clause",
        takes="BGR in [0, 1]",
        whole_image=True,
        arguments=_channels_of("conv_in.0.weight"),
    ),
    Card(
        "NAFNet",
        "spandrel.architectures.NAFNet:NAFNet",
        paper="Chen et al., Simple Baselines for Image Restoration, ECCV 2022",
        source="https://github.com/megvii-research/NAFNet",
        licence="MIT",
        multiple="padder_size",
        zeros=True,
        whole_image=True,
    ),
    Card(
        "KBNet_s",
        "spandrel.architectures.KBNet:KBNet_s",
        paper="Zhang et al., KBNet: Kernel Basis Network for Image Restoration, 2023",
        source="https://github.com/zhangyi-3/KBNet",
        licence="MIT",
        multiple="padder_size",
        zeros=True,
        whole_image=True,
    ),
    Card(
        "KBNet_l",
        "spandrel.architectures.KBNet:KBNet_l",
        paper="Zhang et al., KBNet: Kernel Basis Network for Image Restoration, 2023",
        source="https://github.com/zhangyi-3/KBNet",
        licence="MIT",
        multiple=16,
        whole_image=True,
    ),
    Card(
        "Uformer",
        "spandrel.architectures.Uformer:Uformer",
        paper="Wang et al., Uformer, CVPR 2022",
        source="https://github.com/ZhendongWang6/Uformer",
        licence="MIT",
        multiple=128,
        square=True,
    ),
    Card(
        "SCUNet",
        "spandrel.architectures.SCUNet:SCUNet",
        paper="Zhang et al., Practical Blind Denoising via Swin-Conv-UNet, 2023",
        source="https://github.com/cszn/SCUNet",
        licence="Apache-2.0",
        multiple=64,
    ),
    Card(
        "IPT",
        "spandrel.architectures.IPT:IPT",
        paper="Chen et al., Pre-Trained Image Processing Transformer, CVPR 2021",
        source="https://github.com/huawei-noah/Pretrained-IPT",
        licence="Apache-2.0",
        minimum=48,
        takes="RGB in [0, 255]",
        from_file_only=True,
    ),
    Card(
        "Restormer",
        f"{EXTRA}.architectures.Restormer:Restormer",
        paper="Zamir et al., Restormer, CVPR 2022",
        source="https://github.com/swz30/Restormer",
        licence=ACADEMIC,
        multiple=8,
        whole_image=True,
    ),
    Card(
        "MPRNet",
        f"{EXTRA}.architectures.MPRNet:MPRNet",
        paper="Zamir et al., Multi-Stage Progressive Image Restoration, CVPR 2021",
        source="https://github.com/swz30/MPRNet",
        licence=ACADEMIC,
        multiple=8,
        output=0,
        whole_image=True,
        channels_last=True,
    ),
    Card(
        "MIRNet_v2",
        f"{EXTRA}.architectures.MIRNet2:MIRNet2",
        paper="Zamir et al., Learning Enriched Features for Fast Image Restoration, TPAMI 2022",
        source="https://github.com/swz30/MIRNetv2",
        licence=ACADEMIC,
        multiple=4,
        whole_image=True,
    ),
    Card(
        "M3SNet",
        f"{EXTRA}.architectures.M3SNet:M3SNet",
        paper="Gao et al., A Mountain-Shaped Single-Stage Network, 2023",
        source="https://github.com/Tombs98/M3SNet",
        licence=ACADEMIC,
        multiple="padder_size",
        whole_image=True,
    ),
    Card(
        "SwinIR",
        "basicsr.archs.swinir_arch:SwinIR",
        paper="Liang et al., SwinIR, ICCVW 2021",
        source="https://github.com/XPixelGroup/BasicSR",
        licence="Apache-2.0",
        multiple="layers.0.residual_group.blocks.0.window_size",
    ),
    Card(
        "RCAN",
        "basicsr.archs.rcan_arch:RCAN",
        paper="Zhang et al., Image Super-Resolution Using Very Deep Residual Channel Attention Networks, ECCV 2018",
        source="https://github.com/XPixelGroup/BasicSR",
        licence="Apache-2.0",
        whole_image=True,
        channels_last=True,
    ),
    Card(
        "EDSR",
        "basicsr.archs.edsr_arch:EDSR",
        paper="Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPRW 2017",
        source="https://github.com/XPixelGroup/BasicSR",
        licence="Apache-2.0",
        channels_last=True,
    ),
)


def card_of(network: nn.Module) -> Card | None:
    """The card of a network's class, if it has one."""
    for card in CATALOGUE:
        module, _, name = card.target.partition(":")
        # A class whose module is not imported yet cannot be this network's.
        if type(network) is getattr(sys.modules.get(module), name, None):
            return card
    return None


def needs_of(network: nn.Module) -> Needs:
    """What a network asks of its input, by its own ``needs`` or its card; an unknown network asks nothing."""
    own = getattr(network, "needs", None)
    if isinstance(own, Needs):
        return own
    card = card_of(network)
    return Needs() if card is None else card.needs(network)
