from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mtlkit import encoders, heads, json_schema, losses, metrics, sharings
from mtlkit.part import options_schema
from mtlkit.spec import Structure, Task


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_it_is_json_and_every_reference_leads_somewhere() -> None:
    schema = json.loads(json.dumps(json_schema()))
    found = set(references(schema))
    assert found
    for reference in found:
        at = schema
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]


def test_it_knows_every_part_and_every_option_and_refuses_others() -> None:
    definitions = json_schema()["$defs"]
    for registry in (encoders, heads, losses, metrics, sharings):
        names, *parts = definitions[registry.kind]["anyOf"]
        assert names["enum"] == list(registry)
        by_name = {part["properties"]["type"]["const"]: part for part in parts}
        assert set(by_name) <= set(registry)
        for entry in registry.entries():
            if entry.owner != "built-in":
                continue
            fields = options_schema(registry[entry.name]).model_fields.values()
            part = by_name[entry.name]
            extra = {"type", "from", "sharing"} if registry is encoders else {"type"}
            assert set(part["properties"]) == {field.alias for field in fields} | extra
            assert set(part["required"]) == {"type", *(field.alias for field in fields if field.is_required())}
            assert part["additionalProperties"] is False


def test_it_has_the_keys_of_a_spec_and_of_a_task() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Structure.model_fields)
    assert set(schema["$defs"]["Task"]["properties"]) == set(Task.model_fields)
    assert schema["required"] == ["tasks"] and schema["additionalProperties"] is False
