"""Check: whether every host is ready for a release, looked at before anything is sent; each host gets all its lines."""

from __future__ import annotations

from typing import Any

from deployctl.errors import Code, Exit
from deployctl.host.owner import owner_text
from deployctl.inventory import Inventory
from deployctl.model import Outcome, State
from deployctl.release.events import Observer
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.run import Run, open_run

Checks = list[dict[str, Any]]
REACHING = ("reach", "host key", "login")  # in the order in which they can fail


def check(inventory: Inventory, options: Options | None = None, observer: Observer | None = None) -> Result:
    """Look whether the inventory's hosts are ready; each host's `host` event holds its checks in `data`.

    It writes and removes a file in each deploy root, or beside one that is not there yet, and locks nothing.
    """
    with open_run("check", inventory, options or Options(), observer) as run:
        try:
            return _perform(run)
        except LeaveAtOnce:
            return run.left_at_once()


def _perform(run: Run) -> Result:
    run.fleet.tolerated = len(run.fleet.members)
    run.fleet.intolerable = frozenset()
    found: dict[str, Checks] = {}
    reached = run.reach(minor=True)
    for member in run.fleet:
        if member.trouble and not run.fleet.stopping():
            found[member.name] = not_reached(*member.trouble_as, member.trouble)
    run.fleet.each("examine", reached, minor=True)
    for member in reached:
        if "checks" in member.answer:
            found[member.name] = [*not_reached(None, None, ""), *member.answer["checks"]]
        elif member.trouble and not run.fleet.stopping():
            code, fix = member.trouble_as
            found[member.name] = [*not_reached(None, None, ""), _line("commands", member.trouble, fix, code)]
    for member in run.fleet:
        if member.name in found:
            _say(run, member, found[member.name])
    run.take_back()
    if run.loop.signals.count:
        return run.finish(Outcome.INTERRUPTED)
    failed = any(member.failed for member in run.fleet)
    return run.finish(Outcome.FAILED, code=Exit.ABORTED) if failed else run.finish(Outcome.OK)


def not_reached(code: Code | None, fix: str | None, said: str) -> Checks:
    """Return the lines on the way to a host, the last of them the failure `said`; all good without a code."""
    stop = {None: len(REACHING), Code.HOST_KEY: 1, Code.LOGIN: 2}.get(code, 0)
    lines = [_line(name, "yes", None, None) for name in REACHING[:stop]]
    return lines if code is None else [*lines, _line(REACHING[stop], said, fix, code)]


def _line(name: str, detail: str, fix: str | None, code: Code | None) -> dict[str, Any]:
    state = "ok" if code is None else "failed"
    return {"name": name, "state": state, "detail": detail, "fix": fix, "code": int(code or 0)}


def _say(run: Run, member: Member, checks: Checks) -> None:
    for line in checks:
        if line["name"] == "lock" and line["state"] == "warning":
            line["detail"] = f"held by {owner_text(line['detail'])}"
    wrong = [line for line in checks if line["state"] == "failed"]
    code = Code(wrong[0]["code"] or Code.UNEXPECTED) if wrong else Code.OK
    shown = [{key: line[key] for key in ("name", "state", "detail", "fix")} for line in checks]
    member.phase = "check"
    if not wrong:
        warned = sum(line["state"] == "warning" for line in checks)
        member.state, member.finished = State.OK, True
        member.message = "ready" + (f", {warned} warnings" if warned > 1 else ", 1 warning" if warned else "")
        run.events.host(member.name, "check", State.OK, message=member.message, data={"checks": shown})
        return
    said = "; ".join(line["detail"] for line in wrong)
    fix = next((line["fix"] for line in wrong if line["fix"]), None)
    run.fleet.fail(
        member, code, f"not ready: {said}", data={"checks": shown, **({"hint": fix} if fix else {})}
    )
