"""Parts of an artifact that is still being packed, as the parent tells of them; used by two threads of a worker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the artifact; numbers count from 1."""

    number: int
    start_bytes: int
    size_bytes: int
    sha256: str


class Growth:
    """All parts so far, and whether that is the whole."""

    def __init__(self, parts: Sequence[Sequence[Any]], *, whole: bool) -> None:
        self._lock = threading.Lock()
        self._parts: dict[int, Part] = {}
        self._end_bytes = 0
        self._whole = False
        self.grow(parts, whole=whole)

    def grow(self, parts: Sequence[Sequence[Any]], *, whole: bool) -> None:
        """Take in more of them, each as size in bytes and digest."""
        with self._lock:
            for size_bytes, sha256 in parts:
                number = len(self._parts) + 1
                self._parts[number] = Part(number, self._end_bytes, int(size_bytes), str(sha256))
                self._end_bytes += int(size_bytes)
            self._whole = whole

    def look(self) -> tuple[dict[int, Part], bool]:
        with self._lock:
            return dict(self._parts), self._whole
