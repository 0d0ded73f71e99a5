"""The lock of one run on one host: a command that runs there for as long as the run has its connection.

When the connection is lost, or we are killed, sshd ends the command and the kernel frees the lock: nobody has to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployctl.errors import Code, HostError
from deployctl.host.failures import TIMEOUT_HINT
from deployctl.host.owner import owner_text
from deployctl.host.script import Answer, Script, printable
from deployctl.host.shell import Cancel, Shell

if TYPE_CHECKING:
    from deployctl.host.connection import Connection

BEAT_S = 4
LEASE_S = 20  # without flock: a holder that has not moved for so long is dead


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of life of a lease, and when we saw it on our clock."""

    text: str
    seen_at: float

    def values(self) -> dict[str, str]:
        return {"BEAT_SEEN": self.text, "BEAT_AGE": str(int(time.monotonic() - self.seen_at))}


@dataclass(slots=True)
class Lock:
    """A held lock; `close` gives it back."""

    shell: Shell
    answer: Answer

    @property
    def connection(self) -> Connection:
        return self.shell.connection

    @property
    def held(self) -> bool:
        return self.shell.usable

    def close(self) -> None:
        self.shell.close()


def take_lock(
    connection: Connection, script: Script, *, timeout_s: float, cancel: Cancel, spare: Shell | None = None
) -> Lock | Answer:
    """Take the lock and return it, or the answer of the host when another run holds it. HostError, Cancelled.

    The command that holds it runs in `spare`, if that is given and of this connection.
    """
    deadline = time.monotonic() + timeout_s + LEASE_S
    shell = spare if spare is not None and spare.connection is connection and spare.usable else None
    try:
        shell = shell or Shell.start(connection, timeout_s)
        cancel.on_cancel(shell.close)
        answer = shell.converse(script, deadline, cancel, until="locked")
        cancel.check()
    except Exception as error:
        if shell is not None:
            shell.close()
        cancel.check()
        raise connection.why(error) from error
    if answer.one("locked"):
        return Lock(shell, answer)
    shell.close()
    if answer.one("held") is None:
        if answer.status is None and answer.one("fail") is None:
            if connection.ended():
                raise connection.why()
            if time.monotonic() < deadline:
                noise = printable(answer.noise.strip()[-300:])
                said = "the command that takes the lock ended without a status"
                raise HostError(Code.LOST, said + (f": {noise}" if noise else ""))
            said = f"the lock was not answered for within {timeout_s + LEASE_S:g} s"
            raise HostError(Code.TIMED_OUT, said, hint=TIMEOUT_HINT)
        answer.raise_failure()
    return answer


def named(error: HostError) -> HostError:
    """Return `error`; where it is the host's word that our lock is not ours any more, with the name of who has it now."""
    line = error.data.get("taken_by")
    if line is None:
        return error
    taken = line.strip() != "nobody"
    how = f"taken by another run: {owner_text(line)}" if taken else "taken away, as `deployctl unlock` does"
    hint = "`deployctl status` tells what is live; once nobody else releases here, start this again"
    return HostError(Code.LOCKED, f"the lock of this run was {how}", hint=hint)
