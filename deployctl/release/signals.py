"""Ctrl-C, TERM and HUP as something the main loop reads, instead of something that happens to it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from deployctl.errors import Exit

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Counts signals that ask us to stop; `fd` is readable when one came."""

    def __init__(self) -> None:
        self.fd, self._wake = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._wake, False)
        self.first: signal.Signals | None = None
        self.count = 0

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        self.count += 1
        self.first = self.first or signal.Signals(number)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b".")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 64)

    @property
    def exit_code(self) -> Exit:
        return Exit(128 + (self.first or signal.SIGINT))

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._wake)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catch the stop signals while a run lasts; a HUP that is ignored (nohup) stays ignored.

    Outside the main thread nothing can be caught: there the caller's own handling of signals stays in force.
    """
    stop = StopSignals()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in HANDLED:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                before[number] = signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
