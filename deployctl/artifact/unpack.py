"""A directory filled from an archive or a repository that nobody vouches for.

Owns what such a source may create, and where; refuses to know its format. Nothing is written outside the directory or
through a link, nothing twice, and no more than fits: `limit_bytes` is checked before each file is written.
"""

# Paths are bytes here, since names need not be text.
# ruff: noqa: PTH101, PTH102, PTH115, PTH123, PTH211

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployctl.artifact.local import disk_errors
from deployctl.artifact.manifest import escape
from deployctl.errors import SourceError

CHUNK_BYTES = 1024 * 1024

_KEPT_FREE_BYTES = 64 * 1024 * 1024
_MAX_ENTRIES = 5_000_000
_MAX_PROBLEMS = 100
_TIMES_S = (-(2**31), 2**34)  # what common file systems hold
_NAME_REFUSED = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST}
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacker:
    """Creates entries below `root`, an empty directory of ours.

    Problems with single entries are gathered and raised by `finish`; too much of everything is raised at once, and so
    is trouble with the disk, all as SourceError. Times are whole seconds; directories that are only implied get
    `default_time_s` and mode 755.
    """

    def __init__(self, root: Path, *, default_time_s: int, limit_bytes: int | None = None) -> None:
        self.problems: list[str] = []
        self._place = root
        self._root = os.fsencode(root) + b"/"
        self._default_time_s = default_time_s
        self._kinds: dict[bytes, str] = {}
        self._directories: dict[bytes, tuple[int, int]] = {}
        self._limit_bytes = limit_bytes
        self._written_bytes = 0
        with disk_errors(root):
            space = os.statvfs(root)
        self._free_bytes = space.f_bavail * space.f_frsize - _KEPT_FREE_BYTES

    def directory(self, name: bytes, *, mode: int, time_s: int) -> None:
        """Create a directory, or give one that is there its mode and time."""
        path = self._clean(name)
        if path and self._claim(path, "d"):
            self._directories[path] = (
                mode & (0o777 | stat.S_ISVTX),
                _sane(time_s),
            )  # the walk warns of sticky ones

    def file(self, name: bytes, content: Iterable[bytes], *, size: int, mode: int, time_s: int) -> None:
        """Create a file with this content, of which `size` bytes were announced."""
        path = self._clean(name)
        if path is None:
            return
        if mode & (stat.S_ISUID | stat.S_ISGID):
            self.problem(name, "is setuid or setgid, which a release never is")
            return
        if not self._claim(path, "f"):
            return
        self._reserve(size)
        with self._creating(path):
            handle = os.open(self._root + path, _FLAGS, 0o600)
        try:
            self._fill(handle, content, size)
            with disk_errors(self._place):
                os.fchmod(handle, mode & 0o777)
                os.utime(handle, (_sane(time_s), _sane(time_s)))
        finally:
            os.close(handle)

    def link(self, name: bytes, text: bytes, *, time_s: int) -> None:
        """Create a symbolic link; where it leads is for the walk to judge."""
        path = self._clean(name)
        if path is None:
            return
        if not text or b"\0" in text:
            self.problem(name, "is a link to nothing that could be a path")
        elif self._claim(path, "l"):
            with self._creating(path):
                os.symlink(text, self._root + path)
            if os.utime in os.supports_follow_symlinks:  # else two artifacts of one source would differ
                with disk_errors(self._place):
                    os.utime(self._root + path, (_sane(time_s), _sane(time_s)), follow_symlinks=False)

    def copy(self, name: bytes, of: bytes) -> None:
        """Create what a hard link stands for: another file, or link, like the one created before."""
        target = self._clean(of)
        if target is None:
            return
        if self._kinds.get(target) == "l":
            place = self._root + target
            self.link(name, os.readlink(place), time_s=int(os.lstat(place).st_mtime))
            return
        if self._kinds.get(target) != "f":
            self.problem(name, f"is a hard link to {escape(of)}, which is no file that came before it")
            return
        with open(self._root + target, "rb") as file:
            status = os.fstat(file.fileno())
            content = iter(lambda: file.read(CHUNK_BYTES), b"")
            self.file(name, content, size=status.st_size, mode=status.st_mode, time_s=int(status.st_mtime))

    def problem(self, name: bytes, what: str) -> None:
        """Note that an entry can't be carried."""
        self.problems.append(f"{escape(name)}: {what}")
        if len(self.problems) >= _MAX_PROBLEMS:
            raise SourceError([*self.problems, "and maybe more"])

    def finish(self) -> None:
        """Raise what was wrong, or give directories their modes and times, which only now stay as they are."""
        if self.problems:
            raise SourceError(self.problems)
        default = (0o755, self._default_time_s)
        with disk_errors(self._place):
            for path in sorted((path for path, kind in self._kinds.items() if kind == "d"), reverse=True):
                mode, time_s = self._directories.get(path, default)
                os.utime(self._root + path, (time_s, time_s))
                os.chmod(self._root + path, mode)

    def _clean(self, name: bytes) -> bytes | None:
        """The name as a plain relative path; None for the root itself, and with a problem if it can't be one."""
        parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
        if not parts and name.rstrip(b"/") == b".":
            return None
        if name.startswith(b"/"):
            self.problem(name, "is an absolute path")
        elif not parts or b".." in parts or b"\0" in name:
            self.problem(name, "is not a path inside the tree")
        else:
            return b"/".join(parts)
        return None

    def _claim(self, path: bytes, kind: str) -> bool:
        """Make sure that the path is free and that only directories lead to it, and create it if it is one."""
        there = self._kinds.get(path)
        if there is not None:
            if there == kind == "d":
                return True
            self.problem(path, "is there twice")
            return False
        parent = path.rpartition(b"/")[0]
        if parent and self._kinds.get(parent) != "d":
            if parent in self._kinds:
                self.problem(path, f"is below {escape(parent)}, which is not a directory")
                return False
            if not self._claim(parent, "d"):
                return False
        if len(self._kinds) >= _MAX_ENTRIES:
            raise SourceError(f"more than {_MAX_ENTRIES:,} entries")
        self._kinds[path] = kind
        if kind == "d":
            with self._creating(path):
                os.mkdir(self._root + path, 0o700)
        return True

    @contextmanager
    def _creating(self, path: bytes) -> Iterator[None]:
        """Blame the entry where this file system refuses its name, else the disk."""
        with disk_errors(self._place):
            try:
                yield
            except OSError as error:
                if error.errno not in _NAME_REFUSED:
                    raise
                said = f"{escape(path)}: cannot be created here: {os.strerror(error.errno or 0)}"
                raise SourceError([*self.problems, said]) from None

    def _fill(self, handle: int, content: Iterable[bytes], size: int) -> None:
        written = 0
        for chunk in content:
            written += len(chunk)
            if written > size:
                self._reserve(len(chunk))
            rest = memoryview(chunk)
            with disk_errors(self._place):
                while rest:
                    rest = rest[os.write(handle, rest) :]

    def _reserve(self, size: int) -> None:
        self._written_bytes += size
        if self._limit_bytes is not None and self._written_bytes > self._limit_bytes:
            raise SourceError(
                f"unpacks to more than {self._limit_bytes:,} bytes, far more than its size lets expect"
            )
        if self._written_bytes > self._free_bytes:
            raise SourceError(
                f"does not fit into {self._place.parent} unpacked: more than {max(0, self._free_bytes):,} bytes",
                hint="free some space, or set TMPDIR to a directory that has more",
            )


def _sane(time_s: int) -> int:
    return min(max(time_s, _TIMES_S[0]), _TIMES_S[1])
