"""deployctl on a pseudo-terminal of its own: K10."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.kit import SECRET_ENV, Scene
from tests.release.running import PROGRAM, session_of
from tests.support import proc
from tests.support.proc import Proc


class Terminal:
    """A run whose three streams are a terminal that it controls; a context manager."""

    def __init__(self, scene: Scene, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        self._end, other = pty.openpty()
        self.said = ""
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments), "-i", str(scene.lab.inventory)],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**os.environ, "TERM": "xterm", "TMPDIR": str(scene.here), **SECRET_ENV, **(env or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads in tests
        )
        os.close(other)

    def press(self, text: str) -> None:
        os.write(self._end, text.encode())

    def hang_up(self) -> None:
        os.close(self._end)
        self._end = -1

    def read(self, timeout_s: float) -> bool:
        """Take what comes within `timeout_s`; False at the end."""
        if self._end < 0 or not select.select([self._end], [], [], timeout_s)[0]:
            return self._end >= 0
        try:
            data = os.read(self._end, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.said += data.decode(errors="replace")
        return bool(data)

    def read_until(self, done: object, timeout_s: float = 30) -> None:
        """Read on until `done()` is true, so that the run never waits for its terminal."""
        assert callable(done)
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, self.said
            assert self.read(0.02), self.said

    def exit_code(self, timeout_s: float = 60) -> int:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._end >= 0 and self.read(0.2):
            pass
        code = self.process.wait(max(0.1, deadline - time.monotonic()))
        proc.wait_until(lambda: not self.family(), 3, "the end of the family")
        return code

    def family(self) -> list[Proc]:
        return [p for p in proc.everything() if p.state not in "ZX" and session_of(p.pid) == self.process.pid]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        proc.kill(self.family())
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if self._end >= 0:
            os.close(self._end)
