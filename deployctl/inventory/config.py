"""What an inventory says, as frozen dataclasses: the result of loading it.

Owns these types and their defaults; refuses to know how they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deployctl.model import Host, Shared


@dataclass(frozen=True, slots=True)
class Hook:
    """One shell command at a moment of a release; no `groups` means every host."""

    run: str
    timeout_s: float | None = None
    once: bool = False
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One proof that a release works: either `url`, asked for from here or from the host, or `run` on the host."""

    url: str | None = None
    run: str | None = None
    from_: Literal["here", "host"] = "here"
    expect: int = 200
    text: str | None = None
    timeout_s: float = 30.0
    interval_s: float = 1.0

    def url_for(self, host: Host, *, app: str, release: str) -> str:
        """The URL with its placeholders filled in, an IPv6 address in brackets; ValueError for a check without one."""
        if self.url is None:
            raise ValueError("this check has no URL")
        values = {
            "host": _in_url(host.name),
            "address": _in_url(host.address),
            "app": app,
            "release": release,
        }
        url = self.url
        for name, value in values.items():
            url = url.replace("{" + name + "}", value)
        return url


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class ReleaseConfig:
    """How a release is made; `hooks` has all six names, most of them without hooks."""

    hooks: Mapping[str, tuple[Hook, ...]]
    keep: int = 5
    links: Literal["copy", "hard"] = "copy"
    exclude: tuple[str, ...] = ()
    shared: Shared = field(default_factory=Shared)
    check: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """One inventory file; hosts stand in the order of the file, groups hold names of hosts.

    `path` is the top's deploy root with its placeholders; the one of a host is `Host.path`. `warnings` are lines like
    those of InventoryError, about what is allowed but probably not meant.
    """

    file: Path
    app: str
    path: str
    hosts: tuple[Host, ...]
    groups: Mapping[str, tuple[str, ...]]
    release: ReleaseConfig
    warnings: tuple[str, ...] = ()
