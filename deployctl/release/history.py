"""The history of releases here: one JSON line for each run that changes hosts, in the user's state directory.

Owns that file, and how it and the histories of hosts become one list. What hosts keep is written there by the run's own
commands. Nothing secret is written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_state_path

from deployctl.host.layout import RELEASE_ID
from deployctl.host.tap import HIDDEN
from deployctl.inventory import Inventory, fold, select
from deployctl.inventory.ranges import expand
from deployctl.model import SCHEMA
from deployctl.release.events import stamp, utc_now

if TYPE_CHECKING:
    from deployctl.release.run import Run

REMEMBERED = frozenset({"push", "activate", "rollback", "prune", "copy", "unlock"})
READ_BYTES = 8 << 20  # of the file's end
FAILURES = 100  # hosts whose failure is written down
SHOWN = 500  # characters of a message
Record = Mapping[str, Any]
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[\]]*\])")


def history_file() -> Path:
    """Return where this user's history is."""
    return user_state_path("deployctl") / "history.jsonl"


def remember(run: Run, outcome: str, code: int, bytes_sent: int) -> None:
    """Write down how a run ended; one that can't be is a warning, for the hosts are what they are."""
    if run.command not in REMEMBERED or run.told.get("dry_run"):
        return
    try:
        append(history_file(), _hidden(_record(run, outcome, code, bytes_sent), run.secrets))
    except OSError as error:
        run.events.note(
            "warning", f"this run could not be added to {history_file()}: {error.strerror or error}"
        )


def _record(run: Run, outcome: str, code: int, bytes_sent: int) -> dict[str, Any]:
    failed = [member for member in run.fleet if member.failed][:FAILURES]
    told = {key: run.told[key] for key in ("source", "ref", "wanted") if run.told.get(key)}
    if "source" in told:
        told["source"] = str(Path(told["source"]).absolute())
    record = {
        "schema": SCHEMA,
        "run": run.events.run,
        "command": run.command,
        "app": run.inventory.app,
        "inventory": str(run.inventory.file.absolute()),
        "release": run.events.release,
        **told,
        **run.known,
        "message": run.options.message,
        "user": run.author.user,
        "machine": run.author.machine,
        "ci": run.author.ci,
        "limit": run.options.limit,
        "hosts": fold(member.name for member in run.fleet),
        "hosts_total": len(run.fleet.members),
        "started": stamp(run.started_at),
        "finished": stamp(utc_now()),
        "elapsed_s": run.events.elapsed_s,
        "outcome": outcome,
        "exit_code": code,
        "bytes_sent": bytes_sent,
        "failures": {
            m.name: {"phase": m.failed_in, "code": int(m.code), "message": m.message[:SHOWN]} for m in failed
        },
    }
    return {key: value for key, value in record.items() if value is not None}


def _hidden(value: Any, secrets: Sequence[str]) -> Any:
    """Return `value` with every secret in its texts replaced."""
    if isinstance(value, str):
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, Mapping):
        return {key: _hidden(inner, secrets) for key, inner in value.items()}
    return value


def append(path: Path, record: Record) -> None:
    """Add one line in a single write, so that runs at the same time don't mix; a torn line before it is ended. OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = json.dumps(record).encode() + b"\n"
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        os.write(file, b"\n" * torn + line)
    finally:
        os.close(file)


def read_local(app: str) -> list[Record]:
    """Return this user's runs of `app`, oldest first; lines that are torn or not ours are passed over."""
    try:
        with history_file().open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - READ_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    return [record for record in map(_parsed, lines) if record.get("app") == app and record.get("run")]


def concerning(records: Iterable[Record], inventory: Inventory, limit: str | None) -> list[Record]:
    """Return the runs that any of the selected hosts took part in; without a limit also what this inventory did to hosts
    that it holds no more. UsageError for a limit that selects nothing.
    """
    names = {host.name for host in select(inventory, limit)}
    file = str(inventory.file.absolute())
    return [
        record
        for record in records
        if (limit is None and record.get("inventory") == file) or not names.isdisjoint(_hosts_of(record))
    ]


def _hosts_of(record: Record) -> set[str]:
    found: set[str] = set()
    for part in _OUTSIDE_BRACKETS.split(str(record.get("hosts", ""))):
        try:
            found.update(expand(part))
        except ValueError:  # not a line of ours
            found.add(part)
    return found


def known_release(inventory: Inventory, digest: str) -> str | None:
    """Return the id of what this user last made live on this inventory's hosts, if it is the tree with this digest."""
    file = str(inventory.file.absolute())
    for record in reversed(read_local(inventory.app)):
        release = str(record.get("release"))
        made_live = record.get("outcome") in {"released", "unchanged"} and RELEASE_ID.fullmatch(release)
        if record.get("inventory") == file and made_live:
            same = record.get("digest") in {None, digest} and release.endswith(digest[:8])
            return release if same else None
    return None


def _parsed(line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def merged(local: Iterable[Record], hosts: Mapping[str, Sequence[Record]], last: int) -> list[dict[str, Any]]:
    """Return the runs that either knows, newest first; what is known here of a run is more than what its hosts tell."""
    runs: dict[str, dict[str, Any]] = {str(record["run"]): dict(record) for record in local}
    found: dict[str, dict[str, list[Record]]] = {}
    for host, records in hosts.items():
        for record in records:
            found.setdefault(str(record.get("run", "")), {}).setdefault(host, []).append(record)
    for run, by_host in found.items():
        if run not in runs:
            runs[run] = _told_by_hosts(run, by_host)
    newest = sorted(runs.values(), key=lambda run: str(run.get("started", "")), reverse=True)
    return newest[:last]


def _told_by_hosts(run: str, by_host: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    records = sorted(
        (record for each in by_host.values() for record in each), key=lambda record: str(record.get("ts", ""))
    )
    first = records[0]
    outcomes = {_outcome_on_host([str(record.get("event")) for record in each]) for each in by_host.values()}
    about = {
        key: next((record[key] for record in records if record.get(key)), None)
        for key in ("command", "release", "user", "machine", "ci", "message")
    }
    return {
        "run": run,
        **{key: value for key, value in about.items() if value is not None},
        "hosts": fold(by_host),
        "hosts_total": len(by_host),
        "started": first.get("ts"),
        "finished": records[-1].get("ts"),
        "outcome": outcomes.pop() if len(outcomes) == 1 else "mixed",
    }


def _outcome_on_host(events: Sequence[str]) -> str:
    if "revert" in events:
        return "reverted"
    if "confirm" in events:
        return "released"
    if "switch" in events:
        return "unfinished"
    return "staged" if "stage" in events else "ok"
