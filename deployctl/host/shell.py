"""Runs scripts on a host over an open connection: framed answers, both streams drained, every wait bounded."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from deployctl.errors import Code, HostError
from deployctl.host.failures import TIMEOUT_HINT
from deployctl.host.script import COMMAND, Answer, Script, functions_of, printable

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
        self._over = False
        self.event = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            if self._over:
                return
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

    def over(self) -> bool:
        """From here on a cancel does nothing; False if one came already, and may be about to close what was registered."""
        with self._lock:
            self._over = True
            self._actions.clear()
            return not self.event.is_set()

    def forget(self, action: Callable[[], None]) -> None:
        """What was registered need not be done any more."""
        with self._lock, contextlib.suppress(ValueError):
            self._actions.remove(action)

    def check(self) -> None:
        if self.event.is_set():
            raise Cancelled


class Shell:
    """A `sh -s` on the host that can carry out one script after the other; `close` from any thread ends it.

    Opening a channel and starting a shell on it costs two round trips and four processes there; a shell that is kept
    costs one round trip a script.
    """

    def __init__(self, connection: Connection, channel: paramiko.Channel) -> None:
        self.connection = connection
        self._channel = channel
        self._known: set[str] = set()  # parts it was sent

    @classmethod
    def start(cls, connection: Connection, timeout_s: float) -> Shell:
        """Start one. HostError, or what paramiko raises."""
        channel = connection.open_session(timeout_s)
        try:
            channel.settimeout(timeout_s)
            channel.exec_command(COMMAND)
        except BaseException:
            channel.close()
            raise
        return cls(connection, channel)

    @property
    def usable(self) -> bool:
        return self.connection.alive and not self._channel.closed and not self._channel.exit_status_ready()

    def close(self) -> None:
        with contextlib.suppress(OSError, EOFError):  # as it raises on a connection that has just been lost
            self._channel.close()

    def tell(self, line: str, deadline: float) -> None:
        """Write a line to the standard input of a script that goes on; one thread may tell while another listens."""
        data = line.encode() + b"\n"
        while data:
            try:
                data = data[self._channel.send(data) :]
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    def listen(self, answer: Answer) -> bool:
        """Take in what a script that goes on says, for a moment; False when nothing more can come."""
        channel = self._channel
        while channel.recv_stderr_ready():
            answer.add_noise_bytes(channel.recv_stderr(RECEIVE_BYTES))
        channel.settimeout(LOOK_S)
        try:
            data = channel.recv(RECEIVE_BYTES)
        except TimeoutError:
            return True
        answer.feed(data)
        return bool(data)

    def converse(
        self,
        script: Script,
        deadline: float,
        cancel: Cancel,
        tap: Callable[[str, bytes], None] | None = None,
        until: str = "exit",
    ) -> Answer:
        """Have `script` carried out; the answer has no status when the shell ended, or the deadline came, before it.

        `until` names the word to wait for, in place of the end, in a script that goes on.
        """
        channel = self._channel
        answer = Answer(script.nonce, tap=partial(tap, "stdout") if tap else None)
        errors = Answer.of_errors(script.nonce, partial(tap, "stderr") if tap else answer.add_noise_bytes)
        while channel.recv_stderr_ready():  # late words of the script before
            channel.recv_stderr(RECEIVE_BYTES)
        channel.settimeout(max(0.1, deadline - time.monotonic()))
        new = [part for part in script.parts if part not in self._known]
        channel.sendall((functions_of(new) + script.body).encode("utf-8", "surrogateescape"))
        self._known.update(new)
        channel.settimeout(LOOK_S)
        while answer.status is None and answer.one(until) is None and time.monotonic() < deadline:
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


def run_script(
    connection: Connection,
    script: Script,
    *,
    timeout_s: float,
    cancel: Cancel | None = None,
    tap: Callable[[str, bytes], None] | None = None,
    kept: Shell | None = None,
    keep: Callable[[Shell], None] = Shell.close,
) -> Answer:
    """Run `script` and return its answer; HostError when it failed, timed out or the host was lost.

    `tap` is given what a hook prints, as it comes: the stream's name and bytes. `kept` is a shell to use in place of a new
    one, `keep` takes the shell when it can be used again.

    Closing the channel ends the command on the host, with its children: remote.sh watches its standard input.
    """
    cancel = cancel or Cancel()
    deadline = time.monotonic() + timeout_s
    answer = Answer(script.nonce)
    shell = kept
    try:
        if shell is not None:
            cancel.on_cancel(shell.close)
            with contextlib.suppress(OSError):  # it may have ended since it was last used
                answer = shell.converse(script, deadline, cancel, tap)
            cancel.check()
        if not answer.fields and answer.status is None and time.monotonic() < deadline:
            # Nothing has begun there: that shell was gone already.
            if shell is not None:
                shell.close()
            shell = Shell.start(connection, max(0.1, deadline - time.monotonic()))
            cancel.on_cancel(shell.close)
            answer = shell.converse(script, deadline, cancel, tap)
    except (HostError, Cancelled):
        _close(shell)
        raise
    except Exception as error:
        _close(shell)
        cancel.check()
        if isinstance(error, TimeoutError) and connection.alive:
            said = f"no answer to the remote command within {round(timeout_s, 1):g} s"
            raise HostError(Code.TIMED_OUT, said, hint=TIMEOUT_HINT) from error
        raise connection.why(error) from error
    except BaseException:
        _close(shell)
        raise
    if answer.status is None or answer.one("done") is None:
        _close(shell)
        cancel.check()
        raise _ended_early(connection, script, answer, deadline, timeout_s)
    if shell is not None:
        (keep if shell.usable else Shell.close)(shell)
    answer.raise_failure()
    return answer


def _close(shell: Shell | None) -> None:
    if shell is not None:
        shell.close()


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
    if connection.ended():
        return connection.why()
    said = printable(answer.noise.strip()[-300:])
    if time.monotonic() >= deadline:
        return HostError(
            Code.TIMED_OUT,
            f"the remote command was silent or busy for {round(timeout_s, 1):g} s and was stopped",
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
