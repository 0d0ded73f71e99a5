"""`run` and `copy` on one host, as a worker does them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from deployctl.engine.child import Message
from deployctl.errors import Code, HostError
from deployctl.host.operation import Operation
from deployctl.host.session import Session
from deployctl.host.tap import Tap
from deployctl.host.upload import upload
from deployctl.model import Phase

GONE_S = 10.0


def run_command(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Run one command and pass its output on as it comes; HostError HOOK when its exit status is not 0."""
    operation.begin(Phase.RUN)
    tap = Tap(
        operation.log, session.site.secrets, pass_bytes=sys.maxsize
    )  # whoever reads slowly slows it down
    try:
        answer = session.run(
            operation,
            "run",
            {"COMMAND": command["command"]},
            environment=command["environment"],
            tap=tap.take,
        )
    except HostError as error:
        data = {**error.data, "tail": tap.end()}
        if not (group := error.data.get("group")):
            raise HostError(error.code, error.message, hint=error.hint, data=data) from error
        session.run(operation, "gone", {"GROUP": str(group)}, timeout_s=GONE_S)
        said = f"the command did not end within {operation.timeout_s:g} s and was killed"
        raise HostError(Code.TIMED_OUT, said, hint="--timeout gives it more time", data=data) from error
    tail = tap.end()
    told = answer.one("status")
    if told is None or not told.isdigit():
        raise HostError(Code.LOST, "the host did not tell how the command ended", data={"tail": tail})
    if status := int(told):
        said = f"the command ended with status {status}"
        raise HostError(Code.HOOK, said, data={"status": status, "tail": tail})
    operation.ok(status=status)
    return {"status": status}


def copy_send(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Put the file beside its destination, checked; `{"to": path, "unchanged": whether it was there already, "bytes": sent}`.

    `into` is the directory that DEST turned out to be, without a slash that would have said so.
    """
    operation.begin(Phase.UPLOAD)
    values = dict(command["values"])
    answer = session.run(operation, "copy_begin", values)
    values["TO"] = to = answer.one("to") or ""
    told = {"to": to, "into": answer.one("into")}
    if answer.one("same"):
        return {**told, "unchanged": True, "bytes": 0}
    source = Path(command["path"])
    try:
        sent_bytes = upload(
            session.connection(operation.timeout_s),
            source,
            answer.one("new") or "",
            stall_s=operation.timeout_s,
            cancel=operation.cancel,
            progress=lambda done: operation.bytes(done, int(values["SIZE"])),
        )
    except OSError as error:
        raise HostError(Code.UNEXPECTED, f"{source} cannot be read any more: {error.strerror}") from error
    except HostError as error:
        if "scp" not in error.data:
            raise
        session.run(operation, "copy_blame", {**values, "WHY": error.message})
        raise
    session.run(operation, "copy_verify", values)
    operation.ok(bytes=sent_bytes)
    return {**told, "unchanged": False, "bytes": sent_bytes}


def copy_switch(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    operation.begin(Phase.COPY)
    session.run(operation, "copy_switch", command["values"])
    operation.ok(to=command["values"]["TO"])
    return {"copied": True}


def copy_back(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Put the old file back, or nothing where there was none; the parent says `reverted`."""
    operation.begin(Phase.REVERT)
    answer = session.run(operation, "copy_back", command["values"])
    return {"back": answer.one("back") is not None, "unsynced": answer.one("unsynced")}
