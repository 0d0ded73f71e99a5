"""Uploads in bursts: the same bytes, whatever the sizes, the cipher and the moment; and a notice when paramiko changes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import paramiko
import pytest

from deployctl.host import burst
from deployctl.host.burst import BURST_BYTES, PACKET_BYTES, PACKETS, Sealer
from deployctl.host.connection import Connection
from deployctl.host.peer import HAS_AES, Pace
from deployctl.host.shell import Cancel
from deployctl.host.upload import upload
from tests.host.kit import Kit, to
from tests.support.sshd import SshdFarm

SIZES = (0, 1, PACKET_BYTES - 1, PACKET_BYTES, PACKET_BYTES + 1, BURST_BYTES, BURST_BYTES + 1, 3_000_001)

needs_aes = pytest.mark.skipif(not HAS_AES, reason="without AES instructions AES-GCM is not asked for")


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the bursts that took the short way."""
    sizes: list[int] = []
    seal = Sealer.seal

    def counting(self: Sealer, data: burst.Burst) -> memoryview:
        sizes.append(len(data.data))
        return seal(self, data)

    monkeypatch.setattr(Sealer, "seal", counting)
    return sizes


def send(connection: Connection, directory: Path, content: bytes) -> Path:
    source, target = directory / "source", directory / "target"
    source.write_bytes(content)
    upload(connection, source, str(target), stall_s=10, cancel=Cancel())
    return target


@needs_aes
def test_paramiko_is_as_the_short_way_expects_it(kit: Kit, sshd_farm: SshdFarm) -> None:
    server = sshd_farm()
    kit.knows(server)
    connection = kit.open(kit.target(**to(server)))
    assert Sealer(connection.transport.packetizer).fits


@needs_aes
@pytest.mark.parametrize("size_bytes", SIZES)
def test_every_size_arrives(
    kit: Kit, sshd_farm: SshdFarm, tmp_path: Path, sealed: list[int], size_bytes: int
) -> None:
    server = sshd_farm()
    kit.knows(server)
    content = random.Random(size_bytes).randbytes(size_bytes)
    assert send(kit.open(kit.target(**to(server))), tmp_path, content).read_bytes() == content
    assert sum(sealed) > size_bytes
    assert max(sealed) <= BURST_BYTES


@needs_aes
def test_many_packets_go_in_one_burst(
    kit: Kit, sshd_farm: SshdFarm, tmp_path: Path, sealed: list[int]
) -> None:
    server = sshd_farm()
    kit.knows(server)
    content = random.Random(1).randbytes(8_000_000)
    assert send(kit.open(kit.target(**to(server))), tmp_path, content).read_bytes() == content
    assert max(sealed) > PACKETS // 2 * PACKET_BYTES


@needs_aes
def test_new_keys_in_mid_upload(kit: Kit, sshd_farm: SshdFarm, tmp_path: Path, sealed: list[int]) -> None:
    server = sshd_farm("RekeyLimit 1M")
    kit.knows(server)
    connection = kit.open(kit.target(**to(server)))
    first = connection.transport.session_id, connection.transport.H
    content = random.Random(2).randbytes(12_000_000)
    assert send(connection, tmp_path, content).read_bytes() == content
    assert connection.transport.session_id == first[0]
    assert first[1] != connection.transport.H, "the server asked for no new keys"
    assert sealed


def test_another_cipher_takes_the_plain_way(
    kit: Kit, sshd_farm: SshdFarm, tmp_path: Path, sealed: list[int]
) -> None:
    server = sshd_farm("Ciphers aes128-ctr")
    kit.knows(server)
    content = random.Random(3).randbytes(2_000_003)
    assert send(kit.open(kit.target(**to(server))), tmp_path, content).read_bytes() == content
    assert not sealed


@pytest.mark.parametrize("name", burst._PRIVATE)
def test_another_inside_takes_the_plain_way(
    kit: Kit,
    sshd_farm: SshdFarm,
    tmp_path: Path,
    sealed: list[int],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(burst, "_PRIVATE", (f"{name}_by_another_name",))
    server = sshd_farm()
    kit.knows(server)
    content = random.Random(4).randbytes(1_000_001)
    assert send(kit.open(kit.target(**to(server))), tmp_path, content).read_bytes() == content
    assert not sealed


class FakeChannel(paramiko.Channel):
    """A channel whose server never says that it took anything: no real one can be made to."""

    def __init__(self) -> None:
        super().__init__(0)
        self.out_window_size = 2 << 20


class FakeWire:
    def __init__(self, round_trip_s: float | None) -> None:
        self._round_trip_s = round_trip_s

    def round_trip_s(self) -> float | None:
        return self._round_trip_s


def wait_with_all_on_its_way(round_trip_s: float | None) -> float:
    channel = FakeChannel()
    pace = Pace(channel, FakeWire(round_trip_s))  # type: ignore[arg-type]
    pace.wait()
    channel.out_window_size = 0
    began = time.monotonic()
    pace.wait()
    pace.wait()  # it does not wait for this server again
    return time.monotonic() - began


def test_a_near_server_is_waited_for_once() -> None:
    assert wait_with_all_on_its_way(0.0001) >= Pace.PATIENCE_S


@pytest.mark.parametrize("round_trip_s", [None, 0.1])
def test_a_far_server_gets_its_whole_window(round_trip_s: float | None) -> None:
    assert wait_with_all_on_its_way(round_trip_s) < Pace.PATIENCE_S
