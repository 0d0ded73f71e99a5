"""deployctl activate"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, asker, common_options
from deployctl.cli.perform import perform
from deployctl.release.activate import activate
from deployctl.release.run import Options


@click.command("activate")
@click.argument("release")
@common_options
@click.option("--message", metavar="TEXT", help="kept in the history")
def command(common: Common, release: str, message: str | None) -> int:
    """Make RELEASE, an id or a digest prefix, live on every host that holds it."""
    options = Options(
        limit=common.limit,
        forks=common.forks,
        timeout_s=common.timeout,
        ask_pass=common.ask_pass,
        ask=asker(),
        message=message,
    )
    return perform(common, "activate", lambda inventory, heard: activate(inventory, release, options, heard))
