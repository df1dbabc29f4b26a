"""Finding the pairs of rainy and clean images in the file layouts that deraining data sets come in.

A layout is a pair of folder names, a rule that turns a rainy image's name into its clean one's, or both: PReNet's,
RCDNet's and the original Rain100/200, RainTrainL/H, Rain1400, Rain13K's tests, SPA-Data's list files, and pictures
that hold both images side by side.
"""

from __future__ import annotations

import io
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
    ("rain", "norain"),
    ("rainy", "norain"),
    ("input", "target"),
    ("input", "targets"),
    ("rainy_image", "ground_truth"),
    ("lq", "gt"),
    ("data", "label"),
    ("rainysamples", "cleansamples"),
    ("rainy", "clean"),
    ("rain", "clean"),
    ("input", "gt"),
    ("rainy", "gt"),
    ("rain", "gt"),
)
"""Names of the rainy and the clean folder, in any case."""


def _after_underscore_cut(stem: str) -> str:
    return stem.rpartition("_")[0] if re.search(r"_\d+$", stem) else ""


RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("same name", lambda stem: stem),
    ("rain-N to norain-N", lambda stem: re.sub(r"^rain", "norain", stem)),
    ("norain-Nx2 to norain-N", lambda stem: re.sub(r"x2$", "", stem)),
    ("rain-Nx2 to norain-N", lambda stem: re.sub(r"^rain", "norain", re.sub(r"x2$", "", stem))),
    ("N_1 ... N_14 to N", _after_underscore_cut),
)
"""What makes the clean image's stem out of the rainy one's, tried in this order."""


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
        if self.halves == "auto":
            rainy, clean = decode_image(self.rainy), decode_image(self.clean)
        else:
            picture = decode_image(self.rainy)
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
        return Pairing(layout, [Pair(path, path, layout) for path in FolderSource(root).paths])
    folders = {path.name.lower(): path for path in sorted(list_folder(root)) if os.path.isdir(path)}
    for rainy_name, clean_name in FOLDERS:
        if rainy_name in folders and clean_name in folders:
            return match_folders(folders[rainy_name], folders[clean_name])
    for name in ("rainy", "rain"):
        if name in folders and any(path.stem.startswith("norain") for path in list_images(root)):
            return match_folders(folders[name], root)
    own = list_images(root)
    rainy = [path for path in own if re.match(r"rain-?\d", path.stem)]
    if rainy and any(path.stem.startswith("norain") for path in own):
        return _match(rainy, [path for path in own if path.stem.startswith("norain")], root)
    known = ", ".join(f"{a}/+{b}/" for a, b in FOLDERS)
    raise NoPairsError(
        f"{root}: no pairs found. Known layouts: {known}; norain-N beside rainy/; rain-N and norain-N in one folder; "
        "a list file; layout: halves-rainy-clean or halves-clean-rainy. Or give both folders"
    )


def match_folders(rainy: str | Path, clean: str | Path) -> Pairing:
    """The pairs of a rainy and a clean folder, by the first of `RULES` that fits every rainy image.

    Raises:
        DataError: A folder is missing or empty, or no rule fits every rainy image.
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
        DataError: No rule fits every rainy image.
    """
    return _match(rainy.paths, clean.paths, rainy.root)


def _match(rainy: Sequence[Path], clean: Sequence[Path], where: Path) -> Pairing:
    by_stem = {path.stem: path for path in clean}
    fewest: tuple[list[Path], str] = (list(rainy), RULES[0][0])
    for name, rule in RULES:
        missing = [path for path in rainy if rule(path.stem) not in by_stem]
        if not missing:
            return Pairing(name, [Pair(path, by_stem[rule(path.stem)]) for path in rainy])
        if len(missing) < len(fewest[0]):
            fewest = missing, name
    missing, name = fewest
    raise DataError(
        f"{where}: {len(missing)} of {len(rainy)} rainy images have no clean version by the rule '{name}', which fits "
        f"best; the first is {missing[0].name}"
    )


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
        raise DataError(
            f"{where}: {_shown(word)} lies outside {root}; if that is meant, allow_outside: true of the data set, or "
            "basicsr prepare check --allow-outside"
        )
    if "\0" in word or not os.path.isfile(file):  # for normpath a path ends at a zero byte
        raise DataError(f"{where}: no such file: {_shown(str(file))}")
    return file


def _shown(text: str) -> str:
    """A text for a message: not too long, and nothing in it that a terminal would obey."""
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} ..."
    return text if text.isprintable() else ascii(text)[1:-1]
