"""Holds a document against the models and says what is wrong in words for people.

Owns the wording of what pydantic finds and the hints for unknown keys; refuses to know rules between keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deployctl.inventory.document import Document
from deployctl.inventory.problems import Key, KeyPath, did_you_mean, near_miss, quoted
from deployctl.inventory.schema import File, Release, Ssh

# Where a key that stands in the wrong place belongs.
_ELSEWHERE = {
    **dict.fromkeys(Release.model_fields, "under 'release'"),
    **dict.fromkeys(Ssh.model_fields, "under 'ssh'"),
    "hosts": "in a group: groups.NAME.hosts",
}


def check_shape(document: Document) -> File | None:
    """The document as a File, or None with everything that is wrong left in its problems."""
    try:
        return File.model_validate(document.data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _tell(document, detail)
        return None


def at(document: Document, path: KeyPath) -> Any:
    """The value at a key path, or None where there is none."""
    value: Any = document.data
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def mapping_at(document: Document, path: KeyPath) -> dict[str, Any]:
    """The mapping at a key path; empty where there is none, whose being wrong is told elsewhere."""
    value = at(document, path)
    return value if isinstance(value, dict) else {}


def list_at(document: Document, path: KeyPath) -> list[Any]:
    """The list at a key path; empty where there is none, whose being wrong is told elsewhere."""
    value = at(document, path)
    return value if isinstance(value, list) else []


def _tell(document: Document, detail: ErrorDetails) -> None:
    path = _in_document(document, detail["loc"])
    kind = detail["type"]
    if kind == "missing":
        key = str(detail["loc"][-1])
        mark = document.mark(path, key=True)
        document.problems.add(mark, (*path, key), "is missing")
    elif kind == "extra_forbidden":
        document.wrong(path, _unknown(str(path[-1]), detail["loc"]), key=True)
    else:
        document.wrong(path, _wording(document, path, detail), key=detail["loc"][-1:] == ("[key]",))


def _in_document(document: Document, loc: tuple[Key, ...]) -> KeyPath:
    """The part of a pydantic location that exists in the file: short forms have fewer levels than their models."""
    path: KeyPath = ()
    value: Any = document.data
    for part in loc:
        if isinstance(part, int) and isinstance(value, dict):
            continue  # one check, which the model sees as a list of one
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
        path = (*path, part)
    return path


def _unknown(key: str, loc: tuple[Key, ...]) -> str:
    known = known_keys(loc[:-1])
    near = near_miss(key, known)
    place = _ELSEWHERE.get(key)
    if near is None and place and known in (known_keys(()), known_keys(("groups", "any"))):
        return f"unknown key here; it belongs {place}"
    if near is None:
        return f"unknown key; known are {', '.join(known)}"
    return f"unknown key{did_you_mean(key, known)}"


def known_keys(loc: tuple[Key, ...]) -> tuple[str, ...]:
    """The keys that the model at a location knows, in the order of its definition."""
    model: type[BaseModel] = File
    free = False  # the next part is a name of the user's choice
    for part in loc:
        if free or isinstance(part, int):
            free = False
            continue
        field = next((f for name, f in model.model_fields.items() if (f.alias or name) == part), None)
        if field is not None:
            free = _contains(field.annotation, lambda kind: get_origin(kind) is dict)
            model = _model_in(field.annotation) or model
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _contains(annotation: Any, test: Callable[[Any], bool]) -> bool:
    return test(annotation) or any(_contains(inner, test) for inner in get_args(annotation))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


def _wording(document: Document, path: KeyPath, detail: ErrorDetails) -> str:
    kind, value = detail["type"], at(document, path)
    context = detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return _not_a_choice(context["expected"], value)
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = context.get("ge", context.get("le"))
        return f"must be at {'least' if 'ge' in context else 'most'} {bound}"
    expected = "text or a mapping" if context.get("class_name") in _SHORT_FORMS else _EXPECTED.get(kind)
    if expected is None:
        return str(detail["msg"])
    advice = _advice(document, path, "string_type" if "text" in expected else kind, value)
    return f"must be {expected}, not {_kind(document, path, value)}{advice}"


_SHORT_FORMS = ("HostEntry", "HookEntry", "VarEntry")
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def _kind(document: Document, path: KeyPath, value: object) -> str:
    written = quoted(document.texts.get(path, ""))
    match value:
        case bool():
            return f"the boolean {written}"
        case int() | float():
            return f"the number {written}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
    return "text"


def _advice(document: Document, path: KeyPath, kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f"; put it in quotes: {quoted(document.texts[path])}"
    if kind == "string_type" and isinstance(value, (dict, list)):
        return "; a text that begins with { or [ needs quotes"
    if kind == "int_type" and isinstance(value, str):
        return "; write it without quotes"
    if kind == "list_type":
        return "; write each entry on a line of its own after '- '"
    return ""


def _not_a_choice(expected: str, value: object) -> str:
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ", ").split(",")]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"must be {' or '.join(choices)}{hint}"
