"""deployctl unlock"""

from __future__ import annotations

from functools import partial

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform
from deployctl.cli.rolling import open_question
from deployctl.inventory import Inventory
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.unlock import unlock


@click.command("unlock")
@common_options
def command(common: Common) -> int:
    """Show who holds the lock on each host, and take it away after asking.

    Seldom needed: a lock dies with its run. The run that loses its lock fails before its next switch.
    """

    def action(inventory: Inventory, heard: Heard) -> Result:
        question = None if common.yes else partial(open_question, heard)
        return unlock(inventory, Options(**common.settings()), heard, question=question)

    return perform(common, "unlock", action)
