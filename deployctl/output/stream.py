"""A text stream that can break, block or lack letters without the run noticing.

Owns how text reaches standard output and standard error; refuses to know what is written. A stream that is closed, full or
without reader is switched off, a reader that is slow never makes the run wait before `close`.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import sys
from collections import deque
from typing import TextIO

_PIECE = 1000  # letters a write: at most 4096 bytes, which a pipe that is ready takes without blocking
_HELD_MOST = 4_000_000  # letters kept for a reader that is slow, before what can be spared is left out
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


class SafeStream:
    """Wraps `stream` (None: it was closed before we started); no method raises."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.off = stream is None or stream.closed
        self.lost: str | None = None  # why it could not be written; a reader that left is no loss
        self.left_out = 0  # lines that could be spared, and were
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"
        self._held: deque[str] = deque()
        self._held_size = 0
        self._unflushed = False
        self._fd = _descriptor(stream)

    def isatty(self) -> bool:
        try:
            return self._stream is not None and not self.off and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int | None:
        return self._fd

    def can_write(self, text: str) -> bool:
        """Whether the encoding of the stream has all letters of `text`."""
        try:
            text.encode(self.encoding)
        except (UnicodeError, LookupError):
            return False
        return True

    def line(self, text: str, *, spare: bool = False) -> None:
        """Write a line; one that can be spared is left out while the reader is too far behind."""
        if spare and self._held_size + len(text) > _HELD_MOST:
            self.drain()
            if self._held_size + len(text) > _HELD_MOST:
                self.left_out += 1
                return
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """Write and flush, or keep it for later when the reader is slow."""
        if self.off or not text:
            return
        text = encodable(text, self.encoding)
        for start in range(0, len(text), _PIECE):
            self._held.append(text[start : start + _PIECE])
        self._held_size += len(text)
        self.drain()

    def ready(self, timeout_s: float | None = 0) -> bool:
        """Whether a write would not block; a timeout of None waits."""
        if self._fd is None:
            return True
        try:
            return bool(select.select([], [self._fd], [], timeout_s)[1])
        except (OSError, ValueError):
            return True  # the write itself finds out

    def idle(self) -> bool:
        """Whether nothing is kept back and more can be written at once."""
        return not self.off and not self._held and not self._unflushed and self.ready()

    def drain(self, *, wait: bool = False) -> None:
        """Write what was kept back: what goes without waiting, or with `wait` everything."""
        if self._stream is None:
            return
        while not self.off and (self._held or self._unflushed):
            if not self.ready(None if wait else 0):
                return
            try:
                if not self._unflushed:
                    piece = self._held.popleft()
                    self._held_size -= len(piece)
                    self._stream.write(piece)
                    self._unflushed = True
                self._stream.flush()
                self._unflushed = False
            except BlockingIOError:  # somebody made it non-blocking; what did not go is in its buffer
                if not wait:
                    return
            except (OSError, ValueError) as error:
                self.off = True
                if not isinstance(error, BrokenPipeError):
                    self.lost = getattr(error, "strerror", None) or str(error)
        if self.off:
            self._held.clear()
            self._held_size = 0


def encodable(text: str, encoding: str) -> str:
    """`text` with each letter that `encoding` lacks as a backslash escape."""
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except (UnicodeError, LookupError):
        return text.encode("ascii", "backslashreplace").decode("ascii")


def printable(text: str) -> str:
    """`text` on one line that no terminal acts upon: control letters and undecodable bytes as escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def log_lines(text: str) -> list[str]:
    """The lines of a remote program's output, printable: colours dropped, tabs expanded, overwritten parts left out."""
    lines = _COLOUR.sub("", text).rstrip("\r\n").split("\n")
    return [printable(line.rstrip("\r").rpartition("\r")[2].expandtabs()) for line in lines]


def _escaped(letter: str) -> str:
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8, as surrogateescape keeps it
        number -= 0xDC00
    if number < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


class ClosedStream(io.TextIOBase):
    """Stands for a stream that was closed before we started: whoever writes to it is told so, as with one that is full."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def write(self, _text: str) -> int:
        raise OSError(errno.EBADF, "it is closed", self._name)


def fill_closed_streams() -> None:
    """Put /dev/null where descriptor 0, 1 or 2 is closed, so that no pipe or socket of ours gets that number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def detach_broken_stdout() -> None:
    """Point a standard output or error that cannot be flushed at /dev/null, so that Python's flush at exit is silent."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _point_at_null(stream)


def _point_at_null(stream: TextIO) -> None:
    descriptor = _descriptor(stream)
    if descriptor is None:
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
