"""Threads that carry what is wanted over one connection, each over a channel of its own; knows nothing of what it is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from deployctl.errors import Code, HostError
from deployctl.host.shell import Cancel, Cancelled

JOIN_S = 5.0
Send = Callable[[range, Cancel], None]


class Lanes:
    """Calls `send` with all that is wanted, numbers that go together, `count` at a time; the first that fails ends its lane."""

    def __init__(self, send: Send, wanted: Iterable[range], count: int, cancel: Cancel) -> None:
        self._send = send
        self._stop = Cancel()
        self._change = threading.Condition()  # guards all below
        self._wanted = deque(wanted)
        self._closed = False
        self._moving = 0
        self._errors: list[HostError | Cancelled] = []
        self._crowded: HostError | None = None  # the server has no room for one more channel
        self._threads = [
            threading.Thread(target=self._run, name=f"lane {number}", daemon=True) for number in range(count)
        ]
        self._alive = count
        cancel.on_cancel(self._stop)
        for thread in self._threads:
            thread.start()

    def want(self, numbers: range) -> None:
        with self._change:
            self._wanted.append(numbers)
            self._change.notify()

    @property
    def moving(self) -> bool:
        with self._change:
            return self._moving > 0

    def check(self) -> None:
        """Raise what went wrong, the cause before what followed from it; HostError, Cancelled."""
        with self._change:
            errors = sorted(self._errors, key=_rank)
        if errors:
            raise errors[0]

    @property
    def crowded(self) -> HostError | None:
        """Why not a single lane is left, when that is for want of room on the server."""
        with self._change:
            return self._crowded if self._alive == 0 else None

    def close(self) -> None:
        """Nothing more is wanted; stop what is under way."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            moving = self._moving
        if moving:
            self._stop()
        for thread in self._threads:
            thread.join(JOIN_S)

    def _next(self) -> range | None:
        with self._change:
            while not self._wanted and not self._closed:
                self._change.wait()
            if self._closed or self._errors:
                return None
            self._moving += 1
            return self._wanted.popleft()

    def _run(self) -> None:
        while (numbers := self._next()) is not None:
            error: HostError | Cancelled | None = None
            try:
                self._send(numbers, self._stop)
            except (HostError, Cancelled) as caught:
                error = caught
            except Exception as caught:  # noqa: BLE001 - a thread's error must not get lost
                error = HostError(Code.UNEXPECTED, f"{type(caught).__name__}: {caught}")
            with self._change:
                self._moving -= 1
                if isinstance(error, HostError) and "channel" in error.data:
                    self._crowded = error
                    self._wanted.appendleft(numbers)
                    self._change.notify()
                elif error is not None:
                    self._errors.append(error)
                if error is not None:
                    break
        with self._change:
            self._alive -= 1


def _rank(error: HostError | Cancelled) -> int:
    """Whoever ends a connection knows why; others on it only see that it is lost."""
    if isinstance(error, Cancelled):
        return 2
    return int(error.code is Code.LOST and not error.data)
