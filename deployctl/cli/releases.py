"""deployctl releases"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import perform
from deployctl.release.options import Options
from deployctl.release.reading import releases


@click.command("releases")
@common_options
def command(common: Common) -> int:
    """Say which releases the hosts keep, newest first: who holds and who serves them."""
    options = Options(**common.settings())
    return perform(common, "releases", lambda inventory, heard: releases(inventory, options, heard))
