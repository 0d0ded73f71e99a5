"""Several packets of one upload sealed at once and handed to the kernel in one call.

paramiko copies the bytes of each packet seven times and makes a system call for it: 60 µs, of which AES-GCM is 4. Owns
that short cut, and the only use of Packetizer's private names; where one of them is missing, or the cipher is another,
every packet takes paramiko's own way. Refuses to decide when something is sent.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import paramiko
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.common import cMSG_CHANNEL_DATA

PACKET_BYTES = 32704  # of data: the server's 32 KiB less 64
PACKETS = 8
BURST_BYTES = PACKETS * PACKET_BYTES
_BLOCK, _TAG = 16, 16
_HEAD = struct.Struct(">BBII")  # length of the padding, kind of message, channel, length of the data
_LENGTH = struct.Struct(">I")
_ROOM = PACKETS * (_LENGTH.size + _HEAD.size + PACKET_BYTES + 2 * _BLOCK + _TAG)
_PRIVATE = ("aead_out", "block_engine_out", "iv_out", "sequence_number_out", "sent_bytes", "sent_packets")


class Burst:
    """Data of one channel on its way to `Packets.send_message`; at most BURST_BYTES."""

    def __init__(self, channel_id: int, data: memoryview) -> None:
        self.channel_id = channel_id
        self.data = data

    def pieces(self) -> Iterator[memoryview]:
        for start in range(0, len(self.data), PACKET_BYTES):
            yield self.data[start : start + PACKET_BYTES]

    def messages(self) -> Iterator[paramiko.Message]:
        """One message a packet, for paramiko's own way."""
        for piece in self.pieces():
            message = paramiko.Message()
            message.add_byte(cMSG_CHANNEL_DATA)
            message.add_int(self.channel_id)
            message.add_string(bytes(piece))
            yield message


class Sealer:
    """Seals bursts with the state of one Packetizer; used under the lock of its writers."""

    def __init__(self, packetizer: Any) -> None:
        self._of = packetizer
        self._plain = bytearray(_HEAD.size + PACKET_BYTES + 2 * _BLOCK)
        self._sealed = bytearray(_ROOM)

    @property
    def fits(self) -> bool:
        """Whether the inside is as expected and the cipher AES-GCM, without compression."""
        inside = vars(self._of)
        if any(f"_Packetizer__{name}" not in inside for name in _PRIVATE):
            return False
        return (
            inside["_Packetizer__aead_out"]
            and isinstance(inside["_Packetizer__block_engine_out"], AESGCM)
            and inside.get("_Packetizer__compress_engine_out", True) is None
        )

    def seal(self, burst: Burst) -> memoryview:
        """Return the packets as they go over the wire, valid until the next call; the counters have moved on."""
        inside = vars(self._of)
        engine: AESGCM = inside["_Packetizer__block_engine_out"]
        iv: bytes = inside["_Packetizer__iv_out"]
        fixed, counter = iv[:4], int.from_bytes(iv[4:], "big")
        plain, sealed = memoryview(self._plain), memoryview(self._sealed)
        noise = os.urandom(2 * _BLOCK)
        end = count = 0
        for piece in burst.pieces():
            size = _HEAD.size + len(piece)
            padding = _BLOCK - size % _BLOCK
            padding += _BLOCK if padding < 4 else 0  # RFC 4253 asks for at least four
            total = size + padding
            _HEAD.pack_into(plain, 0, padding, cMSG_CHANNEL_DATA[0], burst.channel_id, len(piece))
            plain[_HEAD.size : size] = piece
            plain[size:total] = noise[:padding]
            length = _LENGTH.pack(total)
            sealed[end : end + _LENGTH.size] = length
            start, end = end + _LENGTH.size, end + _LENGTH.size + total + _TAG
            engine.encrypt_into(fixed + counter.to_bytes(8, "big"), plain[:total], length, sealed[start:end])
            counter = (counter + 1) & 0xFFFFFFFFFFFFFFFF
            count += 1
        inside["_Packetizer__iv_out"] = fixed + counter.to_bytes(8, "big")
        inside["_Packetizer__sequence_number_out"] = (
            inside["_Packetizer__sequence_number_out"] + count
        ) & 0xFFFFFFFF
        inside["_Packetizer__sent_bytes"] += end
        inside["_Packetizer__sent_packets"] += count
        return sealed[:end]


class BurstChannel:
    """A channel as scp.py uses one, with a `sendall` that sends in bursts."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel: Any = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def sendall(self, data: bytes | str) -> None:
        """Send all of it, or raise as paramiko.Channel.sendall does."""
        left = memoryview(data.encode() if isinstance(data, str) else data)
        while left:
            size = self._reserve(len(left))
            self._channel.transport._send_user_message(Burst(self._channel.remote_chanid, left[:size]))
            left = left[size:]

    def _reserve(self, size: int) -> int:
        """Wait for room in the server's window and take it: one packet's at least, a burst's at most."""
        channel = self._channel
        with channel.lock:
            taken: int = channel._wait_for_send_window(min(size, PACKET_BYTES))
            if taken == 0:
                raise OSError("Socket is closed")
            if taken == PACKET_BYTES:
                more = min(size, BURST_BYTES) - taken
                more = min(more, channel.out_window_size)
                channel.out_window_size -= more
                taken += more
        return taken
