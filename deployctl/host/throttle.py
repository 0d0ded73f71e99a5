"""The rate at which one worker may send; its share of the whole run's, which the parent changes as uploads begin and end."""

from __future__ import annotations

import threading
import time

SLICE_S = 0.1  # no read is larger than what may be sent in this time
LEAST_BYTES = 1024


class Throttle:
    """Holds back whoever sends, so that no more than `bytes_s` bytes leave in a second; None: no limit. Thread-safe."""

    def __init__(self, bytes_s: float | None = None) -> None:
        self._bytes_s = bytes_s
        self._lock = threading.Lock()
        self._free_at = time.monotonic()  # when what was let through so far will have left

    def set(self, bytes_s: float) -> None:
        self._bytes_s = bytes_s

    @property
    def bytes_s(self) -> float | None:
        return self._bytes_s

    def step(self, wanted: int) -> int:
        """How much of `wanted` may be sent in one go."""
        if self._bytes_s is None:
            return wanted
        return min(wanted, max(LEAST_BYTES, int(self._bytes_s * SLICE_S)))

    def take(self, size_bytes: int, cancelled: threading.Event) -> None:
        """Wait until what was taken before has had its time, then count `size_bytes`."""
        if self._bytes_s is None:
            return
        while not cancelled.is_set():
            with self._lock:
                left_s = self._free_at - time.monotonic()
                if left_s <= 0:
                    self._free_at = (
                        max(self._free_at, time.monotonic() - SLICE_S) + size_bytes / self._bytes_s
                    )
                    return
            cancelled.wait(min(left_s, SLICE_S))
