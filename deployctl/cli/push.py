"""deployctl push"""

from __future__ import annotations

from typing import Any

import click

from deployctl.cli.options import SIZE, Common, common_options
from deployctl.cli.perform import Heard, perform
from deployctl.cli.rolling import rolling_options, rolling_settings
from deployctl.inventory import Inventory
from deployctl.release.result import Result


@click.command("push")
@click.argument("source")
@common_options
@click.option("--ref", metavar="REF", help="a branch, tag or commit of the git repository at SOURCE")
@click.option("--dry-run", is_flag=True, help="connect, compare, say what would be sent; change nothing")
@click.option("--no-activate", is_flag=True, help="stop once every host is staged; print the release id")
@click.option(
    "--max-failures", metavar="N|N%", help="how many hosts may fail before anything is live  [default: 0]"
)
@rolling_options
@click.option(
    "--limit-rate",
    "limit_rate_bytes_s",
    type=SIZE,
    metavar="SIZE",
    help="bytes a second for all uploads together  [default: no limit]",
)
@click.option("--force", is_flag=True, help="release even if every host already serves exactly this tree")
@click.option("--allow-empty", is_flag=True, help="SOURCE may be empty")
@click.option("--message", metavar="TEXT", help="kept in the history")
def command(
    common: Common,
    source: str,
    no_activate: bool,
    batch: str | None,
    batch_wait: float | None,
    confirm: bool,
    **values: Any,
) -> int:
    """Put SOURCE on every host and make it live, or change nothing.

    SOURCE is a directory, a .tar, .tar.gz, .tgz, .tar.zst or .zip archive, or one file.
    """

    def action(inventory: Inventory, heard: Heard) -> Result:
        from deployctl.release.push import PushOptions, push  # noqa: PLC0415 - see load_push

        options = PushOptions(
            **common.settings(),
            **rolling_settings(common, heard, batch, batch_wait, confirm),
            activate=not no_activate,
            **values,
        )
        return push(inventory, source, options, heard)

    return perform(common, "push", action, needs=load_push)


def load_push() -> None:
    """Load what pushes: not before the inventory is being read elsewhere."""
    import deployctl.release.push  # noqa: F401, PLC0415
