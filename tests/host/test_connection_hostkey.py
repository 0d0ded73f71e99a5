"""The host's key on real servers: known, unknown, changed, revoked, pinned, learned."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest

from deployctl.errors import Code
from deployctl.host.knownhosts import append_learned
from deployctl.model import HostKeys
from tests.host.kit import Kit, failure, to
from tests.support.keys import make_key
from tests.support.sshd import SshdFarm

pytestmark = pytest.mark.sshd


def test_unknown(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    error = failure(
        lambda: kit.open(kit.target(**to(host), retries=3)),
        Code.HOST_KEY,
        "unknown",
        host.host_key.fingerprint,
        f"ssh-keyscan -p {host.port} 127.0.0.1 >> {kit.directory}/known_hosts",
    )
    assert error.data["fingerprint"] == host.host_key.fingerprint
    assert "Accepted publickey" not in host.log.read_text()
    assert "publickey" not in host.log.read_text(), "nothing is offered to a host that is not proven"


def test_the_hinted_commands_work(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    host = sshd_farm()
    kit.known = f"{host.known_hosts_name} {make_key(tmp_path / 'old').public}\n"
    error = failure(lambda: kit.open(kit.target(**to(host))), Code.HOST_KEY, "changed", "(")
    assert error.hint
    run = error.hint.partition(": ")[2]
    subprocess.run(["sh", "-c", run], check=True, capture_output=True, timeout=20)
    kit.known = ""
    error = failure(lambda: kit.open(kit.target(**to(host))), Code.HOST_KEY, "unknown")
    assert error.hint
    subprocess.run(["sh", "-c", error.hint.partition(": ")[2]], check=True, capture_output=True, timeout=20)
    assert kit.open(kit.target(**to(host))).alive


def test_changed(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    host, old = sshd_farm(), make_key(tmp_path / "old")
    kit.known = f"# mine\n{host.known_hosts_name} {old.public}\n"
    words = (old.fingerprint, host.host_key.fingerprint, f"{kit.directory}/known_hosts:2", "ssh-keygen -R")
    for policy in HostKeys:
        target = kit.target(**to(host), host_keys=policy)
        failure(partial(kit.open, target), Code.HOST_KEY, *words)


def test_only_another_type_is_known(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    """Whoever sits in between could show a type that we don't know yet: that is a change, never something new."""
    host = sshd_farm()
    kit.known = f"{host.known_hosts_name} {make_key(tmp_path / 'rsa', 'rsa').public}\n"
    target = kit.target(**to(host), host_keys=HostKeys.ACCEPT_NEW)
    failure(lambda: kit.open(target), Code.HOST_KEY, "changed", "ssh-rsa")


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_the_known_type_is_asked_for(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path, kind: str) -> None:
    known = make_key(tmp_path / "known", kind)  # type: ignore[arg-type]
    host = sshd_farm(keys=[make_key(tmp_path / "first"), known])
    kit.known = f"{host.known_hosts_name} {known.public}\n"
    assert kit.open(kit.target(**to(host))).alive


def test_revoked(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    kit.knows(host).known += f"@revoked * {host.host_key.public}\n"
    failure(lambda: kit.open(kit.target(**to(host))), Code.HOST_KEY, "revoked", "known_hosts:2")


def test_hashed(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    known = kit.directory / "known_hosts"
    known.write_text(host.known_hosts_lines)
    subprocess.run(["ssh-keygen", "-H", "-f", str(known)], check=True, capture_output=True, timeout=20)
    assert "127.0.0.1" not in known.read_text()
    assert kit.open(kit.target(**to(host))).alive


@pytest.mark.parametrize(
    "pattern", ["[127.0.0.*]:*", "*,!example.com", "127.0.0.1", "other,[127.0.0.1]:{port}"]
)
def test_patterns(sshd_farm: SshdFarm, kit: Kit, pattern: str) -> None:
    host = sshd_farm()
    kit.known = f"{pattern.format(port=host.port)} {host.host_key.public} a comment\r\n"
    assert kit.open(kit.target(**to(host))).alive


def test_negated(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    kit.known = f"*,![127.0.0.1]:*,!127.* {host.host_key.public}\n"
    failure(lambda: kit.open(kit.target(**to(host))), Code.HOST_KEY, "unknown")


def test_host_key_alias(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    kit.known = f"shop {host.host_key.public}\n"
    kit.config = "HostKeyAlias shop\n"
    assert kit.open(kit.target(**to(host))).alive


def test_pin(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    host, other = sshd_farm(), make_key(tmp_path / "other")
    assert kit.open(kit.target(**to(host), fingerprint=host.host_key.fingerprint)).learned is None
    kit.knows(host)
    target = kit.target(**to(host), fingerprint=other.fingerprint)
    failure(
        lambda: kit.open(target), Code.HOST_KEY, other.fingerprint, host.host_key.fingerprint, "inventory"
    )


def test_pin_of_the_second_key(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    second = make_key(tmp_path / "second", "rsa")
    host = sshd_farm(keys=[make_key(tmp_path / "first"), second])
    assert kit.open(kit.target(**to(host), fingerprint=second.fingerprint)).alive


def test_learned(sshd_farm: SshdFarm, kit: Kit) -> None:
    host = sshd_farm()
    target = kit.target(**to(host), host_keys=HostKeys.ACCEPT_NEW)
    learned = kit.open(target).learned
    assert learned
    assert learned.line + "\n" == host.known_hosts_lines
    assert (kit.directory / "known_hosts").read_text() == "", "a worker writes nothing"
    assert append_learned(learned.path, [learned.line, learned.line]) == [learned.line]
    assert kit.open(kit.target(**to(host))).alive
