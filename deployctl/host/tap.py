"""What a hook prints: lines as they come, bounded, without secrets, and the last of them for the failure."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Sequence

from deployctl.host.script import printable

LINE_BYTES = 4096  # a longer line is cut into several
PASS_BYTES = 256 << 10  # of one hook; beyond it only the tail is kept
EVENT_BYTES = 64  # what a line costs at least: a million empty ones are no small output
TAIL_LINES = 20
HIDDEN = "***"
PART = 4  # of a secret of several lines, each line that is at least this long is one of its own


class Tap:
    """Takes bytes of two streams and passes lines on; any amount of output costs bounded memory."""

    def __init__(
        self,
        emit: Callable[[str, str], None],
        secrets: Sequence[str] = (),
        *,
        pass_bytes: int = PASS_BYTES,
    ) -> None:
        self._emit = emit
        self._pass_bytes = pass_bytes
        self._secrets = _with_parts(secrets)
        self._hidden = [
            (secret.encode("utf-8", "surrogateescape"), HIDDEN.encode()) for secret in self._secrets
        ]
        self._longest = max((len(secret) for secret, _ in self._hidden), default=0)
        self._rest = {"stdout": b"", "stderr": b""}
        self._tail: deque[str | bytes] = deque(maxlen=TAIL_LINES)
        self._passed_bytes = 0
        self._lock = threading.Lock()
        self._blank = {"stdout": 0, "stderr": 0}  # empty lines held back: at the end they say nothing

    def take(self, stream: str, data: bytes) -> None:
        with self._lock:
            *lines, rest = (self._rest[stream] + data).split(b"\n")
            if len(rest) > LINE_BYTES + self._longest:
                rest = self._cut(rest, lines)
            self._rest[stream] = rest
            if self._passed_bytes > self._pass_bytes:  # only the tail counts; it is made readable at the end
                self._tail.extend(line for line in lines[-TAIL_LINES:] if line)
                return
            for line in lines:
                self._line(stream, line)

    def _cut(self, rest: bytes, lines: list[bytes]) -> bytes:
        """Make lines of a long one that has no end yet; never through the middle of a secret."""
        for secret, hidden in self._hidden:
            rest = rest.replace(secret, hidden)
        while len(rest) > LINE_BYTES + self._longest:
            lines.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        return rest

    def end(self) -> list[str]:
        """Pass on what has no newline at its end, and return the last lines."""
        with self._lock:
            for stream, rest in self._rest.items():
                if rest:
                    self._line(stream, rest)
            self._rest = {"stdout": b"", "stderr": b""}
            return [line if isinstance(line, str) else self._text(line) for line in self._tail]

    def _line(self, stream: str, raw: bytes) -> None:
        text = self.clean(raw.decode("utf-8", "replace"))
        if not text:
            self._blank[stream] += 1
            return
        blank, self._blank[stream] = self._blank[stream], 0
        parts = [text[start : start + LINE_BYTES] for start in range(0, len(text), LINE_BYTES)]
        for line in (*([""] * min(blank, 2)), *parts):
            self._pass(stream, line, len(line) + 1)

    def _text(self, raw: bytes) -> str:
        return self.clean(raw.decode("utf-8", "replace"))[:LINE_BYTES]

    def _pass(self, stream: str, text: str, size_bytes: int) -> None:
        self._tail.append(text)
        before, self._passed_bytes = self._passed_bytes, self._passed_bytes + max(EVENT_BYTES, size_bytes)
        if self._passed_bytes <= self._pass_bytes:
            self._emit(stream, text)
        elif before <= self._pass_bytes:
            self._emit(stream, f"(more than {self._pass_bytes >> 10} KiB of output: the rest is not shown)")

    def clean(self, text: str) -> str:
        """Hide secrets and make the text safe for a terminal."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return printable(text.rstrip("\r"))


def hide(text: str, secrets: Sequence[str]) -> str:
    """Hide secrets in a text that is all there at once."""
    return Tap(lambda _stream, _text: None, secrets).clean(text)


def _with_parts(secrets: Sequence[str]) -> list[str]:
    """Return the secrets, as they are and as JSON writes them, and the lines of those that have several, the longest first."""
    parts = {
        part
        for secret in secrets
        for part in (
            secret,
            secret.strip(),
            json.dumps(secret)[1:-1],
            *(line.strip() for line in secret.splitlines()),
        )
        if part and (part == secret or len(part) >= PART)
    }
    return sorted(parts, key=len, reverse=True)
