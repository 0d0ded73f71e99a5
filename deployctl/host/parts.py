"""An artifact in parts on its way to one host: each is uploaded, proven there, and unpacked while the next one travels.

    lanes: scp of part 3 to incoming/RUN/ ──▶ "part 3 SIZE SHA FILE" ──▶ do_receive (parts.sh) ──▶ zstd ──▶ tar
    here:  what is where, and why not     ◀── have 1, proven 1, fed 1 …

Owns which part is where, and going on after a lost connection. What was proven stays on the host, whatever becomes of
this run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from deployctl.errors import Code, HostError
from deployctl.host.connection import Connection
from deployctl.host.failures import TIMEOUT_HINT
from deployctl.host.growth import Growth
from deployctl.host.lanes import Lanes
from deployctl.host.layout import attempt_path, list_of_parts
from deployctl.host.operation import Operation
from deployctl.host.receiver import Receiver
from deployctl.host.session import Session
from deployctl.host.shell import LOOK_S, Cancel
from deployctl.host.upload import upload

CHANNELS = 4
NARROW_BYTES_S = 1 << 20
ALIVE_S = 1.0
AWAY = frozenset({Code.UNREACHABLE, Code.TIMED_OUT, Code.JUMP, Code.LOST})  # not there, rather than refused


def read_parts(artifact: Path) -> list[tuple[int, str]]:
    """Return size in bytes and digest of each."""
    lines = list_of_parts(artifact).read_text("ascii").splitlines()
    return [(int(size), sha256) for size, sha256 in map(str.split, lines)]


class Delivery:
    """The parts of one artifact for one host: `perform`, then `finish`; `stop` when anything else comes between."""

    def __init__(
        self,
        session: Session,
        operation: Operation,
        values: Mapping[str, str],
        artifact: Path,
        growth: Growth,
        *,
        early: bool = False,
    ) -> None:
        self._session = session
        self._operation = operation
        self._values = values
        self._artifact = artifact
        self._growth = growth
        self._parts, self._whole = growth.look()
        self._proven: set[int] = set()
        self._receiver: Receiver | None = None
        self._lanes: Lanes | None = None
        self._alone = False  # the server has no room for the receiver beside an upload
        self._counting = threading.Lock()
        self._alive_at = 0.0
        self._attempts = 0
        self._left_bytes = 0
        self.sent_bytes = 0
        self.early = early  # the artifact has no name yet
        self.began_at = time.monotonic()

    def go_on(self, operation: Operation) -> None:
        """Be part of another command from here on."""
        self._operation = operation
        self._move(0)

    def perform(self) -> None:
        """Bring all parts to the host and have them proven; a connection that is lost meanwhile is opened again.

        HostError, Cancelled.
        """
        tries = max(1, self._session.site.targets[self._session.host].retries)
        while True:
            connection = self._session.hold(self._operation)
            try:
                with self._session.under_lock(self._operation):
                    self._deliver(connection)
                return
            except HostError as error:
                if error.code is not Code.LOST or not tries or not connection.ended():
                    raise
                tries -= 1
                self.stop()
                self._open_again(error)

    def _open_again(self, error: HostError) -> None:
        try:
            self._session.hold(self._operation)
        except HostError as again:
            if again.code not in AWAY:
                raise
            said = f"{error.message}; and then: {again.message}"
            raise HostError(error.code, said, hint=again.hint, data=error.data) from again

    def finish(self) -> bool:
        """Wait until all of it is unpacked; return False where that is still to be done. HostError, Cancelled."""
        receiver, timeout_s = self._receiver, self._operation.timeout_s
        if receiver is None:
            return False
        deadline = time.monotonic() + timeout_s
        try:
            with self._session.under_lock(self._operation):
                receiver.tell("end")
                while not receiver.over:
                    self._operation.cancel.check()
                    if time.monotonic() > deadline:
                        said = f"unpacking on the host took more than {timeout_s:g} s and was stopped"
                        raise HostError(Code.TIMED_OUT, said, hint=TIMEOUT_HINT)
                    receiver.hear()
                self._operation.cancel.check()
                if not receiver.done:
                    raise receiver.failure("before its end")
        finally:
            self.stop()
        return True

    def stop(self) -> None:
        """End what goes on here and there."""
        lanes, self._lanes = self._lanes, None
        receiver, self._receiver = self._receiver, None
        if lanes is not None:
            lanes.close()
        if receiver is not None:
            receiver.close()

    # ---- one connection

    def _deliver(self, connection: Connection) -> None:
        if not self._alone:
            try:
                self._deliver_and_unpack(connection)
            except HostError as error:
                if "channel" not in error.data:
                    raise
                self._alone = True
                self.stop()
        if self._alone:
            self._deliver_alone(connection)

    def _deliver_and_unpack(self, connection: Connection) -> None:
        receiver = self._receiver = Receiver.start(self._session, self._operation, self._values)
        self._proven.clear()
        self._left_bytes = 0
        self._look()
        have = receiver.have & self._parts.keys()
        missing = sorted(self._parts.keys() - have)
        self._count(missing)
        for number in sorted(have):
            receiver.tell(self._line(number))

        def send(number: int, stop: Cancel) -> None:
            name = self._send(connection, number, stop)
            receiver.tell(f"{self._line(number)} {name}")

        lanes = self._lanes = Lanes(send, missing, self._channels(connection), self._operation.cancel)
        self._await_proofs(receiver, lanes, have)
        lanes.close()

    def _channels(self, connection: Connection) -> int:
        """How many are worth it: one carries no more than its window in a round trip, and far more than a narrow limit."""
        limit_bytes_s = self._session.throttle.bytes_s
        narrow = limit_bytes_s is not None and limit_bytes_s < NARROW_BYTES_S
        return CHANNELS if connection.is_far and not narrow else 1

    def _await_proofs(self, receiver: Receiver, lanes: Lanes, unsure: set[int]) -> None:
        """Hear what the host says until all is proven; of the `unsure` it says whether it has them."""
        heard_at = time.monotonic()
        while not self._complete:
            self._operation.cancel.check()
            words = receiver.hear()
            self._proven |= {number for word, number in words if word == "proven"}
            missing = [number for word, number in words if word == "missing"]
            unsure -= {*self._proven, *missing}
            wanted = [*missing, *self._look()]
            self._count(wanted)
            for number in wanted:
                lanes.want(number)
            if words or lanes.moving or self._waiting():
                heard_at = time.monotonic()
            lanes.check()
            if lanes.crowded and not unsure:
                raise lanes.crowded
            if receiver.over:
                self._operation.cancel.check()
                raise receiver.failure("before all parts had arrived")
            if time.monotonic() - heard_at > self._operation.timeout_s:
                said = f"the host proved no part for {self._operation.timeout_s:g} s"
                raise HostError(Code.TIMED_OUT, said, hint=TIMEOUT_HINT)

    def _deliver_alone(self, connection: Connection) -> None:
        """One part after the other, each proven before the next is sent; unpacked later."""
        self._left_bytes = 0
        self._count(self._parts.keys() - self._proven)
        while True:
            self._count(self._look())
            if self._complete:
                return
            if self._waiting():
                self._operation.cancel.event.wait(LOOK_S)
                self._operation.cancel.check()
                continue
            number = min(self._parts.keys() - self._proven)
            part = self._parts[number]
            name = self._send(connection, number, self._operation.cancel)
            told = {"N": str(number), "SIZE": str(part.size_bytes), "SHA": part.sha256, "FILE": name}
            self._session.run(self._operation, "prove", {**self._values, **told})
            self._proven.add(number)

    # ---- what is to be sent

    @property
    def _complete(self) -> bool:
        return self._whole and len(self._proven) == len(self._parts)

    def _look(self) -> list[int]:
        """Take in what was packed meanwhile, and return its numbers."""
        known = self._parts.keys()
        self._parts, self._whole = self._growth.look()
        return sorted(self._parts.keys() - known)

    def _waiting(self) -> bool:
        """Whether all that there is was proven, and the packer is not done; the parent hears that we live."""
        waits = not self._whole and len(self._proven) == len(self._parts)
        if waits and time.monotonic() - self._alive_at > ALIVE_S:
            self._alive_at = time.monotonic()
            self._move(0)
        return waits

    def _line(self, number: int) -> str:
        part = self._parts[number]
        return f"part {number} {part.size_bytes} {part.sha256}"

    # ---- one part

    def _send(self, connection: Connection, number: int, cancel: Cancel) -> str:
        """Upload a part under a name that no other attempt has, since an old writer may still be there; return the name."""
        part = self._parts[number]
        with self._counting:
            self._attempts += 1
            name = f"part-{number}-{self._attempts}"
        moved_bytes = 0

        def progress(done_bytes: int) -> None:
            nonlocal moved_bytes
            self._move(done_bytes - moved_bytes)
            moved_bytes = done_bytes

        try:
            upload(
                connection,
                self._artifact,
                attempt_path(self._session.root, self._session.site.run, name),
                stall_s=self._operation.timeout_s,
                cancel=cancel,
                progress=progress,
                throttle=self._session.throttle,
                start_bytes=part.start_bytes,
                size_bytes=part.size_bytes,
            )
        except BaseException:
            with self._counting:
                self._left_bytes += moved_bytes
            raise
        return name

    def _count(self, numbers: Collection[int]) -> None:
        """These are to be sent as well."""
        if not numbers and self.sent_bytes:
            return
        size_bytes = sum(self._parts[number].size_bytes for number in numbers)
        with self._counting:
            self._left_bytes += size_bytes
        self._move(0)

    def _move(self, size_bytes: int) -> None:
        with self._counting:
            self.sent_bytes += size_bytes
            self._left_bytes -= size_bytes
            done_bytes, total_bytes = self.sent_bytes, self.sent_bytes + self._left_bytes
        self._operation.bytes(done_bytes, total_bytes)
