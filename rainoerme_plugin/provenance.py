"""What computed a value: a digest of code to keep with it, so that what other code has made is not believed."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec, resolve_name
from types import CodeType
from typing import NamedTuple

_OWN = __name__.partition(".")[0]
_BESIDE = {
    f"{_OWN}{name}"
    for name in (
        "",
        ".archs.catalogue",
        ".archs.recognise",
        ".benchmark.methods",
        ".benchmark.options",
        ".benchmark.results",
        ".data.names",
        ".data.sources",
        ".data.threads",
        ".errors",
        ".files",
        ".plugin",
        ".provenance",
        ".registry",
        ".weights",
    )
}
"""Modules that find, name, open and tell, but compute nothing: whoever imports them is not followed into them."""


def code_of(*modules: str) -> str:
    """A digest of modules' code: of all that they import of their own packages, and of other packages' versions.

    Comments, docstrings and layout do not count, nor what is imported for its types alone. A package that is installed
    counts by its version; this one, and one that is installed to be edited, by its source, or its compiled code where
    it comes without.

    Args:
        modules: Their full names. One that is not there counts as that.

    Returns:
        16 hexadecimal digits.
    """
    with _one_at_a_time:
        return _digest_of(modules)


_one_at_a_time = threading.Lock()
"""Python 3.11's parser counts its depth for all threads together, and fails where two are in it."""


@cache
def _digest_of(modules: tuple[str, ...]) -> str:
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in found or top in sys.stdlib_module_names:
            continue
        if (version := _version(top)) is not None:
            found[top] = version
            continue
        source = _read(name)
        found[name] = source.text
        waiting += [other for other in source.imports if other not in _BESIDE]
    return hashlib.blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=8).hexdigest()


def modules_of(things: Iterable[object]) -> tuple[str, ...]:
    """The names of the modules that define the classes of ``things`` and all that these inherit from."""
    return tuple(sorted({base.__module__ for kind in set(map(type, things)) for base in kind.__mro__}))


@cache
def _version(package: str) -> str | None:
    """The distributions that a package is of, with their versions; None: it is to be known by its source."""
    names = () if package == _OWN else sorted(set(_distributions().get(package, ())))
    if not names or any(_is_edited(name) for name in names):
        return None
    return ", ".join(f"{name} {distribution(name).version}" for name in names)


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _is_edited(name: str) -> bool:
    """Whether a distribution is installed as a link to its sources."""
    try:
        about = json.loads(distribution(name).read_text("direct_url.json") or "{}")
        return bool(about.get("dir_info", {}).get("editable", False))
    except (PackageNotFoundError, ValueError, AttributeError):
        return False


class _Source(NamedTuple):
    text: str
    imports: tuple[str, ...] = ()


def _read(name: str) -> _Source:
    """A module's code as a text, and what it imports."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # of a package that is not there; of a program
        spec = None
    if spec is None or spec.loader is None:
        return _Source("not there")
    loader, package = spec.loader, name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    try:
        source = loader.get_source(name)  # type: ignore[attr-defined]
        tree = None if source is None else ast.parse(source)
    except (AttributeError, ImportError, SyntaxError):
        tree = None
    if tree is None:
        code = getattr(loader, "get_code", lambda _: None)(name)
        return _Source("compiled" if code is None else "\n".join(_flat(code)))
    imports = tuple(dict.fromkeys(_imports(tree, package)))
    return _Source(ast.unparse(_Bare().visit(tree)), imports)


class _Bare(ast.NodeTransformer):
    """Takes out docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            yield base
            if _version(base.partition(".")[0]) is None:
                yield from (f"{base}.{alias.name}" for alias in node.names if _is_module(f"{base}.{alias.name}"))
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from (name for other in node.orelse for name in _imports(other, package))
        else:
            yield from _imports(node, package)


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _flat(code: CodeType) -> Iterator[str]:
    """Compiled code as texts that are the same in every process."""
    yield f"{code.co_name} {code.co_names} {code.co_code.hex()}"
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _flat(value)
        else:
            yield str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
