"""Commands that read: status, releases, verify, history. They lock nothing and change nothing on a host.

Each says one line for each host with the facts in `data`, and goes on whatever becomes of other hosts.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployctl.errors import Exit
from deployctl.host.facts import Facts
from deployctl.host.layout import live_release
from deployctl.host.owner import owner_of
from deployctl.host.reading import Standing, last_of, release_before
from deployctl.inventory import Inventory, fold
from deployctl.model import Outcome, State
from deployctl.release.events import Events, Observer, Silent
from deployctl.release.history import concerning, merged, read_local
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.run import Run, new_run_id, open_run

ABOUT = ("user", "machine", "ci", "message", "run")
Data = dict[str, Any]


def status(inventory: Inventory, options: Options | None = None, observer: Observer | None = None) -> Result:
    """Say what is live on every host, since when, by whom. Exit 22 where hosts serve different trees."""

    def perform(run: Run) -> Result:
        standings = _standings(run)
        data = {name: _status_of(facts, standings[name]) for name, facts in _facts(run, standings).items()}
        _say(run, data)
        return _finish(run, **_differences(run, data))

    return _read("status", inventory, options, observer, perform)


def releases(
    inventory: Inventory, options: Options | None = None, observer: Observer | None = None
) -> Result:
    """Say which releases every host keeps, newest first."""

    def perform(run: Run) -> Result:
        standings = _standings(run)
        facts = _facts(run, standings)
        _say(run, {name: {"releases": _kept(facts[name], standings[name])} for name in facts})
        return _finish(run)

    return _read("releases", inventory, options, observer, perform)


def verify(inventory: Inventory, options: Options | None = None, observer: Observer | None = None) -> Result:
    """Compare the live files of every host with the release's manifest. Exit 22 where they or hosts differ."""

    def perform(run: Run) -> Result:
        serving = [m for m in run.sound() if m.facts and m.facts.live and m.facts.live_digest]
        run.fleet.each("verify", serving, lambda m: {"release": m.facts.live if m.facts else ""})
        data = {m.name: _compared(m) for m in run.sound() if m.facts}
        _say(run, data)
        altered = any(each["altered"] for each in data.values())
        told = _differences(run, data)
        return _finish(run, altered=altered, **told)

    return _read("verify", inventory, options, observer, perform)


def history(
    inventory: Inventory,
    options: Options | None = None,
    observer: Observer | None = None,
    *,
    local: bool = False,
    last: int = 20,
) -> Result:
    """Say what was released, newest first: what is written here of the selected hosts, with what they tell unless `local`."""
    limit = options.limit if options else None
    here = concerning(read_local(inventory.app), inventory, limit)
    if local:
        return _history_here(inventory, merged(here, {}, last), observer)

    def perform(run: Run) -> Result:
        standings = _standings(run, keep=max(50, 4 * last))
        found = {name: standing.records for name, standing in standings.items()}
        _say(run, {name: {"records": list(records)} for name, records in found.items()})
        return _finish(run, history=merged(here, found, last))

    return _read("history", inventory, options, observer, perform)


def _history_here(inventory: Inventory, runs: Sequence[Data], observer: Observer | None) -> Result:
    """Say it without a host being asked."""
    events = Events(observer or Silent(), new_run_id())
    events.started("history", app=inventory.app, hosts=[], forks=0)
    events.finished(outcome=str(Outcome.OK), exit_code=0, hosts={}, bytes_sent=0, history=list(runs))
    return Result(Outcome.OK, Exit.OK, events.run, None, {}, details={"history": list(runs)})


# ---- the frame of them all ------------------------------------------------------------------------------------------


def _read(
    command: str,
    inventory: Inventory,
    options: Options | None,
    observer: Observer | None,
    perform: Callable[[Run], Result],
) -> Result:
    with open_run(command, inventory, replace(options or Options(), batch=None), observer) as run:
        run.fleet.speaks_as = command
        try:
            run.connect()
            return perform(run)
        except _StoppedError:
            run.take_back()
            return run.finish(Outcome.INTERRUPTED)
        except LeaveAtOnce:
            return run.left_at_once()


class _StoppedError(Exception):
    """A signal came; `_say` finds out, since nothing is handed out any more."""


def _standings(run: Run, keep: int = 0) -> dict[str, Standing]:
    members = run.sound()
    run.fleet.each("standing", members, lambda _m: {"keep": keep}, together=True)
    return {m.name: Standing.from_json(m.answer["standing"]) for m in members if "standing" in m.answer}


def _facts(run: Run, standings: Mapping[str, Standing]) -> dict[str, Facts]:
    return {m.name: m.facts for m in run.sound() if m.facts and m.name in standings}


def _say(run: Run, data: Mapping[str, Data]) -> None:
    """Say each host's line."""
    if run.fleet.stopping():
        raise _StoppedError
    for member in run.sound():
        if member.name in data:
            member.state, member.finished = State.OK, True
            run.events.host(member.name, run.command, State.OK, data=data[member.name])


def _finish(run: Run, **told: Any) -> Result:
    if told.get("differ") or told.get("altered"):
        return run.finish(Outcome.FAILED, code=Exit.MIXED, **told)
    if any(member.failed for member in run.fleet):
        return run.finish(Outcome.FAILED, code=Exit.ABORTED, **told)
    return run.finish(Outcome.OK, **told)


# ---- what is said ---------------------------------------------------------------------------------------------------


def _status_of(facts: Facts, standing: Standing) -> Data:
    last = last_of(standing.activations, facts.live)
    record = last.record if last else {}
    lived = {each.release for each in standing.activations if each.confirmed}
    return {
        "live": live_release(facts.current),
        "digest": facts.live_digest,
        "confirmed": bool(last and last.confirmed),
        "since": record.get("ts"),
        **{key: record.get(key) for key in ABOUT},
        "previous": release_before(standing.activations, facts.live),
        "staged": sorted({*facts.manifests} - lived - {facts.live or ""}, reverse=True),
        "lock": owner_of(standing.held) or {"user": "unknown"} if standing.held else None,
    }


def _kept(facts: Facts, standing: Standing) -> list[Data]:
    found = []
    for release in sorted(facts.manifests, reverse=True):
        good = [each for each in standing.activations if each.confirmed]
        last = last_of(standing.activations if release == facts.live else good, release)
        record = last.record if last else {}
        found.append(
            {
                "release": release,
                "digest": facts.manifests[release],
                "live": release == facts.live,
                "confirmed": bool(last and last.confirmed),
                "since": record.get("ts"),
                **{key: record.get(key) for key in ABOUT},
                "bytes": standing.sizes.get(release),
            }
        )
    return found


def _compared(member: Member) -> Data:
    facts = member.facts
    live = live_release(facts.current) if facts else None
    digest = facts.live_digest if facts else None
    nothing: Data = {"changed": {}, "missing": {}, "extra": {}, "counts": {}, "altered": False, "told": None}
    if facts and facts.live and not digest:
        nothing |= {"altered": True, "told": "its manifest is not there, or was altered"}
    return {"live": live, **nothing, **member.answer.get("difference", {}), "digest": digest}


def _differences(run: Run, data: Mapping[str, Data]) -> Data:
    """Return whether hosts serve different trees, which of them lag behind, and what mends it.

    Those lag that do not serve what most hosts do, the newer one on a tie; a host that serves nothing always does. A rollback
    is exact where they hold that release; a push brings what SOURCE is by now.
    """
    serving = {
        name: each["digest"] or (f"link {each['live']}" if each["live"] else None)
        for name, each in data.items()
    }
    counts = Counter(tree for tree in serving.values() if tree)
    newest = {
        tree: max(str(data[n]["live"]) for n, each in serving.items() if each == tree) for tree in counts
    }
    usual = max(counts, key=lambda tree: (counts[tree], newest[tree]), default=None)
    lagging = [name for name, tree in serving.items() if tree != usual]
    if not lagging:
        return {"differ": False}
    release = newest[usual] if usual else ""
    kept = all(
        facts and release in facts.manifests for facts in (run.fleet.members[n].facts for n in lagging)
    )
    words = ["rollback", release] if kept else ["push", *_source(run, release)]
    mend = shlex.join(["deployctl", *words, "-i", str(run.inventory.file), "-l", fold(lagging)])
    return {"differ": True, "usual": release, "lagging": lagging, "mend": mend}


def _source(run: Run, release: str) -> list[str]:
    """Return the SOURCE that `release` came from as far as it is known here."""
    for record in reversed(read_local(run.inventory.app)):
        if record.get("release") == release and record.get("source"):
            ref = ["--ref", str(record["commit"])] if record.get("ref") and record.get("commit") else []
            return [str(record["source"]), *ref]
    return ["SOURCE"]
