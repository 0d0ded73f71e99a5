"""What shows a run: the interface, and the choice of one.

Owns the choice between live, plain and JSON; refuses to know how each looks. The parent forks, so nothing here starts a
thread: a live display moves in `tick` alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, TextIO

from deployctl.output.causes import Fold
from deployctl.output.jsonlines import JsonReporter
from deployctl.output.plain import PlainReporter
from deployctl.output.stream import SafeStream

Mode = Literal["auto", "live", "plain", "json"]
Level = Literal["warning", "info"]


class Reporter(Protocol):
    """An observer of one run; no method raises, whatever becomes of the streams."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Take the next event: a JSON object of the contract."""

    def note(self, level: Level, text: str) -> None:
        """Tell people something, on standard error."""

    def tick(self) -> None:
        """Give the display its turn, about ten times a second."""

    def pause(self) -> None:
        """Take a live display off the terminal, for a question; the next `tick` or `event` brings it back."""

    def close(self) -> None:
        """Write what is left and restore the terminal; may wait for a slow reader, so let go of locks before."""


def make_reporter(
    mode: Mode,
    *,
    verbosity: int,
    stdout: TextIO | None,
    stderr: TextIO | None,
    environ: Mapping[str, str],
    fold: Fold | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Guarded:
    """Choose how a run is shown; `verbosity` is -1 quiet, 0, or 1 and more. A stream may be None: closed.

    `auto` is live on a terminal that can move its cursor and is no CI log, else plain. `live` without such a terminal is
    plain. Quiet is plain as well.
    """
    out, err = SafeStream(stdout), SafeStream(stderr)
    fold = fold or _inventory_fold
    chosen = _resolve(mode, out, environ, verbosity)
    if chosen == "json":
        return Guarded(JsonReporter(out, err, verbosity=verbosity, fold=fold, clock=clock), out, err)
    if chosen == "live":
        from deployctl.output.live import LiveReporter  # noqa: PLC0415 - rich costs 60 ms: only who looks pays

        live = LiveReporter(out, err, environ=environ, verbosity=verbosity, fold=fold, clock=clock)
        return Guarded(live, out, err)
    return Guarded(PlainReporter(out, err, verbosity=verbosity, fold=fold, clock=clock), out, err)


def _resolve(mode: Mode, out: SafeStream, environ: Mapping[str, str], verbosity: int) -> Mode:
    if mode in {"json", "plain"}:
        return mode
    able = out.isatty() and environ.get("TERM", "dumb") not in {"dumb", "unknown", ""}
    if mode == "auto":
        able = able and environ.get("CI", "").lower() in {"", "0", "false"} and verbosity >= 0
    return "live" if able else "plain"


def _inventory_fold(names: Iterable[str]) -> str:
    from deployctl.inventory import fold  # noqa: PLC0415 - reading inventories costs pydantic; showing a refusal should not

    return fold(names)


class Guarded:
    """Keeps a defect in the display from ending a release: it is told once, and the run goes on."""

    def __init__(self, inner: Reporter, out: SafeStream, err: SafeStream) -> None:
        self._inner = inner
        self._out = out
        self._err = err
        self._told = False
        self._told_slow = False

    @property
    def lost(self) -> str | None:
        """Why standard output could not be written, None when all of it was."""
        return self._out.lost or ("its reader was too slow" if self._out.left_out else None)

    def event(self, event: Mapping[str, Any]) -> None:
        self._call(self._inner.event, event)

    def note(self, level: Level, text: str) -> None:
        self._call(self._inner.note, level, text)

    def tick(self) -> None:
        self._call(self._inner.tick)

    def pause(self) -> None:
        self._call(self._inner.pause)

    def close(self) -> None:
        self._call(self._inner.close)
        self._out.drain(wait=True)
        self._err.drain(wait=True)

    def _call(self, method: Callable[..., None], *arguments: object) -> None:
        try:
            method(*arguments)
        except Exception as error:  # noqa: BLE001 - a release in flight matters more than its display
            if not self._told:
                self._told = True
                self._err.line(f"deployctl: warning: the display failed: {type(error).__name__}: {error}")
        if self._out.left_out and not self._told_slow:
            self._told_slow = True
            self.note(
                "warning",
                "the reader of standard output is far behind: output of hooks and commands is left out",
            )
