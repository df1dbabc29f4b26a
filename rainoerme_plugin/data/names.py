"""Names of images: many in little memory (a data set may have 640,000), and fit to be those of results."""

from __future__ import annotations

import operator
import os
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np

from ..errors import DataError
from ..files import LONGEST_NAME, named_after


class Names(Sequence[str]):
    """Texts, end to end in one block of bytes, with where each ends in another.

    A list of strings takes five times as much, and forked workers copy it page by page: reading a string counts a
    reference up and down, which is a write. Names of files may hold bytes that are no Unicode.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        data, ends = bytearray(), array("q", [0])
        for text in texts:
            data += text.encode("utf-8", "surrogateescape")
            ends.append(len(data))
        self._data = bytes(data)
        self._ends = np.array(ends, np.int64)

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        """The texts of all parts, one after the other; of one part, that."""
        if len(parts) == 1:
            return parts[0]
        names = cls(())
        names._data = b"".join(part._data for part in parts)
        starts = np.cumsum([0, *(len(part._data) for part in parts)])
        ends = (part._ends[1:] + start for part, start in zip(parts, starts[:-1], strict=True))
        names._ends = np.concatenate([np.zeros(1, np.int64), *ends])
        return names

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = operator.index(index)
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        return self._data[self._ends[number] : self._ends[number + 1]].decode("utf-8", "surrogateescape")


def result_name(name: str, where: object | None = None) -> str:
    """The one gate for names that come from data and are to be those of files: ``name``, if it is fit for that.

    Whatever folder it is joined to, on any system, the file lies in that folder or below it.

    Args:
        name: A relative path with slashes, without a suffix or with one.
        where: What tells the image that has the name, for the message; None: the name does.

    Raises:
        DataError: It is empty or absolute, leads out of its folder, or cannot be a file's name.
    """
    parts = name.split("/")
    fits = (
        not any(part in ("", ".", "..") for part in parts)
        and not any(sign == "\\" or unicodedata.category(sign) == "Cc" for sign in name)
        and not re.match("[A-Za-z]:", name)
        and all(len(os.fsencode(part)) <= LONGEST_NAME for part in parts)
    )
    if not fits:
        raise DataError(
            f"{name if where is None else where}: cannot be the name of a result: that is a path below the folder for "
            f"results, without '..', back slashes and control characters, of at most {LONGEST_NAME} bytes a name; "
            "rename the image, and make the LMDB again if it is in one"
        )
    return name


def result_names(names: Sequence[str], where: Callable[[int], object] | None = None) -> list[str]:
    """A name for the result of each image, without a suffix; no two are alike, even where upper case is lower case.

    It is the image's own without its suffix; where others would share that, with it, and then with a number.

    Args:
        names: Of the images, relative paths with slashes.
        where: What tells an image by its number, for messages.

    Raises:
        DataError: A name is not fit for a result's (`result_name`).
    """
    checked = [result_name(name, where and where(index)) for index, name in enumerate(names)]
    stems = [str(PurePosixPath(name).with_suffix("")) for name in checked]
    shared = Counter(map(as_one, stems))
    taken = {stem for stem, count in shared.items() if count == 1}
    found = []
    for name, stem in zip(checked, stems, strict=True):
        if shared[as_one(stem)] > 1:
            stem, number = name, 1
            while as_one(stem) in taken:
                number += 1
                stem = f"{name}~{number}"
            taken.add(as_one(stem))
        found.append(stem)
    return found


def as_one(name: str) -> str:
    """What a file system that does not tell upper from lower case makes of a name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def result_path(folder: Path, name: str, ending: str) -> Path:
    """The file below ``folder`` for a result of this name (`result_name`), with an ending; cut if it is too long."""
    above, _, last = name.rpartition("/")
    return folder / above / named_after(last, ending)


def results_of(batch: Mapping[str, Any]) -> list[str]:
    """The names for the results of a batch of test samples; a data set of others does not tell, and has the stems."""
    return list(batch.get("result") or (result_name(Path(path).stem, path) for path in batch["lq_path"]))


def names_of(paths: Sequence[Path]) -> list[str]:
    """The names of files; where two have one, their paths below the folder that all are in."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    root = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(root).as_posix() for path in paths]
