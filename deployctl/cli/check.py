"""deployctl check"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform, refuse_lost_output
from deployctl.inventory import Inventory, fold
from deployctl.output.stream import SafeStream, printable
from deployctl.release.options import Options
from deployctl.release.ready import check
from deployctl.release.result import Result


class Listener:
    """Passes everything on and remembers each host's checks."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self.checks: dict[str, Sequence[Mapping[str, Any]]] = {}

    def event(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "host" and "checks" in event["data"]:
            self.checks[event["host"]] = event["data"]["checks"]
        self._heard.event(event)

    def note(self, level: str, text: str) -> None:
        self._heard.note(level, text)

    def tick(self) -> None:
        self._heard.tick()


@click.command("check")
@common_options
def command(common: Common) -> int:
    """Look whether every host is ready for a release, and say what to do where one is not.

    Rights are tried: a file is written, renamed and removed in each deploy root, or beside it. Nothing else changes.
    The exit code is 20 when a host is not ready.
    """
    out = SafeStream(sys.stdout)

    def action(inventory: Inventory, heard: Heard) -> Result:
        listener = Listener(heard)
        result = check(inventory, Options(**common.settings()), listener)
        if common.output != "json":
            for line in table(listener.checks, fold, quiet=common.quiet):
                out.line(line)
            out.drain(wait=True)
        return result

    code = perform(common, "check", action)
    refuse_lost_output(out.lost, code)
    return code


def table(
    checks: Mapping[str, Sequence[Mapping[str, Any]]], fold: Callable[[Iterable[str]], str], *, quiet: bool
) -> list[str]:
    """Return the lines of the table: hosts of which the same is true share one; `quiet` leaves out what is well."""
    order: dict[str, None] = {}
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for host, lines in checks.items():
        for line in lines:
            order.setdefault(line["name"])
            if not quiet or line["state"] != "ok":
                key = (line["name"], line["state"], line["detail"], line["fix"] or "")
                groups.setdefault(key, []).append(host)
    rows = sorted(groups.items(), key=lambda item: list(order).index(item[0][0]))
    if not rows:
        return []
    cells = [(fold(hosts), name, state, detail, fix) for (name, state, detail, fix), hosts in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    widths = [
        min(32, max(width, len(head))) for width, head in zip(widths, ("HOST", "CHECK", "STATE"), strict=True)
    ]
    told = [_row(("HOST", "CHECK", "STATE", "WHAT"), widths)]
    for host, name, state, detail, fix in cells:
        told.append(_row((host, name, state, detail), widths))
        if fix:
            told.append(_row(("", "", "", f"fix: {fix}"), widths))
    return told


def _row(cells: tuple[str, str, str, str], widths: Sequence[int]) -> str:
    left = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
    return printable(f"{left}  {cells[3]}".rstrip())
