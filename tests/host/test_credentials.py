"""Keys found, judged and unlocked before anything is contacted; nobody is asked twice, or without need."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from deployctl.errors import InventoryError, UsageError
from deployctl.host.credentials import Credentials, prepare_credentials
from deployctl.host.keyring import Agent
from deployctl.host.target import Target
from tests.support.agent import SshAgent
from tests.support.keys import make_key


def target(*paths: Path, source: Any = "inventory", **fields: Any) -> Target:
    files = tuple(str(path) for path in paths)
    return Target("web01", "web01", "me", identity_files=files, identity_source=source, **fields)


def prepare(*targets: Target, environ: dict[str, str] | None = None, **options: Any) -> Credentials:
    threads = threading.active_count()
    try:
        return prepare_credentials(targets, environ=environ or {}, **options)
    finally:
        assert threading.active_count() == threads, "a thread here would make the coming fork unsafe"


def offered(credentials: Credentials, one: Target) -> list[str]:
    with Agent(one.agent) as agent:
        return [name.rpartition("/")[2] for name, _ in credentials.offers(one, agent)]


def test_one_passphrase_for_all_hosts(tmp_path: Path) -> None:
    key = make_key(tmp_path / "id", passphrase="secret")
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "secret"

    targets = [target(key.path) for _ in range(50)]
    credentials = prepare(*targets, ask=ask)
    assert asked == [f"passphrase for {key.path}: "]
    assert offered(credentials, targets[7]) == ["id"]


def test_passphrase_from_the_environment(tmp_path: Path) -> None:
    key = make_key(tmp_path / "id", passphrase="secret")
    assert prepare(target(key.path), environ={"DEPLOYCTL_PASSPHRASE": "secret"}).identities[str(key.path)].key
    with pytest.raises(UsageError, match="DEPLOYCTL_PASSPHRASE does not open") as caught:
        prepare(target(key.path), environ={"DEPLOYCTL_PASSPHRASE": "guess"})
    assert "guess" not in caught.value.message


def test_nobody_to_ask(tmp_path: Path) -> None:
    key = make_key(tmp_path / "id", passphrase="secret")
    with pytest.raises(UsageError, match="encrypted and there is no terminal") as caught:
        prepare(target(key.path))
    assert caught.value.hint
    assert "ssh-add" in caught.value.hint
    credentials = prepare(target(key.path, source="config"))
    assert credentials.identities == {}
    assert str(key.path) in credentials.warnings[0]


def test_wrong_passphrase_thrice(tmp_path: Path) -> None:
    key = make_key(tmp_path / "id", passphrase="secret")
    with pytest.raises(UsageError, match="3 attempts"):
        prepare(target(key.path), ask=lambda _: "wrong")


def test_ask_pass_needs_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--ask-pass"):
        prepare(target(source="default"), ask_pass=True)


def test_unusable_keys_of_the_inventory_are_told_together(tmp_path: Path) -> None:
    missing, public, wide = tmp_path / "missing", make_key(tmp_path / "a"), make_key(tmp_path / "wide")
    wide.path.chmod(0o644)
    garbage = tmp_path / "garbage"
    garbage.write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    garbage.chmod(0o600)
    open_public = Path(f"{public.path}.pub")
    open_public.chmod(0o600)
    with pytest.raises(InventoryError) as caught:
        prepare(*(target(path) for path in (missing, open_public, wide.path, garbage, tmp_path)))
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for word in (
        "missing: no such file",
        "public key",
        "0644",
        f"chmod 600 {wide.path}",
        "PuTTY",
        "not a file",
    ):
        assert word in problems


def test_unusable_keys_of_ssh_config_are_warnings(tmp_path: Path) -> None:
    wide = make_key(tmp_path / "wide")
    wide.path.chmod(0o640)
    credentials = prepare(target(tmp_path / "missing", wide.path, source="config"))
    assert len(credentials.warnings) == 1
    assert "0640" in credentials.warnings[0]


def test_pem_and_pkcs8(tmp_path: Path) -> None:
    for number, options in enumerate(
        (["-t", "rsa", "-m", "PEM"], ["-t", "ecdsa", "-m", "PKCS8"], ["-t", "rsa", "-m", "PKCS8"])
    ):
        for secret in ("", "secret"):
            path = tmp_path / f"id{number}{secret}"
            subprocess.run(
                ["ssh-keygen", "-q", *options, "-N", secret, "-f", str(path)], check=True, timeout=20
            )
            credentials = prepare(target(path), ask=lambda _: "secret")
            assert offered(credentials, target(path)) == [path.name]


def test_default_keys(tmp_path: Path) -> None:
    plain, locked = make_key(tmp_path / "id_rsa"), make_key(tmp_path / "id_ed25519", passphrase="secret")
    one = target(locked.path, tmp_path / "none", plain.path, source="default")

    def never(question: str) -> str:
        raise AssertionError(question)

    assert offered(prepare(one, ask=never), one) == ["id_rsa"], "not asked while there is another key"
    plain.path.unlink()
    assert offered(prepare(one, ask=lambda _: "secret"), one) == ["id_ed25519"]
    assert offered(prepare(one), one) == []


def test_agent_order(tmp_path: Path) -> None:
    keys = [make_key(tmp_path / name) for name in ("first", "second", "third")]
    with SshAgent(tmp_path) as agent:
        for key in keys[:2]:
            agent.add(key.path)
        socket = str(agent.socket)
        only = target(keys[2].path, agent=socket, identities_only=True)
        assert offered(prepare(only), only) == ["third"]
        more = target(keys[2].path, keys[1].path, source="config", agent=socket)
        names = offered(prepare(more), more)
        assert names[:2] == ["third", "second"]
        assert len(names) == 3
        default = target(keys[2].path, source="default", agent=socket)
        assert offered(prepare(default), default)[2:] == ["third"]


def test_the_agent_holds_what_the_public_key_names(tmp_path: Path) -> None:
    key = make_key(tmp_path / "id")
    with SshAgent(tmp_path) as agent:
        agent.add(key.path)
        key.path.unlink()
        for path in (key.path, Path(f"{key.path}.pub")):
            one = target(path, agent=str(agent.socket), identities_only=True)
            assert offered(prepare(one), one) == [path.name]


@pytest.mark.parametrize("socket", ["/nowhere/agent", "/etc/passwd", ""])
def test_no_agent_there(tmp_path: Path, socket: str) -> None:
    key = make_key(tmp_path / "id")
    one = target(key.path, agent=socket)
    assert offered(prepare(one), one) == ["id"]


def test_unreadable_key(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    key = make_key(tmp_path / "id")
    key.path.chmod(0)
    with pytest.raises(InventoryError, match="permission denied"):
        prepare(target(key.path))


def test_certificates(tmp_path: Path) -> None:
    authority, key, other = (make_key(tmp_path / name) for name in ("ca", "id", "other"))
    for path in (key.path, other.path):
        sign = ["ssh-keygen", "-q", "-s", str(authority.path), "-I", "x", "-n", "me", f"{path}.pub"]
        subprocess.run(sign, check=True, timeout=20)
    broken = tmp_path / "broken-cert.pub"
    broken.write_text("not a certificate\n")
    one = target(key.path, certificate_files=(f"{other.path}-cert.pub", str(broken), "/nowhere"))
    credentials = prepare(one)
    assert offered(credentials, one) == ["id-cert.pub", "id"]
    assert [warning.split(":")[0] for warning in credentials.warnings] == [str(broken)]
