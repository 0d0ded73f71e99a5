"""Passphrases, passwords and secret variables: in no output, no process list, no other environment, no file."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.artifact.test_git import IDENTITY
from tests.artifact.trees import run, tool
from tests.faults.conftest import MakeScene
from tests.faults.kit import Scene, check_invariants
from tests.faults.terminal import Terminal
from tests.life.moments import hooks
from tests.release.running import Running
from tests.support.keys import make_key
from tests.support.proc import everything

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

# Of this process alone, since other tests run beside it.
TOKEN = f"hush-{uuid.uuid4().hex}"
PASSPHRASE = f"open-sesame-{uuid.uuid4().hex}"
PASSWORD = f"swordfish-{uuid.uuid4().hex}"
HIDDEN = (TOKEN, PASSPHRASE, PASSWORD)
ON_HOST = b"DEPLOYCTL_TEST_SSHD="
HOOK = b"DEPLOYCTL_RELEASE="  # stands in the environment of hooks, and of nothing else


@pytest.fixture
def guarded(make_scene: MakeScene, tmp_path: Path) -> Scene:
    """Hosts whose key has a passphrase, and hooks that print the token and look around before they fail or not."""
    scene = make_scene(settled=False)
    key = make_key(tmp_path / "locked_key", passphrase=PASSPHRASE)
    for server in scene.lab.servers:
        with (server.directory / "authorized_keys").open("a") as keys:
            keys.write(key.public + "\n")
    data = yaml.safe_load(scene.lab.inventory.read_text())
    data["ssh"]["identity_file"] = str(key.path)
    scene.lab.inventory.write_text(yaml.safe_dump(data))
    say = 'echo "token: $API_TOKEN"; echo "$API_TOKEN" >&2; sleep 0.1'
    moments = {moment: [say] for moment in ("staged", "activating", "activated")}
    hooks(scene.lab, {"build": [say], "released": [say], "failed": [say], **moments})
    return scene


class Watch:
    """Looks at the arguments and the environment of every process there is, again and again."""

    def __init__(self) -> None:
        self.looks = 0
        self.hooks = 0
        self.found: set[tuple[str, str, str]] = set()

    def look(self, running: Running | None = None, pid: int = 0) -> None:
        self.looks += 1
        given = {p.pid for p in running.family()} if running else {pid}
        for process in everything():
            arguments, environ = read(process.pid, "cmdline"), read(process.pid, "environ")
            # A hook here, and the shell round it, have the environment of whoever started the run.
            is_hook = HOOK in environ or ON_HOST not in environ
            self.hooks += is_hook and TOKEN.encode() in environ
            for secret in HIDDEN:
                if secret.encode() in arguments:
                    self.found.add(("arguments", process.name, secret))
                # The run itself was given them by whoever called it; a hook is whom the token is for.
                if process.pid in given or (is_hook and secret == TOKEN) or inherited(process.pid, given):
                    continue
                if secret.encode() in environ:
                    self.found.add(("environment", process.name, secret))


def inherited(pid: int, given: set[int]) -> bool:
    """Whether it is gone, or a fork of the run that is newer than the list."""
    try:
        return os.getsid(pid) in given
    except ProcessLookupError:
        return True


def read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def files_with_secrets(*tops: Path) -> Iterator[tuple[Path, str]]:
    for top in tops:
        for path in top.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                yield from ((path, secret) for secret in HIDDEN if secret.encode() in content)


@pytest.mark.parametrize("ending", ["released", "aborted", "reverted"])
def test_secrets_with_json(guarded: Scene, tmp_path: Path, own_environment: Path, ending: str) -> None:
    """At the highest verbosity, in every kind of end."""
    scene, watch = guarded, Watch()
    if ending != "released":
        point = {"aborted": "staged", "reverted": "activated"}[ending]
        data = yaml.safe_load(scene.lab.inventory.read_text())
        data["release"]["hooks"][point] = ['echo "it was $API_TOKEN"; sleep 0.1; exit 3']
        scene.lab.inventory.write_text(yaml.safe_dump(data))
    running = scene.start(
        "push",
        "-vv",
        "--debug",
        env={"FAULTS_TOKEN": TOKEN, "DEPLOYCTL_PASSPHRASE": PASSPHRASE},
    )
    while running._read(0.02 + time.monotonic()) or running.process.poll() is None:
        watch.look(running)
    ended = scene.end(running)
    assert ended.outcome == ending, ended.stderr
    assert watch.found == set()
    assert watch.hooks > 0, "no hook was seen with its token: the test looked too late"
    said = str(ended.events) + ended.stderr
    assert "***" in said
    assert not [secret for secret in HIDDEN if secret in said]
    check_invariants(scene, ended)
    assert list(files_with_secrets(tmp_path, own_environment)) == []
    history = scene.start("history").finish()
    assert TOKEN not in str(history.events)


@pytest.mark.parametrize("mode", ["live", "plain"])
def test_secrets_on_a_terminal(guarded: Scene, tmp_path: Path, own_environment: Path, mode: str) -> None:
    """Asked for there, once, and not echoed."""
    scene, watch = guarded, Watch()
    with Terminal(
        scene, "push", scene.tree, "-o", mode, "-vv", "--debug", "--ask-pass", env={"FAULTS_TOKEN": TOKEN}
    ) as terminal:
        answers = {"assphrase": PASSPHRASE, "assword": PASSWORD}
        while terminal.read(0.02):
            watch.look(pid=terminal.process.pid)
            for question in list(answers):
                if question in terminal.said and terminal.said.rstrip().endswith(":"):
                    terminal.press(answers.pop(question) + "\n")
        assert terminal.exit_code() == 0, terminal.said
    assert answers == {}
    assert not [secret for secret in HIDDEN if secret in terminal.said]
    assert watch.found == set()
    assert list(files_with_secrets(tmp_path, own_environment)) == []


# A ProxyCommand that joins two streams with what any machine has that runs these tests.
NETCAT = """\
import os, select, socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for ready in select.select([0, link], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else link.recv(65536)
        if not data:
            sys.exit()
        link.sendall(data) if ready == 0 else os.write(1, data)
"""


def test_other_programs_here_do_not_get_the_passphrase(
    guarded: Scene, tmp_path: Path, own_environment: Path
) -> None:
    """git, a ProxyCommand and `Match exec`."""
    scene = guarded
    seen, programs = tmp_path / "seen", tmp_path / "programs"
    seen.mkdir()
    programs.mkdir()
    data = yaml.safe_load(scene.lab.inventory.read_text())
    data["release"]["hooks"].pop("build")  # which --ref refuses
    scene.lab.inventory.write_text(yaml.safe_dump(data))
    run(tool("git"), "-C", scene.tree, "init", "-q")
    run(tool("git"), "-C", scene.tree, *IDENTITY, "add", "-A")
    run(tool("git"), "-C", scene.tree, *IDENTITY, "commit", "-q", "-m", "x")
    (programs / "git").write_text(f'#!/bin/sh\nenv > {seen}/git.$$\nexec {tool("git")} "$@"\n')
    (programs / "git").chmod(0o755)
    (programs / "netcat.py").write_text(NETCAT)
    (own_environment / ".ssh").mkdir()
    (own_environment / ".ssh/config").write_text(
        f'Match exec "env > {seen}/match"\n'
        f"ProxyCommand sh -c 'env > {seen}/proxy.$$; exec {sys.executable} {programs}/netcat.py %h %p'\n"
    )
    done = scene.start(
        "push",
        "--ref",
        "HEAD",
        env={
            "FAULTS_TOKEN": TOKEN,
            "DEPLOYCTL_PASSPHRASE": PASSPHRASE,
            "PATH": f"{programs}:{os.environ['PATH']}",
        },
    ).finish()
    assert done.outcome == "released", done.stderr
    given = {path.name.partition(".")[0]: path.read_text() for path in sorted(seen.iterdir())}
    assert set(given) == {"git", "match", "proxy"}
    assert all("HOME=" in environ for environ in given.values())
    assert [name for name, environ in given.items() if PASSPHRASE in environ] == []
