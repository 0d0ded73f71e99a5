"""The watchdog of one connection: silence for too long ends it, whatever anyone waits for.

Owns one thread that only looks at clocks and closes; it never sends, so it can't be blocked by the connection it
watches. The asking is done by the transport's own thread (see `peer`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from deployctl.errors import Code, HostError
from deployctl.host.wire import Wire


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence may last. A server is asked for a sign of life after `ask_after_s`, given up after `silent_s`.

    OpenSSH acknowledges an upload only every 96 KiB. Where the kernel can't tell that bytes still move (jump hosts,
    proxy commands), `slow_s` is given instead while something was sent since: 96 KiB at 1 KiB/s.
    """

    ask_after_s: float = 5.0
    silent_s: float = 20.0
    slow_s: float = 100.0


PATIENCE = Patience()
SMALL = 16384  # bytes; questions for a sign of life are far below, a part of an upload is above


class Keeper:
    """Calls `give_up` once, from its own thread, when nothing was heard for too long."""

    def __init__(
        self, wire: Wire, endpoint: str, patience: Patience, give_up: Callable[[HostError], None]
    ) -> None:
        self._wire = wire
        self._endpoint = endpoint
        self._patience = patience
        self._give_up = give_up
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keeper {endpoint}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """From any thread; waits for the thread's end unless it is the caller."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(2)

    def _run(self) -> None:
        patience, wire = self._patience, self._wire
        moved_at = time.monotonic()
        while True:
            now = time.monotonic()
            if wire.moving():
                moved_at = now
            alive_at = max(wire.heard_at, moved_at)
            limit_s = patience.silent_s
            if not wire.tells_progress and wire.sent_since_heard > SMALL:
                limit_s = max(limit_s, patience.slow_s)
            silent_s = now - alive_at
            if silent_s >= limit_s:
                message = f"{self._endpoint}: no answer for {silent_s:.0f} s"
                self._give_up(HostError(Code.TIMED_OUT, message))
                return
            # While silent look often enough to see bytes move; else sleep until silence could matter.
            pause_s = min(patience.ask_after_s, limit_s - silent_s)
            if self._stop.wait(max(pause_s, 0.01)):
                return
