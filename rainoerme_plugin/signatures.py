"""What code tells of classes that declare no options: signatures, and the keys that it reads from a dict."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, Field, create_model

from .errors import brief, nearest
from .options import Number, Section, Whole, check_number, read_section


def check_call(
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    key: str,
    *,
    skip: Iterable[str] = (),
    numbers: Iterable[str] = (),
    typed: bool = True,
) -> None:
    """Check arguments against a signature: their names, and the types that annotations or default values tell.

    Args:
        target: What is called with them.
        arguments: By name.
        key: Where they stand in the option file.
        skip: Parameters that others give.
        numbers: Parameters that are numbers, whatever the signature says.
        typed: Whether values must be of these types. Python does not hold code to them, so others may work: without,
            only texts are refused that are meant as a number or a truth value.

    Raises:
        OptionError: The first argument that is wrong.
    """
    signature = inspect.signature(target)
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        hints = {}
    fields: dict[str, Any] = {}
    takes_any = False
    for name, parameter in signature.parameters.items():
        takes_any |= parameter.kind is parameter.VAR_KEYWORD
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name in skip:
            continue
        required = parameter.default is parameter.empty
        type_of = _type_of if typed else _meant_as
        annotation = Number if name in numbers else type_of(hints.get(name), parameter.default)
        fields[name] = (annotation, ... if required else parameter.default)
    known = {name: value for name, value in arguments.items() if name in fields or not takes_any}
    read_section(_section_for(target, fields), known, key)


def _section_for(target: Any, fields: dict[str, Any]) -> type[Section]:
    # Aliases keep names such as 'copy' or '_x', which pydantic has uses of its own for, out of its way.
    aliased: dict[str, Any] = {
        f"field_{name}": (kind, Field(default, alias=name)) for name, (kind, default) in fields.items()
    }
    return create_model(f"{getattr(target, '__name__', 'call')}_options", __base__=Section, **aliased)


def _type_of(hint: Any, default: Any) -> Any:
    parts = get_args(hint)
    if get_origin(hint) in (Union, UnionType) and NoneType in parts and len(parts) == 2:
        return _type_of(next(part for part in parts if part is not NoneType), None) | None
    if get_origin(hint) in (Literal, dict):
        return hint
    if hint is int:
        return Whole
    if hint is float:
        return Number
    if hint in (bool, str):
        return hint
    if hint is None and isinstance(default, bool):
        return bool
    if hint is None and isinstance(default, int | float):
        return Annotated[Any, AfterValidator(_no_text)]
    return Any


def _meant_as(hint: Any, default: Any) -> Any:
    is_scalar = hint in (bool, int, float) or (hint is None and isinstance(default, bool | int | float))
    return Annotated[Any, AfterValidator(_no_slip)] if is_scalar else Any


def _no_slip(value: Any) -> Any:
    """Texts may be what such a parameter takes, too; but not ``1e-3`` and ``ture``, which are slips."""
    if isinstance(value, str) and (near := nearest(value.lower(), ("true", "false"), cutoff=0.7)):
        raise ValueError(f"expected true or false, got {brief(value)}{near}")
    return check_number(value)


def _no_text(value: Any) -> Any:
    """A number by its default value alone may as well take a list, a truth value or nothing; hardly a text."""
    if isinstance(value, str):
        raise ValueError(f"expected a number, got {brief(value)}")
    return value


def keys_read_by(found: type) -> set[str]:
    """The constant keys that a class, its bases and the functions of their modules subscript or ``get`` from a dict."""
    keys: set[str] = set()
    for base in inspect.getmro(found):
        module = sys.modules.get(base.__module__)
        if module is not None and base is not object:
            keys |= _keys_in(module.__name__)
    return keys


@lru_cache(maxsize=256)
def _keys_in(module: str) -> frozenset[str]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, SyntaxError):
        return frozenset()
    keys = set()
    for node in ast.walk(tree):
        constant: ast.expr | None = None
        if isinstance(node, ast.Subscript):
            constant = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in ("get", "pop", "setdefault"):
                constant = node.args[0]
        elif isinstance(node, ast.Compare) and any(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
            constant = node.left
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
            keys.add(constant.value)
    return frozenset(keys)
