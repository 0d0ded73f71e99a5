"""The settings that the top, a group and a host entry give, and how those of equal rank agree.

Owns which keys count as settings and what a conflict is; refuses to know names and ranges of hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from deployctl.inventory.document import Document
from deployctl.inventory.fields import DeployPath
from deployctl.inventory.problems import KeyPath
from deployctl.inventory.schema import HostEntry, Ssh
from deployctl.inventory.schema import Var as VarItem
from deployctl.inventory.shape import mapping_at
from deployctl.model import Var

Name = tuple[str, ...]  # ("user",), ("path",), ("vars", "PHP_ENV")

_PATH: TypeAdapter[str] = TypeAdapter(DeployPath)
_VAR: TypeAdapter[Any] = TypeAdapter(VarItem)


class Setting(NamedTuple):
    """A value and the key path that gives it."""

    value: Any
    path: KeyPath


Layer = Mapping[Name, Setting]


class Conflict(NamedTuple):
    """One setting that two layers of equal rank give differently."""

    name: Name
    first: Setting
    second: Setting


@dataclass(frozen=True)
class Entry:
    """One valid item of a group's `hosts`: the names it stands for and the settings it gives them."""

    group: str
    path: KeyPath
    names: tuple[str, ...]
    layer: Layer


def group_layer(document: Document, path: KeyPath) -> Layer:
    """The settings of the top (path `()`) or of a group; what is not valid is left out, being told elsewhere."""
    section = mapping_at(document, path)
    layer: dict[Name, Setting] = {}
    for key, value in mapping_at(document, (*path, "ssh")).items():
        valid = _valid_ssh(key, value)
        if valid is not None:
            layer[key,] = Setting(valid, (*path, "ssh", key))
    if "path" in section and (text := _valid_path(section["path"])) is not None:
        layer["path",] = Setting(text, (*path, "path"))
    return {**layer, **_vars(document, path)}


def host_layer(document: Document, path: KeyPath, entry: HostEntry) -> Layer:
    """The settings that a host entry gives besides its name."""
    given = entry.model_dump(exclude={"name", "vars"}, exclude_none=True)
    layer: dict[Name, Setting] = {(key,): Setting(value, (*path, key)) for key, value in given.items()}
    return {**layer, **_vars(document, path)}


def _vars(document: Document, path: KeyPath) -> Layer:
    layer: dict[Name, Setting] = {}
    for name, value in mapping_at(document, (*path, "vars")).items():
        try:
            item = _VAR.validate_python(value)
        except ValidationError:
            continue
        layer["vars", name] = Setting(Var(item.value, item.env, bool(item.secret)), (*path, "vars", name))
    return layer


def _valid_ssh(key: str, value: object) -> Any:
    try:
        return getattr(Ssh.model_validate({key: value}), key)
    except ValidationError:
        return None


def _valid_path(value: object) -> str | None:
    try:
        return _PATH.validate_python(value)
    except ValidationError:
        return None


def join(layers: Iterable[Layer]) -> tuple[Layer, tuple[Conflict, ...]]:
    """Layers of equal rank as one, and where they disagree; the first to give a setting counts."""
    result: dict[Name, Setting] = {}
    conflicts: list[Conflict] = []
    for layer in layers:
        for name, setting in layer.items():
            first = result.setdefault(name, setting)
            if first.value != setting.value:
                conflicts.append(Conflict(name, first, setting))
    return result, tuple(conflicts)
