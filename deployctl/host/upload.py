"""One file to one host with scp, over the connection that is open anyway; stoppable, and never without progress."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from scp import SCPClient, SCPException

from deployctl.errors import Code, HostError
from deployctl.host.burst import BURST_BYTES, PACKET_BYTES, BurstChannel
from deployctl.host.peer import Pace
from deployctl.host.script import printable
from deployctl.host.shell import Cancel, Cancelled
from deployctl.host.throttle import Throttle
from deployctl.host.wire import Wire

if TYPE_CHECKING:
    from deployctl.host.connection import Connection

SLOW_BYTES = 1024  # a read on a link so slow that full packets would hide progress
FAST_S = 0.02  # a read that follows the last one so soon may be twice as long as that one
MIN_RATE_BYTES_S = 1024
LOOK_S = 0.02  # how often a file that is still being written is looked at
NOISE_HINT = (
    "a login shell that prints on standard output breaks scp: `ssh HOST true` must print nothing, "
    "so have ~/.bashrc and the like say something in interactive shells only"
)
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./@%+=:,-")


class _Scp(SCPClient):  # type: ignore[misc]
    """SCPClient waits for the remote exit without a bound when it closes; the status is checked by digest anyway."""

    channel: BurstChannel | None

    def close(self) -> None:
        if self.channel is not None:
            with contextlib.suppress(Exception):
                self.channel.shutdown_write()
            self.channel.close()
            self.channel = None


class _Source:
    """The file as scp reads it: bounded, counted, stopped on cancel, and never shorter than announced."""

    def __init__(
        self, file: BinaryIO, size_bytes: int, cancel: Cancel, progress: Callable[[int], None]
    ) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._cancel = cancel
        self._progress = progress
        self._read_at = time.monotonic()
        self._step_bytes = PACKET_BYTES
        self.grows: Callable[[], bool] = lambda: False
        self.waits = False
        self.sent_bytes = 0
        self.pace: Pace | None = None
        self.throttle = Throttle()

    def read(self, limit: int) -> bytes:
        self._cancel.check()
        if self.pace:
            self.pace.wait()
        now = time.monotonic()
        since_s, self._read_at = now - self._read_at, now
        # A burst on a slow link would hold up a cancel, and hide progress.
        grown = 2 * self._step_bytes if since_s < FAST_S else PACKET_BYTES
        self._step_bytes = SLOW_BYTES if since_s > 0.5 else min(grown, limit)
        want = min(self.throttle.step(self._step_bytes), self._size_bytes - self.sent_bytes)
        self.throttle.take(want, self._cancel.event)
        self._cancel.check()
        # Less than was asked for is no end: a network's file system may give it.
        data = self._file.read(want) or (self._await(want) if want else b"")
        self.sent_bytes += len(data)
        self._progress(self.sent_bytes)
        return data

    def _await(self, want: int) -> bytes:
        """Return what comes next, of a file that is still being written."""
        self.waits = True
        while True:
            over = not self.grows()  # asked first: what there is by then can be read
            if data := self._file.read(want):
                break
            if over:
                raise HostError(Code.UNEXPECTED, "the artifact shrank while it was sent")
            self._cancel.event.wait(LOOK_S)
            self._cancel.check()
            self._progress(self.sent_bytes)  # says that we live
        self.waits = False
        return data

    def tell(self) -> int:
        return self.sent_bytes


def sanitize(path: bytes) -> bytes:
    """Quote a path for the login shell, which may not be a POSIX one: plain paths, nearly all, go unquoted."""
    return path if set(path) <= PLAIN else b"'" + path.replace(b"'", b"'\\''") + b"'"


def upload(
    connection: Connection,
    source: Path,
    remote_path: str,
    *,
    stall_s: float,
    cancel: Cancel,
    progress: Callable[[int], None] = lambda _bytes: None,
    throttle: Throttle | None = None,
    start_bytes: int = 0,
    size_bytes: int | None = None,
    grows: Callable[[], bool] = lambda: False,
) -> int:
    """Send `source`, or `size_bytes` of it from `start_bytes` on, to `remote_path`; return how many bytes that were.

    While `grows()`, the end of `source` is awaited where it is not there yet.
    HostError TIMED_OUT after `stall_s` without progress, or with less than 1 KiB/s over as long; Cancelled when
    `cancel` was called. What is left on the host then is part of a file, for the caller to remove.
    """
    if size_bytes is None:
        size_bytes = source.stat().st_size - start_bytes
    # No timeout: `_Watch` bounds it.
    client = _Scp(connection.transport, buff_size=BURST_BYTES, socket_timeout=None, sanitize=sanitize)
    with source.open("rb", buffering=0) as file:
        file.seek(start_bytes)
        reader = _Source(file, size_bytes, cancel, progress)
        channel = connection.open_session(stall_s)
        client.channel = BurstChannel(channel)
        reader.throttle = throttle or reader.throttle
        reader.grows = grows
        if not connection.is_far:
            reader.pace = Pace(channel, connection.transport.wire)

        def stop() -> None:  # with its reason, which others that use the connection will tell as well
            connection.close(_stalled(reader.sent_bytes, size_bytes, stall_s))

        try:
            cancel.on_cancel(channel.close)
            with _Watch(reader, connection.transport.wire, stop, stall_s) as watch:
                client.putfo(
                    reader, remote_path.encode("utf-8", "surrogateescape"), mode="0600", size=size_bytes
                )
        except (Cancelled, HostError):
            raise
        except Exception as error:
            cancel.check()
            raise _failure(connection, watch, error, reader.sent_bytes, size_bytes, stall_s) from error
        finally:
            cancel.forget(channel.close)
            with contextlib.suppress(OSError, EOFError):  # it sends a word, and the connection may be lost
                channel.close()
    return size_bytes


def _failure(
    connection: Connection, watch: _Watch, error: Exception, sent_bytes: int, size_bytes: int, stall_s: float
) -> HostError:
    if watch.fired or isinstance(error, TimeoutError):
        return _stalled(sent_bytes, size_bytes, stall_s)
    if not connection.alive:
        return connection.why()
    if isinstance(error, SCPException) and _is_no_scp(error):
        return HostError(
            Code.LOST, f"scp on the host said: {_words(error)}", hint=NOISE_HINT, data={"noise": True}
        )
    if isinstance(error, SCPException):
        return HostError(Code.LOST, f"scp on the host said: {_words(error)}", data={"scp": True})
    why = connection.why(error)
    if not connection.transport.is_active():
        return why
    said = f"scp ended on the host without a word, at {sent_bytes} of {size_bytes} bytes"  # as one that is killed does
    return HostError(Code.LOST, said, data={"scp": True})


def _stalled(sent_bytes: int, size_bytes: int, stall_s: float) -> HostError:
    return HostError(
        Code.TIMED_OUT,
        f"the upload made no progress for {stall_s:g} s (or less than 1 KiB/s), at {sent_bytes} of {size_bytes} bytes",
        hint="--timeout sets how long an upload may stand still",
    )


def _is_no_scp(error: SCPException) -> bool:
    """Whether what came was no answer of scp's protocol at all; scp.py has these words of its own for it."""
    return bool(error.args) and str(error.args[0]).startswith("Invalid response")


def _words(error: SCPException) -> str:
    """Return what scp said: its words alone, or what was no answer of its protocol as it came."""
    said = [
        each.decode("utf-8", "surrogateescape") if isinstance(each, bytes) else str(each)
        for each in error.args
    ]
    return printable(": ".join(said)).strip()


class _Watch:
    """Ends the connection of an upload that stands still; scp's own timeout sees neither a drip nor a lost reply.

    A small file is read whole at once and may then be on its way for long, so what the host's kernel took counts as well.
    Closing the channel would send a message, and wait behind what does not go out.
    """

    def __init__(self, source: _Source, wire: Wire, stop: Callable[[], object], stall_s: float) -> None:
        self._source = source
        self._wire = wire
        self._stop = stop
        self._stall_s = stall_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="upload watch", daemon=True)
        self.fired = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        begun_at, begun = time.monotonic(), self._moved()
        while not self._over.wait(min(1.0, self._stall_s / 4)):
            elapsed_s = time.monotonic() - begun_at
            moved = self._moved()
            most_bytes = max(now - then for now, then in zip(moved, begun, strict=True))
            if self._source.waits or most_bytes >= MIN_RATE_BYTES_S * max(elapsed_s, self._stall_s):
                begun_at, begun = time.monotonic(), moved
            elif elapsed_s > self._stall_s:
                self.fired = True
                self._stop()
                return

    def _moved(self) -> tuple[int, int]:
        return self._source.sent_bytes, self._wire.taken_bytes()
