"""The JSON Schema of hosts.yaml, for editors.

Owns how the pydantic models look as a schema; refuses to know how a file is checked.
"""

from __future__ import annotations

from typing import Any

from deployctl.inventory.schema import File

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NOTES: dict[str, Any] = {"^x-": {}}
_EXACTLY_ONE = {"VarEntry": ("value", "env"), "CheckEntry": ("url", "run")}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file format as JSON-ready data; `x-` keys are allowed everywhere."""
    schema = _tidy(File.model_json_schema(by_alias=True))
    for model, keys in _EXACTLY_ONE.items():
        schema["$defs"][model]["oneOf"] = [{"required": [key]} for key in keys]
    return {"$schema": _DIALECT, **schema, "title": "deployctl inventory"}


def _tidy(node: Any) -> Any:
    """Without what pydantic adds for Python (titles, nulls that the loader refuses), and with `x-` keys."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: _tidy_member(key, value) for key, value in node.items() if key not in {"title", "default"}}
    choices = [choice for choice in result.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del result["anyOf"]
        result = {**choices[0], **result}
    elif choices:
        result["anyOf"] = choices
    if result.get("type") == "object":
        _allow_notes(result)
    return result


def _tidy_member(key: str, value: Any) -> Any:
    # Below these two stand names of keys and of models, which may well be called "title" or "default".
    return (
        {name: _tidy(sub) for name, sub in value.items()} if key in {"properties", "$defs"} else _tidy(value)
    )


def _allow_notes(schema: dict[str, Any]) -> None:
    named = schema.pop("patternProperties", _NOTES)
    if named != _NOTES:
        (pattern, value), *_ = named.items()
        schema["additionalProperties"] = value
        schema["propertyNames"] = {"pattern": f"^x-|{pattern}"}
    schema["patternProperties"] = _NOTES
