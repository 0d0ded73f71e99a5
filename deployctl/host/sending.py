"""Ranges of an artifact on their way to one host, from several threads: each is one upload, and all are counted together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from deployctl.host.connection import Connection
from deployctl.host.growth import Growth
from deployctl.host.operation import Operation
from deployctl.host.session import Session
from deployctl.host.shell import Cancel
from deployctl.host.upload import upload


class Sending:
    """What was sent, and what is left to be; `operation` says so to the parent."""

    def __init__(self, session: Session, operation: Operation, artifact: Path, growth: Growth) -> None:
        self._session = session
        self._operation = operation
        self._artifact = artifact
        self._growth = growth
        self._lock = threading.Lock()
        self._attempts = 0
        self.left_bytes = 0
        self.sent_bytes = 0

    def go_on(self, operation: Operation) -> None:
        """Be part of another command from here on."""
        self._operation = operation
        self.move(0)

    def attempt(self) -> int:
        """Return a number that no other upload of this has."""
        with self._lock:
            self._attempts += 1
            return self._attempts

    def expect(self, size_bytes: int) -> None:
        """So much is to be sent as well."""
        if not size_bytes and self.sent_bytes:
            return
        with self._lock:
            self.left_bytes += size_bytes
        self.move(0)

    def move(self, size_bytes: int) -> None:
        with self._lock:
            self.sent_bytes += size_bytes
            self.left_bytes -= size_bytes
            done_bytes, total_bytes = self.sent_bytes, self.sent_bytes + self.left_bytes
        self._operation.bytes(done_bytes, total_bytes)

    def upload(
        self,
        connection: Connection,
        span: tuple[int, int],
        path: str,
        cancel: Cancel,
        sent: Callable[[int], None] = lambda _bytes: None,
    ) -> None:
        """Send so much of the artifact, as start and size in bytes; `sent` hears how much of that has gone. As `upload`."""
        moved_bytes = 0

        def progress(done_bytes: int) -> None:
            nonlocal moved_bytes
            self.move(done_bytes - moved_bytes)
            moved_bytes = done_bytes
            sent(done_bytes)

        try:
            upload(
                connection,
                self._artifact,
                path,
                stall_s=self._operation.timeout_s,
                cancel=cancel,
                progress=progress,
                throttle=self._session.throttle,
                start_bytes=span[0],
                size_bytes=span[1],
                grows=lambda: not self._growth.look()[1],
            )
        except BaseException:
            with self._lock:
                self.left_bytes += moved_bytes
            raise
