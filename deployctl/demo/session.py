"""One command of one channel: a process with real pipes, and the threads that carry its bytes.

Owns what sshd's session process owns: bytes both ways, the exit status, the end of a command whose client went away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from paramiko import Channel, Message, SSHException
from paramiko.common import cMSG_CHANNEL_REQUEST

from deployctl.demo.guard import Guard

_BLOCK = 1 << 18
_GRACE_S = 1.0  # between the loss of the client and SIGHUP, and again before SIGKILL
_GONE = (OSError, EOFError, SSHException)  # what paramiko raises when the client went away


@dataclass
class Session:
    """`environ` and `home` are those of the command; `start` returns at once, `tend` is called now and then."""

    channel: Channel
    command: bytes
    environ: Mapping[str, str]
    home: Path
    guard: Guard
    finished: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _lost_s: float | None = None
    _signals: list[signal.Signals] = field(default_factory=lambda: [signal.SIGHUP, signal.SIGKILL])

    def start(self) -> None:
        _thread(self._run)

    def tend(self) -> None:
        """End a command whose client went away: its stdin is closed already, then SIGHUP, then SIGKILL."""
        process = self._process
        if self.finished or process is None or not (self.channel.closed or _dead(self.channel)):
            return
        now_s = time.monotonic()
        if self._lost_s is None:
            self._lost_s = now_s
        if self._signals and now_s - self._lost_s >= _GRACE_S:
            self._lost_s = now_s
            with contextlib.suppress(OSError):
                os.killpg(process.pid, self._signals.pop(0))

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self.finished = True
            with contextlib.suppress(*_GONE):
                self.channel.close()

    def _serve(self) -> None:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.home,
                env=self.environ,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            with contextlib.suppress(*_GONE):
                self.channel.sendall_stderr(f"{error}\n".encode())
            self._send_status(255)
            return
        self._process = process
        self.guard.add(process.pid)
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        if stdin is None or stdout is None or stderr is None:
            raise RuntimeError("a pipe that was asked for is missing")
        _thread(self._feed, stdin)
        pumps = [
            _thread(_pump, stdout, self.channel.sendall),
            _thread(_pump, stderr, self.channel.sendall_stderr),
        ]
        status = process.wait()
        self._send_status(status)
        for pump in pumps:  # as with sshd: what still holds the pipes keeps the channel open
            pump.join()
        self.guard.remove(process.pid)
        with contextlib.suppress(*_GONE):
            self.channel.shutdown_write()

    def _feed(self, stdin: IO[bytes]) -> None:
        """Carry the client's bytes to the command; once it reads no more, drop them, so that the client can end."""
        descriptor: int | None = stdin.fileno()
        with contextlib.suppress(*_GONE):
            while block := self.channel.recv(_BLOCK):
                if descriptor is not None:
                    try:
                        _write_all(descriptor, block)
                    except OSError:
                        descriptor = None
        with contextlib.suppress(OSError):
            stdin.close()

    def _send_status(self, status: int) -> None:
        with contextlib.suppress(*_GONE):
            if status >= 0:
                self.channel.send_exit_status(status)
            else:
                _send_exit_signal(self.channel, signal.Signals(-status).name.removeprefix("SIG"))


def _thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _write_all(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def _pump(pipe: IO[bytes], send: Callable[[bytes], None]) -> None:
    """Carry the command's bytes to the client; once it is gone, read on, so that the command does not block."""
    gone = False
    with pipe:
        while block := os.read(pipe.fileno(), _BLOCK):
            if not gone:
                try:
                    send(block)
                except _GONE:
                    gone = True


def _dead(channel: Channel) -> bool:
    return not channel.get_transport().is_active()


def _send_exit_signal(channel: Channel, name: str) -> None:
    """RFC 4254, 6.10; paramiko can receive this message only."""
    message = Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exit-signal")
    message.add_boolean(False)
    message.add_string(name)
    message.add_boolean(False)
    message.add_string("")
    message.add_string("")
    channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
