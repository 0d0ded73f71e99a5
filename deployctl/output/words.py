"""Lines that plain, live and JSON output have in common.

Owns their wording; pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployctl.output import numbers
from deployctl.output.causes import Fold
from deployctl.output.stream import printable
from deployctl.output.view import RunView, number, text


def note_lines(level: str, message: str, verbosity: int) -> list[str]:
    """`deployctl: warning: …`, or `deployctl: …` for what is only good to know, which quiet hides."""
    if level != "warning" and verbosity < 0:
        return []
    first, *more = message.rstrip("\n").split("\n")  # a traceback, with --debug, has many
    kind = "warning: " if level == "warning" else ""
    return [f"deployctl: {kind}{printable(first)}", *map(printable, more)]


def start_line(event: Mapping[str, Any], fold: Fold) -> str:
    """`push shop: 20 hosts: web[01-20]`, then workers and source where known."""
    hosts = [str(name) for name in event.get("hosts") or ()]
    told = " ".join(filter(None, (text(event, "command"), text(event, "app"))))
    if source := text(event, "source"):
        told += f" from {source}"
    told += f": {numbers.hosts(len(hosts))}: {fold(hosts)}" if hosts else ""
    if number(event, "forks") > 1:
        told += f" ({number(event, 'forks')} workers)"
    return printable(told)


def progress_line(view: RunView, fold: Fold) -> str:
    """`staged 3 of 20, 40.1 of 120.0 MB at 12.1 MB/s, 0:07 left; in work: web[04-08]`."""
    whole = len(view.hosts)
    if view.reverting:
        told = [f"switched back {len(view.reverted)} of {len(view.reverting)}"]
    elif view.live:
        told = [f"live on {len(view.live)} of {whole}"]
    elif view.command == "push":
        told = [f"staged {len(view.staged)} of {whole}"]
    else:
        told = [f"done {len(view.done)} of {whole}"]
    if view.bytes_done < view.bytes_total:
        rate = view.rate()
        at = f" at {numbers.size(rate)}/s" if rate else ""
        told.append(numbers.size_of(view.bytes_done, view.bytes_total) + at)
    left = view.left_s()
    if left and view.bytes_done < view.bytes_total:
        told.append(f"{numbers.clock(left)} left")
    line = ", ".join(told)
    if view.running:
        line += f"; in work: {fold(view.running)}"
    return printable(line)
