"""A program of its own that uses a pool, seen from outside: for what would end the test run if it happened in it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import proc
from tests.support.proc import Proc

ROOT = Path(__file__).parents[2]
HEAD = """\
import os, signal, sys, time
from deployctl import TaskFailed, WorkerPool
from deployctl.errors import DeployctlError
from tests.engine import tasks

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

"""


class Program:
    """Runs `HEAD` and a script in a session of its own; `line` is what it says next."""

    def __init__(
        self, script: str, *arguments: str | Path, shell: Sequence[str] = (), **options: Any
    ) -> None:
        self._unread = b""
        self.process = subprocess.Popen(
            [*shell, sys.executable, "-W", "error", "-c", HEAD + script, *map(str, arguments)],
            **{
                "cwd": ROOT,
                "env": {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "start_new_session": True,
                **options,
            },
        )

    def ready(self, timeout_s: float) -> bool:
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], timeout_s)[0])

    def line(self, timeout_s: float = 20.0) -> str:
        assert self.process.stdout
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            ready = self.ready(max(0.0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                raise AssertionError(f"silent or ended: {self._unread!r} {self.errors() if ready else ''}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def errors(self) -> str:
        return self.process.stderr.read().decode() if self.process.stderr else ""

    def end(self, timeout_s: float = 20.0) -> int:
        return self.process.wait(timeout_s)

    def family(self) -> list[Proc]:
        """Every living process of the session."""
        return [p for p in proc.everything() if p.state not in "ZX" and _session(p.pid) == self.process.pid]

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)


@contextmanager
def program(script: str, *arguments: str | Path, **options: Any) -> Iterator[Program]:
    """Run one, and kill whatever is left of it."""
    running = Program(script, *arguments, **options)
    try:
        yield running
    finally:
        for process in running.family():
            process.signal(signal.SIGKILL)
        running.process.wait()
        for stream in (running.process.stdout, running.process.stderr):
            if stream:
                stream.close()


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def nobody(family: Callable[[], list[Proc]]) -> Callable[[], bool]:
    return lambda: not family()
