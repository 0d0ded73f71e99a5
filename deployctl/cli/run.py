"""deployctl run"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform
from deployctl.inventory import Inventory
from deployctl.release.everyday import run_command
from deployctl.release.options import Options
from deployctl.release.result import Result


@click.command("run")
@click.argument("words", metavar="-- COMMAND", nargs=-1, required=True)
@common_options
def command(common: Common, words: tuple[str, ...]) -> int:
    """Run one command on every host, and show its output with the host's name.

    Several words are joined by blanks, as ssh does it; the whole goes to `sh -c` in the login user's home. It has
    no standard input. The exit code is 0 when it ended with 0 on every host, else 20.
    """

    def action(inventory: Inventory, heard: Heard) -> Result:
        return run_command(inventory, " ".join(words), Options(**common.settings()), heard)

    return perform(common, "run", action)
