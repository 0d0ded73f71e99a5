"""Rollback: make a release live again that every host still holds, by default the one before.

connect ─▶ choose ─▶ lock ─▶ look at the target everywhere ─▶ switch, batch after batch ─▶ confirm
                     any host without it, or with another: nothing changes
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployctl.errors import Code, UsageError
from deployctl.host.layout import live_release
from deployctl.host.reading import Standing, last_of, release_before
from deployctl.inventory import Inventory, fold
from deployctl.model import Outcome, State
from deployctl.release.activate import WANTED, common, matching
from deployctl.release.events import Observer
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.run import Run, open_run

SHOWN = 12  # releases named in a message


@dataclass(frozen=True, slots=True)
class RollbackOptions(Options):
    """What rollback takes beyond what every command does."""

    force: bool = False  # though the target was edited on a host


def rollback(
    inventory: Inventory,
    release: str | None = None,
    options: RollbackOptions | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> Result:
    """Make `release`, an id or a digest prefix, live again on the inventory's hosts, or change nothing.

    None is the confirmed release before the one that is live. `settings` are fields of RollbackOptions by name. Nothing is
    printed; failures of hosts are in the result. InventoryError and UsageError, also for nothing to roll back to, are
    raised and mean that no host was changed.
    """
    if release is not None and not WANTED.fullmatch(release):
        raise UsageError(
            f"{release!r} is neither a release id nor a digest prefix (4 hexadecimal digits or more)"
        )
    options = replace(options or RollbackOptions(), **settings)
    told: dict[str, Any] = {"wanted": release} if release else {}
    with open_run("rollback", inventory, options, observer, hooked=True, **told) as run:
        try:
            return _Rollback(run, release, force=options.force).perform()
        except LeaveAtOnce:
            return run.left_at_once()


class _Rollback:
    """The steps of one rollback, in the order of `perform`."""

    def __init__(self, run: Run, wanted: str | None, *, force: bool) -> None:
        self._run = run
        self._wanted = wanted
        self._force = force
        self._members: Sequence[Member] = ()
        self._standings: dict[str, Standing] = {}

    def perform(self) -> Result:
        run = self._run
        self._members = run.connect(locks=True)
        target = self._target()
        if target is None:
            return run.stopped_before_live()
        before = {m.name: m.facts for m in self._members}
        self._refuse_lacking(target)
        if run.fleet.stopping() or not run.lock(self._members):
            return run.stopped_before_live()
        if any(m.facts is not before[m.name] for m in self._members):  # another run was at work meanwhile
            target = self._target()
            if target is not None:
                self._refuse_lacking(target)
        if target is None or run.fleet.stopping():
            return run.stopped_before_live()
        return self._carry_out(target)

    # ---- the target

    def _target(self) -> str | None:
        """Choose the release; None when the run stops meanwhile, UsageError when there is none."""
        run = self._run
        if not run.fleet.stopping():
            run.fleet.each("standing", self._members, together=True)
        if run.fleet.stopping():
            return None
        self._standings = {m.name: Standing.from_json(m.answer["standing"]) for m in self._members}
        held = {m.name: m.facts.manifests for m in self._members if m.facts}
        if self._wanted is None:
            live = {m.name: m.facts.live for m in self._members if m.facts}
            target = one_before(live, self._standings)
            if target is None:
                raise UsageError(
                    "nothing to roll back to: no release was live and confirmed before the one that is live now",
                    hint=f"the hosts hold {listed(held)}; name one of these: deployctl rollback RELEASE",
                )
        else:
            wanted = self._wanted
            target = common({m.name: matching(m.facts, wanted) for m in self._members if m.facts}) or wanted
        run.events.release = target
        run.again = run.command_line("rollback", target)
        return target

    def _refuse_lacking(self, target: str) -> None:
        """Fail every host that does not hold the target."""
        holders = [m for m in self._members if m.facts and target in m.facts.manifests]
        for member in self._members:
            if member not in holders:
                manifests = {member.name: member.facts.manifests if member.facts else {}}
                self._refuse(
                    member, f"does not hold release {target} (it holds {listed(manifests)})", target, holders
                )

    def _refuse(
        self, member: Member, message: str, target: str, good: Sequence[Member], more: str = ""
    ) -> None:
        run = self._run
        if good:
            words = ["deployctl", "rollback", target, "-i", str(run.inventory.file)]
            hint = f"to leave such hosts out: {shlex.join([*words, '-l', fold(m.name for m in good)])}"
        else:
            hint = "push the build again"
        run.fleet.fail(member, Code.DIGEST, message, data={"hint": hint + more})

    # ---- the execution

    def _carry_out(self, target: str) -> Result:
        run = self._run
        trees = {m.name: m.facts.manifests[target] for m in self._members if m.facts}
        if not self._ready(target, trees):
            return run.stopped_before_live()
        self._say_what_it_does(target)
        resting = [m for m in self._members if m.facts and m.facts.live == target and m.facts.confirmed]
        for member in resting:
            member.message, member.finished = "unchanged", True
            run.events.host(member.name, "probe", State.OK, message="unchanged", data={"live": target})
        working = [m for m in self._members if m not in resting]
        if working and not run.switch(working, target, trees):
            return run.reverted()
        run.confirm(working, target)
        return run.finish(Outcome.RELEASED if working else Outcome.UNCHANGED)

    def _ready(self, target: str, trees: Mapping[str, str]) -> bool:
        """Look at the target everywhere before anything is live; name every host where it is not what was released."""
        run = self._run
        for member in self._members:
            member.staged = True  # our directory there is removed at the end
        run.fleet.each(
            "whole", self._members, lambda _m: {"release": target, "force": self._force}, together=True
        )
        if run.fleet.stopping():
            return False
        altered = {m.name: m.answer["difference"]["told"] for m in self._members}
        sound = Counter(tree for name, tree in trees.items() if not altered[name])
        for name, tree in trees.items():
            if sound and tree != sound.most_common(1)[0][0]:
                altered[name] = altered[name] or "its manifest is not that of the other hosts"
        good = [m for m in self._members if not altered[m.name]]
        for member in self._members:
            if not (told := altered[member.name]):
                continue
            if self._force:
                run.events.note(
                    "warning",
                    f"{member.name}: release {target} was altered there since it was staged: {told}",
                )
            else:
                message = f"release {target} was altered there since it was staged: {told}"
                self._refuse(member, message, target, good, "; --force makes it live as it is")
        return not run.fleet.stopping()

    def _say_what_it_does(self, target: str) -> None:
        """Where hosts differ, tell who goes from what to what before anything does."""
        groups: dict[str, list[str]] = {}
        for member in self._members:
            groups.setdefault(live_release(member.live) or "nothing", []).append(member.name)
        if len(groups) > 1:
            for live, names in sorted(groups.items(), reverse=True):
                does = "stays" if live == target else f"goes from {live} to {target}"
                self._run.events.note("info", f"{fold(names)} {does}")
        if not any(last_of(each.activations, target) for each in self._standings.values()):
            self._run.events.note("warning", f"release {target} was never live on any of these hosts")


def one_before(live: Mapping[str, str | None], standings: Mapping[str, Standing]) -> str | None:
    """Return what a fleet goes back to, None for nothing: the confirmed release before the one that counts as live.

    That is the one most hosts serve, the newer one on a tie; but where the last thing that happened is an activation that was
    never confirmed, that one, so that what a dead run began is undone and no host goes back two releases.
    """
    if not live:
        return None
    serving = _unfinished(live, standings)
    if serving is None:
        counts = Counter(live.values())
        serving = max(counts, key=lambda release: (counts[release], release or ""))
    found = [
        release_before(standings[host].activations, release)
        for host, release in live.items()
        if release == serving
    ]
    before = Counter(release for release in found if release is not None)
    return max(before, key=lambda release: (before[release], release), default=None)


def _unfinished(live: Mapping[str, str | None], standings: Mapping[str, Standing]) -> str | None:
    """Return the release that a dead run left live on some hosts, if nothing was confirmed anywhere since."""
    begun = [last_of(standings[host].activations, release) for host, release in live.items()]
    left = [each for each in begun if each is not None and not each.confirmed]
    newest = max(left, key=lambda each: str(each.record.get("ts", "")), default=None)
    since = max((standings[host].confirmed_at for host in live), default="")
    return newest.release if newest and str(newest.record.get("ts", "")) > since else None


def listed(held: Mapping[str, Mapping[str, str]]) -> str:
    """Return the releases that any of the hosts hold, newest first, for people."""
    names = sorted({name for manifests in held.values() for name in manifests}, reverse=True)
    more = f" and {len(names) - SHOWN} older ones" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"
