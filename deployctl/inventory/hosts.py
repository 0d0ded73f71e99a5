"""From the groups of a document to its hosts: ranges, one host in several groups, settings, duplicates.

Owns what makes two entries one host and what makes them a mistake; refuses to know YAML and the release section. Works
on the valid parts of a document, so that one mistake doesn't hide the next.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from deployctl.inventory import ranges
from deployctl.inventory.document import Document
from deployctl.inventory.layers import Conflict, Entry, Layer, group_layer, host_layer, join
from deployctl.inventory.problems import KeyPath, key_path
from deployctl.inventory.schema import HostEntry, HostItem
from deployctl.inventory.shape import list_at, mapping_at
from deployctl.model import Host, HostKeys

_ITEM: TypeAdapter[HostEntry] = TypeAdapter(HostItem)
MAX_MEMBERS = 50_000  # hosts of all groups together, so that a small file of ranges can't fill the memory
_ONE_HOST_ONLY = ("address", "fingerprint")


@dataclass
class Resolved:
    """The hosts of a document, in its order, and the names in each of its groups."""

    hosts: list[Host] = field(default_factory=list)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)


def resolve_hosts(document: Document, environ: Mapping[str, str]) -> Resolved:
    """Every valid host of the document; leaves duplicates and conflicts in its problems."""
    groups = _Members(document).of_groups()
    drafts: dict[str, list[Entry]] = {}
    for entries in groups.values():
        _refuse_repeated(document, entries)
        for entry in entries:
            for name in entry.names:
                drafts.setdefault(name, []).append(entry)
    resolved = _Resolver(document, environ).resolve(drafts)
    _refuse_same_target(document, resolved.hosts, drafts)
    resolved.groups = {
        group: tuple(dict.fromkeys(name for entry in entries for name in entry.names))
        for group, entries in groups.items()
    }
    return resolved


class _Members:
    """Reads the hosts of groups, up to a limit on all of them together."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.left = MAX_MEMBERS

    def of_groups(self) -> dict[str, list[Entry]]:
        groups: dict[str, list[Entry]] = {}
        for group in mapping_at(self.document, ("groups",)):
            groups[group] = []
            for index, item in enumerate(list_at(self.document, ("groups", group, "hosts"))):
                entry = self._entry(group, ("groups", group, "hosts", index), item)
                if self.left < 0:
                    return groups
                if entry is not None:
                    groups[group].append(entry)
        return groups

    def _entry(self, group: str, path: KeyPath, item: object) -> Entry | None:
        try:
            entry = _ITEM.validate_python(item)
            names = ranges.expand(entry.name)
        except ValidationError:
            return None  # told by its shape
        except ValueError as error:
            self.document.wrong((*path, "name") if isinstance(item, dict) else path, str(error))
            return None
        for key in _ONE_HOST_ONLY:
            if len(names) > 1 and getattr(entry, key) is not None:
                text = f"can't be the same for {len(names)} hosts; give each its own entry"
                self.document.wrong((*path, key), text, key=True)
        self.left -= len(names)
        if self.left < 0:
            text = f"more than {MAX_MEMBERS:,} hosts up to here, counted in each of their groups"
            self.document.wrong(path, text)
        return Entry(group, path, names, host_layer(self.document, path, entry))


def _refuse_repeated(document: Document, entries: Iterable[Entry]) -> None:
    first: dict[str, Entry] = {}
    again: dict[tuple[KeyPath, KeyPath], list[str]] = {}
    for entry in entries:
        for name in entry.names:
            other = first.setdefault(name, entry)
            if other is not entry:
                again.setdefault((entry.path, other.path), []).append(name)
    for (path, other_path), names in again.items():
        text = f"{ranges.fold(names)} {_are(names)} in this group already (line {document.line(other_path)})"
        document.wrong(path, text)


def _refuse_same_target(document: Document, hosts: Iterable[Host], drafts: Mapping[str, list[Entry]]) -> None:
    first: dict[tuple[str, int, str], Host] = {}
    same: dict[tuple[KeyPath, KeyPath], list[tuple[str, str]]] = {}
    for host in hosts:
        other = first.setdefault((_canonical(host.address), host.port or 22, host.path), host)
        if other is not host:
            paths = drafts[host.name][0].path, drafts[other.name][0].path
            if paths[0] != paths[1]:  # one address for a range is told already
                same.setdefault(paths, []).append((host.name, other.name))
    for (path, other_path), pairs in same.items():
        names, others = (ranges.fold(side) for side in zip(*pairs, strict=True))
        line = document.line(other_path)
        document.wrong(path, f"{names} {_has(pairs)} the address, port and path of {others} (line {line})")


def _canonical(address: str) -> str:
    try:
        return ipaddress.ip_address(address).compressed
    except ValueError:
        return address.casefold().rstrip(".")


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _has(names: list[Any]) -> str:
    return "has" if len(names) == 1 else "have"


class _Resolver:
    """Lays host over group over top; groups are joined once for each combination of them."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.environ = environ
        self.top = group_layer(document, ())
        self.app = str(mapping_at(document, ()).get("app"))
        self.groups = {
            name: group_layer(document, ("groups", name)) for name in mapping_at(document, ("groups",))
        }
        self.joined: dict[tuple[str, ...], tuple[Layer, tuple[Conflict, ...]]] = {}
        self.conflicts: dict[Conflict, list[str]] = {}

    def resolve(self, drafts: Mapping[str, list[Entry]]) -> Resolved:
        resolved = Resolved([self._host(name, entries) for name, entries in drafts.items()])
        for conflict, names in self.conflicts.items():
            self._tell(conflict, names)
        return resolved

    def _host(self, name: str, entries: list[Entry]) -> Host:
        groups = tuple(dict.fromkeys(entry.group for entry in entries))
        # Entries of one name in one group are told as repeated; only the first of a group counts here.
        layers: dict[str, Layer] = {}
        for entry in entries:
            layers.setdefault(entry.group, entry.layer)
        own, own_conflicts = join(layers.values())
        if groups not in self.joined:
            self.joined[groups] = join(self.groups[group] for group in groups)
        shared, conflicts = self.joined[groups]
        for conflict in (*own_conflicts, *(found for found in conflicts if found.name not in own)):
            self.conflicts.setdefault(conflict, []).append(name)
        return self._built(name, groups, {**self.top, **shared, **own})

    def _tell(self, conflict: Conflict, names: list[str]) -> None:
        line = self.document.line(conflict.first.path)
        first = key_path(conflict.first.path)
        text = f"differs from {first} (line {line}), and {ranges.fold(names)} {_are(names)} in both"
        self.document.wrong(conflict.second.path, text, key=True)

    def _built(self, name: str, groups: tuple[str, ...], layer: Layer) -> Host:
        values: dict[str, Any] = {key[0]: setting.value for key, setting in layer.items() if key[0] != "vars"}
        timeout_s = values.pop("connect_timeout", None)
        path = str(values.pop("path", "/unknown")).replace("{host}", name).replace("{app}", self.app)
        for key in ("identity_file", "known_hosts"):
            if key in values:
                values[key] = _with_home(values[key], self.environ)
        if "host_keys" in values:
            values["host_keys"] = HostKeys(values["host_keys"])
        variables = {key[1]: setting.value for key, setting in layer.items() if key[0] == "vars"}
        return Host(
            name=name,
            address=values.pop("address", name),
            path=path,
            connect_timeout_s=timeout_s,
            groups=groups,
            vars=variables,
            **values,
        )


def _with_home(text: str, environ: Mapping[str, str]) -> str:
    home = environ.get("HOME")
    if home and (text == "~" or text.startswith("~/")):
        return home.rstrip("/") + text[1:]
    return os.path.expanduser(text)  # noqa: PTH111 - Path would raise for an unknown ~user
