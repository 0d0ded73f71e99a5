"""Files and directories of ours on this machine, gone again if the work fails.

Owns temporary names, the cut into parts, and what is said when the disk is the problem; refuses to know what is written.
"""

# Paths are bytes here, since names need not be text.
# ruff: noqa: PTH101, PTH106, PTH108

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from deployctl.errors import DeployctlError, SourceError

# Of a file that travels in parts: the first are small, so that unpacking begins early; each costs a host some eight processes.
PART_BYTES = 8 << 20
SMALL_PARTS = 3
LARGE_PART_BYTES = 32 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Part(NamedTuple):
    """A range of a file; the ranges follow each other from its beginning.

    `bare_bytes` is that of the first slice of a file that travels as it is: the length of all its slices.
    """

    size_bytes: int
    sha256: str
    bare_bytes: int = 0


OnPart = Callable[[Path, Part], None]


def part_bytes(number: int) -> int:
    """How large a part of a stream is, the last excepted; numbers count from 1."""
    return PART_BYTES if number <= SMALL_PARTS else LARGE_PART_BYTES


class Output:
    """A file being written: counts and hashes what goes in, whole and by parts, and gets a name only from `keep_as`."""

    def __init__(self, directory: Path, on_part: OnPart | None = None) -> None:
        self._on_part = on_part
        self.size_bytes = 0
        self._directory = directory
        self._hash = hashlib.sha256()
        self._part_hash = hashlib.sha256()
        self._rest_bytes = 0  # of the part that is being written
        self._bare_bytes = 0  # of the file whose first slice that is
        self._bare_left = 0  # of that file, from the beginning of the part on
        self._streamed = 0  # parts that are no slices
        self._parts: list[Part] = []
        with disk_errors(directory):
            self._handle, name = tempfile.mkstemp(prefix=".new-", dir=directory)
        self._temporary = Path(name)

    def write(self, data: bytes) -> None:
        """Append all of `data`; SourceError if the disk refuses."""
        rest = memoryview(data)
        with disk_errors(self._directory):
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        self._hash.update(data)
        self._cut(memoryview(data))

    def begin_bare(self, size_bytes: int) -> None:
        """What is written next, so many bytes, is a file that travels as it is: no part holds anything else beside it."""
        self._bare_bytes = self._bare_left = size_bytes

    def _cut(self, data: memoryview) -> None:
        while data:
            bare = self._bare_left
            whole = min(bare, LARGE_PART_BYTES) if bare else part_bytes(self._streamed + 1)
            piece = data[: whole - self._rest_bytes]
            self._part_hash.update(piece)
            self.size_bytes += len(piece)
            self._rest_bytes += len(piece)
            data = data[len(piece) :]
            if self._rest_bytes == whole:
                self._parts.append(Part(whole, self._part_hash.hexdigest(), self._bare_bytes))
                self._part_hash, self._rest_bytes, self._bare_bytes = hashlib.sha256(), 0, 0
                if bare:
                    self._bare_left -= whole
                else:
                    self._streamed += 1
                if self._on_part:
                    self._on_part(self._temporary, self._parts[-1])

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of what was written, cut."""
        rest = self._rest_bytes
        return (*self._parts, *([Part(rest, self._part_hash.hexdigest())] if rest else []))

    def keep_as(self, name: str) -> Path:
        """Give the file its name, in one step and over an older one, and return its path."""
        path = self._directory / name
        with disk_errors(self._directory):
            self._temporary.replace(path)
        return path

    def close(self) -> None:
        """Close the file, and remove it unless it was kept."""
        os.close(self._handle)
        self._temporary.unlink(missing_ok=True)


@contextmanager
def new_file(directory: Path, on_part: OnPart | None = None) -> Iterator[Output]:
    """A new file in `directory`, readable by us alone; removed at the end unless `keep_as` was called.

    `on_part` is told of the file and each whole part as soon as that is written.
    """
    output = Output(directory, on_part)
    try:
        yield output
    finally:
        output.close()


@contextmanager
def work_dir(parent: Path) -> Iterator[Path]:
    """A new directory in `parent`, open to us alone; removed at the end with all that is in it."""
    with disk_errors(parent):
        path = Path(tempfile.mkdtemp(prefix=".work-", dir=parent))
    try:
        yield path
    finally:
        remove_tree(path)


def remove_tree(path: Path) -> None:
    """Delete a directory of ours, also where what was unpacked into it may not be written; never raises OSError."""
    root = os.fsencode(path)
    directories = [root]
    for directory in directories:  # grows while it is gone through: parents come before what is in them
        with suppress(OSError):
            directory_mode = os.lstat(directory).st_mode
            if directory_mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(directory, stat.S_IRWXU)
            with os.scandir(directory) as listing:
                for item in listing:
                    if item.is_dir(follow_symlinks=False):
                        directories.append(item.path)
                    else:
                        with suppress(OSError):
                            os.unlink(item.path)
    for directory in reversed(directories):
        with suppress(OSError):
            os.rmdir(directory)


@contextmanager
def disk_errors(place: Path, deed: str = "written") -> Iterator[None]:
    """Turn an OSError about `place` into a SourceError that says what to do; `deed` is what was to be done there."""
    try:
        yield
    except DeployctlError:
        raise  # one that is an OSError as well, of a fork say, has its own words
    except OSError as error:
        hint = "free some space, or set TMPDIR to a directory that has more" if error.errno in _FULL else None
        raise SourceError(f"{place}: cannot be {deed}: {os.strerror(error.errno or 0)}", hint=hint) from error
