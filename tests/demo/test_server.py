"""The embedded SSH server, against the real clients where they are installed and against paramiko in a process of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployctl.demo.hosts import DemoHosts
from tests.support import proc
from tests.support.keys import make_key
from tests.support.proc import wait_until

needs_ssh = pytest.mark.skipif(not shutil.which("ssh") or not shutil.which("scp"), reason="needs ssh and scp")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoHosts]:
    with DemoHosts(1, tmp_path_factory.mktemp("demo") / "hosts") as started:
        yield started


def options(hosts: DemoHosts) -> list[str]:
    said = {
        "UserKnownHostsFile": hosts.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "IdentityFile": hosts.identity_file,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
    }
    return ["-F", "/dev/null", *(part for key, value in said.items() for part in ("-o", f"{key}={value}"))]


def command_line(hosts: DemoHosts, command: str, *more: str) -> list[str]:
    return ["ssh", *options(hosts), *more, "-p", str(hosts.ports["web01"]), "127.0.0.1", command]


def ssh(
    hosts: DemoHosts, command: str, *more: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command_line(hosts, command, *more), input=stdin, capture_output=True, timeout=60, check=False
    )


@needs_ssh
def test_output_error_output_and_exit_status_arrive(hosts: DemoHosts) -> None:
    done = ssh(hosts, "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert ssh(hosts, "no-such-program").returncode == 127
    assert ssh(hosts, "kill -KILL $$").returncode == 255
    assert ssh(hosts, 'test "$PWD" = "$HOME" && test -w srv').returncode == 0


@needs_ssh
def test_input_arrives_whole_and_its_end_too(hosts: DemoHosts) -> None:
    data = os.urandom(20_000_000)
    done = ssh(hosts, "sha256sum || shasum -a 256", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


@needs_ssh
def test_a_command_that_reads_no_input_ends(hosts: DemoHosts) -> None:
    assert ssh(hosts, "exec <&-; echo done", stdin=bytes(20_000_000)).stdout == b"done\n"


@needs_ssh
def test_a_command_can_outlive_its_input(hosts: DemoHosts) -> None:
    assert ssh(hosts, "cat; sleep 0.3; echo after", stdin=b"x").stdout == b"xafter\n"


@needs_ssh
def test_a_hundred_megabytes_of_output(hosts: DemoHosts) -> None:
    done = ssh(hosts, "head -c 100000000 /dev/zero")
    assert done.returncode == 0
    assert done.stdout == bytes(100_000_000)


@needs_ssh
def test_scp_is_byte_exact(hosts: DemoHosts, tmp_path: Path) -> None:
    data = os.urandom(30_000_001)
    (tmp_path / "sent").write_bytes(data)
    target = f"127.0.0.1:{hosts.roots['web01']}/arrived"
    command = ["scp", "-O", *options(hosts), "-P", str(hosts.ports["web01"]), str(tmp_path / "sent"), target]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if b"unknown option" in done.stderr:  # before OpenSSH 8.7 there was one protocol
        command.remove("-O")
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (hosts.roots["web01"] / "arrived").read_bytes() == data


@needs_ssh
def test_what_is_not_a_command_is_refused(hosts: DemoHosts, tmp_path: Path) -> None:
    assert ssh(hosts, "echo in", "-W", "127.0.0.1:22").returncode == 255
    assert b"PTY allocation request failed" in ssh(hosts, "true", "-tt").stderr
    strange_key = make_key(tmp_path / "strange")
    strange = [
        part.replace(str(hosts.identity_file), str(strange_key.path)) for part in command_line(hosts, "true")
    ]
    done = subprocess.run(strange, capture_output=True, check=False, timeout=60)
    assert done.returncode == 255
    assert b"Permission denied (publickey)" in done.stderr


@needs_ssh
@needs_proc
def test_a_command_whose_client_is_gone_ends(hosts: DemoHosts) -> None:
    before = {child.pid for child in proc.descendants([hosts.pids["web01"]])}

    def ours() -> list[proc.Proc]:
        return [child for child in proc.descendants([hosts.pids["web01"]]) if child.pid not in before]

    client = subprocess.Popen(
        command_line(hosts, "trap '' HUP; echo on; sleep 1000; sleep 1000"),
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"on\n"
        assert ours()
        client.kill()
    wait_until(lambda: not ours(), what="the end of the command")


def test_a_client_that_is_no_ssh_client_does_no_harm(hosts: DemoHosts) -> None:
    for text in (b"", b"GET / HTTP/1.0\r\n\r\n", b"SSH-2.0-x\r\n" + bytes(300)):
        with socket.create_connection(("127.0.0.1", hosts.ports["web01"]), timeout=10) as link:
            link.sendall(text)
    with socket.create_connection(("127.0.0.1", hosts.ports["web01"]), timeout=10) as link:
        assert link.recv(4) == b"SSH-"


PARAMIKO = """
import os, socket, sys, time
import paramiko
port, key, known_hosts = int(sys.argv[1]), sys.argv[2], sys.argv[3]
link = socket.create_connection(("127.0.0.1", port))
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
client.connect("127.0.0.1", port, sock=link, key_filename=key, allow_agent=False, look_for_keys=False)
"""


def in_another_process(hosts: DemoHosts, script: str) -> str:
    arguments = [str(hosts.ports["web01"]), str(hosts.identity_file), str(hosts.known_hosts)]
    done = subprocess.run(
        [sys.executable, "-c", PARAMIKO + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_many_channels_at_once_over_one_connection(hosts: DemoHosts) -> None:
    assert (
        in_another_process(
            hosts,
            """
        running = []
        for number in range(24):
            stdin, stdout, stderr = client.exec_command(f"cat; head -c 1000000 /dev/zero; exit {number}")
            running.append((number, stdin, stdout))
        for number, stdin, stdout in reversed(running):
            stdin.write(b"x" * number)
            stdin.channel.shutdown_write()
            assert len(stdout.read()) == 1000000 + number
            assert stdout.channel.recv_exit_status() == number
        print("all")
        client.close()
        """,
        )
        == "all\n"
    )


def test_commands_are_quick_keepalives_are_answered_and_tunnels_refused(hosts: DemoHosts) -> None:
    assert in_another_process(
        hosts,
        """
        begun = time.monotonic()
        for _ in range(50):
            stdin, stdout, stderr = client.exec_command("exit 3")
            assert stdout.channel.recv_exit_status() == 3
        assert time.monotonic() - begun < 10
        transport = client.get_transport()
        assert transport.global_request("keepalive@openssh.com", wait=True) is None
        try:
            transport.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 1))
        except paramiko.ChannelException as refused:
            print(refused.code)
        assert transport.is_active()
        client.close()
        """,
    ).endswith("1\n")


def test_a_second_command_on_one_channel_is_refused(hosts: DemoHosts) -> None:
    assert (
        in_another_process(
            hosts,
            """
        channel = client.get_transport().open_session()
        channel.exec_command("cat")
        try:
            channel.exec_command("echo twice")
        except (paramiko.SSHException, EOFError):
            print("refused")
        client.close()
        """,
        )
        == "refused\n"
    )


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_a_host_started_outlives_it(tmp_path: Path, number: signal.Signals) -> None:
    with DemoHosts(1, tmp_path / "hosts") as hosts:
        token = in_another_process(
            hosts,
            """
            client.exec_command("sleep 1000")
            daemon = "setsid sleep 1000 </dev/null >/dev/null 2>&1 &" if os.path.exists("/usr/bin/setsid") else "sleep 1000 &"
            stdin, stdout, stderr = client.exec_command(f"sleep 1000 & {daemon} echo $DEPLOYCTL_DEMO_HOST")
            print(stdout.readline(), end="", flush=True)
            os._exit(0)
            """,
        )
        server = hosts.pids["web01"]
        below = proc.descendants([server])
        mark = f"DEPLOYCTL_DEMO_HOST={token.strip()}"
        wait_until(lambda: len(proc.marked(mark)) >= 2, what="the start of both")
        os.kill(server, number)
        wait_until(lambda: not proc.marked(mark), what="the end of what the host started")
        wait_until(lambda: not any(child.alive() for child in below), what="the end of the host")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_hosts_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    script = """
import sys, time, pathlib
from deployctl.demo.hosts import DemoHosts
with DemoHosts(2, pathlib.Path(sys.argv[1])) as hosts:
    print("on", flush=True)
    time.sleep(1000)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "hosts")], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "on\n"
        below = proc.descendants([parent.pid])
        assert len(below) == 4  # two servers, two guards
        parent.send_signal(number)
        parent.wait(timeout=10)
    wait_until(lambda: not any(child.alive() for child in below), what="the end of the hosts")
