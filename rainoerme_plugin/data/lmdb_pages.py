"""Whether the pages of an LMDB hang together: the C library believes them, and a wrong number kills the process.

Layout of LMDB 0.9's files (mdb.c): pages of one size, the first two with what the newest transactions left; from
there a tree of branch and leaf pages, whose entries lie in the leaves or, larger ones, in a run of pages of their own.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PAGE = struct.Struct("=QHHHH")
"""Number, padding, kind, end of the list of nodes, begin of the nodes."""
_META = struct.Struct("=IIQQ 48s48s QQ")
_TREE = struct.Struct("=IHHQQQQQ")
"""Page size (in that of free pages), flags, depth, branch, leaf and other pages, entries, root."""
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NO_PAGE = 2**64 - 1
_BRANCH, _LEAF, _KINDS = 1, 2, 0x6F
_IN_LEAF, _OUTSIDE = 0, 1
_NODE = 8
"""Bytes before a node's key: two words, flags, length of the key."""


class _Meta(NamedTuple):
    """What a transaction left; ``free`` and ``tree`` are each a `_TREE`."""

    magic: int
    version: int
    address: int
    map_size: int
    free: bytes
    tree: bytes
    last_page: int
    transaction: int


def find_damage(path: Path) -> str | None:
    """What is wrong with the tree of an LMDB's data file; None if nothing is, or if LMDB will say what.

    The pages of the tree are read, a hundredth of the file or less; what the entries hold is not looked at.

    Raises:
        OSError: It cannot be read.
    """
    if path.stat().st_size < 2 * (_PAGE.size + _META.size):
        return None
    data = np.asarray(np.memmap(path, np.uint8, mode="r"))  # a plain array is sliced in less time
    first = _meta(data, 0)
    page_size = _TREE.unpack(first.free)[0]
    if first[:2] != (_MAGIC, _VERSION):
        return None
    if page_size not in (1 << power for power in range(8, 17)):
        return f"pages of {page_size} bytes in data.mdb"
    if len(data) < page_size + _PAGE.size + _META.size:
        return "data.mdb ends too early"
    second = _meta(data, page_size)
    if second[:2] != (_MAGIC, _VERSION):
        return None
    newest = second if second.transaction > first.transaction else first
    if (newest.last_page + 1) * page_size > len(data):
        return "data.mdb ends too early"
    pages = data[: (newest.last_page + 1) * page_size].reshape(-1, page_size)
    return _walk(pages, newest.tree, fewest=2) or _walk(pages, newest.free, fewest=1)


def _meta(data: NDArray[np.uint8], start: int) -> _Meta:
    place = start + _PAGE.size
    return _Meta(*_META.unpack(data[place : place + _META.size].tobytes()))


def _walk(pages: NDArray[np.uint8], tree: bytes, fewest: int) -> str | None:
    """Go through a tree; ``fewest``: nodes that a branch has."""
    *_, entries, root = _TREE.unpack(tree)
    found, seen = 0, set[int]()
    ahead = [] if root == _NO_PAGE else [root]
    while ahead:
        number = ahead.pop()
        if not 2 <= number < len(pages):
            return f"page {number} of {len(pages)} in data.mdb"
        if number in seen:
            return f"page {number} of data.mdb is there twice"
        seen.add(number)
        nodes = _Nodes(pages, number)
        if nodes.count < (1 if nodes.is_leaf else fewest):
            return f"page {number} of data.mdb"
        if not nodes.is_leaf:
            ahead.extend(nodes.children.tolist())
        found += nodes.count * nodes.is_leaf
    return None if found == entries else f"{found} entries in data.mdb, not {entries}"


class _Nodes:
    """The nodes of a page; ``count`` is -1 if they lie outside it, or what they name outside the file."""

    def __init__(self, pages: NDArray[np.uint8], number: int) -> None:
        self.count, self.is_leaf = -1, False
        self.children: NDArray[np.int64] = np.empty(0, np.int64)
        page, size = pages[number], pages.shape[1]
        own, _, kind, lower, upper = _PAGE.unpack(page[: _PAGE.size].tobytes())
        if own != number or kind & _KINDS not in (_BRANCH, _LEAF) or not _PAGE.size <= lower <= upper <= size:
            return
        words = page.view(np.uint16).astype(np.int64)
        starts = words[_PAGE.size // 2 : lower // 2]
        if ((starts < upper) | (starts > size - _NODE) | (starts % 2 == 1)).any():
            return
        low, high, flags, key = (words[starts // 2 + place] for place in range(4))
        value = starts + _NODE + key
        if kind & _BRANCH:
            self.children = low + (high << 16) + (flags << 32)
            if (value > size).any():
                return
        elif not self._holds(pages, page, low + (high << 16), flags, value):
            return
        self.count, self.is_leaf = len(starts), bool(kind & _LEAF)

    @staticmethod
    def _holds(
        pages: NDArray[np.uint8],
        page: NDArray[np.uint8],
        length: NDArray[np.int64],
        flags: NDArray[np.int64],
        value: NDArray[np.int64],
    ) -> bool:
        """Whether the values of a leaf lie within the leaf, or within the file."""
        count, size = pages.shape
        outside = flags == _OUTSIDE
        if ((flags != _IN_LEAF) & ~outside | (value + np.where(outside, 8, length) > size)).any():
            return False
        first = page[value[outside, None] + np.arange(8)].copy().view(np.uint64).ravel()
        run = (_PAGE.size + length[outside] + size - 1) // size
        return bool(((first >= 2) & (first < count) & (first.astype(np.int64) <= count - run)).all())
