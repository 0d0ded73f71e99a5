"""Contents of SOURCE, and the proof that they are those the walk saw.

Owns opening, reading and hashing; refuses to know an archive or a compressor. A path that was swapped for something
else since the walk is noticed before a byte of it is used, and never waited for.
"""

# Paths are bytes here, since names need not be text.
# ruff: noqa: PTH115

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from deployctl.artifact.manifest import escape
from deployctl.artifact.walk import Found, Walked, children
from deployctl.errors import SourceError

CHUNK_BYTES = 1024 * 1024

# O_NONBLOCK is for a FIFO that took the file's place: without it, opening waits for a writer.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_whole(walked: Walked, entry: Found) -> tuple[bytes, str]:
    """Content and SHA-256 of one file, for files that fit in memory; SourceError if it changed since the walk."""
    size = entry.size
    try:
        # As `opened` does it: of small files, context managers are half of the time.
        handle = os.open(walked.place(entry.path), _FLAGS)
        try:
            _check_same(os.fstat(handle), entry)
            content = os.read(handle, size + 1)
            while 0 < len(content) < size:
                more = os.read(handle, size + 1 - len(content))
                if not more:
                    break
                content += more
            _check_same(os.fstat(handle), entry)
        finally:
            os.close(handle)
    except OSError as error:
        raise _unreadable(entry.path, error) from None
    if len(content) != size:
        raise changed(entry.path)
    return content, hashlib.sha256(content).hexdigest()


def read_chunks(walked: Walked, entry: Found) -> Iterator[bytes]:
    """The content of one file in chunks of at most `CHUNK_BYTES`; SourceError if it changed since the walk."""
    with opened(walked, entry) as handle:
        left = entry.size
        while chunk := os.read(handle, min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        if left:
            raise changed(entry.path)


@contextmanager
def opened(walked: Walked, entry: Found) -> Iterator[int]:
    """A descriptor of one file; SourceError if it changed between the walk and the end of this, or for an OSError in here."""
    with _errors(entry.path):
        handle = os.open(walked.place(entry.path), _FLAGS)
        try:
            _check_same(os.fstat(handle), entry)
            yield handle
            _check_same(os.fstat(handle), entry)
        finally:
            os.close(handle)


def read_link(walked: Walked, entry: Found) -> str:
    """SHA-256 of a link's text; SourceError if it is not what the walk saw."""
    with _errors(entry.path):
        if os.readlink(walked.place(entry.path)) != entry.text:
            raise changed(entry.path)
    return hashlib.sha256(entry.text).hexdigest()


def check_directories(walked: Walked) -> None:
    """Refuse a tree in which something appeared, vanished or changed its mode since the walk.

    Only a directory whose times moved is listed again, so that files that are excluded may come and go.
    """
    if walked.is_file:
        return
    problems: list[str] = []
    known: set[bytes] | None = None
    for path, entry in [(b"", None), *((e.path, e) for e in walked.entries if e.type == "d")]:
        place = walked.place(path) if path else walked.root
        try:
            status = os.lstat(place)
            same = walked.root_mtime_ns if entry is None else entry.mtime_ns
            if entry is not None and (
                not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o777 != entry.mode
            ):
                problems.append(_said(path))
            elif status.st_mtime_ns != same:
                known = known if known is not None else {e.path for e in walked.entries}
                problems += _moved(walked, path, known)
        except OSError:
            problems.append(_said(path))
    if problems:
        raise SourceError(problems)


def _moved(walked: Walked, directory: bytes, known: set[bytes]) -> list[str]:
    prefix = directory + b"/" if directory else b""
    before = {path for path in known if path.startswith(prefix) and b"/" not in path[len(prefix) :]}
    after = {path for path, _, _ in children(walked.root, directory, walked.excluded)}
    return [_said(path) for path in sorted(before ^ after)]


def _check_same(status: os.stat_result, entry: Found) -> None:
    if (
        status.st_mtime_ns != entry.mtime_ns
        or status.st_ctime_ns != entry.ctime_ns
        or status.st_size != entry.size
        or status.st_ino != entry.ino
        or status.st_mode & 0o777 != entry.mode
        or not stat.S_ISREG(status.st_mode)
    ):
        raise changed(entry.path)


@contextmanager
def _errors(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: bytes, error: OSError) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return changed(path)
    return SourceError(f"{escape(path)}: cannot be read: {os.strerror(error.errno or 0)}")


def changed(path: bytes) -> SourceError:
    """What to raise when an entry is not what it was."""
    return SourceError(_said(path), hint="pack a tree that nothing writes into, or exclude what changes")


def _said(path: bytes) -> str:
    return f"{escape(path)}: changed while it was packed"
