"""Run: one command on every host, each for itself; what one of them makes of it stops no other."""

from __future__ import annotations

from typing import Any

from deployctl.errors import Exit
from deployctl.inventory import Inventory
from deployctl.model import Outcome
from deployctl.release.events import Observer
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.run import Run, open_run


def run_command(
    inventory: Inventory, command: str, options: Options | None = None, observer: Observer | None = None
) -> Result:
    """Run `command` (text for `sh -c`) on the inventory's hosts, as many at once as there are workers."""
    with open_run("run", inventory, options or Options(), observer) as run:
        try:
            return _perform(run, command)
        except LeaveAtOnce:
            return run.left_at_once()


def _perform(run: Run, command: str) -> Result:
    run.fleet.tolerated = len(run.fleet.members)
    run.fleet.intolerable = frozenset()

    def told(member: Member) -> dict[str, Any]:
        known = {"DEPLOYCTL_APP": run.inventory.app, "DEPLOYCTL_HOST": member.name}
        return {"command": command, "environment": known}

    members = run.reach()
    run.fleet.each("run", members, told)
    for member in members:
        member.finished = "status" in member.answer
    run.take_back()
    if run.loop.signals.count:
        return run.finish(Outcome.INTERRUPTED)
    failed = any(member.failed for member in run.fleet)
    return run.finish(Outcome.FAILED, code=Exit.ABORTED) if failed else run.finish(Outcome.OK)
