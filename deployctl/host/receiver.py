"""The command on a host that proves and unpacks parts while they arrive: what it is told and what it says."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Self

from paramiko import SSHException

from deployctl.errors import Code, HostError
from deployctl.host.failures import TIMEOUT_HINT
from deployctl.host.operation import Operation
from deployctl.host.script import Answer, number, printable
from deployctl.host.session import Session
from deployctl.host.shell import Cancelled, Shell


class Receiver:
    """`do_receive` of parts.sh in a shell of its own; closing that ends all that belongs to it there."""

    def __init__(self, shell: Shell, answer: Answer, timeout_s: float) -> None:
        self._shell = shell
        self._answer = answer
        self._timeout_s = timeout_s
        self._telling = threading.Lock()
        self._heard = 0
        self._ended = False
        self.have = answer.all("have")  # names in the directory of parts

    @classmethod
    def start(cls, session: Session, operation: Operation, values: Mapping[str, str]) -> Self:
        """Start it and hear what is there. HostError, with `data["channel"]` when the server has no room for it; Cancelled."""
        script = session.script("receive", values)
        session.show(operation, script)
        connection = session.connection(operation.timeout_s)
        deadline = time.monotonic() + operation.timeout_s
        shell = None
        try:
            shell = Shell.start(connection, operation.timeout_s)
            operation.cancel.on_cancel(shell.close)
            answer = shell.converse(script, deadline, operation.cancel, until="ready")
        except Exception as error:
            if shell is not None:
                shell.close()
            operation.cancel.check()
            if isinstance(error, HostError | Cancelled):
                raise
            raise connection.why(error) from error
        session.learn(answer)
        receiver = cls(shell, answer, operation.timeout_s)
        if answer.one("ready") is None:
            receiver.close()
            operation.cancel.check()
            if time.monotonic() >= deadline:
                said = f"the host was not ready for parts within {operation.timeout_s:g} s"
                raise HostError(Code.TIMED_OUT, said, hint=TIMEOUT_HINT)
            raise receiver.failure("before the first part")
        return receiver

    def tell(self, line: str) -> None:
        """From any thread; what can't be told is heard of as its end."""
        with self._telling:
            try:
                self._shell.tell(line, time.monotonic() + self._timeout_s)
            except TimeoutError as error:
                said = f"the host took no word of a part for {self._timeout_s:g} s"
                raise HostError(Code.TIMED_OUT, said, hint=TIMEOUT_HINT) from error
            except (OSError, EOFError, SSHException):
                self._ended = True

    def hear(self) -> Sequence[tuple[str, int]]:
        """Wait a moment for its words about parts, and return what came."""
        if not self._shell.listen(self._answer):
            self._ended = True
        new = self._answer.fields[self._heard :]
        self._heard += len(new)
        words = [(word, n) for word, text in new if (n := number(text)) is not None]
        if any(word == "stopped" for word, _ in words):
            self.tell("end")  # whatever took the parts is gone: why, it says when there are no more of them
        return words

    @property
    def over(self) -> bool:
        return self._ended or self._answer.status is not None

    @property
    def done(self) -> bool:
        """It came to its end and nothing was wrong."""
        return self._answer.status == 0 and self._answer.one("fail") is None

    def failure(self, when: str) -> HostError:
        """What its end amounts to."""
        connection, answer = self._shell.connection, self._answer
        if answer.status is None and answer.one("fail") is None:
            said = printable(answer.noise.strip()[-300:])
            if connection.ended():
                return connection.why()
            said = f"what unpacks on the host ended without a status {when}" + (f": {said}" if said else "")
            return HostError(Code.LOST, said)
        try:
            answer.raise_failure()
        except HostError as error:
            return error
        return HostError(Code.DIGEST, f"tar on the host ended {when}")

    def close(self) -> None:
        self._shell.close()
