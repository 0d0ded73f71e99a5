"""Events as JSON, one line each, for programs.

Owns the lines on standard output; nothing else goes there. What people should read goes to standard error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from deployctl.output.causes import Fold
from deployctl.output.stream import SafeStream
from deployctl.output.summary import summarize
from deployctl.output.view import RunView
from deployctl.output.words import note_lines


class JsonReporter:
    def __init__(
        self, out: SafeStream, err: SafeStream, *, verbosity: int, fold: Fold, clock: Callable[[], float]
    ) -> None:
        self._out = out
        self._err = err
        self._verbosity = verbosity
        self._fold = fold
        self._view = RunView(clock)

    def event(self, event: Mapping[str, Any]) -> None:
        self._out.line(as_line(event), spare=event.get("event") == "log")
        self._view.apply(event)
        if event.get("event") == "run_finished":
            view = self._view
            told = summarize(event, started=view.started, failures=view.failures, fold=self._fold)
            for line in told.problems:
                self._err.line(line)

    def note(self, level: str, text: str) -> None:
        for line in note_lines(level, text, self._verbosity):
            self._err.line(line)

    def tick(self) -> None:
        self._out.drain()
        self._err.drain()

    def pause(self) -> None:
        """Nothing stands in the way of a question."""

    def close(self) -> None:
        """Nothing is kept back here."""


def as_line(event: Mapping[str, Any]) -> str:
    """One line of ASCII: other letters, undecodable bytes included, as escapes; a number JSON lacks is null."""
    try:
        return json.dumps(event, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_plain(event), allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
