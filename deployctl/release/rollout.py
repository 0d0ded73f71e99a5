"""Makes one release live on hosts that hold it, batch after batch, or puts every one back on what it served.

each batch: activating hooks ─▶ switch ─▶ activated hooks ─▶ checks ─▶ pause
any failure: links back on all that had switched, then the activated hooks of the release that is back
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployctl.errors import Code
from deployctl.host.layout import live_release
from deployctl.model import Host, Outcome, Phase, State
from deployctl.release.hooks import batches, checks_for, environment, on_hosts
from deployctl.release.member import Member
from deployctl.release.records import record
from deployctl.release.result import came_to

if TYPE_CHECKING:
    from deployctl.release.run import Run


class Rollout:
    """One activation; `members` in the order of the inventory, `trees` their manifest digests."""

    def __init__(self, run: Run, members: Sequence[Member], release: str, trees: Mapping[str, str]) -> None:
        self._run = run
        self._members = members
        self._release = release
        self._trees = trees
        self._hosts = {host.name: host for host in run.inventory.hosts}
        self._touched: list[Member] = []  # may have switched, in the order of it

    def perform(self) -> bool:
        """Return whether the release is live everywhere; if not, every host was put back as far as it could be."""
        run = self._run
        run.fleet.tolerated = sum(member.failed for member in run.fleet)
        rest = list(self._members)
        sizes = batches(run.options.batch, len(rest))
        for number, size in enumerate(sizes, 1):
            batch, rest = rest[:size], rest[size:]
            if not run.go_on(f"batch {number} of {len(sizes)}: activate {size} hosts ({batch[0].name} …)?"):
                break
            self._activate(batch)
            if run.fleet.stopping():
                break
            if rest:
                run.pause(run.options.batch_wait_s)
        if run.fleet.stopping():
            self.put_back()
            return False
        return True

    def _activate(self, batch: Sequence[Member]) -> None:
        stopping = self._run.fleet.stopping
        switching = [member for member in batch if member.live != f"releases/{self._release}"]
        self.hooks("activating", switching, Phase.ACTIVATE)
        if not stopping():
            self._switch(switching)
        if not stopping():
            self.hooks("activated", batch, Phase.ACTIVATE)
        if not stopping():
            self._check(batch)

    def _switch(self, batch: Sequence[Member]) -> None:
        run = self._run
        self._touched += batch

        def values(member: Member) -> dict[str, Any]:
            member.may_have_switched = True
            text = record(
                "switch",
                run.events.run,
                self._release,
                run.author,
                previous=member.before,
                message=run.options.message,
                command=run.command,
            )
            return {"values": {"ID": self._release, "TREE": self._trees[member.name], "RECORD": text}}

        run.fleet.each("activate", batch, values, together=True)
        for member in batch:
            if "live" in member.answer:
                member.switched = True
                member.serves(member.answer["live"])
            member.may_have_switched &= member.reached
        at = [member.answer["at"] for member in batch if "live" in member.answer]
        if at:
            run.skew_s = max(run.skew_s or 0.0, round(max(at) - min(at), 3))

    def hooks(self, moment: str, members: Sequence[Member], phase: Phase) -> None:
        """Run one moment's hooks on the hosts they are for."""
        run_hooks(self._run, moment, members, phase, self._release, of=self._members)

    def _check(self, batch: Sequence[Member]) -> None:
        run = self._run
        checks = run.inventory.release.check
        if not checks:
            return

        def values(member: Member) -> dict[str, Any]:
            host = self._hosts[member.name]
            return {
                "checks": checks_for(checks, host, run.inventory.app, self._release),
                "dir": f"releases/{self._release}",
                "environment": environment(run.inventory.app, self._release, host, member.before),
            }

        longest_s = sum(check.timeout_s for check in checks)
        run.fleet.each("check", batch, values, together=True, timeout_s=max(run.options.timeout_s, longest_s))

    # ---- the way back

    def put_back(self) -> None:
        """Links first, everywhere; then the services reload what is back."""
        run = self._run

        def values(member: Member) -> dict[str, Any]:
            text = record("revert", run.events.run, self._release, run.author, previous=member.before)
            return {"values": {"ID": self._release, "PREVIOUS": member.before or "", "RECORD": text}}

        touched = [member for member in self._touched if member.may_have_switched]
        run.fleet.each("revert", touched, values, together=True, stoppable=False)
        # A switch that was cut off tells nothing of how far it came: it counts as one. But without the lock none begins,
        # so then only hosts count that had something to take back.
        lost = any(member.code is Code.LOCKED for member in self._touched)
        back = []
        for member in touched:
            if "live" not in member.answer:
                member.live, member.live_known = None, False
                member.reload_failed = bool(run.inventory.release.hooks["activated"])
                continue
            member.switched |= member.answer["reverted"] or not lost
            member.serves(member.answer["live"])
            warn_unsynced(run, member)
            if member.live == member.before:
                back.append(member)
        self._reload([member for member in back if member.live])
        for member in back:
            if member.switched and not member.failed:
                member.state = State.REVERTED
                live = live_release(member.live)
                run.events.host(
                    member.name,
                    Phase.REVERT,
                    State.REVERTED,
                    message="switched back",
                    data={"live": live},
                )

    def came_to(self) -> tuple[Outcome, str]:
        """Return what it came to, by what the hosts serve now."""
        touched = [member for member in self._touched if member.may_have_switched]
        return came_to(self._run.fleet, touched, self._run.events.release)

    def _reload(self, members: Sequence[Member]) -> None:
        """Run the activated hooks of the releases that are back; one that fails leaves its host differing."""
        run = self._run
        hooks = on_hosts(run.inventory.release.hooks["activated"], [self._hosts[m.name] for m in members])
        if not hooks:
            return
        kept = {m.name: (m.state, m.code, m.message) for m in members}

        def values(member: Member) -> dict[str, Any]:
            host = self._hosts[member.name]
            return {
                "moment": "activated",
                "phase": Phase.REVERT,
                "hooks": hooks[member.name],
                "dir": "current",
                "environment": environment(
                    run.inventory.app, live_release(member.live) or "", host, self._release
                ),
                "timeout_s": run.options.timeout_s,
            }

        concerned = [member for member in members if member.name in hooks]
        longest_s = longest(hooks.values(), run.options.timeout_s)
        run.fleet.each("hook", concerned, values, together=True, stoppable=False, timeout_s=longest_s)
        for member in concerned:
            if not member.answer:
                member.reload_failed = True
            else:
                member.state, member.code, member.message = kept[member.name]


def warn_unsynced(run: Run, member: Member) -> None:
    """What was put back is there; a host that crashes now may forget it."""
    if said := member.answer.get("unsynced"):
        text = f"{member.name}: revert: the disk did not take what was put back for good: {said}"
        run.events.note("warning", text)


def run_hooks(
    run: Run,
    moment: str,
    members: Sequence[Member],
    phase: Phase,
    release: str,
    *,
    of: Sequence[Member] | None = None,
) -> list[Member]:
    """Run one moment's hooks on those of `members` that they are for, and return these.

    `of` are all hosts that the moment comes to, the first of which a `once` hook is for; default `members`.
    """
    hosts: dict[str, Host] = {host.name: host for host in run.inventory.hosts}
    everyone = [hosts[member.name] for member in of or members]
    hooks = on_hosts(run.inventory.release.hooks[moment], everyone)
    concerned = [member for member in members if member.name in hooks]

    def values(member: Member) -> dict[str, Any]:
        return {
            "moment": moment,
            "phase": phase,
            "hooks": hooks[member.name],
            "dir": f"releases/{release}",
            "environment": environment(run.inventory.app, release, hosts[member.name], member.before),
            "timeout_s": run.options.timeout_s,
        }

    longest_s = longest(hooks.values(), run.options.timeout_s)
    run.fleet.each("hook", concerned, values, together=True, timeout_s=longest_s)
    return concerned


def longest(hooks: Iterable[Sequence[Mapping[str, Any]]], timeout_s: float) -> float:
    """Return how long the hooks of one host may take together at most, where one without a limit has `timeout_s`."""
    return max((sum(hook["timeout_s"] or timeout_s for hook in each) for each in hooks), default=timeout_s)
