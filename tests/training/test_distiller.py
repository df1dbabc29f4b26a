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
from rainoerme_plugin.distillation.adversarial import PatchDiscriminator, fooling_loss, telling_loss
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.errors import NonFiniteError, OptionError, WeightsError
from rainoerme_plugin.losses.total import LOSSES, SumLoss
from rainoerme_plugin.options import StepOptions, read_section
from rainoerme_plugin.training.checks import check_criterion, check_trainable
from rainoerme_plugin.training.distiller import Distiller, named_losses
from rainoerme_plugin.training.skips import Skips

EVERYTHING: dict[str, Any] = {
    "rain": {"blend": "alpha", "move": True, "flip": True, "turn": 5, "two": 0.5},
    "teacher": {"rain": "ema", "label_weight": 0.5, "label_ramp": 1},
    "confidence": {"enabled": True, "floor": 0.0},
    "rain_share": 0.3,
    "soft_min": 0.4,
    "adversarial": {"weight": 0.5, "channels": 4, "layers": 2},
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


# --- numbers that go wrong ---


class Broken(nn.Module):
    """A loss that is a number, with gradients that are none, from a step on and for so many steps; or no number."""

    def __init__(self, start: int = 1, steps: int = 10**6, itself: bool = False) -> None:
        super().__init__()
        self.broken, self.itself, self.count = range(start, start + steps), itself, 0

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        self.count += 1
        loss: Tensor = LOSSES["SSIMLoss"]()(image, target)
        if self.count in self.broken:
            if self.itself:
                return loss * float("nan")
            return loss + torch.sqrt((image - image.detach()).abs()).sum()  # 0, and infinitely steep
        return loss


def train(distiller: Distiller, steps: int) -> tuple[list[bool], list[float]]:
    """Whether each of so many steps was one, and the scale after it."""
    network = distiller.bare
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    done, scales = [], []
    for iteration in range(1, steps + 1):
        step = distiller.gradients(images(), StepWeights(1.0, 0.0, 1.0), iteration)
        may = distiller.may_step(step, images(), iteration, {}, optimizer)
        if may:
            distiller.scaler.step(optimizer)
            distiller.scaler.update()
        done.append(may)
        scales.append(distiller.scaler.get_scale())
    return done, scales


@pytest.mark.parametrize(("precision", "uncounted"), [("float32", 0), ("bfloat16", 0), ("float16", 16)])
def test_gradients_that_are_never_numbers_end_the_run_in_every_precision(
    tmp_path: Path, precision: str, uncounted: int
) -> None:
    told: list[str] = []
    network = RainOerMeNet(4)
    before = [parameter.clone() for parameter in network.parameters()]
    skips = Skips(2, tmp_path, told.append)
    broken = Distiller(network, network, Broken(), options(precision=precision), skips, told.append)
    train(broken, uncounted + 2)  # from 65,536 down to 1 the scale may have been too large
    assert [line.partition(":")[0] for line in told] == [f"iteration {uncounted + 1}", f"iteration {uncounted + 2}"]
    assert "gradient of" in told[0]
    assert "is NaN" in told[0]
    with pytest.raises(NonFiniteError, match="3 steps went like that"):
        train(broken, 1)
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_some_such_steps_are_left_out_and_training_goes_on() -> None:
    told: list[str] = []
    network, given = RainOerMeNet(4), options(precision="float16")
    done, scales = train(Distiller(network, network, Broken(3, 2), given, Skips(2, Path(), told.append), print), 6)
    assert done == [True, True, False, False, True, True]
    assert scales == [65536, 65536, 32768, 16384, 16384, 16384]
    assert told == []


def test_a_loss_that_is_no_number_is_counted_and_leaves_the_scale_of_float16() -> None:
    told: list[str] = []
    network, given = RainOerMeNet(4), options(precision="float16")
    broken = Broken(2, 1, itself=True)
    done, scales = train(Distiller(network, network, broken, given, Skips(2, Path(), told.append), print), 4)
    assert done == [True, False, True, True]
    assert scales == [65536] * 4
    assert len(told) == 1
    assert "iteration 2: the soft loss is NaN" in told[0]


# --- clipping ---


def clipped(grad_clip: float | None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Gradients as they were computed, and as an optimiser gets them."""
    torch.manual_seed(0)
    network = RainOerMeNet(4, start="kaiming")
    made = distiller(network, options(grad_clip=grad_clip), [])
    step = made.gradients(images(), StepWeights(0.7, scale, 1.0), 5, seed=3)
    before = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    assert made.may_step(step, images(), 5, {}, optimizer)
    return before, torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def test_gradients_are_scaled_down_to_the_norm_and_never_up() -> None:
    before, after = clipped(None)
    assert torch.equal(before, after)
    norm = float(before.double().square().sum().sqrt())
    before, after = clipped(norm / 4)
    torch.testing.assert_close(after, before / 4, rtol=1e-4, atol=0)
    assert float(after.double().square().sum().sqrt()) == pytest.approx(norm / 4, rel=1e-4)
    before, after = clipped(norm * 2)
    assert torch.equal(before, after)


@pytest.mark.parametrize("value", [0, -1.0, "1e-3", float("nan")])
def test_a_norm_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^train\.grad_clip: "):
        options(grad_clip=value)


# --- rain of a bank ---


def test_a_batch_that_went_wrong_is_kept_with_the_rain_of_its_bank(tmp_path: Path) -> None:
    network = RainOerMeNet(4)
    made = Distiller(
        network, network, SumLoss([{"type": "SSIMLoss"}]), options(distillation={"rain": {"bank": 1}}),
        Skips(1, tmp_path, [].append), print,
    )  # fmt: skip
    batch = (*images(), torch.full((4, 3, 16, 16), 0.25))
    step = made.gradients(batch, StepWeights(1.0, 1.0, 1.0), 1)
    made.skip(step, batch, 1, {})
    with pytest.raises(NonFiniteError):
        made.skip(step, batch, 2, {})
    (file,) = tmp_path.glob("*.pth")
    kept = torch.load(file, weights_only=True)
    for name, image in zip(("rainy", "label", "clean", "rain"), batch, strict=True):
        assert torch.equal(kept[name], image)
    assert torch.equal(kept["layer"], step.rain)
    assert kept["layer"].shape == (4, 3, 16, 16)


# --- the adversarial loss ---


def judged(told: list[str], **changes: Any) -> Distiller:
    torch.manual_seed(0)
    asked = {"adversarial": {**EVERYTHING["adversarial"], **changes}}
    return distiller(RainOerMeNet(4, start="kaiming"), options(distillation=asked), told)


def discriminator(of: Distiller) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in of.state_dict()["adversary"]["discriminator"].items()}


def test_without_an_adversarial_loss_nothing_is_kept_or_logged_of_one() -> None:
    plain = distiller(RainOerMeNet(4), options(), [])
    step = plain.gradients(images(), StepWeights(1.0, 0.0, 1.0), 1)
    assert step.adversarial is None
    assert set(plain.state_dict()) == {"scaler"}
    assert set(named_losses(step)) == {"l_soft", "l_hard", "rain_energy"}


def test_both_sides_begin_after_the_start_and_the_loss_is_in_the_sum() -> None:
    made = judged([], start=1)
    before = discriminator(made)
    done, _ = train(made, 1)
    assert done == [True]
    assert all(torch.equal(value, before[name]) for name, value in discriminator(made).items())
    step = made.gradients(images(), StepWeights(1.0, 2.0, 1.0), 2)
    assert step.adversarial is not None
    assert float(step.loss) == pytest.approx(float(step.soft_loss + 2 * step.hard_loss + step.adversarial.fooling / 2))
    assert set(named_losses(step)) >= {"l_adversarial", "l_discriminator"}
    assert made.may_step(step, images(), 2, {}, torch.optim.SGD(made.bare.parameters(), lr=1e-3))
    assert not any(torch.equal(value, before[name]) for name, value in discriminator(made).items())


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_neither_side_steps_where_the_discriminators_numbers_went_wrong(tmp_path: Path, precision: str) -> None:
    told: list[str] = []
    asked = {"adversarial": EVERYTHING["adversarial"]}
    made = distiller(RainOerMeNet(4, start="kaiming"), options(distillation=asked, precision=precision), told, tmp_path)
    network = [parameter.clone() for parameter in made.bare.parameters()]
    before = discriminator(made)
    white = images()[2].clone()
    white[0, 0, 0, 0] = float("nan")
    given = (*images()[:2], white)
    step = made.gradients(given, StepWeights(1.0, 0.0, 1.0), 1)
    assert bool(torch.isfinite(step.loss))
    assert not made.may_step(step, given, 1, {}, torch.optim.SGD(made.bare.parameters(), lr=1.0))
    assert len(told) == 1
    assert "NaN" in told[0]
    assert made.scaler.get_scale() == (65536 if precision == "float16" else 1)
    train(made, 1)
    assert any(not torch.equal(value, before[name]) for name, value in discriminator(made).items())
    assert not all(torch.equal(*pair) for pair in zip(network, made.bare.parameters(), strict=True))


def test_rain_is_told_from_a_banks_or_from_none() -> None:
    told: list[str] = []
    made = judged(told, domain="rain")
    bank = images()[0].flip(-1)
    step = made.gradients((*images(), bank), StepWeights(1.0, 0.0, 1.0), 1)
    assert step.adversarial is not None
    with torch.no_grad():
        fresh = judged([], domain="rain")
        opponent = PatchDiscriminator(4, 2)
        opponent.load_state_dict(discriminator(fresh))
        losses = fooling_loss(opponent(step.layer)), telling_loss(opponent(bank), opponent(step.layer))
    torch.testing.assert_close(list(step.adversarial), list(losses))
    assert made.gradients(images(), StepWeights(1.0, 0.0, 1.0), 2).adversarial is None
    assert len(told) == 1
    assert "there is no bank of rain" in told[0]


def test_the_discriminator_of_another_run_is_refused_on_one_line() -> None:
    state = judged([]).state_dict()
    for other in (judged([], channels=8), judged([], layers=3)):
        with pytest.raises(WeightsError, match=r"is not that of train\.distillation\.adversarial") as caught:
            other.load_state_dict(state)
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="discriminator"):
        judged([]).load_state_dict({"scaler": {}, "adversary": {"discriminator": 3}})


def test_a_backbone_that_is_not_trained_cannot_fool_anyone() -> None:
    network, asked = DistillationNet(Normed()), {"adversarial": EVERYTHING["adversarial"]}
    check_trainable(network, "DistillationNet", options(distillation=asked, backbone={"lr_factor": 0.1}), None)
    with pytest.raises(OptionError, match=r"train\.distillation\.adversarial: a backbone that is not trained"):
        check_trainable(network, "DistillationNet", options(distillation=asked, backbone={"lr_factor": 0}), None)
