"""Activate: make a release live that is on every host already, as `push --no-activate` leaves it."""

from __future__ import annotations

import re

from deployctl.errors import Code, UsageError
from deployctl.host.facts import Facts
from deployctl.inventory import Inventory
from deployctl.model import Outcome, State
from deployctl.release.events import Observer
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.run import Run, open_run

WANTED = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}|[0-9a-f]{4,64}")


def activate(
    inventory: Inventory, release: str, options: Options | None = None, observer: Observer | None = None
) -> Result:
    """Make `release`, an id or a digest prefix, live on the inventory's hosts, or change nothing.

    Every selected host must hold it whole: one that does not, or whose copy differs from its manifest, aborts the run.
    """
    if not WANTED.fullmatch(release):
        raise UsageError(
            f"{release!r} is neither a release id nor a digest prefix (4 hexadecimal digits or more)"
        )
    with open_run("activate", inventory, options or Options(), observer, hooked=True, wanted=release) as run:
        try:
            return _perform(run, release)
        except LeaveAtOnce:
            return run.left_at_once()


def _perform(run: Run, wanted: str) -> Result:
    members = run.connect(locks=True)
    if run.fleet.stopping():
        return run.stopped_before_live()
    held = {m.name: matching(m.facts, wanted) for m in members if m.facts}
    release = common(held)
    lacking = [m for m in members if not any(name == release for name, _ in held[m.name])]
    for member in lacking:
        others = (
            ", ".join(sorted(member.facts.manifests)) if member.facts and member.facts.manifests else "none"
        )
        run.fleet.fail(
            member,
            Code.DIGEST,
            f"does not hold release {release or wanted} (it holds: {others})",
            data={"hint": "push the build again, or leave this host out with --limit"},
        )
    if lacking or release is None or not run.lock(members):
        return run.stopped_before_live()
    run.events.release = release
    return _switch(run, release, {name: dict(found)[release] for name, found in held.items()})


def _switch(run: Run, release: str, trees: dict[str, str]) -> Result:
    members = run.sound()
    for member in members:
        member.staged = True  # our directory there is made by the next command and removed at the end
    run.fleet.each(
        "ready", members, lambda m: {"values": {"ID": release, "TREE": trees[m.name]}}, together=True
    )
    if run.fleet.stopping():
        return run.stopped_before_live()
    resting = [m for m in members if m.facts and m.facts.live == release and m.facts.confirmed]
    for member in resting:
        member.message, member.finished = "unchanged", True
        run.events.host(member.name, "probe", State.OK, message="unchanged", data={"live": release})
    working = [m for m in members if m not in resting]
    if working and not run.switch(working, release, trees):
        return run.reverted()
    run.confirm(working, release)
    return run.finish(Outcome.RELEASED if working else Outcome.UNCHANGED)


def matching(facts: Facts, wanted: str) -> list[tuple[str, str]]:
    """Return the releases on a host that `wanted` names, as id and digest, newest first."""
    found = [
        (name, tree) for name, tree in facts.manifests.items() if name == wanted or tree.startswith(wanted)
    ]
    return sorted(found, reverse=True)


def common(held: dict[str, list[tuple[str, str]]]) -> str | None:
    """Return the newest id that every host holds, else the newest that any does; UsageError when a prefix is ambiguous."""
    trees = {tree for found in held.values() for _, tree in found}
    if len(trees) > 1:
        raise UsageError(
            f"the digest prefix names {len(trees)} different releases: write more of it, or the id"
        )
    ids = [{name for name, _ in found} for found in held.values()]
    everywhere = set.intersection(*ids) if ids else set()
    return max(everywhere or set().union(*ids), default=None)
