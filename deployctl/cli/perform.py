"""Runs one command that talks to hosts: its display, its errors, its exit code."""

from __future__ import annotations

import os
import secrets
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from deployctl.cli.options import Common
from deployctl.errors import DEFECT_HINT, DeployctlError, Exit
from deployctl.inventory import Inventory, load_inventory
from deployctl.model import Outcome
from deployctl.output.reporter import Reporter, make_reporter
from deployctl.release.events import Events
from deployctl.release.result import Result

REFUSALS = (Exit.INVENTORY, Exit.SOURCE, Exit.LOCKED)


class Heard:
    """Passes everything on to the reporter and remembers whether the last word was said."""

    def __init__(self, reporter: Reporter, *, debug: bool) -> None:
        self._reporter = reporter
        self._debug = debug
        self.finished = False

    def event(self, event: Mapping[str, Any]) -> None:
        self.finished |= event["event"] == "run_finished"
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


def perform(common: Common, command: str, action: Callable[[Inventory, Heard], Result]) -> int:
    """Load the inventory, carry out `action` and return the exit code; the last line out is always the run's end."""
    reporter = make_reporter(
        common.output,  # type: ignore[arg-type]
        verbosity=common.verbosity,
        stdout=sys.stdout,
        stderr=sys.stderr,
        environ=os.environ,
    )
    heard = Heard(reporter, debug=common.debug)
    try:
        return action(load_inventory(common.inventory_file), heard).exit_code
    except DeployctlError as error:
        _finish(heard, command, error.exit_code, error.message, error.hint)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the run must say how it ended
        if common.debug:
            heard.note("info", traceback.format_exc())
        _finish(heard, command, Exit.DEFECT, f"{type(error).__name__}: {error}", DEFECT_HINT)
        return Exit.DEFECT
    finally:
        reporter.close()


def _finish(heard: Heard, command: str, code: Exit, message: str, hint: str | None) -> None:
    if heard.finished:
        return
    outcome = Outcome.REFUSED if code in REFUSALS else Outcome.FAILED
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
