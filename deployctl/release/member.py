"""One host of a run as the parent knows it: what it was told, what it answered, what it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deployctl.errors import Code
from deployctl.host.facts import Facts
from deployctl.host.layout import live_release
from deployctl.model import Phase, State


@dataclass(slots=True, eq=False)  # each is one host: to compare thousands field by field takes seconds
class Member:
    """`failed` is the cause and final; `live` is the text of `current` as far as known."""

    name: str
    hop: str
    worker: int | None = None
    phase: str = Phase.CONNECT
    state: State | None = None  # None: never contacted
    code: Code = Code.OK
    message: str = "success"
    hint: str | None = None
    facts: Facts | None = None
    live: str | None = None
    live_known: bool = False
    connecting: bool = False
    doing: str | None = None
    trouble: str | None = None  # why the last command that changes no host's end did not end well
    trouble_as: tuple[Code, str | None] = (Code.WORKER_DIED, None)  # its kind, and what to do
    heard_at: float = 0.0
    timeout_s: float = 0.0
    reached: bool = True  # whether the last command may have come as far as the host
    may_have_switched: bool = False
    switched: bool = False  # it counts as one that did
    failed_in: str | None = None  # the phase
    reload_failed: bool = False  # it was switched back, but a hook of the release that is back failed
    locked: bool = False
    staged: bool = False  # something of this run may be on the host
    holds: bool = False  # the whole release, verified
    finished: bool = False  # nothing more is wanted from its worker
    upload_bytes: tuple[int, int] = (0, 0)  # done, total
    sent_bytes: int = 0
    answer: dict[str, Any] = field(default_factory=dict)  # data of the last command that ended well

    @property
    def failed(self) -> bool:
        return self.state is State.FAILED

    @property
    def before(self) -> str | None:
        """The text of `current` before this run."""
        return self.facts.current if self.facts else None

    def serves(self, link: str | None) -> None:
        self.live, self.live_known = link, True

    def summary(self) -> dict[str, Any]:
        """Return what `run_finished` says of this host."""
        return {
            "state": str(self.state or State.SKIPPED),
            "code": int(self.code),
            "message": self.message,
            "live": live_release(self.live) if self.live_known else None,
        }
