"""Output of one command on many hosts, with hosts that said the same under one head, as `clush -b` and `dshbak -c` show it.

Owns what was said and how it is grouped; refuses to know when it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployctl.output.causes import Fold
from deployctl.output.stream import log_lines
from deployctl.output.view import text

_RULE = "-" * 15
_STREAMS = ("stdout", "stderr")  # in this order: which line of one came before which of the other is chance


class Gathered:
    """What each host said, kept until all have ended."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, list[str]]] = {}

    def take(self, event: Mapping[str, Any]) -> bool:
        """Keep a `log` event of a host's command; False for one that is something else."""
        host, stream = text(event, "host"), text(event, "stream")
        if event.get("event") != "log" or not host or stream not in _STREAMS:
            return False
        said = self._said.setdefault(host, {stream: [] for stream in _STREAMS})
        said[stream] += log_lines(text(event, "text"))
        return True

    def lines(self, hosts: list[str], fold: Fold) -> list[str]:
        """Return each text under the names of `hosts` that said it; those that said nothing are left out."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for host in hosts:
            if said := self._said.get(host):
                whole = tuple(line for stream in _STREAMS for line in said[stream])
                groups.setdefault(whole, []).append(host)
        found = []
        for whole, names in groups.items():
            count = f" ({len(names)})" if len(names) > 1 else ""
            found += [_RULE, f"{fold(names)}{count}", _RULE, *whole]
        return found
