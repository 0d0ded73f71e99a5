"""deployctl activate"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform
from deployctl.cli.rolling import rolling_options, rolling_settings
from deployctl.inventory import Inventory
from deployctl.release.activate import activate
from deployctl.release.options import Options
from deployctl.release.result import Result


@click.command("activate")
@click.argument("release")
@common_options
@rolling_options
@click.option("--message", metavar="TEXT", help="kept in the history")
def command(
    common: Common,
    release: str,
    batch: str | None,
    batch_wait: float | None,
    confirm: bool,
    message: str | None,
) -> int:
    """Make RELEASE, an id or a digest prefix, live on every host that holds it."""

    def action(inventory: Inventory, heard: Heard) -> Result:
        rolling = rolling_settings(common, heard, batch, batch_wait, confirm)
        options = Options(**common.settings(), **rolling, message=message)
        return activate(inventory, release, options, heard)

    return perform(common, "activate", action)
