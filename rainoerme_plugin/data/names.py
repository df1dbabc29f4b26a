"""Many names in little memory: a data set of 640,000 images has as many."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


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
