"""Writes docs/reference.md: every part with its options, the trainer's arguments and the command line.

    python docs/make_reference.py

All of it is read off signatures and docstrings, of the built-ins alone, since plugins differ from one installation to
the next. A test compares the page with what this gives.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import typer

from mtlkit import Trainer, registries
from mtlkit.cli import app
from mtlkit.option import PartOf
from mtlkit.part import options_schema
from mtlkit.registry import BUILT_IN, Entry
from mtlkit.train.optimizer import OPTIMIZERS, SCHEDULERS

PAGE = Path(__file__).with_name("reference.md")

_HEAD = """# Reference

Every built-in part, the arguments of the trainer and the command line, as `python docs/make_reference.py` reads them
off the code. What a part is and where it stands: [the spec](spec.md). `mtlkit plugins` lists those of plugins too, and
the options of any one are `mtlkit.encoders.describe("cnn").signature`.
"""
# A bound beyond this is no advice.
_LARGE = 2**31


def page() -> str:
    """The whole page."""
    blocks = [_HEAD, *_parts(), *_trainer(), *_command_line()]
    return "\n".join(block.rstrip("\n") + "\n" for block in blocks)


def _parts() -> Iterator[str]:
    for name, registry in registries.items():
        yield f"## {name.capitalize()}"
        for entry in registry.entries():
            if entry.owner == BUILT_IN:
                yield from _part(entry)


def _part(entry: Entry) -> Iterator[str]:
    factory = entry.load()
    yield f"### {entry.kind.capitalize()} `{entry.name}`"
    yield _prose(inspect.getdoc(factory) or "")
    yield from _papers(factory)
    rows = _options(factory)
    if rows:
        yield _table(("option", "type", "default", ""), rows)


def _papers(factory: Callable[..., Any]) -> Iterator[str]:
    """What a part was taken from, where its module says so and its own docstring does not."""
    for paragraph in (inspect.getdoc(sys.modules[factory.__module__]) or "").split("\n\n"):
        if re.search(r'\b(19|20)\d\d, "', paragraph):
            yield _prose(paragraph)


def _trainer() -> Iterator[str]:
    yield "## The trainer"
    yield "`mtlkit.Trainer(model, ...)`, and the table `[train]` of a run file. All but the model are given by name."
    yield _table(("argument", "type", "default", ""), _options(Trainer))
    yield f"Optimisers are torch's, with its options: {_listed(OPTIMIZERS)}. So are schedules: {_listed(SCHEDULERS)}."


def _command_line() -> Iterator[str]:
    yield "## The command line"
    commands: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        yield f"### `mtlkit {name}`"
        yield _prose(command.help)
        rows = [(_written(p), _prose(p.help), _default(p)) for p in command.params if p.name != "help"]
        if rows:
            yield _table(("argument", "", "default"), rows)


def _written(parameter: Any) -> str:
    """An argument of the command line as it is typed."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{option}`" for option in parameter.opts)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default is None or parameter.default is False else f"`{parameter.default}`"


def _options(factory: Callable[..., Any]) -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each option of a factory."""
    schema = options_schema(factory)
    properties = schema.model_json_schema()["properties"] if schema.model_fields else {}
    meanings = _arguments(inspect.getdoc(factory) or "")
    rows = []
    for field in schema.model_fields.values():
        name = field.alias or ""
        kind = next(_part_kinds((field.annotation, field.metadata)), None)
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        rows.append((f"`{name}`", _type(properties[name], kind), default, _prose(meanings.get(name, ""))))
    return rows


def _part_kinds(noted: Any) -> Iterator[str]:
    """The kinds of parts that an annotation, or what is noted on it, asks for."""
    if isinstance(noted, PartOf):
        yield noted.kind
    for inner in noted if isinstance(noted, tuple | list) else (*get_args(noted), *getattr(noted, "__metadata__", ())):
        if not isinstance(inner, str):
            yield from _part_kinds(inner)


def _type(schema: Mapping[str, Any], part: str | None = None) -> str:
    """A JSON schema in words. `part` is the kind of part where it is one, which a schema sees as a name or table."""
    if "anyOf" in schema:
        branches = schema["anyOf"]
        if {branch.get("type") for branch in branches} >= {"object", "string"} and _is_part(branches):
            nullable = any(branch.get("type") == "null" for branch in branches)
            return f"{part or 'name or table'}{' or null' * nullable}"
        return " or ".join(dict.fromkeys(_type(branch, part) for branch in branches))
    if "enum" in schema:
        *most, last = [f"`{json.dumps(value)}`" for value in schema["enum"]]
        return f"{', '.join(most)} or {last}" if most else last
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), part)}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"table of {_type(values)}" if isinstance(values, Mapping) else "table"
    words = {"boolean": "true or false", "null": "null", None: "any", "integer": "integer", "number": "number"}
    return f"{words.get(kind, kind)}{_bounds(schema)}"


def _is_part(branches: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the table of these branches is one of options, whose values may be anything."""
    return all(branch.get("additionalProperties", True) is True for branch in branches)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum", _LARGE)
    if low is not None and high < _LARGE:
        return f" from {low:,} to {high:,}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {schema[key]:,}" for key, sign in signs.items() if key in schema and schema[key] < _LARGE]
    return f" {', '.join(told)}" if told else ""


def _arguments(docstring: str) -> dict[str, str]:
    """The entries of a docstring's `Args:`; an entry may be of several names."""
    section = docstring.partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n     .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def _prose(text: str) -> str:
    """A docstring's text as Markdown, without its sections `Args:` and `Raises:`."""
    text = re.split(r"^(?:Args|Raises|Returns|Attributes):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    text_and_code = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else p.replace("*", r"\*").replace("<", "&lt;") for p in text_and_code)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without columns that are empty."""
    keep = [column for column in range(len(head)) if any(row[column] for row in rows)]
    lines = [[head[c] for c in keep], ["---"] * len(keep)]
    lines += [[row[c].replace("|", r"\|") for c in keep] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
