"""Prune: delete releases beyond `keep`, and what dead runs left; by itself, and at the end of a push.

What is to go is decided here, from a host's history. That it is ours, no link and not live is looked at again on the
host, in the command that removes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from deployctl.errors import Code, Exit
from deployctl.host.layout import live_id
from deployctl.inventory import Inventory
from deployctl.model import Outcome, State
from deployctl.release.events import Observer, utc_now
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.run import Run, open_run

STAGED_FOR = timedelta(days=7)  # so long a release that --no-activate staged waits to be made live
Record = Mapping[str, Any]


def prune(inventory: Inventory, options: Options | None = None, observer: Observer | None = None) -> Result:
    """Remove releases beyond `keep` and leftovers of dead runs from the inventory's hosts; one host's failure stops no other."""
    with open_run("prune", inventory, options or Options(), observer) as run:
        try:
            return _perform(run)
        except LeaveAtOnce:
            return run.left_at_once()


def _perform(run: Run) -> Result:
    run.fleet.tolerated = len(run.fleet.members)
    run.fleet.intolerable = frozenset({Code.LOCKED})
    members = run.connect(locks=True)
    roots = {host.name: host.path for host in run.inventory.hosts}
    bare = [m for m in members if m.facts and m.facts.nearest != roots[m.name]]
    working = [m for m in members if m not in bare]
    if run.fleet.stopping() or (working and not run.lock(working)):
        return run.stopped_before_live()
    for member in bare:
        _say_done(run, member, {"removed": [], "kept": [], "artifacts": 0, "leftovers": 0})
    run.fleet.each("survey", working, together=True)
    for member in _remove(run, [m for m in working if not m.failed], old=False):
        if not member.failed and "removed" in member.answer:
            _say_done(run, member, member.answer)
    run.take_back()
    if run.loop.signals.count:
        return run.finish(Outcome.INTERRUPTED)
    failed = any(member.failed for member in run.fleet)
    return run.finish(Outcome.FAILED, code=Exit.ABORTED) if failed else run.finish(Outcome.OK)


def prune_after(run: Run, members: Sequence[Member], release: str) -> None:
    """Prune hosts on which `release` is live now; whatever goes wrong is a warning, the release is what counts."""
    keep = run.inventory.release.keep
    full = [m for m in members if m.facts and len({*m.facts.releases, release}) > keep and not m.trouble]
    run.fleet.each("survey", full, lambda _m: {"quiet": True}, together=True, minor=True)
    for member in full:
        _warn(run, member)
    for member in _remove(run, [m for m in full if not m.trouble], old=True):
        _warn(run, member)


def _warn(run: Run, member: Member) -> None:
    if member.trouble:
        run.events.note("warning", f"{member.name}: could not prune old releases: {member.trouble}")


def _remove(run: Run, members: Sequence[Member], *, old: bool) -> Sequence[Member]:
    """Remove what the answer of the survey says is beyond `keep`; `old` spares artifacts of the last day."""
    now = utc_now()
    going: dict[str, list[str]] = {}
    kept: dict[str, list[str]] = {}
    for member in members:
        found = member.answer
        if "releases" not in found:
            continue
        live = live_id(found["current"])
        going[member.name] = surplus(
            found["releases"],
            found["history"],
            found["first"],
            live=live,
            keep=run.inventory.release.keep,
            now=now,
        )
        kept[member.name] = [each for each in found["releases"] if each not in going[member.name]]
    surveyed = [member for member in members if member.name in going]
    run.fleet.each(
        "prune",
        surveyed,
        lambda m: {"values": {"IDS": " ".join(going[m.name]), "AGE": "1" if old else ""}, "quiet": old},
        together=True,
        minor=old,
    )
    for member in surveyed:
        if "removed" in member.answer:
            member.answer["kept"] = kept[member.name]
    return surveyed


def _say_done(run: Run, member: Member, found: Mapping[str, Any]) -> None:
    data = {key: found[key] for key in ("removed", "kept", "artifacts", "leftovers")}
    member.phase, member.state, member.finished = "prune", State.OK, True
    member.message = told(data)
    run.events.host(member.name, "prune", State.OK, message=member.message, data=data)


def told(data: Mapping[str, Any]) -> str:
    """Return what was removed, for people."""
    parts = [
        _count(len(data["removed"]), "release"),
        _count(data["artifacts"], "artifact"),
        _count(data["leftovers"], "leftover of dead runs", "leftovers of dead runs"),
    ]
    removed = [part for part in parts if part]
    return "removed " + ", ".join(removed) if removed else "nothing to remove"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}" if number else ""


# ---- what is to go: pure --------------------------------------------------------------------------------------------


def surplus(
    releases: Collection[str],
    history: Sequence[Record],
    first: Record | None,
    *,
    live: str | None,
    keep: int,
    now: datetime,
) -> list[str]:
    """Return which of a host's `releases` are to go.

    `history` holds its `confirm` and `stage` records in their order, `first` is the first record of all. What stays: the
    `keep` good releases that were activated last, the live one, the good one before it, and what waits to be activated.
    """
    if first is None and live is not None:
        return []  # its history is lost: nobody knows what is good
    good = _good(releases, history, first)
    stays = {*good[:keep], live, next((name for name in good if name != live), None)}
    if live in good[:-1]:
        stays.add(good[good.index(live) + 1])
    stays |= _waiting(history, now)
    return sorted(name for name in releases if name not in stays)


def _good(releases: Collection[str], history: Sequence[Record], first: Record | None) -> list[str]:
    """Return the confirmed ones, the last activated first."""
    confirmed: dict[str, None] = {}
    for record in history:
        if record["event"] == "confirm":
            confirmed.pop(record["release"], None)
            confirmed[record["release"]] = None
    good = [name for name in reversed(confirmed) if name in releases]
    if first is None or not _cut_off(first):
        return good
    # The history once was longer: what is older than it was made when nobody can say whether it was good.
    began = _digits(first["ts"])
    older = sorted(
        (name for name in releases if name not in confirmed and _digits(name) < began), reverse=True
    )
    return good + older


def _cut_off(first: Record) -> bool:
    """Whether a history that begins like this has lost its beginning: it speaks of a release it has not seen made live."""
    return first["event"] not in {"switch", "stage"} or live_id(first.get("previous")) is not None


def _digits(stamp: str | None) -> str:
    """`20261123T204315Z-…` and `2026-11-23T20:43:15.123Z` both to `20261123204315`."""
    return "".join(letter for letter in (stamp or "")[:23] if letter.isdigit())[:14]


def _waiting(history: Sequence[Record], now: datetime) -> set[str]:
    """Return what was staged lately, to be made live later, and was not since."""
    staged: dict[str, datetime] = {}
    for record in history:
        if record["event"] == "confirm":
            staged.pop(record["release"], None)
        elif record["event"] == "stage":
            staged[record["release"]] = _time(record["ts"])
    return {name for name, at in staged.items() if now - at < STAGED_FOR}


def _time(stamp: str | None) -> datetime:
    try:
        at = datetime.fromisoformat(stamp or "")
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)  # nobody knows when: it waits
    return at if at.tzinfo else at.replace(tzinfo=UTC)
