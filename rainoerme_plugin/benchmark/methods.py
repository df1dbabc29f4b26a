"""The methods of a benchmark: whatever makes a derained image of a rainy one, all called alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..archs.adapt import Needs, checkpoint_parts, name_of
from ..archs.catalogue import Card, card_of, needs_of
from ..archs.published import Published, published_file
from ..archs.receptive_field import receptive_field
from ..archs.result_images import ResultImages, check_apart, check_result
from ..archs.runner import Runner
from ..data.images import RGB, Rounding, decode_image, read_file
from ..data.pairing import Pair
from ..data.sources import list_images
from ..errors import DataError, OptionError, WeightsError
from ..files import sha256_of, user_path
from ..models.opening import build_checked, open_run, run_weights
from ..provenance import code_of, modules_of
from ..weights import load_weights, recognised
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

if TYPE_CHECKING:
    from .testsets import Single, TestSet


@dataclass
class Method:
    """What makes derained images; the subclasses say how."""

    name: str
    options: MethodOptions
    about: str
    """What it is, in words."""
    rounding: Rounding = "round"
    identity: tuple[object, ...] = ()
    """All that its results depend on, but for the images and the code; of plain values."""
    modules: tuple[str, ...] = ()
    """Whose code makes them, beside that which reads images."""
    trained_on: str | None = None
    training_images: list[str] = field(default_factory=list)
    published: Published | None = None
    """Its weights, if they are known."""
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
    def code(self) -> str:
        """A digest of the code that makes its results (`provenance`)."""
        return code_of(Pair.__module__, *self.modules)

    @property
    def whole_image(self) -> bool:
        """Whether a pixel of its results may depend on the whole image, as far as the catalogue knows."""
        if self.card is None or self.network is None:
            return False
        return self.card.sees_whole_image(checkpoint_parts(self.network)[""])

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
    seen: dict[Path, str] = field(default_factory=dict)
    """The digest of each file, as it was when it was first asked for."""

    def __call__(self, rainy: RGB, dataset: str, name: str, run: Runner) -> RGB:
        path = self.find(dataset, name)
        data = read_file(path)
        if self.seen.setdefault(path, _sha256(data)) != _sha256(data):
            raise DataError(f"{path} has changed meanwhile; run again")
        image = decode_image(data, path)
        check_result(path, image.shape, name, rainy.shape)
        return image

    def file_identity(self, dataset: str, name: str) -> tuple[object, ...]:
        try:
            path = self.find(dataset, name)
            if path not in self.seen:
                self.seen[path] = _sha256(read_file(path))
            return (self.seen[path],)
        except DataError:
            return ()  # the same is said again, with the reason, when the image is wanted

    def find(self, dataset: str, name: str) -> Path:
        """The result for a rainy image of this name.

        Raises:
            DataError: There is none.
        """
        if dataset not in self.folders:
            raise DataError(f"methods.{self.name}.folder: names no folder for the data set {dataset}")
        return self.folders[dataset].find(name)


def check_result_images(method: Method, test_sets: Sequence[TestSet]) -> None:
    """Refuse result images that would be scored on several of the data sets (`check_apart`).

    Raises:
        OptionError: One would.
    """
    if not isinstance(method, _Images):
        return

    def results() -> Iterator[tuple[str, Path, Callable[[], bytes]]]:
        for test_set in test_sets:
            for item, name in zip(test_set.items, test_set.names, strict=True):
                with suppress(DataError):  # missing: told when it is scored
                    yield test_set.name, method.find(test_set.name, name), partial(_rainy_file, item)

    key = f"methods.{method.name}"
    check_apart(
        results(),
        f"put the results of each data set into a folder of its name below {key}.folder, give {key}.folder for each "
        f"({{NAME: FOLDER}}), or name in {key}.datasets those that they are of",
    )


def _rainy_file(item: Pair | Single) -> bytes:
    return next(item.encoded())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
        about = f"coarse filter {coarse_filter.key.removesuffix(f'-{coarse_filter.code}')}"
        return _Filter(name, options, about, identity=(coarse_filter.key,), modules=modules_of([coarse_filter]))
    if isinstance(options, ImagesMethod):
        return _open_images(name, options, datasets)
    if isinstance(options, RunMethod):
        return _open_run(name, options)
    if isinstance(options, FileMethod):
        file = user_path(options.file)
        with _unchanged(file) as sha256:
            network = recognised(file, options.key, remedy="if you know which, a method of 'type: network' names it")
        return _with_network(name, options, network, file, sha256)
    assert isinstance(options, NetworkMethod)
    file = user_path(options.file)
    network = build_checked(options.network, f"methods.{name}.network")
    with _unchanged(file) as sha256:
        load_weights(network, file, options.key)
    return _with_network(name, options, network, file, sha256, (options.network,))


@contextmanager
def _unchanged(file: Path) -> Iterator[str]:
    """The SHA-256 of a file of weights that is read in the meantime.

    Raises:
        WeightsError: It is another afterwards: a training may have saved in between.
    """
    sha256 = sha256_of(file) if file.is_file() else ""  # whoever reads it says what is wrong
    yield sha256
    if sha256_of(file) != sha256:
        raise WeightsError(f"{file} has changed while it was read; run again")


def _with_network(
    name: str, options: MethodOptions, network: nn.Module, file: Path, sha256: str, identity: tuple[object, ...] = ()
) -> Method:
    inner = checkpoint_parts(network)[""]
    card = card_of(inner)
    published = published_file(file.absolute(), sha256, card.name if card else None)
    assert isinstance(options, WithNetwork)
    tile, needs = None if options.tile == "auto" else options.tile, needs_of(network)
    # Of the parts, too: the catalogue's cards are not among the modules whose code counts.
    needs_of_parts = [asdict(own) for own in map(needs_of, network.modules()) if own != Needs()]
    network.eval().requires_grad_(False)
    if tile and receptive_field(network, needs) is None:
        identity = (*identity, {"tile": tile})  # other networks give the same in tiles
    return _Network(
        name,
        options,
        name_of(network),
        identity=(_digest_of_weights(network), needs_of_parts, *identity),
        modules=(Runner.__module__, *modules_of(network.modules())),
        trained_on=published.trained_on if published else None,
        published=published,
        file=file,
        sha256=sha256,
        network=network,
        needs=needs,
        tile=tile,
        card=card,
    )


def _digest_of_weights(network: nn.Module) -> str:
    """Of what was loaded, by whatever code, and not of the file that it was loaded from."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _open_run(name: str, options: RunMethod) -> Method:
    with _unchanged(run_weights(options.folder, options.iteration)) as sha256:
        run = open_run(options.folder, options.iteration)
    method = _with_network(name, options, run.network, run.file, sha256, (dict(run.built_from),))
    training = (run.options.get("datasets") or {}).get("train") or {}
    roots = [root for key in ("dataroot_rainy", "dataroot_clean", "dataroot_gt") for root in _roots(training.get(key))]
    method.training_images = roots
    method.trained_on = " and ".join(Path(root).name for root in roots) or None
    if "dataroot_rainy" in training:
        rainy, clean = (", ".join(map(_short, _roots(training[key]))) for key in ("dataroot_rainy", "dataroot_clean"))
        method.trained_on = f"{rainy} without pairs, clean images of {clean}"
    method.about += f", {options.iteration} of the run {user_path(options.folder).name}"
    return method


def _roots(given: object) -> list[str]:
    """The folders that a ``dataroot`` names: none, one or several."""
    return [str(root) for root in given] if isinstance(given, list) else [str(given)] if given else []


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
    return _Images(name, options, "result images", modules=(ResultImages.__module__,), folders=folders)
