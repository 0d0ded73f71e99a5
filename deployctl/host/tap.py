"""What a hook prints: lines as they come, bounded, without secrets, and the last of them for the failure."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from deployctl.host.script import printable

LINE_BYTES = 4096  # a longer line is cut into several
PASS_BYTES = 256 << 10  # of one hook; beyond it only the tail is kept
TAIL_BYTES = 64 << 10
TAIL_LINES = 20
HIDDEN = "***"


class Tap:
    """Takes bytes of two streams and passes lines on; any amount of output costs bounded memory."""

    def __init__(self, emit: Callable[[str, str], None], secrets: Sequence[str] = ()) -> None:
        self._emit = emit
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)
        self._rest = {"stdout": b"", "stderr": b""}
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._passed_bytes = 0
        self._lock = threading.Lock()
        self._blank = {"stdout": 0, "stderr": 0}  # empty lines held back: at the end they say nothing

    def take(self, stream: str, data: bytes) -> None:
        with self._lock:
            *lines, rest = (self._rest[stream] + data).split(b"\n")
            while len(rest) > LINE_BYTES:
                lines.append(rest[:LINE_BYTES])
                rest = rest[LINE_BYTES:]
            self._rest[stream] = rest
            for line in lines:
                self._line(stream, line)

    def end(self) -> list[str]:
        """Pass on what has no newline at its end, and return the last lines."""
        with self._lock:
            for stream, rest in self._rest.items():
                if rest:
                    self._line(stream, rest)
            self._rest = {"stdout": b"", "stderr": b""}
            return list(self._tail)[-TAIL_LINES:]

    def _line(self, stream: str, raw: bytes) -> None:
        text = self.clean(raw[:LINE_BYTES].decode("utf-8", "replace"))
        if not text:
            self._blank[stream] += 1
            return
        blank, self._blank[stream] = self._blank[stream], 0
        for line in (*([""] * min(blank, 2)), text):
            self._pass(stream, line, len(raw) + 1)

    def _pass(self, stream: str, text: str, size_bytes: int) -> None:
        self._tail.append(text)
        self._tail_size += len(text)
        while self._tail_size > TAIL_BYTES:
            self._tail_size -= len(self._tail.popleft())
        before, self._passed_bytes = self._passed_bytes, self._passed_bytes + size_bytes
        if self._passed_bytes <= PASS_BYTES:
            self._emit(stream, text)
        elif before <= PASS_BYTES:
            self._emit(stream, f"(more than {PASS_BYTES >> 10} KiB of output: the rest is not shown)")

    def clean(self, text: str) -> str:
        """Hide secrets and make the text safe for a terminal."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return printable(text.rstrip("\r"))
