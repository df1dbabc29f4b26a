"""What a pickle of tensors and plain types would do, found out without doing it.

PyTorch's reader for such files (``weights_only``) runs no code of theirs. But it makes what they ask for: of some
hundred bytes, memory that is full, a comparison that takes years, or a stack that overflows.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
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


class UnknownStepError(ValueError):
    """It does what the protocol that is read has no word for."""


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


# --- other protocols ---

_TEXT_KINDS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_GET_KINDS = {"BINGET", "LONG_BINGET", "GET"}
_PUT_KINDS = {"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"}
_BYTES_KINDS = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
PROTOCOL_2 = b"\x80\x02"
"""How a pickle of the protocol begins that torch.save writes unless it is told otherwise, and torch.load reads."""


@dataclass(slots=True)
class _Text:
    """A text that is not written yet: it may be half of a name."""

    text: str
    place: int | None = None
    """In the memo."""


def as_protocol_2(file: BinaryIO) -> bytes:
    """Read one pickle from a file, up to its end, and say the same in protocol 2; nothing is made of it.

    What differs is how texts, bytes and names are written, and what goes into the memo.

    Raises:
        UnsafePickle: It takes too many steps.
        UnknownStepError: It does something for which protocol 2 has no word.
        ValueError: It is damaged.
    """
    start = file.tell()
    steps: list[tuple[pickletools.OpcodeInfo, object, int]] = []
    for opcode, argument, position in pickletools.genops(file):
        if len(steps) > _MOST_STEPS:
            raise UnsafePickle(f"takes more than {_MOST_STEPS:,} steps")
        steps.append((opcode, argument, (position or 0) - start))
    end = file.tell() - start
    file.seek(start)
    data = file.read(end)

    written = bytearray(PROTOCOL_2)
    pending: list[_Text] = []
    texts: dict[int, str] = {}
    in_memo: set[int] = set()
    puts = 0

    def flush() -> None:
        for each in pending:
            if each.place in in_memo:
                written.extend(_get(each.place))
                continue
            written.extend(_text(each.text))
            if each.place is not None:
                written.extend(_put(each.place))
                in_memo.add(each.place)
        pending.clear()

    ends = [position for _, _, position in steps[1:]] + [end]
    for (opcode, argument, position), after in zip(steps, ends, strict=True):
        kind = opcode.name
        if kind in ("PROTO", "FRAME"):
            continue
        if kind in _TEXT_KINDS:
            pending.append(_Text(str(argument)))
        elif kind in _PUT_KINDS:
            place = puts if kind == "MEMOIZE" else int(str(argument))
            puts += 1
            if pending:
                pending[-1].place, texts[place] = place, pending[-1].text
                in_memo.discard(place)
            else:
                texts.pop(place, None)
                written.extend(_put(place))
        elif kind in _GET_KINDS and (place := int(str(argument))) in texts:
            pending.append(_Text(texts[place], place))
        elif kind == "STACK_GLOBAL":
            if len(pending) < 2 or any("\n" in each.text for each in pending[-2:]):
                raise ValueError("a name that is no text")
            name, module = pending.pop().text, pending.pop().text
            flush()
            written.extend(f"c{module}\n{name}\n".encode())
        else:
            flush()
            written.extend(_other(opcode, argument, data[position:after]))
    return bytes(written)


def _other(opcode: pickletools.OpcodeInfo, argument: object, raw: bytes) -> bytes:
    """A step in protocol 2."""
    kind = opcode.name
    if kind in _GET_KINDS:
        return _get(int(str(argument)))
    if kind in _BYTES_KINDS:
        assert isinstance(argument, bytes)
        return b"c_codecs\nencode\n" + _text(argument.decode("latin1")) + _text("latin1") + b"\x86R"
    if kind in ("INT", "LONG"):
        if isinstance(argument, bool):
            return b"\x88" if argument else b"\x89"
        return pickle.dumps(argument, 2)[2:-1]
    if kind == "FLOAT":
        return pickle.dumps(float(str(argument)), 2)[2:-1]
    if opcode.proto > 2:
        raise UnknownStepError(f"a pickle of protocol 4 or 5 with a step that is not read here ({kind})")
    return raw


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _put(place: int) -> bytes:
    return b"q" + bytes([place]) if place < 256 else b"r" + struct.pack("<I", place)


def _get(place: int | None) -> bytes:
    assert place is not None
    return b"h" + bytes([place]) if place < 256 else b"j" + struct.pack("<I", place)
