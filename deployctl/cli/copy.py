"""deployctl copy"""

from __future__ import annotations

import sys

import click

from deployctl.cli.options import Common, common_options
from deployctl.cli.perform import Heard, perform
from deployctl.errors import UsageError
from deployctl.inventory import Inventory
from deployctl.release.copy import copy
from deployctl.release.options import Options
from deployctl.release.result import Result


@click.command("copy")
@click.argument("file")
@click.argument("dest")
@common_options
def command(common: Common, file: str, dest: str) -> int:
    """Put FILE, or standard input for -, at DEST on every host, or on none.

    DEST that ends in / or is a directory there gets the name of FILE; a relative one begins in the login user's home.
    A file that is there already is replaced by a rename, and put back if another host fails.
    """

    def action(inventory: Inventory, heard: Heard) -> Result:
        if file == "-" and sys.stdin is None:  # else a closed one would be read as an empty file
            raise UsageError("standard input is closed: there is nothing to copy")
        return copy(inventory, file, dest, Options(**common.settings()), heard)

    return perform(common, "copy", action)
