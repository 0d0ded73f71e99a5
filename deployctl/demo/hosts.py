"""A fleet of throwaway hosts with an inventory that leads to them.

Owns their keys, directories and processes, and making one of them fail for a real reason. Refuses to know what is released.

    DIRECTORY/hosts.yaml        the inventory
    DIRECTORY/ssh/              the client's key, known_hosts, the hosts' keys
    DIRECTORY/hosts/            port files, logs, programs in front of each host's PATH
    DIRECTORY/<name>/           HOME of a host
    DIRECTORY/<name>/srv/       its deploy root
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from deployctl.demo import full_disk
from deployctl.errors import DeployctlError

Break = Literal["no-space", "not-permitted", "down", "frozen"]

_START_S = 30.0
_STOP_S = 10.0
_TOOLS = ("sh", "scp", "tar", "gzip", "sha256sum|shasum")
_INSTALL = (
    "Debian, Ubuntu: sudo apt-get install openssh-client tar gzip coreutils",
    "Fedora: sudo dnf install openssh-clients tar gzip coreutils",
    "macOS: they are part of the system; look at PATH",
)


def missing_tools() -> list[str]:
    """Programs the throwaway hosts need and this machine lacks; `a|b` is one of the two."""
    return [tool for tool in _TOOLS if not any(shutil.which(name) for name in tool.split("|"))]


def install_hint(missing: list[str]) -> str:
    """How to install what `missing_tools` found, one line for each kind of system."""
    return "\n".join((f"missing here: {', '.join(missing)}", *_INSTALL))


@dataclass
class _Server:
    name: str
    home: Path
    host_key: Path
    programs: Path
    port_file: Path
    log: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self, authorized_key: Path) -> None:
        """Start to start; `wait` ends it. The same port again if it had one."""
        self.port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "deployctl.demo.server", "--name", self.name]
        command += ["--root", str(self.home), "--host-key", str(self.host_key)]
        command += ["--authorized-key", str(authorized_key), "--port-file", str(self.port_file)]
        command += [
            "--port",
            str(self.port),
            "--path-prefix",
            str(self.programs),
            "--parent",
            str(os.getpid()),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the release: its hosts stay, so that it can switch them back
            )

    def wait(self, deadline_s: float) -> None:
        while not self.port_file.exists():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline_s:
                said = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise DeployctlError(
                    f"the throwaway host {self.name} did not start: {said or 'no answer in time'}"
                )
            time.sleep(0.01)
        self.port = int(self.port_file.read_text(encoding="ascii"))

    def end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)

    def reap(self, deadline_s: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class DemoHosts:
    """`count` hosts web01, web02, … on 127.0.0.1, below `directory`; a context manager that starts and ends them.

    On leaving everything is removed, unless `keep`. Raises DeployctlError when a host does not start.
    """

    def __init__(self, count: int, directory: Path, *, app: str = "demo", keep: bool = False) -> None:
        self.directory = directory.absolute()
        self.app = app
        self.keep = keep
        self.names = tuple(f"web{number:0{max(2, len(str(count)))}}" for number in range(1, count + 1))
        self.inventory = self.directory / "hosts.yaml"
        self.known_hosts = self.directory / "ssh" / "known_hosts"
        self.identity_file = self.directory / "ssh" / "id_ed25519"
        self.roots: Mapping[str, Path] = {name: self.directory / name / "srv" for name in self.names}
        self._servers: dict[str, _Server] = {}
        self._made_directory = False

    @property
    def ports(self) -> dict[str, int]:
        return {name: server.port for name, server in self._servers.items()}

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the hosts' servers that run."""
        running = ((name, server.process) for name, server in self._servers.items())
        return {name: process.pid for name, process in running if process is not None}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every host and whatever it runs; remove everything unless `keep`. Can be called again."""
        deadline_s = time.monotonic() + _STOP_S
        for server in self._servers.values():
            server.end(signal.SIGTERM)
        for server in self._servers.values():
            server.reap(deadline_s)
        if not self.keep and self.directory.exists():
            self._remove()

    def break_host(self, name: str, how: Break = "no-space") -> None:
        """Make the host fail: `no-space` and `not-permitted` from the next upload on, `down` and `frozen` at once.

        The first two replace its `scp` by one that fails as scp does, so that it works for root as well.
        """
        server = self._servers[name]
        match how:
            case "down":
                server.end(signal.SIGKILL)
                server.reap(time.monotonic() + _STOP_S)
            case "frozen":
                if server.process is not None:
                    server.process.send_signal(signal.SIGSTOP)
            case _:
                program = server.programs / "scp"
                script = " ".join(map(shlex.quote, (sys.executable, full_disk.__file__, how)))
                program.write_text(f'#!/bin/sh\nexec {script} "$@"\n', encoding="utf-8")
                program.chmod(0o755)

    def mend_host(self, name: str) -> None:
        """Undo `break_host`; a host that was down comes back on its port."""
        server = self._servers[name]
        (server.programs / "scp").unlink(missing_ok=True)
        if server.process is None:
            server.start(self._public_key)
            server.wait(time.monotonic() + _START_S)
        else:
            server.process.send_signal(signal.SIGCONT)

    @property
    def _public_key(self) -> Path:
        return self.identity_file.with_name(f"{self.identity_file.name}.pub")

    def _start(self) -> None:
        self._made_directory = not self.directory.exists()
        keys, running = self.directory / "ssh", self.directory / "hosts"
        for directory in (keys, running):
            directory.mkdir(parents=True, mode=0o700)
        _make_key(self.identity_file)
        for name in self.names:
            host_key, programs = keys / f"{name}.key", running / f"{name}.bin"
            _make_key(host_key)
            programs.mkdir()
            self.roots[name].mkdir(parents=True)
            files = (running / f"{name}.port", running / f"{name}.log")
            self._servers[name] = _Server(name, self.directory / name, host_key, programs, *files)
        for server in self._servers.values():
            server.start(self._public_key)
        deadline_s = time.monotonic() + _START_S + len(self.names)  # they share the processors while starting
        for server in self._servers.values():
            server.wait(deadline_s)
        self._write_known_hosts()
        self.inventory.write_text(self._inventory_text(), encoding="utf-8")

    def _write_known_hosts(self) -> None:
        lines = []
        for server in self._servers.values():
            public = server.host_key.with_name(f"{server.host_key.name}.pub").read_text(encoding="ascii")
            lines.append(f"[127.0.0.1]:{server.port} {public}")
        self.known_hosts.write_text("".join(lines), encoding="ascii")

    def _inventory_text(self) -> str:
        """JSON strings are YAML strings, so any path is quoted right."""
        hosts = "".join(
            f"      - {{name: {name}, address: 127.0.0.1, port: {server.port}}}\n"
            for name, server in self._servers.items()
        )
        return (
            f"app: {self.app}\n"
            f"path: {json.dumps(str(self.directory / '{host}' / 'srv'))}\n"
            "ssh:\n"
            f"  user: {json.dumps(getpass.getuser())}\n"
            f"  identity_file: {json.dumps(str(self.identity_file))}\n"
            f"  known_hosts: {json.dumps(str(self.known_hosts))}\n"
            "groups:\n"
            "  web:\n"
            "    hosts:\n"
            f"{hosts}"
        )

    def _remove(self) -> None:
        """Remove what was made here, and nothing that somebody else put into the directory."""
        if self._made_directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        for name in ("ssh", "hosts", *self.names):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.inventory.unlink()


def _make_key(file: Path) -> None:
    """An ed25519 key in OpenSSH's format, its public half beside it as `<file>.pub`."""
    key = Ed25519PrivateKey.generate()
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    file.with_name(f"{file.name}.pub").write_text(f"{public}\n", encoding="ascii")
