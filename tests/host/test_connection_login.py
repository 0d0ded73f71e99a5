"""Logging in to real servers: keys, certificates, agents, passwords, and what is said when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployctl.errors import Code
from tests.host.kit import Kit, ask, failure, to
from tests.support.agent import SshAgent
from tests.support.keys import KeyPair, make_key
from tests.support.sshd import SshdFarm

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_key(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / "id", kind)  # type: ignore[arg-type]
    host = sshd_farm(authorized=[key.public])
    kit.identity = key.path
    connection = kit.knows(host).open(kit.target(**to(host)))
    assert ask(connection, "echo in as $(whoami)") == f"in as {host.user}\n"
    assert connection.alive
    assert connection.peer == f"127.0.0.1:{host.port}"
    assert connection.learned is None


def test_encrypted_key(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    key = make_key(tmp_path / "id", passphrase="open sesame")
    host = sshd_farm(authorized=[key.public])
    kit.identity = key.path
    target = kit.knows(host).target(**to(host))
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "wrong" if len(asked) == 1 else "open sesame"

    kit.open(target, credentials=kit.credentials(target, ask=answer))
    assert len(asked) == 2
    assert str(key.path) in asked[0]


def test_wrong_key(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    host = sshd_farm()
    kit.identity = make_key(tmp_path / "other").path
    target = kit.knows(host).target(**to(host), retries=3)
    error = failure(lambda: kit.open(target), Code.LOGIN, f"{host.user} at 127.0.0.1:{host.port}", "other")
    assert error.hint
    assert host.log.read_text().count("Failed publickey") == 1, "one attempt: more feed a server's penalties"


def test_no_key_at_all(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    kit.identity = None
    failure(lambda: kit.open(kit.knows(host).target(**to(host))), Code.LOGIN, "no key to offer")


def test_agent(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    key = make_key(tmp_path / "id", passphrase="secret")
    plain = make_key(tmp_path / "plain")
    host = sshd_farm(authorized=[plain.public])
    kit.identity = None
    with SshAgent(tmp_path) as agent:
        agent.add(plain.path)
        kit.environ["SSH_AUTH_SOCK"] = str(agent.socket)
        kit.open(kit.knows(host).target(**to(host)))
    assert key.public not in host.log.read_text()


def test_agent_holds_the_encrypted_identity(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    plain = make_key(tmp_path / "id")
    host = sshd_farm(authorized=[plain.public])
    with SshAgent(tmp_path) as agent:
        agent.add(plain.path)
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(plain.path)], check=True, timeout=20
        )
        kit.identity = plain.path
        kit.environ["SSH_AUTH_SOCK"] = str(agent.socket)
        kit.open(kit.knows(host).target(**to(host)))  # nobody is asked


def test_many_keys_in_the_agent(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    host = sshd_farm("MaxAuthTries 2")
    with SshAgent(tmp_path) as agent:
        for number in range(10):
            agent.add(make_key(tmp_path / f"other{number}").path)
        kit.environ["SSH_AUTH_SOCK"] = str(agent.socket)
        kit.open(kit.knows(host).target(**to(host)))
        kit.identity = None
        target = kit.target(**to(host))
        failure(lambda: kit.open(target), Code.LOGIN, "(agent)", "Too many authentication failures")


def test_agent_that_will_not_sign(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    refused, good = make_key(tmp_path / "refused"), make_key(tmp_path / "good")
    host = sshd_farm(authorized=[good.public, refused.public])
    kit.identity = None
    with SshAgent(
        tmp_path, {"SSH_ASKPASS": "/bin/false", "DISPLAY": ":0", "SSH_ASKPASS_REQUIRE": "force"}
    ) as agent:
        agent.add(refused.path, "-c")  # the agent asks its user, who says no
        agent.add(good.path)
        kit.environ["SSH_AUTH_SOCK"] = str(agent.socket)
        kit.open(kit.knows(host).target(**to(host)))


@pytest.mark.parametrize("in_agent", [False, True])
def test_certificate(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path, in_agent: bool) -> None:
    authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "id")
    host = sshd_farm(f"TrustedUserCAKeys {authority.path}.pub", authorized=[])
    sign = [
        "ssh-keygen",
        "-q",
        "-s",
        str(authority.path),
        "-I",
        "me",
        "-n",
        host.user,
        "-V",
        "+1h",
        f"{key.path}.pub",
    ]
    subprocess.run(sign, check=True, timeout=20)
    kit.identity = key.path
    if not in_agent:
        kit.open(kit.knows(host).target(**to(host)))
        return
    with SshAgent(tmp_path) as agent:
        agent.add(key.path)
        kit.environ["SSH_AUTH_SOCK"] = str(agent.socket)
        kit.open(kit.knows(host).target(**to(host)))


def test_nologin_text_is_told(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_text("closed for repairs\n")
    host = sshd_farm(f"Banner {banner}", authorized=[])
    failure(lambda: kit.open(kit.knows(host).target(**to(host))), Code.LOGIN, "closed for repairs")


@dataclass
class PasswordServer:
    key: KeyPair
    port: int
    address: str = "127.0.0.1"

    @property
    def known_hosts_lines(self) -> str:
        return f"[{self.address}]:{self.port} {self.key.public}\n"


@contextmanager
def password_server(tmp_path: Path, *methods: str) -> Iterator[PasswordServer]:
    key = make_key(tmp_path / "server_key")
    settings = json.dumps({"methods": methods, "password": "right", "host_key": str(key.path)})
    command = [sys.executable, "-m", "tests.support.password_server", settings]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    try:
        assert process.stdout
        yield PasswordServer(key, json.loads(process.stdout.readline())["port"])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "methods",
    [["password"], ["keyboard-interactive"], ["publickey", "password"], ["password", "publickey"]],
    ids="-".join,
)
def test_password(kit: Kit, tmp_path: Path, methods: list[str]) -> None:
    with password_server(tmp_path, *methods) as server:
        kit.known = server.known_hosts_lines
        target = kit.target(**to(server), user="anna")
        credentials = kit.credentials(target, ask_pass=True, ask=lambda _: "right")
        assert "right" not in repr(credentials)
        assert ask(kit.open(target, credentials=credentials), "x") == "in as anna\n"


def test_wrong_password(kit: Kit, tmp_path: Path) -> None:
    with password_server(tmp_path, "password") as server:
        kit.known, kit.identity = server.known_hosts_lines, None
        target = kit.target(**to(server))
        credentials = kit.credentials(target, ask_pass=True, ask=lambda _: "guess")
        error = failure(lambda: kit.open(target, credentials=credentials), Code.LOGIN, "password")
        assert "guess" not in f"{error.message} {error.hint}"
