"""Specs and run files as plain data: read from a dict, or from a TOML, JSON or YAML file, and bounded.

    data = read("run.toml")       # dict, list, str, int, float, bool, None; a copy, never the caller's own

What a file may hold is limited, so that a wrong or hostile one costs an error and neither memory nor time: its size,
how deep it nests, how long a name is, how large a number. Nothing in it executes: YAML has no tags, no anchors.
"""

from __future__ import annotations

import errno
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mtlkit.errors import Problem, SpecError, shown
from mtlkit.guarded import read_regular

_MAX_BYTES = 8 * 2**20
# PyYAML takes some ten microseconds a byte.
_MAX_YAML = 2**20
_MAX_DEPTH = 32
_MAX_ITEMS = 1_000_000
_MAX_TEXT = 10_000
# JSON readers of other languages hold integers as doubles; beyond this they would not survive.
_MAX_INTEGER = 2**53


def read(source: Mapping[str, Any] | str | Path, what: str = "the spec") -> dict[str, Any]:
    """The plain data of a dict or file, copied.

    Raises:
        SpecError: the file can't be read, or holds what is no plain data.
    """
    if isinstance(source, str | Path):
        return read_bytes(_raw(Path(source)), Path(source))
    return _plain(source, what)


def read_bytes(raw: bytes, path: Path) -> dict[str, Any]:
    """The same of what a file holds; its suffix says how it is written."""
    return _plain(_parsed(raw, path), str(path))


def _plain(data: object, what: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise SpecError([Problem(what, f"found {shown(data)}, expected a table (dict)")], what)
    problems: list[Problem] = []
    copy = _Copy(problems).of(data, "", 0)
    if problems:
        raise SpecError(problems, what)
    assert isinstance(copy, dict)
    return copy


class _Copy:
    """Copies plain data and notes what is not plain, until there are too many problems to be worth listing."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.items = 0

    def of(self, value: Any, path: str, depth: int) -> Any:
        self.items += 1
        if depth > _MAX_DEPTH:
            return self._refuse(path, f"nests deeper than {_MAX_DEPTH} levels")
        if self.items > _MAX_ITEMS:
            return self._refuse(path, f"holds more than {_MAX_ITEMS:,} values")
        if isinstance(value, Mapping):
            return {self._key(k, path): self.of(v, _below(path, k), depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(v, _below(path, i), depth + 1) for i, v in enumerate(value)]
        if value is None or isinstance(value, bool):
            return value
        if type(value) is int:
            if abs(value) > _MAX_INTEGER:
                return self._refuse(path, "found an integer beyond 2**53")
            return value
        if type(value) is float:
            return value if math.isfinite(value) else self._refuse(path, f"found {value}, expected a finite number")
        if type(value) is str:
            return self._text(value, path)
        return self._refuse(
            path,
            f"found {shown(value)} ({type(value).__name__}), expected plain data: a string, number, true or false, "
            "null, list or table",
        )

    def _key(self, key: object, path: str) -> str:
        if type(key) is str:
            return self._text(key, path) or ""
        self._refuse(path, f"found the key {shown(key)}, expected a string; put it in quotes")
        return str(key)

    def _text(self, text: str, path: str) -> str | None:
        if len(text) > _MAX_TEXT:
            return self._refuse(path, f"found a text of {len(text):,} characters, expected at most {_MAX_TEXT:,}")
        try:
            text.encode()
        except UnicodeEncodeError:
            return self._refuse(path, f"found {shown(text)}, which is no valid Unicode")
        return str(text)

    def _refuse(self, path: str, message: str) -> Any:
        # A list of a million wrong values needs no million messages.
        if len(self.problems) < 20:
            self.problems.append(Problem(path or "(top)", message))


def _below(path: str, key: object) -> str:
    step = str(key)[:80] or "''"
    return f"{path}.{step}" if path else step


def _raw(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_BYTES)
    except OSError as error:
        message = f"can't be read: {error.strerror or error}"
        if error.errno == errno.EFBIG:
            message = f"is no valid {path.suffix[1:].upper()}: is larger than {_MAX_BYTES // 2**20} MiB"
    except ValueError as error:  # a name that no file can have
        message = f"can't be read: {error}"
    raise SpecError([Problem(str(path), message)], str(path))


def _parsed(raw: bytes, path: Path) -> Any:
    readers: dict[str, Callable[[str], Any]] = {".toml": _toml, ".json": _json, ".yaml": _yaml, ".yml": _yaml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        message = f"found the suffix {path.suffix!r}, expected .toml, .json, .yaml"
        raise SpecError([Problem(str(path), message)], str(path))
    try:
        # Editors on Windows begin a file with a mark of its byte order.
        return reader(raw.decode("utf-8-sig"))
    except RecursionError:
        message = "nests too deeply to be read"
    except (ValueError, yaml.YAMLError) as error:
        # TOML, JSON and Unicode errors are ValueErrors and name the line.
        message = f"is no valid {path.suffix[1:].upper()}: {error}"
    raise SpecError([Problem(str(path), message)], str(path))


# The time that tomllib takes for one grows with the square of its parts, and so many would nest too deeply anyway.
# Possessive, and from the start of a word alone: a search must not take the time that it is to save.
_KEY = r"""(?:"[^"\n]*+"|'[^'\n]*+'|(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++)"""
_LONG_KEY = re.compile(rf"{_KEY}(?:[ \t]*+\.[ \t]*+{_KEY}){{64}}")


def _toml(text: str) -> Any:
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than 64 parts, expected at most {_MAX_DEPTH}")
    return tomllib.loads(text)


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in pairs:
            if key in table:
                raise ValueError(f"the key {shown(key)} stands twice in one table")
            table[key] = value
        return table

    return json.loads(text, object_pairs_hook=unique)


def _yaml(text: str) -> Any:
    if len(text) > _MAX_YAML:
        raise ValueError(f"has {len(text):,} characters, expected {_MAX_YAML:,} at most. JSON files may be larger")
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """Safe YAML without anchors, duplicate keys, or the surprises of YAML 1.1 (`on: low` is no `True: low`)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            # A few nested aliases stand for gigabytes.
            raise yaml.YAMLError(f"aliases are not supported: *{event.anchor}{event.start_mark}. Write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.YAMLError(f"the key {shown(key)} stands twice in one table{key_node.start_mark}")
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _resolve_as_yaml_1_2() -> None:
    """`yes`, `no`, `on` and `off` are strings, 1e-3 is a number and 12:30 is none, as everywhere but in YAML 1.1."""
    ours = {
        "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
        "int": ("[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", "-+0123456789"),
        "float": (
            r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))"
            r"|\.(nan|NaN|NAN)",
            "-+0123456789.",
        ),
    }
    tags = {f"tag:yaml.org,2002:{name}": (pattern, first) for name, (pattern, first) in ours.items()}
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in tags]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    # The first that matches is taken, and every integer would be a float.
    for tag, (pattern, first) in tags.items():
        _Loader.add_implicit_resolver(tag, re.compile(f"^({pattern})$"), list(first))


_resolve_as_yaml_1_2()
