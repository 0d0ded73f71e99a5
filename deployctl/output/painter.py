"""Puts one picture over the other on a terminal.

Owns the control codes. A picture is written over the last one in a single write, line by line, and only what is left over is
erased: nothing flickers, the top line stays where it is. No thread, no alternate screen.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from deployctl.output.stream import SafeStream

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_TO_LINE_END, _TO_SCREEN_END = "\x1b[K", "\x1b[J"


class Painter:
    """`colour` False: bold and dim only, as NO_COLOR asks."""

    def __init__(self, out: SafeStream, *, colour: bool) -> None:
        self._out = out
        self._buffer = io.StringIO()
        # Sizes, colours and the rest are given, so that rich asks neither the environment nor the terminal.
        self._console = Console(
            file=self._buffer,
            force_terminal=True,
            force_jupyter=False,
            color_system="standard",  # the colours the user chose for their terminal
            no_color=not colour,
            legacy_windows=False,
            width=1000,
            height=100,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._widths: list[int] = []  # of the lines on the screen
        self._columns = 0  # of the terminal when they were written
        self._hidden = False

    def paint(self, lines: Sequence[Text], columns: int) -> None:
        """Replace the picture on the screen; skipped while the terminal takes no more."""
        if not self._out.idle():
            return
        text = self._home(columns) if self._hidden else _HIDE + self._home(columns)
        self._hidden = True
        text += "".join(f"{self.rendered(line)}{_TO_LINE_END}\n" for line in lines) + _TO_SCREEN_END
        self._widths = [line.cell_len for line in lines]
        self._columns = columns
        self._out.write(text)

    def clear(self, columns: int) -> None:
        """Take the picture off the screen and leave the cursor where it began."""
        if self._widths:
            self._out.write(self._home(columns) + _TO_SCREEN_END)
            self._widths = []

    def restore(self) -> None:
        """Show the cursor again."""
        if self._hidden:
            self._hidden = False
            self._out.write(_SHOW)

    def rendered(self, line: Text) -> str:
        self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text

    def _home(self, columns: int) -> str:
        """To the first cell of the picture; when the terminal got narrower, it broke the old lines into several."""
        if not self._widths:
            return ""
        up = sum(max(1, -(-width // columns)) for width in self._widths)
        return f"\x1b[{up}A\r" + (_TO_SCREEN_END if columns != self._columns else "")


def terminal_size(out: SafeStream, environ: Mapping[str, str]) -> tuple[int, int]:
    """Columns and lines: of the terminal, else as the environment says, else 80 by 24."""
    columns = lines = 0
    number = out.fileno()
    if number is not None:
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(number)
    return columns or _positive(environ.get("COLUMNS")) or 80, lines or _positive(environ.get("LINES")) or 24


def _positive(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0
