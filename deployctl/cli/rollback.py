"""deployctl rollback"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform
from deployctl.cli.rolling import rolling_options, rolling_settings
from deployctl.inventory import Inventory
from deployctl.release.result import Result
from deployctl.release.rollback import RollbackOptions, rollback


@click.command("rollback")
@click.argument("release", required=False)
@common_options
@rolling_options
@click.option("--force", is_flag=True, help="go back even to a release that was edited on a host")
@click.option("--message", metavar="TEXT", help="kept in the history")
def command(
    common: Common,
    release: str | None,
    batch: str | None,
    batch_wait: float | None,
    confirm: bool,
    force: bool,
    message: str | None,
) -> int:
    """Make RELEASE, an id or a digest prefix, live again; by default the one before.

    Every selected host must hold it whole, or nothing is changed. Twice in a row returns to where one was.
    """

    def action(inventory: Inventory, heard: Heard) -> Result:
        rolling = rolling_settings(common, heard, batch, batch_wait, confirm)
        options = RollbackOptions(**common.settings(), **rolling, force=force, message=message)
        return rollback(inventory, release, options, heard)

    return perform(common, "rollback", action)
