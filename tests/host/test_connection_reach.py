"""Reaching a host, or not: what answers, how long it may take, what is tried again."""

from __future__ import annotations

import socket
import time

import pytest

from deployctl.errors import Code
from tests.host.kit import Kit, ask, failure, to
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.support.sshd import SshdFarm, free_port

pytestmark = pytest.mark.sshd


def test_refused_is_fast_and_tried_again(kit: Kit) -> None:
    pauses: list[float] = []
    target = kit.target(port=free_port("127.0.0.1"), retries=2)
    began = time.monotonic()
    error = failure(
        lambda: kit.open(target, sleep=pauses.append), Code.UNREACHABLE, f"127.0.0.1:{target.port}", "refused"
    )
    assert time.monotonic() - began < 1
    assert "3 attempts" in error.message
    assert len(pauses) == 2
    assert 0 < sum(pauses) < 1


def test_retry_that_succeeds(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm(start=False)
    host.port = free_port(host.address)
    target = kit.knows(host).target(**to(host), retries=2)

    def start(_pause_s: float) -> None:
        host.start()

    assert kit.open(target, sleep=start).alive


def test_no_retry_past_the_deadline(kit: Kit) -> None:
    target = kit.target(port=free_port("127.0.0.1"), retries=9)
    failure(lambda: kit.open(target, within_s=0.1), Code.UNREACHABLE, "refused")


def test_name_not_found(kit: Kit) -> None:
    failure(lambda: kit.open(kit.target("no-such-host.invalid")), Code.UNREACHABLE, "no-such-host.invalid")
    failure(lambda: kit.open(kit.target("a" * 70 + ".invalid")), Code.UNREACHABLE, "name not found")


def test_syn_black_hole(kit: Kit) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hole:
        port = hole.getsockname()[1]
        held = []
        for _ in range(4):  # until its queue is full, so that nothing more is answered
            link = socket.socket()
            link.setblocking(False)
            link.connect_ex(("127.0.0.1", port))
            held.append(link)
        target = kit.target(port=port, connect_timeout_s=0.5, retries=3)
        began = time.monotonic()
        said = "no answer to the connection within 0.5 s (ssh.connect_timeout)"
        error = failure(lambda: kit.open(target), Code.TIMED_OUT, f"127.0.0.1:{port}", said)
        assert error.hint == "ssh.connect_timeout in the inventory gives it more time"
        assert time.monotonic() - began < 1.5
        failure(lambda: kit.open(target, within_s=0.2), Code.TIMED_OUT, "connection within 0.2 s (--timeout)")
        for link in held:
            link.close()


def test_no_banner(kit: Kit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        target = kit.target(port=mute.getsockname()[1], connect_timeout_s=0.5, retries=3)
        began = time.monotonic()
        said = "no SSH banner within 0.5 s (ssh.connect_timeout)"
        failure(lambda: kit.open(target), Code.TIMED_OUT, said)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("within_s", [0.25, 0.7])
def test_the_limit_that_comes_first_is_the_one_named(kit: Kit, within_s: float) -> None:
    """The phase's own, where it is shorter than that of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        target = kit.target(port=mute.getsockname()[1], connect_timeout_s=5.0, retries=3)
        said = f"no SSH banner within {within_s} s (--timeout)"
        error = failure(lambda: kit.open(target, within_s=within_s), Code.TIMED_OUT, said)
        assert error.hint == "--timeout sets how long a phase may take on a host"


def test_stalled_in_key_exchange(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    with Proxy(("127.0.0.1", host.port)) as proxy:
        proxy.up(mode="drop")  # its banner arrives, ours does not
        kit.known = f"[127.0.0.1]:{proxy.port} {host.host_key.public}\n"
        failure(
            lambda: kit.open(kit.target(**to(proxy), connect_timeout_s=0.5)),
            Code.TIMED_OUT,
            "no key exchange",
        )


@pytest.mark.parametrize(
    ("greeting", "flood"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>", False),
        (b"220 mail.example.com ESMTP\r\n", False),
        (b"x" * 4000, True),
        (b"\x00\xff\x1b[31m\r\n" * 100, True),
    ],
    ids=["http", "smtp", "flood", "binary"],
)
def test_not_ssh(kit: Kit, greeting: bytes, flood: bool) -> None:
    with Proxy(greeting=greeting, flood=flood) as server:
        error = failure(lambda: kit.open(kit.target(**to(server), retries=3)), Code.UNREACHABLE, "not SSH")
        assert error.message.isprintable()
        assert len(error.message) < 400


def test_max_startups(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm("MaxStartups 1:100:1")
    target = kit.knows(host).target(**to(host), retries=2)
    with socket.create_connection((host.address, host.port)) as held:
        assert held.recv(4) == b"SSH-"

        def free(_pause_s: float) -> None:
            held.close()
            wait_until(lambda: not host.session_pids(), what="the end of the session that held the place")

        connection = kit.open(target, sleep=free)
    assert ask(connection, "echo in") == "in\n"


def test_max_startups_named(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm("MaxStartups 1:100:1")
    with socket.create_connection((host.address, host.port)) as held:
        assert held.recv(4) == b"SSH-"
        target = kit.knows(host).target(**to(host))
        failure(lambda: kit.open(target), Code.UNREACHABLE, "before the login", "MaxStartups")


def test_ipv6(sshd_farm: SshdFarm, kit: Kit) -> None:
    try:
        host = sshd_farm(address="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    connection = kit.knows(host).open(kit.target(**to(host)))
    assert connection.peer == f"[::1]:{host.port}"


def test_no_common_algorithm(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm("Ciphers chacha20-poly1305@openssh.com")
    words = ("no algorithm in common", "chacha20-poly1305@openssh.com", "aes128-ctr")
    failure(lambda: kit.open(kit.knows(host).target(**to(host))), Code.UNREACHABLE, *words)


def test_every_address_is_tried(sshd_farm: SshdFarm, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    host = sshd_farm()
    dead = free_port("127.0.0.1")

    def addresses(*_: object, **__: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", dead)), (*kind, ("127.0.0.1", host.port))]

    target = kit.knows(host).target(**to(host))
    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    assert kit.open(target).alive


def test_cipher_is_gcm_where_the_processor_helps(sshd_farm: SshdFarm, kit: Kit) -> None:
    from deployctl.host import peer

    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)))
    cipher: str = getattr(connection.transport, "remote_cipher")  # noqa: B009 - the stubs lack it
    assert ("gcm" in cipher) == peer.HAS_AES
    link = connection.transport.wire._stream
    assert isinstance(link, socket.socket)
    assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
