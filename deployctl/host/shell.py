"""Runs one script on a host over an open connection: framed answer, both streams drained, every wait bounded."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from deployctl.errors import Code, HostError
from deployctl.host.failures import TIMEOUT_HINT
from deployctl.host.script import COMMAND, Answer, Script, printable

if TYPE_CHECKING:
    import paramiko

    from deployctl.host.connection import Connection

LOOK_S = 0.2  # how often a silent command looks for a cancel and its deadline
RECEIVE_BYTES = 1 << 16
ERRORS_S = 2.0  # standard error may come this much later than the end that standard output tells of


class Cancelled(Exception):  # noqa: N818 - nothing went wrong
    """The operation was stopped by us."""


class Cancel:
    """Stops one operation from another thread: the flag first, then whatever the operation registered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: list[Callable[[], None]] = []
        self.event = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self.event.set()
            actions, self._actions = self._actions, []
        for action in actions:
            with contextlib.suppress(Exception):  # a channel that is closed already is what we want
                action()

    def on_cancel(self, action: Callable[[], None]) -> None:
        with self._lock:
            if not self.event.is_set():
                self._actions.append(action)
                return
        action()

    def check(self) -> None:
        if self.event.is_set():
            raise Cancelled


def run_script(
    connection: Connection,
    script: Script,
    *,
    timeout_s: float,
    cancel: Cancel | None = None,
    tap: Callable[[str, bytes], None] | None = None,
) -> Answer:
    """Run `script` and return its answer; HostError when it failed, timed out or the host was lost.

    `tap` is given what a hook prints, as it comes: the stream's name and bytes.

    Closing the channel ends the command on the host, with its children: remote.sh watches its standard input.
    """
    cancel = cancel or Cancel()
    deadline = time.monotonic() + timeout_s
    channel = connection.open_session(timeout_s)
    try:
        cancel.on_cancel(channel.close)
        answer = _converse(channel, script, deadline, cancel, tap)
    except (HostError, Cancelled):
        raise
    except Exception as error:
        cancel.check()
        if isinstance(error, TimeoutError) and connection.alive:
            said = f"no answer to the remote command within {timeout_s:g} s"
            raise HostError(Code.TIMED_OUT, said, hint=TIMEOUT_HINT) from error
        raise connection.why(error) from error
    finally:
        channel.close()
    if answer.status is None:
        cancel.check()
        raise _ended_early(connection, script, answer, deadline, timeout_s)
    answer.raise_failure()
    return answer


def _converse(
    channel: paramiko.Channel,
    script: Script,
    deadline: float,
    cancel: Cancel,
    tap: Callable[[str, bytes], None] | None,
) -> Answer:
    answer = Answer(script.nonce, tap=partial(tap, "stdout") if tap else None)
    errors = Answer.of_errors(script.nonce, partial(tap, "stderr") if tap else answer.add_noise_bytes)
    channel.settimeout(max(0.1, deadline - time.monotonic()))
    channel.exec_command(COMMAND)
    channel.sendall(script.text.encode("utf-8", "surrogateescape"))
    channel.settimeout(LOOK_S)
    while answer.status is None and time.monotonic() < deadline:
        cancel.check()
        if not channel.recv_stderr_ready() or channel.recv_ready():
            with contextlib.suppress(TimeoutError):
                data = channel.recv(RECEIVE_BYTES)
                answer.feed(data)
                if not data:
                    break
        if channel.recv_stderr_ready():
            errors.feed(channel.recv_stderr(RECEIVE_BYTES))
    _rest_of_errors(channel, answer, errors)
    return answer


def _rest_of_errors(channel: paramiko.Channel, answer: Answer, errors: Answer) -> None:
    """Take in what was said on standard error before the end: up to our line in it when a hook ran, else what is here."""
    deadline = time.monotonic() + ERRORS_S
    while channel.recv_stderr_ready() or (answer.one("status") and not errors.one("end")):
        if time.monotonic() > deadline:
            break
        with contextlib.suppress(TimeoutError):
            data = channel.recv_stderr(RECEIVE_BYTES)
            errors.feed(data)
            if not data:
                break
    answer.flush()
    errors.flush()


def _ended_early(
    connection: Connection, script: Script, answer: Answer, deadline: float, timeout_s: float
) -> HostError:
    if not connection.alive:
        return connection.why()
    said = printable(answer.noise.strip()[-300:])
    if time.monotonic() >= deadline:
        return HostError(
            Code.TIMED_OUT,
            f"the remote command was silent or busy for {timeout_s:g} s and was stopped",
            hint=TIMEOUT_HINT,
            data={"group": answer.one("group")} if answer.one("group") else {},
        )
    if not answer.fields:
        return HostError(
            Code.TOOL_MISSING,
            "the login shell ran no command" + (f", it said: {said}" if said else ""),
            hint="deployctl needs a login that runs `sh -s`: no forced command, no nologin shell",
        )
    return HostError(
        Code.LOST, f"{script.name} ended on the host without a status" + (f": {said}" if said else "")
    )
