"""What keeps a host's deploy root tidy, as one worker does it; what is to go is decided by the parent."""

from __future__ import annotations

from typing import Any

from deployctl.engine.child import Message
from deployctl.host.facts import parse_history
from deployctl.host.layout import RELEASE_ID
from deployctl.host.operation import Operation
from deployctl.host.script import number
from deployctl.host.session import Session
from deployctl.model import Phase

KEYS = ("event", "release", "ts", "previous")


def survey(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Look what could be pruned: releases that are ours, what is live, and the records that say which are good."""
    operation.begin(Phase.CLEAN if command.get("quiet") else Phase.PRUNE, quiet=command.get("quiet", False))
    answer = session.run(operation, "survey")
    first = parse_history(answer.all("first"))
    return {
        "current": answer.one("current"),
        "releases": [name for name in answer.all("release") if RELEASE_ID.fullmatch(name)],
        "first": _short(first[0]) if first else None,
        "history": [_short(record) for record in parse_history(answer.all("history"))],
    }


def _short(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record.get(key) for key in KEYS}


def prune(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Remove releases, and leftovers of dead runs; HostError when something stays, after all else is gone."""
    operation.begin(Phase.CLEAN if command.get("quiet") else Phase.PRUNE, quiet=True)
    answer = session.run(operation, "prune", command["values"])
    return {
        "removed": answer.all("removed"),
        "artifacts": number(answer.one("artifacts")) or 0,
        "leftovers": number(answer.one("leftovers")) or 0,
    }
