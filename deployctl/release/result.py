"""What a run came to: the value the library returns, and the rules that turn hosts' ends into one outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployctl.errors import Exit
from deployctl.inventory import fold
from deployctl.model import Outcome, State
from deployctl.release.member import Member


@dataclass(frozen=True, slots=True)
class HostResult:
    """One host's end; `live` is the release it serves now, None for none or unknown."""

    state: str
    code: int
    message: str
    live: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to; `hosts` by name, durations in seconds."""

    outcome: Outcome
    exit_code: Exit
    run: str
    release: str | None
    hosts: Mapping[str, HostResult]
    bytes_sent: int = 0
    elapsed_s: float = 0.0
    skew_s: float | None = None
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> Mapping[str, HostResult]:
        return {name: host for name, host in self.hosts.items() if host.state == State.OK}

    @property
    def failed(self) -> Mapping[str, HostResult]:
        return {name: host for name, host in self.hosts.items() if host.state == State.FAILED}


def exit_code(outcome: Outcome, signal_exit: Exit | None) -> Exit:
    """Return the exit code: hosts that differ first, then a signal, then the rest."""
    if outcome is Outcome.MIXED:
        return Exit.MIXED
    if signal_exit is not None and outcome in {Outcome.INTERRUPTED, Outcome.ABORTED, Outcome.REVERTED}:
        return signal_exit
    return {
        Outcome.ABORTED: Exit.ABORTED,
        Outcome.REVERTED: Exit.REVERTED,
        Outcome.INTERRUPTED: Exit.INT,
    }.get(outcome, Exit.OK)


def came_to(members: Iterable[Member], touched: Sequence[Member], release: str | None) -> tuple[Outcome, str]:
    """Return what a failed activation came to, and what is to be said of hosts that another run has switched meanwhile.

    By what hosts serve now; `touched` are those of the `members` on which a switch to `release` may have begun.
    """
    ours = f"releases/{release}"
    seen = [member for member in members if member.facts and member.live_known]
    moved = [member for member in seen if member.live not in {member.before, ours}]
    said = ""
    if moved:
        said = f"another run has switched {fold(member.name for member in moved)} meanwhile; that is left as it is"
    if (
        (moved and len({member.live for member in seen}) > 1)
        or any(m.reload_failed or not m.live_known for m in touched)
        or any(m.live != m.before and (m.switched or m.live == ours) for m in touched)
    ):
        return Outcome.MIXED, said
    return (Outcome.REVERTED if any(m.switched for m in touched) else Outcome.ABORTED), said
