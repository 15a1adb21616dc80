"""Parts: `{"type": NAME, **options}`, or just `NAME`, checked against a factory and made into an object.

The signature is the schema. A factory's positional arguments are its context (an encoder's input shape, say), its
keyword-only arguments are the options that a spec may set:

    problems: list[Problem] = []
    part = check(mtlkit.encoders, {"type": "mlp", "hidden": [64]}, "encoder", problems)
    # {"type": "mlp", "hidden": [64], "activation": "relu", "dropout": 0.0, "norm": "none"}
    mlp = make(mtlkit.encoders, part, (784,))
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mtlkit.errors import PluginError, Problem, UnknownNameError, nearest, shown
from mtlkit.option import PartOf
from mtlkit.registry import Registry, balancers, datasets, encoders, heads, losses, metrics, sharings

Part = dict[str, Any]

# Keys of a spec's entry that are not the factory's: where a part stands in the graph.
RESERVED = ("type", "from", "sharing")

_REGISTRIES = {r.kind: r for r in (encoders, heads, losses, metrics, sharings, balancers, datasets)}

# Strict: True is no int, "3" and 3.0 are no int. Names of options may be any, also those of pydantic's own methods.
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def check(registry: Registry, raw: object, path: str, problems: list[Problem]) -> Part | None:
    """`raw` as a part with every default filled in, or None after adding what is wrong to `problems`.

    Args:
        registry: where its name is looked up.
        raw: a name, or a dict with "type" and options; pure data.
        path: where it stands in the spec, for the messages.
    """
    part = {"type": raw} if isinstance(raw, str) else raw
    if not isinstance(part, dict):
        found = f"found {shown(raw)}, expected one of the {registry.kind}s by name, or a table with its 'type'"
        problems.append(Problem(path, f"{found}. Names: {', '.join(registry)}"))
        return None
    name = part.get("type")
    if not isinstance(name, str):
        found = f"found {shown(name)}" if "type" in part else "is missing"
        problems.append(
            Problem(f"{path}.type", f"{found}, expected one of the {registry.kind}s: {', '.join(registry)}")
        )
        return None
    try:
        schema = schema_of(registry, name)
    except (UnknownNameError, PluginError) as error:
        problems.append(Problem(path if isinstance(raw, str) else f"{path}.type", str(error)))
        return None
    options = validate(schema, {k: v for k, v in part.items() if k != "type"}, path, problems)
    if options is None or not _check_nested(schema, options, path, problems):
        return None
    return {"type": name, **options}


def schema_of(registry: Registry, name: str) -> type[BaseModel]:
    """The options of the part `name`, as a pydantic model.

    Raises:
        UnknownNameError, PluginError: there is no such part, or it is broken; the message says whose it is.
    """
    factory = registry[name]
    try:
        return options_schema(factory)
    # TypeError: the factory is an object that can't be hashed, so that no schema can be kept for it.
    except (PluginError, TypeError) as error:
        raise PluginError(f"{registry.describe(name).who}: {error}") from error


def make(registry: Registry, part: Part, *context: object) -> Any:
    """The object that a checked part describes: its factory called with `context` and the options."""
    return registry[part["type"]](*context, **{k: v for k, v in part.items() if k != "type"})


def takes_context(registry: Registry, name: str) -> bool:
    """Whether a factory has positional arguments."""
    return any(p.kind is not p.KEYWORD_ONLY for p in inspect.signature(registry[name]).parameters.values())


def validate(
    schema: type[BaseModel], options: dict[str, Any], path: str, problems: list[Problem]
) -> dict[str, Any] | None:
    """`options` checked strictly, with defaults filled in, as pure data; or None after adding to `problems`."""
    try:
        # As JSON, because a spec's arrays are the tuples of a signature.
        checked = schema.model_validate_json(json.dumps(options))
    except ValidationError as error:
        problems += _problems(error, schema, options, path)
        return None
    # A signature writes the default of a list as a tuple, which is no mistake.
    return checked.model_dump(mode="json", by_alias=True, warnings=False)


@lru_cache(maxsize=1024)
def options_schema(factory: Callable[..., Any]) -> type[BaseModel]:
    """The keyword-only arguments of `factory` as a pydantic model.

    Raises:
        PluginError: the signature takes `*args` or `**kwargs`, or an annotation can't be read.
    """
    where = f"{factory.__module__}:{getattr(factory, '__qualname__', factory)}"
    try:
        fields: dict[str, Any] = {}
        for index, parameter in enumerate(inspect.signature(factory).parameters.values()):
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{parameter} hides which options there are; name each of them")
            if parameter.kind is not parameter.KEYWORD_ONLY:
                continue
            if parameter.name in RESERVED:
                raise TypeError(f"the option {parameter.name!r} can't be set: a spec uses this key itself")
            default = ... if parameter.default is parameter.empty else parameter.default
            # Fields are numbered and known by their alias, since pydantic reserves names such as "copy" and "schema".
            fields[f"option_{index}"] = (
                _annotation(parameter, factory),
                Field(default, alias=parameter.name),
            )
        return pydantic.create_model(where, __config__=_STRICT, **fields)
    # AttributeError and SyntaxError: of an annotation that is a string.
    except (TypeError, NameError, ValueError, AttributeError, SyntaxError, pydantic.PydanticUserError) as error:
        raise PluginError(f"the signature of {where} is no schema: {error}.") from error


def _annotation(parameter: inspect.Parameter, factory: Callable[..., Any]) -> Any:
    """The type of one option. Other annotations of the signature may name what is imported for type checking only."""
    if parameter.annotation is parameter.empty:
        return Any
    function = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    alone = SimpleNamespace(__annotations__={"option": parameter.annotation})
    return get_type_hints(alone, getattr(function, "__globals__", {}), include_extras=True)["option"]


def _check_nested(schema: type[BaseModel], options: dict[str, Any], path: str, problems: list[Problem]) -> bool:
    """Check the options that are parts themselves, in place. Returns whether all were right."""
    before = len(problems)
    for field in schema.model_fields.values():
        notes = [*field.metadata, *_notes(field.annotation)]
        kind = next((note.kind for note in notes if isinstance(note, PartOf)), None)
        if kind is None or options[field.alias or ""] is None:
            continue
        registry, where, value = _REGISTRIES[kind], f"{path}.{field.alias}", options[field.alias or ""]
        if isinstance(value, list):
            options[field.alias or ""] = [
                check(registry, item, f"{where}.{index}", problems) for index, item in enumerate(value)
            ]
        else:
            options[field.alias or ""] = check(registry, value, where, problems)
    return len(problems) == before


def _notes(annotation: Any) -> Iterator[object]:
    """What is noted on an annotation such as `list[EncoderPart]`, at any depth."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    for inner in get_args(annotation):
        yield from _notes(inner)


_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
}


def _problems(error: ValidationError, schema: type[BaseModel], options: dict[str, Any], path: str) -> Iterator[Problem]:
    """pydantic's errors in our words: what was found, what was expected, the nearest name."""
    wrong: dict[str, tuple[object, list[str]]] = {}
    for details in error.errors(include_url=False):
        *above, last = details["loc"]
        where = ".".join([path] * bool(path) + _written_steps(details["loc"], options))
        if details["type"] == "extra_forbidden":
            known = _keys_at(schema, above)
            yield Problem(where, f"unknown option.{nearest(last, known)} Options: {', '.join(known) or 'none'}")
        elif details["type"] == "missing":
            yield Problem(f"{where}.{last}" if where else str(last), "is required and missing")
        else:
            expected = _EXPECTED.get(details["type"]) or _worded(details["msg"])
            wrong.setdefault(where, (details["input"], []))[1].append(expected)
    # What fits no branch of a union is one mistake, though each branch reports it; one of them may say where within.
    within = {path[:end] for path in wrong for end, mark in enumerate(path) if mark == "."}
    for where, (found, expected_one_of) in wrong.items():
        if where in within:
            continue
        expected = " or ".join(dict.fromkeys(expected_one_of))
        yield Problem(where, f"found {shown(found)}, expected {expected}{_cure(found, expected)}")


def _cure(found: object, expected: str) -> str:
    """What to write instead, where a right value is wrapped in quotes or not in a list."""
    if isinstance(found, str) and expected.startswith(("an integer", "a number")):
        number = r"[+-]?\d+" if expected.startswith("an integer") else r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?"
        return f". Write it without quotes: {found}" if re.fullmatch(number, found, re.ASCII) else ""
    if expected == "a list" and isinstance(found, int | float) and not isinstance(found, bool):
        return f", as in [{shown(found)}]"
    return ""


def _written_steps(location: Sequence[str | int], options: Any) -> list[str]:
    """The keys and indices of a location that were written; others name a branch of a union."""
    steps: list[str] = []
    for step in location:
        is_key = isinstance(options, dict) and step in options
        if is_key or (isinstance(options, list) and isinstance(step, int)):
            options = options[step]
            steps.append(str(step) or "''")
    return steps


def _keys_at(schema: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that may stand at a location: those of the innermost table that has a schema."""
    for step in location:
        field = next((f for name, f in schema.model_fields.items() if (f.alias or name) == step), None)
        inner = next(_tables(field.annotation), None) if field else None
        schema = inner or schema
    return [field.alias or name for name, field in schema.model_fields.items()]


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables with a schema in an annotation such as `dict[str, Task]`, at any depth."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables(inner)


def _worded(message: str) -> str:
    """pydantic's "Input should be greater than 0" as the end of "expected ..."."""
    return re.sub(r"^(Input|Value error,|List|Tuple|String|Dictionary) ?(should|must)? ?(be|have)? ?", "", message)
