"""What push's options do, seen from outside."""

from __future__ import annotations

import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.artifact.trees import tool
from tests.release.conftest import MakeLab
from tests.release.lab import HALF_A_FILE, Lab
from tests.release.trees import listing, make_site, walk

pytestmark = pytest.mark.sshd


@pytest.mark.hosts(3)
def test_a_dry_run_changes_nothing_anywhere(lab: Lab, site: Path) -> None:
    planned = lab.push(site, "--dry-run")
    assert (planned.code, planned.outcome) == (0, "planned")
    assert all(list(place.root.iterdir()) == [] for place in lab)
    [plan] = {json.dumps(planned.of(name)[-1]["data"], sort_keys=True) for name in lab.names}
    data = json.loads(plan)
    assert data["action"] == "upload"
    assert data["bytes_to_send"] > 0
    assert (data["from"], data["to"]) == (None, planned.release)
    assert (data["added"], data["changed"], data["removed"]) == (len(walk(site)), 0, 0)


@pytest.mark.hosts(3)
def test_a_dry_run_compares_with_what_is_live(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    (site / "new").write_text("")
    (site / "link").unlink()
    before = {place.name: listing(place.root) for place in lab}
    planned = lab.push(site, "--dry-run")
    assert planned.outcome == "planned"
    data = planned.of("h01")[-1]["data"]
    assert (data["from"], data["to"]) == (one.release, planned.release)
    assert (data["added"], data["changed"], data["removed"]) == (1, 1, 1)
    make_site(site, "one")
    (site / "new").unlink()
    unchanged = lab.push(site, "--dry-run")
    assert unchanged.of("h01")[-1]["data"]["action"] == "unchanged"
    assert {place.name: listing(place.root) for place in lab} == before
    assert planned.bytes_sent == unchanged.bytes_sent == 0


@pytest.mark.hosts(2)
def test_a_dry_run_with_a_tolerated_failure(lab: Lab, site: Path) -> None:
    lab.servers[1].stop()
    planned = lab.push(site, "--dry-run", "--max-failures", "1")
    assert (planned.code, planned.outcome) == (22, "planned")
    assert {name: host["code"] for name, host in planned.hosts.items()} == {"h01": 0, "h02": 10}
    assert planned.of("h01")[-1]["data"]["action"] == "upload"
    assert "mend" not in planned.last
    assert "deployctl: error: h02: " in planned.stderr


@pytest.mark.hosts(3)
def test_limit(lab: Lab, site: Path) -> None:
    pushed = lab.push(site, "--limit", "h01,h03")
    assert set(pushed.hosts) == {"h01", "h03"}
    assert lab.live == {**lab.serves(pushed.release), "h02": None}
    assert "Connection from" not in lab.servers[1].log.read_text()
    nobody = lab.push(site, "--limit", "h09")
    assert nobody.code == 2


def test_two_forks_carry_seven_hosts(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(7)
    sign = lab["h04"].hold("stage.tar")
    running = lab.start("push", site, "--forks", "2")
    running.wait_for_host("h04", "stage")
    assert len(running.named("worker")) == 2
    sign.unlink()
    pushed = running.finish()
    assert pushed.code == 0
    assert lab.live == lab.serves(pushed.release)


@pytest.mark.parametrize(("allowed", "failing", "code"), [("1", 1, 22), ("20%", 1, 22), ("20%", 2, 20)])
def test_failures_within_the_limit_leave_those_hosts_behind(
    make_lab: MakeLab, site: Path, allowed: str, failing: int, code: int
) -> None:
    lab = make_lab(5)
    one = lab.push(site)
    make_site(site, "two")
    broken = lab.names[1 : 1 + failing]
    for name in broken:
        lab[name].gate("none.scp", HALF_A_FILE)
    two = lab.push(site, "--max-failures", allowed)
    assert two.code == code
    if code == 20:
        assert lab.live == lab.serves(one.release)
        return
    assert two.outcome == "mixed"
    behind = dict.fromkeys(broken, f"releases/{one.release}")
    assert lab.live == {**lab.serves(two.release), **behind}
    assert {name for name, state in two.states.items() if state == "failed"} == set(broken)
    assert two.serving == {name: (text or "").removeprefix("releases/") for name, text in lab.live.items()}
    if allowed == "1":
        lab[broken[0]].mend()
        joined = lab.push(site)
        assert (joined.code, joined.release) == (0, two.release)
        assert lab.live == lab.serves(two.release)


def test_nothing_is_tolerated_once_a_host_has_switched(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    lab["h02"].gate("activate.mv")
    failed = lab.push(site, "--max-failures", "2")
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == lab.serves(one.release)


@pytest.mark.parametrize("wrong", ["x", "101%"])
def test_a_wrong_limit_of_failures_is_wrong_usage(lab: Lab, site: Path, wrong: str) -> None:
    refused = lab.push(site, f"--max-failures={wrong}")
    assert refused.code == 2
    assert "--max-failures" in refused.stderr


def test_force_releases_the_same_tree_again_under_a_new_id_and_sends_nothing(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    two = lab.push(site, "--force")
    assert (two.code, two.outcome, two.bytes_sent) == (0, "released", 0)
    assert two.release != one.release
    assert two.release[-8:] == one.release[-8:]
    assert lab.live == lab.serves(two.release)
    assert all(place.releases == [one.release, two.release] for place in lab)
    assert walk(lab["h01"].root / "current/") == walk(site)


def test_activate_takes_a_prefix_of_the_digest(lab: Lab, site: Path) -> None:
    staged = lab.push(site, "--no-activate", "--message", "x")
    assert staged.release in staged.last["activate"]
    done = lab.activate(staged.release[-8:-2])
    assert (done.code, done.release) == (0, staged.release)
    assert lab.live == lab.serves(staged.release)
    assert lab.activate(staged.release).outcome == "unchanged"


@pytest.mark.parametrize(
    ("wanted", "code"), [("20200101T000000Z-00000000", 20), ("abcdef01", 20), ("no id", 2), ("abc", 2)]
)
def test_activate_of_what_no_host_holds(lab: Lab, site: Path, wanted: str, code: int) -> None:
    one = lab.push(site)
    refused = lab.activate(wanted)
    assert refused.code == code
    assert lab.live == lab.serves(one.release)
    assert all(place.runs_left == [] for place in lab)


@pytest.mark.hosts(3)
def test_activate_on_hosts_one_of_which_lacks_the_release(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    two = lab.push(site, "--no-activate", "--limit", "h01,h02")
    refused = lab.activate(two.release)
    assert refused.code == 20
    assert "does not hold" in refused.failure("h03")[2]
    assert lab.live == lab.serves(one.release)
    assert lab.activate(two.release, "--limit", "!h03").code == 0


@pytest.mark.hosts(3)
def test_an_activation_later_reverts_as_one_at_once(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    two = lab.push(site, "--no-activate")
    lab["h03"].gate("activate.mv")
    failed = lab.activate(two.release)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == lab.serves(one.release)


def git(directory: Path, *arguments: str) -> None:
    names = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main")
    subprocess.run(
        [tool("git"), *names, *arguments],
        cwd=directory,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_ref_of_a_repository_is_what_was_committed(lab: Lab, site: Path) -> None:
    git(site, "init")
    git(site, "add", ".")
    git(site, "commit", "-m", "one")
    git(site, "tag", "v1")
    (site / "index.html").write_text("not committed")
    (site / "untracked").write_text("")
    pushed = lab.push(site, "--ref", "v1")
    assert pushed.code == 0
    root = lab["h02"].root / "current"
    assert (root / "index.html").read_text() == "<p>one</p>\n"
    assert not (root / "untracked").exists()
    assert not (root / ".git").exists()
    refused = lab.push(site, "--ref", "v2")
    assert refused.code == 11
    assert lab.live == lab.serves(pushed.release)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "zip", "file"])
def test_archives_and_single_files(lab: Lab, site: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"build.{kind}"
    if kind == "file":
        source.write_text("#!/bin/sh\n")
    elif kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(site / "index.html", "index.html")
    else:
        with tarfile.open(source, "w" if kind == "tar" else "w:gz") as tar:
            tar.add(site, ".")
    pushed = lab.push(source, "--limit", "h01")
    assert pushed.code == 0
    there = walk(lab["h01"].root / "current/")
    if kind == "file":
        assert list(there) == [b"build.file"]
    elif kind == "zip":
        assert list(there) == [b"index.html"]
    else:
        assert there == walk(site)


def test_an_empty_source(lab: Lab, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = lab.push(empty)
    assert (refused.code, refused.outcome) == (11, "refused")
    assert "--allow-empty" in refused.stderr
    pushed = lab.push(empty, "--allow-empty")
    assert pushed.code == 0
    assert lab.live == lab.serves(pushed.release)
    assert walk(lab["h01"].root / "current/") == {}
    assert lab.push(empty, "--allow-empty").outcome == "unchanged"


@pytest.mark.parametrize("what", ["absent", "pipe", "escaping link", "setuid"])
def test_a_source_that_can_not_be_packed_contacts_no_host(lab: Lab, site: Path, what: str) -> None:
    import os

    if what == "pipe":
        os.mkfifo(site / "pipe")
    elif what == "escaping link":
        (site / "out").symlink_to("../../etc/passwd")
    elif what == "setuid":
        (site / "app/run.sh").chmod(0o4755)
    else:
        site = site / "nothing here"
    refused = lab.push(site)
    assert (refused.code, refused.outcome) == (11, "refused")
    assert set(refused.states.values()) <= {"skipped"}
    assert all("Connection from" not in server.log.read_text() for server in lab.servers)


def test_an_inventory_that_is_wrong(lab: Lab, site: Path) -> None:
    lab.inventory.write_text("app: [")
    refused = lab.push(site)
    assert (refused.code, refused.outcome) == (10, "refused")
