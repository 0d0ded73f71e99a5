"""The hosts that the benchmarks release to, and how each tool is told of them.

Hosts are sshd processes on loopback, with their directories in memory where /dev/shm allows, so that the disk is not
what is measured. Every tool gets the same key, the same known_hosts and the same ciphers on offer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.inventory import inventory_for
from tests.support.keys import host_keys, make_key
from tests.support.sshd import Sshd, SshdFarm


@dataclass(frozen=True)
class Farm:
    base: Path
    hosts: Sequence[Sshd]
    key: Path

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.hosts]

    @property
    def config(self) -> Path:
        return self.base / "ssh_config"

    def inventory(self, **release: object) -> Path:
        return inventory_for(self.hosts, self.base, self.key, release=release)

    def write_config(self) -> None:
        blocks = [
            f"Host {host.name}\n  HostName {host.address}\n  Port {host.port}\n  User {host.user}\n"
            for host in self.hosts
        ]
        common = f"Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n  BatchMode yes\n"
        common += f"  UserKnownHostsFile {self.base / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        self.config.write_text("".join(blocks) + common)

    def place(self, name: str) -> str:
        """One directory that exists on every host under the same name, for tools that know only one path."""
        return f"{self.base}/links/{name}"

    def empty(self) -> None:
        for host in self.hosts:
            shutil.rmtree(host.root)
            host.root.mkdir()

    def in_parallel(self, template: str, stdin: Path | None = None) -> list[str]:
        """The shell commands that run `template` for every host at once; {host} and {root} are filled in."""
        commands = [template.format(host=host.name, root=host.root) for host in self.hosts]
        if stdin is not None:
            commands = [f"{command} < {stdin}" for command in commands]
        joined = "\0".join(commands).encode()
        text = (
            self.base / f"commands-{hashlib.sha256(joined).hexdigest()[:16]}"
        )  # one for each way, before and measured
        text.write_bytes(joined)
        return ["sh", "-c", f"xargs -0 -n1 -P{len(commands)} sh -c < {text}"]

    def files(self) -> list[int]:
        return [sum(len(names) for _, _, names in os.walk(host.root)) for host in self.hosts]


@contextlib.contextmanager
def farm_of(count: int) -> Iterator[Farm]:
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        base = Path(name)
        key = make_key(base / "id")
        (base / "keys").mkdir()
        with SshdFarm(base / "farm", host_keys(base / "keys"), [key.public]) as farm:
            made = Farm(base, [farm("Subsystem sftp internal-sftp") for _ in range(count)], key.path)
            made.inventory()
            made.write_config()
            yield made


COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}  # deployctl as it is when it was installed


def push_command(tree: Path, inventory: Path) -> list[str]:
    words = ["push", str(tree), "-i", str(inventory), "-o", "plain", "-q"]
    return [sys.executable, "-m", "deployctl", *words]


def machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    said = subprocess.run(["ssh", "-V"], check=False, capture_output=True, text=True).stderr
    return (
        f"{os.cpu_count()} processors, {memory_gib:.0f} GiB of memory, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {said.split(',')[0]}"
    )
