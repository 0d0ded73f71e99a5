"""The live display of a run on a terminal.

Owns when the picture is drawn and what stands above it; refuses to know its layout. It moves in `tick` alone, from the
parent's own loop: a thread that draws would hold a lock while the parent forks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import Any

from rich.text import Text

from deployctl.output.causes import Fold
from deployctl.output.frame import ASCII, UNICODE, Frame
from deployctl.output.painter import Painter, terminal_size
from deployctl.output.stream import SafeStream, log_lines, printable
from deployctl.output.summary import here_lines, summarize
from deployctl.output.view import READING, RunView, text
from deployctl.output.words import note_lines

_EVERY_S = 0.09  # between two pictures at least
_GOOD = frozenset({"released", "unchanged", "staged", "planned", "ok"})


class LiveReporter:
    """`environ` is asked for NO_COLOR, COLUMNS and LINES."""

    def __init__(
        self,
        out: SafeStream,
        err: SafeStream,
        *,
        environ: Mapping[str, str],
        verbosity: int,
        fold: Fold,
        clock: Callable[[], float],
    ) -> None:
        self._out = out
        self._err = err
        self._environ = environ
        self._verbosity = verbosity
        self._fold = fold
        self._clock = clock
        self._view = RunView(clock)
        self._painter = Painter(out, colour=not environ.get("NO_COLOR"))
        self._glyphs = UNICODE if out.can_write("".join(astuple(UNICODE))) else ASCII
        self._drawn: tuple[int, int, int] | None = None  # whole second and size of the picture on the screen
        self._drawn_s = float("-inf")
        self._changed = False

    def event(self, event: Mapping[str, Any]) -> None:
        self._view.apply(event)
        self._changed = True
        match event.get("event"):
            case "log" if self._shows_output:
                for line in log_lines(text(event, "text")):
                    self._above(self._out, f"{printable(text(event, 'host') or 'here')} | {line}", spare=True)
            case "run_finished":
                self._finish(event)
            case _:
                pass

    def note(self, level: str, text: str) -> None:
        said = [] if self._shows_output else here_lines(self._view.said_here(text))
        for line in (*said, *note_lines(level, text, self._verbosity)):
            self._above(self._err, self._told(line))

    @property
    def _shows_output(self) -> bool:
        """Whether what hooks and commands print is shown as it comes."""
        return self._verbosity > 0 or self._view.command == "run"

    def tick(self) -> None:
        self._out.drain()
        self._err.drain()
        view = self._view
        if not view.started or view.finished is not None or view.command in READING:
            return
        now_s = self._clock()
        columns, lines = terminal_size(self._out, self._environ)
        state = (int(now_s - view.begun_s), columns, lines)
        if now_s - self._drawn_s >= _EVERY_S and (self._changed or state != self._drawn):
            self._draw(now_s, columns, lines)
            self._drawn, self._changed = state, False

    def pause(self) -> None:
        self._clear()
        self._painter.restore()

    def close(self) -> None:
        """Show the cursor again; a run without an end leaves its last picture."""
        self._painter.restore()

    def _draw(self, now_s: float, columns: int, lines: int) -> None:
        # One cell and one line are left free: a terminal that wraps or scrolls early would break the picture.
        size = (max(1, columns - 1), max(1, lines - 1))
        self._drawn_s = now_s
        self._painter.paint(Frame(self._view, now_s, *size, self._fold, self._glyphs).lines(), columns)

    def _clear(self) -> None:
        self._painter.clear(terminal_size(self._out, self._environ)[0])
        self._drawn = None
        self._drawn_s = float("-inf")

    def _above(self, stream: SafeStream, line: str, *, spare: bool = False) -> None:
        """Write a line where the picture begins; the next tick draws it again below."""
        if stream is self._out or stream.isatty():
            self._clear()
        stream.line(line, spare=spare)

    def _finish(self, event: Mapping[str, Any]) -> None:
        view = self._view
        told = summarize(
            event,
            started=view.started,
            failures=view.failures,
            plans=view.plans,
            probed=view.probed,
            tails=None if self._shows_output else view.tails,
            here=() if self._shows_output else view.said_here(text(event, "message")),
            answers=view.answers,
            fold=self._fold,
        )
        self._clear()
        self._painter.restore()
        outcome = text(event, "outcome")
        good = outcome in _GOOD and not event.get("exit_code")
        for index, line in enumerate(told.lines):
            if index or view.command in READING:
                self._out.line(line)
                continue
            glyph, style = (self._glyphs.ok, "bold green") if good else (self._glyphs.failed, "bold red")
            self._out.line(self._painter.rendered(Text(f"{glyph} {line}", style=style)))
        for line in told.problems:
            self._err.line(self._told(line))

    def _told(self, line: str) -> str:
        """The word that says what kind of message it is, in colour where standard error is a terminal too."""
        colours = {
            "deployctl: error: ": "bold red",
            "deployctl: warning: ": "yellow",
            "deployctl: hint: ": "cyan",
        }
        for start, style in colours.items():
            if line.startswith(start) and self._err.isatty():
                return self._painter.rendered(Text.assemble((start, style), line.removeprefix(start)))
        return line
