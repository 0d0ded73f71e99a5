"""A hosts.yaml for servers of the harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.sshd import Sshd

InventoryFor = Callable[..., Path]


def known_hosts_for(hosts: Sequence[Sshd], path: Path) -> Path:
    path.write_text("".join(host.known_hosts_lines for host in hosts))
    return path


def inventory_for(hosts: Sequence[Sshd], directory: Path, identity: Path, **overrides: Any) -> Path:
    """Write hosts.yaml (and known_hosts) into `directory`: h01 … with address, port and path.

    `overrides` are top-level keys (`app`, `release`, `groups`, `ssh` …); mappings are merged into ours, key by key.
    """
    known = known_hosts_for(hosts, directory / "known_hosts")
    entries = [{"name": h.name, "address": h.address, "port": h.port, "path": str(h.root)} for h in hosts]
    data: dict[str, Any] = {
        "app": "shop",
        "path": "/srv/shop",
        "ssh": {
            "user": hosts[0].user,
            "identity_file": str(identity),
            "known_hosts": str(known),
            "connect_timeout": "10s",
        },
        "groups": {"web": {"hosts": entries}},
    }
    for key, value in overrides.items():
        data[key] = {**data[key], **value} if isinstance(value, Mapping) and key in data else value
    path = directory / "hosts.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path
