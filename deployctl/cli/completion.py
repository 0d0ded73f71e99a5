"""deployctl completion: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from deployctl.errors import Exit, UsageError

VARIABLE = "_DEPLOYCTL_COMPLETE"  # the one that click looks for under this program's name


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the completion script of a shell: bash (4.4 or newer), zsh or fish.

    \b
    ~/.bashrc:                   eval "$(deployctl completion bash)"
    ~/.zshrc, after compinit:    eval "$(deployctl completion zsh)"
    ~/.config/fish/config.fish:  deployctl completion fish | source
    """  # noqa: D301 - click's mark for lines that stay as they are
    completion = get_completion_class(shell)
    if completion is None:
        raise UsageError(f"the installed click completes nothing for {shell}")
    click.echo(completion(context.find_root().command, {}, "deployctl", VARIABLE).source(), nl=False)
    return Exit.OK
