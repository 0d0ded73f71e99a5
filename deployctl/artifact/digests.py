"""What the files of one SOURCE hashed to, kept in the user's cache: what did not change is not read again.

A file counts as the same when size, mtime, ctime and inode are, and when its times were well past as it was read: a
change within one tick of the file system's clock would not show, and one through mmap only when its page is written back.
That holds where ctime is the kernel's own and every write moves it, so only there is anything remembered. What can't be
read or written is not missed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from deployctl.artifact.manifest import Entry
from deployctl.artifact.walk import Found, Walked

GRAIN_NS = (
    60_000_000_000  # Linux writes dirty pages back after 30 s; clocks of file systems tick far more often
)
# Not tmpfs, where writes through mmap move no time, nor images and network file systems, whose ctime may be anything.
SOUND = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"})
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
        self._usable = has_sound_times(source)
        if self._usable:
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
        if not self._usable:
            return
        lines = [_FORMAT]
        for found, entry in zip(walked.entries, entries, strict=True):
            settled_ns = max(found.mtime_ns, found.ctime_ns) + GRAIN_NS
            if entry.type == "f" and settled_ns < self._read_at_ns:
                lines.append(" ".join(str(each) for each in (*_mark(found), entry.sha256)))
        with contextlib.suppress(OSError):
            self._write("\n".join(lines) + "\n")

    def forget(self) -> None:
        """What was known turned out to be wrong."""
        with contextlib.suppress(OSError):
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


def has_sound_times(source: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether all of `source` lies on one writable file system of a kind whose ctime can be relied upon."""
    place = os.fsencode(source.resolve())
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:
        return sys.platform == "darwin"  # where everything is APFS or HFS+
    best: tuple[bytes, bool] = (b"", False)
    for line in lines:
        left, _, right = line.partition(b" - ")
        fields, kind = left.split(b" "), right.split(b" ")[0].decode("ascii", "replace")
        if len(fields) < 6:
            continue
        at = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), fields[4]).rstrip(b"/")
        if at.startswith(place + b"/"):
            return False  # something else is mounted within
        if (place == at or place.startswith(at + b"/")) and len(at) >= len(best[0]):
            best = (at, kind in SOUND and b"rw" in fields[5].split(b","))
    return best[1]


def _mark(found: Found) -> Mark:
    return found.ino, found.size, found.mtime_ns, found.ctime_ns
