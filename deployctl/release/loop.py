"""The parent's one loop: everything it waits for, it waits for here."""

from __future__ import annotations

from collections.abc import Iterable

from deployctl.engine.crew import Arrival, Crew
from deployctl.release.events import Events
from deployctl.release.signals import StopSignals

TURN_S = 0.1  # so often a live display moves


class LeaveAtOnce(Exception):  # noqa: N818 - a decision of the user, no error
    """A second signal: leave now, whatever is under way."""


class Loop:
    """Turns of waiting on workers and signals, with the display refreshed in between."""

    def __init__(self, crew: Crew, events: Events, signals: StopSignals) -> None:
        self.crew = crew
        self.events = events
        self.signals = signals

    def turn(self, timeout_s: float = TURN_S, also: Iterable[int] = ()) -> list[Arrival]:
        """Wait for what comes next, `timeout_s` at most; LeaveAtOnce on a second signal."""
        arrivals = self.crew.poll(timeout_s, also=[self.signals.fd, *also])
        self.signals.drain()
        if self.signals.count > 1:
            raise LeaveAtOnce
        self.events.tick()
        return arrivals
