"""Who holds a lock, as its owner wrote it down on the host; pure text."""

from __future__ import annotations

import json
from typing import Any

from deployctl.host.script import printable


def owner_of(line: str) -> dict[str, Any]:
    """Return what a line of lock.owner says of the holder; empty when it can't be read."""
    try:
        owner = json.loads(line.split(" ", 2)[2])
    except (IndexError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def owner_text(line: str) -> str:
    """Return who holds a lock, for people."""
    owner = {key: printable(str(value)) for key, value in owner_of(line).items() if value is not None}
    if not owner:
        return "somebody whose name could not be read"
    said = f"{owner.get('user', '?')} on {owner.get('machine', '?')}, process {owner.get('pid', '?')}"
    said += f", run {owner.get('run', '?')}, since {owner.get('since', '?')}"
    return said + (f", job {owner['ci']}" if owner.get("ci") else "")
