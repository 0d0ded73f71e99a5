"""Manifests of trees that were released from here, kept in the user's cache: what a delta is worked out against.

A file that can't be read, or is not what its name says, is none; one that can't be written is not missed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

KEPT = 64
KEPT_BYTES = 256 << 20


class Shelf:
    """The manifests in one directory, each under its digest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, digest: str) -> Path | None:
        """The file with this manifest, read and proven; it counts as used now."""
        path = self._directory / digest
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                path.unlink()
                return None
            os.utime(path)
        except OSError:
            return None
        return path

    def holds(self, digest: str) -> bool:
        return (self._directory / digest).is_file()

    def put(self, data: bytes) -> None:
        """Keep a manifest; those used last stay."""
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(prefix=".new-", dir=self._directory)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(name).replace(self._directory / hashlib.sha256(data).hexdigest())
            finally:
                Path(name).unlink(missing_ok=True)
            self._clear()

    def _clear(self) -> None:
        files = sorted(
            ((path.stat(), path) for path in self._directory.iterdir()),
            key=lambda each: each[0].st_mtime_ns,
            reverse=True,
        )
        total_bytes = 0
        for number, (status, path) in enumerate(files):
            total_bytes += status.st_size
            if number and (number >= KEPT or total_bytes > KEPT_BYTES):
                path.unlink(missing_ok=True)
