"""What is looked at on hosts that get an artifact in parts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.release.lab import Lab, Place
from tests.release.running import Pushed, Running
from tests.release.trees import walk
from tests.support.sshd import Sshd

PARTS = 3
PART_BYTES = 8 << 20
SLICE_BYTES = 32 << 20
BARE_BYTES = 72_000_000  # three slices, the last a small one
LAST_BYTES = BARE_BYTES - 2 * SLICE_BYTES
REST_BYTES = BARE_BYTES - SLICE_BYTES
MORE_BYTES = 200_000  # what else goes over the wire, at most

# Loaded by Python itself at the start: any tree is a large one, read slowly, and packing stops before its end until a file
# is there. (What goes into the compressor comes out with what follows it.)
SLOW = """
import pathlib, time
import deployctl.artifact.pack as pack
import deployctl.release.packing as packing
packing.EARLY_BYTES = 1 << 20
pieces = pack._pieces
def slowly(*arguments):
    for piece in pieces(*arguments):
        time.sleep(0.05)
        yield piece
    while not pathlib.Path({sign!r}).exists():
        time.sleep(0.02)
pack._pieces = slowly
"""


class Held:
    """Runs whose packing waits for `go_on`."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self._sign = directory / "go-on"
        site = directory / "slow"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SLOW.format(sign=str(self._sign)))
        path = os.pathsep.join((str(site), os.environ.get("PYTHONPATH", "")))
        self.env = {"PYTHONPATH": path}

    def start(self, *arguments: str | Path) -> Running:
        return self.lab.start("push", *arguments, env=self.env)

    def go_on(self) -> None:
        self._sign.touch()


def growing(place: Place) -> list[Path]:
    return sorted(place.root.glob(".deployctl/incoming/*.parts/new-*"))


def arrived_bytes(place: Place) -> int:
    return sum(path.stat().st_size for path in growing(place))


def kept(place: Place) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in place.proven}


def assert_released(lab: Lab, pushed: Pushed, tree: Path) -> None:
    """Every host serves the tree, and nothing of the parts is left."""
    assert pushed.code == 0, (pushed.hosts, pushed.stderr)
    assert lab.live == lab.serves(pushed.release)
    for place in lab:
        assert walk(place.root / "current/") == walk(tree)
        assert place.incoming == []
    assert pushed.bytes_sent == sum(pushed.sent(name) or 0 for name in lab.names)
    lab.assert_idle()


def assert_failed(
    lab: Lab, pushed: Pushed, phase: str, code: int, *words: str, live: Mapping[str, str | None] | None = None
) -> None:
    """h02 failed like this, all is `live` as before (nothing, without it), no run's directory and no process is left."""
    live = live or lab.everywhere(None)
    said, number, message = pushed.failure("h02")
    assert (said, number) == (phase, code), message
    for word in words:
        assert word in message
    assert (pushed.code, pushed.outcome) == (20, "aborted")
    assert lab.live == live
    assert all(place.runs_left == [] for place in lab)
    before = live["h02"]
    assert lab["h02"].releases == ([Path(before).name] if before else [])
    lab.assert_idle()


def allow_sessions(server: Sshd, sessions: int) -> None:
    """Let a server allow no more than so many on one connection."""
    server.stop_listener()
    server.config = [f"MaxSessions {sessions}"]
    server.start()


@contextmanager
def small_disk(root: Path, megabytes: int) -> Iterator[None]:
    """Let a host have a disk of this size; the test is skipped where nothing can be mounted."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", root], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    yield
    subprocess.run(["umount", "-l", root], check=True)
