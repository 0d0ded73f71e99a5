"""The command line's root: which commands there are, and what an error becomes.

A command's module is imported when that command runs, so that `--help` costs little more than click.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from deployctl import __version__
from deployctl.errors import DeployctlError, Exit

COMMANDS = {
    "push": "put SOURCE on every host and make it live, or change nothing",
    "rollback": "make an earlier release live again (default: the one before)",
    "status": "what is live on every host, since when, by whom; where hosts differ",
    "releases": "releases kept on the hosts, newest first",
    "verify": "compare the live files on every host with the release's manifest",
    "activate": "make a release live that `push --no-activate` staged",
    "prune": "delete releases beyond `keep`, and leftovers of dead runs",
    "unlock": "show who holds the lock, and take it away after asking",
    "check": "is every host ready: reachable, key known, login, tools, space, rights",
    "run": "run one command on every host through the same pool",
    "copy": "put one file in place on every host (atomic rename), no release",
    "history": "what was released, when, by whom, with which outcome",
    "inventory": "show the resolved hosts; `inventory schema` prints the JSON Schema",
    "demo": "throwaway hosts on this machine and a real push to them",
    "completion": "print a shell's completion script",
}


class LazyGroup(click.Group):
    """Knows its commands by name and help, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"deployctl.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="deployctl")
def cli() -> None:
    """Put a build on every host over SSH and make it live everywhere, or change nothing."""


def run(arguments: list[str] | None = None) -> int:  # noqa: PLR0911 - one for each kind of end
    """Run one command line and return its exit code; nothing a person can cause ends in a traceback."""
    try:
        code = cli.main(arguments, prog_name="deployctl", standalone_mode=False)
        return int(code or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return Exit.INT
    except click.ClickException as error:
        _say_usage(error)
        return Exit.USAGE
    except DeployctlError as error:
        for line in error.message.splitlines():
            _say(f"error: {line}")
        if error.hint:
            _say(f"hint: {error.hint}")
        return error.exit_code
    except KeyboardInterrupt:
        return Exit.INT
    except BrokenPipeError:
        _forget_stdout()
        return Exit.OK
    except OSError as error:
        _say(f"error: {error}")
        return Exit.DEFECT


def _say(text: str) -> None:
    try:
        sys.stderr.write(f"deployctl: {text}\n".encode(errors="backslashreplace").decode())
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # nobody can be told; the exit code still can


def _say_usage(error: click.ClickException) -> None:
    _say(f"error: {error.format_message()}")
    context = getattr(error, "ctx", None)
    if context is not None:
        _say(f"hint: {context.command_path} --help")


def _forget_stdout() -> None:
    """Python flushes standard output on its way out, and would complain about a reader that is gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
