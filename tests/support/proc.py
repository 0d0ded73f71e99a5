"""Processes as /proc shows them: who descends from whom, and ending exactly those."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_LIBC = ctypes.CDLL(None)
_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """For `preexec_fn`: even a test run that is killed leaves nothing (on Linux)."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Proc:
    """One process; `started` (clock ticks since boot) tells it from a later one with the same number."""

    pid: int
    ppid: int
    started: int
    state: str
    name: str

    def alive(self) -> bool:
        now = read(self.pid)
        return now is not None and now.started == self.started and now.state not in "ZX"

    def signal(self, number: int) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def read(pid: int) -> Proc | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - asked for every process, again and again
            name, _, rest = file.read().partition(b"(")[2].rpartition(b")")
    except OSError:
        return None
    fields = rest.split()
    return Proc(pid, int(fields[1]), int(fields[19]), fields[0].decode(), name.decode(errors="replace"))


def everything() -> list[Proc]:
    found = (read(int(entry)) for entry in os.listdir(PROC) if entry.isdigit())  # noqa: PTH208 - ten times as fast
    return [proc for proc in found if proc is not None]


def descendants(pids: Iterable[int]) -> list[Proc]:
    """Every living process below `pids`, parents before children."""
    children: dict[int, list[Proc]] = {}
    for proc in everything():
        children.setdefault(proc.ppid, []).append(proc)
    found: list[Proc] = []
    todo = list(pids)
    while todo:
        below = children.get(todo.pop(0), [])
        found += below
        todo += [proc.pid for proc in below]
    return [proc for proc in found if proc.state not in "ZX"]


def marked(*markers: str) -> list[Proc]:
    """Every living process whose environment holds one of `markers` ("NAME=value")."""
    wanted = {marker.encode() for marker in markers}
    found = []
    for proc in everything():
        with contextlib.suppress(OSError), open(f"/proc/{proc.pid}/environ", "rb") as file:  # noqa: PTH123 - as above
            if not wanted.isdisjoint(file.read().split(b"\0")):
                found.append(proc)
    return [proc for proc in found if proc.state not in "ZX"]


def wait_until(done: Callable[[], bool], timeout_s: float = 10.0, what: str = "it") -> None:
    """Ask `done` until it says yes; the only place in the harness that polls."""
    began_at = time.monotonic()
    while not done():
        waited_s = time.monotonic() - began_at
        if waited_s > timeout_s:
            raise TimeoutError(f"{what} did not happen within {timeout_s} s")
        time.sleep(min(0.02, 0.004 + waited_s / 50))  # to ask all processes costs as much as that


def kill(procs: Iterable[Proc], timeout_s: float = 10.0) -> None:
    """SIGKILL each (stopped ones too) and wait until all are gone."""
    procs = list(procs)
    for proc in procs:
        proc.signal(signal.SIGKILL)
    wait_until(lambda: not any(proc.alive() for proc in procs), timeout_s, f"the end of {procs}")
