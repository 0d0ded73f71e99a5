"""SOURCE as a list of entries, with everything that can be refused before a file's content is read.

Owns what is carried, what is refused and what is warned about; refuses to hash, to pack and to follow links. Nothing
but `.deployignore` and files that look like private keys is opened, so a FIFO can't make it wait.
"""

# Paths are bytes here, since names need not be text.
# ruff: noqa: PTH100, PTH115, PTH116, PTH119

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deployctl.artifact.caution import Caution
from deployctl.artifact.ignore import DEPLOYIGNORE, Excluded, compile_patterns, read_deployignore
from deployctl.artifact.links import leaves_tree
from deployctl.artifact.manifest import Kind, escape
from deployctl.errors import SourceError
from deployctl.model import Shared

_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)
_EFFECTIVE = os.access in os.supports_effective_ids


class Found(NamedTuple):
    """One entry as the walk saw it, without its content: `mode` is permission bits, `size` bytes (0 for a directory),
    `text` a link's text. `mtime_ns`, `ctime_ns` and `ino` tell later whether it is still the same.
    """

    type: Kind
    mode: int
    size: int
    path: bytes
    mtime_ns: int
    ctime_ns: int
    ino: int
    text: bytes


@dataclass(frozen=True)
class Walked:
    """What SOURCE holds, sorted by the bytes of the paths; `warnings` are whole lines, paths escaped."""

    root: bytes  # a directory, or the file itself when SOURCE is one
    root_mtime_ns: int
    is_file: bool
    entries: tuple[Found, ...]
    warnings: tuple[str, ...]
    excluded: Excluded | None

    @property
    def files(self) -> int:
        return sum(entry.type == "f" for entry in self.entries)

    @property
    def size_bytes(self) -> int:
        """The bytes of all files together."""
        return sum(entry.size for entry in self.entries if entry.type == "f")

    def place(self, path: bytes) -> bytes:
        """Where the entry is on this machine."""
        return self.root if self.is_file else self.root + b"/" + path


def walk(
    source: Path,
    *,
    exclude: Sequence[str],
    shared: Shared,
    allow_empty: bool = False,
    name: str | None = None,
) -> Walked:
    """List SOURCE, a directory or one file, and refuse what can't be carried.

    `exclude` are gitignore patterns, to which a `.deployignore` in SOURCE adds; a file given as SOURCE is never
    excluded. `name` is what to call SOURCE in messages, its path by default. SourceError carries every problem
    found, one line for each path.
    """
    root = os.fsencode(source)
    called = escape(os.fsencode(name)) if name is not None else escape(root)
    try:
        status = os.stat(root)
    except OSError as error:
        raise SourceError(f"{called}: {_reason(error)}") from None
    excluded: Excluded | None = None
    is_file = stat.S_ISREG(status.st_mode)
    if is_file:
        listing = _Listing(None)
        path, root = os.path.basename(os.path.abspath(root)), os.path.realpath(root)
        listing.take(path, status, root)
    elif stat.S_ISDIR(status.st_mode):
        if not os.access(root, os.R_OK | os.X_OK, effective_ids=_EFFECTIVE):
            raise SourceError(f"{called}: cannot be read: {os.strerror(errno.EACCES)}")
        excluded = compile_patterns([*exclude, *read_deployignore(root)])
        listing = _Listing(excluded)
        listing.read_tree(root)
    else:
        raise SourceError(f"{called}: is {_special(status.st_mode)}, not a directory, an archive or a file")
    entries = tuple(sorted(listing.entries, key=lambda entry: entry.path))
    _judge(entries, listing.problems, shared)
    if not allow_empty and all(entry.type == "d" for entry in entries):
        why = " apart from what is excluded" if excluded else ""
        raise SourceError(f"{called}: is empty{why}", hint="--allow-empty releases it all the same")
    return Walked(root, status.st_mtime_ns, is_file, entries, listing.caution.lines(), excluded)


def _judge(entries: Sequence[Found], problems: Sequence[str], shared: Shared) -> None:
    """Refuse the entries as a whole: what was found on the way, links that leave, names that `shared` needs."""
    links = {entry.path: entry.text for entry in entries if entry.type == "l"}
    leaving = [
        f"{escape(path)}: leads out of the tree, to {escape(text)}"
        for path, text in links.items()
        if leaves_tree(path, links)
    ]
    clashes = list(_clashes(entries, shared))
    if problems or leaving or clashes:
        hint = "exclude it, or take it out of `shared`" if clashes else None
        raise SourceError(sorted([*problems, *leaving, *clashes]), hint=hint)


class _Listing:
    """Gathers entries, problems and warnings."""

    def __init__(self, excluded: Excluded | None) -> None:
        self.entries: list[Found] = []
        self.problems: list[str] = []
        self.caution = Caution()
        self._excluded = excluded

    def read_tree(self, root: bytes) -> None:
        todo = [b""]
        while todo:
            directory = todo.pop()
            try:
                for path, status, place in children(root, directory, self._excluded):
                    if self.take(path, status, place) == "d":
                        todo.append(path)
            except OSError as error:
                self.problems.append(f"{escape(directory) or '.'}: {_reason(error)}")

    def take(self, path: bytes, status: os.stat_result, place: bytes) -> Kind | None:
        """Add the entry, or the problem with it; its type if it was added."""
        mode = status.st_mode
        text = b""
        size = 0
        kind: Kind
        if stat.S_ISREG(mode):
            kind, size = "f", status.st_size
            problem = _file_problem(mode, place)
        elif stat.S_ISDIR(mode):
            kind, problem = "d", None
        elif stat.S_ISLNK(mode):
            text = os.readlink(place)
            kind, mode, size, problem = "l", 0o777, len(text), None
        else:
            kind, problem = "f", f"is {_special(mode)}"
        if problem:
            self.problems.append(f"{escape(path)}: {problem}")
            return None
        self.entries.append(
            Found(kind, mode & 0o777, size, path, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, text)
        )
        self.caution.look(kind, mode, path, place)
        return kind


def children(
    root: bytes, directory: bytes, excluded: Excluded | None
) -> Iterator[tuple[bytes, os.stat_result, bytes]]:
    """Path in the tree, status and place on this machine of all that is in `directory` and not left out.

    What vanishes meanwhile is left out as well; packing sees that the directory changed. OSError where the directory
    can't be read.
    """
    prefix = directory + b"/" if directory else b""
    with os.scandir(root + b"/" + directory if directory else root) as listing:
        for item in listing:
            path = prefix + item.name
            if excluded and excluded(path, item.is_dir(follow_symlinks=False)):
                continue
            if path == DEPLOYIGNORE:
                continue
            try:
                yield path, item.stat(follow_symlinks=False), item.path
            except FileNotFoundError:
                continue


def _file_problem(mode: int, place: bytes) -> str | None:
    if mode & (stat.S_ISUID | stat.S_ISGID):
        which = " and ".join(
            word for bit, word in ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid")) if mode & bit
        )
        return f"is {which}, which a release never is"
    if not os.access(place, os.R_OK, effective_ids=_EFFECTIVE):
        return f"cannot be read: {os.strerror(errno.EACCES)}"
    return None


def _clashes(entries: Sequence[Found], shared: Shared) -> Iterator[str]:
    """Names that a host needs for its links into `shared`."""
    kinds = {entry.path: entry.type for entry in entries} if any(shared) else {}
    seen: set[bytes] = set()
    for name in shared:
        path = os.path.normpath(os.fsencode(name))
        for place in _upwards(path):
            kind = kinds.get(place)
            if kind is None or place in seen or (kind == "d" and place != path):
                continue
            seen.add(place)
            what = (
                "is shared, so it cannot be in the release"
                if place == path
                else f"is not a directory, but {name} in it is shared"
            )
            yield f"{escape(place)}: {what}"


def _upwards(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]


def _special(mode: int) -> str:
    return next((name for test, name in _SPECIAL if test(mode)), "a special file")


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "does not exist"
    return f"cannot be read: {os.strerror(error.errno or 0)}"
