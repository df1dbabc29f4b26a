"""The data sets of option files: options in, data sets that know no framework inside.

BasicSR gives them one dict, mmengine one argument a key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from ..data.joined import joined, open_sources
from ..data.labels import SoftLabels, kept_labels, ready_labels
from ..data.order import Turns
from ..data.paired import MadePairs, PairedRain, SingleRain
from ..data.pairing import Pairing, find_pairs, match_images, rainy_images
from ..data.rain import NEEDED, PHOTOGRAPHS, LargeEnough, find_plain_rain
from ..data.sources import FolderSource, ImageSource, Track, open_source, untracked
from ..data.unpaired import UnpairedRain
from ..errors import DataError, OptionError, counted
from ..options import (
    MadePairsOptions,
    PairedRainOptions,
    RainBankOptions,
    Section,
    SingleRainOptions,
    UnpairedRainOptions,
    read_section,
)
from ..processes import rank_and_world
from ..progress import track


@contextmanager
def _named(opt: Mapping[str, Any], key: str) -> Iterator[None]:
    """Say which option a data error comes from."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{_section(opt)}.{key}: {error}") from None


def _section(opt: Mapping[str, Any]) -> str:
    return f"datasets.{opt.get('section') or opt.get('phase') or opt.get('name')}"


def _options(opt: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in opt.items() if key != "section"}


def _tell(opt: Mapping[str, Any], key: str, notes: Iterable[str]) -> None:
    """Say, once for all processes, which files of a data set are not read."""
    for note in notes if rank_and_world()[0] == 0 else ():
        logging.getLogger("basicsr").warning(f"{_section(opt)}.{key}: {note}")


def _given(kind: type, opt: Mapping[str, Any] | None, keys: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": kind.__name__, "type": kind.__name__, **keys} if opt is None else {**opt, **keys}


def _bank(
    options: RainBankOptions, rainy: ImageSource, folders: Turns, opt: Mapping[str, Any], show: Track[Any]
) -> tuple[ImageSource | None, Turns, str]:
    """A bank of rain, which of its squares come when, and what is to be told of it.

    The bank is None where the photographs have too few plain places. Its squares follow the weights of the
    photographs' ``folders``.
    """
    key = f"{_section(opt)}.rain"
    places = options.build(key)
    with _named(opt, "rain"):
        if places is None:
            bank = open_source(str(options.path))
            _tell(opt, "rain", bank.notes)
            return bank, Turns([len(bank)]), f"{key}: {counted(len(bank), 'image')} of rain"
        most = options.photographs or PHOTOGRAPHS
        found = find_plain_rain(rainy, places, most, options.cache, show, *rank_and_world())
    squares, told = Turns(found.squares_of(folders.counts), folders.weights), f"{key}: {found}"
    if found.is_enough:
        for place in [place for place, count in enumerate(squares.counts) if folders.weights and not count]:
            told += f"; none in dataroot_rainy.{place}, whose weight goes to the others"
        return found.bank(), squares, told
    told += f", too few for a bank ({NEEDED}; 'basicsr prepare rain' shows what there is)"
    return None, squares, told


class UnpairedRainDataset(UnpairedRain):
    """Unpaired training data: rainy crops, their soft labels, clean crops of other scenes."""

    Options: ClassVar[type[Section]] = UnpairedRainOptions
    metainfo: ClassVar[dict[str, Any]] = {}  # mmengine asks for it

    def __init__(self, opt: Mapping[str, Any] | None = None, **keys: Any) -> None:
        self.opt = opt = _given(type(self), opt, keys)
        options = read_section(UnpairedRainOptions, _options(opt), _section(opt))
        with _named(opt, "dataroot_rainy"):
            folders = open_sources(options.dataroot_rainy)
        with _named(opt, "dataroot_clean"):
            clean_folders = open_sources(options.dataroot_clean)
        for key, sources in (("dataroot_rainy", folders), ("dataroot_clean", clean_folders)):
            _tell(opt, key, (note for source in sources for note in source.notes))
        rainy, clean = joined(folders), joined(clean_folders)
        turns = {
            "rainy": Turns([len(source) for source in folders], options.weights_rainy),
            "clean": Turns([len(source) for source in clean_folders], options.weights_clean),
        }
        rank, world = rank_and_world()
        show = track if rank == 0 else untracked
        coarse_filter = options.label.build(f"{_section(opt)}.label")
        labels: ImageSource
        with _named(opt, "label"):
            if coarse_filter is None:
                labels = joined([ready_labels(*each) for each in zip(folders, options.label.path or (), strict=True)])
            elif options.label_cache:
                labels = kept_labels(rainy, coarse_filter, options.label_cache, show, rank, world)
            else:
                labels = SoftLabels(rainy, coarse_filter)
        self.notes: list[str] = []
        """What is to be told of a bank of rain."""
        rain, late = None, options.late_crop_size
        if options.rain is not None:
            bank, squares, told = _bank(options.rain, rainy, turns["rainy"], opt, show)
            self.notes.append(told if bank else f"{told}: training goes on with the rain that the network itself finds")
            if bank:
                rain, turns["rain"] = LargeEnough(bank, max(options.crop_size, late or 0)), squares
        super().__init__(
            rainy, labels, clean, options.crop_size, options.seed or 0, show, rain, late, options.late_from, turns
        )
        self.on_device = options.source == "device"
        if options.source != "files":
            self.load(show)

    def __deepcopy__(self, memo: dict[int, Any]) -> UnpairedRainDataset:
        return self  # mmengine copies what its configs hold; all images may be in this, and none is ever changed


class PairedRainDataset(PairedRain):
    """Rainy test images with their clean versions, in any of the known layouts."""

    Options: ClassVar[type[Section]] = PairedRainOptions
    metainfo: ClassVar[dict[str, Any]] = {}  # mmengine asks for it

    def __init__(self, opt: Mapping[str, Any] | None = None, **keys: Any) -> None:
        self.opt = opt = _given(type(self), opt, keys)
        options = read_section(PairedRainOptions, _options(opt), _section(opt))
        if options.dataroot and not (options.dataroot_lq or options.dataroot_gt):
            with _named(opt, "dataroot"):
                pairing = find_pairs(options.dataroot, options.layout, allow_outside=options.allow_outside)
        elif options.dataroot_lq and options.dataroot_gt and not options.dataroot:
            with _named(opt, "dataroot_lq"):
                rainy = rainy_images(options.dataroot_lq)
            with _named(opt, "dataroot_gt"):
                clean = FolderSource(options.dataroot_gt)
            with _named(opt, "dataroot_lq"):
                pairing = match_images(rainy, clean)
        else:
            raise OptionError(f"{_section(opt)}: needs either dataroot, or dataroot_lq and dataroot_gt")
        place = "dataroot" if options.dataroot else "dataroot_lq"
        _tell(opt, place, pairing.notes)
        with _named(opt, place):
            super().__init__(Pairing(pairing.rule, pairing.pairs[: options.limit], pairing.notes))
        self.available = len(pairing.pairs)
        """How many pairs there are, with those beyond ``limit``."""


class SingleRainDataset(SingleRain):
    """Rainy images without ground truth, to look at."""

    Options: ClassVar[type[Section]] = SingleRainOptions
    metainfo: ClassVar[dict[str, Any]] = {}  # mmengine asks for it

    def __init__(self, opt: Mapping[str, Any] | None = None, **keys: Any) -> None:
        self.opt = opt = _given(type(self), opt, keys)
        options = read_section(SingleRainOptions, _options(opt), _section(opt))
        with _named(opt, "dataroot"):
            source = open_source(options.dataroot)
            _tell(opt, "dataroot", source.notes)
            chosen = source.pick(range(min(options.limit, len(source)))) if options.limit else source
            super().__init__(chosen)
        self.available = len(source)
        """How many images there are, with those beyond ``limit``."""


class MadePairsDataset(MadePairs):
    """Clean crops with the rain of plain places: pairs to choose checkpoints by, where no photograph has any."""

    Options: ClassVar[type[Section]] = MadePairsOptions
    metainfo: ClassVar[dict[str, Any]] = {}  # mmengine asks for it

    def __init__(self, opt: Mapping[str, Any] | None = None, **keys: Any) -> None:
        self.opt = opt = _given(type(self), opt, keys)
        options = read_section(MadePairsOptions, _options(opt), _section(opt))
        with _named(opt, "dataroot_rainy"):
            rainy = joined(open_sources(options.dataroot_rainy))
        with _named(opt, "dataroot_clean"):
            clean = joined(open_sources(options.dataroot_clean))
        show = track if rank_and_world()[0] == 0 else untracked
        bank, _, told = _bank(options.rain, rainy, Turns([len(rainy)]), opt, show)
        if bank is None:
            raise DataError(f"{told}; no pairs can be made of it")
        with _named(opt, "dataroot_clean"):
            super().__init__(
                clean, LargeEnough(bank, options.crop_size), options.pairs, options.crop_size, options.seed
            )
