"""SOURCE, whatever its kind, as a directory or file to walk.

Owns the choice by kind and the life of what is unpacked; refuses to list or judge what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployctl.artifact.archive import is_archive, unpack_archive
from deployctl.artifact.gitsource import unpack_commit
from deployctl.artifact.local import work_dir
from deployctl.errors import SourceError


@dataclass(frozen=True)
class Opened:
    """What to walk: `name` is what to call it in messages, `describe` the commit's full hash where there is one."""

    path: Path
    name: str
    describe: str | None = None
    warnings: tuple[str, ...] = ()


@contextmanager
def open_source(source: Path, ref: str | None, workdir: Path) -> Iterator[Opened]:
    """Open a directory, an archive or one file, or with `ref` the commit of the repository at SOURCE.

    Archives and commits are unpacked into a new directory in `workdir`, which is gone when the context ends.
    SourceError for whatever can't be opened.
    """
    if ref is not None:
        if not source.is_dir():
            raise SourceError(f"{source}: is not a directory, so there is no commit {ref!r} in it")
        with work_dir(workdir) as into:
            commit, warnings = unpack_commit(source, ref, into)
            yield Opened(into, f"{source} at {ref}", commit, warnings)
    elif is_archive(source):
        with work_dir(workdir) as into:
            unpack_archive(source, into)
            yield Opened(into, str(source))
    else:
        yield Opened(source, str(source))
