"""The lock of a run on all its hosts, or on none of them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict

from deployctl.errors import Code
from deployctl.host.owner import owner_text
from deployctl.release.events import stamp, utc_now
from deployctl.release.fleet import Fleet
from deployctl.release.loop import Loop
from deployctl.release.member import Member
from deployctl.release.records import Author

RETRY_S = 1.0
UNLOCK_S = 5.0
UNLOCK_SILENT_S = 2.0  # on a host that no longer answers; its lock ends with the connection
EACH_S = 0.1  # more for each host that is asked at the same time: on a busy machine they wait for each other
SILENT = frozenset({Code.TIMED_OUT, Code.LOST, Code.UNREACHABLE})
TWICE = "another host of this run has the same deploy root: two names lead to one place"
TWICE_HINT = "name that place once in the inventory, or leave one of the two out with --limit"
HINT = "wait for it with --wait-lock 10m; if that run is gone and the lock is not: deployctl unlock"


class Locks:
    """Takes and gives back; `refused` when another run was in the way."""

    def __init__(self, loop: Loop, fleet: Fleet, author: Author, wait_s: float) -> None:
        self._loop = loop
        self._fleet = fleet
        self._author = author
        self._wait_s = wait_s
        self.refused = False

    def take(self, members: Sequence[Member]) -> bool:
        """Take the lock on every member, or give back what was had; return whether all are ours.

        The first host by name alone, then the rest at once: runs that meet do so at the same host, and one wins. A lock
        that another run holds is waited for as long as the options say; after that it is that host's failure.
        """
        deadline = time.monotonic() + self._wait_s
        if not members:
            return True
        first, *rest = sorted(members, key=lambda member: member.name)
        owner = json.dumps({**asdict(self._author), "run": self._loop.events.run, "since": stamp(utc_now())})
        told = False
        while True:
            held = self._try([first], owner) or self._try(rest, owner)
            if self._fleet.stopping() or held is None:
                return not self._fleet.stopping()
            member, said = held
            if self._loop.events.run in said:
                self._fleet.fail(member, Code.LOCKED, TWICE, data={"hint": TWICE_HINT})
                return False
            if time.monotonic() >= deadline:
                self.refused = True
                self._fleet.fail(
                    member, Code.LOCKED, f"another run holds the lock: {said}", data={"hint": HINT}
                )
                return False
            self.give_back()
            if not told:
                self._loop.events.note(
                    "info", f"{member.name}: waiting for the lock that another run holds: {said}"
                )
                told = True
            self._fleet.pause(min(RETRY_S, max(0.05, deadline - time.monotonic())))

    def _try(self, members: Sequence[Member], owner: str) -> tuple[Member, str] | None:
        """Return the first member whose lock another run holds, and who that is."""
        members = [member for member in members if not member.failed]
        for member in members:
            member.staged = True  # the run's directory is made there before the lock is taken
        self._fleet.each("lock", members, lambda _member: {"values": {"OWNER": owner}}, together=True)
        for member in members:
            member.locked = "held" in member.answer and member.answer["held"] is None
        return next(((m, owner_text(m.answer["held"])) for m in members if m.answer.get("held")), None)

    def give_back(self) -> None:
        """Give back what is held; where that fails, the end of the connection does it."""
        locked = [member for member in self._fleet if member.locked]
        tidy(self._fleet, "unlock", locked, UNLOCK_S, UNLOCK_SILENT_S)
        for member in locked:
            member.locked = False


def tidy(fleet: Fleet, do: str, members: Sequence[Member], limit_s: float, silent_s: float) -> None:
    """Have a small thing done on all of `members`; those that no longer answer get `silent_s` and no more."""
    longer_s = limit_s + EACH_S * len(members)
    silent = {member.name for member in members if member.code in SILENT or member.trouble is not None}

    def values(member: Member) -> dict[str, float]:
        return {"timeout_s": silent_s if member.name in silent else longer_s}

    fleet.each(do, members, values, together=True, stoppable=False, timeout_s=longer_s, minor=True)
