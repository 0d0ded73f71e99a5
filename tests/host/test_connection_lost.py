"""Connections that end, freeze or slow down while in use: how soon it is noticed, and what everyone is told."""

from __future__ import annotations

import threading
import time

import paramiko
import pytest

from deployctl.errors import Code, HostError
from deployctl.host.keeper import Patience
from deployctl.host.shell import Shell
from tests.host.kit import Kit, ask, failure, to
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.support.sshd import SshdFarm

pytestmark = pytest.mark.sshd

HASTY = Patience(ask_after_s=0.1, silent_s=0.6, slow_s=0.6)


def patient() -> Patience:
    """One that looks often and, until `hurry`, gives a slow machine all the time it takes to begin."""
    return Patience(ask_after_s=0.1, silent_s=60.0, slow_s=60.0)


def hurry(patience: Patience) -> None:
    """From its next look on it is a hasty one."""
    for name in ("silent_s", "slow_s"):
        object.__setattr__(patience, name, getattr(HASTY, name))  # its watchdog reads it at each look


def _send_for_ever(channel: paramiko.Channel) -> None:
    while True:
        channel.sendall(bytes(32768))


def test_reset(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    with Proxy((host.address, host.port)) as proxy:
        kit.known = f"[127.0.0.1]:{proxy.port} {host.host_key.public}\n"
        connection = kit.open(kit.target(**to(proxy)))
        channel = connection.open_session(5)
        channel.exec_command("sleep 100")
        began = time.monotonic()
        proxy.reset()
        assert channel.recv(1) == b""
        assert time.monotonic() - began < 1
        failure(lambda: connection.open_session(5), Code.LOST, f"127.0.0.1:{proxy.port}", "lost")
        assert not connection.alive
        assert connection.why().code is Code.LOST
        channel.close()


def test_server_killed(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)))
    with connection.open_session(5) as channel:
        channel.exec_command("sleep 100")
        host.kill_sessions()
        assert channel.recv(1) == b""
        assert connection.why().code is Code.LOST


def test_frozen_while_idle(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)), patience=HASTY)
    host.freeze()
    began = time.monotonic()
    wait_until(lambda: not connection.alive, 5)
    assert 0.3 < time.monotonic() - began < 3
    error = failure(
        lambda: connection.open_session(5), Code.TIMED_OUT, f"127.0.0.1:{host.port}: no answer for"
    )
    assert connection.why() is error


def test_frozen_while_waiting(sshd_farm: SshdFarm, kit: Kit) -> None:
    """Stock paramiko waits here for ever."""
    host = sshd_farm()
    patience = patient()
    connection = kit.knows(host).open(kit.target(**to(host)), patience=patience)
    with connection.open_session(30) as channel:
        channel.exec_command("cat")
        host.freeze()
        hurry(patience)
        assert channel.recv_exit_status() == -1
        assert connection.why().code is Code.TIMED_OUT


def test_frozen_while_sending(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    patience = patient()
    connection = kit.knows(host).open(kit.target(**to(host)), patience=patience)
    channel = connection.open_session(
        30
    )  # closing it later would send a word, and may find the connection gone
    channel.exec_command("cat >/dev/null")
    host.freeze()
    hurry(patience)
    began = time.monotonic()
    with pytest.raises((OSError, EOFError)):
        _send_for_ever(channel)
    assert time.monotonic() - began < 5
    assert connection.why().code is Code.TIMED_OUT


def test_one_way_loss(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    with Proxy((host.address, host.port)) as proxy:
        kit.known = f"[127.0.0.1]:{proxy.port} {host.host_key.public}\n"
        connection = kit.open(kit.target(**to(proxy)), patience=HASTY)
        proxy.down(mode="drop")
        wait_until(lambda: not connection.alive, 5)
        assert connection.why().code is Code.TIMED_OUT


def test_long_silence_of_a_healthy_server_is_fine(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    patience = Patience(ask_after_s=0.05, silent_s=0.3, slow_s=0.3)
    connection = kit.knows(host).open(kit.target(**to(host)), patience=patience)
    assert ask(connection, "sleep 1.5; echo done") == "done\n"


def test_slow_link_is_not_silence(sshd_farm: SshdFarm, kit: Kit) -> None:
    """The server says nothing for longer than the limit while what we sent is on its way; the bytes still move."""
    host = sshd_farm()
    with Proxy((host.address, host.port), buffer=8192) as proxy:
        kit.known = f"[127.0.0.1]:{proxy.port} {host.host_key.public}\n"
        connection = kit.open(kit.target(**to(proxy)), patience=Patience(0.1, 1.0, 1.0))
        with connection.open_session(5) as channel:
            channel.exec_command("wc -c")
            proxy.up(rate=60_000)
            channel.sendall(bytes(150_000))
            channel.shutdown_write()
            assert channel.makefile().read() == b"150000\n"
        assert connection.alive


def test_close_from_another_thread(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)))
    with connection.open_session(5) as channel:
        channel.exec_command("sleep 100")
        reason = HostError(Code.TIMED_OUT, "upload: no progress for 900 s")
        closer = threading.Thread(target=connection.close, args=[reason])
        closer.start()
        assert channel.recv(1) == b""
        closer.join()
    connection.close()
    connection.close(HostError(Code.LOST, "later"))
    assert connection.why() is reason
    assert failure(lambda: connection.open_session(1), Code.TIMED_OUT) is reason


def test_close_of_a_frozen_connection_is_quick(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)), patience=HASTY)
    with connection.open_session(5) as channel:
        channel.exec_command("cat >/dev/null")
        host.freeze()
        with pytest.raises((OSError, EOFError)):
            _send_for_ever(channel)
        began = time.monotonic()
        connection.close()
        assert time.monotonic() - began < 1


def test_no_session_on_a_frozen_server(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)))
    host.freeze()
    failure(lambda: connection.open_session(0.3), Code.TIMED_OUT, "no session within 0.3 s")


def test_max_sessions(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm("MaxSessions 2")
    connection = kit.knows(host).open(kit.target(**to(host)))
    held = [connection.open_session(5) for _ in range(2)]
    error = failure(lambda: connection.open_session(5), Code.LOST, "MaxSessions")
    assert error.data["channel"] == 2
    assert connection.alive
    held.pop().close()
    wait_until(lambda: _opens(kit, connection.open_session), 5)


def test_a_session_that_is_about_to_end_still_counts(sshd_farm: SshdFarm, kit: Kit) -> None:
    """The server counts a closed session until its command has ended: the next one waits for that."""
    host = sshd_farm("MaxSessions 1")
    connection = kit.knows(host).open(kit.target(**to(host)))
    first = connection.open_session(5)
    first.exec_command("trap '' HUP PIPE; sleep 0.3")
    first.close()
    assert ask(connection, "echo in") == "in\n"


def _opens(kit: Kit, open_session: object) -> bool:
    try:
        kit.opened.insert(0, open_session(1))  # type: ignore[operator]
    except HostError:
        return False
    return True


def test_many_threads(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)))
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(ask(connection, f"echo {n}"))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [f"{n}\n" for n in range(8)]


def test_rekey_by_the_server(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm("RekeyLimit 1M")
    connection = kit.knows(host).open(kit.target(**to(host)), patience=Patience(0.05, 5, 5))
    with connection.open_session(5) as channel:
        channel.exec_command("wc -c")
        for _ in range(200):
            channel.sendall(bytes(32704))
        channel.shutdown_write()
        assert channel.makefile().read() == b"6540800\n"


def test_lost_while_a_command_is_asked_for(
    sshd_farm: SshdFarm, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paramiko has looked whether the channel is open, and waits for an answer that nobody can give any more."""
    host = sshd_farm()
    connection = kit.knows(host).open(kit.target(**to(host)))
    real = paramiko.Channel._event_pending  # type: ignore[attr-defined]

    def late(channel: paramiko.Channel) -> None:
        host.kill_sessions()
        connection.transport.join(5)
        real(channel)

    monkeypatch.setattr(paramiko.Channel, "_event_pending", late)
    errors: list[BaseException] = []

    def start() -> None:
        try:
            Shell.start(connection, 30)
        except Exception as error:  # noqa: BLE001 - whatever it is
            errors.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert [connection.why(error).code for error in errors] == [Code.LOST]
