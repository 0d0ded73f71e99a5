"""deployctl prune"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform
from deployctl.inventory import Inventory
from deployctl.release.options import Options
from deployctl.release.prune import prune
from deployctl.release.result import Result


@click.command("prune")
@common_options
def command(common: Common) -> int:
    """Delete releases beyond `keep` on every host, and leftovers of dead runs.

    The live release, the one before it and what `push --no-activate` staged within a week stay in any case.
    """

    def action(inventory: Inventory, heard: Heard) -> Result:
        return prune(inventory, Options(**common.settings()), heard)

    return perform(common, "prune", action)
