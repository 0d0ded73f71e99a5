"""deployctl demo: three releases to throwaway hosts on this machine, one of which must fail."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import click

from deployctl.cli.options import Common
from deployctl.cli.perform import perform, refuse
from deployctl.demo.app import write_app
from deployctl.demo.hosts import DemoHosts, install_hint, missing_tools
from deployctl.errors import Exit, UsageError
from deployctl.release.push import PushOptions, push

WORKERS_AT_MOST = 32


@click.command("demo")
@click.option(
    "--hosts",
    "count",
    type=click.IntRange(2, 200),
    default=5,
    show_default=True,
    metavar="N",
    help="how many",
)
@click.option("--keep", is_flag=True, help="leave the hosts running to play with, until Ctrl-C")
@click.option(
    "-o", "--output", type=click.Choice(["auto", "live", "plain", "json"]), default="auto", show_default=True,
    help="how each push is shown",
)  # fmt: skip
def command(count: int, keep: bool, output: str) -> int:
    """Release to throwaway hosts on this machine: real sh and scp behind an embedded SSH server.

    Needs no sshd, no root and no configuration, and removes everything it made.
    """
    if missing := missing_tools():
        error = UsageError(f"this machine lacks {', '.join(missing)}", hint=install_hint(missing))
        if output != "json":
            raise error
        refuse("demo", error.exit_code, error.message, error.hint)
        return error.exit_code
    directory = Path(tempfile.mkdtemp(prefix="deployctl-demo-"))
    try:
        with DemoHosts(count, directory / "hosts") as hosts:
            told = Story(hosts, directory / "shop", output).tell()
            if keep:
                _play_on(hosts, directory)
            return told
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        click.echo("Everything the demo made is removed.", err=output == "json")


class Story:
    """The three releases, what each is expected to come to, and what is on the disks after them."""

    def __init__(self, hosts: DemoHosts, app: Path, output: str) -> None:
        self._hosts = hosts
        self._app = app
        self._output = output

    def tell(self) -> int:
        """Return 0 when all three ended as they should."""
        names = self._hosts.names
        broken = names[len(names) // 2]
        self._say(
            f"{len(names)} throwaway hosts are up, {names[0]} to {names[-1]}, each with an SSH server of its own."
        )
        as_expected = [self._push(1, "The first release of a small web shop.", Exit.OK)]
        self._hosts.break_host(broken)
        as_expected.append(
            self._push(
                2,
                f"A second release, while the disk of {broken} fills up half-way through the upload.",
                Exit.ABORTED,
            )
        )
        self._say(
            f"It was aborted, and every host still serves what it served. Now {broken} has space again."
        )
        self._hosts.mend_host(broken)
        as_expected.append(self._push(3, "The third release.", Exit.OK))
        self._show_disks()
        return Exit.OK if all(as_expected) else Exit.DEFECT

    def _push(self, version: int, text: str, expected: Exit) -> bool:
        self._say(f"\n{version}. {text}", f"$ deployctl push ./shop   # version {version}")
        write_app(self._app, version)
        common = Common(
            inventory_file=str(self._hosts.inventory),
            limit=None,
            forks=None,
            output=self._output,
            verbose=0,
            quiet=False,
            timeout=60.0,
            wait_lock=None,
            ask_pass=False,
            yes=False,
            debug=False,
        )
        environ = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        options = PushOptions(timeout_s=60.0, environ=environ)
        code = perform(common, "push", lambda inventory, heard: push(inventory, self._app, options, heard))
        if code >= Exit.HUP:
            raise click.Abort
        if code != expected:
            self._say(f"This should have ended with exit code {int(expected)}, not {int(code)}.")
        return code == expected

    def _show_disks(self) -> None:
        self._say("\nWhat is on the hosts' disks:")
        for name, root in self._hosts.roots.items():
            kept = len(list((root / "releases").iterdir()))
            self._say(f"  {name}  current -> {(root / 'current').readlink()}   {kept} releases kept")

    def _say(self, *lines: str) -> None:
        for line in lines:
            click.secho(line, bold=True, err=self._output == "json")


def _play_on(hosts: DemoHosts, directory: Path) -> None:
    """Wait for Ctrl-C while somebody uses the hosts from another terminal."""
    click.echo(
        f"\nThe hosts stay up until Ctrl-C. From another terminal:\n"
        f"  cd {directory}\n"
        f"  deployctl push shop -i {hosts.inventory}\n"
        f"  ssh -i {hosts.identity_file} -o UserKnownHostsFile={hosts.known_hosts} -p {hosts.ports[hosts.names[0]]} 127.0.0.1"
    )
    stop = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    try:
        signal.sigwait(stop)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop)
    click.echo()
