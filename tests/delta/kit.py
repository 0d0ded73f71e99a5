"""A tree that can't be compressed, ways to change it, and what a push of it must leave on a host."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.release.lab import Lab, Place
from tests.release.running import Pushed
from tests.release.trees import listing, walk

FILES = 60
FILE_BYTES = 5000


class Site:
    """FILES files of FILE_BYTES random bytes in three directories, with a link and a script."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._random = random.Random(root.name)
        for number in range(FILES):
            self.fill(f"d{number % 3}/f{number:02}")
        (root / "run").write_text("#!/bin/sh\n")
        (root / "run").chmod(0o755)
        (root / "link").symlink_to("d0/f00")

    def fill(self, name: str, size: int = FILE_BYTES) -> Path:
        """Put new random bytes into a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._random.randbytes(size))
        return path


def arrived(lab: Lab, pushed: Pushed, site: Path, *hosts: str) -> None:
    """The release is live, byte for byte and mode for mode, on its own inodes within itself; nothing lies about."""
    assert (pushed.code, pushed.outcome) == (0, "released"), pushed.stderr
    for place in lab:
        if hosts and place.name not in hosts:
            continue
        assert place.live == f"releases/{pushed.release}"
        assert walk(place.root / "current/") == walk(site)
        files = [
            entry[0] for entry in listing(place.root / "current/").values() if entry[1] & 0o170000 == 0o100000
        ]
        assert len(files) == len(set(files))
        assert place.incoming == []
    lab.assert_idle()


def way(pushed: Pushed, host: str = "h01") -> str:
    """The way by which the host was staged in the end."""
    return [
        str(e["data"]["action"]) for e in pushed.of(host) if e["phase"] == "stage" and e["state"] == "ok"
    ][-1]


def ways(pushed: Pushed, host: str = "h01") -> list[str]:
    """Every way that was tried on a host."""
    return [
        str(e["data"]["action"]) for e in pushed.of(host) if e["phase"] == "upload" and e["state"] == "ok"
    ]


def files_sent(pushed: Pushed, host: str = "h01") -> int:
    [sent] = [e["data"]["files"] for e in pushed.of(host) if e["phase"] == "upload" and e["state"] == "ok"]
    return int(sent)


def release_of(place: Place, pushed: Pushed) -> Path:
    return place.root / "releases" / pushed.release


def forge(path: Path, content: bytes) -> None:
    """Change a file's content so that neither its size nor its time tells."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    return bytes(data)
