"""`deployctl inventory`: the resolved hosts as a table or as JSON lines, and the JSON Schema of the file.

Owns how an inventory is shown; refuses to know how it is read. Contacts no host, and never shows a secret value.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from deployctl.errors import DeployctlError, Exit, InventoryError
from deployctl.inventory import fold, json_schema, load_inventory, select, shown
from deployctl.inventory.problems import printable
from deployctl.model import SCHEMA, Host, Outcome, State

_PHASE = "inventory"
_HEAD = ("NAME", "ADDRESS", "PORT", "USER", "PATH", "GROUPS")


@click.group(name="inventory", invoke_without_command=True)
@click.option(
    "-i",
    "--inventory",
    "file",
    metavar="FILE",
    envvar="DEPLOYCTL_INVENTORY",
    default="hosts.yaml",
    show_default=True,
    show_envvar=True,
    help="The inventory.",
)
@click.option(
    "-l", "--limit", metavar="PATTERN", help="Groups, hosts, globs, ranges; comma = or, !x = without x."
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["auto", "live", "plain", "json"]),
    default="auto",
    show_default=True,
    help="A table, or JSON, one line for each host.",
)
@click.option("--debug", is_flag=True, help="Tracebacks.")
@click.pass_context
def command(context: click.Context, file: str, limit: str | None, output: str, debug: bool) -> None:  # noqa: ARG001 - `--debug` is read where a defect is told
    """Show the hosts of the inventory as they were resolved; no host is contacted."""
    if context.invoked_subcommand is not None:
        return
    if output == "json":
        _show_json(file, limit)
    else:
        _show_plain(file, limit)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of the file format, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


def _show_plain(file: str, limit: str | None) -> None:
    inventory = load_inventory(file)
    hosts = select(inventory, limit)
    for warning in inventory.warnings:
        click.echo(_encodable(f"deployctl: warning: {warning}", sys.stderr.encoding), err=True)
    for line in (*_table(hosts), *_variables(hosts)):
        click.echo(_encodable(line, sys.stdout.encoding))


def _table(hosts: Iterable[Host]) -> list[str]:
    rows = [_HEAD, *(_row(host) for host in hosts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(host: Host) -> tuple[str, ...]:
    port = "-" if host.port is None else str(host.port)
    return (host.name, host.address, port, host.user or "-", printable(host.path), ",".join(host.groups))


def _variables(hosts: Iterable[Host]) -> list[str]:
    """One line for each variable and value, with the hosts that have it folded; nothing without variables."""
    found: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        for name, var in host.vars.items():
            found.setdefault((name, shown(var)), []).append(host.name)
    lines = [f"{fold(names)}: {name}={_one_line(value)}" for (name, value), names in found.items()]
    return ["", "VARS", *lines] if lines else []


def _one_line(value: str) -> str:
    return value if value.isprintable() else json.dumps(value)


def _encodable(line: str, encoding: str | None) -> str:
    """The line as a terminal of another language can show it, instead of a UnicodeEncodeError."""
    name = encoding or "utf-8"
    return line.encode(name, "backslashreplace").decode(name)


def _show_json(file: str, limit: str | None) -> None:
    report = _JsonReport(uuid.uuid4().hex, time.monotonic())
    try:
        inventory = load_inventory(file)
        hosts = select(inventory, limit)
    except DeployctlError as error:
        refused = isinstance(error, InventoryError)
        report.finish((), Outcome.REFUSED if refused else Outcome.FAILED, error.exit_code)
        raise
    for warning in inventory.warnings:
        click.echo(_encodable(f"deployctl: warning: {warning}", sys.stderr.encoding), err=True)
    for host in hosts:
        report.host(host)
    report.finish(hosts, Outcome.OK, Exit.OK)


class _JsonReport:
    """Prints the lines of one run; `started` is of time.monotonic()."""

    def __init__(self, run: str, started: float) -> None:
        self.run = run
        self.started = started

    def host(self, host: Host) -> None:
        fields = {"host": host.name, "phase": _PHASE, "state": State.OK, "code": 0, "message": "success"}
        self._print("host", {"release": None, **fields, "data": _data(host)})

    def finish(self, hosts: Sequence[Host], outcome: Outcome, exit_code: Exit) -> None:
        states = {
            host.name: {"state": State.OK, "code": 0, "message": "success", "live": None} for host in hosts
        }
        fields = {"outcome": outcome, "exit_code": int(exit_code), "release": None, "hosts": states}
        self._print("run_finished", {**fields, "bytes_sent": 0, "skew_s": None})

    def _print(self, event: str, fields: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"schema": SCHEMA, "event": event, "run": self.run, **fields}
        line |= {"elapsed_s": round(time.monotonic() - self.started, 3), "ts": now}
        click.echo(json.dumps(line))


def _data(host: Host) -> dict[str, Any]:
    """Everything resolved about a host as JSON-ready data; secrets are hidden."""
    return {
        "name": host.name,
        "address": host.address,
        "port": host.port,
        "user": host.user,
        "path": host.path,
        "groups": list(host.groups),
        "identity_file": host.identity_file,
        "known_hosts": host.known_hosts,
        "host_keys": host.host_keys,
        "jump": host.jump,
        "fingerprint": host.fingerprint,
        "connect_timeout_s": host.connect_timeout_s,
        "retries": host.retries,
        "vars": {name: shown(var) for name, var in host.vars.items()},
    }
