"""Through jump hosts and proxy commands: there, and all that can go wrong on the way."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from deployctl.errors import Code, HostError
from deployctl.host.connection import Connection
from deployctl.host.jump import JumpCache
from deployctl.host.keeper import Patience
from deployctl.host.knownhosts import KnownHosts
from deployctl.host.target import Target
from deployctl.model import HostKeys
from tests.host.kit import Kit, ask, failure, to
from tests.support.proc import wait_until
from tests.support.sshd import Sshd, SshdFarm, free_port

pytestmark = pytest.mark.sshd

# A proxy command that any machine has: what nc does.
NETCAT = """
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        link.sendall(data)
    link.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := link.recv(65536):
    os.write(1, data)
"""


def by(*hosts: Sshd) -> str:
    return ",".join(f"{host.user}@{host.address}:{host.port}" for host in hosts)


def test_one_hop(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm.several(2)
    connection = kit.knows(jump, host).open(kit.target(**to(host), jump=by(jump)))
    assert connection.target.first_hop == f"127.0.0.1:{jump.port}"
    assert ask(connection, "echo $SSH_CONNECTION").split()[3] == str(host.port)


def test_two_hops_in_a_chain(sshd_farm: SshdFarm, kit: Kit) -> None:
    first, second, host = sshd_farm.several(3)
    connection = kit.knows(first, second, host).open(kit.target(**to(host), jump=by(first, second)))
    assert ask(connection, "echo there") == "there\n"
    assert len(second.session_pids()) >= 1


def test_hosts_share_their_jump_host(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, *hosts = sshd_farm.several(4)
    targets = [kit.knows(jump, host).target(**to(host), jump=by(jump)) for host in hosts]
    credentials, known = kit.credentials(targets[0]), KnownHosts.load(targets)
    jumps = JumpCache(credentials, known)
    kit.opened.append(jumps)
    for target in targets:
        kit.opened.insert(
            0, Connection.open(target, credentials, known, deadline=time.monotonic() + 20, jumps=jumps)
        )
    assert jump.log.read_text().count("Accepted publickey") == 1


def test_jump_from_ssh_config(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm.several(2)
    kit.knows(jump, host).config = f"""
Host shop
  HostName 127.0.0.1
  Port {host.port}
  ProxyJump bastion
Host bastion
  HostName 127.0.0.1
  Port {jump.port}
  User {jump.user}
"""
    assert ask(kit.open(kit.target("shop")), "echo there") == "there\n"


def test_forwarding_not_allowed(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm("AllowTcpForwarding no"), sshd_farm()
    target = kit.knows(jump, host).target(**to(host), jump=by(jump))
    failure(lambda: kit.open(target), Code.JUMP, by(jump), "AllowTcpForwarding", f"127.0.0.1:{host.port}")


def test_dead_jump_host(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    port = free_port("127.0.0.1")
    target = kit.knows(host).target(**to(host), jump=f"127.0.0.1:{port}")
    failure(lambda: kit.open(target), Code.JUMP, f"jump host 127.0.0.1:{port}", "refused")


def test_dead_jump_host_costs_its_time_once(kit: Kit, sshd_farm: SshdFarm) -> None:
    host = sshd_farm()
    jump = sshd_farm()
    target = kit.knows(jump, host).target(**to(host), jump=by(jump), connect_timeout_s=0.5)
    credentials, known = kit.credentials(target), KnownHosts.load([target])
    jumps = JumpCache(credentials, known)
    jump.freeze(listener=True)

    def open_() -> Connection:
        return Connection.open(target, credentials, known, deadline=time.monotonic() + 1, jumps=jumps)

    failure(open_, Code.JUMP, "no SSH banner")
    began = time.monotonic()
    for _ in range(5):
        failure(open_, Code.JUMP, "no SSH banner")
    assert time.monotonic() - began < 0.3


def test_target_refused_behind_the_jump_host(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump = sshd_farm()
    port = free_port("127.0.0.1")
    target = kit.knows(jump).target("127.0.0.1", port, jump=by(jump))
    failure(
        lambda: kit.open(target), Code.UNREACHABLE, f"127.0.0.1:{port}", "from jump host", "connect failed"
    )


def test_keys_of_hop_and_target(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm.several(2)
    target = kit.knows(host).target(**to(host), jump=by(jump))
    failure(lambda: kit.open(target), Code.HOST_KEY, "jump host", "unknown", f"127.0.0.1:{jump.port}")
    kit.known = ""
    target = kit.knows(jump).target(**to(host), jump=by(jump))
    failure(lambda: kit.open(target), Code.HOST_KEY, "unknown", f"127.0.0.1:{host.port}")
    kit.known = "# nobody\n"
    target = kit.target(**to(host), jump=by(jump), host_keys=HostKeys.ACCEPT_NEW)
    assert kit.open(target).learned
    assert [learned.line + "\n" for learned in kit.opened[1].learned] == [jump.known_hosts_lines]


def test_login_refused_at_the_hop(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm(authorized=[]), sshd_farm()
    target = kit.knows(jump, host).target(**to(host), jump=by(jump))
    failure(lambda: kit.open(target), Code.JUMP, "jump host", "login refused")


@pytest.mark.parametrize("frozen", ["jump", "host"])
def test_frozen_behind_a_jump_host(sshd_farm: SshdFarm, kit: Kit, frozen: str) -> None:
    jump, host = sshd_farm.several(2)
    patience = Patience(ask_after_s=0.1, silent_s=0.6, slow_s=0.6)
    connection = kit.knows(jump, host).open(kit.target(**to(host), jump=by(jump)), patience=patience)
    {"jump": jump, "host": host}[frozen].freeze()
    wait_until(lambda: not connection.alive, 5)
    assert connection.why().code is Code.TIMED_OUT


def test_jump_host_dies(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm.several(2)
    target = kit.knows(jump, host).target(**to(host), jump=by(jump))
    connection = kit.open(target)
    jump.kill_sessions()
    wait_until(lambda: not connection.alive, 5)
    assert connection.why().code is Code.JUMP
    assert f"jump host {by(jump)}: connection to 127.0.0.1:{jump.port} lost" in connection.why().message
    assert ask(kit.open(target), "echo again") == "again\n"


def test_target_dies_behind_a_living_jump_host(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm.several(2)
    connection = kit.knows(jump, host).open(kit.target(**to(host), jump=by(jump)))
    host.kill_sessions()
    wait_until(lambda: not connection.alive, 5)
    assert connection.why().code is Code.LOST


def test_circle(kit: Kit) -> None:
    from deployctl.errors import UsageError

    kit.config = "Host a\n ProxyJump b\nHost b\n ProxyJump a\n"
    with pytest.raises(UsageError, match="circle: a:22 -> b:22 -> a:22"):
        kit.target("a")


def test_proxy_command(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    script = kit.directory / "netcat.py"
    script.write_text(NETCAT)
    kit.knows(host).config = f"ProxyCommand {sys.executable} {script} %h %p"
    connection = kit.open(kit.target(**to(host)))
    assert ask(connection, "echo there") == "there\n"
    proxy = connection.transport.wire.proxy
    assert proxy
    connection.close()
    assert proxy._process.returncode is not None


def test_proxy_command_that_fails(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    kit.knows(host).config = "ProxyCommand sh -c 'echo no such tunnel >&2; exit 3'"
    failure(lambda: kit.open(kit.target(**to(host))), Code.UNREACHABLE, "it exited 3: no such tunnel")


def test_proxy_command_that_is_silent(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    kit.knows(host).config = "ProxyCommand sleep 100"
    target = kit.target(**to(host), connect_timeout_s=0.3)
    failure(lambda: kit.open(target), Code.TIMED_OUT, "no SSH banner")


def test_without_a_cache_the_way_is_closed_along(sshd_farm: SshdFarm, kit: Kit) -> None:
    jump, host = sshd_farm.several(2)
    target = kit.knows(jump, host).target(**to(host), jump=by(jump))
    credentials, known = kit.credentials(target), KnownHosts.load([target])
    with Connection.open(target, credentials, known, deadline=time.monotonic() + 20) as connection:
        assert ask(connection, "echo there") == "there\n"
    wait_until(lambda: not jump.session_pids(), what="the end of the session on the jump host")


def test_closed_ports_behind_one_jump_host_at_once(sshd_farm: SshdFarm, kit: Kit) -> None:
    """What the jump host says of each is never taken for a silence, nor for another's."""
    [jump] = sshd_farm.several(1)
    kit.knows(jump)
    targets = [kit.target(address="127.0.0.1", port=free_port("127.0.0.1"), jump=by(jump)) for _ in range(12)]
    credentials, known = kit.credentials(targets[0]), KnownHosts.load(targets)
    jumps = JumpCache(credentials, known)
    kit.opened.append(jumps)
    told: list[HostError] = []

    def open_one(target: Target) -> None:
        with pytest.raises(HostError) as caught:
            Connection.open(target, credentials, known, deadline=time.monotonic() + 30, jumps=jumps)
        told.append(caught.value)

    for _ in range(3):
        threads = [threading.Thread(target=open_one, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told) == 36
    assert {error.code for error in told} == {Code.UNREACHABLE}
    assert all("not reachable from jump host" in error.message for error in told)
