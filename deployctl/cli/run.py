"""deployctl run"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform, refuse_lost_output
from deployctl.inventory import Inventory, fold
from deployctl.output.gather import Gathered
from deployctl.output.stream import SafeStream
from deployctl.release.everyday import run_command
from deployctl.release.options import Options
from deployctl.release.result import Result


class Gatherer:
    """Passes everything on but what the command printed, which it says before the end of the run."""

    def __init__(self, heard: Heard, out: SafeStream) -> None:
        self._heard = heard
        self._out = out
        self._gathered = Gathered()
        self._hosts: list[str] = []

    def event(self, event: Mapping[str, Any]) -> None:
        if self._gathered.take(event):
            return
        if event["event"] == "run_started":
            self._hosts = list(event["hosts"])
        if event["event"] == "run_finished":
            self._heard.pause()
            for line in self._gathered.lines(self._hosts, fold):
                self._out.line(line)
            self._out.drain(wait=True)
        self._heard.event(event)

    def note(self, level: str, text: str) -> None:
        self._heard.note(level, text)

    def tick(self) -> None:
        self._heard.tick()


@click.command("run")
@click.argument("words", metavar="-- COMMAND", nargs=-1, required=True)
@common_options
@click.option("-g", "--gather", is_flag=True, help="hosts that print the same share it, once all have ended")
def command(common: Common, words: tuple[str, ...], gather: bool) -> int:
    """Run one command on every host, and show its output with the host's name.

    Several words are joined by blanks, as ssh does it; the whole goes to `sh -c` in the login user's home. It has
    no standard input. The exit code is 0 when it ended with 0 on every host, else 20.
    """
    out = SafeStream(sys.stdout)
    gathers = gather and common.output != "json" and not common.quiet

    def action(inventory: Inventory, heard: Heard) -> Result:
        observer = Gatherer(heard, out) if gathers else heard
        return run_command(inventory, " ".join(words), Options(**common.settings()), observer)

    code = perform(common, "run", action)
    refuse_lost_output(out.lost, code)
    return code
