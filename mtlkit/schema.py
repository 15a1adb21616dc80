"""The JSON Schema of specs, for editors that complete and check them as they are typed.

    json.dump(mtlkit.json_schema(), file)

It has the options of every registered part. A plugin that does not import is left out, since its options are unknown.
"""

from __future__ import annotations

from typing import Any

from mtlkit.errors import PluginError
from mtlkit.part import options_schema
from mtlkit.registry import Registry, encoders, heads, losses, metrics, sharings
from mtlkit.spec import Structure


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec, with every installed part."""
    schema = Structure.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for registry in (encoders, heads, losses, metrics, sharings):
        definitions[registry.kind] = {"anyOf": [{"enum": list(registry)}, *_parts(registry)]}
    tasks = definitions["Task"]["properties"]
    for key, registry in (("loss", losses), ("head", heads)):
        tasks[key] = _reference(registry)
    tasks["metrics"] = {"type": "array", "items": _reference(metrics)}
    properties = schema["properties"]
    properties["encoder"], properties["sharing"] = _reference(encoders), _reference(sharings)
    properties["encoders"] = {"type": "object", "additionalProperties": _reference(encoders), "minProperties": 1}
    shape = definitions["Input"]["properties"]["shape"]
    properties["input"] = {"anyOf": [{"$ref": "#/$defs/Input"}, shape]}
    properties["inputs"] = {"type": "object", "additionalProperties": properties["input"], "minProperties": 1}
    schema["oneOf"] = [{"required": ["encoder"]}, {"required": ["encoders"]}]
    return schema


def _reference(registry: Registry) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{registry.kind}"}


def _parts(registry: Registry) -> list[dict[str, Any]]:
    found = []
    for name in registry:
        try:
            options = options_schema(registry[name]).model_json_schema()
        except PluginError:
            continue
        properties = {"type": {"const": name}, **options.get("properties", {})}
        if registry is encoders:
            names = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
            properties |= {"from": names, "sharing": _reference(sharings)}
        found.append(
            {
                "type": "object",
                "properties": properties,
                "required": ["type", *options.get("required", [])],
                "additionalProperties": False,
            }
        )
    return found
