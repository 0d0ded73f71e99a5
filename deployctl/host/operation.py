"""One command on one host while it runs: its phase, its reports, its single end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from deployctl.engine.child import Line
from deployctl.errors import Code, HostError
from deployctl.host.shell import Cancel, Cancelled
from deployctl.model import Phase, State

BYTES_EVERY_S = 0.25


class Operation:
    """Reports what happens to one host; whoever ends it first, its thread or a cancel, has the last word."""

    def __init__(self, line: Line, host: str, do: str, timeout_s: float) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._ended = False
        self._began_at = time.monotonic()
        self._bytes_at = 0.0
        self.host = host
        self.do = do
        self.timeout_s = timeout_s
        self.phase: str | None = None
        self.reached = False  # the host may have been told what to do
        self.cancel = Cancel()

    def begin(self, phase: Phase, *, quiet: bool = False, began_at: float | None = None) -> None:
        """Enter a phase; from here on a failure belongs to it. `quiet`: the parent is not told.

        `began_at`: it goes on from another command.
        """
        self._began_at = began_at or time.monotonic()
        self.phase = phase
        if not quiet:
            self._status(State.RUNNING, {})

    def reach(self) -> None:
        """The host is told from here on; Cancelled where that is not wanted any more."""
        with self._lock:
            if self._ended:
                raise Cancelled
            self.cancel.check()
            self.reached = True

    def ok(self, **data: Any) -> None:
        """Leave the phase well."""
        self._status(State.OK, data)

    def _status(self, state: State, data: dict[str, Any]) -> None:
        with self._lock:
            if not self._ended:
                self._line.send(
                    {
                        "event": "status",
                        "host": self.host,
                        "phase": self.phase,
                        "state": state,
                        "elapsed_s": round(time.monotonic() - self._began_at, 3),
                        "data": data,
                    }
                )

    def bytes(self, done: int, total: int) -> None:
        """Report progress of an upload, a few times a second at most."""
        now = time.monotonic()
        if done < total and now - self._bytes_at < BYTES_EVERY_S:
            return
        self._bytes_at = now
        with self._lock:
            if not self._ended:
                self._line.send({"event": "bytes", "host": self.host, "done": done, "total": total})

    def log(self, stream: str, text: str) -> None:
        """Pass on one line that a hook printed."""
        with self._lock:
            if not self._ended:
                self._line.send(
                    {"event": "log", "host": self.host, "phase": self.phase, "stream": stream, "text": text}
                )

    def end_ok(self, data: dict[str, Any]) -> None:
        self._end("ok", Code.OK, "success", data)

    def end_failed(self, error: HostError) -> None:
        hint = {"hint": error.hint} if error.hint else {}
        self._end("failed", error.code, error.message, {**error.data, **hint})

    def end_cancelled(self, before: Callable[[], None] = lambda: None) -> None:
        """Unless it has ended, call `before` and say that it was cancelled."""
        self._end("cancelled", Code.OK, "cancelled", {}, before)

    def _end(
        self,
        state: str,
        code: Code,
        message: str,
        data: dict[str, Any],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            before()
            self._line.send(
                {
                    "event": "done",
                    "host": self.host,
                    "do": self.do,
                    "phase": self.phase,
                    "state": state,
                    "code": int(code),
                    "message": message,
                    "reached": self.reached,
                    "elapsed_s": round(time.monotonic() - self._began_at, 3),
                    "data": data,
                }
            )
