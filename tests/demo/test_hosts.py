from __future__ import annotations

import io
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from deployctl.demo import full_disk
from deployctl.demo.hosts import DemoHosts, install_hint, missing_tools
from deployctl.errors import DeployctlError


def banner(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        return link.recv(4)


def test_the_inventory_leads_to_hosts_that_are_there_and_nothing_is_left(tmp_path: Path) -> None:
    with DemoHosts(3, tmp_path / 'a "directory"') as hosts:
        said = yaml.safe_load(hosts.inventory.read_text(encoding="utf-8"))
        entries = said["groups"]["web"]["hosts"]
        assert said["app"] == "demo"
        assert [entry["name"] for entry in entries] == ["web01", "web02", "web03"]
        for entry in entries:
            assert banner(entry["port"]) == b"SSH-"
            root = Path(said["path"].replace("{host}", entry["name"]))
            assert root == hosts.roots[entry["name"]]
            assert root.is_dir()
            assert f"[127.0.0.1]:{entry['port']} ssh-ed25519 " in hosts.known_hosts.read_text(
                encoding="ascii"
            )
        assert stat.S_IMODE(hosts.identity_file.stat().st_mode) == 0o600
        assert Path(said["ssh"]["identity_file"]) == hosts.identity_file
        assert Path(said["ssh"]["known_hosts"]) == hosts.known_hosts
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_there_keeps_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with DemoHosts(1, tmp_path):
        assert (tmp_path / "web01").is_dir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_keep(tmp_path: Path) -> None:
    with DemoHosts(1, tmp_path / "hosts", keep=True) as hosts:
        port = hosts.ports["web01"]
    assert hosts.roots["web01"].is_dir()
    with pytest.raises(ConnectionRefusedError):
        banner(port)


def test_a_host_can_go_down_and_come_back_on_its_port(tmp_path: Path) -> None:
    with DemoHosts(1, tmp_path / "hosts") as hosts:
        port = hosts.ports["web01"]
        hosts.break_host("web01", "down")
        with pytest.raises(ConnectionRefusedError):
            banner(port)
        hosts.mend_host("web01")
        assert hosts.ports["web01"] == port
        assert banner(port) == b"SSH-"
        hosts.break_host("web01", "frozen")


def test_a_host_that_cannot_start_is_told_with_its_reason(tmp_path: Path) -> None:
    with DemoHosts(1, tmp_path / "hosts") as hosts:
        hosts.break_host("web01", "down")
        with (
            socket.create_server(("127.0.0.1", hosts.ports["web01"])),
            pytest.raises(DeployctlError, match=r"web01 did not start: .*in use"),
        ):
            hosts.mend_host("web01")


def test_full_disk_leaves_half_a_file_and_says_so(tmp_path: Path) -> None:
    answer = io.BytesIO()
    sent = io.BytesIO(b"T1 0 1 0\nC0644 10 part.01\n0123456789\0")
    assert full_disk.receive("no-space", str(tmp_path), sent, answer) == 1
    target = tmp_path / "part.01"
    assert target.read_bytes() == b"01234"
    assert answer.getvalue() == f"\0\0\0\1scp: {target}: No space left on device\n".encode()


@pytest.mark.skipif(not shutil.which("scp"), reason="needs scp")
@pytest.mark.parametrize(
    ("how", "said"), [("no-space", "No space left on device"), ("not-permitted", "Permission denied")]
)
def test_the_real_scp_understands_a_broken_host(tmp_path: Path, how: full_disk.How, said: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(1_000_000))
    with DemoHosts(1, tmp_path / "hosts") as hosts:
        command = ["scp", "-O", "-F", "/dev/null", "-o", f"UserKnownHostsFile={hosts.known_hosts}"]
        command += ["-i", str(hosts.identity_file), "-P", str(hosts.ports["web01"]), "-o", "BatchMode=yes"]
        command += [str(source), f"127.0.0.1:{hosts.roots['web01']}/arrived"]
        hosts.break_host("web01", how)
        broken = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if "unknown option" in broken.stderr:
            pytest.skip("this scp is older than the choice of a protocol")
        assert broken.returncode == 1
        assert said in broken.stderr
        hosts.mend_host("web01")
        assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_missing_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert missing_tools() == []
    for tool in ("sh", "tar", "shasum"):
        (tmp_path / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_tools() == ["scp", "gzip"]
    assert "missing here: scp, gzip\nDebian" in install_hint(missing_tools())
