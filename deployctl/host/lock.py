"""The lock of one run on one host: a command that runs there for as long as the run has its connection.

When the connection is lost, or we are killed, sshd ends the command and the kernel frees the lock: nobody has to.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployctl.errors import Code, HostError
from deployctl.host.failures import TIMEOUT_HINT
from deployctl.host.script import COMMAND, Answer, Script, printable
from deployctl.host.shell import LOOK_S, RECEIVE_BYTES, Cancel

if TYPE_CHECKING:
    import paramiko

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

    channel: paramiko.Channel
    connection: Connection
    answer: Answer

    @property
    def held(self) -> bool:
        return self.connection.alive and not self.channel.closed and not self.channel.exit_status_ready()

    def close(self) -> None:
        self.channel.close()


def take_lock(connection: Connection, script: Script, *, timeout_s: float, cancel: Cancel) -> Lock | Answer:
    """Take the lock and return it, or the answer of the host when another run holds it. HostError, Cancelled."""
    deadline = time.monotonic() + timeout_s + LEASE_S
    channel = connection.open_session(timeout_s)
    answer = Answer(script.nonce)
    try:
        cancel.on_cancel(channel.close)
        channel.settimeout(timeout_s)
        channel.exec_command(COMMAND)
        channel.sendall(script.text.encode("utf-8", "surrogateescape"))
        channel.settimeout(LOOK_S)
        ended = False
        while answer.status is None and answer.one("locked") is None and not ended:
            cancel.check()
            if time.monotonic() > deadline:
                break
            with contextlib.suppress(TimeoutError):
                data = channel.recv(RECEIVE_BYTES)
                answer.feed(data)
                ended = not data
        cancel.check()
    except Exception as error:
        channel.close()
        cancel.check()
        raise connection.why(error) from error
    if answer.one("locked"):
        return Lock(channel, connection, answer)
    channel.close()
    if answer.one("held") is None:
        if answer.status is None and answer.one("fail") is None:
            said = f"the lock was not answered for within {timeout_s:g} s"
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


def owner_of(line: str) -> dict[str, Any]:
    """Return what a line of lock.owner says of the holder; empty when it can't be read."""
    try:
        owner = json.loads(line.split(" ", 2)[2])
    except (IndexError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def owner_text(line: str) -> str:
    """Return who holds a lock, for people."""
    owner = {key: printable(str(value)) for key, value in owner_of(line).items() if value is not None}
    if not owner:
        return "somebody whose name could not be read"
    said = f"{owner.get('user', '?')} on {owner.get('machine', '?')}, process {owner.get('pid', '?')}"
    said += f", run {owner.get('run', '?')}, since {owner.get('since', '?')}"
    return said + (f", job {owner['ci']}" if owner.get("ci") else "")
