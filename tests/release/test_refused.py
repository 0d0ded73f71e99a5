"""Hosts that can't be released to, each with its code, and nothing changed on the others."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import Lab, tool_directory
from tests.release.running import Pushed
from tests.release.trees import listing, make_site
from tests.support.inventory import InventoryFor
from tests.support.sshd import SshdFarm, login_user

pytestmark = pytest.mark.sshd


def assert_refused(lab: Lab, failed: Pushed, phase: str, code: int, *words: str) -> None:
    """h02 failed like this, and no host has anything on its disk that was not there."""
    said, number, message = failed.failure("h02")
    assert (said, number) == (phase, code), message
    for word in words:
        assert word in f"{message} {failed.stderr}"
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert {failed.states["h01"], failed.states["h03"]} <= {"cancelled", "skipped"}
    assert lab.live == lab.everywhere(None)


@pytest.mark.hosts(3)
def test_a_wrong_host_key(lab: Lab, site: Path) -> None:
    known = lab.inventory.with_name("known_hosts")
    keys = [server.host_key.public for server in lab.servers]
    known.write_text(known.read_text().replace(keys[1], keys[0]))
    failed = lab.push(site)
    assert_refused(lab, failed, "connect", 12, "key")
    assert not (lab["h02"].root / ".deployctl").exists()


@pytest.mark.hosts(3)
def test_a_changed_host_key_is_never_tolerated(lab: Lab, site: Path) -> None:
    known = lab.inventory.with_name("known_hosts")
    keys = [server.host_key.public for server in lab.servers]
    known.write_text(known.read_text().replace(keys[1], keys[0]))
    failed = lab.push(site, "--max-failures", "2")
    assert_refused(lab, failed, "connect", 12)


@pytest.mark.hosts(3)
def test_a_refused_login(lab: Lab, site: Path) -> None:
    (lab.servers[1].directory / "authorized_keys").write_text("")
    assert_refused(lab, lab.push(site), "connect", 13, login_user())


def test_a_refused_port_is_tried_again_and_told_within_a_few_seconds(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(3, ssh={"retries": 2})
    lab.servers[1].stop_listener()
    failed = lab.push(site)
    assert_refused(lab, failed, "connect", 10, "refused", "3 attempts")
    assert failed.seconds < 10


@pytest.mark.hosts(3)
@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (("scp",), "scp"),
        (("tar",), "tar"),
        (("sha256sum", "shasum"), "sha256sum"),
        (("gzip", "zstd"), "gzip"),
    ],
)
def test_a_missing_tool_is_told_before_anything_is_sent(
    lab: Lab, site: Path, tmp_path: Path, absent: tuple[str, ...], named: str
) -> None:
    tools = tool_directory(tmp_path / "tools", without=absent)
    lab["h02"].program("sh", f'#!/bin/sh\nPATH={tools} exec /bin/sh "$@"\n')
    failed = lab.push(site)
    assert_refused(lab, failed, "probe", 30, named, "apt-get install")
    assert not (lab["h02"].root / ".deployctl").exists()


@pytest.mark.hosts(3)
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_current_that_is_no_link(lab: Lab, site: Path, kind: str) -> None:
    current = lab["h02"].root / "current"
    current.mkdir() if kind == "directory" else current.write_text("mine")
    before = listing(lab["h02"].root)
    failed = lab.push(site)
    assert_refused(lab, failed, "probe", 32, kind, "move it away")
    assert listing(lab["h02"].root) == before
    assert all(place.releases == [] for place in lab)


@pytest.mark.hosts(3)
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_current_that_stops_being_a_link_while_it_is_staged(lab: Lab, site: Path, kind: str) -> None:
    one = lab.push(site)
    make_site(site, "two")
    sign = lab["h02"].hold("stage.tar")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage")
    current = lab["h02"].root / "current"
    current.unlink()
    current.mkdir() if kind == "directory" else current.write_text("mine")
    sign.unlink()
    failed = running.finish()
    assert failed.failure("h02")[:2] == ("activate", 32)
    assert failed.states["h01"] == failed.states["h03"] == "reverted"
    assert {name: lab.live[name] for name in ("h01", "h03")} == {
        "h01": f"releases/{one.release}",
        "h03": f"releases/{one.release}",
    }
    assert current.is_dir() or current.read_text() == "mine"
    assert not current.is_symlink()
    assert not (current / "current").exists()


def test_a_newer_layout_is_left_alone(lab: Lab, site: Path) -> None:
    ours = lab["h02"].root / ".deployctl"
    ours.mkdir()
    (ours / "version").write_text("2\n")
    before = listing(lab["h02"].root)
    failed = lab.push(site)
    assert failed.failure("h02")[0] == "probe"
    assert "newer" in failed.stderr
    assert listing(lab["h02"].root) == before
    assert lab.live == lab.everywhere(None)
    assert failed.code == 20


@pytest.mark.hosts(3)
def test_a_deploy_root_that_can_not_be_made(lab: Lab, site: Path, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    lab.edit("h02", path=str(tmp_path / "a file/shop"))
    assert_refused(lab, lab.push(site), "probe", 32, "not a directory")


def test_keys_that_are_new_are_written_down_once(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(3, ssh={"host_keys": "accept-new"})
    known = lab.inventory.with_name("known_hosts")
    expected = sorted(known.read_text().split("\n"))
    known.write_text("")
    assert lab.push(site).code == 0
    assert sorted(known.read_text().split("\n")) == expected
    before = known.read_text()
    assert lab.push(site).outcome == "unchanged"
    assert known.read_text() == before


def test_two_hosts_at_one_address_with_different_paths(
    sshd_farm: SshdFarm, inventory_for: InventoryFor, make_lab: MakeLab, site: Path
) -> None:
    lab = make_lab(2, ssh={"host_keys": "accept-new"})
    one, two = lab.servers
    lab.inventory.with_name("known_hosts").write_text("")
    lab.edit("h02", address=one.address, port=one.port)
    pushed = lab.push(site)
    assert pushed.code == 0
    assert lab.live == lab.serves(pushed.release)
    assert lab.inventory.with_name("known_hosts").read_text() == one.known_hosts_lines
    lab["h02"].root.joinpath("current").unlink()
    assert lab.push(site).code == 0
    assert "Accepted" not in two.log.read_text()


@pytest.mark.hosts(3)
def test_a_host_that_freezes_ends_by_the_time_limit(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    lab["h02"].hold("stage.tar")
    running = lab.start("push", site, "--timeout", "3s")
    running.wait_for_host("h02", "stage")
    frozen_at = time.monotonic()
    lab.servers[1].freeze()
    ended = running.finish(timeout_s=40)
    assert time.monotonic() - frozen_at < 3 + 10
    lab.servers[1].thaw()
    phase, code, message = ended.failure("h02")
    assert (phase, code) == ("stage", 11)
    assert "3 s" in message
    assert (ended.code, lab.live) == (20, lab.serves(one.release))


def test_an_upload_to_a_host_that_freezes_ends_by_the_time_limit(lab: Lab, site: Path) -> None:
    lab["h02"].hold("none.scp")
    running = lab.start("push", site, "--timeout", "2s")
    running.wait_for_host("h02", "upload")
    ended = running.finish(timeout_s=20)
    assert ended.failure("h02")[:2] == ("upload", 11)
    assert "--timeout" in ended.stderr
    assert ended.seconds < 2 + 10
    assert lab.live == lab.everywhere(None)


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("dry", [True, False], ids=["dry", "real"])
def test_a_history_that_is_a_directory(lab: Lab, site: Path, first: bool, dry: bool) -> None:
    """Found by the first look, not by the switch: no other host is changed for it."""
    if not first:
        assert lab.push(site).code == 0
        make_site(site, "two")
    before = lab.live
    history = lab["h02"].root / ".deployctl/history.jsonl"
    history.unlink(missing_ok=True)
    history.mkdir(parents=True)
    failed = lab.push(site, *(["--dry-run"] if dry else []))
    assert failed.failure("h02")[:2] == ("probe", 32)
    assert "is not a file" in failed.failure("h02")[2]
    assert f"mv {history} {history}.before" in failed.stderr
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert lab.live == before
    history.rmdir()
    assert lab.push(site).code == 0


def test_a_history_that_can_not_be_written(lab: Lab, site: Path, read_only: Callable[[Path], None]) -> None:
    old = lab.push(site).release
    history = lab["h02"].root / ".deployctl/history.jsonl"
    read_only(history)
    failed = lab.push(make_site(site, "two"))
    said, code, message = failed.failure("h02")
    assert (said, code) == ("probe", 32)
    if login_user() == "root":
        assert f"{history} is not writable, not even for root: its file system is read-only" in message
    else:
        assert f"{history} is not writable for {login_user()}" in message
        assert "chown" in failed.stderr
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert lab.live == lab.serves(old)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a file one that can't be written, for root as well."""
    mounted: list[Path] = []

    def make(path: Path) -> None:
        path.chmod(0o444)
        if os.getuid() == 0:
            done = subprocess.run(["mount", "--bind", path, path], check=False, capture_output=True)
            if done.returncode:
                pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
            mounted.append(path)
            subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", path], check=True)
