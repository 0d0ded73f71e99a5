"""Times a first push of many small files against rsync and against the OpenSSH floor, in one run on the same servers.

    python -m benchmarks.push_small_files [--hosts 10] [--files 10000] [--rounds 3] [--json FILE]

The floor is what OpenSSH alone needs to move the tree: make one tar archive, then `ssh HOST "tar -x" < archive` to all
hosts at once; nothing is checked or switched there. "checked" is the same and then reads every file on the host once, as
fast as it can be done with what is there, `openssl dgst -sha256`: what no release that is proven can do without. rsync runs once for each host, all at once. The scenarios take
turns, and every host's directory is empty before each. Hosts are sshd processes on loopback, with their directories in
memory where /dev/shm allows, so that the disk is not what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.farm import COMPILED, machine, push_command
from benchmarks.trees import web_tree
from tests.support.inventory import inventory_for
from tests.support.keys import host_keys, make_key
from tests.support.sshd import Sshd, SshdFarm

TARGETS = {"floor": 1.15, "rsync": 1 / 1.5}  # deployctl's time over theirs, at most


class Bench:
    """The servers, the tree and one way each to bring it there."""

    def __init__(self, hosts: Sequence[Sshd], key: Path, inventory: Path, tree: Path, scratch: Path) -> None:
        self._hosts = hosts
        self._key = key
        self._inventory = inventory
        self._tree = tree
        self._scratch = scratch
        self._known = inventory.with_name("known_hosts")

    def empty(self) -> None:
        for host in self._hosts:
            shutil.rmtree(host.root)
            host.root.mkdir()

    def _ssh(self, port: int) -> str:
        return f"ssh -i {self._key} -o UserKnownHostsFile={self._known} -o BatchMode=yes -p {port}"

    def _in_parallel(self, commands: Sequence[str]) -> None:
        text = "\0".join(commands).encode()
        subprocess.run(["xargs", "-0", "-n1", f"-P{len(commands)}", "sh", "-c"], input=text, check=True)

    def deployctl(self) -> None:
        command = push_command(self._tree, self._inventory)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **COMPILED})

    def floor(self, and_then: str = "true") -> None:
        archive = self._scratch / "archive.tar"
        subprocess.run(["tar", "-cf", str(archive), "-C", str(self._tree), "."], check=True)
        self._in_parallel([
            f'{self._ssh(host.port)} {host.user}@{host.address} "tar -x -C {host.root} && cd {host.root} && {and_then}" < {archive}' for host in self._hosts
        ])  # fmt: skip

    def checked(self) -> None:
        self.floor("find . -type f -print0 | xargs -0 openssl dgst -sha256 -r>/dev/null")

    def rsync(self) -> None:
        self._in_parallel([
            f'rsync -a -e "{self._ssh(host.port)}" {self._tree}/ {host.user}@{host.address}:{host.root}/' for host in self._hosts
        ])  # fmt: skip

    def check(self, files: int) -> None:
        """Whatever brought them, the files must be there."""
        for host in self._hosts:
            arrived = sum(len(names) for _, _, names in os.walk(host.root))
            if arrived < files:
                sys.exit(f"{host.name} got {arrived} of {files} files")


def measure(bench: Bench, files: int, rounds: int) -> dict[str, list[float]]:
    ways: dict[str, Callable[[], None]] = {
        "deployctl": bench.deployctl,
        "floor": bench.floor,
        "checked": bench.checked,
        "rsync": bench.rsync,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            bench.empty()
            began = time.monotonic()
            run()
            if number:  # the first round warms caches
                times[name].append(time.monotonic() - began)
            bench.check(files)
    return times


def report(times: dict[str, list[float]]) -> None:
    print(f"{'':10} {'median':>8} {'min':>8} {'max':>8}   deployctl's time over it, round by round")
    for name, seconds in times.items():
        ratios = [ours / theirs for ours, theirs in zip(times["deployctl"], seconds, strict=True)]
        said = ""
        if name in TARGETS:
            said = f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), wanted {TARGETS[name]:.2f} or less"
        print(
            f"{name:10} {statistics.median(seconds):7.2f}s {min(seconds):7.2f}s {max(seconds):7.2f}s   {said}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if shutil.which("rsync") is None:
        sys.exit("rsync is missing: install it (Debian, Ubuntu: sudo apt-get install rsync)")
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        base = Path(name)
        tree = base / "tree"
        size = web_tree(tree, arguments.files)
        key = make_key(base / "id")
        (base / "keys").mkdir()
        with SshdFarm(base / "farm", host_keys(base / "keys"), [key.public]) as farm:
            hosts = [farm() for _ in range(arguments.hosts)]
            bench = Bench(hosts, key.path, inventory_for(hosts, base, key.path), tree, base)
            print(f"{arguments.files} files, {size / 1e6:.0f} MB, to {arguments.hosts} hosts; {machine()}")
            times = measure(bench, arguments.files, arguments.rounds)
    report(times)
    if arguments.json:
        facts = {
            "machine": machine(),
            "hosts": arguments.hosts,
            "files": arguments.files,
            "bytes": size,
            "seconds": times,
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
