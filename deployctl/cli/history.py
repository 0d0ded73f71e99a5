"""deployctl history"""

from __future__ import annotations

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import perform
from deployctl.release.options import Options
from deployctl.release.reading import history


@click.command("history")
@common_options
@click.option("--local", is_flag=True, help="only what is written here; no host is asked")
@click.option(
    "--last", type=click.IntRange(1, 1000), metavar="N", default=20, show_default=True, help="runs shown"
)
def command(common: Common, local: bool, last: int) -> int:
    """Say what was released, when, by whom and with which outcome, newest first.

    What is written here of every run on the inventory's hosts, those of --limit alone, is put together with what they tell.
    """
    options = Options(**common.settings())
    return perform(
        common, "history", lambda inventory, heard: history(inventory, options, heard, local=local, last=last)
    )
