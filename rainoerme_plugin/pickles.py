"""What a pickle of tensors and plain types would do, found out without doing it.

PyTorch's reader for such files (``weights_only``) runs no code of theirs. But it makes what they ask for: of some
hundred bytes, memory that is full, a comparison that takes years, or a stack that overflows.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import BinaryIO

CALLED = frozenset(
    {
        "collections OrderedDict",
        "collections Counter",
        "builtins set",
        "__builtin__ set",
        "builtins complex",
        "__builtin__ complex",
        "_codecs encode",
        "torch Size",
        "torch device",
        "torch.serialization _get_layout",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_parameter_with_state",
        "torch._utils _rebuild_sparse_tensor",
        "torch._utils _rebuild_qtensor",
        "torch._utils _rebuild_meta_tensor_no_storage",
    }
)
"""What is called in files of ``torch.save``. PyTorch's reader calls more, such as ``bytearray`` of any length."""
_MOST_STEPS = 2_000_000
_DEEPEST = 100
_FREE = 100_000
_CONSTANTS = {"NONE", "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"}
_TEXTS = {"BINUNICODE", "SHORT_BINSTRING"}
_EMPTY = {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}


class UnsafePickle(ValueError):  # noqa: N818 - it is the pickle that is not safe
    """It would do something that no checkpoint needs."""


@dataclass(slots=True)
class _Value:
    weight: int = 1
    """What it takes to go through it or to copy it; what it holds twice counts twice."""
    depth: int = 0
    """Of tuples in tuples: going through them is recursive."""
    name: str = ""
    """``module name`` of what is called by a name."""


def check_pickle(file: BinaryIO) -> None:
    """Read one pickle from a file, up to its end, and make nothing of it.

    Raises:
        UnsafePickle: It calls what no checkpoint calls, or takes much more time or memory than its length says.
        Exception: It is damaged.
    """
    stack: list[_Value] = []
    marks: list[int] = []
    memo: dict[object, _Value] = {}
    steps, spent = 0, 0

    def pop_mark() -> list[_Value]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def spend(value: _Value) -> None:
        nonlocal spent
        spent += value.weight
        # Of a file whose parts are used once, all of it together weighs less than its length.
        if value.depth > _DEEPEST or spent > _FREE + 10 * steps:
            raise UnsafePickle("would take too much time or memory")

    for opcode, argument, _ in pickletools.genops(file):
        steps += 1
        if steps > _MOST_STEPS:
            raise UnsafePickle(f"takes more than {_MOST_STEPS:,} steps")
        kind = opcode.name
        if kind in _CONSTANTS or kind in _EMPTY:
            stack.append(_Value())
        elif kind in _TEXTS:
            length = len(str(argument)) // 64
            stack.append(_Value(1 + length))
            steps += length
        elif kind == "GLOBAL":
            stack.append(_Value(name=str(argument)))
        elif kind in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif kind in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif kind == "MARK":
            marks.append(len(stack))
        elif kind == "TUPLE":
            stack.append(_tuple_of(pop_mark()))
        elif kind in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(kind[-1])
            stack[-count:] = [_tuple_of(stack[-count:])]
        elif kind in ("APPEND", "APPENDS"):
            items = pop_mark() if kind == "APPENDS" else [stack.pop()]
            _grow(stack[-1], items)
        elif kind in ("SETITEM", "SETITEMS"):
            items = pop_mark() if kind == "SETITEMS" else [stack.pop(-2), stack.pop()]
            for key in items[::2]:
                spend(key)
            _grow(stack[-1], items)
        elif kind == "BUILD":
            state = stack.pop()
            spend(state)
            _grow(stack[-1], [state])
        elif kind == "BINPERSID":
            spend(stack.pop())
            stack.append(_Value())
        elif kind == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if function.name not in CALLED:
                raise UnsafePickle(f"calls {function.name.replace(' ', '.') or 'what it has made'}")
            spend(arguments)
            # Some encodings make more of a text than it is.
            factor = 16 if function.name == "_codecs encode" else 1
            stack.append(_Value(min(arguments.weight * factor, _FREE * _MOST_STEPS)))
        elif kind == "NEWOBJ":
            raise UnsafePickle("makes objects of other kinds")
        elif kind not in ("PROTO", "STOP"):
            raise ValueError(f"{kind}, which neither torch.save writes nor torch.load reads")


def _tuple_of(items: list[_Value]) -> _Value:
    value = _Value(depth=1 + max((item.depth for item in items), default=0))
    _grow(value, items)
    return value


def _grow(value: _Value, items: list[_Value]) -> None:
    # Not without end: a list may hold itself.
    value.weight = min(value.weight + sum(item.weight for item in items), _FREE * _MOST_STEPS)
