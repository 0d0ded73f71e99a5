"""deployctl verify"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import perform
from deployctl.release.options import Options
from deployctl.release.reading import verify


@click.command("verify")
@common_options
def command(common: Common) -> int:
    """Compare the live files on every host with the release's manifest.

    A changed or missing file, or hosts that differ: exit code 22. A file that came in addition is only reported.
    """
    options = Options(**common.settings())
    return perform(common, "verify", lambda inventory, heard: verify(inventory, options, heard))
