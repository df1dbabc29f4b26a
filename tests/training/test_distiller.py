"""The step that both engines take: what it refuses, tells and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from both import Normed
from torch import Tensor, nn

from rainoerme_plugin.archs.distillation_net import DistillationNet
from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.errors import OptionError
from rainoerme_plugin.losses.total import LOSSES, SumLoss
from rainoerme_plugin.options import StepOptions, read_section
from rainoerme_plugin.training.distiller import Distiller, check_criterion
from rainoerme_plugin.training.skips import Skips

EVERYTHING: dict[str, Any] = {
    "rain": {"blend": "alpha", "move": True, "flip": True, "turn": 5, "two": 0.5},
    "teacher": {"rain": "ema", "label_weight": 0.5, "label_ramp": 1},
    "confidence": {"enabled": True, "floor": 0.0},
    "rain_share": 0.3,
    "soft_min": 0.4,
}


def options(**values: Any) -> StepOptions:
    return read_section(StepOptions, values, "train")


def distiller(network: nn.Module, given: StepOptions, told: list[str], folder: Path = Path("nowhere")) -> Distiller:
    return Distiller(
        network,
        network,
        SumLoss([{"type": kind} for kind in LOSSES]),
        given,
        Skips(2, folder, told.append),
        told.append,
    )


def images(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    rainy, label, clean = torch.rand(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    return rainy, torch.lerp(rainy, label, torch.tensor([0.02, 0.1, 0.4, 0.9]).view(4, 1, 1, 1)), clean


# --- accumulation ---


@pytest.mark.parametrize("name", [*EVERYTHING, "all of them"])
@pytest.mark.parametrize("parts", [2, 4])
def test_every_option_gives_the_gradients_of_the_whole_batch(name: str, parts: int) -> None:
    asked = EVERYTHING if name == "all of them" else {name: EVERYTHING[name]}
    gradients = []
    for accumulation in (1, parts):
        torch.manual_seed(0)
        network, teacher = RainOerMeNet(4, start="kaiming"), RainOerMeNet(4, start="kaiming").eval()
        network.outc[0].weight.data.mul_(20)
        given = options(distillation=asked, accumulation=accumulation)
        step = distiller(network, given, []).gradients(
            images(), StepWeights(0.7, 2.0, 1.1), 50, seed=3, teacher=teacher
        )
        assert float(step.rain_energy) > 1e-3
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    whole, apart = gradients
    assert float((apart - whole).abs().max() / whole.abs().max()) < 1e-4


@pytest.mark.parametrize("confident", [False, True])
def test_losses_that_are_no_means_of_their_parts_cannot_be_accumulated(confident: bool) -> None:
    from basicsr.losses.basic_loss import L1Loss

    given = {"accumulation": 2, "distillation": {"confidence": {"enabled": confident}}}
    for criterion in (*(kind() for kind in LOSSES.values()), L1Loss()):
        check_criterion(criterion, options(**given))
    with pytest.raises(OptionError, match=r"train\.accumulation: the loss of a batch by L1Loss is not the mean of its"):
        check_criterion(L1Loss(reduction="sum"), options(**given))
    check_criterion(L1Loss(reduction="sum"), options(**{**given, "accumulation": 1}))


def test_batch_norms_that_see_a_part_are_told() -> None:
    told: list[str] = []
    distiller(DistillationNet(Normed()), options(), told)
    distiller(RainOerMeNet(4), options(accumulation=2), told)
    assert told == []
    distiller(DistillationNet(Normed()), options(accumulation=2), told)
    assert len(told) == 1
    assert "train.accumulation: network_g has batch norms" in told[0]
