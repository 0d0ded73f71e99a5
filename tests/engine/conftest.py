"""After each test of the engine: no child, no zombie, no thread and no descriptor is left, and stopping was bounded."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import proc
from tests.support.proc import wait_until

BOUND_S = 60.0


def below() -> set[tuple[int, int]]:
    """Every process under this one, zombies included."""
    me = os.getpid()
    living = {(child.pid, child.started) for child in proc.descendants([me])}
    return living | {(child.pid, child.started) for child in proc.everything() if child.ppid == me}


def pipes() -> int:
    return sum(
        entry.readlink().name.startswith("pipe:")
        for entry in Path("/proc/self/fd").iterdir()
        if entry.is_symlink()
    )


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = (below(), threading.enumerate(), pipes())
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BOUND_S
    assert threading.enumerate() == before[1]
    zombies = [child for child in proc.everything() if child.ppid == os.getpid() and child.state == "Z"]
    assert [zombie for zombie in zombies if (zombie.pid, zombie.started) not in before[0]] == []
    wait_until(lambda: below() <= before[0], what=f"the end of {below() - before[0]}")
    assert pipes() == before[2]
