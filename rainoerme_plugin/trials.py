"""What signatures do not tell: what an option file names is made and used once, on next to nothing, before a run.

Networks, losses, metrics, optimisers and schedules come from many packages, and each refuses what it cannot take in a
way of its own, some only in the middle of a run. Here all of that is an `OptionError` that names the key; and where
nothing but Python itself complains, the argument, the kind that was expected, and what came.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from .errors import OptionError, RainOerMeError, brief, described

T = TypeVar("T")

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

    def use(arguments: Mapping[str, Any]) -> None:
        with torch.random.fork_rng(devices=[]):
            try:
                with _bounded(key), torch.device("meta"):
                    make(**arguments)
            except RainOerMeError:
                raise
            except Exception:  # of constructors that compute with what they make, or make it in ways of their own
                with _bounded(key):
                    make(**arguments)

    _tried(use, make, arguments, key)


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

    def use(arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
        kept = {name: value for name, value in arguments.items() if name not in DEVICE_FLAGS}
        optimiser: torch.optim.Optimizer = make(parameters, **kept)
        optimiser.step()
        return optimiser

    return _tried(use, make, arguments, key)


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

    def use(_: Mapping[str, Any]) -> None:
        schedule = make(optimiser, last)
        optimiser.step()
        schedule.step()
        schedule.last_epoch = max(1, last - 2)  # BasicSR's loops make the first step in the second iteration
        schedule.step()

    _tried(use, make, {}, key)


def try_loss(make: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> None:
    """Make a loss.

    Raises:
        OptionError: It does not take these arguments.
    """
    _tried(lambda arguments: make(**arguments), make, arguments, key)


def try_comparison(make: Callable[..., Any], arguments: Mapping[str, Any], key: str) -> None:
    """Have a loss compare two images: small and large, in colour and grey, and of a video.

    Raises:
        OptionError: It takes none of them, or gives no number for any.
    """
    shapes = ((1, 3, 16, 16), (1, 3, 256, 256), (1, 1, 256, 256), (1, 2, 3, 64, 64))
    _one_of(partial(_compare, make, arguments, shape, key) for shape in shapes)


def _compare(make: Callable[..., Any], arguments: Mapping[str, Any], shape: tuple[int, ...], key: str) -> None:
    image, target = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    loss = _tried(lambda arguments: make(**arguments)(image, target), make, arguments, key)
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
    figure = _tried(lambda arguments: float(metric(img=image, img2=target, **arguments)), metric, arguments, key)
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


def _tried(
    use: Callable[[Mapping[str, Any]], T], target: Callable[..., Any], arguments: Mapping[str, Any], key: str
) -> T:
    """What ``use`` makes of the arguments, which are those of ``target``.

    Raises:
        OptionError: It fails; of its own errors only those are told that say more than Python does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again when it counts
            return use(arguments)
    except RainOerMeError:
        raise
    except Exception as error:  # of any package
        if _is_pythons_own(error):
            raise _refused(use, target, arguments, key) from None
        raise OptionError(f"{key}: {described(error)}") from None


def _is_pythons_own(error: Exception) -> bool:
    """Whether an error tells of the code that it came from, rather than of the option that it came of."""
    own = TypeError | AttributeError | LookupError | ArithmeticError | NameError
    return isinstance(error, own) or _RAW.search(str(error)) is not None or not str(error)


_RAW = re.compile(r"unpack|could not convert|invalid literal|must be tuple of|zero-size array")


def _refused(
    use: Callable[[Mapping[str, Any]], Any], target: Callable[..., Any], arguments: Mapping[str, Any], key: str
) -> OptionError:
    """Which argument is to blame, as far as that shows: all goes well with its default, or with some other value."""
    defaults = {name: each.default for name, each in inspect.signature(target).parameters.items()}
    for name, value in arguments.items():
        default = defaults.get(name, inspect.Parameter.empty)
        others = {word: item for word, item in arguments.items() if word != name}
        for instead in (1, 0.5, True, [1, 1], "") if default is inspect.Parameter.empty else (default,):
            if isinstance(value, bool) and instead == value:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    use({**others, name: instead})
            except Exception:  # noqa: S112 - then it is not this one alone
                continue
            return OptionError(f"{key}.{name}: expected {_like(instead)}, got {brief(value)}")
    given = ", ".join(f"{name}: {brief(value)}" for name, value in arguments.items())
    what = getattr(target, "__name__", "it")
    return OptionError(f"{key}: {what} fails with {given or 'no arguments'}")


def _like(value: Any) -> str:
    """What kind of value this one is an example of."""
    if value is None:
        return "nothing, or a value of another kind"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "a whole number"
    if isinstance(value, float):
        return "a number"
    if isinstance(value, list | tuple):
        return f"a list such as {brief(list(value))}"
    return f"a text such as {brief(value)}" if value else "a text"
