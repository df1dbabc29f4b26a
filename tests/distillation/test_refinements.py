"""What is done beyond the paper, worked by hand with networks of two numbers; nothing is done by default."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rainoerme_plugin.archs.rainoerme import RainLayers, RainOerMeNet
from rainoerme_plugin.distillation.confidence import Confidence
from rainoerme_plugin.distillation.rain_layers import RainVariation
from rainoerme_plugin.distillation.refinements import PAPER, OnDevice, Refinements, StepRefinements, Teacher
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.distillation.step import distillation_gradients, distillation_step
from rainoerme_plugin.losses.ssim import SSIMLoss
from rainoerme_plugin.losses.total import SumLoss


class TwoNumbers(nn.Module):
    """The rain layer is a times the image, the refined one b times that."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, rainy: Tensor, layers: bool = False) -> Tensor | RainLayers:
        rain = self.a * rainy
        return RainLayers(rain, self.b * rain) if layers else rainy - rain


def one_colour(value: float) -> Tensor:
    return torch.full((2, 3, 4, 4), value)


def step_of(refined: StepRefinements, teacher: nn.Module | None = None, network: nn.Module | None = None) -> Any:
    network = network or TwoNumbers(0.5, 0.5)
    images = one_colour(0.8), one_colour(0.5), one_colour(0.4)
    return distillation_step(network, *images, StepWeights(1.0, 2.0, 1.0), nn.MSELoss(), None, refined, teacher)


# --- the paper's way ---


def test_by_default_gradients_are_bit_for_bit_those_of_the_plain_step() -> None:
    torch.manual_seed(0)
    network = RainOerMeNet(channels=4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    rainy, label, clean = torch.rand(3, 4, 3, 16, 16)
    criterion = SSIMLoss()
    refined = Refinements().at(5, batch=4)
    assert refined == PAPER
    distillation_gradients(network, rainy, label, clean, StepWeights(0.6, 2.5, 1.3), criterion, refined=refined)
    ours = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    layers = network(rainy, layers=True)
    soft = criterion(rainy - layers.refined, label)
    synthetic = torch.clamp(clean + 1.3 * layers.refined.detach(), 0, 1)
    (0.6 * soft + 2.5 * criterion(network(synthetic), clean)).backward()
    assert all(torch.equal(one, other.grad) for one, other in zip(ours, network.parameters(), strict=True))


# --- teacher ---


def test_the_teachers_rain_goes_onto_clean_images_and_the_student_learns_its_own_label() -> None:
    network, teacher = TwoNumbers(0.5, 0.5), TwoNumbers(0.25, 0.5)
    step = step_of(StepRefinements(teacher_rain=True), teacher, network)
    torch.testing.assert_close(step.synthetic, one_colour(0.4 + 0.8 * 0.25 * 0.5))
    torch.testing.assert_close(step.rain, one_colour(0.2))
    assert float(step.soft_loss) == pytest.approx((0.8 - 0.2 - 0.5) ** 2, abs=1e-7)
    step.loss.backward()
    assert teacher.a.grad is None
    assert network.a.grad is not None


def test_the_label_is_mixed_with_what_the_teacher_derained() -> None:
    teacher = TwoNumbers(0.25, 0.0)  # derained 0.6
    step = step_of(StepRefinements(teacher_label=True, label_share=0.5), teacher)
    assert float(step.soft_loss) == pytest.approx((0.6 - (0.5 + 0.6) / 2) ** 2, abs=1e-7)
    torch.testing.assert_close(step.synthetic, one_colour(0.6))  # the student's rain
    step.loss.backward()
    assert teacher.a.grad is None


def test_a_refinement_without_its_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no teacher"):
        step_of(StepRefinements(teacher_rain=True))


def test_the_teacher_starts_and_its_share_grows() -> None:
    refinements = Refinements(teacher=Teacher(True, start=10, label_weight=0.8, label_start=20, label_ramp=40))
    steps = {iteration: refinements.at(iteration, 2) for iteration in (10, 11, 20, 21, 40, 60, 500)}
    assert [step.teacher_rain for step in steps.values()] == [False] + [True] * 6
    assert [step.teacher_label for step in steps.values()] == [False] * 3 + [True] * 4
    shares = [float(step.label_share) for step in steps.values()]
    assert shares == pytest.approx([0, 0, 0, 0.8 / 40, 0.4, 0.8, 0.8])
    assert [step.kernels for step in steps.values()][2:4] == [(True, False), (True, True)]


# --- rain share ---


@pytest.mark.parametrize(("b", "factor"), [(0.0, 0.0), (0.1, 0.0), (0.25, 0.25), (0.4, 1.0), (0.5, 1.0)])
def test_the_hard_loss_waits_for_rain(b: float, factor: float) -> None:
    rainy = torch.zeros(1, 3, 1, 2)
    rainy[..., 1] = 0.8
    label = torch.zeros(1, 3, 1, 2)
    # The label takes out 0 and 0.8, deviation 0.4; rain of 0 and 0.8 b has 0.4 b: a share of b, of which 0.4 is asked.
    network = TwoNumbers(1.0, b)
    clean = torch.full((1, 3, 1, 2), 0.2)
    step = distillation_step(
        network, rainy, label, clean, StepWeights(0.0, 2.0, 1.0), nn.MSELoss(), None, StepRefinements(rain_share=0.4)
    )
    assert float(step.hard_loss) > 0 or b == 0
    assert float(step.loss.detach()) == pytest.approx(2 * factor * float(step.hard_loss), abs=1e-6)


def test_where_labels_take_out_nothing_the_hard_factor_is_a_number() -> None:
    refined = StepRefinements(rain_share=0.4)
    assert float(refined.hard_factor(torch.tensor(0.0), torch.tensor(0.0))) == 0
    assert float(refined.hard_factor(torch.tensor(0.1), torch.tensor(0.0))) == 1


class Deviation(nn.Module):
    """The rain layer is a share of the deviation from the image's mean: rain and texture alike."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, rainy: Tensor, layers: bool = False) -> Tensor | RainLayers:
        rain = self.share * (rainy - rainy.mean(dim=(-2, -1), keepdim=True))
        return RainLayers(rain, rain) if layers else rainy - rain


@pytest.mark.parametrize(("rain_share", "least", "most"), [(0.0, 0.0, 0.05), (0.6, 0.25, 0.7)])
def test_training_that_would_collapse_stays_where_rain_is_found(rain_share: float, least: float, most: float) -> None:
    """A network that cannot tell rain from texture loses least by finding none, with a hard weight a thousandfold."""
    generator = torch.Generator().manual_seed(0)
    rainy = 0.2 + 0.4 * (torch.rand(2, 3, 12, 12, generator=generator) > 0.8)
    label, clean = torch.full_like(rainy, 0.2), torch.rand(2, 3, 12, 12, generator=generator)
    network, refined = Deviation(), StepRefinements(rain_share=rain_share)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        weights = StepWeights(0.01, 10.0, 1.0)
        step = distillation_step(network, rainy, label, clean, weights, nn.L1Loss(), None, refined)
        step.loss.backward()
        optimiser.step()
    assert least <= float(step.rain_energy / step.label_energy) <= most


# --- rain layers, confidence, parts ---


def test_layers_are_varied_before_they_are_added() -> None:
    rainy = torch.rand(2, 3, 4, 4)
    draw = torch.tensor([[1.0, 0.5, 0, 0, 1, 0, 0, 1], [0.0, 2.0, 0, 0, 1, 0, 0, 1]])
    refined = StepRefinements(variation=RainVariation(move=True, strength=(0.5, 2.0)), draw=draw)
    step = distillation_step(
        TwoNumbers(0.2, 1.0),
        rainy,
        rainy,
        torch.full_like(rainy, 0.1),
        StepWeights(1.0, 1.0, 1.0),
        nn.MSELoss(),
        None,
        refined,
    )
    torch.testing.assert_close(step.synthetic[0], 0.1 + 0.5 * 0.2 * rainy[1])
    torch.testing.assert_close(step.synthetic[1], 0.1 + 2.0 * 0.2 * rainy[0])


def test_screen_and_alpha_put_less_rain_on_bright_places() -> None:
    rain, rainy = one_colour(0.2), one_colour(0.6)
    screen = StepRefinements(blend="screen").synthesise(one_colour(0.5), rain, rainy, 1.0)
    torch.testing.assert_close(screen, one_colour(0.5 + 0.2 * 0.5))
    # Behind the rain was 0.4: 0.2 of the 0.6 that were left to white.
    alpha = StepRefinements(blend="alpha").synthesise(one_colour(0.5), rain, rainy, 1.0)
    torch.testing.assert_close(alpha, one_colour(0.5 + 0.2 / 0.6 * 0.5))


def test_confidence_weighs_the_soft_loss_alone() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.given: list[Tensor | None] = []

        def forward(self, image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
            self.given.append(weight)
            return (image - target).abs().mean()

    criterion, confidence = Kept(), Confidence(tolerance=0.1, floor=0.0)
    distillation_step(
        TwoNumbers(0.5, 0.5),
        one_colour(0.8),
        one_colour(0.9),
        one_colour(0.4),
        StepWeights(1.0, 1.0, 1.0),
        criterion,
        None,
        StepRefinements(confidence=confidence),
    )
    soft, hard = criterion.given
    assert hard is None
    assert soft is not None
    torch.testing.assert_close(soft, torch.full((2, 1, 4, 4), torch.e**-1.0))


EVERY_LOSS = [
    {"type": kind, **more}
    for kind, more in (
        ("SSIMLoss", {}),
        ("CharbonnierLoss", {}),
        ("GradientLoss", {}),
        ("FrequencyLoss", {}),
        ("FrequencyLoss", {"part": "amplitude"}),
    )
]
REFINED: dict[str, Refinements] = {
    "paper": Refinements(),
    "screen": Refinements(blend="screen"),
    "alpha": Refinements(blend="alpha"),
    "move": Refinements(variation=RainVariation(move=True)),
    "two": Refinements(variation=RainVariation(two=0.9)),
    "varied": Refinements(variation=RainVariation(flip=True, upturn=True, turn=10, strength=(0.5, 2), size=(0.8, 1.4))),
    "teacher's rain": Refinements(teacher=Teacher(rain=True)),
    "teacher's label": Refinements(teacher=Teacher(label_weight=0.6)),
    "confidence": Refinements(confidence=Confidence(floor=0.1)),
    "rain_share": Refinements(rain_share=0.35),
    "everything": Refinements(
        "alpha",
        RainVariation(move=True, flip=True, turn=5, two=0.5),
        Teacher(rain=True, label_weight=0.3),
        Confidence(floor=0.0),
        0.35,
    ),
    "bank": Refinements(bank=1.0),
    "half of it the bank's": Refinements(bank=0.5),
    "bank, varied": Refinements(
        variation=RainVariation(move=True, flip=True, turn=10, strength=(0.5, 2), two=0.5, none=0.3, grey=True),
        teacher=Teacher(label_weight=0.6),
        confidence=Confidence(floor=0.1),
        rain_share=0.35,
        bank=0.5,
    ),
}


@pytest.mark.parametrize("hard", [0.0, 2.5], ids=["warm-up", "both stages"])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("name", REFINED)
def test_in_parts_gradients_and_figures_are_those_of_the_whole_batch(name: str, parts: int, hard: float) -> None:
    rainy, label, clean = _unlike_images()
    bank = 0.4 * _unlike_images()[1].flip(-1) if REFINED[name].bank else None
    steps, gradients = [], []
    for number in (1, parts):
        network, teacher = _lively(0), _lively(1).eval()
        refined = REFINED[name].at(500, batch=4, seed=3)
        if refined.draw is not None:
            refined = refined._replace(draw=refined.draw.double())
        steps.append(
            distillation_gradients(
                network, rainy, label, clean, StepWeights(0.6, hard, 1.3), SumLoss(EVERY_LOSS).double(),
                refined=refined, teacher=teacher, bank=bank, parts=number,
            )
        )  # fmt: skip
        gradients.append(
            torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])
        )
    whole, apart = gradients
    assert whole.shape == apart.shape
    assert float((apart - whole).abs().max() / whole.abs().max()) < 1e-12
    for figure in ("loss", "soft_loss", "hard_loss", "rain", "layer", "synthetic", "rain_energy"):
        torch.testing.assert_close(getattr(steps[1], figure), getattr(steps[0], figure), rtol=1e-12, atol=1e-12)
    if name == "rain_share" and hard:  # which has its say here, and would say something else of each part
        share = float(steps[0].loss - 0.6 * steps[0].soft_loss) / (hard * float(steps[0].hard_loss))
        assert 0.1 < share < 0.9


def _unlike_images() -> tuple[Tensor, Tensor, Tensor]:
    """Four rainy crops whose rain is of all strengths, so that no part of the batch is like the whole."""
    generator = torch.Generator().manual_seed(3)
    rainy, label, clean = torch.rand(3, 4, 3, 16, 16, generator=generator, dtype=torch.float64)
    strengths = torch.tensor([0.02, 0.1, 0.4, 0.9], dtype=torch.float64).view(4, 1, 1, 1)
    return rainy, torch.lerp(rainy, label, strengths), clean


def _lively(seed: int) -> RainOerMeNet:
    torch.manual_seed(seed)
    network = RainOerMeNet(channels=4).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.14)
    return network


# --- rain of a bank ---


def colours(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()


def test_with_all_rain_of_a_bank_there_is_one_loss_worked_by_hand() -> None:
    """f(x) = a x; D = C + q B, the derained image (1 - a) D, and the loss its mean square distance from C."""
    a, clean, rain, gain = 0.3, 0.4, 0.2, 1.5
    network = TwoNumbers(a, 0.7)
    step = distillation_step(
        network, colours(0.9, 0.9), colours(0.1, 0.1), colours(clean, clean), StepWeights(0.6, 0.0, gain),
        torch.nn.functional.mse_loss, refined=StepRefinements(bank=1.0), bank=colours(rain, rain),
    )  # fmt: skip
    rainy = clean + gain * rain
    assert float(step.loss.detach()) == pytest.approx(((1 - a) * rainy - clean) ** 2)
    assert float(step.hard_loss) == pytest.approx(float(step.loss.detach()))
    assert float(step.soft_loss) == 0
    for image, value in ((step.rainy, rainy), (step.synthetic, rainy), (step.label, clean), (step.layer, a * rainy)):
        torch.testing.assert_close(image, colours(value, value))
    torch.testing.assert_close(step.derained, colours(*[(1 - a) * rainy] * 2))
    step.loss.backward()
    assert float(network.a.grad) == pytest.approx(-2 * rainy * ((1 - a) * rainy - clean), rel=1e-5)
    assert network.b.grad is None  # nothing goes through the detail enhancement block


@pytest.mark.parametrize("parts", [1, 2])
def test_a_share_of_the_bank_goes_onto_the_images_that_were_drawn(parts: int) -> None:
    network = TwoNumbers(0.5, 0.5)
    refined = StepRefinements(bank=0.5, from_bank=torch.tensor([True, False]))
    step = distillation_gradients(
        network, colours(0.8, 0.8), colours(0.4, 0.4), colours(0.1, 0.1), StepWeights(1.0, 1.0, 1.0),
        torch.nn.functional.mse_loss, refined=refined, bank=colours(0.3, 0.3), parts=parts,
    )  # fmt: skip
    found = float(step.rain[0, 0, 0, 0])
    assert found > 0
    torch.testing.assert_close(step.synthetic, colours(0.1 + 0.3, 0.1 + found))
    assert float(step.soft_loss) > 0  # the labels are learnt as before


def test_without_a_bank_a_share_of_it_changes_nothing() -> None:
    """Where too few places were found, training is the present way, to the bit."""
    rainy, label, clean = _unlike_images()
    gradients = []
    for refinements in (Refinements(), Refinements(bank=1.0), Refinements(bank=0.5)):
        network = _lively(0)
        distillation_gradients(
            network, rainy, label, clean, StepWeights(0.6, 2.0, 1.0), torch.nn.functional.mse_loss,
            refined=refinements.at(7, 4),
        )  # fmt: skip
        gradients.append(torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None]))
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_who_gets_the_banks_rain_is_drawn_anew_and_in_that_share() -> None:
    assert Refinements().at(1, 8).from_bank is None
    assert Refinements(bank=1.0).at(1, 8).from_bank is None
    draws = [Refinements(bank=0.3).at(iteration, 8, seed=5).from_bank for iteration in range(1, 501)]
    told = torch.stack([draw for draw in draws if draw is not None]).double()
    assert told.shape == (500, 8)
    assert float(told.mean()) == pytest.approx(0.3, abs=0.03)
    assert float(told.mean(dim=0).max()) < 0.4
    assert len({tuple(row) for row in told.tolist()}) > 100
    again = Refinements(bank=0.3).at(7, 8, seed=5).from_bank
    assert again is not None
    assert torch.equal(again.double(), told[6])
    others = [Refinements(bank=0.3).at(iteration, 8, seed=6).from_bank for iteration in range(1, 501)]
    assert not torch.equal(torch.stack([draw for draw in others if draw is not None]).double(), told)


def test_who_gets_it_stays_at_one_place_of_the_device() -> None:
    on_device = OnDevice(torch.device("cpu"))
    first = on_device(Refinements(bank=0.5).at(1, 8)).from_bank
    assert first is not None
    address, values = first.data_ptr(), first.clone()
    second = on_device(Refinements(bank=0.5).at(2, 8)).from_bank
    assert second is not None
    assert second.data_ptr() == address
    assert not torch.equal(second, values)


def test_numbers_stay_at_one_place_of_the_device() -> None:
    refinements = Refinements(variation=RainVariation(strength=(0.5, 1.5)), teacher=Teacher(label_weight=0.5))
    on_device = OnDevice(torch.device("cpu"))
    first = on_device(refinements.at(10, 4))
    assert isinstance(first.draw, Tensor)
    assert isinstance(first.label_share, Tensor)
    addresses, values = (first.draw.data_ptr(), first.label_share.data_ptr()), first.draw.clone()
    second = on_device(refinements.at(20, 4))
    assert isinstance(second.draw, Tensor)
    assert isinstance(second.label_share, Tensor)
    assert (second.draw.data_ptr(), second.label_share.data_ptr()) == addresses
    assert not torch.equal(second.draw, values)
    assert float(second.label_share) == pytest.approx(0.5 * 20 / 1000)
    assert on_device(PAPER) == PAPER


@pytest.mark.parametrize(
    "make",
    [
        lambda: Refinements(rain_share=1.5),
        lambda: Teacher(label_weight=-0.1),
        lambda: Teacher(label_ramp=0),
        lambda: Teacher(start=-1),
        lambda: Refinements(bank=1.5),
        lambda: Refinements(bank=-0.1),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|at least"):
        make()


def test_a_bank_does_not_know_what_alpha_asks() -> None:
    with pytest.raises(ValueError, match=r"blend: alpha asks what lies behind the rain.*; take screen"):
        Refinements(blend="alpha", bank=0.5)
