"""deployctl status"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import perform
from deployctl.release.options import Options
from deployctl.release.reading import status


@click.command("status")
@common_options
def command(common: Common) -> int:
    """Say what is live on every host, since when, by whom, and where hosts differ (exit code 22)."""
    options = Options(**common.settings())
    return perform(common, "status", lambda inventory, heard: status(inventory, options, heard))
