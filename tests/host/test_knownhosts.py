"""known_hosts: read whatever is there, and never lose a line when one is added."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from pathlib import Path

import pytest

from deployctl.host.knownhosts import KnownHosts, append_learned, fingerprint, learned_line
from deployctl.host.target import Target
from tests.support.keys import KeyPair, make_key


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return make_key(tmp_path / "key")


def target(
    path: Path, address: str = "web01.example.com", port: int = 22, alias: str | None = None
) -> Target:
    return Target("web01", address, "deploy", port, known_hosts=(str(path),), host_key_alias=alias)


def found(path: Path, one: Target) -> list[str]:
    known = KnownHosts([str(path)])
    assert known.warnings == []
    return [entry.fingerprint for entry in known.lookup(one).keys]


@pytest.mark.parametrize(
    ("names", "address", "port", "hit"),
    [
        ("web01.example.com", "web01.example.com", 22, True),
        ("WEB01.example.com", "web01.Example.com", 22, True),
        ("a,web01.example.com,b", "web01.example.com", 22, True),
        ("*.example.com", "web01.example.com", 22, True),
        ("web0?.example.com", "web01.example.com", 22, True),
        ("*.example.com,!web01.*", "web01.example.com", 22, False),
        ("!web01.*,*.example.com", "web01.example.com", 22, False),
        ("[web01.example.com]:2222", "web01.example.com", 2222, True),
        ("[web01.example.com]:2222", "web01.example.com", 22, False),
        ("[web01.example.com]:22", "web01.example.com", 22, True),
        ("[::1]:2222", "::1", 2222, True),
        ("::1", "::1", 22, True),
        ("web01", "web01.example.com", 22, False),
        ("web[01].example.com", "web0.example.com", 22, False),
    ],
)
def test_names(tmp_path: Path, key: KeyPair, names: str, address: str, port: int, hit: bool) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"{names} {key.public}\n")
    assert found(path, target(path, address, port)) == ([key.fingerprint] if hit else [])


@pytest.mark.parametrize(
    "layout", ["{} {}\r\n", "  {}\t{}   my comment\n", "# x\n\n{}   {}", "{} {}\n# {}\n"]
)
def test_layouts(tmp_path: Path, key: KeyPair, layout: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(layout.format("web01.example.com", key.public, "").encode())
    assert found(path, target(path)) == [key.fingerprint]


def test_hashed_by_openssh(tmp_path: Path, key: KeyPair) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"[web01.example.com]:2222,other {key.public}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(path)], check=True, capture_output=True, timeout=20)
    assert "web01" not in path.read_text()
    assert found(path, target(path, port=2222)) == [key.fingerprint]
    assert found(path, target(path, "other")) == [key.fingerprint]
    assert found(path, target(path)) == []


def test_bad_lines_are_named_and_cost_nothing_else(tmp_path: Path, key: KeyPair) -> None:
    path = tmp_path / "known_hosts"
    bad = [
        b"web01.example.com",
        b"web01.example.com ssh-ed25519",
        b"web01.example.com ssh-ed25519 !!!",
        b"web01.example.com ssh-ed25519 AAAA",
        b"web01.example.com ssh-rsa " + key.public.split()[1].encode(),
        b"\xff\xfe ssh-ed25519 " + key.public.split()[1].encode(),
        b"|1|x|y " + key.public.encode(),
        b"|2|AAAA|AAAA " + key.public.encode(),
        b"@cert-authority *.example.com " + key.public.encode(),
        b"@what web01.example.com " + key.public.encode(),
    ]
    path.write_bytes(b"\n".join(bad) + f"\nweb01.example.com {key.public}\n".encode())
    known = KnownHosts([str(path)])
    assert [entry.where for entry in known.lookup(target(path)).keys] == [f"{path}:{len(bad) + 1}"]
    assert [warning.split(": ")[0] for warning in known.warnings] == [
        f"{path}:{n}" for n in range(1, len(bad) + 1)
    ]
    assert "certificate authorities" in known.warnings[8]


def test_revoked(tmp_path: Path, key: KeyPair) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"@revoked * {key.public}\nweb01.example.com {key.public}\n")
    answer = KnownHosts([str(path)]).lookup(target(path))
    assert [entry.fingerprint for entry in answer.revoked] == [key.fingerprint]


def test_the_alias_is_what_counts(tmp_path: Path, key: KeyPair) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"shop {key.public}\n")
    assert found(path, target(path, port=2222, alias="shop")) == [key.fingerprint]


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert KnownHosts([str(tmp_path / "nowhere")]).warnings == []
    known = KnownHosts([str(tmp_path)])
    assert known.warnings == [f"{tmp_path}: cannot be read: Is a directory"]
    assert known.lookup(target(tmp_path)).keys == []


def test_ten_thousand_lines(tmp_path: Path, key: KeyPair) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("".join(f"web{n},10.0.{n // 256}.{n % 256} {key.public}\n" for n in range(10_000)))
    began = time.process_time()
    known = KnownHosts([str(path)])
    for number in range(1000):
        assert known.lookup(target(path, f"web{number}")).keys
    assert time.process_time() - began < 2  # paramiko's own reader takes minutes


def test_what_is_learned_is_known(tmp_path: Path, key: KeyPair) -> None:
    path = tmp_path / "known_hosts"
    for one in (target(path), target(path, port=2222), target(path, "::1", 2222), target(path, alias="shop")):
        blob = base64.b64decode(key.public.split()[1])
        append_learned(path, [learned_line(one, key.type, blob)])
        assert found(path, one) == [fingerprint(blob)]


def test_append_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"# mine\nold \xff line without an end")
    path.chmod(0o644)
    assert append_learned(path, ["new a", "new a", "new b"]) == ["new a", "new b"]
    assert append_learned(path, ["new b"]) == []
    assert path.read_bytes() == b"# mine\nold \xff line without an end\nnew a\nnew b\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_append_creates_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / ".ssh" / "known_hosts"
    append_learned(path, ["new"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_append_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "hosts", tmp_path / "known_hosts"
    real.write_text("old\n")
    link.symlink_to(real)
    append_learned(link, ["new"])
    assert link.is_symlink()
    assert real.read_text() == "old\nnew\n"


def test_append_leaves_nothing_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("old\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        append_learned(path, ["new"])
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
