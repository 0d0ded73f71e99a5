"""Hosts that cannot be reached, or not by us: told within the limit, with its code, and nothing changed elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.kernel import in_namespace
from tests.faults.kit import Scene, assert_aborted, assert_failed, check_invariants
from tests.support.agent import SshAgent
from tests.support.inventory import known_hosts_for
from tests.support.keys import make_key
from tests.support.proc import wait_until
from tests.support.proxy import Proxy

pytestmark = pytest.mark.sshd

HASTY = {"connect_timeout": "1s"}


def test_refused(scene: Scene) -> None:
    scene.server("h02").stop_listener()
    ended = scene.push()
    assert_aborted(scene, ended, "h02", "connect", 10, "refused")
    assert ended.of("h02")[-1]["elapsed_s"] < 2
    scene.server("h02").start()
    scene.converge()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that answers nothing any more: its queue is full."""
    with ExitStack() as stack:
        hole = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            link = stack.enter_context(socket.socket())
            link.setblocking(False)
            link.connect_ex(hole.getsockname())
        yield hole.getsockname()[1]


def test_syn_black_hole(make_scene: MakeScene) -> None:
    scene = make_scene(settled=False, ssh=HASTY)
    with black_hole() as port:
        scene.lab.edit("h02", port=port)
        ended = scene.push()
    assert_aborted(scene, ended, "h02", "connect", 11, f"127.0.0.1:{port}")
    assert ended.of("h02")[-1]["elapsed_s"] < 3


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_routes_that_lead_nowhere(make_scene: MakeScene, kind: str) -> None:
    """Three different errors of the kernel, EINVAL among them, are one kind of failure."""
    scene = make_scene(1, settled=False, ssh=HASTY)
    prefix = in_namespace("--net", f"ip link set lo up && ip route add {kind} 192.0.2.1/32")
    scene.lab.edit("h01", address="192.0.2.1")
    ended = scene.push(prefix=prefix)
    assert_aborted(scene, ended, "h01", "connect", 10, "192.0.2.1")
    assert ended.seconds < 10


def test_no_banner(make_scene: MakeScene) -> None:
    scene = make_scene(settled=False, ssh=HASTY)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        scene.lab.edit("h02", port=mute.getsockname()[1])
        ended = scene.push()
    assert_aborted(scene, ended, "h02", "connect", 11, "no SSH banner")


@pytest.mark.parametrize(
    ("greeting", "flood"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>", False),
        (b"\x00\xff\x1b[31m\r\n" * 100, True),
    ],
    ids=["http", "flood"],
)
def test_not_ssh(make_scene: MakeScene, greeting: bytes, flood: bool) -> None:
    scene = make_scene(settled=False, ssh={"retries": 3})
    with Proxy(greeting=greeting, flood=flood) as server:
        scene.lab.edit("h02", port=server.port)
        ended = scene.push()
        assert server.counts["accepted"] == 1, "what is not SSH is not tried again"
    assert_aborted(scene, ended, "h02", "connect", 10, "not SSH")
    assert "\x1b" not in ended.stderr


def test_a_dead_address_beside_one_that_works(make_scene: MakeScene, tmp_path: Path) -> None:
    """AAAA dead, A alive, for the same name."""
    scene = make_scene(1, settled=False)
    names = tmp_path / "hosts"
    names.write_text("::1 twofaced\n127.0.0.1 twofaced\n")
    prefix = in_namespace("--mount", f"mount --bind {names} /etc/hosts")
    scene.lab.edit("h01", address="twofaced", fingerprint=scene.server("h01").host_key.fingerprint)
    done = scene.push(prefix=prefix)
    assert done.code == 0, done.stderr
    check_invariants(scene, done)


def test_ipv6_literal_and_port(make_scene: MakeScene) -> None:
    """`[::1]:port` in known_hosts and in what is said; nothing is split at its first colon."""
    try:
        scene = make_scene(1, settled=False, address="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    scene.converge()
    scene.server("h01").stop_listener()
    scene.change()
    ended = scene.push()
    assert_aborted(scene, ended, "h01", "connect", 10, f"[::1]:{scene.server('h01').port}")


def test_login_refused(make_scene: MakeScene) -> None:
    scene = make_scene(settled=False, ssh={"retries": 3})
    server = scene.server("h02")
    keys = server.directory / "authorized_keys"
    right = keys.read_text()
    keys.write_text("")
    ended = scene.push()
    assert_aborted(scene, ended, "h02", "connect", 13, server.user)
    assert server.log.read_text().count("Failed publickey") == 1, (
        "one attempt: more feed a server's penalties"
    )
    keys.write_text(right)
    scene.converge()


def test_many_keys_in_the_agent(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene(1, settled=False, configs={"h01": ["MaxAuthTries 6"]})
    with SshAgent(tmp_path) as agent:
        for number in range(10):
            agent.add(make_key(tmp_path / f"other{number}").path)
        done = scene.push(env={"SSH_AUTH_SOCK": str(agent.socket)})
    assert done.code == 0, done.stderr
    check_invariants(scene, done)
    assert "Failed publickey" not in scene.server("h01").log.read_text()


@pytest.mark.parametrize("kind", ["missing", "encrypted", "readable by others"])
def test_key_files_that_cannot_be_used(make_scene: MakeScene, tmp_path: Path, kind: str) -> None:
    """Found once, for all hosts, before any of them is contacted; nobody is asked where there is no terminal."""
    scene = make_scene(settled=False)
    key = make_key(tmp_path / "bad", passphrase="open sesame" if kind == "encrypted" else None).path
    if kind == "missing":
        key.unlink()
    elif kind != "encrypted":
        key.chmod(0o644)
    for name in scene.lab.names:
        scene.lab.edit(name, identity_file=str(key))
    ended = scene.push()
    assert ended.code in {2, 10}
    assert str(key) in ended.stderr
    assert all("Connection from" not in server.log.read_text() for server in scene.lab.servers)
    check_invariants(scene, ended)


def test_unknown_host_key(make_scene: MakeScene) -> None:
    scene = make_scene(settled=False)
    known = scene.lab.inventory.with_name("known_hosts")
    known_hosts_for([scene.server("h01")], known)
    was = known.read_text()
    ended = scene.push()
    server = scene.server("h02")
    assert_aborted(
        scene, ended, "h02", "connect", 12, server.host_key.fingerprint, "ssh-keyscan", str(server.port)
    )
    assert known.read_text() == was, "nothing is trusted by itself"


def test_changed_host_key(make_scene: MakeScene) -> None:
    """The run stops, whatever failures it would bear; it is never tried again."""
    scene = make_scene(3, settled=False, ssh={"retries": 3})
    server = scene.server("h02")
    known = scene.lab.inventory.with_name("known_hosts")
    other = scene.server("h01").host_key.public
    known.write_text(known.read_text().replace(server.host_key.public, other))
    ended = scene.push("--max-failures", "2")
    assert_aborted(scene, ended, "h02", "connect", 12, "changed", server.host_key.fingerprint)
    assert server.log.read_text().count("Connection from") == 1


def test_odd_known_hosts(make_scene: MakeScene) -> None:
    """Lines that nobody understands cost no host; a revoked key does."""
    scene = make_scene(settled=False)
    known = scene.lab.inventory.with_name("known_hosts")
    good = known.read_text()
    one, two = (server.host_key.public for server in scene.lab.servers)
    blob = one.split()[1]
    odd = [
        f"@cert-authority *.example.com {one}",
        f"*.example.com,!web01.example.com   {one}  a comment",
        "h01 ssh-ed25519 !!!not-base64!!!",
        f"h01 ssh-rsa {blob}",
        "h01",
        "|1|broken|hash " + one,
        f"@what h01 {one}",
        "",
    ]
    known.write_bytes(
        "\r\n".join(odd).encode() + b"\xff\xfe\x00 latin-1 \xe9\r\n" + good.replace("\n", "\r\n").encode()
    )
    done = scene.push()
    assert done.code == 0, done.stderr
    check_invariants(scene, done)
    known.write_bytes(known.read_bytes() + f"@revoked * {two}\n".encode())
    scene.change()
    assert_aborted(scene, scene.push(), "h02", "connect", 12, "revoked")


def test_max_startups(make_scene: MakeScene) -> None:
    """A place before the login that is taken for a while is waited for, inside the retries."""
    scene = make_scene(
        1,
        settled=False,
        configs={"h01": ["MaxStartups 1:100:1"]},
        ssh={"retries": 8, "connect_timeout": "20s"},
    )
    server = scene.server("h01")
    with socket.create_connection(("127.0.0.1", server.port)) as held:
        assert held.recv(4) == b"SSH-"
        running = scene.start()
        wait_until(lambda: "MaxStartups" in server.log.read_text(), 20, "the first attempt")
    done = scene.end(running)
    assert done.code == 0, done.stderr
    check_invariants(scene, done)


@pytest.mark.parametrize("sessions", [2, 1])
def test_max_sessions(make_scene: MakeScene, sessions: int) -> None:
    """A server with few sessions for each connection is served, or told with the name of its setting; never `down`."""
    scene = make_scene(1, settled=False, configs={"h01": [f"MaxSessions {sessions}"]})
    ended = scene.push()
    if sessions == 2:
        assert ended.code == 0, ended.stderr
        check_invariants(scene, ended)
    else:
        _, _, message = ended.failure("h01")
        assert "MaxSessions" in f"{message} {ended.stderr}"
        check_invariants(scene, ended, lost=["h01"])


def test_stalled_in_key_exchange(make_scene: MakeScene) -> None:
    """Longer than LoginGraceTime: what we say does not arrive."""
    scene = make_scene(settled=False, ssh=HASTY)
    with Proxy(("127.0.0.1", scene.server("h02").port)) as proxy:
        proxy.up(mode="drop")
        scene.lab.through("h02", proxy.port)
        ended = scene.push()
        assert_failed(ended, "h02", "connect", 11, "key exchange")
    assert_aborted(scene, ended, "h02", "connect", 11)


@pytest.mark.parametrize("how", ["down", "forbids forwarding", "dies mid-way"])
def test_jump_host(make_scene: MakeScene, how: str) -> None:
    """One fault of the jump host, told as one; hosts behind it are not called broken themselves."""
    scene = make_scene(
        3, settled=False, configs={"h01": ["AllowTcpForwarding no"] if how == "forbids forwarding" else []}
    )
    jump = scene.server("h01")
    way = f"{jump.user}@127.0.0.1:{jump.port}"
    for name in ("h02", "h03"):
        scene.lab.edit(name, jump=way)
    if how == "down":
        jump.stop_listener()
        ended = scene.push("-l", "h02,h03")
    elif how == "forbids forwarding":
        ended = scene.push("-l", "h02,h03")
    else:
        sign = scene.lab["h02"].hold("stage.tar")
        running = scene.start("push", "-l", "h02,h03")
        running.wait_for_host("h02", "stage")
        jump.kill_sessions()
        ended = scene.end(running)
        sign.unlink()
    assert ended.code == 20
    failed = [name for name, state in ended.states.items() if state == "failed"]
    assert failed
    for name in failed:
        phase, code, message = ended.failure(name)
        assert code == 14, message
        assert phase in (
            ("connect",) if how != "dies mid-way" else ("stage",) if name == "h02" else ("upload", "stage")
        )
    assert str(jump.port) in ended.stderr
    check_invariants(scene, ended, lost=["h02", "h03"])
    scene.lab["h02"].mend()


def test_no_common_algorithm(make_scene: MakeScene) -> None:
    scene = make_scene(settled=False, configs={"h02": ["Ciphers chacha20-poly1305@openssh.com"]})
    ended = scene.push()
    words = ("no algorithm in common", "chacha20-poly1305@openssh.com", "aes128-ctr")
    assert_aborted(scene, ended, "h02", "connect", 10, *words)


@pytest.mark.parametrize("key", ["the same key", "another key"])
def test_server_restarts_between_stage_and_switch(scene: Scene, key: str) -> None:
    """It is connected to again and asked who it is; a stranger there switches nothing."""
    server = scene.server("h02")
    sign = scene.lab["h01"].hold("stage.tar")
    running = scene.start()
    running.wait_for_host("h02", "stage", "ok")
    running.wait_for_host("h01", "stage")
    server.stop_listener()
    right = server.keys
    if key == "another key":
        server.keys = (make_key(server.directory / "other_host_key"),)
    server.start()
    server.kill_sessions()
    sign.unlink()
    ended = scene.end(running)
    scene.lab["h01"].mend()
    if key == "the same key":
        assert ended.code == 0, ended.stderr
        check_invariants(scene, ended)
        return
    assert ended.failure("h02")[1] == 12
    assert ended.code in {21, 22}  # 22: it could not be read what h02 serves
    assert scene.lab.live == scene.before.live
    check_invariants(scene, ended, lost=["h02"])
    server.stop_listener()
    server.keys = right
    server.start()
    scene.converge()


@pytest.mark.parametrize("what", ["nologin", "internal-sftp"])
def test_a_login_without_a_shell(make_scene: MakeScene, what: str) -> None:
    if what == "nologin":
        scene = make_scene(
            settled=False, wrappers={"h02": "echo This account is currently not available.; exit 1"}
        )
    else:
        scene = make_scene(settled=False, configs={"h02": ["ForceCommand internal-sftp"]})
    ended = scene.push("--timeout", "5s")
    assert_aborted(scene, ended, "h02", "probe", 30)
    if what == "nologin":
        assert "currently not available" in ended.stderr


def test_slow_host(make_scene: MakeScene) -> None:
    """Slower than the limit for its whole upload, but never standing still: that is no failure, and holds up no other."""
    scene = make_scene(settled=False)
    (scene.tree / "random").write_bytes(os.urandom(240_000))
    with Proxy(("127.0.0.1", scene.server("h02").port), buffer=8192) as proxy:
        scene.lab.through("h02", proxy.port)
        proxy.up(rate=60_000)
        running = scene.start("push", "--timeout", "2s")
        running.wait_for_host("h01", "stage", "ok")
        done = scene.end(running)
        assert done.code == 0, done.stderr
        uploads = {
            name: [e for e in done.of(name) if e["phase"] == "upload"][-1]["elapsed_s"]
            for name in ("h01", "h02")
        }
        assert uploads["h02"] > 2 > uploads["h01"]
    check_invariants(scene, done, limit_s=60)
