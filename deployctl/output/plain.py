"""Events as lines of a log: CI, files, pipes, terminals that cannot move their cursor.

Owns these lines: at most one for each change of a host's state, never a control code. Refuses to know of terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from deployctl.output import numbers
from deployctl.output.causes import Fold
from deployctl.output.stream import SafeStream, log_lines, printable
from deployctl.output.summary import here_lines, plan_text, summarize
from deployctl.output.view import READING, RunView, number, text
from deployctl.output.words import note_lines, progress_line, start_line

_PROGRESS_EVERY_S = 10.0
_HIDDEN_OK = frozenset({"connect", "clean"})  # begin and end of every host's work: told with -v only


class PlainReporter:
    """`timezone` None is the local one."""

    def __init__(
        self,
        out: SafeStream,
        err: SafeStream,
        *,
        verbosity: int,
        fold: Fold,
        clock: Callable[[], float],
        timezone: tzinfo | None = None,
    ) -> None:
        self._out = out
        self._err = err
        self._verbosity = verbosity
        self._fold = fold
        self._clock = clock
        self._timezone = timezone
        self._view = RunView(clock)
        self._width = 0
        self._progress_s: float | None = None

    def event(self, event: Mapping[str, Any]) -> None:
        self._view.apply(event)
        match event.get("event"):
            case "run_started":
                self._width = min(40, max((len(name) for name in self._view.hosts), default=0))
                self._progress_s = self._clock()
                if self._verbosity >= 0 and self._view.command not in READING:
                    self._out.line(f"{self._time(event)} {start_line(event, self._fold)}")
            case "host":
                if self._shown(event):
                    self._out.line(f"{self._time(event)} {host_line(event, self._width)}")
            case "log" if self._verbosity >= 0:
                for line in log_lines(text(event, "text")):
                    self._out.line(f"{printable(text(event, 'host') or 'here')} | {line}", spare=True)
            case "progress":
                self._progress()
            case "run_finished":
                self._finish(event)
            case _:
                pass

    def note(self, level: str, text: str) -> None:
        said = here_lines(self._view.said_here(text)) if self._verbosity < 0 else []  # else it was shown
        for line in (*said, *note_lines(level, text, self._verbosity)):
            self._err.line(line)

    def tick(self) -> None:
        self._out.drain()
        self._err.drain()
        self._progress()

    def pause(self) -> None:
        """Nothing stands in the way of a question."""

    def close(self) -> None:
        """Nothing is kept back here."""

    def _shown(self, event: Mapping[str, Any]) -> bool:
        state, phase = text(event, "state"), text(event, "phase")
        if state == "failed":
            return True
        if self._verbosity < 0 or self._view.command in READING:
            return False
        planned = phase == "probe" and "action" in (event.get("data") or {})  # the summary tells the plans
        hidden = state in {"running", "skipped"} or (state == "ok" and (phase in _HIDDEN_OK or planned))
        return self._verbosity > 0 or not hidden

    def _progress(self) -> None:
        if self._progress_s is None or self._view.finished is not None or self._verbosity < 0:
            return
        now = self._clock()
        if now - self._progress_s >= _PROGRESS_EVERY_S and self._view.hosts:
            self._progress_s = now
            at = datetime.now(self._timezone or UTC).astimezone(self._timezone)
            self._out.line(f"{at:%H:%M:%S} {progress_line(self._view, self._fold)}")

    def _finish(self, event: Mapping[str, Any]) -> None:
        view = self._view
        told = summarize(
            event,
            started=view.started,
            failures=view.failures,
            plans=view.plans,
            probed=view.probed,
            tails=view.tails if self._verbosity < 0 else None,
            here=view.said_here(text(event, "message")) if self._verbosity < 0 else (),
            answers=view.answers,
            fold=self._fold,
        )
        for line in told.lines:
            self._out.line(line)
        for line in told.problems:
            self._err.line(line)

    def _time(self, event: Mapping[str, Any]) -> str:
        try:
            at = datetime.fromisoformat(text(event, "ts"))
        except ValueError:
            at = datetime.now(UTC)
        return f"{at.astimezone(self._timezone):%H:%M:%S}"


def host_line(event: Mapping[str, Any], width: int) -> str:
    """`web01 upload   ok           1.2 s  12.4 MB`; `width` is that of the longest host name."""
    state, data = text(event, "state"), event.get("data")
    elapsed = event.get("elapsed_s")
    took = numbers.seconds(elapsed) if isinstance(elapsed, (int, float)) and state != "running" else ""
    parts = [f"{text(event, 'host'):<{width}} {text(event, 'phase'):<8} {state:<9} {took:>8}"]
    if state == "ok" and isinstance(data, Mapping):
        if text(event, "phase") == "probe" and "action" in data:
            parts.append(plan_text(data))
        elif number(data, "bytes"):
            parts.append(numbers.size(number(data, "bytes")))
    message = text(event, "message")
    if message and message != "success":
        parts.append(message)
    return printable("  ".join(parts).rstrip())
