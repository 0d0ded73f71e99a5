"""What is looked at on hosts that get an artifact in parts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import walk

PARTS = 3
PART_BYTES = 8 << 20


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
