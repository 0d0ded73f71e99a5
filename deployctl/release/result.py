"""What a run came to: the value the library returns, and the rules that turn hosts' ends into one outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployctl.errors import Exit
from deployctl.model import Outcome, State


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
