"""Small versions of every network of the catalogue, with random weights that all have an effect."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rainoerme_plugin.archs.catalogue import CATALOGUE

CARDS = {card.name: card for card in CATALOGUE}
ONE_EACH: dict[str, Any] = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1]}
TWO_LEVELS: dict[str, Any] = {"enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
FOUR_LEVELS: dict[str, Any] = {"enc_blk_nums": [1, 1, 1, 1], "dec_blk_nums": [1, 1, 1, 1]}

# The smallest that each constructor makes, with a field of view of less than 184 columns where that ends at all.
SMALL: dict[str, dict[str, Any]] = {
    "RainOerMeNet": {"channels": 4},
    "DerainUNet": {"channels": 16, "encoder": (1,), "middle": 1, "decoder": (1,)},
    "PRN": {"stages": 2, "channels": 4},
    "PReNet": {"stages": 2, "channels": 4},
    "PRN_r": {"stages": 2, "channels": 4},
    "PReNet_r": {"stages": 2, "channels": 4},
    "VRGNetPReNet": {"stages": 2, "channels": 4},
    "BRN": {"stages": 2, "channels": 4},
    "RESCAN": {"stages": 2, "channels": 4, "depth": 4},
    "SPANet": {"channels": 4},
    "NAFNet": {"width": 8, **TWO_LEVELS},
    "KBNet_s": {"width": 8, "middle_blk_num": 1, **TWO_LEVELS},
    "KBNet_l": {"dim": 2, "ffn_expansion_factor": 2, **ONE_EACH},
    "Uformer": {"embed_dim": 4, "depths": [1] * 9, "num_heads": [1] * 9, "win_size": 2},
    "SCUNet": {"config": [1] * 7},
    "IPT": {"patch_size": 12, "n_feats": 4, "num_layers": 1},
    "Restormer": {"dim": 8, **ONE_EACH},
    "MPRNet": {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 2},
    "MIRNet_v2": {"n_feat": 16, "n_MRB": 1},
    "M3SNet": {"width": 4, **FOUR_LEVELS},
    "SwinIR": {"window_size": 4, "upscale": 1, "depths": (2,), "num_heads": (2,), "embed_dim": 8, "img_size": 16},
    "RCAN": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_group": 1, "num_block": 1, "squeeze_factor": 4}
    | {"upscale": 1},
    "EDSR": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 1},
}


def small(name: str, **changes: Any) -> nn.Module:
    """The small network of that name, with random weights that all have an effect."""
    card = CARDS[name]
    if not card.installed:
        pytest.skip(f"{card.package} is not installed")
    torch.manual_seed(0)
    network = card.load()(**(SMALL[name] | changes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network
