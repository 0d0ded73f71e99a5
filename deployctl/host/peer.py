"""paramiko's Transport, bent to what a release needs; the only place that relies on its insides.

Owns: no needless wake-ups, no rekeying in mid-upload, one thread instead of two, liveness asked for without blocking,
and remembering what the server said before it hung up. Refuses to decide anything about keys, logins or errors.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from pathlib import Path
from typing import Any

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST
from paramiko.packet import Packetizer

from deployctl.host.burst import Burst, Sealer
from deployctl.host.wire import Wire

# Without a handler of anyone's, logging would print paramiko's errors on our standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

HANDSHAKE_WAKE_S = 0.5
GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


def _has_aes() -> bool:
    """Whether the processor has AES instructions: without them AES-GCM in software is slower than it is worth."""
    try:
        return bool(
            re.search(r"^(flags|Features)\s*:.*\baes\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        )
    except OSError:
        return True  # not Linux: every Mac has them


HAS_AES = _has_aes()


class Packets(Packetizer):
    """Packets with one gate for all writers, so that a liveness question is skipped rather than blocked."""

    # Rekeying blocks all senders, and can hang for good (paramiko issue 822). OpenSSH asks for it itself after 64 GiB.
    REKEY_BYTES = 2**35
    REKEY_PACKETS = 2**31

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)  # type: ignore[arg-type]  # anything with recv and send will do
        self.wire = wire
        self.gate = threading.RLock()
        self.ask_after_s: float | None = None  # without a word; None: never
        self.peer: Peer | None = None
        self._asked_at = 0.0
        self._sealer = Sealer(self)

    def send_message(self, data: Any) -> None:
        with self.gate:
            if not isinstance(data, Burst):
                super().send_message(data)
            elif self._sealer.fits:
                packets = self._sealer.seal(data)
                self.write_all(packets if self.wire.tells_progress else bytes(packets))
            else:
                for message in data.messages():
                    super().send_message(message)

    # The base class starts a timer thread for each handshake; ours is bounded by whoever waits for it.
    def start_handshake(self, timeout: float) -> None:
        pass

    def handshake_timed_out(self) -> bool:
        return False

    def complete_handshake(self) -> None:
        pass

    def _check_keepalive(self) -> None:
        """Called in the transport's thread each time that nothing came for the socket's timeout."""
        peer, now = self.peer, time.monotonic()
        if peer is None or self.ask_after_s is None:
            return
        if min(now - self.wire.heard_at, now - self._asked_at) < self.ask_after_s:
            return
        # A writer that holds the gate is waiting for the other end already; waiting behind it would stop the reading.
        if self.gate.acquire(blocking=False):
            try:
                if peer.clear_to_send.is_set():
                    self._asked_at = now
                    peer.ask_alive()
            finally:
                self.gate.release()


class Peer(paramiko.Transport):
    """A client's Transport over a Wire. `offered` and `parting` hold what the server said, for messages."""

    _preferred_keys: tuple[str, ...]
    _active_check_timeout = HANDSHAKE_WAKE_S  # how long its thread sleeps at most before it looks round

    def __init__(self, wire: Wire) -> None:
        self.offered: dict[str, list[str]] = {}
        self.parting = ""
        self.wire = wire
        super().__init__(wire, packetizer_class=Packets)  # type: ignore[arg-type]
        self.packetizer: Packets
        self.packetizer.peer = self
        if HAS_AES:
            options = self.get_security_options()
            options.ciphers = (*GCM, *(name for name in options.ciphers if name not in GCM))

    @property
    def key_types(self) -> list[str]:
        """Types of host keys that can be checked."""
        return [key_type(name) for name in self._preferred_keys]

    def prefer_keys(self, types: list[str], *, without: set[str]) -> None:
        """Ask for host keys of these types first, and for none of the others named; a server shows only one key."""
        names = [name for name in self._preferred_keys if key_type(name) not in without]
        wanted = [name for name in names if key_type(name) in types]
        self._preferred_keys = tuple(wanted + [name for name in names if name not in wanted])

    def watch(self, ask_after_s: float) -> None:
        """Ask for a sign of life when nothing came for `ask_after_s`; until then sleep."""
        self.packetizer.ask_after_s = ask_after_s
        self.wire.settimeout(ask_after_s)

    def ask_alive(self) -> None:
        """A question that every server answers, if only with a no."""
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_message(message)  # type: ignore[attr-defined]

    def _really_parse_kex_init(self, m: paramiko.Message, ignore_first_byte: bool = False) -> dict[str, Any]:
        parsed: dict[str, Any] = super()._really_parse_kex_init(m, ignore_first_byte)  # type: ignore[misc]
        self.offered = {key: list(value) for key, value in parsed.items() if isinstance(value, list)}
        return parsed

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.parting = m.get_text()


class _Gate(threading.Condition):
    """A channel's condition for room in the server's window, which wakes its writer only where there is as much as it waits for.

    OpenSSH tells of every three packets that it took; a writer that waits until a burst fits need not wake for each.
    """

    def __init__(self, channel: Any) -> None:
        super().__init__(channel.lock)
        self._channel = channel
        self.wanted_bytes = 0

    def notify_all(self) -> None:
        if self._channel.out_window_size >= self.wanted_bytes or self._channel.closed:
            super().notify_all()


class Pace:
    """Keeps what is on its way to a near server small.

    sshd queues what its scp has not read yet in a buffer that it grows by 32 KiB a time, moving and wiping all of it each
    time: letting the whole window of 2 MiB fill up cost a third of its CPU for an upload of 40 MB.
    """

    IN_FLIGHT_BYTES = 512 << 10
    NEAR_S = 0.002  # at a longer round trip the whole window is needed to fill the line
    PATIENCE_S = 0.25  # some servers only tell of room when half the window is used

    def __init__(self, channel: paramiko.Channel, wire: Wire) -> None:
        self._channel: Any = channel
        self._gate = self._channel.out_buffer_cv = _Gate(channel)
        self._window_bytes = 0  # sshd opens with none and gives 2 MiB once the command runs
        round_trip_s = wire.round_trip_s()
        self._on = round_trip_s is not None and round_trip_s < self.NEAR_S

    def wait(self) -> None:
        """Wait until the server has taken enough of what was sent; not for long."""
        if not self._on:
            return
        channel = self._channel
        deadline = time.monotonic() + self.PATIENCE_S
        with channel.lock:
            self._window_bytes = max(self._window_bytes, channel.out_window_size)
            self._gate.wanted_bytes = self._window_bytes - self.IN_FLIGHT_BYTES
            while channel.out_window_size < self._gate.wanted_bytes and not channel.closed:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self._on = False
                    break
                self._gate.wait(left_s)
            self._gate.wanted_bytes = 0


def key_type(algorithm: str) -> str:
    """The type that known_hosts has for a signature algorithm: `rsa-sha2-512` signs with an `ssh-rsa` key."""
    return "ssh-rsa" if algorithm.startswith("rsa-") else algorithm
