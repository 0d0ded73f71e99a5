"""Options of commands that activate in batches, and the question between them."""

from __future__ import annotations

import contextlib
import os
import select
import termios
from collections.abc import Callable
from typing import Any

import click

from deployctl.cli.options import DURATION, Common
from deployctl.cli.perform import Heard
from deployctl.errors import UsageError

ROLLING = (
    click.option("--batch", metavar="LIST", help="sizes of activation batches, e.g. 1,10%,100%  [default: all at once]"),
    click.option("--batch-wait", type=DURATION, default=None, help="pause between batches"),
    click.option("--confirm", is_flag=True, help="on a terminal, ask before each batch"),
)  # fmt: skip


def rolling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --batch, --batch-wait and --confirm."""
    for option in reversed(ROLLING):
        function = option(function)
    return function


def rolling_settings(
    common: Common, heard: Heard, batch: str | None, batch_wait: float | None, confirm: bool
) -> dict[str, Any]:
    """Return them as fields of Options; UsageError when a question is wanted and nobody can be asked."""
    question = None
    if confirm and not common.yes:
        question = open_question(heard)
    return {"batch": batch, "batch_wait_s": batch_wait or 0.0, "confirm": question}


class TerminalQuestion:
    """A yes-or-no question on the terminal; an answer is taken when there is one, so nothing waits for it."""

    def __init__(self, terminal: int, heard: Heard) -> None:
        self.fd = terminal
        self._heard = heard
        self._typed = b""

    def put(self, text: str) -> None:
        self._heard.pause()
        self._typed = b""
        with contextlib.suppress(OSError, termios.error):  # the terminal is gone: `take` answers no
            termios.tcflush(self.fd, termios.TCIFLUSH)  # what was typed before is no answer
            os.write(self.fd, f"{text} [y/N] ".encode())

    def take(self) -> bool | None:
        if not select.select([self.fd], [], [], 0)[0]:
            return None
        try:
            data = os.read(self.fd, 1024)
        except OSError:  # the terminal is gone
            data = b""
        self._typed += data
        if data and b"\n" not in self._typed:
            return None
        line, _, self._typed = self._typed.partition(b"\n")
        return line.strip().lower() in {b"y", b"yes"}


def open_question(heard: Heard) -> TerminalQuestion:
    """Return a question on the controlling terminal; UsageError where there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        raise UsageError("there is no terminal to ask on", hint="answer every question with --yes") from None
    return TerminalQuestion(terminal, heard)


def sure(common: Common, heard: Heard, question: str) -> bool:
    """Ask once and wait for the answer; True with --yes."""
    if common.yes:
        return True
    asked = open_question(heard)
    try:
        asked.put(question)
        answer = None
        while answer is None:
            select.select([asked.fd], [], [])
            answer = asked.take()
        return answer
    finally:
        os.close(asked.fd)
