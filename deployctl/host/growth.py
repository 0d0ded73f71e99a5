"""Parts of an artifact that is still being packed, as the parent tells of them; used by two threads of a worker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bare:
    """A file that travels as it is: where it lies in the artifact, and the numbers of its slices, which are all of one size but the last."""

    numbers: range
    start_bytes: int
    size_bytes: int
    slice_bytes: int

    def span(self, numbers: range) -> tuple[int, int]:
        """Return where these slices begin in the artifact, and how long they are."""
        before_bytes = (numbers[0] - self.numbers[0]) * self.slice_bytes
        return self.start_bytes + before_bytes, min(
            len(numbers) * self.slice_bytes, self.size_bytes - before_bytes
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the artifact, a slice of `bare` if there is one; numbers count from 1."""

    number: int
    start_bytes: int
    size_bytes: int
    sha256: str
    bare: Bare | None = None


class Growth:
    """All parts so far, and whether that is the whole."""

    def __init__(self, parts: Sequence[Sequence[Any]], *, whole: bool) -> None:
        self._lock = threading.Lock()
        self._parts: dict[int, Part] = {}
        self._end_bytes = 0
        self._bare: Bare | None = None
        self.name = ""  # of the directory of its parts on hosts, once it is known what it is
        self._whole = False
        self.grow(parts, whole=whole)

    def grow(self, parts: Sequence[Sequence[Any]], *, whole: bool, name: str = "") -> None:
        """Take in more of them, each as size in bytes, digest and, of the first slice of a file, the size of that in bytes."""
        with self._lock:
            for size_bytes, sha256, *bare_bytes in parts:
                number = len(self._parts) + 1
                if any(bare_bytes):
                    slices = -(-bare_bytes[0] // size_bytes)
                    self._bare = Bare(
                        range(number, number + slices), self._end_bytes, bare_bytes[0], size_bytes
                    )
                elif self._bare and number not in self._bare.numbers:
                    self._bare = None
                self._parts[number] = Part(number, self._end_bytes, size_bytes, sha256, self._bare)
                self._end_bytes += size_bytes
            self._whole = whole
            self.name = name or self.name

    def look(self) -> tuple[dict[int, Part], bool]:
        with self._lock:
            return dict(self._parts), self._whole
