"""What the files of one SOURCE hashed to, kept in the user's cache: what did not change is not read again.

A file counts as the same when size, mtime, ctime and inode are, and when its times were well past as it was read: a
change within one tick of the file system's clock would not show. What can't be read or written is not missed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from deployctl.artifact.manifest import Entry
from deployctl.artifact.walk import Found, Walked

GRAIN_NS = 2_000_000_000  # the coarsest clock of a file system that is in use: FAT counts two seconds
KEPT = 32  # sources
_FORMAT = "deployctl digests 1"
_DIGEST = re.compile(r"[0-9a-f]{64}")

Mark = tuple[int, int, int, int]  # inode, size, mtime and ctime


class Digests:
    """The known digests of one SOURCE; `keep` writes them back with those of a new manifest."""

    def __init__(self, directory: Path, source: Path) -> None:
        name = hashlib.sha256(os.fsencode(source.absolute())).hexdigest()
        self._file = directory / name
        self._known: dict[Mark, str] = {}
        self._read_at_ns = time.time_ns()
        self._load()

    def _load(self) -> None:
        try:
            header, *lines = self._file.read_text("ascii").splitlines()
            if header != _FORMAT:
                return
            for line in lines:
                inode, size, mtime_ns, ctime_ns, digest = line.split(" ")
                if _DIGEST.fullmatch(digest):
                    self._known[int(inode), int(size), int(mtime_ns), int(ctime_ns)] = digest
        except (OSError, ValueError):
            self._known.clear()

    def find(self, found: Found) -> str | None:
        return self._known.get(_mark(found))

    def keep(self, walked: Walked, entries: Iterable[Entry]) -> None:
        """Remember what these entries, which are those of the walk, hashed to; files that are gone are forgotten."""
        lines = [_FORMAT]
        for found, entry in zip(walked.entries, entries, strict=True):
            settled_ns = max(found.mtime_ns, found.ctime_ns) + GRAIN_NS
            if entry.type == "f" and settled_ns < self._read_at_ns:
                lines.append(" ".join(str(each) for each in (*_mark(found), entry.sha256)))
        with contextlib.suppress(OSError):
            self._write("\n".join(lines) + "\n")

    def forget(self) -> None:
        """What was known turned out to be wrong."""
        self._file.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        directory = self._file.parent
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=directory)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
            Path(name).replace(self._file)
        finally:
            Path(name).unlink(missing_ok=True)
        files = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in files[KEPT:]:
            path.unlink(missing_ok=True)


def _mark(found: Found) -> Mark:
    return found.ino, found.size, found.mtime_ns, found.ctime_ns
