"""Which network a state dict belongs to: one of our own by its names and shapes, else one that spandrel recognises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import WeightsError
from .adapt import Needs
from .catalogue import CATALOGUE, EXTRA, INSTALL_EXTRA, Card, needs_of

Call: TypeAlias = Callable[[nn.Module, Tensor], Tensor]

ONE_BY_ONE = ("IPT", "DRUNet", "DnCNN", "SeemoRe")
"""Networks whose call in spandrel takes single images only."""


class _NoFirstValues(TorchFunctionMode):
    """Networks that are made meanwhile get no first values.

    Without a device there are none to be seen; and to draw them PyTorch imports its compiler, half a second long.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


class UnknownNetworkError(WeightsError):
    """Weights of a network that is not known."""


class SpandrelNet(nn.Module):
    """A network that spandrel has recognised, called the way spandrel calls it; checkpoints hold the bare network."""

    def __init__(self, network: nn.Module, call: Call, needs: Needs) -> None:
        super().__init__()
        self.network = network
        self.call = call
        self.needs = needs

    def forward(self, rainy: Tensor) -> Tensor:
        return self.call(self.network, rainy)

    def checkpoint_parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds: the network as spandrel knows it."""
        return {"": self.network}


def recognise(*states: Mapping[str, Tensor]) -> nn.Module:
    """The network that a state dict belongs to, with its weights, ready for `adapt.derain`.

    How many stages a recurrent network was trained with, no state dict tells: it gets the usual number.

    Args:
        states: The state dict; or what may be it, of which the first counts that is known.

    Raises:
        UnknownNetworkError: No network is known that has these weights.
        WeightsError: It is none that keeps an image's size, or the weights are not numbers.
    """
    for state in states:  # all of them, before spandrel is asked of any: it takes a second to import
        if own := find_own(state):
            return _build(*own, state)
    problem: UnknownNetworkError | None = None
    for state in states:
        try:
            return _from_spandrel(state)
        except UnknownNetworkError as error:
            problem = problem or error
    raise problem or UnknownNetworkError("no weights")


def _build(card: Card, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    with _NoFirstValues():
        network = card.load()(**arguments)
    if whole := first_whole(state, network.state_dict()):
        raise WeightsError(f"{whole} holds whole numbers, not weights of {card.name}")
    network.load_state_dict(state)
    return network


def first_whole(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """The name of the first of the weights that are whole numbers and should be others: quantised, or of no network."""
    floats = (name for name, value in own.items() if value.is_floating_point() and name in state)
    return next((name for name in floats if not state[name].is_floating_point()), None)


def find_own(state: Mapping[str, Tensor]) -> tuple[Card, dict[str, Any]] | None:
    """The network of this package that has exactly these weights, and its arguments."""
    shapes = {name: value.shape for name, value in state.items()}
    for card in CATALOGUE:
        if card.arguments is None:
            continue
        try:
            arguments = card.arguments(state)
            with torch.device("meta"), _NoFirstValues():
                candidate = card.load()(**arguments).state_dict()
        except Exception:  # noqa: S112 - of other weights, or of sizes that no network has
            continue
        if shapes == {name: value.shape for name, value in candidate.items()}:
            return card, arguments
    return None


def _from_spandrel(state: Mapping[str, Tensor]) -> nn.Module:
    import spandrel

    registry = spandrel.ArchRegistry()
    registry.add(*spandrel.MAIN_REGISTRY)
    extra = True
    try:
        import spandrel_extra_arches

        registry.add(*spandrel_extra_arches.EXTRA_REGISTRY, ignore_duplicates=True)
    except ImportError:
        extra = False
    try:
        descriptor = registry.load(dict(state))
    except spandrel.UnsupportedModelError:
        missing = "" if extra else f"; {EXTRA} knows more (Restormer, MPRNet ...): {INSTALL_EXTRA}"
        raise UnknownNetworkError(
            f"the weights are of no network that this package or spandrel recognises{missing}"
        ) from None
    except Exception as error:  # spandrel deduces sizes from weights that may be of something else
        reason = str(error).partition("\n")[0].rstrip(":")
        raise WeightsError(f"spandrel takes the weights for a network that they do not fit ({reason})") from None
    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise WeightsError(f"the weights are of {name}, which takes a mask beside the image: no derainer")
    if descriptor.scale != 1:
        raise WeightsError(f"the weights are of {name}, which does not keep an image's size: no derainer")
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels != (3, 3):
        raise WeightsError(f"the weights are of {name} from {channels[0]} to {channels[1]} channels; a derainer has 3")
    size = descriptor.size_requirements
    own = needs_of(descriptor.model)
    multiple, minimum = max(size.multiple_of, own.multiple), max(size.minimum, 1)
    needs = replace(own, multiple=multiple, minimum=minimum, square=size.square, output=None)
    # spandrel's public call clamps and forbids gradients; this is the function beneath it.
    call = descriptor._call_fn
    return SpandrelNet(descriptor.model, _one_by_one(call) if name in ONE_BY_ONE else call, needs)


def _one_by_one(call: Call) -> Call:
    return lambda network, rainy: torch.cat([call(network, image) for image in rainy.split(1)])
