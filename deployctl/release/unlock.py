"""Unlock: who holds the lock on each host, and, if the answer is yes, taking it away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deployctl.errors import Exit
from deployctl.host.owner import owner_of, owner_text
from deployctl.inventory import Inventory, fold
from deployctl.model import Outcome, State
from deployctl.release.events import Observer
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options, Question
from deployctl.release.records import record
from deployctl.release.result import Result
from deployctl.release.run import Run, open_run


def unlock(
    inventory: Inventory,
    options: Options | None = None,
    observer: Observer | None = None,
    *,
    question: Callable[[], Question] | None = None,
) -> Result:
    """Take the lock away from whoever holds it, after asking when `question` gives a way to ask.

    The holder's process on the host is killed, so its run fails before its next switch. UsageError when nobody can be
    asked.
    """
    with open_run("unlock", inventory, options or Options(), observer) as run:
        try:
            return _perform(run, question)
        except LeaveAtOnce:
            return run.left_at_once()


def _perform(run: Run, question: Callable[[], Question] | None) -> Result:
    run.fleet.tolerated = len(run.fleet.members)
    run.fleet.intolerable = frozenset()
    members = run.reach()
    run.fleet.each("owner", members, together=True)
    asked = [member for member in members if "held" in member.answer]
    locked = {member.name: member.answer["held"] for member in asked if member.answer["held"]}
    for member in asked:
        if member.name not in locked:
            _say(run, member, "nobody holds the lock", {"held": None, "taken": False})
    if locked and not run.fleet.stopping():
        _take_away(run, [member for member in asked if member.name in locked], locked, question)
    run.take_back()
    if run.loop.signals.count:
        return run.finish(Outcome.ABORTED)  # which is told as interrupted
    failed = run.declined or any(member.failed for member in run.fleet)
    return run.finish(Outcome.FAILED, code=Exit.ABORTED) if failed else run.finish(Outcome.OK)


def _take_away(
    run: Run, members: list[Member], locked: dict[str, str], question: Callable[[], Question] | None
) -> None:
    for member in members:
        run.events.note("info", f"{member.name}: the lock is held by {owner_text(locked[member.name])}")
    if question is not None:
        run.options = replace(run.options, confirm=question())
        holders = "; ".join(dict.fromkeys(owner_text(line) for line in locked.values()))
        if not run.go_on(f"take the lock on {fold(locked)} away from {holders}?"):
            return

    def values(member: Member) -> dict[str, Any]:
        line = locked[member.name]
        text = record("unlock", run.events.run, "", run.author, holder=owner_of(line))
        return {"values": {"RECORD": text, "HOLDER": line.split(" ", 1)[0]}}

    run.fleet.each("break_lock", members, values, together=True)
    for member in members:
        if not member.failed and "live" in member.answer:
            holder = locked[member.name]
            _say(
                run,
                member,
                f"taken away from {owner_text(holder)}",
                {"held": owner_of(holder), "taken": True},
            )


def _say(run: Run, member: Member, message: str, data: dict[str, Any]) -> None:
    member.phase, member.state, member.message, member.finished = "unlock", State.OK, message, True
    run.events.host(member.name, "unlock", State.OK, message=message, data=data)
