"""Reading option files: inheritance, overrides, environment variables. What the keys mean is others' business."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .errors import OptionError

if TYPE_CHECKING:
    from .devices import Launcher


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
    """YAML without tags that make objects, and without keys given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is given twice", key_node.start_mark)
        if isinstance(key, str):
            seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_options(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a YAML file, with those of its ``_base_`` files beneath and ``KEY=VALUE`` overrides on top.

    Inheritance is mmengine's: dicts are merged, ``_delete_: true`` replaces one, everything else is replaced.
    ``${NAME}`` in a text is the environment variable of that name.

    Raises:
        OptionError: A file is missing or not YAML, an override is not KEY=VALUE, or a variable is not set.
    """
    from mmengine.config import Config

    path = Path(path).expanduser()
    _check_chain(path, ())
    try:
        config = Config.fromfile(str(path), use_predefined_variables=False, import_custom_modules=False)
        config.merge_from_dict(dict(_parse_override(text) for text in overrides))
    except OptionError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise OptionError(f"{path}: cannot be merged with its _base_ files and overrides: {error}") from None
    return _expand(config.to_dict(), path, "")


def _check_chain(path: Path, above: tuple[Path, ...]) -> None:
    """Read a file and its bases safely first: mmengine's own reader would let YAML tags run code."""
    for_whom = f" (the _base_ of {above[-1]})" if above else ""
    if path.suffix.lower() not in (".yml", ".yaml"):
        raise OptionError(f"{path}{for_whom}: an option file ends in .yml or .yaml")
    if path.resolve() in (parent.resolve() for parent in above):
        raise OptionError(f"{path}: is its own _base_, by way of {above[-1]}")
    try:
        options = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - derived from SafeLoader
    except FileNotFoundError:
        raise OptionError(f"no such option file: {path}{for_whom} (looked from {Path.cwd()})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}{for_whom}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise OptionError(f"{path}{for_whom}: not valid YAML: {_yaml_problem(error)}") from None
    if not isinstance(options, dict):
        raise OptionError(f"{path}{for_whom}: expected keys and values, got {type(options).__name__}")
    bases = options.get("_base_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise OptionError(f"{path}: _base_: expected a file name or a list of them, got {base!r}")
        _check_chain(path.parent / base, (*above, path))


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise OptionError(f"'{text}': an override is KEY=VALUE with a dotted key, such as train.total_iter=1000")
    try:
        parsed = yaml.load(value, _Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        raise OptionError(f"override '{text}': not a YAML value: {_yaml_problem(error)}") from None
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            parsed = float(parsed)  # 1e-3, text to YAML, can only be meant as a number here
    return key, parsed


def _expand(value: Any, path: Path, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _expand(item, path, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_expand(item, path, key) for item in value]
    if isinstance(value, str) and "${" in value:
        for name in re.findall(r"\$\{(\w+)\}", value):
            if name not in os.environ:
                raise OptionError(f"{path}: {key}: the environment variable {name} is not set")
            value = value.replace(f"${{{name}}}", os.environ[name])
    return value
