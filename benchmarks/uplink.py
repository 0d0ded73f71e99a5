"""How much of a narrow uplink the uploads of a push fill: as root, between two network namespaces, shaped with TBF.

    python -m benchmarks.uplink [--mbit 200] [--hosts 1,10,50] [--write DIRECTORY]

Hosts have one namespace, deployctl the other; the link between them carries `--mbit`, frames and all. Counted are the
bytes that leave here while the middle nine tenths of a release are under way, so neither its beginning nor its end.
There is a worker for each host: with fewer, the last hosts are sent to while others are busy with what they got.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.farm import COMPILED, machine, push_command
from tests.support.inventory import inventory_for
from tests.support.keys import host_keys, make_key
from tests.support.sshd import Sshd, SshdFarm

CLONE_NEWNET = 0x40000000
HERE, THERE = "10.213.0.1", "10.213.0.2"
RELEASE_BYTES = 160 << 20  # to all hosts together
WANTED = 0.97
LOOK_S = 0.02


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def new_network() -> None:
    """From here on this process and what it starts have a network of their own."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        sys.exit("a network namespace is not allowed here: run it as root")
    run("ip", "link", "set", "lo", "up")


def hosts_end() -> None:
    new_network()
    run("ip", "link", "add", "hosts0", "type", "veth", "peer", "name", "uplink0")
    run("ip", "address", "add", f"{THERE}/24", "dev", "hosts0")
    run("ip", "link", "set", "hosts0", "up")


def our_end(mbit: int) -> None:
    """Leave the hosts' network, take the other end of the link along, and make it narrow."""
    with Path("/proc/self/ns/net").open() as theirs:
        new_network()
        fd = theirs.fileno()
        os.set_inheritable(fd, True)
        move = [
            "nsenter",
            f"--net=/proc/self/fd/{fd}",
            "ip",
            "link",
            "set",
            "uplink0",
            "netns",
            str(os.getpid()),
        ]
        subprocess.run(move, check=True, pass_fds=[fd])
    run("ip", "address", "add", f"{HERE}/24", "dev", "uplink0")
    # Bytes are counted as they leave, and headers of segments that leave as one are not; TBF counts them all.
    run("ip", "link", "set", "uplink0", "gso_max_segs", "1")
    run("ip", "link", "set", "uplink0", "up")
    shape = ["rate", f"{mbit}mbit", "burst", "64kb", "latency", "50ms"]
    run("tc", "qdisc", "add", "dev", "uplink0", "root", "tbf", *shape)


class Counter(threading.Thread):
    """Notes when how many bytes had left."""

    def __init__(self) -> None:
        super().__init__()
        self._over = threading.Event()
        self.seen: list[tuple[float, int]] = []

    def run(self) -> None:
        while not self._over.wait(LOOK_S):
            self.seen.append((time.monotonic(), sent_bytes()))

    def stop(self) -> None:
        self._over.set()
        self.join()

    def bytes_s(self) -> float:
        first, last = self.seen[0][1], self.seen[-1][1]
        middle = [each for each in self.seen if 0.05 <= (each[1] - first) / max(1, last - first) <= 0.95]
        (began, begun), (ended, end) = middle[0], middle[-1]
        return (end - begun) / (ended - began)


def sent_bytes() -> int:
    """From /proc, since /sys shows the network it was mounted in."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if "uplink0:" in line)


def share(hosts: Sequence[Sshd], base: Path, key: Path, mbit: int) -> float:
    """Push incompressible bytes to `hosts` and return the share of the link that was used."""
    tree = base / f"tree{len(hosts)}"
    tree.mkdir()
    (tree / "image.bin").write_bytes(random.Random(5).randbytes(RELEASE_BYTES // len(hosts)))
    inventory = inventory_for(hosts, base, key)
    counter = Counter()
    counter.start()
    command = [*push_command(tree, inventory), "--forks", str(len(hosts))]
    done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, **COMPILED})
    counter.stop()
    if done.returncode:
        sys.exit(f"deployctl failed: {done.stderr[-500:]!r}")
    return counter.bytes_s() * 8 / (mbit * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.uplink", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--mbit", type=int, default=200)
    parser.add_argument("--hosts", default="1,10,50")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    counts = [int(each) for each in arguments.hosts.split(",")]
    os.environ.pop("SSH_AUTH_SOCK", None)
    hosts_end()
    memory = Path("/dev/shm")
    lines = [f"# A link of {arguments.mbit} Mbit/s", "", "| hosts | share of it that is used | wanted |", "| --- | --- | --- |"]  # fmt: skip
    raw: dict[str, object] = {"machine": machine(), "mbit": arguments.mbit}
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        base = Path(name)
        key = make_key(base / "id")
        (base / "keys").mkdir()
        with SshdFarm(base / "farm", host_keys(base / "keys"), [key.public]) as farm:
            hosts = [farm(address=THERE) for _ in range(max(counts))]
            our_end(arguments.mbit)
            for count in counts:
                used = share(hosts[:count], base, key.path, arguments.mbit)
                raw[str(count)] = used
                lines.append(f"| {count} | {used:.3f} | {WANTED} |")
                print(lines[-1], flush=True)
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "uplink.json").write_text(json.dumps(raw, indent=1) + "\n")
        (arguments.write / "uplink.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
