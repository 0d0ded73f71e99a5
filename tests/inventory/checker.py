"""A validator of the part of JSON Schema that the schema of hosts.yaml uses."""

from __future__ import annotations

import re
from typing import Any

Json = Any
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_NOTES = {"$schema", "$defs", "title", "description", "type"}
_KNOWN = _NOTES | {
    "$ref", "anyOf", "oneOf", "enum", "pattern", "minLength", "minimum", "maximum", "exclusiveMinimum",
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "items",
}  # fmt: skip


def valid(schema: Json, value: Json, root: Json) -> bool:
    """Whether the value fits the schema; AssertionError for a keyword that is not implemented here."""
    if schema is True or schema == {}:
        return True
    if schema is False:
        return False
    assert set(schema) <= _KNOWN, set(schema) - _KNOWN
    return (
        _fits_kind(schema, value)
        and _fits_combinations(schema, value, root)
        and ("enum" not in schema or value in schema["enum"])
        and (not isinstance(value, str) or _fits_text(schema, value))
        and (not isinstance(value, (int, float)) or _fits_number(schema, value))
        and (not isinstance(value, list) or all(valid(schema.get("items", {}), item, root) for item in value))
        and (not isinstance(value, dict) or _fits_object(schema, value, root))
    )


def _fits_kind(schema: Json, value: Json) -> bool:
    kind = schema.get("type")
    if isinstance(value, bool):
        return kind in {None, "boolean"}
    return kind is None or isinstance(value, _KINDS[kind])


def _fits_combinations(schema: Json, value: Json, root: Json) -> bool:
    if "$ref" in schema and not valid(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root):
        return False
    if "anyOf" in schema and not any(valid(choice, value, root) for choice in schema["anyOf"]):
        return False
    return "oneOf" not in schema or sum(valid(choice, value, root) for choice in schema["oneOf"]) == 1


def _fits_text(schema: Json, value: str) -> bool:
    return bool(len(value) >= schema.get("minLength", 0)) and bool(
        re.search(schema.get("pattern", ""), value)
    )


def _fits_number(schema: Json, value: float) -> bool:
    above = bool(value > schema.get("exclusiveMinimum", float("-inf")))
    return above and bool(
        schema.get("minimum", float("-inf")) <= value <= schema.get("maximum", float("inf"))
    )


def _fits_object(schema: Json, value: dict[str, Json], root: Json) -> bool:
    if not set(schema.get("required", ())) <= set(value):
        return False
    for key, item in value.items():
        matches = [
            sub for pattern, sub in schema.get("patternProperties", {}).items() if re.search(pattern, key)
        ]
        if key in schema.get("properties", {}):
            matches.append(schema["properties"][key])
        if not matches:
            matches.append(schema.get("additionalProperties", True))
        if not all(valid(sub, item, root) for sub in matches):
            return False
        if not valid(schema.get("propertyNames", {}), key, root):
            return False
    return True
