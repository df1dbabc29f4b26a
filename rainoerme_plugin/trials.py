"""What signatures do not tell: what an option file names is made and used once, on next to nothing, before a run.

Networks, losses, metrics, optimisers and schedules come from many packages, and each refuses what it cannot take in a
way of its own, some only in the middle of a run. Here all of that is an `OptionError` that names the key.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from .errors import OptionError, RainOerMeError, described

MOST_PARAMETERS = 10**10
"""Of a network: a hundred times the largest restoration networks, and 160 GB while Adam trains it."""
MOST_TENSORS = 20_000
"""That hold them: a thousand blocks of twenty. More are a slip, and take minutes to make."""
LARGEST_ARGUMENT = 65_536
"""Whole number among the arguments of networks that are known here; many say how often something is done."""
LARGEST_BORDER = 2048
"""In pixels, of images that a metric is tried with: more would take more memory than a check should."""
DEVICE_FLAGS = ("fused", "capturable")
"""Of optimisers: what some devices can and others cannot."""


def try_network(make: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> None:
    """Make a network that holds no numbers yet, which takes neither time nor memory; if need be with its numbers.

    Raises:
        OptionError: It is larger than any network is, or its constructor does not take these arguments.
    """
    with _named(key), torch.random.fork_rng(devices=[]):
        try:
            with _bounded(key), torch.device("meta"):
                make(**arguments)
        except RainOerMeError:
            raise
        except Exception:  # of constructors that compute with what they make, or make it in ways of their own
            with _bounded(key):
                make(**arguments)


def check_numbers(value: Any, key: str) -> None:
    """Refuse arguments of networks that are known here, and beyond what any of them can be.

    Raises:
        OptionError: A number is larger than `LARGEST_ARGUMENT`, or none.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_numbers(item, f"{key}.{name}")
    elif isinstance(value, list):
        for item in value:
            check_numbers(item, key)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_ARGUMENT:
        raise OptionError(f"{key}: expected a number of at most {LARGEST_ARGUMENT}, got {value!r}")


@contextmanager
def _bounded(key: str) -> Iterator[None]:
    """Let no network become larger than networks are; a parameter is counted before it is filled."""
    tensors = numbers = 0

    def count(module: Any, name: str, parameter: Any) -> None:
        nonlocal tensors, numbers
        tensors, numbers = tensors + 1, numbers + (0 if parameter is None else parameter.numel())
        if numbers > MOST_PARAMETERS or tensors > MOST_TENSORS:
            raise OptionError(
                f"{key}: a network of more than {MOST_PARAMETERS:,} parameters, or of more than {MOST_TENSORS:,} "
                "tensors of them; make it smaller"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def try_optimiser(make: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> torch.optim.Optimizer:
    """Let an optimiser go a step with a convolution's weight and bias, whose gradients are 0.

    Raises:
        OptionError: It does not take these arguments, or not such parameters.
    """
    parameters = [torch.nn.Parameter(torch.zeros(1, 1, 3, 3)), torch.nn.Parameter(torch.zeros(1))]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    with _named(key):
        kept = {name: value for name, value in arguments.items() if name not in DEVICE_FLAGS}
        optimiser: torch.optim.Optimizer = make(parameters, **kept)
        optimiser.step()
    return optimiser


def try_schedule(
    make: Callable[[torch.optim.Optimizer, int], Any], optimiser: torch.optim.Optimizer, last: int, key: str
) -> None:
    """Let a schedule of learning rates go a step at the start and one at iteration ``last``.

    Args:
        make: Makes it, of an optimiser and the number of iterations.
        optimiser: It is left at some rate.
        last: So many iterations there are.
        key: In option files.

    Raises:
        OptionError: It does not take these arguments, or does not reach so far.
    """
    with _named(key):
        schedule = make(optimiser, last)
        optimiser.step()
        schedule.step()
        schedule.last_epoch = max(1, last - 2)  # BasicSR's loops make the first step in the second iteration
        schedule.step()


def try_loss(make: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """Make a loss.

    Raises:
        OptionError: It does not take these arguments.
    """
    with _named(key):
        criterion: Callable[..., Any] = make(**arguments)
    return criterion


def try_comparison(criterion: Callable[..., Any], key: str) -> None:
    """Have a loss compare two images: small and large, in colour and grey, and of a video.

    Raises:
        OptionError: It takes none of them, or gives no number for any.
    """
    shapes = ((1, 3, 16, 16), (1, 3, 256, 256), (1, 1, 256, 256), (1, 2, 3, 64, 64))
    _one_of(partial(_compare, criterion, shape, key) for shape in shapes)


def _compare(criterion: Callable[..., Any], shape: tuple[int, ...], key: str) -> None:
    image, target = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with _named(key):
        loss = criterion(image, target)
    if not (isinstance(loss, torch.Tensor) and loss.numel() == 1 and bool(torch.isfinite(loss))):
        raise OptionError(f"{key}: the loss of two images is no finite number with these arguments")


def try_metric(metric: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> None:
    """Have a metric compare two images, given as BasicSR gives them: (H, W, 3) uint8, of two sizes.

    Raises:
        OptionError: It does not take these arguments or images, or gives no number.
    """
    given = arguments.get("crop_border")
    border = max(given, 0) if isinstance(given, int) else 0
    if border <= LARGEST_BORDER:
        _one_of(partial(_measure, metric, arguments, side + 2 * border, key) for side in (192, 576))


def _measure(metric: Callable[..., Any], arguments: Mapping[str, Any], side: int, key: str) -> None:
    image, target = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    with _named(key):
        figure = float(metric(img=image, img2=target, **arguments))
    if not np.isfinite(figure):
        raise OptionError(f"{key}: of two images it is no finite number with these arguments")


def _one_of(trials: Iterable[Callable[[], None]]) -> None:
    """Be content with one trial that succeeds.

    Raises:
        OptionError: That of the first, where none does.
    """
    first: OptionError | None = None
    for trial in trials:
        try:
            return trial()
        except OptionError as error:
            first = first or error
    if first is not None:
        raise first


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again when it counts
            yield
    except RainOerMeError:
        raise
    except Exception as error:  # of any package
        raise OptionError(f"{key}: {described(error)}") from None
