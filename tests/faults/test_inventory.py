"""Inventories that are wrong or hostile, as a user meets them: exit 10, one line for each problem, nobody contacted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.kit import check_invariants
from tests.release.running import PROGRAM

HOST = "app: shop\npath: /srv/shop\nssh: {user: x, port: PORT}\ngroups: {web: {hosts: [127.0.0.1]}}\n"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


def replaced(old: str, new: str) -> bytes:
    return HOST.replace(old, new).encode()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


WRONG: dict[str, bytes | Callable[[Path], None]] = {
    "duplicate host": replaced("[127.0.0.1]", "[127.0.0.1, 127.0.0.1]"),
    "duplicate key": (HOST + "path: /srv/other\n").encode(),
    "unknown key": replaced("port:", "prot:"),
    "alias bomb": (BOMB + HOST).encode(),
    "deep nesting": b"[" * 20_000,
    "python tag": replaced("/srv/shop", "!!python/object/apply:os.system ['touch pwned']"),
    "empty": b"",
    "list": b"- app: shop\n",
    "two documents": HOST.encode() + b"---\n" + HOST.encode(),
    "tabs": HOST.encode() + b"release:\n\tkeep: 3\n",
    "NUL": HOST.encode() + b"x-a: \0\n",
    "latin-1": HOST.encode() + b"x-a: pr\xfcfung\n",
    "100 MB": make_huge,
    "FIFO": make_fifo,
    "directory": make_directory,
    "missing variable": replaced("{hosts:", "{vars: {T: {env: FAULTS_MISSING, secret: true}}, hosts:"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_inventory(tmp_path: Path, what: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a").write_text("")
    path, content = tmp_path / "hosts.yaml", WRONG[what]
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.replace(b"PORT", str(nobody.getsockname()[1]).encode()))
        began_at = time.monotonic()
        done = subprocess.run(
            [*PROGRAM, "push", tmp_path / "site", "-i", path, "-o", "json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert time.monotonic() - began_at < 15
        nobody.setblocking(False)
        with pytest.raises(BlockingIOError):
            nobody.accept()
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["event"], last["outcome"]) == (10, "run_finished", "refused"), done.stderr
    assert "hosts.yaml" in done.stderr or "FAULTS_MISSING" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 12
    assert not Path("pwned").exists()
    if what.startswith("duplicate"):
        assert done.stderr.count("line") >= 1 or done.stderr.count("hosts.yaml:") > 1


def test_selecting_nobody(make_scene: MakeScene) -> None:
    scene = make_scene(1, settled=False)
    ended = scene.start("push", "--limit", "x").finish()
    assert ended.code == 2
    assert "Connection from" not in scene.server("h01").log.read_text()


@pytest.mark.sshd
def test_a_locale_without_letters(make_scene: MakeScene) -> None:
    """`LANG=C`, `PYTHONUTF8=0`: what can't be shown is escaped, and never the end of a release."""
    scene = make_scene(1, settled=False)
    (scene.tree / "pr\u00fcfung \u2713").write_text("x")
    (scene.tree / "id_rsa").write_text("-----BEGIN RSA PRIVATE KEY-----\n")
    env = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = scene.push("-vv", env=env)
    assert done.code == 0, done.stderr
    check_invariants(scene, done)
