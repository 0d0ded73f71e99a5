"""Hosts to release to, behind either kind of server, with a way to break any one step on any one of them."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from deployctl.demo.hosts import DemoHosts
from tests.release.running import Pushed, Running
from tests.support.inventory import InventoryFor
from tests.support.proc import wait_until
from tests.support.sshd import Sshd

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Lets every command of the shell pass its gate, and the tools in it know its name. The shell leads its process group, as it
# does without this.
FRONT_SH = """#!/bin/sh
[ "${{1-}}" = -s ] || exec /bin/sh "$@"
way=$(command -p mktemp -u) && command -p mkfifo "$way" && exec 3<&0 || exit 1
command -p sed -u 's#^main$#export D_DO; [ ! -r {gates}/"$D_DO" ] || . {gates}/"$D_DO"; main#' <&3 >"$way" &
exec 4<"$way" 3<&-
command -p rm -f "$way"
exec /bin/sh -s <&4 4<&-
"""
FRONT_TOOL = """#!/bin/sh
[ ! -r {gates}/"${{D_DO-none}}.{tool}" ] || . {gates}/"${{D_DO-none}}.{tool}"
exec {real} "$@"
"""

# An scp that takes part of the file and dies.
HALF_A_FILE = (
    r"""printf '\0'; read -r line; printf '\0'; for target; do :; done; head -c 100 >"$target"; exit 1"""
)


@dataclass(frozen=True)
class Place:
    """One host from both sides: its deploy root on this disk, its port, the directory that comes first in its PATH."""

    name: str
    root: Path
    port: int
    programs: Path

    @property
    def live(self) -> str | None:
        """The exact text of `current`, read from the disk."""
        current = self.root / "current"
        return os.readlink(current) if current.is_symlink() else None  # noqa: PTH115 - a Path would tidy it

    def link(self, text: str) -> None:
        """Make `current` a link with exactly this text."""
        os.symlink(text, self.root / "current")  # noqa: PTH211 - a Path would tidy it

    @property
    def releases(self) -> list[str]:
        return names_in(self.root / "releases")

    @property
    def incoming(self) -> list[str]:
        return names_in(self.root / ".deployctl/incoming")

    @property
    def parts(self) -> list[Path]:
        """What scp is writing, or has written and nobody has looked at."""
        return sorted(self.root.glob(".deployctl/incoming/*/part*"))

    @property
    def proven(self) -> list[Path]:
        """Parts of artifacts that an earlier run has proven."""
        return sorted(self.root.glob(".deployctl/incoming/*.parts/*"))

    @property
    def history(self) -> str:
        return (self.root / ".deployctl/history.jsonl").read_text()

    @property
    def runs_left(self) -> list[str]:
        """Directories of runs in `incoming`; what else lies there are proven artifacts."""
        incoming = self.root / ".deployctl/incoming"
        return [name for name in self.incoming if (incoming / name).is_dir() and not name.endswith(".parts")]

    def gate(self, point: str, script: str = "exit 1") -> None:
        """Run sh text at one step: before the script `probe`, `stage` …; before a tool in it as in `stage.tar`; at `none.scp`.

        Unless it ends by itself, the step goes on afterwards.
        """
        gates = self.programs / "gates"
        gates.mkdir(parents=True, exist_ok=True)
        (gates / point).write_text(script + "\n")
        self._front("sh", FRONT_SH.format(gates=shlex.quote(str(gates))))
        if "." in point:
            tool = point.partition(".")[2]
            real = shutil.which(tool, path=PATH)
            assert real, f"{tool} is not installed"
            self._front(tool, FRONT_TOOL.format(gates=shlex.quote(str(gates)), tool=tool, real=real))

    def hold(self, point: str) -> Path:
        """Stop a step until the returned file is removed; tools in a step then end with it, as they would for real."""
        sign = self.programs / f"hold-{point}"
        sign.parent.mkdir(exist_ok=True)
        sign.touch()
        self.gate(point, f"while [ -e {shlex.quote(str(sign))} ]; do sleep 0.02; done")
        return sign

    def mend(self) -> None:
        """Take every gate away."""
        shutil.rmtree(self.programs / "gates", ignore_errors=True)
        for sign in self.programs.glob("hold-*"):
            sign.unlink()

    def program(self, name: str, script: str) -> None:
        """Put a program of this name in front of the host's own."""
        self.programs.mkdir(exist_ok=True)
        self._front(name, script)

    def _front(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(script)
        path.chmod(0o755)


def tool_directory(directory: Path, *, without: Collection[str] = ()) -> Path:
    """A directory that can stand for PATH: links to every tool a host of this machine's kind has, less some."""
    directory.mkdir()
    for parent in ("/usr/bin", "/bin"):
        for tool in Path(parent).iterdir():
            if tool.name not in without and not (directory / tool.name).is_symlink():
                (directory / tool.name).symlink_to(tool)
    return directory


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


@dataclass
class Lab:
    """Hosts, the inventory that leads to them, and runs of deployctl on them; a context manager."""

    directory: Path
    places: dict[str, Place]
    inventory: Path
    servers: Sequence[Sshd] = ()
    _resource: AbstractContextManager[Any] | None = None
    _running: list[Running] = field(default_factory=list)

    def __getitem__(self, name: str) -> Place:
        return self.places[name]

    def __iter__(self) -> Any:
        return iter(self.places.values())

    @property
    def names(self) -> list[str]:
        return list(self.places)

    @property
    def live(self) -> dict[str, str | None]:
        return {name: place.live for name, place in self.places.items()}

    def everywhere(self, text: str | None) -> dict[str, str | None]:
        return dict.fromkeys(self.places, text)

    def serves(self, release: str) -> dict[str, str | None]:
        return self.everywhere(f"releases/{release}")

    def start(self, command: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Running:
        errors = self.directory / f"stderr-{len(self._running)}"
        running = Running.start([command, *arguments, "-i", self.inventory], env, errors)
        self._running.append(running)
        return running

    def push(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> Pushed:
        return self.start("push", *arguments, env=env).finish(timeout_s=timeout_s)

    def activate(self, *arguments: str | Path) -> Pushed:
        return self.start("activate", *arguments).finish()

    def assert_idle(self) -> None:
        """No command runs on any host."""
        wait_until(
            lambda: not any(server.command_pids() for server in self.servers),
            5,
            "the end of all commands on hosts",
        )

    def through(self, name: str, port: int) -> None:
        """Have the inventory lead to a host by another port, a proxy's say; its key is pinned there."""
        [server] = [server for server in self.servers if server.name == name]
        self.places[name] = replace(self.places[name], port=port)
        self.edit(name, port=port, fingerprint=server.host_key.fingerprint)

    def edit(self, name: str, **keys: Any) -> None:
        """Change a host's entry in the inventory."""
        data = yaml.safe_load(self.inventory.read_text())
        for entry in data["groups"]["web"]["hosts"]:
            if entry["name"] == name:
                entry.update(keys)
        self.inventory.write_text(yaml.safe_dump(data, sort_keys=False))

    def edit_ssh(self, **keys: Any) -> None:
        """Change what the inventory says of connections to all hosts."""
        data = yaml.safe_load(self.inventory.read_text())
        data["ssh"].update(keys)
        self.inventory.write_text(yaml.safe_dump(data, sort_keys=False))

    def edit_release(self, **keys: Any) -> None:
        """Change what the inventory says of releases."""
        data = yaml.safe_load(self.inventory.read_text())
        data.setdefault("release", {}).update(keys)
        self.inventory.write_text(yaml.safe_dump(data, sort_keys=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running:
            running.close()
        if self._resource is not None:
            self._resource.__exit__(kind, error, trace)


def real_lab(servers: Sequence[Sshd], inventory_for: InventoryFor, directory: Path, **overrides: Any) -> Lab:
    """A lab of sshd servers that were made with `front_path`; `retries` of connections are off unless asked for."""
    ssh = {"retries": 0, **overrides.pop("ssh", {})}
    inventory = inventory_for(servers, ssh=ssh, **overrides)
    places = {s.name: Place(s.name, s.root, s.port, s.directory / "bin") for s in servers}
    return Lab(directory, places, inventory, servers)


def embedded_lab(count: int, directory: Path) -> Lab:
    hosts = DemoHosts(count, directory / "hosts")
    hosts.__enter__()
    places = {
        name: Place(name, hosts.roots[name], hosts.ports[name], hosts.directory / "hosts" / f"{name}.bin")
        for name in hosts.names
    }
    return Lab(directory, places, hosts.inventory, _resource=hosts)
