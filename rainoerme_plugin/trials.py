"""What signatures do not tell: what an option file names is made and used once, on next to nothing, before a run.

Networks, losses, metrics, optimisers and schedules come from many packages, and each refuses what it cannot take in a
way of its own, some only in the middle of a run. Here all of that is an `OptionError` that names the key.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from .errors import OptionError, RainOerMeError, described

MOST_PARAMETERS = 10**9
"""Of a network: ten times the largest restoration networks, and 16 GB while Adam trains it."""
MOST_TENSORS = 20_000
"""That hold them: a thousand blocks of twenty."""
LARGEST_ARGUMENT = 65_536
"""Whole number among a network's arguments; many are sizes of what is made, or how often."""


def try_network(make: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> None:
    """Make a network that holds no numbers yet, which takes neither time nor memory.

    Raises:
        OptionError: It is larger than any network is, or its constructor does not take these arguments.
    """
    _check_numbers(arguments, key)
    with _named(key), _bounded(key), torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                make(**arguments)
        except (RuntimeError, NotImplementedError):  # some constructors compute with what they make
            make(**arguments)


def _check_numbers(value: Any, key: str) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_numbers(item, f"{key}.{name}")
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, key)
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
        optimiser: torch.optim.Optimizer = make(parameters, **arguments)
        optimiser.step()
    return optimiser


def try_schedule(
    make: Callable[..., Any], arguments: Mapping[str, Any], optimiser: torch.optim.Optimizer, last: int, key: str
) -> None:
    """Let a schedule of learning rates go a step at the start and one at iteration ``last``.

    Raises:
        OptionError: It does not take these arguments, or does not reach so far.
    """
    with _named(key):
        schedule = make(optimiser, **arguments)
        optimiser.step()
        schedule.step()
        schedule.last_epoch = max(1, last - 2)  # BasicSR's loops make the first step in the second iteration
        schedule.step()


def try_loss(make: Callable[..., Any], arguments: Mapping[str, Any], key: str, compares: bool) -> None:
    """Make a loss and, where ``compares`` says that it is called with two images, have it compare two.

    Raises:
        OptionError: It does not take these arguments or images, or gives no number.
    """
    image, target = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with _named(key):
        criterion = make(**arguments)
        loss = criterion(image, target) if compares else torch.zeros(())
    if not (isinstance(loss, torch.Tensor) and loss.numel() == 1 and bool(torch.isfinite(loss))):
        raise OptionError(f"{key}: the loss of two images is no finite number with these arguments")


def try_metric(metric: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> None:
    """Have a metric compare two images, given as BasicSR gives them: (H, W, 3) uint8.

    Raises:
        OptionError: It does not take these arguments or images, or gives no number.
    """
    image, target = np.random.default_rng(0).integers(0, 256, (2, 192, 192, 3), np.uint8)
    with _named(key):
        figure = float(metric(img=image, img2=target, **arguments))
    if not np.isfinite(figure):
        raise OptionError(f"{key}: of two images it is no finite number with these arguments")


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
