"""Hooks and checks on one host: what runs there at a moment of a release, with its output and its limits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from deployctl.engine.child import Message
from deployctl.errors import Code, HostError
from deployctl.host.operation import Operation
from deployctl.host.script import printable
from deployctl.host.session import Session
from deployctl.host.shell import Cancelled
from deployctl.host.tap import Tap
from deployctl.host.verdict import follows, judge
from deployctl.model import Phase

ATTEMPT_S = 10.0  # one request of a check
SLOW_S = 5.0  # a request from the host may end this much after its own limit
SHOWN = 120  # characters of a command in a message


def hook(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Run the hooks of one moment in their order; HostError HOOK at the first that fails."""
    operation.begin(Phase(command["phase"]), quiet=True)  # the phase's own work says how it stands
    for each in command["hooks"]:
        _run_hook(session, command, each, operation)
    return {}


def _run_hook(session: Session, command: Message, each: Mapping[str, Any], operation: Operation) -> None:
    site = session.site
    tap = Tap(operation.log, site.secrets)
    limit_s = each.get("timeout_s") or operation.timeout_s
    what = f"{command['moment']} hook `{tap.clean(each['run'])[:SHOWN]}`"
    try:
        answer = session.run(
            operation,
            "hook",
            {"COMMAND": each["run"], "DIR": command["dir"]},
            timeout_s=limit_s,
            environment={**site.environments.get(session.host, {}), **command["environment"]},
            tap=tap.take,
        )
    except HostError as error:
        tail = tap.end()
        if error.code is not Code.TIMED_OUT:
            raise HostError(
                error.code, error.message, hint=error.hint, data={**error.data, "tail": tail}
            ) from error
        _prove_gone(session, error, operation)
        raise HostError(
            Code.HOOK,
            f"{what} did not end within {limit_s:g} s and was killed",
            data={"tail": tail},
            hint="give it a timeout of its own in the inventory: {run: ..., timeout: 5m}",
        ) from error
    tail = tap.end()
    if (status := answer.one("status")) != "0":
        raise HostError(Code.HOOK, f"{what} ended with status {status}", data={"tail": tail})


def _prove_gone(session: Session, error: HostError, operation: Operation) -> None:
    """The hook was killed with its channel; see that its process group is no more."""
    if group := error.data.get("group"):
        session.run(operation, "gone", {"GROUP": str(group)}, timeout_s=10.0)


def check(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Ask until every check is content or its time is over; HostError CHECK with what came last."""
    operation.begin(Phase.CHECK)
    for each in command["checks"]:
        _await(session, command, each, operation)
    operation.ok()
    return {}


def _await(session: Session, command: Message, each: Mapping[str, Any], operation: Operation) -> None:
    deadline = time.monotonic() + each["timeout_s"]
    what = each["url"] or f"`{Tap(_drop, session.site.secrets).clean(each['run'])[:SHOWN]}`"
    while True:
        operation.cancel.check()
        left_s = deadline - time.monotonic()
        said = _ask(session, command, each, operation, max(0.5, left_s))
        if said is None:
            return
        if time.monotonic() + each["interval_s"] >= deadline:
            raise HostError(
                Code.CHECK, f"check {what} was not content within {each['timeout_s']:g} s: {said}"
            )
        if operation.cancel.event.wait(each["interval_s"]):
            raise Cancelled


def _ask(
    session: Session, command: Message, each: Mapping[str, Any], operation: Operation, limit_s: float
) -> str | None:
    """Ask once; None when content, else what was wrong."""
    if each["run"]:
        return _ask_command(session, command, each, operation, limit_s)
    limit_s = min(ATTEMPT_S, limit_s)
    if each["from"] == "host":
        return _ask_from_host(session, each, operation, limit_s)
    from deployctl.host.url import ask_url  # noqa: PLC0415 - its libraries take 12 ms to load, and few releases need them

    return ask_url(each, limit_s)


def _ask_from_host(
    session: Session, each: Mapping[str, Any], operation: Operation, limit_s: float
) -> str | None:
    values = {
        "URL": each["url"],
        "TEXT": each["text"] or "",
        "LIMIT": str(math.ceil(limit_s)),
        "FOLLOW": "1" if follows(each) else "",
    }
    try:
        answer = session.run(operation, "check_url", values, timeout_s=limit_s + SLOW_S)
    except HostError as error:
        if error.code is not Code.TIMED_OUT:
            raise
        return f"no answer within {limit_s:g} s"
    got = answer.one("http") or "000"
    if not got.isdigit() or int(got) == 0:
        return printable(answer.one("error") or "no answer")
    return judge(int(got), each, answer.one("text") is not None)


def _ask_command(
    session: Session, command: Message, each: Mapping[str, Any], operation: Operation, limit_s: float
) -> str | None:
    tap = Tap(_drop, session.site.secrets)
    try:
        answer = session.run(
            operation,
            "hook",
            {"COMMAND": each["run"], "DIR": command["dir"]},
            timeout_s=limit_s,
            environment={**session.site.environments.get(session.host, {}), **command["environment"]},
            tap=tap.take,
        )
    except HostError as error:
        if error.code is not Code.TIMED_OUT:
            raise
        return f"no end within {limit_s:g} s"
    status, tail = answer.one("status"), tap.end()
    return None if status == "0" else f"status {status}" + (f": {tail[-1]}" if tail else "")


def _drop(_stream: str, _text: str) -> None:
    """Let a check's output go: its last line is in the failure."""
