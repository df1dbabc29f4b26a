"""The methods of a benchmark: whatever makes a derained image of a rainy one, all called alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ..archs.adapt import Needs, checkpoint_parts
from ..archs.catalogue import CATALOGUE, Card, card_of, needs_of
from ..archs.receptive_field import receptive_field
from ..archs.result_images import ResultImages
from ..archs.runner import Runner
from ..data.images import RGB, Rounding, to_image, to_tensor
from ..data.sources import list_images
from ..errors import DataError, OptionError, WeightsError
from ..files import sha256_of, user_path
from ..models.opening import build_checked, open_run
from ..weights import load_weights
from .options import (
    FileMethod,
    FilterMethod,
    ImagesMethod,
    InputMethod,
    MethodOptions,
    NetworkMethod,
    RunMethod,
    WithNetwork,
)


@dataclass
class Method:
    """What makes derained images; the subclasses say how."""

    name: str
    options: MethodOptions
    about: str
    """What it is, in words."""
    rounding: Rounding = "round"
    identity: tuple[object, ...] = ()
    """All that its results depend on, but for the images; of plain values."""
    trained_on: str | None = None
    training_images: list[str] = field(default_factory=list)
    file: Path | None = None
    """Of weights."""
    sha256: str | None = None
    network: nn.Module | None = None
    needs: Needs = field(default_factory=Needs)
    tile: int | None = None
    """As of `derain_tiled`."""
    card: Card | None = None

    def __call__(self, rainy: RGB, dataset: str, name: str, run: Runner) -> RGB:
        """The derained version of ``rainy`` (H, W, 3) uint8, of the same shape, an image called ``name``.

        Raises:
            RainOerMeError: This image cannot be derained.
            RuntimeError: The network fails on it, or gives values that are not finite.
        """
        return rainy

    def file_identity(self, dataset: str, name: str) -> tuple[object, ...]:
        """What else the result for this image depends on."""
        return ()

    @property
    def parameters(self) -> int | None:
        """How many the network has that a checkpoint keeps under its own key; None without a network."""
        if self.network is None:
            return None
        return sum(parameter.numel() for parameter in checkpoint_parts(self.network)[""].parameters())


class _Filter(Method):
    def __call__(self, rainy: RGB, dataset: str, name: str, run: Runner) -> RGB:
        assert isinstance(self.options, FilterMethod)
        coarse_filter = self.options.filter.build()
        assert coarse_filter is not None
        return coarse_filter(rainy)


class _Network(Method):
    def __call__(self, rainy: RGB, dataset: str, name: str, run: Runner) -> RGB:
        assert self.network is not None
        return run(self.network, self.needs, rainy, self.tile, self.rounding)


@dataclass
class _Images(Method):
    folders: dict[str, ResultImages] = field(default_factory=dict)
    """By data set."""

    def __call__(self, rainy: RGB, dataset: str, name: str, run: Runner) -> RGB:
        return to_image(self._folder(dataset)(to_tensor(rainy)[None], [name])[0])

    def file_identity(self, dataset: str, name: str) -> tuple[object, ...]:
        try:
            return (sha256_of(self._folder(dataset).find(name)),)
        except (DataError, OSError):
            return ()  # the same is said again, with the reason, when the image is wanted

    def _folder(self, dataset: str) -> ResultImages:
        if dataset not in self.folders:
            raise DataError(f"methods.{self.name}.folder: names no folder for the data set {dataset}")
        return self.folders[dataset]


def open_method(name: str, options: MethodOptions, rounding: Rounding, datasets: tuple[str, ...] = ()) -> Method:
    """A method of an option file, with its network loaded on the CPU.

    Args:
        name: Its name.
        options: What the file says of it.
        rounding: How results become 8 bits, unless it says so itself.
        datasets: The names of the data sets, for which result images are looked up.

    Raises:
        RainOerMeError: It cannot be made; the message names the method.
    """
    try:
        method = _open(name, options, datasets)
    except (WeightsError, DataError, OptionError) as error:
        place = f"methods.{name}"
        raise type(error)(str(error) if str(error).startswith(place) else f"{place}: {error}") from None
    method.rounding = options.rounding or rounding
    method.trained_on = options.trained_on or method.trained_on
    method.training_images = options.training_images or method.training_images
    method.identity = (options.type, *method.identity, method.rounding)
    return method


def _open(name: str, options: MethodOptions, datasets: tuple[str, ...]) -> Method:
    if isinstance(options, InputMethod):
        return Method(name, options, "the rainy image as it is")
    if isinstance(options, FilterMethod):
        coarse_filter = options.filter.build(f"methods.{name}.filter")
        if coarse_filter is None:
            raise OptionError(f"methods.{name}.filter: a folder of labels is no filter; it is a method of type images")
        return _Filter(name, options, f"coarse filter {coarse_filter.key}", identity=(coarse_filter.key,))
    if isinstance(options, ImagesMethod):
        return _open_images(name, options, datasets)
    if isinstance(options, RunMethod):
        return _open_run(name, options)
    if isinstance(options, FileMethod):
        from ..registered.networks import PretrainedNet

        file = user_path(options.file)
        return _with_network(name, options, PretrainedNet(str(file), options.key), file)
    assert isinstance(options, NetworkMethod)
    file = user_path(options.file)
    network = build_checked(options.network, f"methods.{name}.network")
    load_weights(network, file, options.key)
    return _with_network(name, options, network, file, (options.network,))


def _with_network(
    name: str, options: MethodOptions, network: nn.Module, file: Path, identity: tuple[object, ...] = ()
) -> Method:
    inner = checkpoint_parts(network)[""]
    card, sha256 = card_of(inner), sha256_of(file)
    assert isinstance(options, WithNetwork)
    tile, needs = None if options.tile == "auto" else options.tile, needs_of(network)
    network.eval().requires_grad_(False)
    if tile and receptive_field(network, needs) is None:
        identity = (*identity, {"tile": tile})  # other networks give the same in tiles
    return _Network(
        name,
        options,
        type(inner).__name__,
        identity=(sha256, *identity),
        trained_on=_published(file.name),
        file=file,
        sha256=sha256,
        network=network,
        needs=needs,
        tile=tile,
        card=card,
    )


def _published(file: str) -> str | None:
    """What a file was trained on that only one card knows by this name."""
    found = [known.trained_on for card in CATALOGUE for known in card.published if Path(known.file).name == file]
    return found[0] if len(found) == 1 else None


def _open_run(name: str, options: RunMethod) -> Method:
    run = open_run(options.folder, options.iteration)
    method = _with_network(name, options, run.network, run.file, (dict(run.built_from),))
    training = (run.options.get("datasets") or {}).get("train") or {}
    roots = [training[key] for key in ("dataroot_rainy", "dataroot_clean", "dataroot_gt") if training.get(key)]
    method.training_images = [str(root) for root in roots]
    method.trained_on = " and ".join(Path(root).name for root in roots) or None
    if "dataroot_rainy" in training:
        rainy, clean = (_short(training[key]) for key in ("dataroot_rainy", "dataroot_clean"))
        method.trained_on = f"{rainy} without pairs, clean images of {clean}"
    method.about += f", {options.iteration} of the run {user_path(options.folder).name}"
    return method


def _short(path: str) -> str:
    """The telling end of a path."""
    return "/".join(Path(path).parts[-3:])


def _open_images(name: str, options: ImagesMethod, datasets: tuple[str, ...]) -> Method:
    folders = {}
    for dataset in datasets:
        if isinstance(options.folder, str):
            inner = user_path(options.folder) / dataset
            folder = inner if inner.is_dir() and list_images(inner) else Path(options.folder)
        elif dataset in options.folder:
            folder = Path(options.folder[dataset])
        else:
            continue
        folders[dataset] = ResultImages(str(folder))
    return _Images(name, options, "result images", folders=folders)
