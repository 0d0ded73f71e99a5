"""What one worker does: it keeps the connections of its hosts and carries out the parent's commands on them.

    {"do": "connect", "host": …}                  → phases connect, probe
    {"do": "early", "host": …, "path": …, "parts": [[size, digest, size of file], …], "whole": false, "name": ""}   → phase upload, not to its end
    {"do": "grown", "parts": […], "whole": …, "name": …}     → what `early` follows has more parts, or is whole and has a name on hosts
    {"do": "stage", "host": …, "plan": {…}}       → phases upload, stage
    {"do": "inspect" | "manifest" | "activate" | "revert" | "confirm" | "clean", "host": …, "values": {…}}
    {"do": "rate", "bytes_s": …}                  → what this worker may send in a second from here on
    {"do": "cancel", "hosts": […]}                → what runs for these hosts ends within a second

Every command runs in a thread of its own and ends in exactly one `done` message; the parent decides how many run at
once. Phases are reported as `status`, sent bytes as `bytes`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from deployctl.engine.child import Line, Message
from deployctl.errors import DEFECT_HINT, Code, HostError
from deployctl.host.connection import Connection
from deployctl.host.everyday import copy_back, copy_send, copy_switch, run_command
from deployctl.host.facts import read_facts
from deployctl.host.growth import Growth
from deployctl.host.jump import JumpCache
from deployctl.host.layout import live_release
from deployctl.host.moments import check, hook
from deployctl.host.operation import Operation
from deployctl.host.plan import Plan
from deployctl.host.readiness import examine
from deployctl.host.reading import standing, verify, whole
from deployctl.host.session import Session, Site
from deployctl.host.shell import Cancelled, Shell
from deployctl.host.staging import early, stage
from deployctl.host.throttle import Throttle
from deployctl.host.upkeep import prune, survey
from deployctl.model import Phase

CANCEL_S = 0.8  # what was cancelled and has not ended by then is told as cancelled, and loses its connection

Step = Callable[[Session, Message, Operation], dict[str, Any]]


class Agent:
    """The servant of a worker that releases; one for each worker, made after the fork."""

    def __init__(self, site: Site, line: Line) -> None:
        self._site = site
        self._line = line
        self._jumps = JumpCache(site.credentials, site.known_hosts)
        self._throttle = Throttle(site.rate_bytes_s)
        self._sessions: dict[str, Session] = {}
        self._operations: dict[str, Operation] = {}

    def serve(self) -> None:
        """Carry out commands until told to stop, then close the connections."""
        while (command := self._line.receive()) is not None:
            if command["do"] == "cancel":
                for host in command["hosts"]:
                    self._cancel(host)
            elif command["do"] == "rate":
                self._throttle.set(command["bytes_s"])
            elif command["do"] == "grown":
                for session in self._sessions.values():
                    if session.growth is not None:
                        session.growth.grow(command["parts"], whole=command["whole"], name=command["name"])
            else:
                self._start(command)
        for session in self._sessions.values():
            session.close()
        self._jumps.close()

    def _start(self, command: Message) -> None:
        host = command["host"]
        session = self._sessions.setdefault(host, Session(host, self._site, self._jumps, self._throttle))
        timeout_s = command.get("timeout_s", self._site.timeout_s)
        operation = self._operations[host] = Operation(self._line, host, command["do"], timeout_s)
        if command["do"] == "early":
            session.growth = Growth(command["parts"], whole=command["whole"])
            session.growth.name = command["name"]
        thread = threading.Thread(
            target=self._carry_out,
            args=(session, command, operation),
            name=f"{command['do']} {host}",
            daemon=True,
        )
        thread.start()

    def _carry_out(self, session: Session, command: Message, operation: Operation) -> None:
        doubtful: Shell | None = None
        try:
            try:
                if command["do"] != "stage":
                    session.end_early()
                data = STEPS[command["do"]](session, command, operation)
            finally:
                if not operation.cancel.over():  # what it closes must not be under the next command
                    doubtful = session.forget_shell()
        except Cancelled:
            operation.end_cancelled()
        except HostError as error:
            operation.end_failed(error)
        except Exception as error:  # noqa: BLE001 - a defect of ours fails one host, with what --debug needs
            operation.end_failed(
                HostError(
                    Code.UNEXPECTED,
                    f"{type(error).__name__}: {error}",
                    data={"traceback": traceback.format_exc()},
                    hint=DEFECT_HINT,
                )
            )
        else:
            operation.end_ok(data)
        if doubtful is not None:
            doubtful.close()

    def _cancel(self, host: str) -> None:
        if operation := self._operations.get(host):
            timer = threading.Timer(CANCEL_S, self._cut, (self._sessions[host], operation))
            timer.daemon = True
            timer.start()
            # Closing a channel sends a message: on a link that stands still that waits, and must not hold up the rest.
            threading.Thread(target=operation.cancel, name=f"cancel {host}", daemon=True).start()

    def _cut(self, session: Session, operation: Operation) -> None:
        """End what did not end by itself; whatever its thread waits for, a connection that is closed wakes it.

        The session lets go of it before the end is told: the next command must not begin on it.
        """
        released: list[Connection | None] = []
        operation.end_cancelled(before=lambda: released.append(session.release()))
        for connection in released:
            if connection is not None:
                connection.close()


def agent(site: Site) -> Callable[[Line], None]:
    """Return the servant for a crew that releases to `site`."""

    def serve(line: Line) -> None:
        _stay_silent()
        Agent(site, line).serve()

    return serve


def _stay_silent() -> None:
    """The terminal belongs to the parent: nothing of a worker reaches it, and a closed one can't stop us."""
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    logging.getLogger("paramiko").propagate = False
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    # What a thread of paramiko stumbles over ends its connection, and is told as that.
    threading.excepthook = lambda _arguments: None


def connect(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Connect and, unless `{"probe": false}`, look at the deploy root; `{"locks": true}` says that the lock comes next.

    With the value SCAN also for a base of deltas.
    """
    operation.begin(Phase.CONNECT)
    connection = session.connection(operation.timeout_s)
    operation.cancel.check()
    operation.ok()
    learned = [*session.jumps.learned, *([connection.learned] if connection.learned else [])]
    said = {"learned": [[each.path, each.line] for each in learned]}
    if not command.get("probe", True):
        return said
    if command.get("locks"):
        session.start_spare(operation.timeout_s)
    operation.begin(Phase.PROBE)
    answer = session.run(operation, "probe", command.get("values"))
    session.saw(answer)
    session.facts = read_facts(answer, session.root)
    operation.ok()
    return {"facts": session.facts.to_json(), **said}


def stage_release(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    return stage(session, Plan.from_json(command["plan"]), operation)


def inspect(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Was the live release edited since we wrote it? `{"edited": text or null}`."""
    operation.begin(Phase.PROBE, quiet=True)
    answer = session.run(operation, "inspect", command["values"])
    return {"edited": answer.one("edited"), "touched": answer.one("touched")}


def manifest(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    operation.begin(Phase.PROBE, quiet=True)
    return {"lines": session.run(operation, "manifest", command["values"]).all("entry")}


def lock(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Take the lock: `{"held": owner}` when another run has it, else what is live now that it is ours."""
    operation.begin(Phase.PROBE, quiet=True)
    answer = session.take_lock(operation, command["values"])
    if answer.one("locked") is None:
        return {"held": answer.one("held") or "unknown"}
    return {"held": None, "current": answer.one("current"), "history": answer.one("history")}


def unlock(session: Session, _command: Message, operation: Operation) -> dict[str, Any]:
    """Give the lock back; where that fails, the end of the connection does it.

    One that went with a lost connection, or with a worker before this one, has left its name there.
    """
    operation.begin(Phase.CLEAN, quiet=True)
    held, session.lock = session.lock, None
    if held is not None or session.connected:
        with contextlib.suppress(HostError):
            session.run(operation, "unlock", {"HELD": "1" if held and held.held else ""})
    if held is not None:
        held.close()
    return {}


def owner(session: Session, _command: Message, operation: Operation) -> dict[str, Any]:
    operation.begin(Phase.PROBE, quiet=True)
    return {"held": session.run(operation, "owner").one("held")}


def _simple(name: str, phase: Phase, *, quiet: bool = False, says_ok: bool = True) -> Step:
    """Return a step that runs one script and hands back what `current` reads afterwards."""

    def step(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
        operation.begin(phase, quiet=quiet)
        answer = session.run(operation, name, command.get("values"))
        live = answer.one("live")
        if says_ok and not quiet:
            operation.ok(live=live_release(live))
        return {
            "live": live,
            "reverted": answer.one("reverted") is not None,
            "unsynced": answer.one("unsynced"),
        }

    return step


def _or_mended_by(hint: str, step: Step) -> Step:
    """Say what mends a release that is not what it was."""

    def advise(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
        try:
            return step(session, command, operation)
        except HostError as error:
            if error.code is not Code.DIGEST or error.hint:
                raise
            raise HostError(error.code, error.message, hint=hint, data=error.data) from error

    return advise


def _insisting(step: Step) -> Step:
    """The way back: once more on a new connection where the first is lost on the way, since nobody else will."""

    def insist(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
        began_at = time.monotonic()
        try:
            return step(session, command, operation)
        except HostError as error:
            left_s = operation.timeout_s - (time.monotonic() - began_at)
            if error.code not in {Code.LOST, Code.TIMED_OUT} or left_s <= 0:
                raise
            operation.timeout_s = left_s
            try:
                return step(session, command, operation)
            except HostError as again:
                said = f"{error.message}; and then: {again.message}"
                raise HostError(error.code, said, hint=again.hint, data=again.data) from again

    return insist


def _or_untold(step: Step) -> Step:
    """Say of a switch that failed before the host was told of it that nothing was switched there."""

    def told(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
        try:
            return step(session, command, operation)
        except HostError as error:
            if operation.reached:
                raise
            said = f"{error.message}; nothing was switched there"
            raise HostError(error.code, said, hint=error.hint, data=error.data) from error

    return told


STEPS: dict[str, Step] = {
    "connect": connect,
    "early": early,
    "stage": stage_release,
    "inspect": inspect,
    "manifest": manifest,
    "lock": lock,
    "unlock": unlock,
    "owner": owner,
    "break_lock": _simple("break_lock", Phase.CLEAN, quiet=True),
    "hook": hook,
    "settle": _simple("settle", Phase.STAGE, quiet=True),
    "check": check,
    "ready": _or_mended_by(
        "push the same tree again: hosts where it was altered get a fresh copy", _simple("ready", Phase.STAGE)
    ),
    "activate": _or_untold(_simple("activate", Phase.ACTIVATE)),
    "revert": _insisting(_simple("revert", Phase.REVERT, says_ok=False)),  # the parent says `reverted`
    "confirm": _simple("confirm", Phase.CLEAN),
    "clean": _simple("clean", Phase.CLEAN, quiet=True),
    "standing": standing,
    "verify": verify,
    "whole": whole,
    "survey": survey,
    "prune": prune,
    "examine": examine,
    "run": run_command,
    "copy_send": copy_send,
    "copy_switch": _or_untold(copy_switch),
    "copy_back": _insisting(copy_back),
}
