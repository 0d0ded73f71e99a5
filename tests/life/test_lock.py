"""The lock: one run at a time on a host, all hosts or none, gone with its run, proved in the command that switches."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
from pathlib import Path

import pytest

from deployctl.host.lock import LEASE_S
from tests.release.conftest import MakeLab
from tests.release.lab import Lab, Place, tool_directory
from tests.release.running import Running
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd

KINDS = ["flock", "lease"]


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, make_lab: MakeLab, tmp_path: Path) -> Lab:
    """Two hosts, with flock and without."""
    if request.param == "flock":
        return make_lab(2)
    tools = tool_directory(tmp_path / "tools", without=["flock"])
    return make_lab(2, path=f"{{}}:{tools}")


def owner(place: Place) -> str:
    path = place.root / ".deployctl/lock.owner"
    return path.read_text() if path.exists() else ""


def holder(lab: Lab, site: Path, env: dict[str, str] | None = None) -> tuple[Running, Path]:
    """A run that holds the locks of all hosts, and the file that keeps it in the middle of staging on h02."""
    sign = lab["h02"].hold("stage")
    running = lab.start("push", site, env=env)
    running.wait_for_host("h02", "stage")
    return running, sign


@pytest.mark.hosts(3)
def test_the_second_run_is_refused_and_told_who_holds_it(lab: Lab, site: Path, tmp_path: Path) -> None:
    running, sign = holder(lab, site, env={"CI_JOB_URL": "https://ci.example.com/job/7"})
    run = running.events[0]["run"]
    assert [place.runs_left for place in lab] == [[run]] * 2
    other = make_site(tmp_path / "other", "other")
    refused = lab.push(other)
    assert (refused.code, refused.outcome) == (12, "refused")
    assert [place.runs_left for place in lab] == [[run]] * 2  # what the holder uploads is not swept
    name, code, message = refused.failure("h01")
    assert (name, code) == ("probe", 50)
    for part in (
        getpass.getuser(),
        socket.gethostname(),
        f"process {running.process.pid}",
        f"run {run}",
        "since 20",
    ):
        assert part in message
    assert "job https://ci.example.com/job/7" in message
    [line] = [event for event in refused.of("h01") if event["state"] == "failed"]
    assert "--wait-lock" in line["data"]["hint"]
    assert lab.push(other, "--dry-run").outcome == "planned"  # takes no lock and needs none
    sign.unlink()
    assert running.finish().code == 0
    assert lab.live == lab.serves(running.events[-1]["release"])
    assert all(owner(place) == "" for place in lab)


def test_all_or_none(lab: Lab, site: Path, tmp_path: Path) -> None:
    """Only h02 is held: h01, locked by then, is given back, and keeps nothing of the run that was refused."""
    sign = lab["h02"].hold("stage")
    running = lab.start("push", site, "--limit", "h02")
    running.wait_for_host("h02", "stage")
    refused = lab.push(make_site(tmp_path / "other", "other"))
    assert (refused.code, refused.failure("h02")[1]) == (12, 50)
    assert refused.states == {"h01": "cancelled", "h02": "failed"}
    assert owner(lab["h01"]) == ""
    assert lab["h01"].incoming == []
    assert lab.push(tmp_path / "other", "--limit", "h01").code == 0
    sign.unlink()
    assert running.finish().code == 0


def test_waiting_for_the_lock(lab: Lab, site: Path, tmp_path: Path) -> None:
    running, sign = holder(lab, site)
    other = make_site(tmp_path / "other", "other")
    waiting = lab.start("push", other, "--wait-lock", "1m")
    wait_until(lambda: "waiting for the lock that another run holds" in waiting.stderr(), 30, "its word")
    assert running.process.poll() is None
    sign.unlink()
    assert running.finish().code == 0
    done = waiting.finish()
    assert done.code == 0
    assert lab.live == lab.serves(done.release)


def test_a_wait_has_an_end(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    lab = make_lab(2)
    running, sign = holder(lab, site)
    refused = lab.push(make_site(tmp_path / "other", "other"), "--wait-lock", "1500ms")
    assert refused.code == 12
    sign.unlink()
    assert running.finish().code == 0


def test_a_killed_holder_leaves_no_lock_that_needs_a_person(lab: Lab, site: Path, tmp_path: Path) -> None:
    running, sign = holder(lab, site)
    running.signal(signal.SIGKILL)
    running.process.wait()
    sign.unlink()
    lab["h02"].mend()
    done = lab.push(
        make_site(tmp_path / "other", "other"), "--limit", "h02"
    )  # a dead lease is waited for anyhow
    assert done.code == 0, done.hosts
    assert lab["h02"].runs_left == []
    assert owner(lab["h02"]) == ""


def test_a_cut_connection_frees_the_lock(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    lab = make_lab(2)
    running, sign = holder(lab, site)
    lab.servers[1].kill_sessions()
    failed = running.finish()
    sign.unlink()
    lab["h02"].mend()
    assert failed.failure("h02")[1] == 20
    assert lab.push(make_site(tmp_path / "other", "other")).code == 0


def lock_processes(lab: Lab, name: str) -> list[int]:
    """The process group that h's lock.owner names, as the kernel knows it."""
    group = int(owner(lab[name]).split()[1])
    [server] = [server for server in lab.servers if server.name == name]
    return [pid for pid in server.command_pids() if group_of(pid) == group]


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:  # it has ended meanwhile
        return None


def test_a_lock_lost_in_the_middle_refuses_the_switch(lab: Lab, site: Path) -> None:
    old = lab.push(site).release
    make_site(site, "two")
    running, sign = holder(lab, site)
    assert lock_processes(lab, "h02")

    def gone() -> bool:  # looked at again, since a process may start another between the look and its end
        pids = lock_processes(lab, "h02")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # some of them only look at the others for a moment
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(gone, 5, "their end")
    sign.unlink()
    failed = running.finish()
    assert failed.code in {20, 21}
    assert failed.failure("h02")[1] == 50
    assert "lost" in failed.failure("h02")[2]
    assert lab.live == lab.serves(old)
    lab["h02"].mend()
    assert lab.push(site, "--wait-lock", "1m").code == 0


def test_a_lock_taken_by_another_refuses_the_switch(make_lab: MakeLab, site: Path) -> None:
    """Our holder is dead and another run has the lock by now: its name stands there."""
    lab = make_lab(1)
    sign = lab["h01"].hold("activate")
    running = lab.start("push", site)
    running.wait_for_host("h01", "activate")
    path = lab["h01"].root / ".deployctl/lock.owner"
    path.write_text("0123456789abcdef 1 {}\n")
    sign.unlink()
    failed = running.finish()
    assert failed.failure("h01")[:2] == ("activate", 50)
    assert "taken by another" in failed.failure("h01")[2]
    assert lab.live == lab.everywhere(None)
    assert path.read_text() == "0123456789abcdef 1 {}\n"  # not ours to remove


def test_a_live_lease_is_never_taken(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    """A holder that beats is waited out by nobody, however long it takes."""
    tools = tool_directory(tmp_path / "tools", without=["flock"])
    lab = make_lab(1, path=f"{{}}:{tools}")
    sign = lab["h01"].hold("stage")
    running = lab.start("push", site)
    running.wait_for_host("h01", "stage")
    beat = lab["h01"].root / ".deployctl/lock.d/beat"
    first = beat.read_text()
    refused = lab.push(make_site(tmp_path / "other", "other"))
    assert refused.code == 12
    assert beat.read_text() != first
    sign.unlink()
    assert running.finish().code == 0
    assert not beat.parent.exists()


def test_the_lock_is_given_back_after_every_end(lab: Lab, site: Path) -> None:
    lab["h02"].gate("stage")
    assert lab.push(site).code == 20
    assert all(owner(place) == "" for place in lab)
    lab["h02"].gate("activate")
    lab["h02"].gate("stage", ":")
    assert lab.push(site).code == 21
    assert all(owner(place) == "" for place in lab)
    lab["h02"].mend()
    assert lab.push(site).code == 0
    assert lab.push(site).outcome == "unchanged"
    assert all(place.incoming == [] for place in lab)
    assert not any((place.root / ".deployctl/lock.d").exists() for place in lab)
    lab.assert_idle()


@pytest.mark.timeout(120)
def test_the_leases_of_a_dead_run_end_together(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    """Three hosts, which are locked in two steps, cost the time of one lease."""
    tools = tool_directory(tmp_path / "tools", without=["flock"])
    lab = make_lab(3, path=f"{{}}:{tools}")
    running, sign = holder(lab, site)
    running.signal(signal.SIGKILL)
    running.process.wait()
    sign.unlink()
    lab["h02"].mend()
    lab.assert_idle()
    beats = [(place.root / ".deployctl/lock.d/beat").read_text() for place in lab]
    assert len(beats) == 3
    done = lab.push(make_site(tmp_path / "other", "other"), timeout_s=90)
    assert done.code == 0, done.hosts
    assert LEASE_S <= done.seconds < 1.7 * LEASE_S
    assert not any((place.root / ".deployctl/lock.d").exists() for place in lab)


def test_an_own_lease_is_taken_again_at_once(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    """It went with a connection; the run's next command on that host does not wait for itself."""
    tools = tool_directory(tmp_path / "tools", without=["flock"])
    lab = make_lab(2, path=f"{{}}:{tools}")
    sign = lab["h01"].hold("stage")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage", "ok")
    running.wait_for_host("h01", "stage")
    lab.servers[1].kill_sessions()
    sign.unlink()
    done = running.finish()
    assert done.code == 0, done.hosts
    assert done.seconds < LEASE_S / 2
    assert lab.live == lab.serves(done.release)
