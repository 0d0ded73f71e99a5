"""Ends of a run that nobody planned: an error that is no host's, a second signal.

Owns what is done then and what the run came to; `Run.finish` says it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deployctl.errors import DEFECT_HINT, DeployctlError, Exit
from deployctl.model import Outcome, State
from deployctl.release.loop import LeaveAtOnce

if TYPE_CHECKING:
    from deployctl.release.member import Member
    from deployctl.release.run import Run


def break_off(run: Run, error: Exception) -> None:
    """End a run that SOURCE, a wrong call, this machine or a defect of ours has stopped.

    What it had switched is put back, unless it was live everywhere by then. One that has told its end itself is left so.
    """
    if run.ended:
        return
    touched = [member for member in run.fleet if member.may_have_switched]
    if touched and run.changed and not run.fleet.stopping():
        for member in touched:
            member.state, member.finished = State.OK, True
        done = Outcome.RELEASED if run.activating else Outcome.OK
        outcome, said = _try(run, done, lambda: (done, ""))
    else:
        outcome, said = _try(run, Outcome.ABORTED, run.came_to, back=True)
    ours = error if isinstance(error, DeployctlError) else None
    code = ours.exit_code if ours else Exit.DEFECT
    if outcome is Outcome.ABORTED and code is Exit.SOURCE:
        outcome = Outcome.REFUSED
    elif outcome is Outcome.ABORTED and (run.fleet.speaks_as or code is Exit.USAGE):
        outcome = Outcome.FAILED
    message = ours.message if ours else f"{type(error).__name__}: {error}"
    hint = ours.hint if ours else DEFECT_HINT
    run.finish(
        outcome,
        # 22 goes before all others, and "no live host changed" is not true of hosts that were switched back.
        code=None
        if outcome is Outcome.MIXED or (outcome, code) == (Outcome.REVERTED, Exit.ABORTED)
        else code,
        message="\n".join(part for part in (message, said) if part),
        **({"hint": hint} if hint else {}),
    )


def _try(
    run: Run, otherwise: Outcome, read: Callable[[], tuple[Outcome, str]], *, back: bool = False
) -> tuple[Outcome, str]:
    """Take back what can be and return what `read` says then, or what is left to say when that can't be done."""
    try:
        run.fleet.halt()
        if back and run.way_back:
            run.way_back()
        run.take_back()
    except LeaveAtOnce:
        pass
    except Exception as again:  # noqa: BLE001 - what broke the run off may stand in the way still
        run.events.note("warning", f"while the run was ended: {type(again).__name__}: {again}")
    else:
        return read()
    return (Outcome.MIXED if let_go(run) else otherwise), ""


def let_go(run: Run) -> list[Member]:
    """Leave everything at once; return the hosts that may serve either release."""
    for number in run.loop.crew.workers:
        run.loop.crew.kill(number, "was stopped")
    for member in run.fleet:
        member.locked = False  # the locks end with the connections
    run.hooked = False
    unsure = [m for m in run.fleet if m.may_have_switched and not m.finished and m.state != State.REVERTED]
    for member in unsure:
        member.live = None
    run.say_ends(unsure)
    return unsure
