"""Runs one command that talks to hosts: its display, its errors, its exit code."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from deployctl.cli.options import Common
from deployctl.errors import DEFECT_HINT, DeployctlError, Exit
from deployctl.inventory import Inventory
from deployctl.inventory.ahead import read_inventory
from deployctl.model import Outcome
from deployctl.output.reporter import Reporter, make_reporter
from deployctl.release.events import Events
from deployctl.release.result import Result

REFUSALS = (Exit.INVENTORY, Exit.SOURCE, Exit.LOCKED)
# What these are called for is what they print; a push counts by what it did, whoever reads of it.
TELLING = frozenset({"status", "releases", "verify", "check", "run", "history"})
STOPS = (Exit.HUP, Exit.INT, Exit.TERM)


class Stopped(BaseException):
    """TERM or HUP came where no run was there to hear it: before its first event, or after its last."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Heard:
    """Passes everything on to the reporter and remembers whether the last word was said."""

    def __init__(self, reporter: Reporter, *, debug: bool) -> None:
        self._reporter = reporter
        self._debug = debug
        self.exit_code: Exit | None = None  # once the last word was said
        self.last_word = ""

    def event(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "run_finished":
            self.exit_code = Exit(event["exit_code"])
            self.last_word = str(event.get("message", ""))
        if not self._debug and "traceback" in event.get("data", {}):
            event = {
                **event,
                "data": {key: value for key, value in event["data"].items() if key != "traceback"},
            }
        self._reporter.event(event)
        if self._debug and "traceback" in event.get("data", {}):
            self._reporter.note("info", event["data"]["traceback"])

    def note(self, level: str, text: str) -> None:
        self._reporter.note("warning" if level == "warning" else "info", text)

    def tick(self) -> None:
        self._reporter.tick()

    def pause(self) -> None:
        """Take a live display off the terminal, for a question."""
        self._reporter.pause()


def perform(
    common: Common,
    command: str,
    action: Callable[[Inventory, Heard], Result],
    *,
    needs: Callable[[], object] = lambda: None,
) -> int:
    """Load the inventory, carry out `action` and return the exit code; the last line out is always the run's end.

    `needs` loads what the action does, while the inventory is read.
    """

    def load() -> None:
        from deployctl.release.run import load_agent  # noqa: PLC0415

        needs()
        load_agent()

    reporter = make_reporter(
        common.output,  # type: ignore[arg-type]
        verbosity=max(common.verbosity, 0) if common.debug else common.verbosity,
        stdout=sys.stdout,
        stderr=sys.stderr,
        environ=os.environ,
    )
    heard = Heard(reporter, debug=common.debug)
    try:
        with _stops_raised():
            return action(read_inventory(common.inventory_file, load), heard).exit_code
    except (KeyboardInterrupt, Stopped) as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        return _finish(heard, command, Exit(128 + number), "interrupted")
    except DeployctlError as error:
        if common.debug and error.exit_code == Exit.DEFECT:
            heard.note("info", traceback.format_exc())
        return _finish(heard, command, error.exit_code, error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run must say how it ended
        if common.debug:
            heard.note("info", traceback.format_exc())
        return _finish(heard, command, Exit.DEFECT, f"{type(error).__name__}: {error}", DEFECT_HINT)
    finally:
        reporter.close()
        if command in TELLING:
            refuse_lost_output(reporter.lost, heard.exit_code)


def refuse_lost_output(why: str | None, code: int | None) -> None:
    """DeployctlError when standard output could not be written: with the code the run had, if that was not 0."""
    if why is not None:
        error = DeployctlError(f"standard output: {why}: not all of the output is there")
        error.exit_code = Exit(code or Exit.DEFECT)
        raise error


def refuse(command: str, code: Exit, message: str, hint: str | None) -> None:
    """Say as JSON, in the one line of a run's end, why none has begun."""
    reporter = make_reporter("json", verbosity=0, stdout=sys.stdout, stderr=sys.stderr, environ=os.environ)
    _finish(Heard(reporter, debug=False), command, code, message, hint)
    reporter.close()


@contextlib.contextmanager
def _stops_raised() -> Iterator[None]:
    """Let TERM and HUP end the block as Ctrl-C does, once; while a run lasts it hears them itself."""

    def raise_it(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # until it is carried out, which takes no time
        raise Stopped(number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, raise_it)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _finish(heard: Heard, command: str, code: Exit, message: str, hint: str | None = None) -> Exit:
    """Say the run's last word and return its exit code; a last word that was said stands."""
    if heard.exit_code is not None:
        if code != heard.exit_code and message not in heard.last_word:
            heard.note("warning", f"after the end of the run: {message}")
        return heard.exit_code
    outcome = (
        Outcome.REFUSED if code in REFUSALS else Outcome.INTERRUPTED if code in STOPS else Outcome.FAILED
    )
    more = {"hint": hint} if hint else {}
    Events(heard, secrets.token_hex(8)).finished(
        command=command,
        outcome=str(outcome),
        exit_code=int(code),
        hosts={},
        bytes_sent=0,
        message=message,
        **more,
    )
    return code
