"""The command line's root: which commands there are, and what an error becomes.

A command's module is imported when that command runs, so that `--help` costs little more than click.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from deployctl import __version__
from deployctl.errors import DEFECT_HINT, DeployctlError, Exit

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

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
    "completion": "print the completion script of a shell: bash, zsh or fish",
}


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """A reader that has seen enough, as `head`, is no error."""
    try:
        yield
    except BrokenPipeError:
        _forget_stdout()
        raise click.exceptions.Exit(Exit.OK) from None


class LazyGroup(click.Group):
    """Knows its commands by name and help, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"deployctl.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            raise click.UsageError(
                f"no such command: {args[0]}" + (f"; did you mean {near[0]}?" if near else ""), ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing the command."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - for this alone

        names = [
            CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def make_context(self, *arguments: Any, **values: Any) -> click.Context:
        with _reader_may_leave():  # `--help` and `--version` print in here
            return super().make_context(*arguments, **values)

    def invoke(self, ctx: click.Context) -> Any:
        with _reader_may_leave():
            return super().invoke(ctx)


@click.command(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="deployctl")
def cli() -> None:
    """Put a build on every host over SSH and make it live everywhere, or change nothing."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing a person can cause ends in a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(words, prog_name="deployctl", standalone_mode=False)
        return int(code or 0)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INT
    except click.ClickException as error:
        _say_usage(error, words)
        return Exit.USAGE
    except DeployctlError as error:
        _say_traceback(words)
        for line in error.message.splitlines():
            _say(f"error: {line}")
        if error.hint:
            _say(f"hint: {error.hint}")
        return error.exit_code
    except OSError as error:
        _say_traceback(words)
        _say("error: " + ": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        return Exit.DEFECT
    except Exception as error:  # noqa: BLE001 - a defect is told as one
        _say_traceback(words)
        _say(f"error: {type(error).__name__}: {error}")
        _say(f"hint: {DEFECT_HINT}")
        return Exit.DEFECT


def _say_traceback(words: Sequence[str]) -> None:
    if "--debug" in words:
        _write(traceback.format_exc())


def _say(text: str) -> None:
    from deployctl.output.stream import printable  # noqa: PLC0415 - only who fails pays

    _write(f"deployctl: {printable(text)}\n")


def _write(text: str) -> None:
    try:
        sys.stderr.write(text.encode(errors="backslashreplace").decode())
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # nobody can be told; the exit code still can


def _say_usage(error: click.ClickException, words: Sequence[str]) -> None:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        _write(f"{error.format_message()}\n")
        return
    lines = [line.strip() for line in error.format_message().splitlines()]
    hint = f"{context.command_path} --help" if context is not None else None
    if _wants_json(words):
        from deployctl.cli.perform import refuse  # noqa: PLC0415 - for a program that waits for the last line

        command = next((word for word in words if word in COMMANDS), "deployctl")
        refuse(command, Exit.USAGE, "\n".join(lines), hint)
        return
    for line in lines:
        _say(f"error: {line}")
    if hint is not None:
        _say(f"hint: {hint}")


def _wants_json(words: Sequence[str]) -> bool:
    """Whether a command line that click has refused asks for JSON, as far as one can tell."""
    options = list(words[: words.index("--")] if "--" in words else words)
    modes = [
        option.removeprefix("=") or following
        for word, following in zip(options, [*options[1:], ""], strict=True)
        if (found := re.fullmatch(r"(?:--output(?==|$)|-[vqy]*o)(.*)", word))
        for option in found.groups()
    ]
    return bool(modes) and modes[-1] == "json"


def _forget_stdout() -> None:
    """Python flushes standard output on its way out, and would complain about a reader that is gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
