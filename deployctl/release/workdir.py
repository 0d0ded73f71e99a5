"""A directory of one run on this machine; what a killed run left is removed by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from platformdirs import user_cache_path

from deployctl.artifact.local import disk_errors, remove_tree, work_dir

YOUNG_S = 60.0  # a directory without a lock yet may belong to a run that is just starting


@contextlib.contextmanager
def run_directory(environ: Mapping[str, str]) -> Iterator[Path]:
    """Make a directory for this run: in TMPDIR if that is set, else in the user's cache. SourceError when it can't be."""
    named = environ.get("TMPDIR")
    parent = Path(named) if named else user_cache_path("deployctl") / "runs"
    with disk_errors(parent):
        if not named:
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep(parent)
    with work_dir(parent) as path:
        with disk_errors(path):
            lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            with disk_errors(path):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield path
        finally:
            os.close(lock)


def _sweep(parent: Path) -> None:
    for path in parent.glob(".work-*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.getuid() and _is_dead(path):
                remove_tree(path)


def _is_dead(path: Path) -> bool:
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - path.stat().st_mtime > YOUNG_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)
