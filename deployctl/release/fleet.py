"""The hosts of a run and the workers that hold them: hand out, hear, stop at the first failure.

Owns which worker holds which host, the abort and its deadline, and the death of workers; refuses to know why a command
is given. A host stays with the worker that connected to it as long as that lives.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from deployctl.engine.child import Message
from deployctl.engine.crew import Arrival
from deployctl.engine.worker import ForkError
from deployctl.errors import Code
from deployctl.model import Phase, State
from deployctl.release.loop import TURN_S, Loop
from deployctl.release.member import Member
from deployctl.release.uplink import Uplink

CONNECTING_PER_HOP = 8  # unauthenticated connections at one address: sshd's MaxStartups begins to drop at 10
CONNECT_GRACE_S = 1.0  # on an abort a probe under way may end, so that one knows what is live
CANCEL_S = 2.0  # a worker whose cancelled command has not ended by then is killed
OVERTIME_S = 15.0  # beyond a command's own limit, before its worker is taken for hung
MINOR_OVERTIME_S = 2.0  # the same for small things, from the last word of that worker about any of its hosts
LOOK_AHEAD = 64  # hosts looked at for one whose first hop has room

Arguments = Callable[[Member], Mapping[str, Any]]


class Fleet:
    """The members of one run and what they are doing."""

    def __init__(self, loop: Loop, members: Iterable[Member], *, forks: int, timeout_s: float) -> None:
        self._loop = loop
        self._forks = forks
        self._timeout_s = timeout_s
        self._replacements = 0
        self._connecting: Counter[str] = Counter()
        self._stop_seen_at: float | None = None
        self._cancelled_at: float | None = None
        self._heard_at: dict[int, float] = {}  # the last word of each worker about a host
        self._others: list[Callable[[Arrival], bool]] = []
        self.members = {member.name: member for member in members}
        self.uplink = Uplink(loop.crew, None)
        self.tolerated = 0
        self.intolerable = frozenset({Code.HOST_KEY, Code.LOCKED})
        self.speaks_as: str | None = (
            None  # a command that reads: one line a host under its name, no failure stops it
        )
        self._stopping = False
        self._minor = False  # what is under way changes no host's end

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def stop(self) -> None:
        """Hand out nothing more; what runs is cancelled."""
        self._stopping = True

    def stopping(self) -> bool:
        return self._stopping

    def listen(self, hear: Callable[[Arrival], bool]) -> None:
        """Have arrivals of workers that are not ours handled by `hear`; it returns whether it knew the worker."""
        self._others.append(hear)

    def _hear_other(self, arrival: Arrival) -> bool:
        return any(hear(arrival) for hear in self._others)

    def hire(self) -> None:
        """Fork the workers; OSError when not even one can be."""
        self._loop.crew.hire_up_to(min(self._forks, len(self.members)))

    # ---- one command to many hosts

    def each(
        self,
        do: str,
        members: Iterable[Member],
        arguments: Arguments = lambda _member: {},
        *,
        together: bool = False,
        stoppable: bool = True,
        timeout_s: float | None = None,
        minor: bool = False,
    ) -> None:
        """Give command `do` to every member and wait until each has ended it or the run stops.

        One host at a time for each worker, or all `together`. What a member answered is in `member.answer`; one that
        failed is FAILED. When the run is stopping, nothing more is handed out and what runs is cancelled, unless the
        command is not `stoppable`, as the way back is not. A failure of a `minor` one changes no host's end: it is in
        `member.trouble`.
        """
        self._minor = minor
        waiting = deque(members)
        for member in waiting:
            member.answer = {}
        try:
            self._drive(do, waiting, set(), arguments, together, timeout_s or self._timeout_s, stoppable)
        finally:
            self._minor = False

    def halt(self) -> None:
        """Stop, and wait until what is still under way has ended: for whoever was torn out of `each`."""
        self.stop()
        busy = {member.name for member in self if member.doing is not None}
        self._drive("halt", deque(), busy, lambda _member: {}, together=True, timeout_s=0, stoppable=True)

    def _drive(
        self,
        do: str,
        waiting: deque[Member],
        busy: set[str],
        arguments: Arguments,
        together: bool,
        timeout_s: float,
        stoppable: bool,
    ) -> None:
        """Give `do` to the `waiting`, and wait for them and for the `busy`."""
        retried: set[str] = set()
        self._stop_seen_at = self._cancelled_at = None
        while waiting or busy:
            if self._loop.signals.count:
                self.stop()
            if self._stopping and stoppable:
                waiting.clear()
                self._cancel(busy, after_s=CONNECT_GRACE_S if do == "connect" else 0.0)
            else:
                self._hand_out(do, waiting, busy, arguments, together, timeout_s)
            if busy:
                lost = self.turn(busy)
                if not stoppable:  # its worker died on the way back: once more, with another
                    again = [member for member in lost if member.name not in retried]
                    retried |= {member.name for member in again}
                    waiting.extend(again)
                busy = {name for name in busy if self.members[name].doing is not None}
            elif waiting and not self._workers():
                self._do_without(waiting)

    def _hand_out(
        self,
        do: str,
        waiting: deque[Member],
        busy: set[str],
        arguments: Arguments,
        together: bool,
        timeout_s: float,
    ) -> None:
        workers = self._workers()
        loads = Counter(member.worker for member in self.members.values() if member.worker in workers)
        working = {self.members[name].worker for name in busy}
        skipped: list[Member] = []
        while waiting and len(skipped) < LOOK_AHEAD and (together or len(working & workers) < len(workers)):
            member = waiting.popleft()
            worker = member.worker if member.worker in workers else None
            if worker is None:
                idle = workers if together else workers - working
                worker = min(idle, key=lambda number: (loads[number], number), default=None)
            if worker is None or (not together and worker in working) or not self._room(do, member):
                skipped.append(member)
                continue
            loads[worker] += member.worker != worker
            working.add(worker)
            self._give(do, member, worker, arguments, timeout_s)
            busy.add(member.name)
        waiting.extendleft(reversed(skipped))

    def _room(self, do: str, member: Member) -> bool:
        return do != "connect" or self._connecting[member.hop] < CONNECTING_PER_HOP

    def _give(self, do: str, member: Member, worker: int, arguments: Arguments, timeout_s: float) -> None:
        member.worker = worker
        member.doing = do
        member.heard_at = time.monotonic()
        member.timeout_s = timeout_s
        member.trouble, member.trouble_as = None, (Code.WORKER_DIED, None)
        member.reached = True  # until its end says that it did not come as far
        if do == "connect":
            member.connecting = True
            self._connecting[member.hop] += 1
        message = {"do": do, "host": member.name, "timeout_s": timeout_s, **arguments(member)}
        self._loop.crew.send(worker, message)

    def _workers(self) -> set[int]:
        return {number for number in self._loop.crew.workers if not self._hear_other(Arrival(number))}

    def _cancel(self, busy: set[str], after_s: float) -> None:
        """Stop what runs, `after_s` from now; a worker that does not end it in time is killed."""
        now = time.monotonic()
        self._stop_seen_at = self._stop_seen_at or now
        if now - self._stop_seen_at < after_s:
            return
        if self._cancelled_at is None:
            self._cancelled_at = now
            held: dict[int | None, list[str]] = {}
            for name in busy:
                held.setdefault(self.members[name].worker, []).append(name)
            for worker, names in held.items():
                self._loop.crew.send(worker or 0, {"do": "cancel", "hosts": names})
        elif now - self._cancelled_at > CANCEL_S:
            for name in busy:
                self._loop.crew.kill(self.members[name].worker or 0, "did not stop in time and was killed")

    # ---- what comes back

    def pause(self, seconds: float) -> None:
        """Let time pass, unless the run is stopped meanwhile."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and not self._stopping:
            self.turn(timeout_s=min(left_s, TURN_S))
            if self._loop.signals.count:
                self.stop()

    def turn(
        self, busy: Iterable[str] = (), *, timeout_s: float = TURN_S, also: Iterable[int] = ()
    ) -> list[Member]:
        """Handle what arrives within one turn; return the busy members whose worker died."""
        lost: list[Member] = []
        broken: Exception | None = None
        for arrival in self._loop.turn(timeout_s, also):
            try:
                lost += self._take(arrival)
            except Exception as error:  # noqa: BLE001 - what arrived with it must not get lost
                broken = broken or error
        if broken is not None:
            raise broken
        now = time.monotonic()
        for name in busy:
            member = self.members[name]
            if member.doing and now > self._latest_end(member):
                self._loop.crew.kill(member.worker or 0, f"did not end {member.doing} in time and was killed")
        return lost

    def _take(self, arrival: Arrival) -> list[Member]:
        """Handle one arrival; return the busy members that it cost."""
        if self._hear_other(arrival):
            return []
        if arrival.died is not None:
            return self._lose(arrival.worker, arrival.died)
        self._heard_at[arrival.worker] = time.monotonic()
        self._hear(arrival.message)
        return []

    def _latest_end(self, member: Member) -> float:
        """Return when the worker of a busy member is taken for hung; one that gets its small things done is only slow."""
        if not self._minor:
            return member.heard_at + member.timeout_s + OVERTIME_S
        heard_at = max(member.heard_at, self._heard_at.get(member.worker or 0, 0.0))
        return heard_at + member.timeout_s + MINOR_OVERTIME_S

    def _hear(self, message: Message) -> None:
        member = self.members[message["host"]] if "host" in message else None
        if member is None:
            return
        member.heard_at = time.monotonic()
        match message["event"]:
            case "status":
                self._status(member, message)
            case "bytes":
                member.upload_bytes = (message["done"], message["total"])
                self.progress()
            case "log":
                self._loop.events.log(member.name, message["phase"], message["stream"], message["text"])
            case "done":
                self._done(member, message)

    def _status(self, member: Member, message: Message) -> None:
        self.uplink.hear(member.name, member.worker, message["phase"], State(message["state"]))
        if not self._minor or message["phase"] == Phase.CONNECT:  # that a host was reached is never minor
            member.phase = message["phase"]
            member.state = member.state if member.failed else State(message["state"])
        if message["phase"] == Phase.PROBE:
            self._connected(member)
        if self.speaks_as:
            return
        self._loop.events.host(
            member.name,
            message["phase"],
            State(message["state"]),
            elapsed_s=message["elapsed_s"],
            data=message["data"],
        )

    def _connected(self, member: Member) -> None:
        if member.connecting:
            member.connecting = False
            self._connecting[member.hop] -= 1

    def _done(self, member: Member, message: Message) -> None:
        self._connected(member)
        self.uplink.hear(member.name, None, None, None)
        if message["do"] != member.doing:
            return  # the end of something that nobody waits for any more
        member.doing = None
        member.reached = message["reached"]
        if self._minor and message["state"] != "ok":
            member.trouble = message["message"]
            if message["state"] == "failed":
                member.trouble_as = (Code(message["code"]), message["data"].get("hint"))
            return
        member.phase = message["phase"] or member.phase
        if message["state"] == "failed":
            code = Code(message["code"])
            data = message["data"]
            self.fail(member, code, message["message"], data=data, elapsed_s=message["elapsed_s"])
        elif message["state"] == "ok":
            member.answer = message["data"]
            member.holds |= message["do"] == "stage"
            member.answer["at"] = time.monotonic()

    def _lose(self, worker: int, how: str) -> list[Member]:
        """A worker died: what it held and had not finished has failed; return the members it was busy with."""
        busy = []
        for member in self.members.values():
            if member.worker != worker:
                continue
            member.worker = None
            self._connected(member)
            self.uplink.hear(member.name, None, None, None)
            if member.doing is not None:
                busy.append(member)
            if self._minor:
                member.trouble = f"worker {worker} {how}" if member.doing else member.trouble
            elif (not member.finished and member.state not in {None, State.FAILED}) or (
                member.doing is not None and not member.failed
            ):
                self.fail(member, Code.WORKER_DIED, f"worker {worker} {how}")
            member.doing = None
        self._replace()
        return busy

    def _replace(self) -> None:
        """Fork a worker for a dead one, so that what was begun can be taken back; not without end."""
        if self._replacements < 2 * self._forks:
            self._replacements += 1
            with contextlib.suppress(ForkError):  # others may be left; if none is, that is the hosts' failure
                self._loop.crew.hire()

    def _do_without(self, waiting: deque[Member]) -> None:
        """Nobody is left to do it: one more worker, or it fails on every host."""
        try:
            self._loop.crew.hire()
        except ForkError as error:
            for member in waiting:
                member.trouble = f"no worker is left: {error.message}; {error.hint}"
                if not self._minor:
                    self.fail(member, Code.WORKER_DIED, member.trouble)
            waiting.clear()

    def fail(
        self,
        member: Member,
        code: Code,
        message: str,
        *,
        data: Mapping[str, Any] | None = None,
        elapsed_s: float = 0.0,
    ) -> None:
        """Record why a host failed; the first cause stays, a host has one end. Beyond what is tolerated the run is stopping."""
        if member.failed:
            self._loop.events.note("warning", f"{member.name}: {member.phase}: {message}")
            return
        member.state, member.code, member.message = State.FAILED, code, message
        member.failed_in = member.phase
        member.hint = (data or {}).get("hint")
        self._loop.events.host(
            member.name,
            self.speaks_as or member.phase,
            State.FAILED,
            code=code,
            message=message,
            elapsed_s=elapsed_s,
            data=data,
        )
        failures = sum(each.failed for each in self.members.values())
        if self.speaks_as:
            return
        if failures > self.tolerated or code in self.intolerable:
            self.stop()

    def progress(self, *, last: bool = False) -> None:
        if not self._loop.events.progress_due(last=last):
            return
        done = sum(member.upload_bytes[0] for member in self.members.values())
        total = sum(member.upload_bytes[1] for member in self.members.values())
        self._loop.events.progress(
            bytes_done=done,
            bytes_total=total,
            hosts_done=sum(member.holds or member.finished for member in self.members.values()),
            hosts_total=len(self.members),
            hosts={
                m.name: list(m.upload_bytes) for m in self.members.values() if m.doing in {"early", "stage"}
            },
        )
