"""The bytes between us and a host: sockets dialled, commands as proxies, and when something was last heard.

Owns the socket that paramiko gets; refuses to know what the bytes mean, except that a server has to begin with `SSH-`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from typing import IO, Protocol

from deployctl.model import for_others

AHEAD_BYTES = 8 << 10
NOTSENT_BYTES = 128 << 10
USER_TIMEOUT_S = 20.0
GREETING_LIMIT = 8192  # bytes a server may send before its SSH banner
_BYTES_ACKED = struct.Struct("=120xQ")  # of struct tcp_info, Linux 4.1 and newer
_MIN_RTT_US = struct.Struct("=148xI")  # the same, Linux 4.6 and newer


class Stream(Protocol):
    """What a socket and a paramiko channel have in common."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def settimeout(self, timeout: float, /) -> None: ...
    def close(self) -> None: ...


class NotSsh(OSError):  # noqa: N818 - what it is, not that it is an error
    """The other end does not speak SSH."""


class GivenUp(OSError):  # noqa: N818 - as NotSsh
    """The kernel has given up a connection whose other end acknowledges nothing."""


def _refuse_given_up(error: TimeoutError) -> None:
    """The kernel's ETIMEDOUT is a TimeoutError to Python, which paramiko takes for a pause."""
    if error.errno == errno.ETIMEDOUT:
        raise GivenUp(error.errno, error.strerror) from error


class Wire:
    """A stream that remembers when it was heard, how much passed and how it began; paramiko's `sock`."""

    def __init__(self, stream: Stream, proxy: Proxy | None = None) -> None:
        self.heard_at = time.monotonic()
        self.received = 0
        self.sent = 0
        self._sent_when_heard = 0
        self.head = b""  # what came before the banner's end, for messages
        self.proxy = proxy
        self._greeted = False
        self._stream = stream
        self._closed = False  # the name that paramiko asks for
        self._acked = 0
        self._ahead = b""  # received, and not asked for yet

    def recv(self, size: int) -> bytes:
        # paramiko asks for each packet twice; what has come with the first is taken along, and so are short packets behind it.
        data = self._ahead or self._receive()
        if len(data) <= size:
            self._ahead = b""
            return data
        self._ahead = data[size:]
        return data[:size]

    def _receive(self) -> bytes:
        try:
            data = self._stream.recv(AHEAD_BYTES)
        except TimeoutError as error:
            _refuse_given_up(error)
            raise
        if data:
            self.heard_at = time.monotonic()
            self.received += len(data)
            self._sent_when_heard = self.sent
            if not self._greeted:
                self._screen(data)
        return data

    def _screen(self, data: bytes) -> None:
        self.head += data
        self._greeted = any(line.startswith(b"SSH-") for line in self.head.split(b"\n"))
        if not self._greeted and (len(self.head) > GREETING_LIMIT or self.head.startswith(b"HTTP/")):
            raise NotSsh("this is not SSH")

    def send(self, data: bytes) -> int:
        try:
            count = self._stream.send(data)
        except TimeoutError as error:
            _refuse_given_up(error)
            raise
        self.sent += count
        return count

    @property
    def sent_since_heard(self) -> int:
        return self.sent - self._sent_when_heard

    def settimeout(self, timeout: float) -> None:
        self._stream.settimeout(timeout)

    def moving(self) -> bool:
        """Whether the other kernel took bytes since the last call, and more are waiting for it.

        On a slow link an answer comes late because what we sent is still on its way; that is no silence. Always false
        where the kernel does not tell: in a jump host's channel, behind a proxy command, on other systems than Linux.
        """
        before, self._acked = self._acked, self.taken_bytes()
        if self._acked <= before:
            return False
        try:
            waiting = struct.unpack("=i", fcntl.ioctl(self._stream, termios.TIOCOUTQ, b"\0\0\0\0"))[0]  # type: ignore[call-overload]
        except (OSError, ValueError):  # ValueError: it is closed already
            return False
        return bool(waiting > 0)

    def taken_bytes(self) -> int:
        """How much of what was sent the other kernel has; 0 where ours does not tell, as for `moving`."""
        if not self.tells_progress:
            return 0
        try:
            info = self._stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)  # type: ignore[attr-defined]
            return int(_BYTES_ACKED.unpack(info)[0])
        except (OSError, AttributeError, struct.error):
            return 0

    def round_trip_s(self) -> float | None:
        """The shortest round trip that the kernel saw; None where it does not tell, as for `moving`."""
        if not self.tells_progress:
            return None
        try:
            info = self._stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT_US.size)  # type: ignore[attr-defined]
            return float(_MIN_RTT_US.unpack(info)[0]) / 1e6
        except (OSError, AttributeError, struct.error):
            return None

    @property
    def tells_progress(self) -> bool:
        tells = sys.platform == "linux" and isinstance(self._stream, socket.socket)
        return tells and self._stream.family != socket.AF_UNIX  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close it from any thread; whoever waits in recv or send wakes up."""
        self._closed = True
        if isinstance(self._stream, socket.socket):
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, EOFError):
            self._stream.close()
        if self.proxy:
            self.proxy.stop()


def dial(address: str, port: int, deadline: float) -> socket.socket:
    """A connected TCP socket: every address that the name has is tried, each with its share of the time left.

    Raises OSError of the last address, after the name of each in its text; socket.gaierror when there is none.
    """
    # As text it would load the tables for other scripts, in each worker anew: 4 ms.
    name = address.encode("ascii") if address.isascii() else address
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    errors: dict[str, OSError] = {}
    for number, (family, kind, protocol, _, where) in enumerate(found):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        link = socket.socket(family, kind, protocol)
        try:
            _tune(link)
            link.settimeout(left_s / (len(found) - number))
            link.connect(where)
            _bound(link)
        except OSError as error:
            link.close()
            errors[str(where[0])] = error
        except BaseException:
            link.close()
            raise
        else:
            return link
    if not errors:
        raise TimeoutError("no time left to connect")
    last = list(errors.values())[-1]
    if len(errors) > 1:
        tried = ", ".join(f"{name}: {_words(error)}" for name, error in errors.items())
        last.strerror = tried
    raise last


def _words(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


def _tune(link: socket.socket) -> None:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Without it the kernel holds seconds of a slow link's upload, which go on flowing after an abort.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_BYTES)


def _bound(link: socket.socket) -> None:
    """Let what is sent and not acknowledged end a connection; before, it would cut a longer connect_timeout short."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT_S * 1000))


class Proxy:
    """A ProxyCommand: its standard input and output are one end of a socket pair, `link` is the other.

    paramiko's own class never notices that the command ended, and spins.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.link, theirs = socket.socketpair()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        try:
            self._process = subprocess.Popen(  # noqa: S602 - ssh_config(5) promises a shell
                f"exec {command}",
                shell=True,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                env=for_others(os.environ),
                start_new_session=True,
            )
        except BaseException:
            self.link.close()
            self._errors.close()
            raise
        finally:
            theirs.close()
        self._said = ""

    def said(self) -> str:
        """The last line on its standard error, and how it ended, for a message."""
        if not self._errors.closed:
            self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, self._errors.tell() - 1000))
            lines = self._errors.read().decode(errors="replace").split("\n")
            self._said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        status = self._process.poll()
        ended = "" if status is None or status < 0 else f"it exited {status}"
        return ": ".join(part for part in (ended, self._said) if part)

    def stop(self) -> None:
        """End it and its children; waits at most a second or two."""
        if self._process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
                    break
        self.said()
        self._errors.close()
