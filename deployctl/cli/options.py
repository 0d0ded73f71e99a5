"""Options that every command that talks to hosts has, and the types of their values."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from deployctl.errors import UsageError
from deployctl.inventory.units import duration_s, size_bytes


class Duration(click.ParamType[float]):
    """`500ms`, `10s`, `5m`, `1h`, or a bare number of seconds; above zero."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            seconds = duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail(f"{value!r} is no time at all", param, ctx)
        return seconds


class Size(click.ParamType[int]):
    """`64KiB`, `10MB`, or a bare number of bytes; above zero."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            found = size_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if found <= 0:
            self.fail(f"{value!r} is nothing at all", param, ctx)
        return found


DURATION = Duration()
SIZE = Size()

COMMON = (
    click.option("-i", "--inventory", "inventory_file", type=click.Path(), metavar="FILE", default="hosts.yaml", show_default=True,
                 envvar="DEPLOYCTL_INVENTORY", show_envvar=True, help="the inventory"),
    click.option("-l", "--limit", metavar="PATTERN",
                 help="groups, host names, globs, ranges; comma = or, !x = without x"),
    click.option("-f", "--forks", type=click.IntRange(1, 512), metavar="N", help="workers  [default: as many as hosts, at most 32]"),
    click.option("-o", "--output", type=click.Choice(["auto", "live", "plain", "json"]), default="auto", show_default=True,
                 help="auto is live on a terminal, else plain"),
    click.option("-v", "--verbose", count=True, help="say more"),
    click.option("-q", "--quiet", is_flag=True, help="only failures and the end"),
    click.option("--timeout", type=DURATION, default="15m", show_default=True,
                 help="longest any one phase may take on a host; in upload, longest without progress"),
    click.option("--wait-lock", type=DURATION, default=None, help="wait for a lock that another run holds  [default: do not]"),
    click.option("--ask-pass", is_flag=True, help="ask for the login password on the terminal, once"),
    click.option("-y", "--yes", is_flag=True, help="answer yes to every question"),
    click.option("--debug", is_flag=True, help="tracebacks, and the remote commands as sent"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Common:
    """The values of the common options."""

    inventory_file: str
    limit: str | None
    forks: int | None
    output: str
    verbose: int
    quiet: bool
    timeout: float
    wait_lock: float | None
    ask_pass: bool
    yes: bool
    debug: bool

    def settings(self) -> dict[str, Any]:
        """Return these as fields of the release room's Options."""
        return {
            "limit": self.limit,
            "forks": self.forks,
            "timeout_s": self.timeout,
            "wait_lock_s": self.wait_lock or 0.0,
            "ask_pass": self.ask_pass,
            "ask": asker(),
            "debug": self.debug,
        }

    @property
    def verbosity(self) -> int:
        return -1 if self.quiet else self.verbose


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command; it takes them as one `common` argument."""
    names = tuple(Common.__dataclass_fields__)

    def command(**values: Any) -> Any:
        common = Common(**{name: values.pop(name) for name in names})
        return function(common=common, **values)

    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    command.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Callable[..., Any] = command
    for option in reversed(COMMON):
        decorated = option(decorated)
    return decorated


def ask_secret(prompt: str) -> str:
    """Ask on the terminal itself, whatever standard input and output are; UsageError when the answer is its end (Ctrl-D)."""
    import getpass  # noqa: PLC0415 - rarely needed

    try:
        return getpass.getpass(prompt)
    except EOFError:
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:  # noqa: PTH123 - a device
            terminal.write("\n")  # what comes next does not belong behind the prompt
        raise UsageError("nothing was given at the prompt") from None


def asker() -> Callable[[str], str] | None:
    """Return a way to ask for a secret, or None where there is no terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return None
    return ask_secret if sys.stderr is not None else None
