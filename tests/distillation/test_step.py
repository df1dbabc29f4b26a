"""One step of the distillation, worked by hand with a network of two numbers."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from plain import plain_forward, plain_ssim, plain_window
from torch import Tensor, nn

from rainoerme_plugin.archs.rainoerme import RainLayers, RainOerMeNet
from rainoerme_plugin.distillation.schedule import StepWeights
from rainoerme_plugin.distillation.step import (
    DistillationStep,
    distillation_gradients,
    distillation_step,
    rain_energy,
)
from rainoerme_plugin.distillation.synthesis import add_rain
from rainoerme_plugin.losses.ssim import SSIMLoss


class TwoNumbers(nn.Module):
    """The rain layer is a times the image, the refined one b times that."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))
        self.seen: list[Tensor] = []

    def forward(self, rainy: Tensor, layers: bool = False) -> Tensor | RainLayers:
        self.seen.append(rainy.detach().clone())
        rain = self.a * rainy
        return RainLayers(rain, self.b * rain) if layers else rainy - rain


def one_colour(value: float) -> Tensor:
    return torch.full((2, 3, 4, 4), value)


def step_of(network: nn.Module, weights: StepWeights) -> DistillationStep:
    squares = nn.MSELoss()
    return distillation_step(network, one_colour(0.8), one_colour(0.5), one_colour(0.4), weights, squares)


def test_losses_images_and_gradients_are_those_worked_by_hand() -> None:
    network = TwoNumbers(a=0.5, b=0.5)
    step = step_of(network, StepWeights(soft=0.5, hard=2.0, gain=1.5))
    # r = 0.4, r~ = 0.2, D = 0.4 + 1.5 * 0.2 = 0.7
    expected = {
        "soft_loss": (0.8 - 0.2 - 0.5) ** 2,
        "hard_loss": (0.7 - 0.35 - 0.4) ** 2,
        "loss": 0.5 * 0.01 + 2 * 0.0025,
        "rain_energy": 0.0,
        "label_energy": 0.0,
    }
    for name, value in expected.items():
        assert float(getattr(step, name).detach()) == pytest.approx(value, abs=1e-7), name
    torch.testing.assert_close(step.rain, one_colour(0.2))
    torch.testing.assert_close(step.derained, one_colour(0.4))
    torch.testing.assert_close(step.synthetic, one_colour(0.7))
    torch.testing.assert_close(network.seen, [one_colour(0.8), one_colour(0.7)])
    step.loss.backward()
    # d soft/da = 2 * 0.1 * -0.4, d hard/da = 2 * -0.05 * -0.7; D is a constant, or d hard/db were not 0.
    assert float(network.a.grad) == pytest.approx(0.5 * -0.08 + 2 * 0.07, abs=1e-6)
    assert float(network.b.grad) == pytest.approx(0.5 * -0.08, abs=1e-6)


def test_synthetic_rain_is_clamped_to_an_image() -> None:
    network = TwoNumbers(a=1.0, b=1.0)
    step = step_of(network, StepWeights(soft=1.0, hard=1.0, gain=1.0))
    torch.testing.assert_close(step.synthetic, one_colour(1.0))


def test_without_hard_weight_there_is_no_second_stage() -> None:
    network = TwoNumbers(a=0.5, b=0.5)
    step = step_of(network, StepWeights(soft=0.5, hard=0.0, gain=1.5))
    assert len(network.seen) == 1
    assert float(step.loss.detach()) == pytest.approx(0.5 * 0.01, abs=1e-7)
    assert float(step.hard_loss) == 0
    assert step.hard_loss.shape == ()
    torch.testing.assert_close(step.synthetic, one_colour(0.4))
    step.loss.backward()
    assert float(network.a.grad) == pytest.approx(0.5 * -0.08, abs=1e-6)


def attached(step: DistillationStep) -> list[str]:
    """What of a step carries a graph; some of it is only there with some options."""
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    return [name for name, value in values.items() if value is not None and value.requires_grad]


@pytest.mark.parametrize("hard", [0.0, 1.5])
def test_everything_but_the_loss_is_detached(hard: float) -> None:
    step = step_of(TwoNumbers(a=0.5, b=0.5), StepWeights(soft=1.0, hard=hard, gain=1.0))
    assert attached(step) == ["loss"]


def test_the_gradient_of_the_papers_network_is_that_of_two_losses_with_the_rain_held_fixed() -> None:
    torch.manual_seed(0)
    network = RainOerMeNet(channels=2).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    rainy, label, clean = torch.rand(3, 2, 3, 8, 8, dtype=torch.float64)
    criterion = SSIMLoss()
    step = distillation_step(network, rainy, label, clean, StepWeights(0.7, 3.0, 1.2), criterion)
    gradients = torch.autograd.grad(step.loss, list(network.parameters()))
    with torch.no_grad():
        synthetic = (clean + 1.2 * network(rainy, layers=True).refined).clamp(0, 1)
    soft = criterion(rainy - network(rainy, layers=True).refined, label)
    hard = criterion(synthetic - network.rain_layer(synthetic), clean)
    oracle = torch.autograd.grad(0.7 * soft + 3 * hard, list(network.parameters()))
    for ours, theirs in zip(gradients, oracle, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    leaky = criterion(network(torch.clamp(clean + 1.2 * network(rainy, layers=True).refined, 0, 1)), clean)
    leaking = torch.autograd.grad(leaky, network.out2[4].weight)[0]
    assert float(leaking.abs().max()) > 1e-6  # the check above would see a leak


def test_rain_energy_is_the_mean_deviation_from_each_channels_mean() -> None:
    layer = torch.zeros(2, 3, 2, 2)
    layer[0, 0] = torch.tensor([[0.0, 0.4], [0.2, 0.6]])  # mean 0.3, deviations 0.3, 0.1, 0.1, 0.3
    layer[0, 1] = 0.5
    layer[1, 2] = torch.tensor([[1.0, 1.0], [1.0, -1.0]])  # mean 0.5, deviations 0.5, 0.5, 0.5, 1.5
    assert float(rain_energy(layer)) == pytest.approx((0.2 + 0.75) / 6, abs=1e-7)
    assert rain_energy(layer).shape == ()


def test_a_layer_of_one_value_a_channel_is_no_rain() -> None:
    layer = torch.tensor([0.1, 0.5, -0.4]).reshape(1, 3, 1, 1).expand(2, 3, 5, 5)
    assert float(rain_energy(layer)) == pytest.approx(0, abs=1e-7)


def test_energies_are_those_of_the_refined_layer_and_of_what_the_label_takes_out() -> None:
    rainy = torch.zeros(1, 3, 1, 2)
    rainy[..., 1] = 0.8
    label = torch.zeros(1, 3, 1, 2)
    label[..., 1] = 0.6
    weights = StepWeights(1.0, 0.0, 1.0)
    step = distillation_step(TwoNumbers(0.5, 0.25), rainy, label, torch.zeros(1, 3, 1, 2), weights, nn.MSELoss())
    # r~ is 0 and 0.1, what the label takes out 0 and 0.2: half of each is the deviation.
    assert float(step.rain_energy) == pytest.approx(0.05, abs=1e-7)
    assert float(step.label_energy) == pytest.approx(0.1, abs=1e-7)
    torch.testing.assert_close(step.derained[0, 0, 0], torch.tensor([0.0, 0.4]))


def test_clean_crops_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        add_rain(one_colour(0.5), torch.zeros(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"clean images \(1, 3, 4, 4\) and rain layers \(2, 3, 4, 4\) differ in shape"):
        distillation_step(
            TwoNumbers(0.5, 0.5),
            one_colour(0.8),
            one_colour(0.5),
            torch.zeros(1, 3, 4, 4),
            StepWeights(1.0, 1.0, 1.0),
            nn.MSELoss(),
        )


# --- gradients ---

GRADIENT_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Of the largest gradient."""


def lively_network(dtype: torch.dtype) -> RainOerMeNet:
    torch.manual_seed(0)
    network = RainOerMeNet(channels=4).to(dtype)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def images_of(dtype: torch.dtype, batch: int = 4, size: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rainy, label, clean = torch.rand(3, batch, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)
    return rainy, label, clean


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten().double() for parameter in network.parameters()])


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", GRADIENT_TOLERANCE)
def test_gradients_are_those_of_the_plain_step(dtype: torch.dtype, layout: torch.memory_format, parts: int) -> None:
    network, (rainy, label, clean) = lively_network(dtype), images_of(dtype)
    window = plain_window(torch.device("cpu"), dtype)
    _, refined = plain_forward(network, rainy)
    soft = 1 - plain_ssim(rainy - refined, label, window)
    synthetic = torch.clamp(clean + 1.3 * refined.detach(), 0, 1)
    hard = 1 - plain_ssim(synthetic - plain_forward(network, synthetic)[0], clean, window)
    (0.6 * soft + 2.5 * hard).backward()
    plain = flat(network)
    network.zero_grad()
    network = network.to(memory_format=layout)
    images = [image.contiguous(memory_format=layout) for image in (rainy, label, clean)]
    step = distillation_gradients(network, *images, StepWeights(0.6, 2.5, 1.3), SSIMLoss(), parts=parts)
    assert float((flat(network) - plain).abs().max() / plain.abs().max()) < GRADIENT_TOLERANCE[dtype]
    assert float(step.loss) == pytest.approx(float((0.6 * soft + 2.5 * hard).detach()), abs=1e-5)
    assert float(step.hard_loss) == pytest.approx(float(hard.detach()), abs=1e-5)
    torch.testing.assert_close(step.rain, refined.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(step.synthetic, synthetic.detach(), atol=1e-5, rtol=0)
    assert attached(step) == []


def test_gradients_are_added_to_those_that_are_there() -> None:
    network, images = lively_network(torch.float64), images_of(torch.float64)
    distillation_gradients(network, *images, StepWeights(1.0, 1.0, 1.0), SSIMLoss())
    once = flat(network)
    distillation_gradients(network, *images, StepWeights(1.0, 1.0, 1.0), SSIMLoss())
    torch.testing.assert_close(flat(network), 2 * once)


@pytest.mark.parametrize("two_stages", [True, False])
def test_weights_may_be_scalars_of_the_device(two_stages: bool) -> None:
    network, images = lively_network(torch.float64), images_of(torch.float64)
    numbers = StepWeights(0.6, 2.5 if two_stages else 0.0, 1.3)
    distillation_gradients(network, *images, numbers, SSIMLoss())
    plain = flat(network)
    network.zero_grad()
    scalars = StepWeights(*(torch.tensor(value, dtype=torch.float64) for value in numbers))
    distillation_gradients(network, *images, scalars, SSIMLoss(), two_stages)
    torch.testing.assert_close(flat(network), plain)


def test_in_bfloat16_networks_compute_in_it_and_losses_in_float32() -> None:
    network, images = lively_network(torch.float32), images_of(torch.float32)
    seen: dict[str, torch.dtype] = {}
    network.block2.conv1.dilated_conv.register_forward_hook(
        lambda module, given, result: seen.update(layer=result.dtype)
    )

    def criterion(image: Tensor, target: Tensor) -> Tensor:
        seen["image"] = image.dtype
        return SSIMLoss()(image, target)

    distillation_gradients(network, *images, StepWeights(0.6, 2.5, 1.3), criterion)
    plain = flat(network)
    assert seen == {"layer": torch.float32, "image": torch.float32}
    network.zero_grad()
    step = distillation_gradients(
        network, *images, StepWeights(0.6, 2.5, 1.3), criterion, parts=2, precision=torch.bfloat16
    )
    assert seen == {"layer": torch.bfloat16, "image": torch.float32}
    assert step.loss.dtype == torch.float32
    likeness = float(nn.functional.cosine_similarity(flat(network), plain, dim=0))
    assert 0.99 < likeness < 1 - 1e-7


def test_an_autocast_around_a_step_is_left_on() -> None:
    network, images = lively_network(torch.float32), images_of(torch.float32)
    seen: list[torch.dtype] = []
    network.block2.conv1.dilated_conv.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    for parts in (1, 2):
        with torch.autocast("cpu", torch.bfloat16):
            distillation_gradients(network, *images, StepWeights(0.6, 2.5, 1.3), SSIMLoss(), parts=parts)
    assert set(seen) == {torch.bfloat16}


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 4 cannot be split into 3 equal parts"):
        distillation_gradients(
            lively_network(torch.float32), *images_of(torch.float32), StepWeights(1, 1, 1), SSIMLoss(), parts=3
        )
