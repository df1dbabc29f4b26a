"""Reading option files: inheritance, overrides, environment variables. What the keys mean is others' business."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .errors import OptionError, brief

if TYPE_CHECKING:
    from .processes import Launcher

MOST_BYTES = 256 << 10
"""Of an option file: thirty times the largest of the project's, and parsed in a few seconds at worst."""
MOST_VALUES = 100_000
"""In an option file, where an alias counts as all that it stands for: a few lines of aliases can stand for billions."""
DEEPEST = 30
"""How deep values may be nested: Python's own recursion ends at some hundred."""
MOST_FILES = 100
"""Read for one option file: a few files that name each other's ``_base_`` many times would be read for ever."""
LONGEST_TEXT = 1000
LONGEST_NUMBER = 100
"""In characters: Python takes its time over integers of a million digits, and will not print them."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for: an option file, and what is not in it."""

    option_file: Path
    overrides: Sequence[str] = ()
    device: str = "auto"
    launcher: Launcher = "none"
    auto_resume: bool = False
    root: Path = Path()
    """Below it, experiments/ and results/ are made."""


class _Loader(yaml.SafeLoader):
    """YAML of keys, lists, texts, numbers, truth values and nulls alone: other tags make objects. Dates are texts."""

    _depth = 0

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count(node)
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Here already: PyYAML takes seconds over the levels down to where Python's recursion ends.
        self._depth += 1
        if self._depth > DEEPEST:
            raise _too_deep(self.peek_event())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _count(node: yaml.Node, depth: int = 1) -> int:
    """How many values a node stands for, aliases written out; one that stands for itself is too deep."""
    if depth > DEEPEST:
        raise _too_deep(node)
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    total = 1
    for child in children:
        total += _count(child, depth + 1)
        if total > MOST_VALUES:
            raise _problem(f"more than {MOST_VALUES:,} values, with all that aliases stand for", node)
    return total


def _too_deep(place: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    return _problem(f"nested more than {DEEPEST} deep", place)


def _problem(text: str, place: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = place.start_mark
    return yaml.constructor.ConstructorError(None, None, text, mark)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _problem(f"the key {brief(key)} is no text; put it in quotes", key_node)
        if key in seen:
            raise _problem(f"the key '{key}' is given twice", key_node)
        seen.add(key)
    mapping: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return mapping


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text: str = loader.construct_scalar(node)
    if len(text) > LONGEST_TEXT:
        raise _problem(f"a text of {len(text):,} characters; at most {LONGEST_TEXT:,} are read", node)
    # Neither can be in a file's name or be printed.
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        raise _problem("a text with a character that no text may hold", node)
    return text


def _number(construct: Callable[[_Loader, yaml.ScalarNode], Any]) -> Callable[[_Loader, yaml.ScalarNode], Any]:
    def constructed(loader: _Loader, node: yaml.ScalarNode) -> Any:
        text = loader.construct_scalar(node)
        if len(text) > LONGEST_NUMBER:
            raise _problem(f"a number of {len(text):,} characters; at most {LONGEST_NUMBER} are read", node)
        try:
            return construct(loader, node)
        except (ValueError, LookupError):
            raise _problem(f"{brief(text)} is no {node.tag.rpartition(':')[2]}", node) from None

    return constructed


_CONSTRUCTORS: dict[str, Callable[[_Loader, Any], Any]] = {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": _number(yaml.SafeLoader.construct_yaml_bool),
    "int": _number(yaml.SafeLoader.construct_yaml_int),
    "float": _number(yaml.SafeLoader.construct_yaml_float),
    "str": _text,
    "seq": yaml.SafeLoader.construct_yaml_seq,
    "map": _mapping,
}
_Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,
    **{f"tag:yaml.org,2002:{name}": construct for name, construct in _CONSTRUCTORS.items()},
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "value")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_options(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a YAML file, with those of its ``_base_`` files beneath and ``KEY=VALUE`` overrides on top.

    Inheritance is as in mmengine: dicts are merged, ``_delete_: true`` replaces one, everything else is replaced.
    mmengine's own reader is not asked: it lets YAML tags run code, and fills in templates. ``${NAME}`` in a text is the
    environment variable of that name.

    Raises:
        OptionError: A file is missing or not YAML, an override is not KEY=VALUE, or a variable is not set.
    """
    options = _with_bases(Path(path), (), [])
    for text in overrides:
        key, value = parse_override(text)
        for name in reversed(key.split(".")):
            value = {name: value}
        options = _merged(options, value, f"override {brief(text)}")
    return _expand(options, Path(path), "")


def _with_bases(path: Path, above: tuple[Path, ...], read: list[Path]) -> dict[str, Any]:
    """The options of a file merged over those of its bases; ``read`` are all files so far."""
    for_whom = f" (the _base_ of {above[-1]})" if above else ""
    where = f"{path}{for_whom}"
    if path.suffix.lower() not in (".yml", ".yaml"):
        raise OptionError(f"{where}: an option file ends in .yml or .yaml")
    read.append(path)
    if len(read) > MOST_FILES:
        raise OptionError(f"{where}: more than {MOST_FILES} files are read by way of _base_")
    options = parse_yaml(_read(path, for_whom), where)
    if path.resolve() in (parent.resolve() for parent in above):
        raise OptionError(f"{path}: is its own _base_, by way of {above[-1]}")
    if not isinstance(options, dict):
        raise OptionError(f"{where}: expected keys and values, got {type(options).__name__}")
    bases = options.pop("_base_", [])
    below: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise OptionError(f"{path}: _base_: expected a file name or a list of them, got {brief(base)}")
        inherited = _with_bases(path.parent / base, (*above, path), read)
        for key in inherited.keys() & below.keys():
            raise OptionError(f"{path}: _base_: {base} and one before it both have the key '{key}'")
        below.update(inherited)
    return _merged(below, options, str(path))


def _read(path: Path, for_whom: str) -> str:
    where = f"{path}{for_whom}"
    try:
        path = path.expanduser()
        # A pipe would be waited for, and a device may have no end.
        if path.exists() and not path.is_file():
            raise OptionError(f"{where}: expected a file, got {'a folder' if path.is_dir() else 'something else'}")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise OptionError(f"no such option file: {where} (looked from {Path.cwd()})") from None
    except (OSError, ValueError, RuntimeError) as error:  # also for names with NUL, and ~ of nobody
        raise OptionError(f"{where}: cannot be read: {error}") from None
    if len(data) > MOST_BYTES:
        raise OptionError(f"{where}: larger than {MOST_BYTES >> 10} KiB, which no option file is")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"{where}: is no text in UTF-8 ({error.reason} at byte {error.start})") from None


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; nothing in it runs code, and no few lines of it grow beyond bounds.

    Args:
        text: The text.
        where: What it is, for messages.

    Raises:
        OptionError: It is no YAML, or holds what options have no use for.
    """
    if len(text) > MOST_BYTES:
        raise OptionError(f"{where}: longer than {MOST_BYTES >> 10} KiB, which no options are")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        raise OptionError(f"{where}: not valid YAML: {_yaml_problem(error)}") from None
    except (ValueError, OverflowError) as error:  # PyYAML's own: an escaped character, a version of no sense
        raise OptionError(f"{where}: not valid YAML: {brief(str(error))}") from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def parse_override(text: str) -> tuple[str, Any]:
    """The dotted key and the value of ``KEY=VALUE``.

    Raises:
        OptionError: It is none.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key) or key.count(".") >= DEEPEST:
        raise OptionError(f"{brief(text)}: an override is KEY=VALUE with a dotted key, such as train.total_iter=1000")
    parsed = parse_yaml(value, f"override {brief(text)}")
    if isinstance(parsed, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", parsed):
        parsed = float(parsed)  # 1e-3, text to YAML, can only be meant as a number here
    return key, parsed


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], where: str, key: str = "") -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        place = f"{key}.{name}".lstrip(".")
        if not isinstance(value, Mapping):
            merged[name] = value
            continue
        replaces = value.get("_delete_", False)
        if not isinstance(replaces, bool):
            raise OptionError(f"{where}: {place}._delete_: expected true or false, got {brief(replaces)}")
        old = None if replaces else merged.get(name)
        if old is not None and not isinstance(old, Mapping):
            raise OptionError(
                f"{where}: {place}: keys cannot be merged into {brief(old)}; '_delete_: true' among them replaces it"
            )
        rest = {word: item for word, item in value.items() if word != "_delete_"}
        merged[name] = _merged(old or {}, rest, where, place)
    return merged


def _expand(value: Any, path: Path, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _expand(item, path, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path, key) for item in value]
    if not isinstance(value, str):
        return value
    if "{{" in value and "}}" in value:
        raise OptionError(f"{path}: {key}: templates are not filled in, got {brief(value)}; ${{NAME}} is")

    def variable(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise OptionError(f"{path}: {key}: the environment variable {match[1]} is not set")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", variable, value)
