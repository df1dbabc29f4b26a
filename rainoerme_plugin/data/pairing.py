"""Finding the pairs of rainy and clean images in the file layouts that deraining data sets come in.

A layout is a pair of folder names, a rule that turns a rainy image's name into its clean one's, or both: PReNet's,
RCDNet's and the original Rain100/200, RainTrainL/H, Rain1400, Rain13K's tests, SPA-Data's list files, and pictures
that hold both images side by side.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import DataError
from ..files import user_path
from .images import RGB, decode_image, open_file, read_file
from .sources import FolderSource, list_folder, list_images

Layout: TypeAlias = Literal["auto", "halves-rainy-clean", "halves-clean-rainy"]

FOLDERS = (
    ("rain", "norain"), ("rainy", "norain"), ("input", "target"), ("input", "targets"), ("input", "label"),
    ("rainy_image", "ground_truth"), ("lq", "gt"), ("data", "label"), ("data", "gt"), ("in", "gt"),
    ("rainysamples", "cleansamples"), ("rainy", "clean"), ("rain", "clean"), ("input", "gt"), ("rainy", "gt"),
    ("rain", "gt"), ("rainstreak", "gt"), ("raindrop", "gt"), ("rainstreak_raindrop", "gt"),
)  # fmt: skip
"""Names of the rainy and the clean folder that belong together, in any case, and with one word before or behind both:
input_val and label_val, a1_Rain and a1_GT. Where there are none, any of the former goes with any of the latter."""
_RAINY, _CLEAN = (tuple(dict.fromkeys(names)) for names in zip(*FOLDERS, strict=True))


def _after_underscore_cut(stem: str) -> str:
    return stem.rpartition("_")[0] if re.search(r"_\d+$", stem) else ""


RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("same name", lambda stem: stem),
    ("rain-N to norain-N", lambda stem: re.sub(r"^rain", "norain", stem)),
    ("norain-Nx2 to norain-N", lambda stem: re.sub(r"x2$", "", stem)),
    ("rain-Nx2 to norain-N", lambda stem: re.sub(r"^rain", "norain", re.sub(r"x2$", "", stem))),
    ("N_1 ... N_14 to N", _after_underscore_cut),
    ("inputN to norainN", lambda stem: re.sub(r"^input", "norain", stem)),
    ("N_rain to N_clean", lambda stem: re.sub(r"_rain$", "_clean", stem)),
    ("N_in to N_GT", lambda stem: re.sub(r"_in$", "_GT", stem)),
    ("N_s80_a04 to N", lambda stem: re.sub(r"_s\d+_a\d+$", "", stem)),
)
"""What makes the clean image's stem out of the rainy one's, tried in this order."""
_IN_ONE_FOLDER = (
    ("rain-N and norain-N", r"rain-?\d", r"norain"),
    ("inputN and norainN", r"input-?\d", r"norain"),
    ("N_rain and N_clean", r".*_rain$", r".*_clean$"),
    ("N_in and N_GT", r".*_in$", r".*_GT$"),
)
"""What rainy and clean images are called that lie in one folder: what their stems begin with, as a rule."""
_SAY_PAIRS = "name the pairs in a list file, 'rainy_path clean_path' a line"
_SAY_FOLDERS = "give both folders (dataroot_lq and dataroot_gt, or basicsr prepare check --pairs RAINY CLEAN)"
_SHOWN = 5
"""Folders that a message lists."""


class NoPairsError(DataError):
    """A folder is not laid out like a data set with pairs."""


@dataclass(frozen=True)
class Pair:
    """One rainy image and its clean version: two files, or the two halves of one."""

    rainy: Path
    clean: Path
    halves: Layout = "auto"

    def encoded(self) -> Iterator[bytes]:
        """The bytes of its files.

        Raises:
            DataError: One cannot be read.
        """
        for path in (self.rainy,) if self.halves != "auto" else (self.rainy, self.clean):
            yield read_file(path)

    def read(self) -> tuple[RGB, RGB]:
        """Both images, (H, W, 3) uint8 of one size.

        Raises:
            DataError: One cannot be read, or their sizes differ.
        """
        return self.decode(list(self.encoded()))

    def decode(self, files: Sequence[bytes]) -> tuple[RGB, RGB]:
        """As `read`, from the bytes of its files."""
        if self.halves == "auto":
            rainy, clean = decode_image(files[0], self.rainy), decode_image(files[1], self.clean)
        else:
            picture = decode_image(files[0], self.rainy)
            width = picture.shape[1]
            if width % 2:
                raise DataError(f"{self.rainy}: {width} pixels wide, so it has no two halves of one size")
            left, right = picture[:, : width // 2], picture[:, width // 2 :]
            rainy, clean = (left, right) if self.halves == "halves-rainy-clean" else (right, left)
        if rainy.shape != clean.shape:
            raise DataError(
                f"{self.rainy} is {rainy.shape[1]}x{rainy.shape[0]} pixels, its clean version {self.clean} "
                f"{clean.shape[1]}x{clean.shape[0]}; a pair needs one size"
            )
        return rainy, clean


@dataclass(frozen=True)
class Pairing:
    """The pairs of a data set, in the order of the rainy images' names, and the rule that found them."""

    rule: str
    pairs: Sequence[Pair]
    notes: tuple[str, ...] = ()
    """What is to be said of images and files that are in no pair."""


def find_pairs(root: str | Path, layout: Layout = "auto", *, allow_outside: bool = False) -> Pairing:
    """The pairs below ``root``: a data set's folder, or a list file with a rainy and a clean path a line.

    Args:
        root: Where they are.
        layout: Which half is which where each picture holds both, for no name tells; else it is found out.
        allow_outside: Whether a list file may name files that are not below its own folder. Symbolic links in that
            folder are followed either way, wherever they lead: who made the list did not make them.

    Raises:
        DataError: There is nothing there, or not every rainy image finds its clean one.
    """
    root = user_path(root)
    if os.path.isfile(root):
        return _from_list(root, allow_outside)
    if not os.path.isdir(root):
        raise DataError(f"no such folder or list file: {root} (looked from {Path.cwd()})")
    if layout != "auto":
        return _halves(root, layout)
    layouts = dict(_layouts(root))
    if len(layouts) > 1:
        raise DataError(f"{root}: fits {len(layouts)} layouts: {'; '.join(layouts)}; {_SAY_FOLDERS}, or {_SAY_PAIRS}")
    for match in layouts.values():
        return match()
    raise NoPairsError(
        f"{root}: no pairs found. Known layouts: {_RAINY[0]}/+{_CLEAN[0]}/ (rainy: {', '.join(_RAINY)}; clean: "
        f"{', '.join(_CLEAN)}); norain-N beside rainy/; "
        f"{', '.join(name for name, *_ in _IN_ONE_FOLDER)} in one folder; a list file; layout: halves-rainy-clean or "
        f"halves-clean-rainy. It holds {_contents(root)}. Should it hold pairs: {_SAY_FOLDERS}, or {_SAY_PAIRS}"
    )


def _layouts(root: Path) -> Iterator[tuple[str, Callable[[], Pairing]]]:
    """The layouts that a folder may have, each with what finds its pairs."""
    folders = [path for path in sorted(list_folder(root)) if os.path.isdir(path)]
    rainy_ones, clean_ones = ([path for path in folders if _affixes(path.name, kinds)] for kinds in (_RAINY, _CLEAN))
    both = list(itertools.product(rainy_ones, clean_ones))
    fitting = [pair for pair in both if any(_are(pair, [rainy], [clean]) for rainy, clean in FOLDERS)]
    for rainy, clean in fitting or [pair for pair in both if _are(pair, _RAINY, _CLEAN)]:
        yield f"{rainy.name}/+{clean.name}/", functools.partial(match_folders, rainy, clean)
    own = list_images(root)
    beside = [path for path in own if path.stem.startswith("norain")]
    for folder in folders:
        if beside and folder.name.lower() in ("rainy", "rain"):
            yield f"norain-N beside {folder.name}/", functools.partial(_match_beside, folder, beside)
    for name, rainy_stem, clean_stem in _IN_ONE_FOLDER:
        here, those = ([path for path in own if re.match(stem, path.stem)] for stem in (rainy_stem, clean_stem))
        if here and those:
            yield f"{name} in one folder", functools.partial(_match_in_one, root, here, those)


def _are(folders: tuple[Path, Path], rainy: Sequence[str], clean: Sequence[str]) -> bool:
    """Whether two folders have such names, and the same word before or behind them, if any."""
    return bool(_affixes(folders[0].name, rainy) & _affixes(folders[1].name, clean))


def _affixes(name: str, kinds: Sequence[str]) -> set[tuple[str, str]]:
    """What stands before and behind one of ``kinds`` in a folder's name: nothing, or a word on one side."""
    name = name.lower()
    if name in kinds:
        return {("", "")}
    before, _, last = name.rpartition("_")
    first, _, behind = name.partition("_")
    found = {(before, "")} if before and last in kinds else set()
    return found | ({("", behind)} if behind and first in kinds else set())


def _contents(root: Path) -> str:
    """What a message says of a folder's contents."""
    images = list_images(root)
    names = [f"{path.name}/" for path in sorted(list_folder(root)) if os.path.isdir(path)]
    shown = ", ".join([*names[:_SHOWN], *["..."] * (len(names) > _SHOWN)])
    some = ", ".join([*(path.name for path in images[:2]), *["..."] * (len(images) > 2)])
    return f"folders: {shown or 'none'}; images: {len(images)}{f' ({some})' if images else ''}"


def _halves(root: Path, layout: Layout) -> Pairing:
    source = FolderSource(root)
    made = made_of_others(source.paths)
    notes = [*source.notes, *_named(made, f"{root}: left alone: {{}} named after another image")]
    left = set(made)
    pictures = [path for path in source.paths if path not in left]
    return Pairing(layout, [Pair(path, path, layout) for path in pictures], tuple(notes))


def made_of_others(paths: Sequence[Path]) -> list[Path]:
    """Images of a folder that were made of another one there, by their names: ``1.jpg_derain.png`` of ``1.jpg``."""
    names = {path.name for path in paths}
    found = ((path, re.match(r"(.+\.\w+)_", path.name)) for path in paths)
    return [path for path, fits in found if fits and fits[1] in names]


def match_folders(rainy: str | Path, clean: str | Path) -> Pairing:
    """The pairs of a rainy and a clean folder, by the first of `RULES` that fits every rainy image.

    Raises:
        DataError: A folder is missing or empty, both are one, or no rule fits every rainy image, or two do.
    """
    return match_images(rainy_images(rainy), FolderSource(clean))


def rainy_images(root: str | Path) -> FolderSource:
    """The rainy images of a data set; the original Rain200 keeps them one level down.

    Raises:
        DataError: The folder is missing or empty.
    """
    root = user_path(root)
    inner = root / "X2"
    return FolderSource(inner if os.path.isdir(inner) and not list_images(root) else root)


def match_images(rainy: FolderSource, clean: FolderSource) -> Pairing:
    """The pairs of rainy and clean images, by the first of `RULES` that fits every rainy image.

    Raises:
        DataError: Both are one folder, or no rule fits every rainy image, or two do.
    """
    if os.path.samefile(rainy.root, clean.root):
        raise DataError(f"{rainy.root}: is named for the rainy and for the clean images; a pair is of two images")
    return _match(rainy.paths, clean.paths, rainy.root, (*rainy.notes, *clean.notes))


def _match_beside(folder: Path, clean: Sequence[Path]) -> Pairing:
    rainy = rainy_images(folder)
    return _match(rainy.paths, clean, rainy.root, rainy.notes)


def _match_in_one(root: Path, rainy: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    source = FolderSource(root)
    named = {*rainy, *clean}
    others = [path for path in source.paths if path not in named]
    notes = [*source.notes, *_named(others, f"{root}: left alone: {{}} of other names")]
    return _match(rainy, clean, root, notes)


def _match(rainy: Sequence[Path], clean: Sequence[Path], where: Path, notes: Sequence[str]) -> Pairing:
    by_stem: dict[str, list[Path]] = {}
    for path in clean:
        by_stem.setdefault(path.stem, []).append(path)
    missing: dict[str, list[Path]] = {}
    fitting: dict[str, list[str]] = {}
    for name, rule in RULES:
        stems = [rule(path.stem) for path in rainy]
        missing[name] = [path for path, stem in zip(rainy, stems, strict=True) if stem not in by_stem]
        if not missing[name]:
            fitting[name] = stems
            if name == RULES[0][0]:  # the same name needs no further reason
                break
    if not fitting:
        name = min(missing, key=lambda each: len(missing[each]))
        raise DataError(
            f"{where}: {len(missing[name])} of {len(rainy)} rainy images have no clean version by the rule '{name}', "
            f"which fits best; the first is {missing[name][0].name}. The first clean image is {clean[0].name}; "
            f"{_SAY_PAIRS}"
        )
    found, stems = next(iter(fitting.items()))
    other = next((each for each in fitting if fitting[each] != stems), None)
    if other is not None:
        raise DataError(
            f"{where}: fits two rules, '{found}' and '{other}', which find other clean images; {_SAY_PAIRS}"
        )
    pairs = []
    for path, stem in zip(rainy, stems, strict=True):
        one, *more = by_stem[stem]
        if more:
            raise DataError(
                f"{where}: {path.name} has two clean versions, {one} and {more[0].name}; remove one, or {_SAY_PAIRS}"
            )
        pairs.append(Pair(path, one))
    used = {*stems}
    unused = [path for path in clean if path.stem not in used]
    extra = _named(unused, f"{clean[0].parent}: in no pair: {{}} without a rainy one")
    return Pairing(found, pairs, (*notes, *extra))


def _named(paths: Sequence[Path], message: str) -> list[str]:
    """A message about some images, ``{}`` in it their number and the first one; none about none."""
    if not paths:
        return []
    first = f"{len(paths)} images, the first {paths[0].name}," if len(paths) > 1 else paths[0].name
    return [message.format(first)]


_ALLOW_OUTSIDE = "allow_outside: true of the data set, or basicsr prepare check --allow-outside"
_WORD = re.compile(r'"([^"]+)"|(\S+)')
_LONGEST_LINE = 16_384
_LONGEST_SHOWN = 300


def _from_list(path: Path, allow_outside: bool) -> Pairing:
    root = path.parent.resolve()
    pairs = []
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), ""), 1):
                if len(line) > _LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: longer than two paths can be; is it a list of pairs?")
                if line.strip():
                    pairs.append(_listed_pair(line, f"{path}, line {number}", root, allow_outside))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of pairs ({error})") from None
    if not pairs:
        raise DataError(f"{path}: lists no pairs")
    return Pairing("list file", pairs)


def _listed_pair(line: str, where: str, root: Path, allow_outside: bool) -> Pair:
    words = [quoted or plain for quoted, plain in _WORD.findall(line)]
    if len(words) != 2:
        raise DataError(
            f"{where}: expected 'rainy_path clean_path', got '{_shown(line.strip())}'; "
            'a path with spaces goes into "double quotes"'
        )
    rainy, clean = (_listed_file(word, where, root, allow_outside) for word in words)
    return Pair(rainy, clean)


def _listed_file(word: str, where: str, root: Path, allow_outside: bool) -> Path:
    # Lists begin paths with a slash that are relative all the same. Dots go by name: links are the user's own.
    file = Path(os.path.normpath(root / word.lstrip("/")))
    if allow_outside and not os.path.isfile(file):
        file = Path(os.path.normpath(root / word))
    elif not allow_outside and not file.is_relative_to(root):
        raise DataError(f"{where}: {_shown(word)} lies outside {root}; if that is meant, {_ALLOW_OUTSIDE}")
    if "\0" in word or not os.path.isfile(file):  # for normpath a path ends at a zero byte
        raise DataError(f"{where}: no such file: {_shown(str(file))}{_remedy(word, allow_outside)}")
    return file


def _remedy(word: str, allow_outside: bool) -> str:
    """What may help where a path of a list leads to no file."""
    if "\\" in word:
        return f"; write {_shown(word.replace(chr(92), '/'))}, with slashes in place of the back slashes"
    if word.startswith("/") and not allow_outside:
        return f"; it is looked for below the list's folder, whatever it begins with, but for {_ALLOW_OUTSIDE}"
    return ""


def _shown(text: str) -> str:
    """A text for a message: not too long, and nothing in it that a terminal would obey."""
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} ..."
    return text if text.isprintable() else ascii(text)[1:-1]
