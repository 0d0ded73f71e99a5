"""An artifact in parts on its way to one host: each is uploaded, proven there, and unpacked while the next one travels.

    lanes: scp of part 3 to incoming/RUN/ ──▶ "part 3 SIZE SHA FILE" ──▶ do_receive (parts.sh) ──▶ zstd ──▶ tar
    here:  what is where, and why not     ◀── have 1, proven 1, fed 1 …

A file that travels as it is goes to a near host in one go, beside its other parts, and its slices are proven while it grows there.

Owns which part is where, and going on after a lost connection. What was proven stays on the host, whatever becomes of
this run.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from deployctl.errors import Code, HostError
from deployctl.host.connection import Connection
from deployctl.host.failures import TIMEOUT_HINT
from deployctl.host.growth import Bare, Growth
from deployctl.host.lanes import Lanes
from deployctl.host.layout import attempt_path, growing_name, growing_path, list_of_parts, numbers_of
from deployctl.host.operation import Operation
from deployctl.host.receiver import Receiver
from deployctl.host.sending import Sending
from deployctl.host.session import Session
from deployctl.host.shell import LOOK_S, Cancel

CHANNELS = 4
# What a host may have taken and not written yet: the window of a channel, a pipe, what scp holds. Where it is more, a slice is proven later.
BEHIND_BYTES = 4 << 20
NARROW_BYTES_S = 1 << 20
ALIVE_S = 1.0
AWAY = frozenset({Code.UNREACHABLE, Code.TIMED_OUT, Code.JUMP, Code.LOST})  # not there, rather than refused


def read_parts(artifact: Path) -> list[tuple[int, str, int]]:
    """Return size in bytes and digest of each, and of the first slice of a file the size of that in bytes, else 0."""
    lines = list_of_parts(artifact).read_text("ascii").splitlines()
    return [(int(size), sha256, int(bare)) for size, sha256, bare in map(str.split, lines)]


class Delivery:
    """The parts of one artifact for one host: `perform`, then `finish`; `stop` when anything else comes between."""

    def __init__(
        self,
        session: Session,
        operation: Operation,
        values: Mapping[str, str],
        artifact: Path,
        growth: Growth,
    ) -> None:
        self._session = session
        self._operation = operation
        self._sending = Sending(session, operation, artifact, growth)
        self._values = dict(values)  # for what begins to receive
        self._directory = ""  # of the parts, in incoming/, where they are now
        self._growth = growth
        self._parts, self._whole = growth.look()
        self._proven: set[int] = set()
        self._taken: set[int] = set()  # there, or wanted
        self._receiver: Receiver | None = None
        self._lanes: Lanes | None = None
        self._alone = False  # the server has no room for the receiver beside an upload
        self._naming = threading.Lock()
        self._alive_at = 0.0
        self.began_at = time.monotonic()

    @property
    def sent_bytes(self) -> int:
        return self._sending.sent_bytes

    def go_on(self, operation: Operation) -> None:
        """Be part of another command from here on."""
        self._operation = operation
        self._sending.go_on(operation)

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
        self._directory = self._values["ARTIFACT"]
        self._proven.clear()
        self._sending.left_bytes = 0
        self._look()
        have = self._claim(receiver)
        self._taken = set(have)
        channels = self._channels(connection)
        wanted = self._want(self._parts.keys() - have, apart=channels > 1)

        def send(numbers: range, stop: Cancel) -> None:
            self._name(receiver)
            if len(numbers) > 1:
                self._send_growing(connection, receiver, numbers, stop)
            else:
                number = numbers[0]
                name = self._send(connection, number, stop)
                receiver.tell(f"{self._line(number)} {name} {self._kept_as(number)}")

        lanes = self._lanes = Lanes(send, wanted, channels, self._operation.cancel)
        self._await_proofs(receiver, lanes, have, apart=channels > 1)
        self._name(receiver)
        lanes.close()

    def _name(self, receiver: Receiver) -> None:
        """Tell what these are parts of once that is known: from then on they outlive this run.

        Not while scp is about to open a file beside them, since their directory moves: it has when the host says so.
        """
        with self._naming:
            name = self._growth.name or self._values["ARTIFACT"]
            known = name == self._values["ARTIFACT"]
            self._values["ARTIFACT"] = name
        if not known:
            receiver.tell(f"named {name}")

    def _claim(self, receiver: Receiver) -> set[int]:
        """Return what the host has kept, all of which it is told to look at again."""
        claimed: set[int] = set()
        for name in receiver.have:
            numbers = numbers_of(name)
            sound = numbers and claimed.isdisjoint(numbers) and self._parts.keys() >= set(numbers)
            bare = self._parts[numbers[0]].bare if sound else None
            if sound and ("-" in name) == bool(bare) and (not bare or numbers[-1] in bare.numbers):
                for number in numbers:
                    line = self._slice_line(bare, number, numbers, name) if bare else self._line(number)
                    receiver.tell(line)
                claimed.update(numbers)
            elif re.fullmatch("[0-9]+(-[0-9]+)?", name):  # of another cut; what else lies there stays
                receiver.tell(f"drop {name}")
        return claimed

    def _want(self, numbers: Iterable[int], *, apart: bool) -> list[range]:
        """Take these, and return what is to be sent together: the slices of one file from its first on, unless they go `apart`.

        Later ones are put behind what is there one by one, so that this takes room for no more than one of them.
        """
        wanted: list[range] = []
        for number in sorted(numbers):
            if number in self._taken:
                continue
            last = number
            bare = self._parts[number].bare
            if bare and number == bare.numbers[0] and not apart:
                while last + 1 in bare.numbers and last + 1 not in self._taken:
                    last += 1
            wanted.append(range(number, last + 1))
            self._taken.update(wanted[-1])
        self._count(wanted)
        return wanted

    def _channels(self, connection: Connection) -> int:
        """How many are worth it: one carries no more than its window in a round trip, and far more than a narrow limit."""
        limit_bytes_s = self._session.throttle.bytes_s
        narrow = limit_bytes_s is not None and limit_bytes_s < NARROW_BYTES_S
        return CHANNELS if connection.is_far and not narrow else 1

    def _await_proofs(self, receiver: Receiver, lanes: Lanes, unsure: set[int], *, apart: bool) -> None:
        """Hear what the host says until all is proven; of the `unsure` it says whether it has them."""
        heard_at = time.monotonic()
        while not self._complete:
            self._operation.cancel.check()
            words = receiver.hear()
            self._proven |= {number for word, number in words if word == "proven"}
            missing = [number for word, number in words if word == "missing"]
            if any(word == "named" for word, _ in words):
                self._directory = self._values["ARTIFACT"]
            unsure -= {*self._proven, *missing}
            self._taken.difference_update(missing)
            for numbers in self._want([*missing, *self._look()], apart=apart):
                lanes.want(numbers)
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
        self._sending.left_bytes = 0
        self._taken = set(self._proven)
        self._want(self._parts.keys() - self._proven, apart=True)
        while True:
            self._want(self._look(), apart=True)
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
            told["AS"] = self._kept_as(number)
            self._values["ARTIFACT"] = self._growth.name or self._values["ARTIFACT"]
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
            self._sending.move(0)
        return waits

    def _line(self, number: int) -> str:
        part = self._parts[number]
        return f"part {number} {part.size_bytes} {part.sha256}"

    def _kept_as(self, number: int) -> str:
        return f"{number}-{number}" if self._parts[number].bare else ""

    def _slice_line(self, bare: Bare, number: int, numbers: range, name: str) -> str:
        """Say where one of the slices `numbers` is in the file that holds them."""
        start_bytes, held_bytes = bare.span(numbers)
        begin_bytes, size_bytes = bare.span(range(number, number + 1))
        before_mib, mib = (begin_bytes - start_bytes) >> 20, -(-size_bytes >> 20)
        sha256 = self._growth.look()[0][number].sha256
        return f"slice {number} {held_bytes} {sha256} {name} {before_mib} {mib} {numbers[0]} {numbers[-1]}"

    def _span(self, numbers: range) -> tuple[int, int]:
        """Return where these begin in the artifact and how long they are; of slices, not all need to be packed yet."""
        part = self._parts[numbers[0]]
        return part.bare.span(numbers) if part.bare else (part.start_bytes, part.size_bytes)

    # ---- one part

    def _send(self, connection: Connection, number: int, cancel: Cancel) -> str:
        """Upload a part under a name that no other attempt has, since an old writer may still be there; return the name."""
        name = f"part-{number}-{self._sending.attempt()}"
        path = attempt_path(self._session.root, self._session.site.run, name)
        self._sending.upload(connection, self._span(range(number, number + 1)), path, cancel)
        return name

    def _send_growing(
        self, connection: Connection, receiver: Receiver, numbers: range, cancel: Cancel
    ) -> None:
        """Upload slices of a file as one, and have each proven as soon as it is there."""
        bare = self._parts[numbers[0]].bare
        assert bare is not None  # nothing else is sent together  # noqa: S101
        name = growing_name(numbers[0], bare.slice_bytes, self._session.site.run, self._sending.attempt())
        while self._directory != self._values["ARTIFACT"]:
            cancel.event.wait(LOOK_S)
            cancel.check()
        path = growing_path(self._session.root, self._directory, name)
        told = 0

        def tell(sent_bytes: int) -> None:
            nonlocal told
            self._name(receiver)  # scp has opened the file by now
            while told < len(numbers):
                there_bytes = bare.span(numbers[: told + 1])[1] + BEHIND_BYTES
                if sent_bytes < there_bytes or numbers[told] not in self._growth.look()[0]:
                    break
                receiver.tell(self._slice_line(bare, numbers[told], numbers, name))
                told += 1

        self._sending.upload(connection, bare.span(numbers), path, cancel, tell)
        while numbers[-1] not in self._growth.look()[0]:  # what is read may not have been announced yet
            cancel.event.wait(LOOK_S)
            cancel.check()
        for number in numbers:
            receiver.tell(f"{self._slice_line(bare, number, numbers, name)} sure")

    def _count(self, pieces: Collection[range]) -> None:
        """These are to be sent as well."""
        self._sending.expect(sum(self._span(numbers)[1] for numbers in pieces))
