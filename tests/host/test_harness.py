"""The servers that other tests rely on keep their own promises."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support import proc
from tests.support.inventory import InventoryFor
from tests.support.proc import wait_until
from tests.support.sshd import Sshd, SshdFarm

pytestmark = pytest.mark.sshd


def ssh(host: Sshd, key: Path, *command: str, **options: object) -> subprocess.Popen[str]:
    known = host.directory / "known_hosts"
    known.write_text(host.known_hosts_lines)
    flags = [
        "-F",
        "none",
        "-o",
        f"UserKnownHostsFile={known}",
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentitiesOnly=yes",
    ]
    return subprocess.Popen(
        ["ssh", *flags, "-i", str(key), "-p", str(host.port), f"{host.user}@{host.address}", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )


def test_login_and_command(sshd_farm: SshdFarm, client_key: Path) -> None:
    host = sshd_farm(env={"GREETING": "good day"})
    with ssh(host, client_key, 'echo "$HOME|$GREETING"; exit 3') as run:
        out, err = run.communicate(timeout=20)
    assert (out, run.returncode) == (f"{host.directory}/home|good day\n", 3), err


@pytest.mark.parametrize("shell", ["/bin/sh", "bash"])
def test_wrapper_keeps_stdin_and_status(sshd_farm: SshdFarm, client_key: Path, shell: str) -> None:
    host = sshd_farm(wrapper=f"echo noise; RUN_WITH={shell}")
    with ssh(host, client_key, "cat; exit 7") as run:
        out, _ = run.communicate("body\n", timeout=20)
    assert (out, run.returncode) == ("noise\nbody\n", 7)


def test_stop_leaves_nothing(sshd_farm: SshdFarm, client_key: Path) -> None:
    host = sshd_farm()
    with ssh(host, client_key, "setsid sleep 1000 & echo ready; exec sleep 1000") as run:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
        sessions = [proc.read(pid) for pid in host.session_pids() + host.command_pids()]
        assert len(sessions) >= 3
        host.freeze(listener=True)
        host.stop()
        run.communicate(timeout=20)
    assert not any(session and session.alive() for session in sessions)
    assert host.session_pids() == host.command_pids() == []


def test_restart_keeps_port_and_sessions(sshd_farm: SshdFarm, client_key: Path) -> None:
    host = sshd_farm()
    with ssh(host, client_key, "echo ready; cat") as run:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
        before = host.session_pids(), host.port
        host.stop_listener()
        assert (host.session_pids(), host.port) == before
        host.start()
        assert host.port == before[1]
        assert run.communicate("more\n", timeout=20)[0] == "more\n"
    host.kill_sessions()


def test_ipv6(sshd_farm: SshdFarm, client_key: Path) -> None:
    try:
        host = sshd_farm(address="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with ssh(host, client_key, "echo six") as run:
        assert run.communicate(timeout=20)[0] == "six\n"


def test_many_are_cheap(sshd_farm: SshdFarm) -> None:
    began = time.monotonic()
    hosts = sshd_farm.several(20)
    assert len({host.port for host in hosts}) == len({host.host_key.public for host in hosts}) == 20
    assert time.monotonic() - began < 10


def test_inventory(sshd_farm: SshdFarm, inventory_for: InventoryFor) -> None:
    hosts = sshd_farm.several(2)
    data = yaml.safe_load(inventory_for(hosts, app="blog", ssh={"retries": 0}).read_text())
    assert data["app"] == "blog"
    assert data["ssh"]["retries"] == 0
    assert data["ssh"]["known_hosts"]
    assert [entry["port"] for entry in data["groups"]["web"]["hosts"]] == [host.port for host in hosts]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support.keys import host_keys
from tests.support.sshd import SshdFarm

farm = SshdFarm(Path(sys.argv[1]), host_keys(Path(sys.argv[1])), [])
print(farm()._listener.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )
    listener = proc.read(int(done.stdout))
    wait_until(lambda: listener is None or not listener.alive(), what="the end of the server")
