"""docs/reference.md says what the code says."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import Any

import pytest

import mtlkit

MAKER = Path(mtlkit.__file__).parent.parent / "docs" / "make_reference.py"


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(MAKER))


def test_the_page_is_up_to_date(maker: dict[str, Any]) -> None:
    written = maker["PAGE"].read_text(encoding="utf-8")
    assert written == maker["page"](), "run `python docs/make_reference.py`"


def test_every_built_in_and_every_option_is_in_it(maker: dict[str, Any]) -> None:
    page = maker["page"]()
    for registry in mtlkit.registries.values():
        for entry in registry.entries():
            if entry.owner == "built-in":
                section = page.partition(f"### {registry.kind.capitalize()} `{entry.name}`\n")[2].partition("\n#")[0]
                assert section and all(f"| `{name}` |" in section for name in options_of(entry))


def options_of(entry: Any) -> list[str]:
    """The keyword-only arguments of a part's factory."""
    return [p.name for p in inspect.signature(entry.load()).parameters.values() if p.kind is p.KEYWORD_ONLY]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 65_536}, "integer from 1 to 65,536"),
        ({"type": "number", "exclusiveMinimum": 0}, "number > 0"),
        ({"enum": ["a", "b", "c"]}, '`"a"`, `"b"` or `"c"`'),
        ({"type": "array", "items": {"type": "string"}}, "list of string"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "table of number"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"anyOf": [{"type": "object", "additionalProperties": True}, {"type": "string"}]}, "name or table"),
        ({}, "any"),
    ],
)
def test_types_are_told_in_words(maker: dict[str, Any], annotation: dict[str, Any], words: str) -> None:
    assert maker["_type"](annotation) == words
