"""A process of its own that outlives the server by a moment and ends what the server started.

Owns the end of a host's processes: a SIGKILL of the server leaves nothing behind either. Refuses to know of SSH.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "DEPLOYCTL_DEMO_HOST"  # in the environment of everything a host runs
_ROUNDS = 50  # a process can fork while we look; each round catches what the last one missed


class Guard:
    """Forks on creation, so create it before any thread; `token` is the value of MARK for this server alone."""

    def __init__(self, token: str) -> None:
        reading, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._pipe)
                _watch(reading, token)
            finally:
                os._exit(0)
        os.close(reading)

    def add(self, group: int) -> None:
        """A process group now belongs to this host."""
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """The group's command ended; the group stays ours as long as somebody is in it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, 0)
            return
        self._tell(f"-{group}\n")

    def finish(self) -> None:
        """End everything the host runs, and wait until that is done."""
        os.close(self._pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the guard was killed; nothing better can be done
            os.write(self._pipe, line.encode())


def _watch(reading: int, token: str) -> None:
    os.setsid()  # a signal for the server's group, Ctrl-C say, is not for us
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    with open(reading, encoding="ascii") as lines:
        for line in lines:
            (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(_ROUNDS):
        left = list(_marked(f"{MARK}={token}".encode()))
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            return
        time.sleep(0.02)


def _marked(mark: bytes) -> Iterator[int]:
    """Processes with `mark` in their environment, those that left their group included; none without /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
