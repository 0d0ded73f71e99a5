"""Contents of large files that were released from here, kept in the user's cache: what patches are worked out against.

Each lies under its SHA-256. Owns the bound, what goes first and how a copy gets there; refuses to vouch for a content: whoever uses
one hashes it, since a file may be cut, damaged or have changed while it was copied. What can't be read is none; what can't be
written is not missed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from deployctl.artifact.manifest import Entry
from deployctl.artifact.reading import opened
from deployctl.artifact.walk import Walked
from deployctl.errors import SourceError

LARGE_BYTES = 1 << 20  # a smaller file is sent whole: a patch costs a host several processes
LIMIT_BYTES = 2 << 30
FREE_SHARE = 0.1  # of what would be free on that file system without us
_STEP_BYTES = 4 << 20  # a slow disk is not to hold up a command
_STALE_S = 3600.0  # a copy that nobody has added to for so long is a dead run's
_NEW = ".new-"
_NAME = re.compile(r"[0-9a-f]{64}")
_FICLONE = 0x40049409  # linux/fs.h: both files share their blocks until one is written to


class Kept:
    """The contents in one directory, open to us alone."""

    def __init__(self, directory: Path, limit_bytes: int | None = None) -> None:
        self._directory = directory
        self._limit_bytes = LIMIT_BYTES if limit_bytes is None else limit_bytes

    def find(self, digest: str, size_bytes: int) -> Path | None:
        """The file that should have this content; it counts as used now."""
        path = self._directory / digest
        try:
            if not path.is_file() or path.stat().st_size != size_bytes:
                return None
            os.utime(path)
        except OSError:
            return None
        return path

    def drop(self, digest: str) -> None:
        """What lies under this digest is not what it should be."""
        with contextlib.suppress(OSError):
            (self._directory / digest).unlink(missing_ok=True)

    def keep(self, walked: Walked, entries: Iterable[Entry]) -> Iterator[None]:
        """Keep these files of the tree, the first ones where not all fit; a step for every 4 MiB, so that it can be left."""
        found = {entry.path: entry for entry in walked.entries}
        large: dict[str, Entry] = {}
        for entry in entries:
            if entry.type == "f" and entry.size >= LARGE_BYTES:
                large.setdefault(entry.sha256, entry)
        if not large:
            return
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._remove_stale()
            for entry in self._make_room(list(large.values())):
                yield
                with contextlib.suppress(SourceError), opened(walked, found[entry.path]) as source:
                    yield from self._copy(source, entry)

    def _make_room(self, wanted: Sequence[Entry]) -> list[Entry]:
        """Remove what was not used for longest; return what is to be copied. What is wanted and here stays, and counts as used."""
        held = self._held()
        taken_bytes = sum(size for _, size in held.values())
        free_bytes = shutil.disk_usage(self._directory).free
        room_bytes = min(self._limit_bytes, int((free_bytes + taken_bytes) * FREE_SHARE))
        here = [entry for entry in wanted if self.find(entry.sha256, entry.size)]
        used_bytes = sum(held.pop(entry.sha256, (0, 0))[1] for entry in here)
        missing: list[Entry] = []
        for entry in wanted:
            if entry not in here and used_bytes + entry.size <= room_bytes:
                used_bytes += entry.size
                missing.append(entry)
        left_bytes = room_bytes - used_bytes
        for digest, (_, size) in sorted(held.items(), key=lambda each: each[1], reverse=True):
            left_bytes -= size
            if left_bytes < 0:
                self.drop(digest)
        return missing

    def _held(self) -> dict[str, tuple[int, int]]:
        """When each was used, in ns, and its size."""
        held = {}
        for path in self._directory.iterdir():
            if _NAME.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # another run has removed it
                    status = path.stat()
                    held[path.name] = (status.st_mtime_ns, status.st_size)
        return held

    def _remove_stale(self) -> None:
        for path in self._directory.glob(f"{_NEW}*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _STALE_S:
                    path.unlink()

    def _copy(self, source: int, entry: Entry) -> Iterator[None]:
        handle, name = tempfile.mkstemp(prefix=_NEW, dir=self._directory)
        try:
            if not _clone(source, handle):
                yield from _copy_bytes(source, handle, entry.size)
            if os.fstat(handle).st_size == entry.size:
                os.utime(handle)
                Path(name).replace(self._directory / entry.sha256)
        finally:
            os.close(handle)
            Path(name).unlink(missing_ok=True)


def _clone(source: int, target: int) -> bool:
    """Whether the file system made a copy that takes no space."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _copy_bytes(source: int, target: int, size_bytes: int) -> Iterator[None]:
    done = 0
    while done < size_bytes:
        step = min(_STEP_BYTES, size_bytes - done)
        try:
            copied = os.copy_file_range(source, target, step, done, done)
        except (AttributeError, OSError):  # no such call here, or not between these file systems
            copied = os.pwrite(target, os.pread(source, min(step, 1 << 20), done), done)
        if not copied:
            return
        done += copied
        yield
